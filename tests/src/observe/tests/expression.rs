//! What an expression of PromQL names: which series, which of their labels, by which they are grouped, and which variables.
//! No grammar: promtool has that. What it does not know is refused, so that nothing is overlooked.

use std::collections::BTreeSet;

/// All that is named.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) selectors: Vec<Selector>,
    /// Of Grafana, without those that it has itself.
    pub(super) variables: BTreeSet<String>,
}

/// One choice of series.
#[derive(Debug, Default)]
pub(super) struct Selector {
    /// One, or those that a pattern of `__name__` lists.
    pub(super) names: Vec<String>,
    /// In its braces.
    pub(super) labels: BTreeSet<String>,
    /// In by() or without() around it, or in on() and the like anywhere.
    pub(super) grouped_by: BTreeSet<String>,
    /// Where in the text's words it is.
    at: usize,
}

#[derive(Debug, PartialEq, Clone)]
enum Token {
    Word(String),
    Text(String),
    Number,
    Sign(char),
}

use Token::{Number, Sign, Text, Word};

const OVER: [&str; 2] = ["by", "without"];
const MATCHING: [&str; 4] = ["on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 7] = [
    "and",
    "or",
    "unless",
    "offset",
    "bool",
    "group_left",
    "group_right",
];

impl Named {
    pub(super) fn of(text: &str) -> Result<Self, String> {
        let tokens = tokens(text)?;
        let mut named = Self {
            variables: variables(text),
            ..Self::default()
        };
        let mut groups: Vec<(std::ops::Range<usize>, BTreeSet<String>)> = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let is_called = tokens.get(at + 1) == Some(&Sign('('));
            match &tokens[at] {
                Word(word) if is_called && OVER.contains(&word.as_str()) => {
                    let close = closing(&tokens, at + 1)?;
                    let body = close + 1..closing(&tokens, close + 1)?;
                    groups.push((body, words(&tokens[at + 2..close])?));
                    at = close;
                }
                Word(word) if is_called && MATCHING.contains(&word.as_str()) => {
                    let close = closing(&tokens, at + 1)?;
                    groups.push((0..tokens.len(), words(&tokens[at + 2..close])?));
                    at = close;
                }
                Word(word) if OPERATORS.contains(&word.as_str()) || is_called => {}
                // `sum by (…) (…)`.
                Word(_) if is_grouped(&tokens, at) => {}
                Word(word) => {
                    let mut selector = Selector {
                        names: vec![word.clone()],
                        at,
                        ..Selector::default()
                    };
                    if tokens.get(at + 1) == Some(&Sign('{')) {
                        at = matchers(&tokens, at + 1, &mut selector)?;
                    }
                    named.selectors.push(selector);
                }
                Sign('{') => {
                    let mut selector = Selector {
                        at,
                        ..Selector::default()
                    };
                    at = matchers(&tokens, at, &mut selector)?;
                    named.selectors.push(selector);
                }
                Sign('[') => at = closing(&tokens, at)?,
                Text(_) | Number | Sign(_) => {}
            }
            at += 1;
        }
        for selector in &mut named.selectors {
            let around = groups
                .iter()
                .filter(|(body, _)| body.contains(&selector.at));
            selector.grouped_by = around.flat_map(|(_, labels)| labels.clone()).collect();
        }
        Ok(named)
    }
}

/// Whether by() or without() follows.
fn is_grouped(tokens: &[Token], at: usize) -> bool {
    matches!(tokens.get(at + 1), Some(Word(next)) if OVER.contains(&next.as_str()))
}

/// Reads `{label="value", …}` from its brace on; where it ends.
fn matchers(tokens: &[Token], open: usize, selector: &mut Selector) -> Result<usize, String> {
    let close = closing(tokens, open)?;
    for one in tokens[open + 1..close].split(|token| *token == Sign(',')) {
        let (Some(Word(label)), Some(Text(value))) = (one.first(), one.last()) else {
            return Err(format!("no matcher: {one:?}"));
        };
        if label == "__name__" {
            selector.names = value.split('|').map(str::to_owned).collect();
        } else {
            selector.labels.insert(label.clone());
        }
    }
    if selector.names.is_empty() {
        return Err("series without a name".to_owned());
    }
    Ok(close)
}

fn words(tokens: &[Token]) -> Result<BTreeSet<String>, String> {
    let word = |token: &Token| match token {
        Word(word) => Some(Ok(word.clone())),
        Sign(',') => None,
        other => Some(Err(format!("no label: {other:?}"))),
    };
    tokens.iter().filter_map(word).collect()
}

/// Where what opens here is closed.
fn closing(tokens: &[Token], open: usize) -> Result<usize, String> {
    let pair = match tokens.get(open) {
        Some(Sign('(')) => ('(', ')'),
        Some(Sign('{')) => ('{', '}'),
        Some(Sign('[')) => ('[', ']'),
        other => return Err(format!("not opened: {other:?}")),
    };
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Sign(sign) if *sign == pair.0 => depth += 1,
            Sign(sign) if *sign == pair.1 => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(at);
        }
    }
    Err("not closed".to_owned())
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let mut length = first.len_utf8();
        match first {
            ' ' | '\n' => {}
            '\'' | '"' => {
                let end = rest[1..].find(first).ok_or("a text without end")?;
                all.push(Text(rest[1..=end].to_owned()));
                length = end + 2;
            }
            // Of a range; elsewhere a variable is in a text.
            '$' => {}
            'a'..='z' | 'A'..='Z' | '_' => {
                length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                all.push(Word(rest[..length].to_owned()));
            }
            '0'..='9' => {
                let of = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
                length = rest.find(|c| !of(c)).unwrap_or(rest.len());
                all.push(Number);
            }
            '(' | ')' | '{' | '}' | '[' | ']' | ',' | '+' | '-' | '*' | '/' | '=' | '!' | '~'
            | '<' | '>' => all.push(Sign(first)),
            other => return Err(format!("{other:?} is of no expression here")),
        }
        rest = &rest[length..];
    }
    Ok(all)
}

fn variables(text: &str) -> BTreeSet<String> {
    let name = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    let all = text.split('$').skip(1).map(name);
    all.filter(|name| !name.starts_with("__")).collect()
}

#[test]
fn what_is_named_is_found() {
    let named = Named::of(
        "sum by (a, le) (rate(x_bucket{b=~'$c', d!=\"}\"}[$__rate_interval])) / on (e) group_left y offset 5m > 0.5",
    );
    let named = named.expect("read");
    let labels = |all: &BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join(" ");
    let selectors: Vec<_> = named
        .selectors
        .iter()
        .map(|one| {
            (
                one.names.join(" "),
                labels(&one.labels),
                labels(&one.grouped_by),
            )
        })
        .collect();
    let expected = [("x_bucket", "b d", "a e le"), ("y", "", "e")];
    let expected = expected.map(|(name, own, by)| (name.to_owned(), own.to_owned(), by.to_owned()));
    assert_eq!(selectors, expected);
    assert_eq!(labels(&named.variables), "c");
}
