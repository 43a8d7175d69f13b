//! Keys of the issuers whose tokens objects speak of: fetched for as long as an object names them, again well before they
//! are too old, and let go when they are. A proxy never fetches anything.
//!
//! Limits: `REMOTES_MAX` key sets, `FETCHES_MAX` fetches at once, one of each set every `REFRESH_MAX`, a quarter of
//! its age limit, or after a failure `BACKOFF_MIN` and then twice as long each time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ringmail_proto::policy::authentication::keys::Keys;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::config::JwksFetching;
use crate::fetch::{Client, Reach};
use crate::metrics::Metrics;
use crate::source::authentication::Remote;
use crate::source::{Objects, State};
use crate::stop::Stop;

/// Key sets that are kept; objects that name more have no keys.
pub const REMOTES_MAX: usize = 1000;
/// Fetches at once.
const FETCHES_MAX: usize = 16;
/// Between two fetches of a set, at most.
const REFRESH_MAX: Duration = Duration::from_secs(60);
/// After the first failure.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Fetched sets on their way to the keeper.
const QUEUE: usize = 64;

/// The keys that are in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeySets {
    by_remote: HashMap<Remote, Keys>,
    /// Why some are not, or soon will not be, for people.
    problems: BTreeSet<String>,
    /// Whether each that objects name was tried once.
    settled: bool,
}

impl KeySets {
    /// The keys there; none, if they are not known or too old.
    #[must_use]
    pub fn of(&self, remote: &Remote) -> Keys {
        self.by_remote.get(remote).cloned().unwrap_or_default()
    }

    /// What is wrong, for people.
    pub fn problems(&self) -> impl Iterator<Item = &String> {
        self.problems.iter()
    }

    /// Whether each that objects name was tried once.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }
}

/// What came of one fetch.
#[derive(Debug)]
struct Fetched {
    remote: Remote,
    begun: Instant,
    keys: Result<Keys, String>,
}

/// What is known of one set.
#[derive(Debug, Default)]
struct Known {
    keys: Option<(Keys, Instant)>,
    problem: Option<String>,
}

/// Everything known. Pure: time comes in.
#[derive(Debug, Default)]
struct Held {
    by_remote: HashMap<Remote, Known>,
    excess: usize,
    has_read: bool,
}

impl Held {
    /// Objects name these now. Says which are new, and which nobody names any more.
    fn name(&mut self, wanted: &HashSet<&Remote>) -> (Vec<Remote>, Vec<Remote>) {
        self.has_read = true;
        let gone = self.by_remote.keys().filter(|one| !wanted.contains(one));
        let gone: Vec<Remote> = gone.cloned().collect();
        for one in &gone {
            self.by_remote.remove(one);
        }
        let new = wanted.iter().copied();
        let new = new.filter(|one| !self.by_remote.contains_key(one));
        let mut new: Vec<Remote> = new.cloned().collect();
        let room = REMOTES_MAX - self.by_remote.len();
        self.excess = new.len().saturating_sub(room);
        new.truncate(room);
        for one in &new {
            self.by_remote.insert(one.clone(), Known::default());
        }
        (new, gone)
    }

    fn learn(&mut self, fetched: Fetched) {
        let Some(known) = self.by_remote.get_mut(&fetched.remote) else {
            return;
        };
        match fetched.keys {
            Ok(keys) => {
                known.keys = Some((keys, fetched.begun));
                known.problem = None;
            }
            Err(problem) => known.problem = Some(problem),
        }
    }

    /// When the next set is too old.
    fn end(&self) -> Option<Instant> {
        let ends = self.by_remote.iter().filter_map(|(remote, known)| {
            let (_, fetched) = known.keys.as_ref()?;
            Some(*fetched + remote.max_age)
        });
        ends.min()
    }

    fn expire(&mut self, now: Instant) {
        for (remote, known) in &mut self.by_remote {
            let is_old = |(_, fetched): &mut (Keys, Instant)| *fetched + remote.max_age <= now;
            if known.keys.take_if(is_old).is_some() {
                warn!(uri = %remote.uri, "keys are too old: no token of their issuer is good now");
            }
        }
    }

    fn sets(&self) -> KeySets {
        let keys = self.by_remote.iter().filter_map(|(remote, known)| {
            let (keys, _) = known.keys.clone()?;
            Some((remote.clone(), keys))
        });
        let problems = self.by_remote.iter().filter_map(|(remote, known)| {
            let problem = known.problem.as_ref()?;
            let fate = match known.keys {
                Some(_) => "the keys before stay in force for a while",
                None => "no token of their issuer is good",
            };
            Some(format!("keys at {}: {problem}; {fate}", remote.uri))
        });
        let excess = (self.excess > 0).then(|| {
            format!(
                "{} key sets beyond {REMOTES_MAX} are not fetched",
                self.excess
            )
        });
        let is_tried = |known: &Known| known.keys.is_some() || known.problem.is_some();
        KeySets {
            by_remote: keys.collect(),
            problems: problems.chain(excess).collect(),
            settled: self.has_read && self.by_remote.values().all(is_tried),
        }
    }
}

/// What fetching takes.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) fetching: JwksFetching,
    pub(crate) metrics: Arc<Metrics>,
}

