//! Conditions in CEL, the part of the language that decides about a request: no macros, no arithmetic, no allocation.
//!
//! - `request.method`, `.path`, `.host`, `.headers['name']`; `source.identity`, `.namespace`, `.serviceAccount`,
//!   `.trustDomain`, `.address`; `destination.port`; `claims.name`, `claims['name']`.
//! - `==` `!=` `<` `<=` `>` `>=` `in` `&&` `||` `!` `? :`, lists, texts, whole numbers, `true`, `false`, `null`.
//! - `startsWith`, `endsWith`, `contains`, `matches` (a literal regular expression, found anywhere), `size`, `has(claims.name)`.
//!
//! As in CEL, what is not there is an error; `&&` and `||` are only errors where the other side does not decide. A header that
//! is there several times is an error too: which one would be meant? A path whose elements have parameters (`/a;b`) is looked
//! at with and without: a rule that allows has to hold both ways, one that denies either way. Limits: `TEXT_BYTES_MAX` bytes, `NODES_MAX` parts,
//! `DEPTH_MAX` inside each other, and `COST_MAX` for one decision, in parts looked at and bytes compared.

use crate::Invalid;
use crate::route::Pattern;

/// Text to parts.
mod parse;

/// Parts to a verdict.
mod evaluate;

/// Bytes of an expression.
const TEXT_BYTES_MAX: usize = 1024;
/// Parts of an expression.
const NODES_MAX: usize = 256;
/// Parts inside each other.
const DEPTH_MAX: usize = 32;

/// An expression that was understood.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    root: Node,
    needs_http: bool,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl Expression {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let invalid = |problem: String| Invalid::new("expression", problem);
        if text.len() > TEXT_BYTES_MAX {
            return Err(invalid(format!("is longer than {TEXT_BYTES_MAX} bytes")));
        }
        let (root, needs_http) = parse::parse(text).map_err(invalid)?;
        Ok(Self {
            text: text.to_owned(),
            root,
            needs_http,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it asks about a request or its token.
    #[must_use]
    pub(super) fn needs_http(&self) -> bool {
        self.needs_http
    }
}

/// One part.
#[derive(Debug, Clone)]
enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Self>),
    /// A part of what is asked.
    Field(Field),
    /// All headers, or all claims.
    Headers,
    Claims,
    /// An element by name.
    Index(Box<Self>, Box<Self>),
    Has(Box<Self>),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    If(Box<[Self; 3]>),
    Compare(Comparison, Box<Self>, Box<Self>),
    In(Box<Self>, Box<Self>),
    Call(Function, Box<Self>, Box<Self>),
    Matches(Box<Self>, Pattern),
    Size(Box<Self>),
}

/// What can be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Method,
    Path,
    Host,
    Identity,
    Namespace,
    ServiceAccount,
    TrustDomain,
    Address,
    Port,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// Of two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    StartsWith,
    EndsWith,
    Contains,
}

#[cfg(test)]
mod tests;
