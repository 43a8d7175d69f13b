//! Where objects come from: a directory of YAML files or a Kubernetes cluster, followed while the controller runs.
//!
//! A source hands over whole `Objects` and what it refused, and nothing else, so one can stand in another's place. A
//! file that cannot be accepted is refused whole, with file, line and field, an object of a cluster one by one; what was
//! held before stays in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Serialize, Serializer};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::metrics::Metrics;
use crate::stop::Stop;

/// What a source hands over.
pub mod objects;

/// Routes of the Gateway API, as they are written.
pub mod gateway;

/// Routes of the Gateway API, as they are meant.
pub mod route;

/// Authorization policies, as they are written and meant.
#[allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "its derives repeat the types inside functions, and name columns one by one"
)]
pub mod policy;

/// Whose JSON web tokens are good, as it is written and meant.
#[allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "its derives repeat the types inside functions, and name columns one by one"
)]
pub mod authentication;

/// Policies of rate limits, as they are written and meant.
#[allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "its derives repeat the types inside functions, and name columns one by one"
)]
pub mod limit;

/// Revoked identities, as they are written and meant.
#[allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "its derives repeat the types inside functions, and name columns one by one"
)]
pub mod revocation;

/// The kinds of our own, in the chart.
#[cfg(test)]
mod definitions;

/// What every object must keep to.
mod check;

/// One file's text to objects.
mod parse;

/// Where in a file.
mod lines;

/// How long, as people write it.
mod duration;

/// What annotations may say.
pub mod annotations;

/// The files of a directory, and what each holds now.
mod directory;

/// When to look again.
mod changes;

/// The objects of a cluster, by watches.
pub(crate) mod cluster;

use changes::Changes;
use directory::Directory;
pub use directory::{FileStatus, Refusal};
use objects::Key;
pub use objects::Objects;

/// How long files must have been left alone before they are read, so that a half-written one is not.
const SETTLE: Duration = Duration::from_millis(50);
/// How long the first state waits for files that are just being written; a later one does not wait for all files.
const FIRST_SETTLE_MAX: Duration = Duration::from_secs(2);
/// How often to look without having been told, for changes that no watch sees.
const RESCAN: Duration = Duration::from_secs(5);

/// What a source holds now.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The objects in force.
    pub objects: Objects,
    /// Every file, with its refusal if it was refused.
    pub files: Vec<FileStatus>,
    /// Objects of a cluster that were refused, or of which something was passed over.
    pub noted: Vec<ObjectStatus>,
    /// Why the source itself cannot be read, or not all of it.
    pub unreadable: Option<String>,
}

/// One object of a cluster, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectStatus {
    /// Kind, namespace and name.
    #[serde(serialize_with = "as_text")]
    pub object: Key,
    /// Of the object itself: another of that name is another.
    #[serde(skip)]
    pub uid: String,
    /// Set when what it says now is not what is in force.
    pub refused: Option<Refusal>,
    /// What was passed over.
    pub warnings: Vec<String>,
}

fn as_text<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

/// What a directory holds now.
pub(crate) fn read_once(path: &Path) -> State {
    let mut directory = Directory::new(path.to_owned());
    directory.scan(SystemTime::now(), Duration::ZERO);
    directory.state()
}

/// Follows a directory until told to stop, and sends each state that differs from the one before.
pub(crate) async fn follow(
    path: PathBuf,
    metrics: Arc<Metrics>,
    sender: watch::Sender<Option<Arc<State>>>,
    mut stop: Stop,
) {
    let changes = Changes::new(&path);
    let mut directory = Directory::new(path.clone());
    let started = Instant::now();
    let mut published = false;
    let mut pending = false;
    loop {
        let scanned = tokio::task::spawn_blocking(move || {
            let outcome = directory.scan(SystemTime::now(), SETTLE);
            (directory, outcome)
        });
        let Ok((kept, outcome)) = scanned.await else {
            // A panic in the reader. What was published stays in force until a whole look succeeds.
            error!("reading the source directory failed; it is read anew");
            directory = Directory::new(path.clone());
            tokio::select! {
                () = stop.stopped() => return,
                () = tokio::time::sleep(RESCAN) => continue,
            }
        };
        directory = kept;
        pending |= outcome.changed;
        let early = !published && outcome.unsettled && started.elapsed() < FIRST_SETTLE_MAX;
        if pending && !early {
            pending = false;
            published = true;
            let state = directory.state();
            report(&state, &metrics);
            sender.send_replace(Some(Arc::new(state)));
        }
        let wait = if outcome.unsettled { SETTLE } else { RESCAN };
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(wait) => {}
            () = changes.next() => tokio::time::sleep(SETTLE).await,
        }
        changes.settle();
    }
}

fn report(state: &State, metrics: &Metrics) {
    let mut refused = 0;
    for file in &state.files {
        for warning in &file.warnings {
            warn!(file = %file.file, "{warning}");
        }
        if let Some(refusal) = &file.refused {
            refused += 1;
            warn!(
                file = %file.file,
                line = refusal.line,
                field = %refusal.field,
                "refused, what it held before stays in force: {}",
                refusal.problem
            );
        }
    }
    if let Some(problem) = &state.unreadable {
        warn!("cannot read the source directory, its objects stay in force: {problem}");
    }
    metrics.source_files_refused.set(refused);
    metrics
        .source_objects
        .set(i64::try_from(state.objects.len()).unwrap_or(i64::MAX));
    info!(
        objects = state.objects.len(),
        files = state.files.len(),
        refused,
        "source read"
    );
}

/// The objects of one text, for tests of what they mean.
#[cfg(test)]
pub(crate) fn parse_text(text: &str) -> Vec<(Key, objects::Object)> {
    let parsed = parse::parse(text.as_bytes());
    assert_eq!(parsed.refused, None, "the test's own text is good");
    parsed.objects
}
