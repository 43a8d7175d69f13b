//! A body from a socket to a stream, whichever of the two is the client's.

use tokio::io::AsyncRead;
use tokio::net::tcp::ReadHalf;

use super::body::{Body, Chunked};
use crate::buffer::Buffer;
use crate::error::{Blamed, Error, Reason};
use crate::peer::frame::Kind;
use crate::peer::stream::Stream;

/// Who is to blame for what comes out of the socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) gone: Reason,
    pub(crate) malformed: Reason,
}

/// Takes the body out of its framing and sends it, trailers and all, to the stream's end. `count` is what passed, also
/// when the future is dropped.
pub(crate) async fn send_body(
    mut body: Body,
    source: Source,
    from: &mut ReadHalf<'_>,
    input: &mut Buffer,
    stream: &Stream,
    count: &mut usize,
) -> Result<(), Error> {
    let mut trailers = Vec::new();
    loop {
        let piece = body
            .decode(input.data(), &mut trailers)
            .map_err(|broken| source.malformed.rule(broken.0))?;
        let (used, bytes) = (piece.used, piece.data.len());
        let end = body.is_over() && trailers.is_empty();
        stream.send_all(piece.data, end).await?;
        *count += bytes;
        input.consume(used);
        match (body.is_over(), trailers.is_empty()) {
            (true, true) if bytes == 0 => stream.end(),
            (true, true) | (false, _) => {}
            (true, false) => {
                stream.send_head(Kind::Trailers, true, |out| out.extend_from_slice(&trailers))
            }
        }
        if body.is_over() {
            return Ok(());
        }
        if used > 0 {
            continue;
        }
        if input.is_full() {
            return Err(source.malformed.into());
        }
        if fill(body, from, input).await.blame(source.gone)? > 0 {
            continue;
        }
        if body != Body::UntilClose {
            return Err(source.gone.into());
        }
        stream.end();
        return Ok(());
    }
}

/// Reads what may let the body go on. Trailers are decoded as a whole, and end in a line feed: without a new one there is
/// nothing to decode again.
async fn fill(
    body: Body,
    from: &mut (impl AsyncRead + Unpin),
    input: &mut Buffer,
) -> std::io::Result<usize> {
    loop {
        let before = input.data().len();
        let filled = input.fill_large(from).await?;
        let is_line = || input.data()[before..].contains(&b'\n');
        if filled == 0 || input.is_full() || body != Body::Chunked(Chunked::Trailers) || is_line() {
            return Ok(filled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};
    use tokio::io::AsyncWriteExt;

    #[test]
    fn trailers_are_looked_at_a_line_at_a_time() {
        let (mut client, mut socket) = tokio::io::duplex(1);
        let mut input = Buffer::default();
        let mut context = Context::from_waker(Waker::noop());
        let trailers = Body::Chunked(Chunked::Trailers);
        let mut looks = 0;
        for byte in b"X: y\r\nX: y\r\n\r\n" {
            let written = pin!(client.write_all(&[*byte])).poll(&mut context);
            assert!(written.is_ready());
            let filled = pin!(fill(trailers, &mut socket, &mut input)).poll(&mut context);
            looks += usize::from(filled.is_ready());
        }
        assert_eq!((looks, input.data().len()), (3, 14));
    }
}
