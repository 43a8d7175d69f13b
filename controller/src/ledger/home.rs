//! Where the ledger's buckets are: in our memory, or in a Redis that several controllers share. The ledger asks for all it
//! needs at once, and waits for all answers. A home that fails, or has forgotten, is lost: there will be another ledger.

use std::time::Instant;

use ringmail_proto::limit::Pace;
use ringmail_proto::limit::home::{Answer, BucketName, Memory, Order};
use tokio::time::sleep_until;

use super::pace;
use super::redis::{Lost, Redis};
use crate::model::Mesh;

/// Of one account, by its number in the ledger.
pub(super) type Asked = (usize, BucketName, Pace, Order);

/// Where buckets are.
#[derive(Debug)]
pub(super) enum Home {
    Memory(Memory),
    Redis(Box<Redis>),
}

impl Home {
    /// Carries out all orders, in their order. An error: the home is lost, and what came of them is unknown.
    pub(super) async fn exchange(
        &mut self,
        orders: &[Asked],
        now: Instant,
    ) -> Result<Vec<Answer>, Lost> {
        match self {
            Self::Memory(memory) => {
                let answers = orders.iter().map(|(_, name, pace, order)| {
                    memory.carry_out(name.clone(), *pace, order, now)
                });
                Ok(answers.collect())
            }
            Self::Redis(redis) => redis.exchange(orders).await,
        }
    }

    /// Whether it has to hear of us, though there is nothing to order.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(redis) => redis.is_due(now),
        }
    }

    /// Until it should be asked again: what is said meanwhile goes together.
    pub(super) async fn rest(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(redis) => sleep_until(redis.rests_until().into()).await,
        }
    }

    /// Forgets what is full again. Redis forgets by itself.
    pub(super) fn sweep(&mut self, now: Instant, mesh: &Mesh) {
        if let Self::Memory(memory) = self {
            let limits = mesh.limits();
            memory.sweep(now, |limit| pace(limits.get(limit)?));
        }
    }
}
