//! Asking somebody else about a request that is allowed otherwise, before it goes to our app: one policy after the other,
//! until one refuses. What is asked and what an answer means is decided in `policy`; this is where it is sent.
//!
//! - Nobody is asked about a call that asks: it is refused, so that no two authorizers wait for each other.
//! - A body is told whole or not at all. It is read ahead then, and goes to the app afterwards.
//! - Without an answer in time, or with one that cannot be acted on, the policy says what becomes of the request.
//!
//! Limits: [`CHECKS_MAX`] requests of one worker, beyond which they are refused whatever the policies say, and
//! [`BODY_TIMEOUT`] for a body, which is held within the credit of its stream.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use ringmail_proto::policy::external::{self, CHECK_PATH, External, OnFailure};
use tokio::time::timeout;

use crate::error::{Error, Reason};
use crate::http::edits::Edits;
use crate::http::exchange::{Exchange, unless_reset};
use crate::http::neutral::{Fields, Request, Response, Version};
use crate::metrics::Direction;
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::policy::Wanted;
use crate::policy::external::{About, Answer, Asking, Denial, question, read};
use crate::upstream::unary::{Unary, unary};
use crate::worker::Worker;

/// Requests of one worker about which somebody is being asked.
const CHECKS_MAX: usize = 256;
/// For a body that is to be told to be there.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client is told that waits for it with its body.
const CONTINUE: Response<'static> = Response {
    version: Version::Http2,
    upgrade: false,
    status: 100,
    phrase: b"",
};

/// How many requests there are about which somebody is being asked.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    under_way: Rc<Cell<usize>>,
}

/// One of them. Dropping it ends that.
struct UnderWay(Rc<Cell<usize>>);

impl Checks {
    fn begin(&self) -> Result<UnderWay, Reason> {
        let count = self.under_way.get();
        if count >= CHECKS_MAX {
            return Err(Reason::Overloaded);
        }
        self.under_way.set(count + 1);
        Ok(UnderWay(self.under_way.clone()))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What came of it.
pub(super) enum Checked {
    /// It goes on; with another head, if there is one.
    GoesOn(Option<Vec<u8>>),
    /// The client was told what the authorizer wanted it to be told.
    Told,
}

/// A request that is asked about.
pub(super) struct Check<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) wanted: &'a Wanted<'a>,
    pub(super) app: SocketAddr,
    pub(super) stream: &'a Stream,
}

