//! Both ends of the peer wire in one proxy: no socket, no TLS, frames moved from one to the other in one task. What
//! serves streams of a peer serves a client of our own app the same way.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::task::spawn_local;

use super::frame::Decoder;
use super::stream::{Reader, Stream};
use super::streams::{Side, Streams};
use crate::error::Reason;

/// Times that frames are moved before other tasks get their turn.
const TURNS_MAX: usize = 8;
/// What is kept allocated between bursts.
const KEPT_BYTES: usize = 64 * 1024;

/// The end that opens streams, as one of a connection to a peer; each stream goes to `accept` at the other, `acceptor`. It
/// lasts until it is retired and its last stream is over.
pub(crate) fn pair(
    acceptor: Rc<Streams>,
    accept: impl FnMut(Stream, Reader, &[u8]) + 'static,
) -> Rc<Streams> {
    let dialer = Streams::new(Side::Dialer);
    let mut moving = Moving {
        dialer: dialer.clone(),
        acceptor,
        accept,
        decoders: Default::default(),
        frames: Vec::new(),
    };
    spawn_local(async move { poll_fn(|cx| moving.poll(cx)).await });
    dialer
}

struct Moving<Accept> {
    dialer: Rc<Streams>,
    acceptor: Rc<Streams>,
    accept: Accept,
    decoders: [Decoder; 2],
    frames: Vec<u8>,
}

impl<Accept: FnMut(Stream, Reader, &[u8])> Moving<Accept> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) if self.dialer.is_over() => return Poll::Ready(()),
                Ok(false) => return Poll::Pending,
                // We are both ends: whichever broke the rules, it is our bug, and every stream learns it.
                Err(()) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves what waits at either end; says whether there was any.
    fn turn(&mut self, cx: &Context<'_>) -> Result<bool, ()> {
        let Self {
            dialer,
            acceptor,
            accept,
            decoders: [up, down],
            frames,
        } = self;
        let mut moved = false;
        for (from, to, decoder) in [(&*dialer, &*acceptor, up), (&*acceptor, &*dialer, down)] {
            if !from.take_out(frames, cx.waker()) {
                continue;
            }
            moved = true;
            let mut outcome = Ok(());
            let decoded = decoder.decode(frames, &mut |frame| {
                if outcome.is_ok() {
                    outcome = to.receive(frame, accept).map_err(drop);
                }
            });
            decoded.map_err(drop)?;
            outcome?;
            frames.clear();
            frames.shrink_to(KEPT_BYTES);
        }
        Ok(moved)
    }
}

impl<Accept> Drop for Moving<Accept> {
    /// Whatever ended the task, no stream waits for ever.
    fn drop(&mut self) {
        self.dialer.close(Reason::Internal);
        self.acceptor.close(Reason::Internal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::frame::Kind;
    use tokio::task::LocalSet;

    #[test]
    fn a_stream_crosses_and_the_pair_ends_with_its_last_one() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let dialer = pair(Streams::new(Side::Acceptor), |stream, mut reader, head| {
                assert_eq!(head, b"open");
                spawn_local(async move {
                    let mut all = Vec::new();
                    while !reader.is_ended() {
                        let received = stream.receive(&mut reader).await.expect("data");
                        all.extend_from_slice(received.payload);
                    }
                    stream.send_head(Kind::Head, false, |out| out.extend_from_slice(b"head"));
                    stream.send_all(&all, true).await.expect("credit");
                });
            });
            let id = dialer.open(false, |out| out.extend_from_slice(b"open"));
            let stream = Stream::accepted(dialer.clone(), id.expect("open"));
            let body = vec![7; 1 << 20];
            let mut reader = Reader::default();
            let send = async {
                stream.send_all(&body, false).await.expect("credit");
                stream.end();
            };
            let mut found = 0;
            let receive = async {
                while !reader.is_ended() {
                    let received = stream.receive(&mut reader).await.expect("an answer");
                    found += received.payload.len();
                }
            };
            tokio::join!(send, receive);
            assert_eq!(found, body.len() + b"head".len());
            dialer.retire();
            drop(stream);
            while !dialer.is_closed() {
                tokio::task::yield_now().await;
            }
        });
    }
}
