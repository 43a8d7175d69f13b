//! What who is refused is told: 429 (RFC 6585) with `Retry-After` (RFC 9110), and `RateLimit` and `RateLimit-Policy` as in
//! the IETF's draft (draft-ietf-httpapi-ratelimit-headers-10); in gRPC's terms where gRPC is spoken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::limit::Pace;

use super::exhausted::Exhausted;
use crate::error::{DecisionId, Error, Reason};
use crate::http::exchange::Exchange;
use crate::http::fields::{DECISION, EXHAUSTED, REASON};
use crate::http::neutral::{Fields, Request, Response, Version, put_field};
use crate::metrics::{Direction, Metrics};
use crate::peer::frame::Kind;
use crate::peer::stream::Stream;

/// Part of a wait that is added at random: those who wait do not come back all at once.
const JITTER: f64 = 0.25;
/// The longest wait that is told.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A limit is reached.
#[derive(Debug)]
pub(crate) struct Exceeded {
    /// `namespace/name` of the policy, a slash, and which of its limits.
    pub(crate) limit: Arc<str>,
    /// None when it cannot be acted on.
    pub(super) pace: Option<Pace>,
    /// Until it is worth asking again.
    pub(super) wait: Duration,
    /// Whatever the caller asks there is refused as well.
    pub(super) is_of_caller: bool,
}

impl Exceeded {
    /// Tells the client of a request so.
    pub(crate) async fn tell(
        &self,
        (refused, metrics): (&Error, &Metrics),
        (request, fields): (Request<'_>, Fields<'_>),
        stream: &Stream,
        exchange: &mut Exchange,
    ) -> Result<(), Error> {
        let is_grpc = is_grpc(fields);
        // To a client of gRPC all is said in the head.
        let body = match is_grpc {
            true => String::new(),
            false => format!(
                "{}: {}\n",
                Reason::RateLimited.row().explanation,
                self.limit
            ),
        };
        let head = self.head(refused.decision, is_grpc, body.len());
        let end = body.is_empty() || request.method == "HEAD";
        metrics.refused(Direction::Inbound, refused.reason);
        exchange.answered(refused.reason.row().status, Instant::now());
        if let Some(record) = exchange.record() {
            record.refused(refused);
        }
        stream.send_head(Kind::Head, end, |out| out.extend_from_slice(&head));
        match end {
            true => Ok(()),
            false => Ok(stream.send_all(body.as_bytes(), true).await?),
        }
    }

    /// The head of the response in neutral form.
    pub(super) fn head(
        &self,
        decision: Option<DecisionId>,
        is_grpc: bool,
        body_bytes: usize,
    ) -> Vec<u8> {
        let wait = self.wait.min(WAIT_MAX).as_secs_f64();
        let wait = wait * (1.0 + JITTER * rand::random_range(0.0..1.0));
        let mut head = Vec::with_capacity(512);
        Response {
            version: Version::Http2,
            upgrade: false,
            status: if is_grpc {
                200
            } else {
                Reason::RateLimited.row().status
            },
            phrase: b"",
        }
        .encode(&mut head);
        let mut put =
            |name: &str, value: &str| put_field(&mut head, name.as_bytes(), value.as_bytes());
        put("retry-after", &whole(wait).to_string());
        if let Some(pace) = self.pace {
            let (quota, window) = (pace.tokens, pace.period.as_secs());
            put(
                "ratelimit-policy",
                &format!("\"{}\";q={quota};w={window}", self.limit),
            );
            put(
                "ratelimit",
                &format!("\"{}\";r=0;t={}", self.limit, whole(wait)),
            );
        }
        if let Some(exhausted) = Exhausted::of(self) {
            put(EXHAUSTED, &exhausted.to_string());
        }
        put(REASON, Reason::RateLimited.row().label);
        if let Some(decision) = decision {
            put(DECISION, &decision.to_string());
        }
        if is_grpc {
            put("content-type", "application/grpc");
            put(
                "grpc-status",
                &Reason::RateLimited.row().grpc_status.to_string(),
            );
            put("grpc-message", &format!("rate limit {}", self.limit));
            put("grpc-retry-pushback-ms", &whole(wait * 1000.0).to_string());
        } else {
            put("content-type", "text/plain");
            put("content-length", &body_bytes.to_string());
        }
        head
    }
}

pub(super) fn is_grpc(fields: Fields<'_>) -> bool {
    let content = fields.first("content-type").unwrap_or_default();
    content.starts_with(b"application/grpc")
}

/// Up, so that nobody comes too early.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and a day in milliseconds"
)]
fn whole(value: f64) -> u64 {
    value.ceil().max(1.0) as u64
}
