//! What was sent on a stream so far, for as long as it could be sent again on another.
//!
//! Limit: [`BODY_BYTES_MAX`] of the body, which is no more than the credit that a stream opens with: sending it again
//! never waits. Beyond, the record is given up.

use std::task::Waker;

use super::streams::WINDOW_BYTES;

/// Bytes of a body that are kept.
const BODY_BYTES_MAX: usize = WINDOW_BYTES;

/// A request, as far as it was sent.
#[derive(Debug)]
pub(crate) struct Record {
    /// In neutral form.
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<Vec<u8>>,
    pub(super) ended: bool,
    /// Sends the rest, and waits until the stream has a place again.
    pub(super) sender: Option<Waker>,
}

impl Record {
    pub(super) fn new(head: Vec<u8>, ended: bool) -> Self {
        Self {
            head,
            body: Vec::new(),
            trailers: None,
            ended,
            sender: None,
        }
    }

    /// Whether it is the whole request.
    pub(crate) fn is_whole(&self) -> bool {
        self.ended
    }

    /// The same once more.
    pub(crate) fn copy(&self) -> Self {
        Self {
            head: self.head.clone(),
            body: self.body.clone(),
            trailers: self.trailers.clone(),
            ended: self.ended,
            sender: None,
        }
    }

    /// False when it is too much to be kept.
    pub(super) fn data(&mut self, data: &[u8], end: bool) -> bool {
        let fits = self.body.len() + data.len() <= BODY_BYTES_MAX;
        if fits {
            self.body.extend_from_slice(data);
            self.ended = end;
        }
        fits
    }
}

impl Drop for Record {
    /// Whoever waited to send the rest learns what became of the stream.
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }
}
