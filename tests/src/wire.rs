//! What went over the wire between pods: a watch on the node's bridge, which puts each TCP stream together as it passes
//! and keeps only what is judged of it.
//!
//! Bounded: `FLOWS_MAX` streams, `EARLY_BYTES_MAX` bytes that came before their turn. What it could not see is said,
//! and a proof of absence must ask for it: `Flow::missed_bytes`, `Report::lost_flows`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::poll::{PollFd, PollFlags, poll};

use crate::{
    netns::{BRIDGE, Node},
    packet::PacketSocket,
    tls_records::TlsStream,
};

/// The most directions of connections.
pub const FLOWS_MAX: usize = 100_000;

/// Of one direction, the most bytes kept until what is before them comes.
pub const EARLY_BYTES_MAX: usize = 4 << 20;

/// The watch looks at least this often whether it is to end.
const PAUSE_MILLISECONDS: u16 = 50;

/// One direction of one TCP connection.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Who sent.
    pub from: SocketAddr,
    /// Who was to receive.
    pub to: SocketAddr,
    /// Payload, each byte once.
    pub bytes: u64,
    /// Payload that never came by, so nobody judged it.
    pub missed_bytes: u64,
    /// Was the connection's first byte seen? Otherwise it cannot be told from TLS.
    pub from_start: bool,
    /// Why this is not TLS 1.3; `None` also for a flow without payload.
    pub not_tls: Option<String>,
    /// Opaque TLS records.
    pub opaque_records: u64,
    /// Which of the watch's markers were in the payload.
    pub markers: Vec<String>,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}: {} bytes, ", self.from, self.to, self.bytes)?;
        match &self.not_tls {
            None => write!(f, "{} TLS records", self.opaque_records)?,
            Some(problem) => write!(f, "{problem}")?,
        }
        if self.markers.is_empty() {
            Ok(())
        } else {
            write!(f, ", with markers {:?}", self.markers)
        }
    }
}

/// All that was seen so far.
#[derive(Debug, Clone)]
pub struct Report {
    /// Every direction of every connection with payload.
    pub flows: Vec<Flow>,
    /// Directions beyond [`FLOWS_MAX`], not looked at.
    pub lost_flows: u64,
    /// Resets that were sent by anyone.
    pub resets: u64,
}

impl Report {
    /// Flows between any of `some` and any of `others`, either way.
    pub fn between<'a>(
        &'a self,
        some: &'a [IpAddr],
        others: &'a [IpAddr],
    ) -> impl Iterator<Item = &'a Flow> {
        self.flows.iter().filter(move |flow| {
            let (from, to) = (flow.from.ip(), flow.to.ip());
            some.contains(&from) && others.contains(&to)
                || others.contains(&from) && some.contains(&to)
        })
    }

    /// Flows in which a marker was seen.
    pub fn with_marker(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter().filter(|flow| !flow.markers.is_empty())
    }

    /// Flows that are not proven to be TLS 1.3 from first byte to last.
    pub fn not_proven_tls(&self) -> impl Iterator<Item = &Flow> {
        self.flows
            .iter()
            .filter(|flow| flow.not_tls.is_some() || !flow.from_start || flow.missed_bytes > 0)
    }
}

