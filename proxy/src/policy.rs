//! Who may ask our app for what: each stream is judged when it begins, and again whenever the policies change, until it
//! is over. The decision itself is made in the contract ([`ringmail_proto::policy`]); this is where its parts come from
//! and where it goes: to the client, the metrics and the audit.
//!
//! A decision on a request costs no allocation, lock or system call. What was allowed and is no more is cut.

/// What a request's token says.
mod token;

/// What somebody else is told of a request, and answers.
pub(crate) mod external;

/// What is in force.
mod current;

/// One line for each refusal.
mod audit;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ringmail_proto::policy::authentication::Verified;
use ringmail_proto::policy::{Asked, By, Caller, Decision, Verdict};
use ringmail_proto::revocation::Revocations;
use ringmail_proto::svid::Svid;
use ringmail_proto::workload::Protocol as Declared;

use crate::error::{DecisionId, Error, Reason};
use crate::http::neutral::{Fields, Request};
use crate::metrics::{Metrics, NO_IDENTITY};
use crate::peer::streams::Streams;
use crate::records::{Trail, What};
use crate::snapshot::{Authorized, Snapshot};
use crate::tls::identity::{Identity, unix_now};
pub(crate) use audit::Ground;
use current::Current;
use external::Asking;
pub(crate) use token::Authenticated;
use token::Known;

/// Who asks: another proxy, or somebody outside the mesh.
#[derive(Debug)]
pub(crate) struct Client {
    /// The certificate, if there is one.
    pub(crate) svid: Option<Svid>,
    /// Where the connection comes from.
    pub(crate) address: IpAddr,
}

/// What a client wants of our app.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) client: &'a Client,
    pub(crate) port: u16,
    /// None for an opaque connection.
    pub(crate) request: Option<(Request<'a>, Fields<'a>)>,
    /// The same as it came, before it was looked for a token in.
    pub(crate) came: Option<(Request<'a>, Fields<'a>)>,
    /// What the request's token says, if it brought one.
    pub(crate) token: Option<&'a Verified>,
    /// Who else is asked, and has not refused.
    pub(crate) asking: &'a [Asking],
}

impl<'a> Wanted<'a> {
    /// What policies and limits ask about.
    pub(crate) fn asked(&self) -> Asked<'a, Fields<'a>> {
        current::asked(self)
    }
}

/// The same of what our app wants of somebody else, at `destination`.
pub(crate) fn asked_by_us<'a>(
    identity: Option<&'a Identity>,
    (source, destination): (IpAddr, SocketAddr),
    request: Option<(Request<'a>, Fields<'a>)>,
) -> Asked<'a, Fields<'a>> {
    Asked {
        caller: Caller {
            identity: identity.map(|identity| &identity.svid.id),
            address: source,
        },
        port: destination.port(),
        http: request.map(current::http),
    }
}

/// The policies, as one worker holds them.
#[derive(Debug)]
pub(crate) struct Policies {
    snapshot: Arc<Snapshot>,
    metrics: Arc<Metrics>,
    current: RefCell<Option<Current>>,
    revocations: RefCell<Arc<Revocations>>,
    /// Counts changes: what was judged under another is judged again.
    generation: Cell<u64>,
    /// When the first of the tokens expires that live streams rest on, or later; in seconds since the Unix epoch.
    first_expiry: Cell<u64>,
    /// Connections whose streams are judged.
    judged: RefCell<Vec<Weak<Streams>>>,
    trail: Trail,
}

impl Policies {
    pub(crate) fn new(snapshot: Arc<Snapshot>, metrics: Arc<Metrics>, trail: Trail) -> Self {
        Self {
            snapshot,
            metrics,
            current: RefCell::default(),
            revocations: RefCell::default(),
            generation: Cell::default(),
            first_expiry: Cell::new(u64::MAX),
            judged: RefCell::default(),
            trail,
        }
    }

    /// Takes over what was learnt. Streams that are open are judged again.
    pub(crate) fn adopt(&self) {
        let revocations = self.snapshot.revocations();
        let mut is_news = !Arc::ptr_eq(&self.revocations.borrow(), &revocations);
        *self.revocations.borrow_mut() = revocations;
        if let Some(learnt) = self.snapshot.authorization()
            && !self.is_current(&learnt)
        {
            let known = self.still_known(&learnt);
            *self.current.borrow_mut() = Some(Current::new(learnt, known));
            is_news = true;
        }
        if is_news {
            self.judge_all_again();
        }
    }

    /// Before the first change was heard of.
    fn adopt_first(&self) {
        if self.current.borrow().is_none() {
            self.adopt();
        }
    }

