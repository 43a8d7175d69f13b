//! What the script is told and what it answers. Pure.

use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};
use ringmail_proto::limit::home::{Answer, BucketName};
use ringmail_proto::limit::{BURST_MAX, LEDGER_TIME, RESYNC_TIME};

use super::super::home::Asked;
use super::{HELD_TIME, KEPT_TIME, Lost};

/// Answers of the script before those to orders.
const HEAD: usize = 4;
/// Answers to one order.
const EACH: usize = 4;

/// Names of a mesh's keys. All are in one slot of a cluster.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    tag: String,
}

/// As whom and in what the script is called.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) run: String,
    /// None yet: it begins.
    pub(super) epoch: Option<String>,
    pub(super) incarnation: String,
}

/// What the script says before it answers orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether the caller is in this epoch, and not taken for gone.
    pub(super) is_known: bool,
    /// Microseconds, by the server's clock.
    pub(super) now: u64,
    pub(super) opens_in: Duration,
    pub(super) epoch: String,
}

impl Keys {
    /// Of a mesh. Braces would end the tag early.
    pub(super) fn new(prefix: &str, trust_domain: &str) -> Self {
        Self {
            tag: format!("{{{prefix}:{trust_domain}}}"),
        }
    }

    fn fixed(&self, name: &str) -> String {
        format!("{}:{name}", self.tag)
    }

    fn bucket(&self, (limit, key): &BucketName) -> Vec<u8> {
        let start = format!("{}:bucket:{limit}\0", self.tag);
        [start.as_bytes(), key].concat()
    }
}

/// Adds keys and arguments to `EVAL` or `EVALSHA` and its script.
pub(super) fn write(command: &mut Cmd, keys: &Keys, caller: &Caller, orders: &[Asked]) {
    command.arg(2 + orders.len());
    command
        .arg(keys.fixed("epoch"))
        .arg(keys.fixed("controllers"));
    for (_, name, _, _) in orders {
        command.arg(keys.bucket(name));
    }
    command
        .arg(&caller.run)
        .arg(caller.epoch.as_deref().unwrap_or_default())
        .arg(&caller.incarnation)
        .arg(micros(LEDGER_TIME))
        .arg(micros(RESYNC_TIME))
        .arg(micros(HELD_TIME) / 1000)
        .arg(micros(KEPT_TIME) / 1000);
    for (_, _, pace, order) in orders {
        command
            .arg(order.spent)
            .arg(order.returned)
            .arg(order.wanted)
            .arg(order.sharers);
        match order.cap {
            None => command.arg("-"),
            // A proxy may remember anything; beyond these it makes no difference, and what is no number is nothing.
            Some(cap) => command.arg(format!("{}", cap.max(0.0).min(BURST_MAX.into()))),
        };
        command
            .arg(order.debit)
            .arg(pace.tokens)
            .arg(pace.period.as_secs())
            .arg(pace.burst);
    }
}

/// Takes apart what the script answered to `orders`.
pub(super) fn read(reply: &Value, orders: &[Asked]) -> Result<(Head, Vec<Answer>), Lost> {
    let Value::Array(values) = reply else {
        return Err(Lost::Nonsense("is no list"));
    };
    let (head, answers) = values
        .split_at_checked(HEAD)
        .ok_or(Lost::Nonsense("is too short"))?;
    let head = Head {
        is_known: number::<u64>(&head[0])? == 1,
        now: number(&head[1])?,
        opens_in: Duration::from_micros(number(&head[2])?),
        epoch: number(&head[3])?,
    };
    if !head.is_known {
        return Ok((head, Vec::new()));
    }
    if answers.len() != orders.len() * EACH {
        return Err(Lost::Nonsense("does not answer each order"));
    }
    let answers = answers.chunks_exact(EACH).zip(orders);
    let answers: Result<_, _> = answers
        .map(|(values, asked)| answer(values, asked))
        .collect();
    Ok((head, answers?))
}

fn answer(values: &[Value], (_, _, _, order): &Asked) -> Result<Answer, Lost> {
    let leased = number(&values[0])?;
    if leased > order.wanted {
        return Err(Lost::Nonsense("leases more than was wanted"));
    }
    let sharers: u64 = number(&values[3])?;
    Ok(Answer {
        leased,
        unspent: number(&values[1])?,
        wait: Duration::from_micros(number(&values[2])?),
        sharers: u32::try_from(sharers).unwrap_or(u32::MAX),
    })
}

fn number<T: FromRedisValue>(value: &Value) -> Result<T, Lost> {
    T::from_redis_value_ref(value)
        .map_err(|_| Lost::Nonsense("has something else in place of a value"))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
