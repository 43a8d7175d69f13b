//! First bytes of a connection, read until they tell what it speaks. Dropping a future here loses nothing.
//!
//! Limits: [`DETECT_TIMEOUT`], [`HELLO_TIMEOUT`] and a buffer.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client_hello::{Hello, client_hello};
use super::{Verdict, detect};
use crate::buffer::Buffer;
use crate::error::{Blamed, Error, Reason};

/// How long first bytes may leave it open what they are.
const DETECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client may take for its ClientHello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the server that the client's TLS asks for, if it says one. It may be silent for as long as it likes, and
/// then has its time.
pub(crate) async fn server_name(
    socket: &mut TcpStream,
    input: &mut Buffer,
) -> Result<Option<String>, Error> {
    if input.is_empty() {
        input.fill(socket).await.blame(Reason::ClientGone)?;
    }
    let hello = async {
        loop {
            match client_hello(input.data()) {
                Hello::Tls(name) => return Ok(name),
                Hello::Not => return Err(Reason::NotTls.into()),
                Hello::More if input.is_full() => return Err(Reason::NotTls.into()),
                Hello::More => {}
            }
            if input.fill(socket).await.blame(Reason::ClientGone)? == 0 {
                return Err(Reason::ClientGone.into());
            }
        }
    };
    let elapsed = |elapsed| Err(Reason::ClientTimeout.because(elapsed));
    timeout(HELLO_TIMEOUT, hello).await.unwrap_or_else(elapsed)
}

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
