//! One sample of a page of metrics, as OpenMetrics text has it. Pure.

use std::borrow::Cow;

/// A name, labels and a figure.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) labels: Vec<(&'a str, Cow<'a, str>)>,
    pub(super) value: f64,
}

impl<'a> Sample<'a> {
    /// None of a line that is no sample.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, value) = rest.split_once("=\"")?;
                let (value, after) = quoted(value)?;
                labels.push((label, value));
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        // A timestamp may follow, and an exemplar.
        let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Self {
            name,
            labels,
            value,
        })
    }

    /// The value of a label.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let (_, value) = self.labels.iter().find(|(label, _)| *label == name)?;
        Some(value)
    }
}

/// A value up to its quote, unescaped, and what follows that.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = |at: &usize| {
        let escapes = text[..*at].bytes().rev().take_while(|byte| *byte == b'\\');
        escapes.count() % 2 == 0
    };
    let (at, _) = text.match_indices('"').find(|(at, _)| end(at))?;
    let (value, rest) = (&text[..at], &text[at + 1..]);
    if !value.contains('\\') {
        return Some((value.into(), rest));
    }
    let mut plain = String::with_capacity(value.len());
    let mut bytes = value.chars();
    while let Some(one) = bytes.next() {
        plain.push(match one {
            '\\' => match bytes.next()? {
                'n' => '\n',
                other => other,
            },
            one => one,
        });
    }
    Some((plain.into(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read() {
        type Row<'a> = (&'a str, Option<(&'a str, &'a [(&'a str, &'a str)], f64)>);
        let rows: [Row<'_>; 9] = [
            ("a 1.5", Some(("a", &[], 1.5))),
            ("a 1 1712345678.5", Some(("a", &[], 1.0))),
            ("a{} 2", Some(("a", &[], 2.0))),
            (
                r#"a{b="c",d="e,} f"} 3"#,
                Some(("a", &[("b", "c"), ("d", "e,} f")], 3.0)),
            ),
            (
                r#"a{b="\"\\\n"} +Inf"#,
                Some(("a", &[("b", "\"\\\n")], f64::INFINITY)),
            ),
            (
                r##"a_bucket{le="1.0"} 3 # {trace_id="x"} 0.5"##,
                Some(("a_bucket", &[("le", "1.0")], 3.0)),
            ),
            ("# TYPE a gauge", None),
            (r#"a{b="c} 3"#, None),
            ("a", None),
        ];
        for (line, expected) in rows {
            let found = Sample::parse(line);
            let expected = expected.map(|(name, labels, value)| Sample {
                name,
                labels: labels.iter().map(|(k, v)| (*k, (*v).into())).collect(),
                value,
            });
            assert_eq!(found, expected, "{line}");
        }
    }
}
