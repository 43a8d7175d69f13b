//! On which line of a YAML document something is: only asked when it is refused, as it takes reading all of it again.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::{Path, Segment};
use serde_saphyr::{Options, Spanned};

/// What is in a document, by where.
enum Place {
    Map(Vec<(String, Spanned<Self>)>),
    List(Vec<Spanned<Self>>),
    Leaf,
}

/// The line of what is at `path`, or of the last on the way there that is in the document; the first when it is no YAML.
pub(super) fn line_at(text: &str, options: Options, path: &Path) -> u64 {
    let Ok(all) = serde_saphyr::from_str_with_options::<Spanned<Place>>(text, options) else {
        return 1;
    };
    let mut here = &all;
    for segment in path {
        let inner = match (&here.value, segment) {
            (Place::Map(fields), Segment::Map { key }) => {
                let mut fields = fields.iter();
                fields.find(|(name, _)| name == key).map(|(_, one)| one)
            }
            (Place::List(items), Segment::Seq { index }) => items.get(*index),
            (Place::Map(_) | Place::List(_) | Place::Leaf, _) => None,
        };
        let Some(inner) = inner else {
            break;
        };
        here = inner;
    }
    here.referenced.line().max(1)
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Places)
    }
}

struct Places;

impl<'de> Visitor<'de> for Places {
    type Value = Place;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Place, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Place::Map(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Place, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Place::List(items))
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Place, D::Error> {
        Place::deserialize(inner)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Place, E> {
        Ok(Place::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Place, E> {
        Ok(Place::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Place, E> {
        Ok(Place::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Place, E> {
        Ok(Place::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Place, E> {
        Ok(Place::Leaf)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Place, E> {
        Ok(Place::Leaf)
    }

    fn visit_none<E>(self) -> Result<Place, E> {
        Ok(Place::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Place, E> {
        Ok(Place::Leaf)
    }
}
