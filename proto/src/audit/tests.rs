//! Whatever is done to one line is found.

use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

fn chain(name: u128, continued: Option<Hash>, records: usize) -> Vec<String> {
    let mut chain = Chain::new(name, continued);
    let mut lines = Vec::new();
    let mut tell = |fields: String| {
        let seal = chain.seal(UNIX_EPOCH, &fields);
        lines.push(seal.line.clone());
        chain.keep(seal);
    };
    tell("{\"event\":\"begin\"}".to_owned());
    for n in 0..records {
        tell(format!("{{\"event\":\"refusal\",\"path\":\"/{n}\"}}"));
    }
    tell("{\"event\":\"lost\",\"count\":3}".to_owned());
    tell("{\"event\":\"end\"}".to_owned());
    lines
}

/// Numbers of lines with problems, from 1, and what is said of the first.
fn check<Line: AsRef<[u8]>>(lines: &[Line]) -> (Vec<usize>, String, Summary) {
    let mut verifier = Verifier::new(false);
    let mut all = Vec::new();
    let mut first = String::new();
    for (n, line) in lines.iter().enumerate() {
        let problems = verifier.line(line.as_ref());
        if let Some(problem) = problems.first() {
            all.push(n + 1);
            if first.is_empty() {
                first.clone_from(problem);
            }
        }
    }
    (all, first, verifier.summary())
}

const WHOLE: Summary = Summary {
    records: 8,
    chains: 1,
    open: 0,
    lost: 3,
};

#[test]
fn a_whole_chain_is_found_in_any_log() {
    let lines = chain(7, None, 5);
    assert_eq!(check(&lines), (vec![], String::new(), WHOLE));
    let mixed: Vec<String> = lines
        .iter()
        .flat_map(|line| {
            [
                format!("2026-11-22T17:30:00Z stdout F {line}\r"),
                "{\"level\":\"INFO\"}".to_owned(),
                String::new(),
            ]
        })
        .collect();
    assert_eq!(check(&mixed), (vec![], String::new(), WHOLE));
}

#[test]
fn a_file_goes_on_with_the_next_run() {
    let mut lines = chain(7, None, 1);
    let last = Hash::last_of(format!("{}\n{{\"target\":\"ring", lines.join("\n")).as_bytes());
    assert!(last.is_some());
    lines.extend(chain(8, last, 1));
    let (problems, _, summary) = check(&lines);
    assert_eq!((problems, summary.chains), (vec![], 2));
    // The end of the first run.
    lines.remove(3);
    let (problems, first, _) = check(&lines);
    assert_eq!(problems, [4]);
    assert!(first.contains("lines are missing"), "{first}");
    assert_eq!(Hash::last_of(b"nothing\n"), None);
}

#[test]
fn what_is_wrong_is_said_with_the_line() {
    let lines = chain(7, None, 5);
    let without = |n: usize| {
        let mut lines = lines.clone();
        lines.remove(n);
        lines
    };
    let late = check(&without(0));
    assert_eq!(late.0, [1]);
    assert!(
        late.1.contains("what was before it is missing"),
        "{}",
        late.1
    );
    let missing = check(&without(3));
    assert_eq!(missing.0, [4]);
    assert!(missing.1.contains("record 3 is missing"), "{}", missing.1);
    let mut changed = lines.clone();
    changed[2] = changed[2].replace("\"/1\"", "\"/2\"");
    let changed = check(&changed);
    assert_eq!(changed.0, [3], "only the line itself");
    assert!(changed.1.starts_with("was changed"), "{}", changed.1);
    // Somebody has made a line anew, hash and all.
    let mut forged = lines.clone();
    let (sealed, _) = split(lines[2].as_bytes()).expect("a record");
    let sealed = String::from_utf8_lossy(sealed).replace("\"/1\"", "\"/2\"");
    let hash = Hash::of(sealed.as_bytes());
    forged[2] = format!("{sealed}{BEFORE_HASH}{hash}{BEHIND_HASH}");
    let forged = check(&forged);
    assert_eq!(forged.0, [4], "the next one knows better");
    // The last line: seen as an end that is missing.
    let open = check(&without(7));
    assert_eq!((open.0, open.2.open), (vec![], 1));
}

#[test]
fn the_beginning_may_have_been_thrown_away() {
    let lines = chain(7, None, 5);
    let mut verifier = Verifier::new(true);
    for line in &lines[3..] {
        assert_eq!(verifier.line(line.as_bytes()), Vec::<String>::new());
    }
    let mut verifier = Verifier::new(true);
    verifier.line(lines[3].as_bytes());
    assert_eq!(verifier.line(lines[5].as_bytes()).len(), 1);
}

proptest! {
    #[test]
    fn any_change_of_a_byte_is_found(line in 0_usize..8, at in 0_usize..1000, to in any::<u8>()) {
        let mut lines: Vec<Vec<u8>> = chain(7, None, 5).into_iter().map(String::into_bytes).collect();
        let at = at % lines[line].len();
        prop_assume!(lines[line][at] != to);
        lines[line][at] = to;
        // A line feed makes two lines of one.
        let lines: Vec<Vec<u8>> = lines.join(&b'\n').split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        let (problems, _, summary) = check(&lines);
        prop_assert!(!problems.is_empty() || summary.open > 0);
    }

    #[test]
    fn any_line_that_is_missing_is_found(line in 0_usize..8) {
        let mut lines = chain(7, None, 5);
        lines.remove(line);
        let (problems, _, summary) = check(&lines);
        prop_assert!(!problems.is_empty() || summary.open > 0);
    }

    #[test]
    fn any_two_lines_that_changed_places_are_found(one in 0_usize..8, other in 0_usize..8) {
        prop_assume!(one != other);
        let mut lines = chain(7, None, 5);
        lines.swap(one, other);
        prop_assert!(!check(&lines).0.is_empty());
    }

    #[test]
    fn any_line_that_is_there_twice_is_found(line in 0_usize..8, at in 0_usize..9) {
        let mut lines = chain(7, None, 5);
        lines.insert(at, lines[line].clone());
        prop_assert!(!check(&lines).0.is_empty());
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let line = [BEGIN.as_bytes(), &bytes, BEFORE_HASH.as_bytes(), &[b'0'; 64], BEHIND_HASH.as_bytes()].concat();
        prop_assert!(!check(&[line]).0.is_empty());
        check(&[bytes]);
    }
}
