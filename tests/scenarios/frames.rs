//! HTTP/2 frames by hand (RFC 9113 section 4), and what the other side says of them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::SockRef;

/// RFC 9113 section 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// RFC 9113 section 7.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// Flags.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Written at once, and buffered by our kernel: little, so that most of what was sent was read.
const BATCH_BYTES: usize = 2 * 1024;
const BUFFER_BYTES: usize = 16 * 1024;
/// A flood that nobody ended by then was not ended.
const FLOOD_LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block (RFC 7541) of a request for `path`, without entries in a table.
pub(crate) fn request_block(method: &str, path: &str) -> Vec<u8> {
    // :scheme http by its index; the others as literals with an indexed name.
    let mut block = vec![0x86];
    for (name, value) in [(0x01, "shop"), (0x02, method), (0x04, path)] {
        block.push(name);
        block.push(u8::try_from(value.len()).unwrap_or(0));
        block.extend(value.as_bytes());
    }
    block
}

/// One frame that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The next frame.
pub(crate) fn read(mut stream: &TcpStream) -> std::io::Result<Frame> {
    let mut header = [0; 9];
    stream.read_exact(&mut header)?;
    let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
    stream.read_exact(&mut payload)?;
    Ok(Frame {
        kind,
        flags,
        stream: u32::from_be_bytes([s0, s1, s2, s3]),
        payload,
    })
}

/// The next frame of that kind; settings and pings before it are answered.
pub(crate) fn read_until(mut stream: &TcpStream, kind: u8) -> anyhow::Result<Frame> {
    loop {
        let found = read(stream).with_context(|| format!("no frame of kind {kind}"))?;
        if found.kind == kind {
            return Ok(found);
        }
        match found.kind {
            SETTINGS if found.flags & ACK == 0 => {
                stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?
            }
            PING if found.flags & ACK == 0 => {
                stream.write_all(&frame(PING, ACK, 0, &found.payload))?;
            }
            _ => {}
        }
    }
}

/// What became of a flood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flooded {
    /// Frames that were written until the other side hung up.
    pub(crate) frames: u64,
    /// The code of its GOAWAY, if one came.
    pub(crate) goaway: Option<u32>,
    /// It hung up.
    pub(crate) ended: bool,
}

/// Says `opening`, then what `next` makes, frame after frame, until the other side hangs up or `frames_max` are sent.
/// `next` is told how many were made before.
pub(crate) fn flood(
    mut stream: &TcpStream,
    opening: &[u8],
    frames_max: u64,
    next: impl Fn(u32) -> (u64, Vec<u8>),
) -> anyhow::Result<Flooded> {
    let begun = Instant::now();
    let over = AtomicBool::new(false);
    SockRef::from(stream).set_send_buffer_size(BUFFER_BYTES)?;
    stream.write_all(opening)?;
    thread::scope(|scope| {
        let listener = scope.spawn(|| {
            let goaway = listen(stream);
            over.store(true, Ordering::Relaxed);
            goaway
        });
        let (mut frames, mut made) = (0, 0);
        while !over.load(Ordering::Relaxed) && frames < frames_max && begun.elapsed() < FLOOD_LIMIT
        {
            let mut batch = Vec::with_capacity(2 * BATCH_BYTES);
            let mut in_batch = 0;
            while batch.len() < BATCH_BYTES {
                let (count, bytes) = next(made);
                made += 1;
                in_batch += count;
                batch.extend(bytes);
            }
            if stream.write_all(&batch).is_err() {
                break;
            }
            frames += in_batch;
        }
        let ended = over.load(Ordering::Relaxed) || frames < frames_max;
        let _ = stream.shutdown(Shutdown::Write);
        let goaway = listener.join().ok().context("the listener panicked")?;
        Ok(Flooded {
            frames,
            goaway,
            ended: ended && begun.elapsed() < FLOOD_LIMIT,
        })
    })
}

/// Reads to the end; says with which code the other side went away.
pub(crate) fn listen(stream: &TcpStream) -> Option<u32> {
    let mut goaway = None;
    while let Ok(found) = read(stream) {
        if found.kind == GOAWAY
            && let Some(code) = found.payload.get(4..8)
        {
            let code = u32::from_be_bytes([code[0], code[1], code[2], code[3]]);
            // The one that says why is worth more than a polite one.
            if goaway.is_none_or(|known| known == 0) {
                goaway = Some(code);
            }
        }
    }
    goaway
}
