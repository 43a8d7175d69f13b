//! How a connection of a client ends when we end it: with the reason, and so that the reason arrives.
//!
//! Limit: [`LINGER_TIMEOUT`].

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::write::{self, Answer};
use crate::buffer::{Buffer, write_all};
use crate::error::{Error, Reason};
use crate::http::neutral::Version;

/// How long a client that is still sending may keep a connection that is over.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Tells the client why, as far as it still listens, and ends the connection.
pub(crate) async fn refuse(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, error: &Error) {
    if error.reason == Reason::ClientGone {
        return;
    }
    let mut text = Vec::new();
    let answer = Answer {
        version: Version::Http11,
        is_head: false,
        persistent: false,
    };
    write::refusal(error, answer, &mut text);
    if timeout(LINGER_TIMEOUT, write_all(to, &text)).await.is_ok() {
        linger(from, to).await;
    }
}

/// Closes our direction, and takes what the client still sends for a while: closing at once would reset the connection
/// and could destroy the response on its way (RFC 9112 section 9.6).
pub(crate) async fn linger(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) {
    let mut input = Buffer::default();
    let _ = timeout(LINGER_TIMEOUT, async {
        to.shutdown().await?;
        while input.fill(from).await? > 0 {
            input.consume(input.data().len());
        }
        std::io::Result::Ok(())
    })
    .await;
}