impl Check<'_> {
    /// Asks all of them. An error refuses the request.
    pub(super) async fn ask(
        &self,
        head: (Request<'_>, Fields<'_>),
        reader: &mut Reader,
        exchange: &mut Exchange,
    ) -> Result<Checked, Error> {
        let (policies, asking) = (&self.worker.policies, self.wanted.asking);
        if let Some(first) = asking.first().filter(|_| head.0.target == CHECK_PATH) {
            let problem = Some("would be asked about a call that asks");
            return Err(policies.refused_by(self.wanted, first, Reason::AuthorizerFailed, problem));
        }
        let body = self.body(head, reader).await?;
        // Not before: whoever is slow to send would keep others out.
        let _under_way = self.worker.checks.begin()?;
        let (mut request, mut response) = (Edits::default(), Edits::default());
        for one in asking {
            match unless_reset(self.stream, self.one(one, body.as_deref())).await? {
                Answer::Allowed {
                    request: more,
                    response: and_more,
                } => {
                    request.extend(more);
                    response.extend(and_more);
                }
                Answer::Denied(denial) => {
                    let reason = Reason::AuthorizerDenied;
                    let refused = policies.refused_by(self.wanted, one, reason, None);
                    let Some(denial) = denial else {
                        return Err(refused);
                    };
                    self.tell(&denial, &refused, head, exchange).await?;
                    return Ok(Checked::Told);
                }
            }
        }
        exchange.edit(response);
        if request.is_empty() {
            return Ok(Checked::GoesOn(None));
        }
        // What comes behind the body could pass for what was set.
        reader.drop_trailers();
        let mut changed = Vec::with_capacity(1024);
        head.0.encode(&mut changed);
        request.put(head.1, &mut changed);
        Ok(Checked::GoesOn(Some(changed)))
    }

    /// All of the request's body, if somebody is to be told.
    async fn body(
        &self,
        (request, fields): (Request<'_>, Fields<'_>),
        reader: &mut Reader,
    ) -> Result<Option<Vec<u8>>, Error> {
        let maxima = self
            .wanted
            .asking
            .iter()
            .map(|one| one.external.body_bytes_max);
        let Some(max) = maxima.filter(|max| *max > 0).min() else {
            return Ok(None);
        };
        // What an upgrade sends is no body.
        if request.upgrade {
            return Ok(None);
        }
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        let said: Option<usize> = fields.first("content-length").and_then(number);
        if said.is_some_and(|said| said > max) {
            return Err(Reason::BodyTooLarge.into());
        }
        if fields.first("expect").is_some() && !reader.is_ended() {
            let mut go_on = Vec::new();
            CONTINUE.encode(&mut go_on);
            self.stream.send_informational(&go_on);
        }
        let body = timeout(BODY_TIMEOUT, self.stream.look_ahead(reader, max)).await;
        let body = body.map_err(|_| Reason::ClientTimeout)??;
        Ok(Some(body.ok_or(Reason::BodyTooLarge)?))
    }

    /// What one of them answers, or what its policy makes of there being no answer.
    async fn one(&self, asking: &Asking, body: Option<&[u8]>) -> Result<Answer, Error> {
        let Worker {
            policies, metrics, ..
        } = &**self.worker;
        let begun = Instant::now();
        let answered = timeout(asking.external.timeout, self.call(&asking.external, body)).await;
        let answered = answered.unwrap_or(Err("did not answer in time"));
        let result = match &answered {
            Ok(Answer::Allowed { .. }) => "allowed",
            Ok(Answer::Denied(_)) => "denied",
            Err(_) => "failed",
        };
        metrics.checked(&asking.policy, result, begun.elapsed());
        let problem = match answered {
            Ok(answer) => {
                if matches!(answer, Answer::Allowed { .. }) {
                    policies.let_by(asking);
                }
                return Ok(answer);
            }
            Err(problem) => problem,
        };
        match asking.external.on_failure {
            OnFailure::Allow => {
                policies.let_unanswered(self.wanted, asking, problem);
                Ok(Answer::allowed())
            }
            OnFailure::Deny => {
                let reason = Reason::AuthorizerFailed;
                Err(policies.refused_by(self.wanted, asking, reason, Some(problem)))
            }
        }
    }

    async fn call(&self, external: &External, body: Option<&[u8]>) -> Result<Answer, &'static str> {
        let address = external
            .address
            .ok_or("is no service that can be dialled")?;
        let own = self.worker.snapshot.last_identity();
        let about = About {
            wanted: self.wanted,
            app: self.app,
            own: own.as_ref().map(|own| own.svid.id.as_str()),
            body: body.filter(|_| external.body_bytes_max > 0),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let message = external::question(&question(external, about, now.unwrap_or_default()));
        let asked = Unary {
            address,
            path: CHECK_PATH,
            patience: external.timeout,
            message: &message,
        };
        let answer = unary(self.worker, self.app.ip(), asked).await;
        let answer = answer.map_err(|error| {
            tracing::debug!(service = %external.service, ?error, "no answer of an authorizer");
            error.rule.unwrap_or(error.reason.row().explanation)
        })?;
        read(&answer)
    }

    /// Gives the client the answer that the authorizer wants it to have.
    async fn tell(
        &self,
        denial: &Denial,
        refused: &Error,
        (request, fields): (Request<'_>, Fields<'_>),
        exchange: &mut Exchange,
    ) -> Result<(), Error> {
        let content = fields.first("content-type").unwrap_or_default();
        let is_grpc = content.starts_with(b"application/grpc");
        let (head, has_body) = denial.head(refused, is_grpc);
        let end = !has_body || request.method == "HEAD";
        self.worker
            .metrics
            .refused(Direction::Inbound, refused.reason);
        exchange.answered(denial.status, Instant::now());
        if let Some(record) = exchange.record() {
            record.refused(refused);
        }
        self.stream
            .send_head(Kind::Head, end, |out| out.extend_from_slice(&head));
        if !end {
            self.stream.send_all(denial.body.as_bytes(), true).await?;
        }
        Ok(())
    }
}
