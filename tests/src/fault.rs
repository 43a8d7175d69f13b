//! Links that are cut, slow or lossy: a thread passes a pod's frames on, as it is told at the time. No netem.
//!
//! ```text
//! bridge -- port7 ~ relay7a == this thread == relay7b ~ eth0 of the pod
//! ```

use std::{
    collections::VecDeque,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    links,
    netns::{BRIDGE, Namespace, port_name},
    packet::PacketSocket,
};

/// The most frames under way in one direction; more are lost.
const FRAMES_MAX: usize = 20_000;

/// The relay looks at least this often whether it is to end.
const PAUSE_MILLISECONDS: u16 = 50;

/// What happens to frames, in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault {
    /// Nothing passes.
    pub is_cut: bool,
    /// Each frame takes this much longer.
    pub delay: Duration,
    /// Of a thousand frames, so many are lost, at random.
    pub loss_per_mille: u16,
}

/// A pod's link; whole when made. Dropping it cuts the pod off.
#[derive(Debug)]
pub struct Link {
    fault: Arc<Mutex<Fault>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Link {
    /// Connects `pod`'s new `eth0` with the node's bridge.
    pub(crate) fn between(node: &Namespace, number: u16, pod: &Namespace) -> anyhow::Result<Self> {
        let port = &port_name(number);
        let [near, far] = ["a", "b"].map(|end| format!("{port}{end}"));
        let [near, far] = node.run(|| {
            links::veth(port, &near, None)?;
            links::veth(&far, "eth0", Some((pod.file().as_fd(), number)))?;
            links::enslave(port, BRIDGE)?;
            for name in [port, &near, &far] {
                links::no_offload(name)?;
                links::up(name, 0)?;
            }
            anyhow::Ok([PacketSocket::open(&near)?, PacketSocket::open(&far)?])
        })??;
        pod.run(|| links::no_offload("eth0"))??;
        let fault = Arc::new(Mutex::new(Fault::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut relay = Relay {
            fault: Arc::clone(&fault),
            stop: Arc::clone(&stop),
            ends: [near, far],
            under_way: [VecDeque::new(), VecDeque::new()],
            random: 0x2545_f491_4f6c_dd1d,
        };
        let thread = thread::Builder::new()
            .name(format!("link {port}"))
            .spawn(move || relay.run());
        Ok(Self {
            fault,
            stop,
            thread: Some(thread.context("relay thread")?),
        })
    }

    /// From now on, frames meet this. Frames under way keep their time, but a cut takes them.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Relay {
    fault: Arc<Mutex<Fault>>,
    stop: Arc<AtomicBool>,
    ends: [PacketSocket; 2],
    /// Frames that came in at each end, and when they are to leave by the other.
    under_way: [VecDeque<(Instant, Vec<u8>)>; 2],
    random: u64,
}

impl Relay {
    fn run(&mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            for end in [0, 1] {
                // An interface that is gone ends the relay: its pod is gone.
                if self
                    .take_in(end, fault, now)
                    .and_then(|()| self.send_due(end, fault, now))
                    .is_err()
                {
                    return;
                }
            }
            self.pause();
        }
    }

    fn take_in(&mut self, end: usize, fault: Fault, now: Instant) -> std::io::Result<()> {
        while let Some(frame) = self.ends[end].receive()? {
            let is_lost = fault.is_cut
                || random_below(&mut self.random, 1000) < u64::from(fault.loss_per_mille);
            if !frame.is_outgoing && !is_lost && self.under_way[end].len() < FRAMES_MAX {
                let bytes = frame.bytes.to_vec();
                self.under_way[end].push_back((now + fault.delay, bytes));
            }
        }
        Ok(())
    }

    fn send_due(&mut self, end: usize, fault: Fault, now: Instant) -> std::io::Result<()> {
        if fault.is_cut {
            self.under_way[end].clear();
        }
        while let Some((_, frame)) = self.under_way[end].pop_front_if(|(due, _)| *due <= now) {
            self.ends[1 - end].send(&frame)?;
        }
        Ok(())
    }

    /// Until a frame comes or is due.
    fn pause(&self) {
        let now = Instant::now();
        let due = self
            .under_way
            .iter()
            .filter_map(|frames| Some(frames.front()?.0))
            .min();
        let wait = due.map_or(u128::MAX, |due| {
            due.saturating_duration_since(now).as_millis() + 1
        });
        let wait = u16::try_from(wait)
            .unwrap_or(u16::MAX)
            .min(PAUSE_MILLISECONDS);
        let mut ends = self
            .ends
            .each_ref()
            .map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        // Interrupted or not, the next round looks at everything.
        let _ = poll(&mut ends, PollTimeout::from(wait));
    }
}

/// Xorshift: the same frames are lost in each run.
fn random_below(state: &mut u64, limit: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % limit
}
