//! The checked types as they travel. What this version does not understand is part of its object, which then refuses.

use jsonwebtoken::{Algorithm, AlgorithmFamily};

use super::keys::Keys;
use super::{
    AUDIENCES_MAX, Authentication, CLAIMS_TO_HEADERS_MAX, ClaimToHeader, ISSUERS_MAX, Issuer,
    PLACES_MAX, Place,
};
use crate::policy::wire::{at_most, claim_name, header_name, numbers, ports, short, some, unknown};
use crate::{Invalid, pb};

/// Headers that frame a message, or that are read by somebody before the app is.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Only proxies of the mesh set headers that begin so.
const RESERVED_PREFIX: &str = "x-ringmail-";
/// Where a token is, unless somebody says otherwise (RFC 6750 section 2.1).
const BEARER: (&str, &str) = ("authorization", "Bearer ");

impl TryFrom<pb::RequestAuthentication> for Authentication {
    type Error = Invalid;

    fn try_from(wire: pb::RequestAuthentication) -> Result<Self, Invalid> {
        let inside = |error: Invalid| error.inside("authentications");
        Ok(Self {
            name: short("name", wire.name).map_err(inside)?.into(),
            ports: ports("ports", &wire.ports).map_err(inside)?,
            issuers: issuers(wire.issuers),
        })
    }
}

impl From<&Authentication> for pb::RequestAuthentication {
    fn from(checked: &Authentication) -> Self {
        // Without an issuer, it is none that could be acted on.
        Self {
            name: checked.name.to_string(),
            ports: numbers(&checked.ports),
            issuers: checked.issuers.iter().flatten().map(Into::into).collect(),
        }
    }
}

fn issuers(wire: Vec<pb::JwtIssuer>) -> Result<Vec<Issuer>, Invalid> {
    at_most("issuers", wire.len(), ISSUERS_MAX)?;
    let all = wire.into_iter().enumerate();
    let all = all.map(|(n, one)| {
        one.try_into()
            .map_err(|e: Invalid| e.inside(&format!("issuers[{n}]")))
    });
    let all: Vec<Issuer> = some("issuers", all.collect::<Result<_, _>>()?)?;
    for (n, one) in all.iter().enumerate() {
        if all[..n].iter().any(|other| other.issuer == one.issuer) {
            return Err(Invalid::new(
                format!("issuers[{n}].issuer"),
                "is there twice",
            ));
        }
    }
    Ok(all)
}

impl TryFrom<pb::JwtIssuer> for Issuer {
    type Error = Invalid;

    fn try_from(wire: pb::JwtIssuer) -> Result<Self, Invalid> {
        at_most("audiences", wire.audiences.len(), AUDIENCES_MAX)?;
        at_most("places", wire.places.len(), PLACES_MAX)?;
        at_most(
            "claims_to_headers",
            wire.claims_to_headers.len(),
            CLAIMS_TO_HEADERS_MAX,
        )?;
        let audiences = wire.audiences.into_iter();
        let audiences = audiences.map(|one| filled("audiences", one));
        let algorithms = wire.algorithms.iter().map(|one| algorithm(one));
        let places = wire.places.into_iter().map(Place::try_from);
        let mut places = places.collect::<Result<Vec<_>, _>>()?;
        if places.is_empty() {
            places.push(Place::Header {
                name: BEARER.0.to_owned(),
                prefix: BEARER.1.to_owned(),
            });
        }
        let headers = wire.claims_to_headers.into_iter();
        Ok(Self {
            issuer: filled("issuer", wire.issuer)?,
            audiences: some("audiences", audiences.collect::<Result<_, _>>()?)?,
            keys: match wire.jwks.is_empty() {
                true => Keys::default(),
                false => Keys::parse(&wire.jwks)?,
            },
            keys_from: wire.jwks_uri,
            are_keys_awaited: wire.jwks_awaited,
            algorithms: algorithms.collect::<Result<_, _>>()?,
            places,
            forward: wire.forward,
            claims_to_headers: headers
                .map(ClaimToHeader::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Issuer> for pb::JwtIssuer {
    fn from(checked: &Issuer) -> Self {
        Self {
            issuer: checked.issuer.clone(),
            audiences: checked.audiences.clone(),
            jwks: checked.keys.as_str().as_bytes().to_vec(),
            jwks_uri: checked.keys_from.clone(),
            jwks_awaited: checked.are_keys_awaited,
            algorithms: checked
                .algorithms
                .iter()
                .map(|one| format!("{one:?}"))
                .collect(),
            places: checked.places.iter().map(Into::into).collect(),
            forward: checked.forward,
            claims_to_headers: checked.claims_to_headers.iter().map(Into::into).collect(),
        }
    }
}

/// A secret that both sides share would be one that every proxy has, and could sign with.
fn algorithm(name: &str) -> Result<Algorithm, Invalid> {
    let refused = || {
        Invalid::new(
            "algorithms",
            "are of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA",
        )
    };
    let known: Algorithm = name.parse().map_err(|_| refused())?;
    match known.family() {
        AlgorithmFamily::Rsa | AlgorithmFamily::Ec | AlgorithmFamily::Ed => Ok(known),
        AlgorithmFamily::Hmac => Err(refused()),
    }
}

impl TryFrom<pb::TokenPlace> for Place {
    type Error = Invalid;

    fn try_from(wire: pb::TokenPlace) -> Result<Self, Invalid> {
        use pb::token_place::Kind;
        match wire.kind.ok_or_else(|| unknown("places"))? {
            Kind::Header(header) => Ok(Self::Header {
                name: free("places", header.name)?,
                prefix: short("places", header.prefix)?,
            }),
            Kind::Cookie(name) => plain("places", name).map(Self::Cookie),
            Kind::QueryParameter(name) => plain("places", name).map(Self::Query),
        }
    }
}

impl From<&Place> for pb::TokenPlace {
    fn from(checked: &Place) -> Self {
        use pb::token_place::Kind;
        let kind = match checked.clone() {
            Place::Header { name, prefix } => Kind::Header(pb::TokenHeader { name, prefix }),
            Place::Cookie(name) => Kind::Cookie(name),
            Place::Query(name) => Kind::QueryParameter(name),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::ClaimToHeader> for ClaimToHeader {
    type Error = Invalid;

    fn try_from(wire: pb::ClaimToHeader) -> Result<Self, Invalid> {
        let header = free("claims_to_headers", wire.header)?;
        if header == BEARER.0 {
            return Err(Invalid::new(
                "claims_to_headers",
                "authorization is no header to make",
            ));
        }
        Ok(Self {
            claim: claim_name(&wire.claim)?,
            header,
        })
    }
}

impl From<&ClaimToHeader> for pb::ClaimToHeader {
    fn from(checked: &ClaimToHeader) -> Self {
        Self {
            claim: checked.claim.join("."),
            header: checked.header.clone(),
        }
    }
}

/// A header's name that means nothing to whoever carries the message.
fn free(field: &str, name: String) -> Result<String, Invalid> {
    let name = header_name(name).map_err(|e| e.inside(field))?;
    if RESERVED.contains(&name.as_str()) || name.starts_with(RESERVED_PREFIX) {
        return Err(Invalid::new(
            field,
            format!("{name} is no header for a token or a claim"),
        ));
    }
    Ok(name)
}

/// A name that is written as it is in a cookie and in a query.
fn plain(field: &str, name: String) -> Result<String, Invalid> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(Invalid::new(
            field,
            "a name has something else than letters, digits and -._~",
        ));
    }
    short(field, name)
}

fn filled(field: &str, text: String) -> Result<String, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "is empty"));
    }
    short(field, text)
}
