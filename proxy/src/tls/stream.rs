//! A TLS connection over a TCP socket.
//!
//! One read takes up to 128 KiB from the socket and decrypts all its records in place; what is written is encrypted
//! straight into the write buffer. Buffers hold memory only while bytes are in flight. Reading and writing belong to
//! one task. Limits: [`FRUITLESS_MAX`], and those of `record` and `handshake`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ringmail_proto::svid::{Svid, SvidError};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::handshake::{Established, Keys, Session, shake_hands};
use super::record::{
    ALERT, DATA, HANDSHAKE, OVERHEAD, Opener, PLAINTEXT_BYTES_MAX, RecordError, Sealer,
    whole_record,
};
use crate::buffer::Buffer;
use crate::error::{Error, Reason};

/// Records without data that a peer may send with none between them that has any.
const FRUITLESS_MAX: u32 = 32;
/// The alert that no more comes (RFC 8446, section 6.1): a warning, and its number.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// A new key (RFC 8446, section 4.6.3): type, length, and whether it asks for one in return.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_ASKS: [u8; 5] = [24, 0, 0, 1, 1];

/// An established connection whose peer's identity is verified.
pub(crate) struct TlsStream {
    socket: TcpStream,
    peer: Result<Svid, SvidError>,
    alpn: Option<Vec<u8>>,
    key_exchange: &'static str,
    /// Records as they came, decrypted in place.
    incoming: Buffer,
    opener: Opener,
    /// Records to be sent.
    outgoing: Buffer,
    sealer: Sealer,
    keys: Keys,
    /// The peer asked for a new key of ours.
    owes_key: bool,
    /// Records of the peer since its last data.
    fruitless: u32,
    /// The peer closed its direction, in TLS or in TCP.
    ended: bool,
    /// We told the peer that no more comes.
    said_goodbye: bool,
}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// Bytes went to the sink.
    Some,
    /// The peer will send no more.
    End,
}

impl TlsStream {
    /// Dials: TLS over a connected socket. The configuration says whom we expect.
    pub(crate) async fn connect(
        socket: TcpStream,
        config: Arc<ClientConfig>,
    ) -> Result<Self, Error> {
        let address = socket
            .peer_addr()
            .map_err(|error| Reason::PeerGone.because(error))?;
        let name = ServerName::IpAddress(address.ip().into());
        let session = UnbufferedClientConnection::new(config, name)
            .map_err(|error| Reason::Internal.because(error))?;
        Self::establish(socket, Session::Client(session)).await
    }

    /// Answers: TLS over an accepted socket.
    pub(crate) async fn accept(
        socket: TcpStream,
        config: Arc<ServerConfig>,
    ) -> Result<Self, Error> {
        let session = UnbufferedServerConnection::new(config)
            .map_err(|error| Reason::Internal.because(error))?;
        Self::establish(socket, Session::Server(session)).await
    }

    async fn establish(mut socket: TcpStream, session: Session) -> Result<Self, Error> {
        let Established {
            peer,
            alpn,
            key_exchange,
            secrets,
            keys,
            incoming,
        } = shake_hands(&mut socket, session).await?;
        Ok(Self {
            socket,
            peer,
            alpn,
            key_exchange,
            incoming,
            opener: Opener::new(secrets.rx).map_err(internal)?,
            outgoing: Buffer::default(),
            sealer: Sealer::new(secrets.tx).map_err(internal)?,
            keys,
            owes_key: false,
            fruitless: 0,
            ended: false,
            said_goodbye: false,
        })
    }

    /// Whose certificate the peer proved to hold.
    pub(crate) fn peer(&self) -> Result<Svid, SvidError> {
        self.peer.clone()
    }