impl Keeper {
    /// Keeps the keys that objects name, and sends them whenever they change, until told to stop.
    pub(crate) async fn run(
        self,
        mut source: watch::Receiver<Option<Arc<State>>>,
        sender: watch::Sender<Arc<KeySets>>,
        mut stop: Stop,
    ) {
        let (out, mut fetched) = mpsc::channel(QUEUE);
        let turns = Arc::new(Semaphore::new(FETCHES_MAX));
        let mut held = Held::default();
        // Dropping it ends the fetches.
        let mut tasks = JoinSet::new();
        let mut running: HashMap<Remote, AbortHandle> = HashMap::new();
        loop {
            let end = held.end();
            tokio::select! {
                () = stop.stopped() => return,
                changed = source.changed() => {
                    let state = source.borrow_and_update().clone();
                    if changed.is_err() {
                        return;
                    }
                    let Some(state) = state else {
                        continue;
                    };
                    let (new, gone) = held.name(&named(&state.objects));
                    for task in gone.iter().filter_map(|one| running.remove(one)) {
                        task.abort();
                    }
                    for one in new {
                        let follow = self.clone().follow(one.clone(), turns.clone(), out.clone());
                        running.insert(one, tasks.spawn(follow));
                    }
                }
                Some(one) = fetched.recv() => held.learn(one),
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                    held.expire(Instant::now());
                }
                Some(_) = tasks.join_next() => continue,
            }
            let sets = held.sets();
            if **sender.borrow() != sets {
                sender.send_replace(Arc::new(sets));
            }
        }
    }

    /// Fetches one set again and again.
    async fn follow(self, remote: Remote, turns: Arc<Semaphore>, out: mpsc::Sender<Fetched>) {
        let refresh = (remote.max_age / 4).min(REFRESH_MAX);
        let mut backoff = BACKOFF_MIN.min(refresh);
        loop {
            let begun = Instant::now();
            let keys = self.fetch(&remote, &turns).await;
            self.metrics.jwks_refreshes.inc();
            let wait = match &keys {
                Ok(_) => {
                    backoff = BACKOFF_MIN.min(refresh);
                    refresh
                }
                Err(problem) => {
                    self.metrics.jwks_failures.inc();
                    info!(uri = %remote.uri, "keys cannot be fetched: {problem}");
                    let wait = backoff;
                    backoff = (backoff * 2).min(refresh);
                    wait
                }
            };
            let remote = remote.clone();
            let told = out.send(Fetched {
                remote,
                begun,
                keys,
            });
            if told.await.is_err() {
                return;
            }
            sleep(wait).await;
        }
    }

    async fn fetch(&self, remote: &Remote, turns: &Semaphore) -> Result<Keys, String> {
        let _turn = turns.acquire().await.map_err(|e| e.to_string())?;
        if remote.uri.scheme_str() != Some("https") && !self.fetching.allow_http {
            return Err("is no https URL, and --jwks-allow-http is not set".into());
        }
        let reach = match self.fetching.allow_local {
            true => Reach::Anywhere,
            false => Reach::Abroad,
        };
        let client = Client::new(remote.uri.clone(), &self.fetching.root_cert, reach);
        let bytes = client.map_err(|e| e.to_string())?.fetch().await;
        let bytes = bytes.map_err(|e| e.to_string())?;
        Keys::parse(&bytes).map_err(|e| e.to_string())
    }
}

fn named(objects: &Objects) -> HashSet<&Remote> {
    let issuers = objects
        .authentications()
        .flat_map(|one| one.issuers.iter().flatten());
    issuers.filter_map(|one| one.remote.as_ref()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(100);

    fn keys(id: &str) -> Keys {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let set = format!(
            r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "kid": "{id}", "x": "{x}"}}]}}"#
        );
        Keys::parse(set.as_bytes()).expect("a set")
    }

    #[test]
    fn what_was_fetched_stays_until_it_is_too_old() {
        let remote = Remote {
            uri: "https://idp.example/keys".parse().expect("a URL"),
            max_age: AGE,
        };
        let start = Instant::now();
        let fetched = |keys: Result<Keys, String>, seconds| Fetched {
            remote: remote.clone(),
            begun: start + Duration::from_secs(seconds),
            keys,
        };
        let mut held = Held::default();
        assert!(!held.sets().is_settled(), "objects were never read");
        let (new, gone) = held.name(&HashSet::from([&remote]));
        assert_eq!((new.len(), gone.len()), (1, 0));
        assert!(!held.sets().is_settled());
        held.learn(fetched(Err("away".into()), 0));
        assert!(held.sets().is_settled() && held.sets().of(&remote).is_empty());
        held.learn(fetched(Ok(keys("a")), 10));
        held.learn(fetched(Err("away".into()), 20));
        assert_eq!(held.sets().of(&remote), keys("a"));
        assert_eq!(held.sets().problems().count(), 1);
        assert_eq!(held.end(), Some(start + Duration::from_secs(110)));
        held.expire(start + Duration::from_secs(109));
        assert_eq!(held.sets().of(&remote), keys("a"));
        held.expire(start + Duration::from_secs(110));
        assert!(held.sets().of(&remote).is_empty());
        held.learn(fetched(Ok(keys("b")), 120));
        assert_eq!(held.sets().of(&remote), keys("b"));
        let (new, gone) = held.name(&HashSet::new());
        assert_eq!((new.len(), gone.len()), (0, 1));
        held.learn(fetched(Ok(keys("c")), 130));
        assert!(held.sets().of(&remote).is_empty(), "nobody names it");
    }

    #[test]
    fn beyond_the_limit_none_is_fetched_and_that_is_said() {
        let remotes: Vec<Remote> = (0..REMOTES_MAX + 2)
            .map(|n| Remote {
                uri: format!("https://idp.example/{n}").parse().expect("a URL"),
                max_age: AGE,
            })
            .collect();
        let mut held = Held::default();
        let (new, _) = held.name(&remotes.iter().collect());
        assert_eq!(new.len(), REMOTES_MAX);
        let sets = held.sets();
        let problems: Vec<_> = sets.problems().collect();
        assert_eq!(problems, ["2 key sets beyond 1000 are not fetched"]);
    }
}
