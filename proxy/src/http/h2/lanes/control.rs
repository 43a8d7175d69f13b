//! Frames about the connection, as they arrive: settings, windows, pings and farewells.

use super::state::{Ending, State};
use super::{FAREWELL, FRAME_BYTES_MAX, Side};
use crate::error::Reason;
use crate::http::h2::frame::{self, ACK, Code, Head, Kind, Violation, WINDOW_MAX, setting};
use crate::http::h2::half::Reset;
use crate::http::h2::hpack::TABLE_BYTES;

impl State {
    /// RFC 9113 section 6.5.
    pub(super) fn receive_settings(
        &mut self,
        head: &Head,
        payload: &[u8],
    ) -> Result<(), Violation> {
        if head.has(ACK) {
            return Ok(());
        }
        if !self.is_settled {
            // What they do not say is unlimited (RFC 9113 section 6.5.2).
            self.theirs.streams = u32::MAX;
        }
        self.apply_settings(payload)?;
        if !std::mem::replace(&mut self.is_settled, true) {
            self.settling.wake_all();
        }
        self.put_reply(Kind::Settings, ACK, 0, &[]);
        self.admit();
        Ok(())
    }

    pub(super) fn apply_settings(&mut self, payload: &[u8]) -> Result<(), Violation> {
        if !payload.len().is_multiple_of(6) {
            let rule = "settings are not all there (RFC 9113 section 6.5)";
            return Err(Code::FrameSizeError.rule(rule));
        }
        let mut window = self.theirs.initial_window;
        for (id, value) in frame::settings(payload) {
            self.receive_setting(id, value, &mut window)?;
        }
        let change = i64::from(window) - i64::from(self.theirs.initial_window);
        self.theirs.initial_window = window;
        if change != 0 {
            // The lanes that are there, in whatever order.
            let fits = self.by_id.values_mut().map(|half| half.grow(change));
            if !fits.fold(true, |all, fits| all & fits) {
                return Err(overflow());
            }
        }
        Ok(())
    }

    fn receive_setting(&mut self, id: u16, value: u32, window: &mut u32) -> Result<(), Violation> {
        let rule = "a setting has a value that it may not have (RFC 9113 section 6.5.2)";
        let invalid = Err(Code::ProtocolError.rule(rule));
        match id {
            setting::TABLE if (value as usize) < TABLE_BYTES => {
                self.resize = Some(value as usize);
            }
            // Only a client may want to be pushed to.
            setting::PUSH if value > 1 || value == 1 && self.side == Side::Client => {
                return invalid;
            }
            setting::STREAMS => self.theirs.streams = value,
            setting::INITIAL_WINDOW if value > WINDOW_MAX => return Err(overflow()),
            setting::INITIAL_WINDOW => *window = value,
            setting::FRAME => match value {
                0x4000..=0xff_ffff => {
                    self.theirs.frame_bytes = FRAME_BYTES_MAX.min(value as usize);
                }
                _ => return invalid,
            },
            // RFC 8441 section 3: it cannot be taken back.
            setting::CONNECT_PROTOCOL if value > 1 => return invalid,
            setting::CONNECT_PROTOCOL if value == 0 && self.theirs.takes_connect => {
                return invalid;
            }
            setting::CONNECT_PROTOCOL => self.theirs.takes_connect = value == 1,
            _ => {}
        }
        Ok(())
    }

    /// RFC 9113 section 6.9.
    pub(super) fn receive_window(&mut self, head: &Head, payload: &[u8]) -> Result<(), Violation> {
        let (id, more) = (head.stream, i64::from(frame::number(payload) & WINDOW_MAX));
        let rule = "a window grows by nothing (RFC 9113 section 6.9)";
        if id == 0 {
            if more == 0 {
                return Err(Code::ProtocolError.rule(rule));
            }
            self.send_window += more;
            if self.send_window > i64::from(WINDOW_MAX) {
                return Err(overflow());
            }
            self.give_turns();
            return Ok(());
        }
        self.expect_used(id)?;
        let Some(half) = self.by_id.get_mut(&id).filter(|half| !half.is_over()) else {
            return Ok(());
        };
        if more == 0 {
            self.reset_for(id, Code::ProtocolError, rule);
        } else if !half.grow(more) {
            self.reset_for(id, Code::FlowControlError, overflow().rule);
        }
        Ok(())
    }

    /// RFC 9113 section 6.7.
    pub(super) fn receive_ping(&mut self, head: &Head, payload: &[u8]) {
        if !head.has(ACK) {
            return self.put_reply(Kind::Ping, ACK, 0, payload);
        }
        if payload == FAREWELL && self.ending == Ending::Told {
            self.ending = Ending::Last;
            self.put_goaway(self.last_opened, Code::NoError);
        }
    }

    /// RFC 9113 section 6.8: what the server does not say that it will look at, it has not. A client that goes away
    /// closes its connection.
    pub(super) fn receive_goaway(&mut self, payload: &[u8]) {
        if self.side == Side::Server {
            return;
        }
        self.ending = Ending::Last;
        self.wake_sender();
        let last = frame::number(payload) & WINDOW_MAX;
        let refused = self.by_id.iter_mut().filter(|(id, _)| **id > last);
        let mut ids = Vec::new();
        for (id, half) in refused.filter(|(_, half)| !half.is_over()) {
            half.reset = Some(Reset {
                reason: Reason::AppRefused,
                by_us: false,
            });
            half.wake();
            ids.push(*id);
        }
        ids.into_iter().for_each(|id| self.count_out(id));
        self.queue.wake_all();
    }
}

fn overflow() -> Violation {
    let rule = "a window becomes larger than windows may be (RFC 9113 section 6.9.1)";
    Code::FlowControlError.rule(rule)
}
