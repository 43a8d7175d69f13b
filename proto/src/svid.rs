//! Is this certificate chain an X.509-SVID that we trust, and whose?
//!
//! One pure function decides for the controller and the proxies alike. webpki verifies the chain; the leaf's own fields
//! are read by x509-parser, and where both parsers read the same field (the SPIFFE ID) they must agree, so a
//! certificate that two readers would understand differently is refused. Section numbers are those of the SPIFFE
//! X.509-SVID standard.

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::bundle::TrustBundle;
use crate::identity::SpiffeId;

/// Bytes of one certificate of a chain.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
/// Certificates between the leaf and the root.
pub const INTERMEDIATES_MAX: usize = 4;

/// The fields of a leaf that matter to a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    /// Whose it is.
    pub id: SpiffeId,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// Start of validity, seconds since the Unix epoch.
    pub not_before: i64,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
}

/// Which end of a connection the certificate speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end that dialled.
    Client,
    /// The end that answered.
    Server,
}

/// Why a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// Not a certificate, or larger than we read.
    #[error("certificate is malformed or too large")]
    Malformed,
    /// Section 2: exactly one URI SAN.
    #[error("certificate has {0} URI names, where an X.509-SVID has exactly one")]
    UriNames(usize),
    /// Section 2: the URI is a SPIFFE ID (and one of the form this mesh issues).
    #[error("certificate does not name a workload of a mesh")]
    NotSpiffe,
    /// Section 4.1: a leaf is no CA.
    #[error("certificate is one of an authority, not of a workload")]
    Authority,
    /// Section 4.3: digitalSignature and neither keyCertSign nor cRLSign.
    #[error("certificate has a key usage that a workload must not have")]
    KeyUsage,
    /// No root of the trust domain that the certificate names.
    #[error("trust domain {0} is unknown here")]
    UnknownTrustDomain(String),
    /// No root of its trust domain signed the chain.
    #[error("certificate was not signed by an authority of its trust domain")]
    UnknownIssuer,
    /// Past its end.
    #[error("certificate has expired")]
    Expired,
    /// Before its start.
    #[error("certificate is not valid yet")]
    NotYetValid,
    /// Anything else that the chain verification found.
    #[error("certificate chain is invalid: {0}")]
    Chain(webpki::Error),
    /// A valid identity, but not the one that was to answer.
    #[error("peer is {found}, expected {expected}")]
    WrongIdentity {
        /// Whom the caller wanted.
        expected: SpiffeId,
        /// Who answered.
        found: SpiffeId,
    },
}

impl Svid {
    /// Verifies a chain against the bundle and returns the identity that it proves at `now`.
    ///
    /// # Errors
    /// The first rule that the chain breaks.
    pub fn verify(
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        bundle: &TrustBundle,
        role: Role,
        now: UnixTime,
    ) -> Result<Self, SvidError> {
        if intermediates.len() > INTERMEDIATES_MAX
            || intermediates
                .iter()
                .any(|one| one.len() > CERTIFICATE_BYTES_MAX)
        {
            return Err(SvidError::Malformed);
        }
        let svid = Self::read(leaf)?;
        let domain = svid.id.trust_domain();
        let anchors = bundle
            .anchors(&domain)
            .ok_or_else(|| SvidError::UnknownTrustDomain(domain.to_string()))?;
        let usage = match role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let algorithms = crate::tls::signature_algorithms().all;
        let end_entity = EndEntityCert::try_from(leaf).map_err(|_| SvidError::Malformed)?;
        end_entity.verify_for_usage(algorithms, &anchors, intermediates, now, usage, None, None)?;
        Ok(svid)
    }

