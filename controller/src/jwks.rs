//! Keys of the issuers whose tokens objects speak of: fetched for as long as an object names them, again well before they
//! are too old, and let go when they are. A proxy never fetches anything. Sets that were never fetched here are awaited for as
//! long as theirs may be old: proxies keep what they were told before a controller started anew.
//!
//! Limits: `REMOTES_MAX` key sets, those of all namespaces in turn; `FETCHES_MAX` fetches at once for a namespace, one of
//! each set every `REFRESH_MAX`, a quarter of its age limit, or after a failure `BACKOFF_MIN` and then twice as long
//! each time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
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
/// Fetches at once for the objects of a namespace.
const FETCHES_MAX: usize = 4;
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
    /// Those that were not fetched yet.
    awaited: HashSet<Remote>,
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

    /// Whether they may be known to others, but not here yet.
    #[must_use]
    pub fn awaits(&self, remote: &Remote) -> bool {
        self.awaited.contains(remote)
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
#[derive(Debug)]
struct Known {
    named: Instant,
    is_awaited: bool,
    keys: Option<(Keys, Instant)>,
    problem: Option<String>,
}

/// The key sets that objects name, and the namespace whose turns their fetches take.
#[derive(Debug, Default)]
struct Named {
    by_remote: HashMap<Remote, Arc<str>>,
    /// How many more there are.
    excess: usize,
}

impl Named {
    /// The first of each namespace come before the second of any: who names many displaces nobody's.
    fn by_turns(by_namespace: BTreeMap<Arc<str>, Vec<Remote>>) -> Self {
        let mut named = Self::default();
        let in_order = |(namespace, mut remotes): (Arc<str>, Vec<Remote>)| {
            remotes.sort_by_cached_key(|one| (one.uri.to_string(), one.max_age));
            remotes.dedup();
            (namespace, remotes.into_iter())
        };
        let mut all: Vec<_> = by_namespace.into_iter().map(in_order).collect();
        while !all.is_empty() {
            all.retain_mut(|(namespace, remotes)| {
                let Some(one) = remotes.next() else {
                    return false;
                };
                if named.by_remote.len() < REMOTES_MAX {
                    let turns = named.by_remote.entry(one);
                    turns.or_insert_with(|| namespace.clone());
                } else if !named.by_remote.contains_key(&one) {
                    named.excess += 1;
                }
                true
            });
        }
        named
    }

    fn of(objects: &Objects) -> Self {
        let mut by_namespace: BTreeMap<Arc<str>, Vec<Remote>> = BTreeMap::new();
        for one in objects.authentications() {
            let issuers = one.issuers.iter().flatten();
            let remotes = issuers.filter_map(|one| one.remote.clone());
            let namespace = one.metadata.namespace.as_deref().unwrap_or("default");
            by_namespace
                .entry(namespace.into())
                .or_default()
                .extend(remotes);
        }
        Self::by_turns(by_namespace)
    }
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
    fn name(&mut self, wanted: &Named, now: Instant) -> (Vec<Remote>, Vec<Remote>) {
        self.has_read = true;
        self.excess = wanted.excess;
        let known = self.by_remote.keys();
        let gone = known.filter(|one| !wanted.by_remote.contains_key(one));
        let gone: Vec<Remote> = gone.cloned().collect();
        for one in &gone {
            self.by_remote.remove(one);
        }
        let new = wanted.by_remote.keys();
        let new = new.filter(|one| !self.by_remote.contains_key(one));
        let new: Vec<Remote> = new.cloned().collect();
        for one in &new {
            let known = Known {
                named: now,
                is_awaited: true,
                keys: None,
                problem: None,
            };
            self.by_remote.insert(one.clone(), known);
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
                known.is_awaited = false;
                known.problem = None;
            }
            Err(problem) => known.problem = Some(problem),
        }
    }

    /// When the next set is too old, or awaited for too long.
    fn end(&self) -> Option<Instant> {
        let ends = self.by_remote.iter().filter_map(|(remote, known)| {
            let begun = known.keys.as_ref().map(|(_, fetched)| *fetched);
            let begun = begun.or_else(|| known.is_awaited.then_some(known.named));
            Some(begun? + remote.max_age)
        });
        ends.min()
    }

    fn expire(&mut self, now: Instant) {
        for (remote, known) in &mut self.by_remote {
            let is_old = |(_, fetched): &mut (Keys, Instant)| *fetched + remote.max_age <= now;
            let is_late = known.is_awaited && known.named + remote.max_age <= now;
            known.is_awaited &= !is_late;
            if known.keys.take_if(is_old).is_some() || is_late {
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
            let fate = match (&known.keys, known.is_awaited) {
                (Some(_), _) => "the keys before stay in force for a while",
                (None, true) => "those that proxies know stay in force for a while",
                (None, false) => "no token of their issuer is good",
            };
            Some(format!("keys at {}: {problem}; {fate}", shown(&remote.uri)))
        });
        let excess = (self.excess > 0).then(|| {
            format!(
                "{} key sets beyond {REMOTES_MAX} are not fetched",
                self.excess
            )
        });
        let awaited = self.by_remote.iter().filter(|(_, known)| known.is_awaited);
        let is_tried = |known: &Known| known.keys.is_some() || known.problem.is_some();
        KeySets {
            by_remote: keys.collect(),
            awaited: awaited.map(|(remote, _)| remote.clone()).collect(),
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
        let mut turns: HashMap<Arc<str>, Arc<Semaphore>> = HashMap::new();
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
                    let named = Named::of(&state.objects);
                    let (new, gone) = held.name(&named, Instant::now());
                    for task in gone.iter().filter_map(|one| running.remove(one)) {
                        task.abort();
                    }
                    turns.retain(|_, turns| Arc::strong_count(turns) > 1);
                    for one in new {
                        let turns = turns.entry(named.by_remote[&one].clone());
                        let turns = turns.or_insert_with(|| Semaphore::new(FETCHES_MAX).into());
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
                Err(error) => {
                    self.metrics.jwks_failures.inc();
                    info!(uri = %remote.uri, "keys cannot be fetched: {error}");
                    let wait = backoff;
                    backoff = (backoff * 2).min(refresh);
                    wait
                }
            };
            let keys = keys.map_err(|error| problem(&error));
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

    async fn fetch(&self, remote: &Remote, turns: &Semaphore) -> io::Result<Keys> {
        let _turn = turns.acquire().await.map_err(io::Error::other)?;
        if remote.uri.scheme_str() != Some("https") && !self.fetching.allow_http {
            let problem = "is no https URL, and --jwks-allow-http is not set";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
        let reach = match self.fetching.allow_local {
            true => Reach::Anywhere,
            false => Reach::Abroad,
        };
        let client = Client::new(remote.uri.clone(), &self.fetching.root_cert, reach);
        let bytes = client?.fetch().await?;
        Keys::parse(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

/// For whoever reads the status: not what answers where in the controller's network.
fn problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::PermissionDenied => error.to_string(),
        _ => "cannot be fetched; the controller's log says why".to_owned(),
    }
}

/// Without its query, which may be a secret.
fn shown(uri: &Uri) -> String {
    let text = uri.to_string();
    text.split('?').next().unwrap_or_default().to_owned()
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

    fn remote(path: usize) -> Remote {
        Remote {
            uri: format!("https://idp.example/{path}")
                .parse()
                .expect("a URL"),
            max_age: AGE,
        }
    }

    fn named(by_namespace: &[(&str, Vec<Remote>)]) -> Named {
        let all = by_namespace.iter();
        let all = all.map(|(namespace, remotes)| ((*namespace).into(), remotes.clone()));
        Named::by_turns(all.collect())
    }

    #[test]
    fn what_was_fetched_stays_until_it_is_too_old() {
        let (remote, start) = (remote(0), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let fetched = |keys: Result<Keys, String>, seconds| Fetched {
            remote: remote.clone(),
            begun: at(seconds),
            keys,
        };
        let mut held = Held::default();
        assert!(!held.sets().is_settled(), "objects were never read");
        let one = named(&[("shop", vec![remote.clone()])]);
        let (new, gone) = held.name(&one, start);
        assert_eq!((new.len(), gone.len()), (1, 0));
        assert!(!held.sets().is_settled());
        held.learn(fetched(Err("away".into()), 0));
        assert!(held.sets().is_settled() && held.sets().of(&remote).is_empty());
        assert!(held.sets().awaits(&remote));
        held.learn(fetched(Ok(keys("a")), 10));
        assert!(!held.sets().awaits(&remote));
        held.learn(fetched(Err("away".into()), 20));
        assert_eq!(held.sets().of(&remote), keys("a"));
        assert_eq!(held.sets().problems().count(), 1);
        assert_eq!(held.end(), Some(at(110)));
        held.expire(at(109));
        assert_eq!(held.sets().of(&remote), keys("a"));
        held.expire(at(110));
        assert!(held.sets().of(&remote).is_empty() && !held.sets().awaits(&remote));
        held.learn(fetched(Ok(keys("b")), 120));
        assert_eq!(held.sets().of(&remote), keys("b"));
        let (new, gone) = held.name(&Named::default(), at(125));
        assert_eq!((new.len(), gone.len()), (0, 1));
        held.learn(fetched(Ok(keys("c")), 130));
        assert!(held.sets().of(&remote).is_empty(), "nobody names it");
    }

    /// The controller before may have fetched it.
    #[test]
    fn a_set_is_awaited_for_as_long_as_it_may_be_old() {
        let (remote, start) = (remote(0), Instant::now());
        let mut held = Held::default();
        held.name(&named(&[("shop", vec![remote.clone()])]), start);
        assert_eq!(held.end(), Some(start + AGE));
        held.expire(start + AGE - Duration::from_secs(1));
        assert!(held.sets().awaits(&remote));
        held.expire(start + AGE);
        assert!(!held.sets().awaits(&remote));
        assert_eq!(held.end(), None);
    }

    #[test]
    fn beyond_the_limit_none_is_fetched_and_that_is_said() {
        let named = named(&[("shop", (0..REMOTES_MAX + 2).map(remote).collect())]);
        let mut held = Held::default();
        let (new, _) = held.name(&named, Instant::now());
        assert_eq!(new.len(), REMOTES_MAX);
        let sets = held.sets();
        let problems: Vec<_> = sets.problems().collect();
        assert_eq!(problems, ["2 key sets beyond 1000 are not fetched"]);
    }

    #[test]
    fn a_namespace_that_names_many_sets_displaces_nobodys() {
        let many: Vec<Remote> = (0..REMOTES_MAX).map(remote).collect();
        let few: Vec<Remote> = (REMOTES_MAX..REMOTES_MAX + 3).map(remote).collect();
        let both = named(&[
            ("a", many.clone()),
            ("b", [few.clone(), many[..1].to_vec()].concat()),
        ]);
        assert_eq!((both.by_remote.len(), both.excess), (REMOTES_MAX, 3));
        assert!(few.iter().all(|one| &*both.by_remote[one] == "b"));
        assert_eq!(&*both.by_remote[&many[0]], "a");
    }
}
