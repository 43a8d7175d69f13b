//! The objects of a Kubernetes cluster: one watch for each kind, merged into whole states.
//!
//! The first state waits until every kind has been listed once, but for routes `ROUTES_WAIT` at most: who cannot list them
//! must still vouch for pods, and says what is missing. Later ones wait `SETTLE`, so that a burst is one state.
//! While a watch is broken everything it told stays in force; the list that follows replaces it. Routes are
//! watched while the cluster serves their kind, which is looked at every `LOOK`; kinds of ours have to be served. Objects are cut to what the model reads as they arrive.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, CustomResourceExt, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::StreamExt;
use tracing::{info, warn};

use super::State;
use super::authentication::RequestAuthentication;
use super::limit::RateLimitPolicy;
use super::objects::Kind;
use super::policy::AuthorizationPolicy;
use super::revocation::IdentityRevocation;
use crate::metrics::{Metrics, WatchLabels};
use crate::stop::Stop;

/// What the watches have told so far; pure.
mod store;

/// Objects as they arrive, to objects as they are kept.
mod read;

pub(crate) use read::{
    Found, SAID, is_service, of_namespace, of_service, of_written_authentication,
    of_written_limits, of_written_policy, of_written_revocation, of_written_route,
};
use read::{key_of, of_route};
use store::{Change, Store};

/// From the first change to the state that has it.
const SETTLE: Duration = Duration::from_millis(50);
/// For the first list of routes, while all else is there.
const ROUTES_WAIT: Duration = Duration::from_secs(60);
/// How often to look whether the cluster serves routes.
const LOOK: Duration = Duration::from_secs(5);
/// The same for kinds of ours, which nothing goes on without.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Looks in a row that must find nothing before routes that were known are forgotten.
const ABSENT_LOOKS: u32 = 2;
/// Objects of one page of a list: bounds what is in memory before it is trimmed.
const PAGE: u32 = 250;
/// Changes on their way to the store.
const QUEUE: usize = 1024;
/// Group and version of the Gateway API's routes.
const ROUTES_GROUP: &str = "gateway.networking.k8s.io";
const ROUTES_VERSION: &str = "v1";

/// The kinds that are watched.
const KINDS: [Kind; 12] = [
    Kind::Namespace,
    Kind::ServiceAccount,
    Kind::Service,
    Kind::Pod,
    Kind::EndpointSlice,
    Kind::HTTPRoute,
    Kind::GRPCRoute,
    Kind::TLSRoute,
    Kind::AuthorizationPolicy,
    Kind::RequestAuthentication,
    Kind::RateLimitPolicy,
    Kind::IdentityRevocation,
];

