//! Clients of HTTP/2 that take less than there is for them: what their streams share, and what is kept for them.

use std::io::Write;
use std::time::Duration;

use anyhow::ensure;
use ringmail_tests::bed::Bed;

use crate::Scenario;
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE,
    frame, read_until, request_block,
};
use crate::raw::{dial, read_head};
use crate::shop::{WEB, play};
use crate::streams::assert_resident;
use crate::versions::{HTTP1, HTTP2, accept_http2, one_worker};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("slow_clients::streams_take_turns", streams_take_turns),
    (
        "slow_clients::a_block_that_does_not_end",
        a_block_that_does_not_end,
    ),
    (
        "slow_clients::hints_that_nobody_reads",
        hints_that_nobody_reads,
    ),
];

/// Two answers on one connection, whose client opens its window slowly: the long one does not keep the short one waiting.
fn streams_take_turns(bed: Bed) -> anyhow::Result<()> {
    const FRAME_BYTES: u32 = 16 * 1024;
    /// How often the client opens the connection's window for one frame more, until the short answer has its turn.
    const FRAMES_MAX: usize = 3;
    play(bed, &one_worker(), |shop| {
        let app = HTTP2.announce(shop)?;
        let mut client = dial(&shop.client, HTTP2.at())?;
        let all = (1_u32 << 30).to_be_bytes();
        let settings = [&[0, 4][..], &all].concat();
        let (long, short) = (
            request_block("GET", "/long"),
            request_block("GET", "/short"),
        );
        let requests = [
            PREFACE,
            &frame(SETTINGS, 0, 0, &settings),
            &frame(HEADERS, END_HEADERS | END_STREAM, 1, &long),
            &frame(HEADERS, END_HEADERS | END_STREAM, 3, &short),
        ];
        client.write_all(&requests.concat())?;
        let mut served = accept_http2(&app)?;
        let ids = [read_until(&served, HEADERS)?, read_until(&served, HEADERS)?];
        let [long, short] = ids.map(|head| head.stream);
        let mut answers = frame(HEADERS, END_HEADERS, long, &[0x88]);
        for _ in 0..32 {
            answers.extend(frame(DATA, 0, long, &[b'x'; FRAME_BYTES as usize]));
        }
        answers.extend(frame(HEADERS, END_HEADERS, short, &[0x88]));
        answers.extend(frame(DATA, END_STREAM, short, b"short"));
        served.write_all(&answers)?;
        let mut heads = [read_until(&client, HEADERS)?, read_until(&client, HEADERS)?];
        heads.sort_by_key(|head| head.stream);
        ensure!(heads.map(|head| head.stream) == [1, 3], "both are answered");
        let more = frame(WINDOW_UPDATE, 0, 0, &FRAME_BYTES.to_be_bytes());
        for _ in 0..FRAMES_MAX {
            client.write_all(&more)?;
            let mut left = FRAME_BYTES as usize;
            while left > 0 {
                let data = read_until(&client, DATA)?;
                if data.stream == 3 {
                    return Ok(());
                }
                left = left.saturating_sub(data.payload.len());
            }
        }
        anyhow::bail!("the long answer took every window")
    })
}

/// An app that gives more hints than its client reads (RFC 8297) fills nobody's memory,
/// breaks no connection, and its answer arrives.
fn hints_that_nobody_reads(bed: Bed) -> anyhow::Result<()> {
    const HINTS: usize = 10_000;
    const HINT_BYTES: usize = 4096;
    /// Of a debug build, which has 19 MiB when idle.
    const KIB_MAX: u64 = 48 * 1024;
    play(bed, &one_worker(), |shop| {
        let app = HTTP1.announce(shop)?;
        let mut client = dial(&shop.client, HTTP1.at())?;
        let request = frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &request_block("GET", "/"),
        );
        client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &request].concat())?;
        let mut served = app.accept_speaking()?;
        read_head(&mut served)?;
        let link = "x".repeat(HINT_BYTES);
        let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: <{link}>\r\n\r\n");
        for _ in 0..HINTS {
            served.write_all(hint.as_bytes())?;
        }
        assert_resident(shop, "with hints that nobody reads", KIB_MAX)?;
        served.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        let mut hints = 0;
        while read_until(&client, HEADERS)?.payload.first() != Some(&0x88) {
            hints += 1;
        }
        ensure!((1..=20).contains(&hints), "{hints} hints");
        Ok(())
    })
}

/// A client that begins a block of fields and does not end it is given up; nothing else is to come between.
fn a_block_that_does_not_end(bed: Bed) -> anyhow::Result<()> {
    /// The proxy waits for 10 s.
    const GIVEN_UP: Duration = Duration::from_secs(15);
    play(bed, &one_worker(), |shop| {
        let mut client = dial(&shop.client, WEB)?;
        let block = request_block("GET", "/");
        let (begin, rest) = block.split_at(3);
        let begun = frame(HEADERS, END_STREAM, 1, begin);
        client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &begun].concat())?;
        read_until(&client, SETTINGS)?;
        // One that ends is another matter.
        client.write_all(&frame(CONTINUATION, END_HEADERS, 1, rest))?;
        read_until(&client, HEADERS)?;
        client.write_all(&frame(HEADERS, END_STREAM, 3, begin))?;
        client.set_read_timeout(Some(GIVEN_UP))?;
        let farewell = read_until(&client, GOAWAY)?;
        ensure!(
            farewell.payload.get(4..) == Some(&[0, 0, 0, 1]),
            "{farewell:?}"
        );
        shop.wait_client_refusal("malformed_request")
    })
}
