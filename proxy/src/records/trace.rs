//! The context of a trace as it crosses (W3C Trace Context): which trace a request belongs to, and which span asked. Pure.

use std::fmt;

/// Bytes of a `tracestate` that is recorded; it is forwarded whole.
const STATE_BYTES_MAX: usize = 512;
/// The header that says which trace and which span.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// The header for whatever else its makers want to know.
pub(crate) const TRACESTATE: &str = "tracestate";
/// Of the flags: whoever asked records the trace.
const SAMPLED: u8 = 1;

/// A trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(pub(crate) [u8; 16]);

/// A span of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanId(pub(crate) [u8; 8]);

/// Who asked, as `traceparent` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace: TraceId,
    span: SpanId,
    flags: u8,
    state: Box<str>,
}

/// A span of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) trace: TraceId,
    pub(crate) id: SpanId,
    /// None where the trace begins here.
    pub(crate) parent: Option<SpanId>,
    flags: u8,
    pub(crate) state: Box<str>,
}

impl Parent {
    /// What a request's fields say; none where they say nothing, or nothing that can be understood.
    pub(super) fn of<'a>(
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])> + Copy,
    ) -> Option<Self> {
        let mut parents = named(fields, TRACEPARENT);
        let parent = Self::parse(parents.next()?)?;
        // Two of them contradict each other.
        if parents.next().is_some() {
            return None;
        }
        let states = named(fields, TRACESTATE).filter_map(|value| std::str::from_utf8(value).ok());
        let state = states.collect::<Vec<_>>().join(",");
        Some(Self {
            state: match state.len() {
                ..=STATE_BYTES_MAX => state.into(),
                _ => Box::default(),
            },
            ..parent
        })
    }

    /// `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`; a later version may say more behind that.
    fn parse(text: &[u8]) -> Option<Self> {
        let (fixed, rest) = text.split_at_checked(55)?;
        let [version, trace, span, flags] =
            [&fixed[..2], &fixed[3..35], &fixed[36..52], &fixed[53..]];
        let are_dashes = [fixed[2], fixed[35], fixed[52]] == [b'-'; 3];
        let [version] = hexadecimal(version)?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let (trace, span): ([u8; 16], [u8; 8]) = (hexadecimal(trace)?, hexadecimal(span)?);
        let [flags] = hexadecimal(flags)?;
        let is_good = are_dashes && is_whole && trace != [0; 16] && span != [0; 8];
        is_good.then(|| Self {
            trace: TraceId(trace),
            span: SpanId(span),
            flags,
            state: Box::default(),
        })
    }
}

impl Span {
    /// A span of ours where the request is recorded by whoever asked, or belongs to no trace and is to begin one.
    pub(super) fn begin(parent: Option<&Parent>, begins: impl FnOnce() -> bool) -> Option<Self> {
        let id = SpanId(rand::random());
        match parent {
            Some(parent) => (parent.flags & SAMPLED != 0).then(|| Self {
                trace: parent.trace,
                id,
                parent: Some(parent.span),
                flags: parent.flags,
                state: parent.state.clone(),
            }),
            None => begins().then(|| Self {
                trace: TraceId(rand::random()),
                id,
                parent: None,
                flags: SAMPLED,
                state: Box::default(),
            }),
        }
    }

    /// Those of the trace context.
    pub(super) fn flags(&self) -> u8 {
        self.flags
    }

    /// What whoever is asked next is told: we are the parent.
    pub(crate) fn traceparent(&self) -> String {
        // Flags that this version knows, no others.
        format!("00-{}-{}-{:02x}", self.trace, self.id, self.flags & 3)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

fn named<'a>(
    fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    name: &str,
) -> impl Iterator<Item = &'a [u8]> {
    fields
        .into_iter()
        .filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value)
}

/// Lower case only, as the standard has it.
fn hexadecimal<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (digits.len() == 2 * N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::records::told::tests::Section;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(fields: &[(&str, &str)]) -> Option<Parent> {
        Parent::of(Section(fields))
    }

    #[test]
    fn only_what_the_standard_allows_is_a_context() {
        let later = format!("01{}-more", &GOOD[2..]);
        let rows = [
            (GOOD, true),
            (&*later, true),
            (&GOOD.to_uppercase(), false),
            (&GOOD.replace("00-", "ff-"), false),
            (&format!("{GOOD}-more"), false),
            (&format!("{GOOD}0"), false),
            (
                &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
                false,
            ),
            (&GOOD.replace("b7ad6b7169203331", &"0".repeat(16)), false),
            (&GOOD.replace('-', "_"), false),
            ("", false),
            ("00-1-2-01", false),
        ];
        for (text, good) in rows {
            assert_eq!(Parent::parse(text.as_bytes()).is_some(), good, "{text}");
        }
        assert!(of(&[("Traceparent", GOOD), ("tracestate", "a=1")]).is_some());
        assert!(of(&[("traceparent", GOOD), ("traceparent", GOOD)]).is_none());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            Parent::parse(&bytes);
            let cut = GOOD.len().min(bytes.len());
            Parent::parse(&[&GOOD.as_bytes()[..cut], &bytes].concat());
        }
    }

    #[test]
    fn spans_go_on_with_the_trace_or_begin_one() {
        let parent = of(&[
            ("traceparent", GOOD),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ]);
        let span = Span::begin(parent.as_ref(), || false).expect("sampled");
        assert_eq!(&*span.state, "a=1,b=2");
        let told = span.traceparent();
        assert_eq!((&told[..36], &told[52..]), (&GOOD[..36], "-01"));
        assert_ne!(told[36..52], GOOD[36..52]);
        let unsampled = of(&[("traceparent", &GOOD.replace("-01", "-00"))]);
        assert_eq!(Span::begin(unsampled.as_ref(), || true), None);
        assert_eq!(Span::begin(None, || false), None);
        let root = Span::begin(None, || true).expect("sampled");
        assert_eq!(root.parent, None);
        assert!(Parent::parse(root.traceparent().as_bytes()).is_some());
    }
}
