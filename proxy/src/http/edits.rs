//! Changes of a head that somebody asked for, field by field and in order. Pure.

use std::borrow::Cow;

use super::neutral::{Fields, Response, put_field};

/// One field that comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
    pub(crate) how: How,
}

/// What becomes of fields of that name that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// They stay.
    Append,
    /// They go.
    Set,
    /// If there is one, it stays and nothing comes.
    IfAbsent,
    /// If there is one, it goes; if there is none, nothing comes.
    IfPresent,
}

/// All changes of one head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    pub(crate) coming: Vec<Edit>,
    /// Names of what goes in the end.
    pub(crate) removed: Vec<String>,
}

impl Edits {
    /// Whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.coming.is_empty() && self.removed.is_empty()
    }

    /// These, and then those.
    pub(crate) fn extend(&mut self, more: Self) {
        self.coming.extend(more.coming);
        self.removed.extend(more.removed);
    }

    /// Appends the fields of a head with the changes to what is there of it.
    pub(crate) fn put(&self, fields: Fields<'_>, head: &mut Vec<u8>) {
        let mut all: Vec<(&[u8], &[u8])> = fields.into_iter().collect();
        for Edit { name, value, how } in &self.coming {
            let name = name.as_bytes();
            let is_there = all.iter().any(|(found, _)| reads_alike(name, found));
            match (how, is_there) {
                (How::IfAbsent, true) | (How::IfPresent, false) => continue,
                (How::Append | How::IfAbsent, _) => {}
                (How::Set | How::IfPresent, _) => {
                    all.retain(|(found, _)| !reads_alike(name, found));
                }
            }
            all.push((name, value));
        }
        let is_removed = |name: &[u8]| {
            let mut removed = self.removed.iter();
            removed.any(|one| reads_alike(one.as_bytes(), name))
        };
        all.retain(|(name, _)| !is_removed(name));
        for (name, value) in all {
            put_field(head, name, value);
        }
    }

    /// A final response's head in neutral form with the changes; one that cannot be read stays as it is, for whoever
    /// refuses it.
    pub(crate) fn of_response<'a>(&self, head: &'a [u8]) -> Cow<'a, [u8]> {
        let Ok((response, fields)) = Response::decode(head) else {
            return Cow::Borrowed(head);
        };
        let mut out = Vec::with_capacity(head.len() + 256);
        response.encode(&mut out);
        self.put(fields, &mut out);
        Cow::Owned(out)
    }
}

/// Whether some server takes one header for the other: CGI (RFC 3875 section 4.1.18) makes an underscore of a hyphen.
pub(crate) fn reads_alike(made: &[u8], name: &[u8]) -> bool {
    let plain = |b: &u8| match b {
        b'_' => b'-',
        b => b.to_ascii_lowercase(),
    };
    made.len() == name.len() && made.iter().map(plain).eq(name.iter().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_and_removed_last() {
        let check = |edits: &[(&str, How)], removed: &[&str], expected: &str| {
            let edit = |(field, how): &(&str, How)| {
                let (name, value) = field.split_once('=').expect("a field");
                Edit {
                    name: name.to_owned(),
                    value: value.as_bytes().to_vec(),
                    how: *how,
                }
            };
            let edits = Edits {
                coming: edits.iter().map(edit).collect(),
                removed: removed.iter().map(|one| (*one).to_owned()).collect(),
            };
            let mut fields = Vec::new();
            for (name, value) in [("A", "1"), ("x_user", "me"), ("a", "2")] {
                put_field(&mut fields, name.as_bytes(), value.as_bytes());
            }
            let mut out = Vec::new();
            edits.put(Fields::check(&fields).expect("fields"), &mut out);
            let found = Fields::check(&out).expect("fields").into_iter();
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            let found = found.map(|(name, value)| format!("{}={}", text(name), text(value)));
            assert_eq!(found.collect::<Vec<_>>().join(" "), expected, "{edits:?}");
        };
        check(&[], &[], "A=1 x_user=me a=2");
        check(&[("a=3", How::Append)], &[], "A=1 x_user=me a=2 a=3");
        check(&[("a=3", How::Set)], &[], "x_user=me a=3");
        check(&[("x-user=you", How::Set)], &[], "A=1 a=2 x-user=you");
        check(&[("a=3", How::IfAbsent)], &[], "A=1 x_user=me a=2");
        check(&[("b=3", How::IfAbsent)], &[], "A=1 x_user=me a=2 b=3");
        check(&[("a=3", How::IfPresent)], &[], "x_user=me a=3");
        check(&[("b=3", How::IfPresent)], &[], "A=1 x_user=me a=2");
        check(
            &[("b=3", How::Set), ("b=4", How::Set)],
            &["a"],
            "x_user=me b=4",
        );
        check(&[("b=3", How::Set)], &["b", "x-user"], "A=1 a=2");
    }
}