    /// Looks after the tokens that live streams rest on: where one's time is over at `now`, in seconds since the Unix
    /// epoch, they are judged again.
    pub(crate) fn sweep(&self, now: u64) {
        if self.first_expiry.get() <= now {
            // Those that go on say when they are next.
            self.first_expiry.set(u64::MAX);
            self.judge_all_again();
        }
    }

    fn judge_all_again(&self) {
        self.generation.set(self.generation.get() + 1);
        self.judged.borrow_mut().retain(|streams| {
            let streams = streams.upgrade();
            if let Some(streams) = &streams {
                streams.wake_all();
            }
            streams.is_some()
        });
    }

    /// Tokens that were good and are, because nothing changed that they were judged by.
    fn still_known(&self, learnt: &Authorized) -> Known {
        let current = self.current.borrow();
        let same = current
            .as_ref()
            .filter(|current| current.authorized.authentications == learnt.authentications);
        same.map(|current| current.known.take()).unwrap_or_default()
    }

    fn is_current(&self, learnt: &Arc<Authorized>) -> bool {
        let current = self.current.borrow();
        current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(&current.authorized, learnt))
    }

    /// Streams of this connection are woken when policies change.
    pub(crate) fn watch(&self, streams: &Rc<Streams>) {
        let mut judged = self.judged.borrow_mut();
        if judged.len() == judged.capacity() {
            judged.retain(|streams| streams.strong_count() > 0);
        }
        judged.push(Rc::downgrade(streams));
    }

    /// Whether bytes that are no HTTP are refused there, whoever sends them; `declared` is what the port was. A token in such
    /// bytes would pass for one that was looked at: where they are not what was declared, they are refused for that alone.
    pub(crate) fn requires_http(&self, port: u16, declared: Declared) -> bool {
        let current = self.current.borrow();
        current.as_ref().is_some_and(|current| {
            let authorized = &current.authorized;
            let mut authentications = authorized.authentications.iter();
            authorized.authorizer.requires_http(port)
                || authentications.any(|one| match declared {
                    Declared::Tcp => one.requires_http(port),
                    Declared::Detect | Declared::Http1 | Declared::Http2 => one.is_for(port),
                })
        })
    }

    /// What the token of a request says, and what of the request goes on; none where nobody asks for tokens.
    pub(crate) fn authenticate(&self, wanted: &Wanted<'_>) -> Result<Option<Authenticated>, Error> {
        self.adopt_first();
        let current = self.current.borrow();
        let current = current.as_ref().ok_or(Reason::PolicyNotLoaded)?;
        let all = current.authorized.authentications.iter();
        let mut here = all.filter(|one| one.is_for(wanted.port)).peekable();
        let (Some(_), Some(request)) = (here.peek(), wanted.came) else {
            return Ok(None);
        };
        let known = &mut current.known.borrow_mut();
        let found = token::authenticate(here, wanted.port, request, known, now());
        found.map(Some).map_err(|refused| {
            let ground = Ground::Token {
                object: refused.object,
                problem: refused.bad.0,
            };
            self.refuse(current, wanted, ground, Reason::TokenInvalid)
        })
    }

    /// Whether a stream that begins now may, and who else is to be asked.
    pub(crate) fn judge(&self, wanted: &Wanted<'_>) -> Result<Vec<Asking>, Error> {
        self.adopt_first();
        self.trust(wanted)?;
        let current = self.current.borrow();
        let current = current.as_ref().ok_or(Reason::PolicyNotLoaded)?;
        let decision = current.decide(wanted);
        current.count(decision.enforced, false, &self.metrics);
        if let Some(shadow) = decision.shadow {
            current.count(shadow, true, &self.metrics);
        }
        self.enforce(current, decision, wanted, Reason::PolicyDenied)?;
        if self.trail.has(What::Use) && current.protects(wanted.port) {
            self.tell_use(current, decision, wanted);
        }
        Ok(current.asking(decision, wanted))
    }

    /// Whether a policy speaks of what is wanted, or nothing but what holds where none does.
    pub(crate) fn covers(&self, wanted: &Wanted<'_>) -> bool {
        let current = self.current.borrow();
        let decide = |current: &Current| current.decide(wanted).enforced.by;
        current
            .as_ref()
            .map(decide)
            .is_some_and(|by| by != By::Posture)
    }

    /// Whether what was allowed still is, the token it rests on included: its issuer, its keys or its time may be over.
    fn judge_again(&self, wanted: &Wanted<'_>) -> Result<(), Error> {
        self.trust(wanted)?;
        let authenticated = self.authenticate(wanted)?;
        let wanted = &Wanted {
            token: authenticated.as_ref().and_then(Authenticated::verified),
            ..*wanted
        };
        self.expect_end_of(wanted.token);
        let current = self.current.borrow();
        let current = current.as_ref().ok_or(Reason::PolicyNotLoaded)?;
        let decision = current.decide(wanted);
        self.enforce(current, decision, wanted, Reason::PolicyCut)?;
        // Nobody can be asked in the middle of it.
        let unasked = |one: &Asking| !wanted.asking.iter().any(|asked| asked.is_as(one));
        match current.asking(decision, wanted).into_iter().find(unasked) {
            Some(one) => {
                let problem = Some("was not asked when it began");
                Err(self.refused_by(wanted, &one, Reason::PolicyCut, problem))
            }
            None => Ok(()),
        }
    }

    /// Whether the client is one that was not revoked.
    fn trust(&self, wanted: &Wanted<'_>) -> Result<(), Error> {
        let svid = wanted.client.svid.as_ref();
        let Some(svid) = svid.filter(|svid| self.snapshot.has_revoked(svid)) else {
            return Ok(());
        };
        let id = DecisionId::random();
        self.metrics
            .denied(svid.id.as_str(), None, Reason::IdentityRevoked);
        let server = self.snapshot.last_identity();
        self.trail.tell(What::Refusal, unix_now(), |object| {
            audit::revoked(object, (wanted, server.as_deref()), id);
        });
        Err(Error::from(Reason::IdentityRevoked).decided(Some(id)))
    }

    fn enforce(
        &self,
        current: &Current,
        decision: Decision,
        wanted: &Wanted<'_>,
        reason: Reason,
    ) -> Result<(), Error> {
        match decision.enforced.verdict {
            Verdict::Allow => Ok(()),
            Verdict::Deny => {
                let ground = Ground::Policy(decision.enforced);
                Err(self.refuse(current, wanted, ground, reason))
            }
        }
    }

    /// What policy has allowed is more than a limit does, which is the ground.
    pub(crate) fn exceeds(&self, wanted: &Wanted<'_>, limit: Ground<'_>) -> Error {
        self.adopt_first();
        let current = self.current.borrow();
        let Some(current) = current.as_ref() else {
            return Reason::PolicyNotLoaded.into();
        };
        self.refuse(current, wanted, limit, Reason::RateLimited)
    }

    /// A refusal is told to the audit, and has a name by which it is found there.
    fn refuse(
        &self,
        current: &Current,
        wanted: &Wanted<'_>,
        ground: Ground<'_>,
        reason: Reason,
    ) -> Error {
        let id = DecisionId::random();
        let server = match ground {
            Ground::OwnLimit(_) => None,
            _ => self.snapshot.last_identity(),
        };
        let by = ground.policy(&current.authorized);
        let peer = wanted.client.svid.as_ref();
        let peer = peer.map_or(NO_IDENTITY, |svid| svid.id.as_str());
        self.metrics.denied(peer, by, reason);
        let refusal = audit::Refusal { ground, reason, id };
        self.trail.tell(What::Refusal, unix_now(), |object| {
            let between = (wanted, server.as_deref());
            audit::refused(object, &current.authorized, between, refusal);
        });
        Error::from(reason).decided(Some(id))
    }

    /// What a policy protects was used by somebody who may.
    fn tell_use(&self, current: &Current, decision: Decision, wanted: &Wanted<'_>) {
        let server = self.snapshot.last_identity();
        self.trail.tell(What::Use, unix_now(), |object| {
            let between = (wanted, server.as_deref());
            let found = (decision.enforced, DecisionId::random());
            audit::used(object, &current.authorized, between, found);
        });
    }

    /// A stream rests on a token, whose time will be over.
    fn expect_end_of(&self, token: Option<&Verified>) {
        if let Some(token) = token {
            let first = self.first_expiry.get().min(token.expires);
            self.first_expiry.set(first);
        }
    }

    /// Waits until what was allowed is no more.
    pub(crate) async fn until_denied(&self, wanted: &Wanted<'_>) -> Error {
        let mut changes = self.snapshot.changes();
        loop {
            // First of all: something may have changed since it was judged.
            self.adopt();
            if let Err(denied) = self.judge_again(wanted) {
                return denied;
            }
            // Only this process' end stops the changes.
            let _ = changes.changed().await;
        }
    }

    /// Runs `exchange`, which was judged, for as long as it stays allowed.
    pub(crate) async fn while_allowed<T>(
        &self,
        wanted: &Wanted<'_>,
        mut exchange: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, Error> {
        let mut judged = self.generation.get();
        self.expect_end_of(wanted.token);
        poll_fn(|cx| {
            if judged != self.generation.get() {
                judged = self.generation.get();
                self.judge_again(wanted)?;
            }
            exchange.as_mut().poll(cx)
        })
        .await
    }
}

/// In seconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    u64::try_from(unix_now()).unwrap_or_default()
}
