//! A body between a lane and a stream of the wire, either way, trailers and all.

use std::future::poll_fn;
use std::task::Poll;

use super::heads;
use super::lane::Lane;
use crate::error::{Error, Reason};
use crate::http::exchange::grpc_status;
use crate::http::fields::Toward;
use crate::http::neutral::Fields;
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};

/// From the app's lane, read by `from`, to our stream, to its end, with gRPC's status if trailers have one. `count` is
/// what passed, also when the future is dropped.
pub(super) async fn send_body(
    lane: &Lane,
    from: &mut Reader,
    stream: &Stream,
    count: &mut usize,
) -> Result<Option<u16>, Error> {
    let mut status = None;
    while !from.is_ended() {
        let received = lane.receive(from).await?;
        match received.kind {
            Kind::Data => {
                let bytes = received.payload.len();
                stream.send_all(received.payload, received.end).await?;
                *count += bytes;
                // Credit goes back only once the bytes went on: the slow end slows the fast one.
                lane.consumed(bytes);
                if bytes == 0 {
                    stream.end();
                }
            }
            Kind::Trailers => {
                let fields = received.payload;
                stream.send_head(Kind::Trailers, true, |out| out.extend_from_slice(fields));
                status = Fields::check(fields).ok().and_then(grpc_status);
            }
            _ => return Err(Reason::Internal.into()),
        }
    }
    Ok(status)
}

/// The same from our stream to the app's lane.
pub(super) async fn receive_body(
    stream: &Stream,
    reader: &mut Reader,
    lane: &Lane,
    count: &mut usize,
) -> Result<Option<u16>, Error> {
    let mut status = None;
    while !reader.is_ended() {
        // Whoever takes the body may want no more of it, however long the other side is silent.
        poll_fn(|cx| match lane.poll_reset(cx) {
            Poll::Ready(reason) => Poll::Ready(Err(reason)),
            Poll::Pending => stream.poll_receivable(cx, reader),
        })
        .await?;
        let received = stream.receive(reader).await?;
        match received.kind {
            Kind::Data => {
                *count += received.payload.len();
                lane.send_all(received.payload, received.end).await?;
                if received.end && received.payload.is_empty() {
                    lane.end();
                }
            }
            Kind::Trailers => {
                let fields = Fields::check(received.payload)
                    .map_err(|error| Reason::PeerProtocol.because(error))?;
                lane.send_head(true, |out| {
                    heads::put_fields(fields, (Toward::App, None), out)
                })?;
                status = grpc_status(fields);
            }
            _ => return Err(Reason::PeerProtocol.into()),
        }
    }
    Ok(status)
}
