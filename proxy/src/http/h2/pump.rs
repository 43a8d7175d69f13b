//! A body between an h2 stream and a stream of the wire, either way, trailers and all.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::heads;
use crate::error::{Error, Reason};
use crate::http::neutral::Fields;
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};

/// From the app's h2 stream to ours, to its end. `count` is what passed, also when the future is dropped.
pub(super) async fn send_body(
    mut body: RecvStream,
    stream: &Stream,
    gone: Reason,
    count: &mut usize,
) -> Result<(), Error> {
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| gone.because(error))?;
        let end = body.is_end_stream();
        // An empty frame that ends nothing is nothing.
        if data.is_empty() && !end {
            continue;
        }
        stream.send_all(&data, end).await?;
        *count += data.len();
        // Credit goes back only once the bytes went on: the slow end slows the fast one.
        let _ = body.flow_control().release_capacity(data.len());
        if end {
            if data.is_empty() {
                stream.end();
            }
            return Ok(());
        }
    }
    match body.trailers().await.map_err(|error| gone.because(error))? {
        Some(trailers) => {
            let mut out = Vec::new();
            heads::put_fields(&trailers, &mut out)?;
            stream.send_head(Kind::Trailers, true, |frame| frame.extend_from_slice(&out));
        }
        None => stream.end(),
    }
    Ok(())
}

/// From our stream to the app's h2 stream, to its end. `count` is what passed, also when the future is dropped.
pub(super) async fn receive_body(
    stream: &Stream,
    reader: &mut Reader,
    to: &mut SendStream<Bytes>,
    gone: Reason,
    count: &mut usize,
) -> Result<(), Error> {
    while !reader.is_ended() {
        // Whoever takes the body may want no more of it, however long the other side is silent.
        poll_fn(|cx| match to.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(Err(gone)),
            Poll::Pending => stream.poll_receivable(cx, reader),
        })
        .await?;
        let received = stream.receive(reader).await?;
        match received.kind {
            Kind::Data => {
                *count += received.payload.len();
                send_all(
                    to,
                    Bytes::copy_from_slice(received.payload),
                    received.end,
                    gone,
                )
                .await?;
            }
            Kind::Trailers => {
                let fields = Fields::check(received.payload)
                    .map_err(|error| Reason::PeerProtocol.because(error))?;
                to.send_trailers(heads::header_map(fields)?)
                    .map_err(|error| gone.because(error))?;
            }
            _ => return Err(Reason::PeerProtocol.into()),
        }
    }
    Ok(())
}

async fn send_all(
    to: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
    gone: Reason,
) -> Result<(), Error> {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        if to.capacity() == 0 {
            let capacity = poll_fn(|cx| to.poll_capacity(cx)).await;
            capacity.ok_or(gone)?.map_err(|error| gone.because(error))?;
            continue;
        }
        let now = data.split_to(to.capacity().min(data.len()));
        to.send_data(now, end && data.is_empty())
            .map_err(|error| gone.because(error))?;
        if end && data.is_empty() {
            return Ok(());
        }
    }
    if end {
        to.send_data(Bytes::new(), true)
            .map_err(|error| gone.because(error))?;
    }
    Ok(())
}