/// Follows the cluster until told to stop, and sends each state that differs from the one before.
pub(crate) async fn follow(
    client: Client,
    metrics: Arc<Metrics>,
    sender: watch::Sender<Option<Arc<State>>>,
    mut stop: Stop,
) {
    let (out, mut changes) = mpsc::channel(QUEUE);
    // Dropping it ends the watches.
    let mut watches = JoinSet::new();
    let all = |kind| (kind, out.clone());
    watches.spawn(watch_all::<Namespace>(
        client.clone(),
        all(Kind::Namespace),
        |one| Some(of_namespace(one)),
    ));
    watches.spawn(watch_all::<ServiceAccount>(
        client.clone(),
        all(Kind::ServiceAccount),
        |one| Some(read::of_service_account(one)),
    ));
    watches.spawn(watch_all::<Service>(
        client.clone(),
        all(Kind::Service),
        |one| Some(of_service(one)),
    ));
    watches.spawn(watch_all::<Pod>(client.clone(), all(Kind::Pod), |one| {
        Some(read::of_pod(one))
    }));
    watches.spawn(watch_all::<EndpointSlice>(
        client.clone(),
        all(Kind::EndpointSlice),
        |one| Some(read::of_slice(one)),
    ));
    for kind in Kind::ROUTES {
        let read = move |one| of_route(kind, one);
        let watch = watch_served(client.clone(), (kind, out.clone()), resource(kind), read);
        watches.spawn(watch);
    }
    type Read = fn(DynamicObject) -> Found;
    for (kind, read) in [
        (Kind::AuthorizationPolicy, read::of_policy as Read),
        (Kind::RequestAuthentication, read::of_authentication),
        (Kind::RateLimitPolicy, read::of_limits),
        (Kind::IdentityRevocation, read::of_revocation),
    ] {
        let read = move |one| Some(read(one));
        let watch = watch_served(client.clone(), (kind, out.clone()), resource(kind), read);
        watches.spawn(watch);
    }
    drop(out);

    let mut store = Store::new(&KINDS);
    let mut due: Option<Instant> = None;
    let patience = Instant::now() + ROUTES_WAIT;
    loop {
        tokio::select! {
            () = stop.stopped() => return,
            change = changes.recv() => {
                let Some(change) = change else {
                    return;
                };
                note(&change, &metrics);
                if !store.apply(change) {
                    continue;
                }
                let soon = Instant::now() + SETTLE;
                if store.is_complete() {
                    due = Some(due.map_or(soon, |due| due.min(soon)));
                } else if store.is_usable() {
                    due = Some(due.unwrap_or(soon.max(patience)));
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                let state = store.state();
                report(&state, &sender, &metrics);
                sender.send_replace(Some(Arc::new(state)));
            }
        }
    }
}

/// Group, version and kind of what is not Kubernetes' own, as requests name it.
pub(crate) fn resource(kind: Kind) -> ApiResource {
    let (kind, plural) = match kind {
        Kind::AuthorizationPolicy => return AuthorizationPolicy::api_resource(),
        Kind::RequestAuthentication => return RequestAuthentication::api_resource(),
        Kind::RateLimitPolicy => return RateLimitPolicy::api_resource(),
        Kind::IdentityRevocation => return IdentityRevocation::api_resource(),
        Kind::GRPCRoute => ("GRPCRoute", "grpcroutes"),
        Kind::TLSRoute => ("TLSRoute", "tlsroutes"),
        // Only those are asked for.
        _ => ("HTTPRoute", "httproutes"),
    };
    ApiResource {
        group: ROUTES_GROUP.into(),
        version: ROUTES_VERSION.into(),
        api_version: format!("{ROUTES_GROUP}/{ROUTES_VERSION}"),
        kind: kind.into(),
        plural: plural.into(),
    }
}

async fn watch_all<K>(
    client: Client,
    (kind, out): (Kind, mpsc::Sender<Change>),
    read: fn(K) -> Option<Found>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // Ends only with us: a watch is begun again by itself, whatever broke it.
    watch_until(Api::all(client), kind, &out, read, |_| false).await;
}

/// Objects of a kind, while the cluster serves it.
async fn watch_served(
    client: Client,
    (kind, out): (Kind, mpsc::Sender<Change>),
    resource: ApiResource,
    read: impl Fn(DynamicObject) -> Option<Found>,
) {
    let mut absent = 0;
    loop {
        let found = match serves(&client, &resource).await {
            Ok(true) => {
                absent = 0;
                info!("the cluster serves {}", resource.plural);
                let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
                watch_until(api, kind, &out, &read, is_unknown).await;
                Vec::new()
            }
            // Ours come with the mesh: that they are not there does not mean that nothing was said.
            Ok(false) if !Kind::ROUTES.contains(&kind) => {
                let problem = format!("the cluster does not serve {}", resource.plural);
                vec![Change::Broken(kind, problem)]
            }
            Ok(false) => {
                absent += 1;
                match absent == ABSENT_LOOKS {
                    true => vec![Change::Begun(kind), Change::Listed(kind)],
                    false => Vec::new(),
                }
            }
            Err(e) => vec![Change::Broken(kind, e.to_string())],
        };
        let is_told = found.is_empty();
        for change in found {
            if out.send(change).await.is_err() {
                return;
            }
        }
        // The first looks decide when the first state is there.
        let is_early = is_told && absent < ABSENT_LOOKS;
        let pause = match (is_early, Kind::ROUTES.contains(&kind)) {
            (true, true) => SETTLE,
            (false, true) => LOOK,
            (_, false) => LOOK_AGAIN,
        };
        sleep(pause).await;
    }
}

/// Whether the cluster serves that kind, by discovery: small, and allowed to everybody.
async fn serves(client: &Client, resource: &ApiResource) -> Result<bool, kube::Error> {
    match client.list_api_group_resources(&resource.api_version).await {
        Ok(list) => Ok(list.resources.iter().any(|one| one.name == resource.plural)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(e) => Err(e),
    }
}

/// Sends what a watch tells, until nobody listens or an error is `last`.
async fn watch_until<K>(
    api: Api<K>,
    kind: Kind,
    out: &mpsc::Sender<Change>,
    read: impl Fn(K) -> Option<Found>,
    last: fn(&watcher::Error) -> bool,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().page_size(PAGE);
    let mut events = pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => Change::Begun(kind),
            Ok(Event::InitApply(one) | Event::Apply(one)) => {
                let key = key_of(kind, one.meta());
                // What is not ours any more is gone.
                read(one).map_or(Change::Gone(key), Change::Seen)
            }
            Ok(Event::Delete(one)) => Change::Gone(key_of(kind, one.meta())),
            Ok(Event::InitDone) => Change::Listed(kind),
            Err(e) if last(&e) => return,
            Err(e) => Change::Broken(kind, e.to_string()),
        };
        if out.send(change).await.is_err() {
            return;
        }
    }
}

/// The kind is not served (any more).
fn is_unknown(error: &watcher::Error) -> bool {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
        watcher::Error::WatchError(status) => status.code,
        _ => return false,
    };
    code == 404
}

fn note(change: &Change, metrics: &Metrics) {
    if let Change::Broken(kind, problem) = change {
        warn!(kind = ?kind, "watch broken, what it told stays in force: {problem}");
        let labels = WatchLabels {
            kind: format!("{kind:?}"),
        };
        metrics.watch_failures.get_or_create(&labels).inc();
    }
}

fn report(state: &State, before: &watch::Sender<Option<Arc<State>>>, metrics: &Metrics) {
    let before = before.borrow().clone();
    let known: BTreeMap<_, _> = before
        .iter()
        .flat_map(|state| &state.noted)
        .map(|noted| (&noted.object, noted))
        .collect();
    let mut refused = 0;
    for noted in &state.noted {
        refused += i64::from(noted.refused.is_some());
        // Said once, not with every state.
        if known.get(&noted.object) == Some(&noted) {
            continue;
        }
        for warning in &noted.warnings {
            warn!(object = %noted.object, "{warning}");
        }
        if let Some(refusal) = &noted.refused {
            let field = &refusal.field;
            warn!(object = %noted.object, %field, "refused, what it held before stays in force: {}", refusal.problem);
        }
    }
    metrics.source_objects_refused.set(refused);
    let count = i64::try_from(state.objects.len()).unwrap_or(i64::MAX);
    metrics.source_objects.set(count);
    if before.is_none() {
        info!(objects = count, refused, "the cluster's objects are read");
    }
}

#[cfg(test)]
mod tests;
