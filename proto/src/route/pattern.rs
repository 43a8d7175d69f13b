//! Regular expressions of routes: compiled where they are checked, matched in time linear in the text, never part of it.

use regex_lite::{Regex, RegexBuilder};

use super::PATTERN_BYTES_MAX;
use crate::Invalid;

/// Bytes of memory for one compiled expression, which also bound the steps for each byte that it is matched with.
const COMPILED_BYTES_MAX: usize = 16 * 1024;

/// A regular expression for whole texts, in the syntax of Rust's `regex` crate.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles.
    ///
    /// # Errors
    /// When `text` is no regular expression, or too large; `field` is its name.
    pub fn new(field: &str, text: &str) -> Result<Self, Invalid> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(Invalid::new(field, "is longer than 1024 bytes"));
        }
        let compile = |text: &str| {
            let built = RegexBuilder::new(text)
                .size_limit(COMPILED_BYTES_MAX)
                .build();
            built.map_err(|e| Invalid::new(field, format!("is no regular expression: {e}")))
        };
        // Alone first: an unpaired bracket must not pair with ours.
        compile(text)?;
        Ok(Self {
            text: text.to_owned(),
            regex: compile(&format!("^(?:{text})$"))?,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn holds(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}
