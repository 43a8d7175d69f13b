//! One worker's way to the audit: which of what happens is told there, and how much of it.
//!
//! Limits: [`REFUSALS_PER_SECOND`] of one worker, so that whoever is refused cannot fill the disk, and [`USES_PER_SECOND`].
//! What is beyond is counted, and the audit says how much it was.

use std::cell::Cell;
use std::rc::Rc;
use std::time::SystemTime;

use ringmail_proto::records::Audit;

use super::object::Object;
use super::queue::Queue;

/// Refusals that one worker tells in a second.
const REFUSALS_PER_SECOND: u32 = 200;
/// Uses of what policies protect.
const USES_PER_SECOND: u32 = 2000;

/// What one worker tells the audit.
#[derive(Debug)]
pub(crate) struct Trail {
    scope: Audit,
    refusals: Pace,
    uses: Pace,
    queue: Rc<Queue>,
}

/// What happened, as the audit has it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(super) what: What,
    pub(super) at: SystemTime,
    /// A JSON object.
    pub(super) fields: Vec<u8>,
}

/// What it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Refusal,
    /// Something was let through though nobody answered who should have been asked.
    Unanswered,
    /// A use of what a policy protects.
    Use,
}

impl Trail {
    pub(super) fn new(scope: Audit, queue: Rc<Queue>) -> Self {
        Self {
            scope,
            refusals: Pace::new(REFUSALS_PER_SECOND),
            uses: Pace::new(USES_PER_SECOND),
            queue,
        }
    }

    /// Whether such a thing is told at all.
    pub(crate) fn has(&self, what: What) -> bool {
        match (self.scope, what) {
            (Audit::Off, _) | (Audit::Refusals, What::Use) => false,
            (Audit::Refusals, What::Refusal | What::Unanswered) | (Audit::All, _) => true,
        }
    }

    /// Tells what happened at `now`, in seconds, unless there is too much of it.
    pub(crate) fn tell(&self, what: What, now: i64, members: impl FnOnce(&mut Object<'_>)) {
        if !self.has(what) {
            return;
        }
        let pace = match what {
            What::Refusal | What::Unanswered => &self.refusals,
            What::Use => &self.uses,
        };
        if !pace.takes_one(now) {
            return self.queue.lose_event();
        }
        let mut fields = Vec::with_capacity(512);
        let mut object = Object::begin(&mut fields);
        let event = match what {
            What::Refusal => "refusal",
            What::Unanswered => "unanswered",
            What::Use => "use",
        };
        object.text("event", event);
        members(&mut object);
        object.end();
        self.queue.put_event(Event {
            what,
            at: SystemTime::now(),
            fields,
        });
    }
}

/// How many there were in this second.
#[derive(Debug)]
struct Pace {
    max: u32,
    second: Cell<i64>,
    count: Cell<u32>,
}

impl Pace {
    fn new(max: u32) -> Self {
        Self {
            max,
            second: Cell::default(),
            count: Cell::default(),
        }
    }

    fn takes_one(&self, now: i64) -> bool {
        if self.second.replace(now) != now {
            self.count.set(0);
        }
        let count = self.count.get();
        self.count.set(count.saturating_add(1));
        count < self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second() {
        let pace = Pace::new(200);
        let told = |now| (0..1000).filter(|_| pace.takes_one(now)).count();
        assert_eq!([told(1), told(1), told(2)], [200, 0, 200]);
    }
}
