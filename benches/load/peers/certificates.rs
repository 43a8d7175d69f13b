//! An authority for one pair, and a leaf for each proxy, on P-256 as Ringmail's are.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

/// What each side demands of the other.
const NAME: &str = "mesh.local";

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Files of one proxy, in PEM, readable by all: they last as long as the bench.
pub(crate) struct Leaf {
    /// One file, as HAProxy wants it; the others stop at the end of the certificate.
    pub(crate) certificate_and_key: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) authority: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        Ok(Self(CertifiedIssuer::self_signed(params, key)?))
    }

    /// A new leaf, its files in `directory`.
    pub(crate) fn leaf(&self, directory: &Path) -> anyhow::Result<Leaf> {
        let mut params = CertificateParams::new([NAME.to_owned()])?;
        // OpenSSL takes a leaf of the same name as its authority for self-signed.
        params.distinguished_name = named("leaf");
        let identity = format!("spiffe://{NAME}/ns/shop/sa/bench");
        params
            .subject_alt_names
            .push(SanType::URI(identity.try_into()?));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.0)?;
        let leaf = Leaf {
            certificate_and_key: directory.join("leaf.pem"),
            key: directory.join("leaf.key"),
            authority: directory.join("authority.pem"),
        };
        fs::write(
            &leaf.certificate_and_key,
            certificate.pem() + &key.serialize_pem(),
        )?;
        fs::write(&leaf.key, key.serialize_pem())?;
        fs::write(&leaf.authority, self.0.pem())?;
        Ok(leaf)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