    /// Reads a leaf whose chain is verified elsewhere: our own, or one from a finished handshake.
    ///
    /// # Errors
    /// When the leaf is not an X.509-SVID of our form.
    pub fn read(leaf: &CertificateDer<'_>) -> Result<Self, SvidError> {
        if leaf.len() > CERTIFICATE_BYTES_MAX {
            return Err(SvidError::Malformed);
        }
        let (rest, parsed) = X509Certificate::from_der(leaf).map_err(|_| SvidError::Malformed)?;
        if !rest.is_empty() {
            return Err(SvidError::Malformed);
        }
        check_usage(&parsed)?;
        let uri = the_uri(&parsed)?;
        let end_entity = EndEntityCert::try_from(leaf).map_err(|_| SvidError::Malformed)?;
        if !end_entity.valid_uri_names().eq([uri]) {
            return Err(SvidError::Malformed);
        }
        Ok(Self {
            id: uri.parse().map_err(|_| SvidError::NotSpiffe)?,
            serial: parsed
                .raw_serial()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}

/// The one URI name; malformed ones count too.
fn the_uri<'a>(parsed: &'a X509Certificate<'_>) -> Result<&'a str, SvidError> {
    let san = parsed
        .subject_alternative_name()
        .map_err(|_| SvidError::Malformed)?;
    let names = san.map_or(&[][..], |san| &san.value.general_names);
    if names
        .iter()
        .any(|name| matches!(name, GeneralName::Invalid(..)))
    {
        return Err(SvidError::Malformed);
    }
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri),
        (None, _) => Err(SvidError::UriNames(0)),
        (Some(_), more) => Err(SvidError::UriNames(1 + more)),
    }
}

fn check_usage(parsed: &X509Certificate<'_>) -> Result<(), SvidError> {
    let constraints = parsed
        .basic_constraints()
        .map_err(|_| SvidError::Malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(SvidError::Authority);
    }
    let usage = parsed
        .key_usage()
        .map_err(|_| SvidError::Malformed)?
        .ok_or(SvidError::KeyUsage)?;
    let fits = usage.critical
        && usage.value.digital_signature()
        && !usage.value.key_cert_sign()
        && !usage.value.crl_sign();
    if !fits {
        return Err(SvidError::KeyUsage);
    }
    let unreadable =
        |extension: &ParsedExtension<'_>| matches!(extension, ParsedExtension::ParseError { .. });
    if parsed
        .extensions()
        .iter()
        .any(|one| unreadable(one.parsed_extension()))
    {
        return Err(SvidError::Malformed);
    }
    Ok(())
}

impl From<webpki::Error> for SvidError {
    fn from(error: webpki::Error) -> Self {
        match error {
            webpki::Error::CertExpired { .. } => Self::Expired,
            webpki::Error::CertNotValidYet { .. } => Self::NotYetValid,
            webpki::Error::UnknownIssuer => Self::UnknownIssuer,
            other => Self::Chain(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, KeyUsagePurpose, SanType,
    };

    use super::*;

    const NOW: u64 = 1_800_000_000;

    struct Ca(CertifiedIssuer<'static, KeyPair>);

    fn key() -> KeyPair {
        KeyPair::generate().expect("P-256 key")
    }

    fn ca(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ca(CertifiedIssuer::self_signed(params, key()).expect("CA"))
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("IA5"))
    }

    fn at(offset: i64) -> time::OffsetDateTime {
        time::OffsetDateTime::from_unix_timestamp(i64::try_from(NOW).expect("fits") + offset)
            .expect("in range")
    }

    /// A leaf that breaks nothing.
    fn good() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("spiffe://mesh.local/ns/shop/sa/cart")];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.not_before = at(-300);
        params.not_after = at(3600);
        params
    }

    fn verdict(ca: &Ca, trusted: &Ca, params: &CertificateParams) -> Result<Svid, SvidError> {
        let leaf = params.signed_by(&key(), &ca.0).expect("signed");
        let bundle = TrustBundle::single(
            "mesh.local".parse().expect("domain"),
            vec![trusted.0.der().clone()],
        )
        .expect("bundle");
        Svid::verify(
            leaf.der(),
            &[],
            &bundle,
            Role::Server,
            UnixTime::since_unix_epoch(Duration::from_secs(NOW)),
        )
    }

