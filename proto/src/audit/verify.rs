//! Whether chains are whole: line by line, whatever else is between. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{EVENT_BEGIN, EVENT_END, EVENT_LOST, Hash, pick, split};

/// Reads lines, and finds what is wrong with those of the audit among them.
#[derive(Debug, Default)]
pub struct Verifier {
    chains: BTreeMap<String, State>,
    /// A log whose beginning was thrown away is none the worse.
    may_begin_late: bool,
    records: u64,
    lost: u64,
}

/// How far a chain was read.
#[derive(Debug)]
struct State {
    next: u64,
    last: Hash,
    is_over: bool,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Lines of the audit.
    pub records: u64,
    /// Runs of proxies.
    pub chains: usize,
    /// Chains without a last line: their proxy runs, was killed, or somebody cut them off.
    pub open: usize,
    /// What proxies themselves say they could not tell.
    pub lost: u64,
}

/// One line, as far as it is told by others.
struct Record {
    chain: String,
    sequence: u64,
    previous: Hash,
    event: Option<String>,
    count: u64,
}

impl Verifier {
    /// For a log; `may_begin_late` if its beginning was thrown away, as logs are.
    #[must_use]
    pub fn new(may_begin_late: bool) -> Self {
        Self {
            may_begin_late,
            ..Self::default()
        }
    }

    /// The next line of the log, without its end: what is wrong with it, in words; nothing with one that is not of the audit.
    pub fn line(&mut self, line: &[u8]) -> Vec<String> {
        let Some(picked) = pick(line) else {
            return Vec::new();
        };
        self.records += 1;
        let mut problems = Vec::new();
        let Some((sealed, hash)) = split(picked) else {
            return vec!["is no whole record: it was cut short or changed".to_owned()];
        };
        let found = Hash::of(sealed);
        if found != hash {
            problems.push(format!(
                "was changed: its hash is {found}, and it says {hash}"
            ));
        }
        match read(sealed) {
            // What follows was made behind what stood here.
            Some(record) => problems.extend(self.place(record, hash)),
            None => problems.push("is no record of the audit, whatever its hash".to_owned()),
        }
        problems
    }

    /// Puts a record behind the one before it.
    fn place(&mut self, record: Record, hash: Hash) -> Option<String> {
        let Record {
            chain,
            sequence,
            previous,
            ..
        } = &record;
        let is_over = record.event.as_deref() == Some(EVENT_END);
        if record.event.as_deref() == Some(EVENT_LOST) {
            self.lost += record.count;
        }
        let problem = match self.chains.get(chain) {
            None if *sequence == 0 => self.begins(&record),
            None if self.may_begin_late => None,
            None => Some(format!(
                "is record {sequence} of chain {chain}, the first that is here: what was before it is missing"
            )),
            Some(state) => follows(state, *sequence, previous),
        };
        let state = State {
            next: sequence.saturating_add(1),
            last: hash,
            is_over,
        };
        self.chains.insert(record.chain, state);
        problem
    }

    /// The first of a chain says which one it continues.
    fn begins(&self, record: &Record) -> Option<String> {
        if record.event.as_deref() != Some(EVENT_BEGIN) {
            return Some("has number 0, and does not begin a chain".to_owned());
        }
        let previous = &record.previous;
        let is_known = self.chains.values().any(|state| state.last == *previous);
        if *previous == Hash::none() || is_known || self.may_begin_late && self.chains.is_empty() {
            return None;
        }
        Some(format!(
            "continues what ended with hash {previous}, and that is not what is here before it: lines are missing"
        ))
    }

    /// What was read so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let open = self.chains.values().filter(|state| !state.is_over);
        Summary {
            records: self.records,
            chains: self.chains.len(),
            open: open.count(),
            lost: self.lost,
        }
    }
}

fn follows(state: &State, sequence: u64, previous: &Hash) -> Option<String> {
    let State { next, last, .. } = state;
    if state.is_over {
        return Some(format!(
            "is record {sequence} of a chain that was over with record {}",
            next - 1
        ));
    }
    if sequence > *next {
        let missing = match sequence - 1 {
            only if only == *next => format!("record {next} is"),
            end => format!("records {next} to {end} are"),
        };
        return Some(format!("is record {sequence}: {missing} missing before it"));
    }
    if sequence < *next {
        let before = next - 1;
        return Some(format!(
            "is record {sequence}, and stands behind record {before}: out of order, or there twice"
        ));
    }
    (previous != last).then(|| {
        format!("says that the record before it has hash {previous}, and that one has {last}: it is another one")
    })
}

fn read(sealed: &[u8]) -> Option<Record> {
    let whole = [sealed, b"}"].concat();
    let value: Value = serde_json::from_slice(&whole).ok()?;
    let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let fields = value.get("fields")?;
    Some(Record {
        chain: text("chain")?,
        sequence: value.get("sequence")?.as_u64()?,
        previous: Hash(text("previous")?),
        event: fields
            .get("event")
            .and_then(|event| Some(event.as_str()?.to_owned())),
        count: fields.get("count").and_then(Value::as_u64).unwrap_or(0),
    })
}
