//! One exchange, as it is counted: begun, answered, over. Both HTTP versions and both directions use it.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use crate::error::Error;
use crate::http::edits::Edits;
use crate::http::fields::{DECISION, REASON};
use crate::http::neutral::Fields;
use crate::metrics::{Answer, Outcome, Traffic};
use crate::peer::stream::Stream;
use crate::records::Record;

/// A request on its way. Dropping it before [`Self::finish`] or [`Self::fail`] counts it as broken.
#[derive(Debug)]
pub(crate) struct Exchange {
    traffic: Rc<Traffic>,
    begun: Instant,
    answer: Answer,
    sent: u64,
    received: u64,
    outcome: Outcome,
    /// Somebody wants the response's head changed.
    edits: Option<Box<Edits>>,
    /// Somebody wants to be told of it.
    record: Option<Record>,
}

impl Exchange {
    /// The request's head was complete at `begun`.
    pub(crate) fn begin(traffic: Rc<Traffic>, begun: Instant) -> Self {
        traffic.request_started();
        Self {
            traffic,
            begun,
            answer: Answer::default(),
            sent: 0,
            received: 0,
            outcome: Outcome::Broken,
            edits: None,
            record: None,
        }
    }

    /// The same, which is told of in `record`.
    pub(crate) fn recorded(mut self, record: Option<Record>) -> Self {
        self.record = record;
        self
    }

    /// What is told of it, if somebody wants that.
    pub(crate) fn record(&mut self) -> Option<&mut Record> {
        self.record.as_mut()
    }

    /// When the request's head was complete.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// The final head of the response is changed so.
    pub(crate) fn edit(&mut self, edits: Edits) {
        self.edits = Some(Box::new(edits)).filter(|edits| !edits.is_empty());
    }

    /// The response's final head as it is to be.
    pub(crate) fn edited<'a>(&self, head: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.edits {
            None => Cow::Borrowed(head),
            Some(edits) => edits.of_response(head),
        }
    }

    /// Somebody else answers than was asked at first.
    pub(crate) fn moved_to(&mut self, traffic: Rc<Traffic>) {
        self.traffic = traffic;
    }

    /// A response head was there at `now`; informational ones do not count as an answer.
    pub(crate) fn answered(&mut self, status: u16, now: Instant) {
        if status >= 200 || status == 101 {
            self.answer.status = Some(status);
            let after = now.saturating_duration_since(self.begun);
            self.traffic.answered(after);
            if let Some(record) = &mut self.record {
                record.answered(status, after);
            }
        }
    }

    /// What the response has said so far.
    pub(crate) fn answer(&self) -> Answer {
        self.answer
    }

    /// Whether the client has seen a status.
    pub(crate) fn is_answered(&self) -> bool {
        self.answer.status.is_some()
    }

    /// What another proxy says of a refusal, in the fields of the response, is for the record.
    pub(crate) fn explained_by(&mut self, fields: Fields<'_>) {
        if let Some(record) = &mut self.record {
            record.explained([REASON, DECISION].map(|name| fields.first(name)));
        }
    }

    /// The response was a head with these fields, which may have the status of a gRPC call.
    pub(crate) fn ended_with(&mut self, fields: Fields<'_>) {
        self.ended_as(grpc_status(fields));
    }

    /// The response's trailers had this status of a gRPC call.
    pub(crate) fn ended_as(&mut self, grpc_status: Option<u16>) {
        self.answer.grpc_status = grpc_status;
        if let Some(record) = &mut self.record {
            record.ended_as(grpc_status);
        }
    }

    /// Bytes of a body passed toward the peer.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Bytes of a body passed from the peer.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// Bytes passed that were counted, on a connection that became something else.
    pub(crate) fn tunnelled(&mut self, (sent, received): (u64, u64)) {
        if let Some(record) = &mut self.record {
            record.moved(sent, received);
        }
    }

    /// The handles it is counted with.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// It ended as HTTP says.
    pub(crate) fn finish(mut self) {
        self.outcome = Outcome::of(self.answer);
    }

    /// It ended for a reason.
    pub(crate) fn fail(mut self, error: &Error) {
        self.outcome = Outcome::of_reason(error.reason);
        if let Some(record) = &mut self.record {
            record.refused(error);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.traffic.request(self.outcome, self.answer);
        if self.sent > 0 {
            self.traffic.sent.add(self.sent);
        }
        if self.received > 0 {
            self.traffic.received.add(self.received);
        }
        if let Some(record) = &mut self.record {
            record.moved(self.sent, self.received);
        }
    }
}