    #[test]
    fn a_chain_is_as_long_as_may_be_and_no_longer() {
        let ca = ca("root");
        let leaf = good().signed_by(&key(), &ca.0).expect("signed");
        let domain = "mesh.local".parse().expect("domain");
        let bundle = TrustBundle::single(domain, vec![ca.0.der().clone()]).expect("bundle");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
        let verify = |chain: &[CertificateDer<'_>]| {
            Svid::verify(leaf.der(), chain, &bundle, Role::Client, now).map(|_| ())
        };
        let root = ca.0.der();
        assert_eq!(verify(&vec![root.clone(); INTERMEDIATES_MAX]), Ok(()));
        let more = vec![root.clone(); INTERMEDIATES_MAX + 1];
        assert_eq!(verify(&more), Err(SvidError::Malformed));
        let large = CertificateDer::from(vec![0; CERTIFICATE_BYTES_MAX + 1]);
        assert_eq!(
            verify(std::slice::from_ref(&large)),
            Err(SvidError::Malformed)
        );
        assert!(matches!(Svid::read(&large), Err(SvidError::Malformed)));
    }

    #[test]
    fn one_broken_rule_each() {
        type Edit = fn(&mut CertificateParams);
        let rows: &[(&str, Edit, Option<SvidError>)] = &[
            ("good", |_| {}, None),
            (
                "a DNS name beside the URI",
                |p| {
                    p.subject_alt_names
                        .push(SanType::DnsName("a.b".try_into().expect("IA5")))
                },
                None,
            ),
            (
                "no name",
                |p| p.subject_alt_names.clear(),
                Some(SvidError::UriNames(0)),
            ),
            (
                "two",
                |p| {
                    p.subject_alt_names
                        .push(uri("spiffe://mesh.local/ns/a/sa/b"))
                },
                Some(SvidError::UriNames(2)),
            ),
            (
                "two, one no SPIFFE ID",
                |p| p.subject_alt_names.push(uri("https://a")),
                Some(SvidError::UriNames(2)),
            ),
            (
                "https",
                |p| p.subject_alt_names = vec![uri("https://mesh.local/ns/a/sa/b")],
                Some(SvidError::NotSpiffe),
            ),
            (
                "root path",
                |p| p.subject_alt_names = vec![uri("spiffe://mesh.local")],
                Some(SvidError::NotSpiffe),
            ),
            (
                "NUL",
                |p| p.subject_alt_names = vec![uri("spiffe://mesh.local/ns/a/sa/b\0")],
                Some(SvidError::NotSpiffe),
            ),
            (
                "foreign",
                |p| p.subject_alt_names = vec![uri("spiffe://other/ns/a/sa/b")],
                Some(SvidError::UnknownTrustDomain("other".into())),
            ),
            (
                "a CA",
                |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
                Some(SvidError::Authority),
            ),
            (
                "no key usage",
                |p| p.key_usages.clear(),
                Some(SvidError::KeyUsage),
            ),
            (
                "keyCertSign",
                |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
                Some(SvidError::KeyUsage),
            ),
            (
                "cRLSign",
                |p| p.key_usages.push(KeyUsagePurpose::CrlSign),
                Some(SvidError::KeyUsage),
            ),
            (
                "no digitalSignature",
                |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement],
                Some(SvidError::KeyUsage),
            ),
            (
                "expired",
                |p| p.not_after = at(-1),
                Some(SvidError::Expired),
            ),
            (
                "early",
                |p| p.not_before = at(1),
                Some(SvidError::NotYetValid),
            ),
        ];
        let ours = ca("ours");
        for (what, edit, expected) in rows {
            let mut params = good();
            edit(&mut params);
            assert_eq!(verdict(&ours, &ours, &params).err(), *expected, "{what}");
        }
    }

    #[test]
    fn only_server_certificates_answer() {
        let ours = ca("ours");
        let mut params = good();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        assert!(matches!(
            verdict(&ours, &ours, &params),
            Err(SvidError::Chain(_))
        ));
    }

    #[test]
    fn other_authorities_are_unknown() {
        assert_eq!(
            verdict(&ca("theirs"), &ca("ours"), &good()),
            Err(SvidError::UnknownIssuer)
        );
    }

    #[test]
    fn garbage_is_refused() {
        for len in [0, 1, 100, CERTIFICATE_BYTES_MAX + 1] {
            assert_eq!(
                Svid::read(&CertificateDer::from(vec![0x30; len])),
                Err(SvidError::Malformed)
            );
        }
    }
}
