//! Where tokens are in a request, and the request without. A name that is written with escapes is another name: such a
//! token is none of ours.

use ringmail_proto::policy::authentication::{BadToken, Place};

use crate::http::neutral::{Fields, Request, put_field};

/// A token, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) place: &'a Place,
    /// Of its field, unless it is in the query.
    field: Option<usize>,
    pub(super) token: &'a [u8],
}

/// The only token in any of these places.
pub(super) fn find<'a>(
    places: impl Iterator<Item = &'a Place> + Clone,
    request: Request<'a>,
    fields: Fields<'a>,
) -> Result<Option<Found<'a>>, BadToken> {
    let mut found: Option<Found<'a>> = None;
    let mut see = |one: Found<'a>| match &found {
        None => {
            found = Some(one);
            Ok(())
        }
        // Several issuers look there.
        Some(other) if std::ptr::eq(other.token, one.token) && other.place == one.place => Ok(()),
        Some(_) => Err(BadToken("is not the only one")),
    };
    for place in places {
        if let Place::Query(name) = place {
            for (_, token) in parameters(request.target).filter(|(found, _)| found == name) {
                let token = token.as_bytes();
                see(Found {
                    place,
                    field: None,
                    token,
                })?;
            }
            continue;
        }
        for (at, (name, value)) in fields.into_iter().enumerate() {
            for token in tokens(place, name, value) {
                see(Found {
                    place,
                    field: Some(at),
                    token,
                })?;
            }
        }
    }
    Ok(found)
}

/// The tokens of a field, if it is one of that place.
fn tokens<'a>(
    place: &'a Place,
    name: &[u8],
    value: &'a [u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let (whole, cookies) = match place {
        Place::Header { name, prefix } if is(name) => (after(prefix, value), None),
        Place::Cookie(wanted) if is("cookie") => (None, Some(wanted.as_bytes())),
        Place::Header { .. } | Place::Cookie(_) | Place::Query(_) => (None, None),
    };
    let cookies = cookies.into_iter().flat_map(|wanted| {
        pairs(value).filter_map(move |(name, token)| (name == wanted).then_some(token))
    });
    whole.into_iter().chain(cookies)
}

/// What is behind the prefix, in any case. A scheme alone is a token that is empty.
fn after<'a>(prefix: &str, value: &'a [u8]) -> Option<&'a [u8]> {
    let scheme = prefix.trim_end().as_bytes();
    let (found, rest) = value.trim_ascii().split_at_checked(scheme.len())?;
    let ends = scheme.len() == prefix.len() || rest.first().is_none_or(u8::is_ascii_whitespace);
    (found.eq_ignore_ascii_case(scheme) && ends).then(|| rest.trim_ascii())
}

/// The cookies of a field (RFC 6265 section 5.4).
fn pairs(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|b| *b == b';').map(|pair| {
        let equals = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let token = pair.get(equals + 1..).unwrap_or_default();
        (pair[..equals].trim_ascii(), token.trim_ascii())
    })
}

/// The parameters of a target.
fn parameters(target: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = target.split_once('?').map(|(_, query)| query);
    let parameters = query.into_iter().flat_map(|query| query.split('&'));
    parameters.map(|one| one.split_once('=').unwrap_or((one, "")))
}

/// A request's head in neutral form, without a token and without fields that are `made` here.
pub(super) fn without(
    taken: Option<&Found<'_>>,
    request: Request<'_>,
    fields: Fields<'_>,
    is_made: impl Fn(&[u8]) -> bool,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(1024);
    match taken.map(|taken| taken.place) {
        Some(Place::Query(name)) => Request {
            target: &without_parameter(request.target, name),
            ..request
        }
        .encode(&mut head),
        Some(Place::Header { .. } | Place::Cookie(_)) | None => request.encode(&mut head),
    }
    for (at, (name, value)) in fields.into_iter().enumerate() {
        let taken = taken.filter(|taken| taken.field == Some(at));
        match taken.map(|taken| taken.place) {
            _ if is_made(name) => {}
            None => put_field(&mut head, name, value),
            Some(Place::Cookie(cookie)) => {
                let rest = without_cookie(value, cookie);
                if !rest.is_empty() {
                    put_field(&mut head, name, &rest);
                }
            }
            Some(Place::Header { .. } | Place::Query(_)) => {}
        }
    }
    head
}

fn without_parameter(target: &str, name: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let others = query
        .split('&')
        .filter(|one| one.split('=').next() != Some(name));
    let others: Vec<&str> = others.collect();
    match others.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", others.join("&")),
    }
}

fn without_cookie(value: &[u8], name: &str) -> Vec<u8> {
    let is_other = |pair: &&[u8]| {
        let mut pairs = pairs(pair);
        pairs
            .next()
            .is_none_or(|(found, _)| found != name.as_bytes())
    };
    let others = value.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let others: Vec<&[u8]> = others.filter(is_other).collect();
    others.join(&b"; "[..])
}
