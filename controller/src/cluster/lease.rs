//! Who leads: the replica whose name is in the Lease `ringmail-controller`.
//!
//! A holder that does not renew within the lease's duration is taken over. How long that is, each replica measures by its
//! own clock from when it saw the lease change last: nobody's clock is compared with another's. Every write names the
//! version it is based on, so of two that take a lease one fails. A holder that cannot renew stops leading at latest
//! `RENEW_DEADLINE` and one `REQUEST_TIMEOUT` after its last renewal, before anybody may take over.
//!
//! A lease belongs to our ServiceAccount: it goes when the mesh is uninstalled, and until then one of an account that is
//! not there any more is taken at once. Its holder can write nothing: tokens of a former account are refused.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::config::CONTROLLER_ACCOUNT;
use crate::stop::Stop;

/// The lease.
pub(crate) const LEASE: &str = "ringmail-controller";
/// A holder that is silent for so long leads no more.
const DURATION_SECONDS: i32 = 15;
/// The holder renews, and others look, so often.
const PERIOD: Duration = Duration::from_secs(2);
/// So long after the last renewal the holder tries once more, then stops leading.
const RENEW_DEADLINE: Duration = Duration::from_secs(9);
/// What owns it.
const ACCOUNT_KIND: &str = "ServiceAccount";
/// One turn.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// The lease as it was seen last, and when that was new.
#[derive(Debug, Clone)]
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

/// Whose lease it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Our account, or none that is named.
    Ours,
    /// An account of that name which is no more.
    Former,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// We hold it: say so again.
    Renew,
    /// Nobody holds it any more: become its holder.
    Take,
    /// Somebody holds it.
    Wait,
}

/// Decides for `me`.
fn step(seen: &Seen, owner: Owner, me: &str, now: Instant) -> Step {
    let holder = seen.spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = seen.spec.lease_duration_seconds.unwrap_or(DURATION_SECONDS);
    let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if holder == me {
        Step::Renew
    } else if holder.is_empty() || owner == Owner::Former || now >= seen.since + duration {
        Step::Take
    } else {
        Step::Wait
    }
}

/// By the UID of our account.
fn owner(owners: &[OwnerReference], account: &str) -> Owner {
    let mut accounts = owners.iter().filter(|one| one.kind == ACCOUNT_KIND);
    let is_former = accounts.next().is_some_and(|one| one.uid != account);
    match is_former {
        true => Owner::Former,
        false => Owner::Ours,
    }
}

/// The lease's owner: our account.
fn owned_by(account: &str) -> Vec<OwnerReference> {
    vec![OwnerReference {
        api_version: "v1".into(),
        kind: ACCOUNT_KIND.into(),
        name: CONTROLLER_ACCOUNT.into(),
        uid: account.into(),
        ..OwnerReference::default()
    }]
}

/// What the lease says when `me` takes or renews it.
fn held(before: &LeaseSpec, me: &str, now: Timestamp) -> LeaseSpec {
    let same = before.holder_identity.as_deref() == Some(me);
    let transitions = before.lease_transitions.unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(me.into()),
        lease_duration_seconds: Some(DURATION_SECONDS),
        acquire_time: match same {
            true => before.acquire_time.clone(),
            false => Some(MicroTime(now)),
        },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions + i32::from(!same)),
        ..LeaseSpec::default()
    }
}

/// One candidate.
pub(crate) struct Election {
    api: Api<Lease>,
    accounts: Api<ServiceAccount>,
    me: String,
    leads: watch::Sender<bool>,
    seen: Option<Seen>,
    renewed: Option<Instant>,
}