/// A watch on the node's bridge; ends when dropped.
#[derive(Debug)]
pub struct Wire {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Wire {
    /// Watches from now on, also for `markers`: words that must (not) be seen.
    pub fn watch(node: &Node, markers: &[&str]) -> anyhow::Result<Self> {
        let mut socket = node.namespace.run(|| PacketSocket::open(BRIDGE))??;
        let markers = markers.iter().map(ToString::to_string).collect();
        let state = Arc::new(Mutex::new(State {
            markers,
            ..State::default()
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = thread::Builder::new().name("wire".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if shared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .drain(&mut socket)
                    .is_err()
                {
                    return;
                }
                let _ = poll(
                    &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
                    PAUSE_MILLISECONDS,
                );
            }
        })?;
        Ok(Self {
            state,
            stop,
            thread: Some(thread),
        })
    }

    /// What was seen so far. Frames of the last instant may still be on their way here: wait for a condition.
    pub fn report(&self) -> Report {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let open = state
            .flows
            .iter()
            .filter(|(_, stream)| stream.has_payload());
        let open = open.map(|(key, stream)| stream.describe(*key, &state.markers));
        Report {
            flows: state.done.iter().cloned().chain(open).collect(),
            lost_flows: state.lost,
            resets: state.resets,
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sender and receiver.
type Key = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
struct State {
    markers: Vec<String>,
    flows: HashMap<Key, Stream>,
    /// Streams whose ports another connection has now.
    done: Vec<Flow>,
    lost: u64,
    resets: u64,
}

impl State {
    fn drain(&mut self, socket: &mut PacketSocket) -> std::io::Result<()> {
        while let Some(frame) = socket.receive()? {
            if let Some(segment) = Segment::parse(frame.bytes) {
                self.take(&segment);
            }
        }
        Ok(())
    }

    fn take(&mut self, segment: &Segment<'_>) {
        self.resets += u64::from(segment.is_reset);
        // A SYN begins a new connection, also on ports that another one had.
        if segment.is_syn {
            let old = self.flows.remove(&segment.key).filter(Stream::has_payload);
            self.done
                .extend(old.map(|old| old.describe(segment.key, &self.markers)));
        }
        if self.flows.len() + self.done.len() >= FLOWS_MAX && !self.flows.contains_key(&segment.key)
        {
            self.lost += 1;
            return;
        }
        let stream = self
            .flows
            .entry(segment.key)
            .or_insert_with(|| Stream::starting(segment));
        stream.take(segment.sequence, segment.payload, &self.markers);
    }
}

/// One direction, put together.
#[derive(Debug)]
struct Stream {
    from_start: bool,
    /// The sequence number of the next byte.
    next: u32,
    bytes: u64,
    missed: u64,
    /// Payload by its distance from the first byte, until what is before it comes.
    early: BTreeMap<u64, Vec<u8>>,
    early_bytes: usize,
    /// The end of what was read, in which a marker may begin.
    tail: Vec<u8>,
    found: Vec<bool>,
    tls: TlsStream,
}

impl Stream {
    fn starting(segment: &Segment<'_>) -> Self {
        Self {
            from_start: segment.is_syn,
            next: segment.sequence.wrapping_add(u32::from(segment.is_syn)),
            bytes: 0,
            missed: 0,
            early: BTreeMap::new(),
            early_bytes: 0,
            tail: Vec::new(),
            found: Vec::new(),
            tls: TlsStream::default(),
        }
    }

    fn take(&mut self, sequence: u32, payload: &[u8], markers: &[String]) {
        if payload.is_empty() {
            return;
        }
        let ahead = sequence.wrapping_sub(self.next).cast_signed();
        match usize::try_from(ahead) {
            Ok(0) => self.read(payload, markers),
            Ok(ahead) => {
                let at = self.position() + ahead as u64;
                self.early_bytes += payload.len();
                if let Some(replaced) = self.early.insert(at, payload.to_vec()) {
                    self.early_bytes -= replaced.len();
                }
            }
            // Sent again: only what is new counts.
            Err(_) => {
                let old = usize::try_from(ahead.unsigned_abs()).unwrap_or(usize::MAX);
                if let Some(new) = payload.get(old..).filter(|new| !new.is_empty()) {
                    self.read(new, markers);
                }
            }
        }
        self.read_early(markers);
    }

    fn has_payload(&self) -> bool {
        self.bytes > 0 || !self.early.is_empty()
    }

    fn position(&self) -> u64 {
        self.bytes + self.missed
    }

    /// Reads what has become next; gives up waiting for a gap when too much waits behind it.
    fn read_early(&mut self, markers: &[String]) {
        while let Some((&at, _)) = self.early.first_key_value() {
            let gap = at.saturating_sub(self.position());
            if gap > 0 && self.early_bytes <= EARLY_BYTES_MAX {
                return;
            }
            let Some((_, payload)) = self.early.pop_first() else {
                return;
            };
            self.early_bytes -= payload.len();
            self.missed += gap;
            self.next = self
                .next
                .wrapping_add(u32::try_from(gap).unwrap_or_default());
            let known = usize::try_from(self.position().saturating_sub(at)).unwrap_or(usize::MAX);
            if let Some(new) = payload.get(known..).filter(|new| !new.is_empty()) {
                self.read(new, markers);
            }
        }
    }

    fn read(&mut self, payload: &[u8], markers: &[String]) {
        self.next = self
            .next
            .wrapping_add(u32::try_from(payload.len()).unwrap_or_default());
        self.bytes += payload.len() as u64;
        self.tls.read(payload);
        self.tail.extend(payload);
        self.found.resize(markers.len(), false);
        for (found, marker) in self.found.iter_mut().zip(markers) {
            *found |= self
                .tail
                .windows(marker.len())
                .any(|window| window == marker.as_bytes());
        }
        let keep = markers
            .iter()
            .map(|marker| marker.len().saturating_sub(1))
            .max()
            .unwrap_or(0);
        self.tail.drain(..self.tail.len().saturating_sub(keep));
    }

    fn describe(&self, (from, to): Key, markers: &[String]) -> Flow {
        let found = self.found.iter().zip(markers).filter(|(found, _)| **found);
        let markers = found.map(|(_, marker)| marker.clone());
        let early: u64 = self
            .early
            .values()
            .map(|payload| payload.len() as u64)
            .sum();
        Flow {
            from,
            to,
            bytes: self.bytes,
            missed_bytes: self.missed + early,
            from_start: self.from_start,
            not_tls: self.tls.problem.clone(),
            opaque_records: self.tls.opaque_records,
            markers: markers.collect(),
        }
    }
}

/// A TCP segment in a frame.
struct Segment<'a> {
    key: Key,
    sequence: u32,
    is_syn: bool,
    is_reset: bool,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// `None` for all that is not TCP over IPv4 or IPv6 without extension headers (the kernel sends none).
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        let (from, to, tcp): (IpAddr, IpAddr, _) =
            match u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]) {
                0x0800 if *packet.get(9)? == 6 => {
                    let header = usize::from(packet[0] & 15) * 4;
                    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                    // Frames that the kernel will cut up later may be too long for the field: then it is 0.
                    let end = if total == 0 { packet.len() } else { total };
                    let from: [u8; 4] = *packet.get(12..)?.first_chunk()?;
                    let to: [u8; 4] = *packet.get(16..)?.first_chunk()?;
                    (from.into(), to.into(), packet.get(header..end)?)
                }
                0x86dd if *packet.get(6)? == 6 => {
                    let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
                    let end = if length == 0 {
                        packet.len()
                    } else {
                        40 + length
                    };
                    let from: [u8; 16] = *packet.get(8..)?.first_chunk()?;
                    let to: [u8; 16] = *packet.get(24..)?.first_chunk()?;
                    (from.into(), to.into(), packet.get(40..end)?)
                }
                _ => return None,
            };
        let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        Some(Self {
            key: (
                SocketAddr::new(from, port(0)?),
                SocketAddr::new(to, port(2)?),
            ),
            sequence: u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?),
            is_syn: tcp.get(13)? & 2 != 0,
            is_reset: tcp.get(13)? & 4 != 0,
            payload: tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
        })
    }
}