    /// The key exchange of this connection, as its IANA name.
    pub(crate) fn key_exchange(&self) -> &'static str {
        self.key_exchange
    }

    /// The protocol both ends agreed on.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// One socket read; what it decrypts to goes to `sink`, in order.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Read, Error>> {
        loop {
            if self.open_records(sink)? {
                return Poll::Ready(Ok(Read::Some));
            }
            if self.ended {
                return Poll::Ready(Ok(Read::End));
            }
            let filled = ready!(self.incoming.poll_fill_large(cx, &mut self.socket));
            self.ended = filled.map_err(|error| Reason::PeerGone.because(error))? == 0;
        }
    }

    /// Decrypts all whole records that are there. True when there was data in them.
    fn open_records(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<bool, Error> {
        let mut delivered = false;
        while !self.ended
            && let Some(length) = whole_record(self.incoming.data()).map_err(broken)?
        {
            let record = &mut self.incoming.data_mut()[..length];
            let (content, plaintext) = self.opener.open(record).map_err(broken)?;
            self.fruitless += 1;
            match content {
                DATA if plaintext.is_empty() => {}
                DATA => {
                    delivered = true;
                    self.fruitless = 0;
                    sink(plaintext);
                }
                ALERT => self.ended |= is_goodbye(plaintext)?,
                HANDSHAKE => {
                    let asks_for_ours = key_update(plaintext).map_err(broken)?;
                    self.owes_key |= asks_for_ours;
                    self.follow_key()?;
                }
                other => return Err(broken(RecordError::Unexpected(other))),
            }
            if self.fruitless > FRUITLESS_MAX {
                return Err(broken(RecordError::Fruitless(FRUITLESS_MAX)));
            }
            self.incoming.consume(length);
        }
        Ok(delivered)
    }

    /// The peer goes on with a new key.
    fn follow_key(&mut self) -> Result<(), Error> {
        let secrets = self.keys.next_to_receive().map_err(internal)?;
        self.opener = Opener::new(secrets).map_err(internal)?;
        Ok(())
    }

    /// Encrypts from the front of `plaintext` as much as the write buffer takes; says how much that was.
    pub(crate) fn write(&mut self, plaintext: &[u8]) -> Result<usize, Error> {
        if (self.owes_key || self.sealer.is_worn()) && !self.update_key()? {
            return Ok(0);
        }
        let room = self.outgoing.spare();
        let (mut taken, mut written) = (0, 0);
        while taken < plaintext.len() {
            let length = (plaintext.len() - taken).min(PLAINTEXT_BYTES_MAX);
            if room.len() - written < length + OVERHEAD {
                break;
            }
            let piece = &plaintext[taken..taken + length];
            let sealed = self.sealer.seal(DATA, piece, &mut room[written..]);
            written += sealed.map_err(internal)?;
            taken += length;
        }
        self.outgoing.filled(written);
        Ok(taken)
    }

    /// Goes on with a new key. False when there is no room to tell the peer.
    fn update_key(&mut self) -> Result<bool, Error> {
        let told = self.seal_message(HANDSHAKE, &KEY_UPDATE)?;
        if told {
            let secrets = self.keys.next_to_send().map_err(internal)?;
            self.sealer = Sealer::new(secrets).map_err(internal)?;
            self.owes_key = false;
        }
        Ok(told)
    }

    /// A message of TLS itself. False when there is no room for it.
    fn seal_message(&mut self, content: u8, message: &[u8]) -> Result<bool, Error> {
        let room = self.outgoing.spare();
        if room.len() < message.len() + OVERHEAD {
            return Ok(false);
        }
        let written = self.sealer.seal(content, message, room).map_err(internal)?;
        self.outgoing.filled(written);
        Ok(true)
    }

    /// Sends what is encrypted.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let n = ready!(Pin::new(&mut self.socket).poll_write(cx, self.outgoing.data()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.consume(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the peer in TLS that no more comes, then closes our direction. What was written is sent first.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        if !std::mem::replace(&mut self.said_goodbye, true) {
            self.seal_message(ALERT, &CLOSE_NOTIFY)
                .map_err(io::Error::other)?;
            ready!(self.poll_flush(cx))?;
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Whether the peer says that it will send no more. Any other alert is its refusal of us.
fn is_goodbye(alert: &[u8]) -> Result<bool, Error> {
    let &[_, description] = alert else {
        return Err(broken(RecordError::Alert));
    };
    match AlertDescription::from(description) {
        AlertDescription::CloseNotify => Ok(true),
        AlertDescription::UserCanceled => Ok(false),
        other => {
            let error = rustls::Error::AlertReceived(other);
            Err(Reason::PeerRefusedIdentity.because(error))
        }
    }
}

/// Whether the peer's new key asks for one of ours. Nothing else may come behind a handshake of ours: no tickets, for a
/// resumed session would skip the certificate.
fn key_update(message: &[u8]) -> Result<bool, RecordError> {
    if message == KEY_UPDATE_ASKS {
        return Ok(true);
    }
    if message == KEY_UPDATE {
        return Ok(false);
    }
    Err(RecordError::Handshake)
}

fn broken(error: RecordError) -> Error {
    Reason::PeerProtocol.because(error)
}

fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Reason::Internal.because(error)
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
