//! How often our app may ask others, the third party whose quota it is among them: limits of direction `outbound`. They keep
//! an app that means well within what it may; who is asked has limits of its own, which nobody gets around. And what is not
//! asked at all, because a server's limit would refuse it.

use std::time::Instant;

use ringmail_proto::limit::Direction;

use super::answer::is_grpc;
use super::exhausted::Spell;
use super::{Admitted, Exceeded, Subject};
use crate::error::{Error, Reason};
use crate::http::neutral::{Fields, Request};
use crate::metrics;
use crate::policy::{Client, Ground, Wanted, asked_by_us};
use crate::upstream::Caller;
use crate::worker::Worker;

/// What was taken for a request, whose head is in neutral form, if it is within the limits; if not, the head of what it is
/// answered, and nothing else.
pub(crate) async fn request(
    worker: &Worker,
    caller: &Caller,
    route: &str,
    head: &[u8],
) -> Result<Result<Admitted, Vec<u8>>, Error> {
    let (request, fields) = Request::decode(head).map_err(|e| Reason::Internal.because(e))?;
    let exceeded = match admit(worker, caller, route, Some((request, fields))).await {
        Ok(admitted) => return Ok(Ok(admitted)),
        Err(exceeded) => exceeded,
    };
    Ok(Err(answer(worker, caller, (request, fields), &exceeded)))
}

/// Whether an opaque connection is.
pub(crate) async fn connection(worker: &Worker, caller: &Caller) -> Result<Admitted, Error> {
    if !worker.limits.has(Direction::Outbound) {
        return Ok(Admitted::default());
    }
    let admitted = admit(worker, caller, "", None).await;
    admitted.map_err(|exceeded| refused(worker, caller, None, &exceeded))
}

/// What a request is answered whose server has said that it would refuse it.
pub(crate) fn shed(
    worker: &Worker,
    caller: &Caller,
    head: &[u8],
    (spell, now): (&Spell, Instant),
) -> Result<Vec<u8>, Error> {
    let asking = Request::decode(head).map_err(|e| Reason::Internal.because(e))?;
    Ok(answer(worker, caller, asking, &spell.exceeded(now)))
}

/// The head of what is said to a request that is more than a limit allows.
fn answer(
    worker: &Worker,
    caller: &Caller,
    (request, fields): (Request<'_>, Fields<'_>),
    exceeded: &Exceeded,
) -> Vec<u8> {
    let refused = refused(worker, caller, Some((request, fields)), exceeded);
    let outbound = metrics::Direction::Outbound;
    worker.metrics.refused(outbound, refused.reason);
    exceeded.head(refused.decision, is_grpc(fields), 0)
}

/// None: an opaque connection.
type Asking<'a> = Option<(Request<'a>, Fields<'a>)>;

async fn admit(
    worker: &Worker,
    caller: &Caller,
    route: &str,
    request: Asking<'_>,
) -> Result<Admitted, Exceeded> {
    let identity = worker.snapshot.last_identity();
    let way = (caller.source, caller.destination);
    let subject = Subject {
        direction: Direction::Outbound,
        asked: asked_by_us(identity.as_deref(), way, request),
        route,
    };
    worker.limits.admit(&subject, Instant::now()).await
}

/// As it is told to the audit.
fn refused(worker: &Worker, caller: &Caller, request: Asking<'_>, exceeded: &Exceeded) -> Error {
    let identity = worker.snapshot.last_identity();
    let client = Client {
        svid: identity.map(|identity| identity.svid.clone()),
        address: caller.source,
    };
    let wanted = Wanted {
        client: &client,
        port: caller.destination.port(),
        request,
        came: None,
        token: None,
        asking: &[],
    };
    let ground = Ground::OwnLimit(&exceeded.limit);
    worker.policies.exceeds(&wanted, ground)
}
