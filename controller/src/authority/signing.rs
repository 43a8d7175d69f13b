//! The certificates and keys that sign: made here, or given as PEM files.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use ringmail_proto::identity::TrustDomain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::leaf::{moment, serial};
use super::{AuthorityError, BACKDATE};
use crate::config::GivenAuthority;
use crate::files;

/// Bytes of a PEM file.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// What signs leaves.
pub(super) struct Signing {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// The issuer's certificate and those above it, without the root; empty when the root signs.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Of the first that ends, seconds since the Unix epoch.
    pub(super) not_after: u64,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Signing {
    /// Whether leaves of both look the same to those who verify them. Two roots that sign by themselves have the same
    /// chain, which is none.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.chain == other.chain
            && self.issuer.key().public_key_raw() == other.issuer.key().public_key_raw()
    }
}

/// A certificate of an authority, with its key.
pub(super) struct Pair {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) key: KeyPair,
}

impl Pair {
    pub(super) fn read(path: &Path) -> Result<Self, AuthorityError> {
        let pem = read_pem(path)?;
        Self::parse(&path.display().to_string(), &pem, &pem)
    }

    /// Of texts that came from `origin`.
    pub(super) fn parse(origin: &str, cert: &[u8], key: &[u8]) -> Result<Self, AuthorityError> {
        let pair = Self {
            certificates: certificates(origin, cert)?,
            key: private_key(origin, key)?,
        };
        let (_, own) = parse(origin, &pair.certificates[0])?;
        if own.public_key().raw != pair.key.subject_public_key_info() {
            return Err(material(
                origin,
                "holds a key that is not its certificate's",
            ));
        }
        Ok(pair)
    }

    /// As it is kept: certificates, then the key.
    pub(super) fn to_pem(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(to_pem(&self.certificates));
        text.push_str(&Zeroizing::new(self.key.serialize_pem()));
        text
    }

    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, AuthorityError> {
        let key = KeyPair::try_from(self.key.serialized_der())?;
        Ok(Issuer::from_ca_cert_der(&self.certificates[0], key)?)
    }

    /// Start and end of validity of the first certificate.
    pub(super) fn validity(&self) -> Result<(u64, u64), AuthorityError> {
        validity("authority certificate", &self.certificates[0])
    }
}

/// What a new authority certificate is to be.
pub(super) struct NewAuthority<'a> {
    pub(super) title: &'a str,
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) path_length: u8,
    pub(super) now: UnixTime,
    pub(super) lifetime: Duration,
    /// Seconds since the Unix epoch that it must not outlive.
    pub(super) not_after_max: u64,
}

impl NewAuthority<'_> {
    /// SPIFFE X.509-SVID section 4: CA, keyCertSign, a SPIFFE ID without a path.
    fn params(&self) -> Result<CertificateParams, AuthorityError> {
        let number = serial()?;
        let id = files::hex(&number.to_bytes()[..4]);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Ringmail");
        // Distinct for each key, since a chain is looked up by name.
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{} {id}", self.title));
        let uri = format!("spiffe://{}", self.trust_domain);
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(self.path_length));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(number);
        let now = self.now.as_secs();
        params.not_before = moment(now.saturating_sub(BACKDATE.as_secs()))?;
        params.not_after = moment((now + self.lifetime.as_secs()).min(self.not_after_max))?;
        Ok(params)
    }

    pub(super) fn self_signed(&self) -> Result<Pair, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = self.params()?.self_signed(&key)?;
        Ok(Pair {
            certificates: vec![certificate.der().clone()],
            key,
        })
    }

    pub(super) fn signed_by(
        &self,
        issuer: &Issuer<'static, KeyPair>,
    ) -> Result<Pair, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = self.params()?.signed_by(&key, issuer)?;
        Ok(Pair {
            certificates: vec![certificate.der().clone()],
            key,
        })
    }
}

/// PEM texts of an authority made elsewhere, each with what names it.
pub struct IssuerPem {
    /// Issuer and intermediates.
    pub issuer_cert: (String, Vec<u8>),
    /// The issuer's private key.
    pub issuer_key: (String, Zeroizing<Vec<u8>>),
    /// Roots.
    pub root_cert: (String, Vec<u8>),
}

