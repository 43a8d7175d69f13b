//! First bytes of a connection, read until they tell what it speaks. Dropping a future here loses nothing.
//!
//! Limits: [`DETECT_TIMEOUT`] and a buffer.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Verdict, detect};
use crate::buffer::Buffer;
use crate::error::{Blamed, Error, Reason};

/// How long first bytes may leave it open what they are.
const DETECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads until the bytes tell, or the client closes.
pub(crate) async fn first_bytes(
    socket: &mut TcpStream,
    input: &mut Buffer,
) -> Result<Verdict, Error> {
    loop {
        let verdict = if input.is_empty() {
            Verdict::More
        } else {
            detect(input.data())
        };
        if verdict != Verdict::More || input.is_full() {
            return Ok(verdict);
        }
        if input.fill(socket).await.blame(Reason::ClientGone)? == 0 {
            return Ok(Verdict::Opaque);
        }
    }
}

/// The verdict, or that there is none, after [`DETECT_TIMEOUT`].
pub(crate) async fn in_time(socket: &mut TcpStream, input: &mut Buffer) -> Result<Verdict, Error> {
    timeout(DETECT_TIMEOUT, first_bytes(socket, input))
        .await
        .unwrap_or(Ok(Verdict::More))
}