/// Of gRPC, as its last fields have it.
pub(crate) fn grpc_status(fields: Fields<'_>) -> Option<u16> {
    std::str::from_utf8(fields.first("grpc-status")?)
        .ok()?
        .parse()
        .ok()
}

/// How an upload ended; none while it is under way.
pub(crate) type Uploaded = Option<Result<(), Error>>;

/// Runs a request's upload beside its response, until the response is over; says also how the upload ended. `bodyless`
/// requests need none.
///
/// Whoever answers decides: it may want no more of a request, and what it answered or will answer is worth more than
/// that. So an error of the upload ends both only if the client is to blame; `is_unwanted` says whether it is the other
/// side, which the response comes from and tells of.
pub(crate) async fn both_ways<Answered>(
    bodyless: bool,
    is_unwanted: impl Fn(&Error) -> bool,
    mut upload: Pin<&mut impl Future<Output = Result<(), Error>>>,
    mut answer: Pin<&mut impl Future<Output = Result<Answered, Error>>>,
) -> Result<(Answered, Uploaded), Error> {
    let mut uploaded = bodyless.then_some(Ok(()));
    poll_fn(|cx| {
        if uploaded.is_none()
            && let Poll::Ready(result) = upload.as_mut().poll(cx)
        {
            uploaded = Some(result);
        }
        if let Poll::Ready(answered) = answer.as_mut().poll(cx) {
            return Poll::Ready(answered.map(|answered| (answered, uploaded.take())));
        }
        let broken =
            |result: &mut Result<(), Error>| result.as_ref().is_err_and(|e| !is_unwanted(e));
        match uploaded.take_if(broken) {
            Some(Err(error)) => Poll::Ready(Err(error)),
            Some(Ok(())) | None => Poll::Pending,
        }
    })
    .await
}

/// Our app's answer, unless the peer gives up waiting for it.
pub(crate) async fn unless_reset<Answered>(
    stream: &Stream,
    answer: impl Future<Output = Result<Answered, Error>>,
) -> Result<Answered, Error> {
    let mut answer = pin!(answer);
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answered) => Poll::Ready(answered),
        Poll::Pending => stream.poll_reset(cx).map(|reason| Err(reason.into())),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use std::task::{Context, Waker};

    /// What comes of an upload that ends so, and of an answer that takes its time or does not.
    fn both(
        upload: Result<(), Reason>,
        is_quick: bool,
    ) -> Result<Option<Result<(), Reason>>, Reason> {
        let upload = pin!(async { upload.map_err(Error::from) });
        let answer = pin!(async {
            if !is_quick {
                tokio::task::yield_now().await;
            }
            Ok(())
        });
        let is_unwanted = |error: &Error| error.reason == Reason::AppGone;
        let mut both = pin!(both_ways(false, is_unwanted, upload, answer));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            if let Poll::Ready(outcome) = both.as_mut().poll(&mut context) {
                let reason = |error: Error| error.reason;
                return outcome
                    .map(|((), uploaded)| uploaded.map(|result| result.map_err(reason)))
                    .map_err(reason);
            }
        }
        Err(Reason::Internal)
    }

    #[test]
    fn an_answer_outlives_an_upload_that_nobody_wants() {
        for is_quick in [true, false] {
            assert_eq!(both(Ok(()), is_quick), Ok(Some(Ok(()))));
            let unwanted = Err(Reason::AppGone);
            assert_eq!(both(unwanted, is_quick), Ok(Some(unwanted)));
        }
        let gone = Err(Reason::ClientGone);
        assert_eq!(both(gone, true), Ok(Some(gone)), "it was over");
        assert_eq!(both(gone, false), Err(Reason::ClientGone));
    }
}
