//! What changes in a message, and what is answered instead. Nothing here may touch its framing, its connection or who the
//! mesh says it is from.

use super::{at_most, checked_path, short, token, unknown};
use crate::route::{HeaderEdits, MESH_PREFIX, PARTS_MAX, PathEdit, Redirect, RequestEdits};
use crate::{Invalid, pb, target};

/// Fields that routes may not touch: framing, the connection, the authority.
const RESERVED: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl RequestEdits {
    pub(super) fn from_wire(wire: pb::RequestEdits) -> Result<Self, Invalid> {
        Ok(Self {
            headers: HeaderEdits::from_wire(wire.headers.unwrap_or_default())?,
            host: host("host", wire.host)?,
            path: wire.path.map(PathEdit::from_wire).transpose()?,
        })
    }
}

impl From<&RequestEdits> for pb::RequestEdits {
    fn from(checked: &RequestEdits) -> Self {
        Self {
            headers: Some((&checked.headers).into()),
            host: checked.host.clone().unwrap_or_default(),
            path: checked.path.as_ref().map(Into::into),
        }
    }
}

impl PathEdit {
    pub(super) fn from_wire(wire: pb::PathEdit) -> Result<Self, Invalid> {
        use pb::path_edit::Kind;
        match wire.kind {
            Some(Kind::Full(full)) => Ok(Self::Full(checked_path("path.full", full)?)),
            Some(Kind::Prefix(prefix)) if prefix.is_empty() => Ok(Self::Prefix(prefix)),
            Some(Kind::Prefix(prefix)) => Ok(Self::Prefix(checked_path("path.prefix", prefix)?)),
            None => Err(unknown("path")),
        }
    }
}

impl From<&PathEdit> for pb::PathEdit {
    fn from(checked: &PathEdit) -> Self {
        use pb::path_edit::Kind;
        let kind = match checked {
            PathEdit::Full(full) => Kind::Full(full.clone()),
            PathEdit::Prefix(prefix) => Kind::Prefix(prefix.clone()),
        };
        Self { kind: Some(kind) }
    }
}

impl HeaderEdits {
    pub(super) fn from_wire(wire: pb::HeaderEdits) -> Result<Self, Invalid> {
        for (field, count) in [
            ("set", wire.set.len()),
            ("add", wire.add.len()),
            ("remove", wire.remove.len()),
        ] {
            at_most(field, count, PARTS_MAX)?;
        }
        let headers = |field: &'static str, all: Vec<pb::Header>| {
            let one = |one: pb::Header| {
                let name = editable(field, &one.name)?;
                if !one
                    .value
                    .bytes()
                    .all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
                {
                    return Err(Invalid::new(
                        field,
                        format!("{name} has a value that is not visible ASCII"),
                    ));
                }
                Ok((name, short(field, one.value)?))
            };
            all.into_iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        let remove = wire.remove.iter();
        Ok(Self {
            set: headers("set", wire.set)?,
            add: headers("add", wire.add)?,
            remove: remove
                .map(|name| editable("remove", name))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&HeaderEdits> for pb::HeaderEdits {
    fn from(checked: &HeaderEdits) -> Self {
        let headers = |all: &[(String, String)]| {
            let header = |(name, value): &(String, String)| pb::Header {
                name: name.clone(),
                value: value.clone(),
            };
            all.iter().map(header).collect()
        };
        Self {
            set: headers(&checked.set),
            add: headers(&checked.add),
            remove: checked.remove.clone(),
        }
    }
}

impl Redirect {
    pub(super) fn from_wire(wire: pb::Redirect) -> Result<Self, Invalid> {
        let scheme = match wire.scheme.as_str() {
            "" => None,
            "http" | "https" => Some(wire.scheme),
            _ => return Err(Invalid::new("redirect.scheme", "is neither http nor https")),
        };
        let status = match wire.status {
            301 => 301,
            302 => 302,
            303 => 303,
            307 => 307,
            308 => 308,
            _ => return Err(Invalid::new("redirect.status", "is no redirect")),
        };
        let port = match wire.port {
            0 => None,
            port => Some(crate::workload::port("redirect.port", port)?.get()),
        };
        Ok(Self {
            scheme,
            host: host("redirect.host", wire.host)?,
            port,
            path: wire.path.map(PathEdit::from_wire).transpose()?,
            status,
        })
    }
}

impl From<&Redirect> for pb::Redirect {
    fn from(checked: &Redirect) -> Self {
        Self {
            scheme: checked.scheme.clone().unwrap_or_default(),
            host: checked.host.clone().unwrap_or_default(),
            port: checked.port.map_or(0, u32::from),
            path: checked.path.as_ref().map(Into::into),
            status: checked.status.into(),
        }
    }
}

fn editable(field: &str, name: &str) -> Result<String, Invalid> {
    let name = token(field, name)?;
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || lower.starts_with(MESH_PREFIX) {
        return Err(Invalid::new(
            field,
            format!("{name} is not a route's to change"),
        ));
    }
    Ok(name)
}

/// A name without a port (Gateway API, `PreciseHostname`), in the form that the far proxy takes.
fn host(field: &str, text: String) -> Result<Option<String>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if text.len() > 253 || !text.bytes().all(allowed) {
        return Err(Invalid::new(field, "is no host name"));
    }
    if !target::is_normal_host(text.as_bytes()) {
        let problem = "is no host name: a label is empty, or the last one a number";
        return Err(Invalid::new(field, problem));
    }
    Ok(Some(text))
}
