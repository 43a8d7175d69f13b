//! The table of cases: what one run of each does, on what.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Context;
use ringmail_proxy::bench;

use crate::material::{self, Material};

/// Runs of a case that are counted, so that what is around them is nothing.
pub(crate) const RUNS: u64 = 200;
/// Runs before, for whatever happens once.
const WARM_UP: u64 = 20;

/// One run; none when it did not do what it is for.
type Run = fn(&Material, &mut Vec<u8>) -> Option<()>;

const CASES: &[(&str, Run)] = &[
    ("detect: HTTP/1.1", |m, _| {
        bench::is_http1(&m.request).then_some(())
    }),
    ("detect: bytes", |m, _| {
        (!bench::is_http1(&m.bytes)).then_some(())
    }),
    ("h1 request -> neutral", |m, out| {
        bench::h1_request(&m.request, out)
    }),
    ("h1 request -> neutral -> verdict, no routes", |m, out| {
        bench::h1_request(&m.request, out)?;
        routed(&m.plain, out)
    }),
    ("h1 request -> neutral -> verdict, 16 rules", |m, out| {
        bench::h1_request(&m.request, out)?;
        routed(&m.routed, out)
    }),
    (
        "h1 request with a path to normalise -> neutral",
        |m, out| bench::h1_request(&m.odd_request, out),
    ),
    ("neutral -> h1 request", |m, out| {
        bench::h1_request_text(&m.neutral_request, out)
    }),
    ("h1 response -> neutral", |m, out| {
        bench::h1_response(&m.response, out)
    }),
    ("neutral -> h1 response", |m, out| {
        bench::h1_response_text(&m.neutral_response, out)
    }),
    ("h2 request -> neutral", |m, out| {
        *out = m.h2_blocks.borrow_mut().request(&m.h2_request)?;
        Some(())
    }),
    ("h2 request of indices -> neutral", |m, out| {
        *out = m.h2_blocks.borrow_mut().request(&m.h2_indices)?;
        Some(())
    }),
    ("neutral -> h2 request", |m, out| {
        bench::h2_request_block(&m.neutral_request, out)
    }),
    ("h2 response -> neutral", |m, out| {
        m.h2_blocks.borrow_mut().response(&m.h2_response, out)
    }),
    ("neutral -> h2 response", |m, out| {
        bench::h2_response_block(&m.neutral_response, out)
    }),
    ("frames: put 64 of 100 bytes", |m, out| {
        for stream in 1..=64 {
            let _ = bench::put_data(out, stream, &m.bytes[..100]);
        }
        Some(())
    }),
    ("frames: take 64 of 100 bytes", |m, _| {
        (bench::frames(&m.frames)? == 6400).then_some(())
    }),
    ("pump: put a chunk of 16 KiB", |m, out| {
        bench::put_chunk(&m.bytes, out)
    }),
    ("pump: take 16 chunks of 1 KiB", |m, _| {
        (bench::chunks(&m.chunks)? == m.bytes.len()).then_some(())
    }),
    ("authorize: 1 rule", |m, _| authorized(m, 0)),
    ("authorize: 10 rules", |m, _| authorized(m, 1)),
    ("authorize: 100 rules", |m, _| authorized(m, 2)),
    ("authorize: 1 000 rules", |m, _| authorized(m, 3)),
    ("authorize: 10 000 rules", |m, _| authorized(m, 4)),
    ("limit: none", |m, _| m.unlimited.admit(&m.neutral_request)),
    ("limit: 1 with tokens", |m, _| {
        m.limited.admit(&m.neutral_request)
    }),
    ("metrics: a request", |m, _| {
        m.counted.request(m.begun, m.answered);
        Some(())
    }),
    ("records: a request of which none is wanted", |m, _| {
        let found = m.unrecorded.request(&m.neutral_request, m.begun);
        (found == Some(false)).then_some(())
    }),
    ("records: a request for the access log", |m, _| {
        let found = m.logged.request(&m.neutral_request, m.begun);
        found.filter(|is_told| *is_told).map(drop)
    }),
    ("records: a request with a span", |m, _| {
        let found = m.traced.request(&m.neutral_request, m.begun);
        found.filter(|is_told| *is_told).map(drop)
    }),
    ("records: the request's line", |m, out| {
        bench::Recorded::line(&m.neutral_request, m.begun, out)
    }),
    ("balance: pick of 100", |m, _| {
        bench::picked(&m.costs, 0x1234_5678_9abc_def0).map(drop)
    }),
];

fn routed(service: &ringmail_proto::destination::Service, neutral: &mut Vec<u8>) -> Option<()> {
    *neutral = bench::routed(service, std::mem::take(neutral), 7)?;
    Some(())
}

/// The last rule of ten to the power of `n` allows it.
fn authorized(m: &Material, n: usize) -> Option<()> {
    let decision = m.authorizers.get(n)?.decide(&m.asked());
    let last = ringmail_proto::policy::Verdict::Allow;
    (decision.enforced.verdict == last).then_some(())
}

/// How many nanoseconds one run of a case takes here, at best.
pub(crate) fn nanoseconds(name: &str) -> anyhow::Result<f64> {
    const ROUNDS: usize = 20;
    let found = CASES.iter().find(|(known, _)| *known == name);
    let (_, run) = found.with_context(|| format!("there is no case {name}"))?;
    let material = material::make()?;
    let mut out = Vec::with_capacity(64 * 1024);
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        repeat(RUNS * 10, *run, &material, &mut out);
        begun.elapsed().as_nanos() as f64 / (RUNS * 10) as f64
    });
    Ok(rounds.fold(f64::INFINITY, f64::min))
}

/// In the order of the table.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(name, _)| *name)
}

/// Runs a case; an error if it does not do what it is for.
pub(crate) fn run(name: &str) -> anyhow::Result<()> {
    let found = CASES.iter().find(|(known, _)| *known == name);
    let (_, run) = found.with_context(|| format!("there is no case {name}"))?;
    let material = material::make()?;
    let mut out = Vec::with_capacity(64 * 1024);
    let done = warm_up(*run, &material, &mut out) + counted_by_callgrind(*run, &material, &mut out);
    anyhow::ensure!(done == WARM_UP + RUNS, "{name} fails");
    Ok(())
}

fn warm_up(run: Run, material: &Material, out: &mut Vec<u8>) -> u64 {
    repeat(WARM_UP, run, material, out)
}

/// Valgrind looks for this name, and counts what happens in here.
#[inline(never)]
fn counted_by_callgrind(run: Run, material: &Material, out: &mut Vec<u8>) -> u64 {
    // Not a tail call: this frame has to stay.
    black_box(repeat(RUNS, run, material, out))
}

#[inline(never)]
fn repeat(runs: u64, run: Run, material: &Material, out: &mut Vec<u8>) -> u64 {
    let mut done = 0;
    for _ in 0..runs {
        out.clear();
        done += u64::from(run(black_box(material), out).is_some());
        black_box(&*out);
    }
    done
}