impl fmt::Debug for IssuerPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerPem({})", self.issuer_cert.0)
    }
}

impl IssuerPem {
    pub(super) fn read(files: &GivenAuthority) -> Result<Self, AuthorityError> {
        let name = |path: &Path| path.display().to_string();
        Ok(Self {
            issuer_cert: (
                name(&files.issuer_cert),
                read_pem(&files.issuer_cert)?.to_vec(),
            ),
            issuer_key: (name(&files.issuer_key), read_pem(&files.issuer_key)?),
            root_cert: (name(&files.root_cert), read_pem(&files.root_cert)?.to_vec()),
        })
    }

    /// What signs, and the roots above it.
    pub(super) fn open(&self) -> Result<(Signing, Vec<CertificateDer<'static>>), AuthorityError> {
        let (root_name, root_pem) = &self.root_cert;
        let (name, pem) = &self.issuer_cert;
        let (key_name, key_pem) = &self.issuer_key;
        let roots = certificates(root_name, root_pem)?;
        let pair = Pair {
            certificates: certificates(name, pem)?,
            key: private_key(key_name, key_pem)?,
        };
        let (_, own) = parse(name, &pair.certificates[0])?;
        if own.public_key().raw != pair.key.subject_public_key_info() {
            return Err(material(
                key_name,
                "is not the key of the issuer certificate",
            ));
        }
        if !own.is_ca() {
            return Err(material(
                name,
                "does not begin with an authority's certificate",
            ));
        }
        let mut not_after = u64::MAX;
        for certificate in &pair.certificates {
            not_after = not_after.min(validity(name, certificate)?.1);
        }
        let mut root_end = 0;
        for root in &roots {
            root_end = root_end.max(validity(root_name, root)?.1);
        }
        let issuer = pair.issuer()?;
        let mut chain = pair.certificates;
        chain.retain(|certificate| !roots.contains(certificate));
        let signing = Signing {
            issuer,
            chain,
            not_after: not_after.min(root_end),
        };
        Ok((signing, roots))
    }
}

pub(crate) fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let block = |der: &CertificateDer<'_>| pem::encode(&pem::Pem::new("CERTIFICATE", der.to_vec()));
    certificates.iter().map(block).collect()
}

fn read_pem(path: &Path) -> Result<Zeroizing<Vec<u8>>, AuthorityError> {
    files::read(path, PEM_BYTES_MAX)
        .map(Zeroizing::new)
        .map_err(|source| AuthorityError::File {
            path: path.display().to_string(),
            source,
        })
}

pub(super) fn certificates(
    origin: &str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|e| material(origin, &format!("is not PEM: {e}")))?;
    if found.is_empty() {
        return Err(material(origin, "holds no certificate"));
    }
    Ok(found)
}

fn private_key(origin: &str, pem: &[u8]) -> Result<KeyPair, AuthorityError> {
    let der = PrivateKeyDer::from_pem_slice(pem)
        .map_err(|e| material(origin, &format!("holds no private key: {e}")))?;
    KeyPair::try_from(&der).map_err(|e| material(origin, &format!("holds an unusable key: {e}")))
}

pub(super) fn validity(
    origin: &str,
    certificate: &CertificateDer<'_>,
) -> Result<(u64, u64), AuthorityError> {
    let (_, parsed) = parse(origin, certificate)?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = parsed.validity();
    Ok((seconds(validity.not_before), seconds(validity.not_after)))
}

fn parse<'a>(
    origin: &str,
    certificate: &'a CertificateDer<'_>,
) -> Result<(&'a [u8], X509Certificate<'a>), AuthorityError> {
    X509Certificate::from_der(certificate)
        .map_err(|e| material(origin, &format!("holds a malformed certificate: {e}")))
}

fn material(origin: &str, problem: &str) -> AuthorityError {
    AuthorityError::Material {
        path: origin.into(),
        problem: problem.into(),
    }
}