impl Election {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        me: String,
    ) -> (Self, watch::Receiver<bool>) {
        let (leads, receiver) = watch::channel(false);
        let election = Self {
            api: Api::namespaced(client.clone(), namespace),
            accounts: Api::namespaced(client, namespace),
            me,
            leads,
            seen: None,
            renewed: None,
        };
        (election, receiver)
    }

    /// Stands for election until told to stop, then gives the lease back.
    pub(crate) async fn run(mut self, mut stop: Stop) {
        loop {
            let tried = tokio::select! {
                () = stop.stopped() => break,
                tried = timeout(REQUEST_TIMEOUT, self.turn()) => tried,
            };
            match tried {
                Ok(Ok(leads)) => self.set(leads),
                Ok(Err(e)) => warn!("cannot read or write Lease {LEASE}: {e}"),
                Err(_) => warn!("no answer about Lease {LEASE} within {REQUEST_TIMEOUT:?}"),
            }
            let late = self
                .renewed
                .is_none_or(|renewed| renewed.elapsed() + PERIOD >= RENEW_DEADLINE);
            if late && *self.leads.borrow() {
                // The next turn may end too late.
                self.set(false);
            }
            tokio::select! {
                () = stop.stopped() => break,
                () = sleep(PERIOD) => {}
            }
        }
        let led = *self.leads.borrow();
        self.set(false);
        if led && timeout(REQUEST_TIMEOUT, self.give_back()).await.is_err() {
            warn!("cannot give Lease {LEASE} back; others wait {DURATION_SECONDS} s");
        }
    }

    fn set(&self, leads: bool) {
        let changed = self.leads.send_if_modified(|before| {
            let changed = *before != leads;
            *before = leads;
            changed
        });
        if changed {
            info!(leads, "leadership changed");
        }
    }

    /// One look, and one write if it is our turn; whether we lead then.
    async fn turn(&mut self) -> Result<bool, kube::Error> {
        let asked = Instant::now();
        // As it is now: whoever may read it has a token of just this account.
        let account = self.accounts.get_metadata(CONTROLLER_ACCOUNT).await?;
        let account = account.metadata.uid.unwrap_or_default();
        let Some(mut lease) = self.api.get_opt(LEASE).await? else {
            let first = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE.into()),
                    owner_references: Some(owned_by(&account)),
                    ..ObjectMeta::default()
                },
                spec: Some(held(&LeaseSpec::default(), &self.me, Timestamp::now())),
            };
            let created = self.api.create(&PostParams::default(), &first).await;
            return self.written(created, asked);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let seen = match self.seen.take() {
            Some(seen) if seen.spec == spec => seen,
            Some(_) | None => Seen {
                spec: spec.clone(),
                since: asked,
            },
        };
        let owners = lease.metadata.owner_references.take().unwrap_or_default();
        let step = step(&seen, owner(&owners, &account), &self.me, asked);
        self.seen = Some(seen);
        if step == Step::Wait {
            return Ok(false);
        }
        // The lease names its version: a write of another in between makes this one fail.
        lease.spec = Some(held(&spec, &self.me, Timestamp::now()));
        lease.metadata.owner_references = Some(owned_by(&account));
        lease.metadata.managed_fields = None;
        let replaced = self
            .api
            .replace(LEASE, &PostParams::default(), &lease)
            .await;
        self.written(replaced, asked)
    }

    fn written(
        &mut self,
        outcome: Result<Lease, kube::Error>,
        asked: Instant,
    ) -> Result<bool, kube::Error> {
        match outcome {
            Ok(_) => {
                self.renewed = Some(asked);
                Ok(true)
            }
            // Another was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn give_back(&self) {
        let give = async {
            let mut lease = self.api.get(LEASE).await?;
            let mut spec = lease.spec.unwrap_or_default();
            if spec.holder_identity.as_deref() == Some(&self.me) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                lease.spec = Some(spec);
                lease.metadata.managed_fields = None;
                self.api
                    .replace(LEASE, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Err(e) = give.await {
            warn!("cannot give Lease {LEASE} back: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_nobody_holds_it() {
        let rows = [
            (spec("me", 15), 0, Owner::Ours, Step::Renew),
            // Ours although it ran out: if another took it, the write fails.
            (spec("me", 15), 60, Owner::Ours, Step::Renew),
            (spec("me", 15), 0, Owner::Former, Step::Renew),
            (spec("other", 15), 0, Owner::Ours, Step::Wait),
            (spec("other", 15), 14, Owner::Ours, Step::Wait),
            (spec("other", 15), 15, Owner::Ours, Step::Take),
            (spec("other", 15), 0, Owner::Former, Step::Take),
            (spec("", 15), 0, Owner::Ours, Step::Take),
            (spec("other", 1), 1, Owner::Ours, Step::Take),
            (spec("other", -3), 0, Owner::Ours, Step::Take),
            (LeaseSpec::default(), 0, Owner::Ours, Step::Take),
        ];
        let start = Instant::now();
        for (spec, after, owner, wanted) in rows {
            let seen = Seen {
                spec: spec.clone(),
                since: start,
            };
            let now = start + Duration::from_secs(after);
            let found = step(&seen, owner, "me", now);
            assert_eq!(found, wanted, "{spec:?} of {owner:?} after {after} s");
        }
    }

    #[test]
    fn a_lease_is_of_a_former_account_by_its_uid() {
        let other = OwnerReference {
            kind: "Deployment".into(),
            uid: "old".into(),
            ..OwnerReference::default()
        };
        let rows = [
            (owned_by("new"), Owner::Ours),
            (owned_by("old"), Owner::Former),
            (vec![other], Owner::Ours),
            (vec![], Owner::Ours),
        ];
        for (owners, wanted) in rows {
            assert_eq!(owner(&owners, "new"), wanted, "{owners:?}");
        }
    }

    #[test]
    fn a_new_holder_counts_as_a_transition() {
        let now = Timestamp::now();
        let first = held(&LeaseSpec::default(), "a", now);
        assert_eq!(first.lease_transitions, Some(1));
        let later = Timestamp::from_second(now.as_second() + 5).expect("a time");
        let renewed = held(&first, "a", later);
        assert_eq!(renewed.lease_transitions, Some(1));
        assert_eq!(renewed.acquire_time, first.acquire_time);
        assert_ne!(renewed.renew_time, first.renew_time);
        let taken = held(&renewed, "b", later);
        assert_eq!(taken.lease_transitions, Some(2));
        assert_ne!(taken.acquire_time, first.acquire_time);
    }
}
