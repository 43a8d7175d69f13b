//! A body from a socket to a stream, whichever of the two is the client's.

use tokio::net::tcp::ReadHalf;

use super::body::Body;
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
        if input.fill_large(from).await.blame(source.gone)? > 0 {
            continue;
        }
        if body != Body::UntilClose {
            return Err(source.gone.into());
        }
        stream.end();
        return Ok(());
    }
}
