//! Plays the corpus of a fuzz target without a fuzzer: each file as it is, then mutations of them from a fixed seed, so
//! that what fails once fails again. Longer by `RINGMAIL_FUZZ_SECONDS` for each target.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// Mutations in every test run.
const MUTATIONS: u32 = 20_000;
const SECONDS_VARIABLE: &str = "RINGMAIL_FUZZ_SECONDS";
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// The longest input that mutations make.
const INPUT_BYTES_MAX: usize = 8 * 1024;
/// What parsers of ours have an ear for.
const WORDS: [&[u8]; 24] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"/",
    b"/../",
    b"//",
    b"%2e",
    b"%2F",
    b"%00",
    b"?",
    b"#",
    b"\\",
    b"\xff",
    b"\xc3\xa9",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: x\r\n",
    b" HTTP/1.1\r\n",
];

pub(crate) fn replay(name: &str, target: fn(&[u8])) {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus"));
    let corpus = directory
        .join(name)
        .read_dir()
        .expect("each target has a corpus");
    let mut corpus: Vec<Vec<u8>> = corpus
        .map(|file| fs::read(file.expect("a readable directory").path()))
        .collect::<Result<_, _>>()
        .expect("readable files");
    assert!(!corpus.is_empty(), "{name} has no corpus");
    corpus.sort();
    for input in &corpus {
        play(name, target, input);
    }
    let more = env::var(SECONDS_VARIABLE).map_or(0, |text| text.parse().expect("a number"));
    let until = Instant::now() + Duration::from_secs(more);
    let mut random = Random(SEED);
    let mut played = 0;
    while played < MUTATIONS || played % 1024 != 0 || Instant::now() < until {
        let input = mutated(&corpus, &mut random);
        play(name, target, &input);
        played += 1;
    }
}

fn play(name: &str, target: fn(&[u8]), input: &[u8]) {
    let _shown = Shown { name, input };
    target(input);
}

/// Says which input it was, if the target panics.
struct Shown<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{} fails on b\"{}\"", self.name, self.input.escape_ascii());
        }
    }
}

/// xorshift64*: good enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let scrambled = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(scrambled).expect("31 bits") % end.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }
}

fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let end = at + random.below((input.len() - at).min(16) + 1);
        match random.below(7) {
            0 => drop(input.drain(at..end)),
            1 => input.insert(at, random.byte()),
            2 => drop(input.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            3 if at < input.len() => input[at] = random.byte(),
            4 if at < input.len() => input[at] ^= 1 << random.below(8),
            5 => input.extend_from_within(at..end),
            _ => {
                let other = &corpus[random.below(corpus.len())];
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}
