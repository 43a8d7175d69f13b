//! The route that a path is one of: what looks like the name of one thing is `{}`. Pure.
//!
//! Whatever clients ask, there are few routes: below one place there are [`CHILDREN_MAX`], in all [`PLACES_MAX`], and none is
//! deeper than [`SEGMENTS_MAX`]. What is beyond is `{}` or `**`.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// Segments that are told apart in one place of a path.
const CHILDREN_MAX: usize = 24;
/// Places of all paths.
const PLACES_MAX: usize = 1024;
/// Segments of a path.
const SEGMENTS_MAX: usize = 8;
/// Bytes of a segment that is a word.
const WORD_BYTES_MAX: usize = 48;
/// What stands for many segments.
const ANY: &str = "{}";
/// What stands for whatever comes.
const REST: &str = "**";

/// Places of paths that were seen.
#[derive(Debug, Default)]
pub(super) struct Templates {
    root: Place,
    places: usize,
}

#[derive(Debug, Default)]
struct Place {
    children: BTreeMap<Box<str>, Self>,
}

impl Templates {
    /// The route of a path. It begins with a slash unless the target is no path. None of a place that was never seen, where
    /// it may not be learnt.
    pub(super) fn of(&mut self, path: &str, may_learn: bool) -> Option<String> {
        let Some(path) = path.strip_prefix('/') else {
            return Some("*".to_owned());
        };
        let (mut template, mut place) = (String::with_capacity(path.len() + 1), &mut self.root);
        for (depth, segment) in path.split('/').enumerate() {
            template.push('/');
            if depth == SEGMENTS_MAX {
                template.push_str(REST);
                break;
            }
            let mut segment = generalized(segment);
            if !place.children.contains_key(&*segment) {
                if place.children.len() >= CHILDREN_MAX {
                    segment = ANY.into();
                }
                if !place.children.contains_key(&*segment) {
                    if !may_learn {
                        return None;
                    }
                    if self.places >= PLACES_MAX {
                        template.push_str(REST);
                        break;
                    }
                    self.places += 1;
                }
            }
            template.push_str(&segment);
            place = place.children.entry((*segment).into()).or_default();
        }
        Some(template)
    }
}

/// A segment as it is, if it is a word.
fn generalized(segment: &str) -> Cow<'_, str> {
    let is_long = segment.len() > WORD_BYTES_MAX;
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let letters = segment.bytes().filter(u8::is_ascii_alphabetic).count();
    // `v1` and `oauth2` are words; `7`, `c3a9-11`, `user42x` and what people write are not.
    let is_version = letters > 0 && digits <= 2 && segment.starts_with(|c: char| c.is_alphabetic());
    let is_odd = |byte: u8| !(byte.is_ascii_alphanumeric() || b"-_.:$".contains(&byte));
    if is_long || digits > 0 && !is_version || segment.bytes().any(is_odd) {
        return ANY.into();
    }
    segment.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_things_are_left_out() {
        let rows = [
            ("/", "/"),
            ("/orders", "/orders"),
            ("/orders/17", "/orders/{}"),
            ("/orders/17/items", "/orders/{}/items"),
            (
                "/v1/users/018f4e0c-7c1e-7000-8000-1234567890ab",
                "/v1/users/{}",
            ),
            ("/users/jane%40example.com", "/users/{}"),
            ("/users/jane@example.com", "/users/{}"),
            ("/files/5f2b9c0d1e", "/files/{}"),
            ("/oauth2/token", "/oauth2/token"),
            ("/shop.v1.Cart/AddItem", "/shop.v1.Cart/AddItem"),
            ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/**"),
            ("*", "*"),
            ("host:443", "*"),
        ];
        let mut templates = Templates::default();
        for (target, expected) in rows {
            assert_eq!(templates.of(target, true).as_deref(), Some(expected));
        }
        assert_eq!(
            templates.of("/orders/18", false).as_deref(),
            Some("/orders/{}")
        );
        assert_eq!(templates.of("/wp-admin", false), None);
    }

    #[test]
    fn there_are_few_whatever_is_asked() {
        let word = |n: u32| -> String {
            let letter = |place: u32| {
                char::from(b'a' + u8::try_from(n / 26_u32.pow(place) % 26).unwrap_or(0))
            };
            (0..4).map(letter).collect()
        };
        let mut templates = Templates::default();
        let mut found = std::collections::BTreeSet::new();
        for n in 0..100_000 {
            let path = format!("/{}/{}/{}", word(n), word(n / 7), word(n / 11));
            found.insert(templates.of(&path, true));
        }
        assert!(templates.places <= PLACES_MAX);
        assert!(found.len() <= 3 * PLACES_MAX, "{}", found.len());
        let unseen = templates.of("/never/seen/before", true);
        assert!(unseen.is_some_and(|route| route.contains("{}") || route.contains("**")));
    }
}
