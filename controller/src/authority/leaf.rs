//! What a leaf says: everything but the key is chosen here (SPIFFE X.509-SVID sections 2 to 5, RFC 5280).

use std::time::Duration;

use aws_lc_rs::rand;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SerialNumber,
};
use ringmail_proto::identity::SpiffeId;
use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use super::request::LeafKey;
use super::signing::Signing;
use super::{AuthorityError, BACKDATE};

/// Random bytes of a serial number.
const SERIAL_BYTES: usize = 16;

pub(super) fn sign(
    key: &LeafKey,
    id: &SpiffeId,
    signing: &Signing,
    now: UnixTime,
    valid_for: Duration,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let names = vec![SanType::URI(id.as_str().try_into()?)];
    let mut params = params(names, now, valid_for)?;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let leaf = params.signed_by(key.spki(), &signing.issuer)?;
    Ok(leaf.der().clone())
}

/// A server's, for those who know it by DNS names. It is no SVID: no proxy takes it.
pub(super) fn sign_named(
    key: &LeafKey,
    names: &[String],
    signing: &Signing,
    now: UnixTime,
    valid_for: Duration,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let dns = |name: &String| Ok(SanType::DnsName(name.as_str().try_into()?));
    let names = names.iter().map(dns).collect::<Result<_, rcgen::Error>>()?;
    let mut params = params(names, now, valid_for)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = params.signed_by(key.spki(), &signing.issuer)?;
    Ok(leaf.der().clone())
}

fn params(
    names: Vec<SanType>,
    now: UnixTime,
    valid_for: Duration,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    // Without a subject the SAN extension is critical, as RFC 5280 wants.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    params.not_before = moment(now.as_secs().saturating_sub(BACKDATE.as_secs()))?;
    params.not_after = moment(now.as_secs() + valid_for.as_secs())?;
    Ok(params)
}

pub(super) fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; SERIAL_BYTES];
    rand::fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    Ok(SerialNumber::from_slice(&bytes))
}

pub(super) fn moment(seconds: u64) -> Result<OffsetDateTime, AuthorityError> {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(AuthorityError::Expired)
}
