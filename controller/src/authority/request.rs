//! What is taken from a certificate request: one P-256 public key, after the request's own signature proved that the
//! caller holds its private half. At most 4 KiB are looked at; names, extensions and attributes are never read.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256,
};
use x509_parser::prelude::FromDer;

use super::AuthorityError;

/// Bytes of a certificate request, as the contract says.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// DER of a P-256 SubjectPublicKeyInfo up to the point (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point.
const POINT_BYTES: usize = 65;

/// Why a certificate request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More than [`REQUEST_BYTES_MAX`].
    #[error("certificate_signing_request: is larger than 4096 bytes")]
    TooLarge,
    /// Not one PKCS#10 structure.
    #[error("certificate_signing_request: is not one DER-encoded PKCS#10 request")]
    Malformed,
    /// Another kind of key.
    #[error("certificate_signing_request: its key is not an uncompressed P-256 key")]
    Key,
    /// Signed with something else, or by someone else.
    #[error("certificate_signing_request: its signature does not prove possession of its key")]
    Signature,
}

/// The public key of a leaf to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafKey(SubjectPublicKeyInfo);

impl LeafKey {
    /// The key of a request in DER.
    ///
    /// # Errors
    /// The first rule that the request breaks.
    pub fn from_request(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLarge);
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let info = &request.certification_request_info;
        let algorithm = &info.subject_pki.algorithm;
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|one| one.as_oid().ok());
        let point = &info.subject_pki.subject_public_key;
        let fits = algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
            && curve == Some(OID_EC_P256)
            && point.unused_bits == 0
            && point.data.len() == POINT_BYTES
            && point.data[0] == 4;
        if !fits {
            return Err(RequestError::Key);
        }
        let signed = &request.signature_algorithm;
        // RFC 5758 section 3.2: the parameters are absent.
        let fits = signed.algorithm == OID_SIG_ECDSA_WITH_SHA256
            && signed.parameters.is_none()
            && request.signature_value.unused_bits == 0;
        if !fits {
            return Err(RequestError::Signature);
        }
        // Also refuses a point that is not on the curve.
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point.data[..])
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| RequestError::Signature)?;
        Self::from_point(&point.data).map_err(|_| RequestError::Key)
    }

    /// The public half of a P-256 key of our own.
    ///
    /// # Errors
    /// When it is no P-256 key.
    pub fn of(key: &rcgen::KeyPair) -> Result<Self, AuthorityError> {
        Ok(Self::from_point(key.public_key_raw())?)
    }

    /// The encoding is ours, whatever the caller's was.
    fn from_point(point: &[u8]) -> Result<Self, rcgen::Error> {
        let der = [&SPKI_PREFIX, point].concat();
        SubjectPublicKeyInfo::from_der(&der).map(Self)
    }

    pub(super) fn spki(&self) -> &(impl PublicKeyData + use<>) {
        &self.0
    }
}
