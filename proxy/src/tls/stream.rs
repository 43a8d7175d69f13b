//! A TLS connection over a TCP socket, on rustls' unbuffered interface.
//!
//! One read takes up to 128 KiB from the socket and decrypts all its records in place; what is written is encrypted
//! straight into the write buffer. Buffers hold memory only while bytes are in flight. Reading and writing belong to
//! one task. Limits: [`HANDSHAKE_TIMEOUT`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ringmail_proto::svid::{Svid, SvidError};
use ringmail_proto::tls::svid_error;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::buffer::Buffer;
use crate::error::{Error, Reason};

/// From the TCP connection to the verified identity.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a record adds to its at most 16 KiB: header, content type, tag.
const RECORD_OVERHEAD: usize = 5 + 1 + 16;
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// Kept free in the write buffer for what TLS itself has to say (an answer to a key update).
const CONTROL_BYTES: usize = 128;

/// An established connection whose peer's identity is verified.
pub(crate) struct TlsStream {
    socket: TcpStream,
    session: Session,
    /// Records as they came, decrypted in place.
    incoming: Buffer,
    /// What the peer said right behind its handshake.
    early: Vec<u8>,
    /// Records to be sent.
    outgoing: Buffer,
    /// The peer closed its direction, in TLS or in TCP.
    ended: bool,
}

enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What a step of the state machine asks for.
enum Step {
    /// Call again.
    Again,
    /// The outgoing buffer must be sent before the next step.
    Send,
    /// More bytes are needed from the socket.
    Receive,
    /// Handshake done; nothing left to process.
    Ready,
    /// The peer said that it will send no more.
    Closed,
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
        let name = ServerName::IpAddress(
            socket
                .peer_addr()
                .map_err(|e| Reason::PeerGone.because(e))?
                .ip()
                .into(),
        );
        let session = UnbufferedClientConnection::new(config, name)
            .map_err(|e| Reason::Internal.because(e))?;
        Self::establish(socket, Session::Client(session)).await
    }

    /// Answers: TLS over an accepted socket.
    pub(crate) async fn accept(
        socket: TcpStream,
        config: Arc<ServerConfig>,
    ) -> Result<Self, Error> {
        let session =
            UnbufferedServerConnection::new(config).map_err(|e| Reason::Internal.because(e))?;
        Self::establish(socket, Session::Server(session)).await
    }

    async fn establish(socket: TcpStream, session: Session) -> Result<Self, Error> {
        let mut stream = Self {
            socket,
            session,
            incoming: Buffer::default(),
            early: Vec::new(),
            outgoing: Buffer::default(),
            ended: false,
        };
        match timeout(HANDSHAKE_TIMEOUT, stream.handshake()).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(error)) => {
                // What tells the peer why, unless it said so itself or is gone.
                if !matches!(error.reason, Reason::PeerRefusedIdentity | Reason::PeerGone) {
                    let _ = timeout(HANDSHAKE_TIMEOUT, stream.send_alert()).await;
                }
                Err(error)
            }
            Err(elapsed) => Err(Reason::PeerUnreachable.because(elapsed)),
        }
    }

    async fn handshake(&mut self) -> Result<(), Error> {
        let gone = |error: io::Error| Reason::PeerGone.because(error);
        let mut early = Vec::new();
        loop {
            let step = self.step(&mut |plaintext| early.extend_from_slice(plaintext))?;
            self.early.append(&mut early);
            match step {
                Step::Again => {}
                Step::Send => poll_fn(|cx| self.poll_flush(cx)).await.map_err(gone)?,
                Step::Receive => {
                    if self.incoming.fill(&mut self.socket).await.map_err(gone)? == 0 {
                        return Err(gone(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
                Step::Ready => return poll_fn(|cx| self.poll_flush(cx)).await.map_err(gone),
                Step::Closed => return Err(Reason::PeerGone.into()),
            }
        }
    }

    /// One step, which is the alert's: with another, the state machine would read what it has refused once more.
    async fn send_alert(&mut self) -> io::Result<()> {
        let _ = self.step(&mut |_| {});
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Whose certificate the peer proved to hold.
    pub(crate) fn peer(&self) -> Result<Svid, SvidError> {
        let leaf = self.state().peer_certificates().and_then(<[_]>::first);
        leaf.map_or(Err(SvidError::UriNames(0)), Svid::read)
    }

    /// The key exchange of this connection, as its IANA name.
    pub(crate) fn key_exchange(&self) -> &'static str {
        match self
            .state()
            .negotiated_key_exchange_group()
            .map(|group| group.name())
        {
            Some(rustls::NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
            Some(rustls::NamedGroup::X25519) => "x25519",
            Some(_) | None => "other",
        }
    }

    /// The protocol both ends agreed on.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.state().alpn_protocol()
    }

    fn state(&self) -> &CommonState {
        match &self.session {
            Session::Client(session) => session,
            Session::Server(session) => session,
        }
    }

    /// One socket read; what it decrypts to goes to `sink`, in order.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<Read, Error>> {
        let mut delivered = !self.early.is_empty();
        if delivered {
            sink(&std::mem::take(&mut self.early));
        }
        loop {
            while !self.incoming.is_empty() && !self.ended {
                let deliver = &mut |plaintext: &[u8]| {
                    delivered = true;
                    sink(plaintext);
                };
                match self.step(deliver)? {
                    Step::Again | Step::Send => {}
                    Step::Receive | Step::Ready => break,
                    Step::Closed => self.ended = true,
                }
            }
            if delivered {
                return Poll::Ready(Ok(Read::Some));
            }
            if self.ended {
                return Poll::Ready(Ok(Read::End));
            }
            let filled = ready!(self.incoming.poll_fill_large(cx, &mut self.socket));
            self.ended = filled.map_err(|error| Reason::PeerGone.because(error))? == 0;
        }
    }

    /// Encrypts from the front of `plaintext` as much as the write buffer takes; says how much that was.
    pub(crate) fn write(&mut self, plaintext: &[u8]) -> Result<usize, Error> {
        let room = self.outgoing.spare();
        let records = room.len() / (RECORD_BYTES_MAX + RECORD_OVERHEAD) + 1;
        let overhead = records * RECORD_OVERHEAD + CONTROL_BYTES;
        let n = plaintext.len().min(room.len().saturating_sub(overhead));
        if n == 0 {
            self.outgoing.filled(0);
            return Ok(0);
        }
        let mut written = 0;
        loop {
            let (plaintext, room) = (&plaintext[..n], &mut room[written..]);
            // A record that is there in part stays where it is: TLS keeps count of it.
            let records = self.incoming.data_mut();
            let (discard, encrypted) = match &mut self.session {
                Session::Client(session) => {
                    encrypt(session.process_tls_records(records), plaintext, room)
                }
                Session::Server(session) => {
                    encrypt(session.process_tls_records(records), plaintext, room)
                }
            };
            self.incoming.consume(discard);
            let (more, encrypted) = encrypted?;
            written += more;
            if encrypted {
                self.outgoing.filled(written);
                return Ok(n);
            }
        }
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
        let room = self.outgoing.spare();
        let written = match &mut self.session {
            Session::Client(session) => {
                close_notify(session.process_tls_records(self.incoming.data_mut()), room)
            }
            Session::Server(session) => {
                close_notify(session.process_tls_records(self.incoming.data_mut()), room)
            }
        };
        self.outgoing.filled(written);
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn step(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<Step, Error> {
        let records = self.incoming.data_mut();
        let (discard, step) = match &mut self.session {
            Session::Client(session) => process(
                session.process_tls_records(records),
                &mut self.outgoing,
                deliver,
            ),
            Session::Server(session) => process(
                session.process_tls_records(records),
                &mut self.outgoing,
                deliver,
            ),
        };
        self.incoming.consume(discard);
        step
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// One step of the state machine: how many incoming bytes are used up, and what to do next.
fn process<Side>(
    status: UnbufferedStatus<'_, '_, Side>,
    outgoing: &mut Buffer,
    deliver: &mut dyn FnMut(&[u8]),
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    deliver(record.payload);
                }
                Some(Err(error)) => break Err(refused(error)),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => match data.encode(outgoing.spare()) {
            Ok(n) => {
                outgoing.filled(n);
                Ok(Step::Again)
            }
            Err(EncodeError::AlreadyEncoded) => Ok(Step::Again),
            Err(error @ EncodeError::InsufficientSize(_)) => {
                Err(Reason::PeerProtocol.because(error))
            }
        },
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Send)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Receive),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Ready),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Closed),
        // Early data, which we never offer, and states of a newer rustls.
        Ok(_) => Err(Reason::PeerProtocol.into()),
        Err(error) => Err(refused(error)),
    };
    (discard, step)
}

/// Encrypts into `room`, or writes what the state machine has to say first (an answer to a key update). Says how much
/// was written, whether it was the plaintext, and how many incoming bytes are used up.
fn encrypt<Side>(
    status: UnbufferedStatus<'_, '_, Side>,
    plaintext: &[u8],
    room: &mut [u8],
) -> (usize, Result<(usize, bool), Error>) {
    let UnbufferedStatus { discard, state } = status;
    let encrypted = match state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let written = traffic.encrypt(plaintext, room);
            written
                .map(|n| (n, true))
                .map_err(|error| Reason::Internal.because(error))
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let written = data.encode(room);
            written
                .map(|n| (n, false))
                .map_err(|error| Reason::Internal.because(error))
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok((0, false))
        }
        Ok(_) => Err(Reason::PeerGone.into()),
        Err(error) => Err(refused(error)),
    };
    (discard, encrypted)
}

fn close_notify<Side>(status: UnbufferedStatus<'_, '_, Side>, room: &mut [u8]) -> usize {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            traffic.queue_close_notify(room).unwrap_or(0)
        }
        _ => 0,
    }
}

/// Whom a TLS error is to be blamed on.
fn refused(error: rustls::Error) -> Error {
    let reason = match &error {
        rustls::Error::AlertReceived(_) => Reason::PeerRefusedIdentity,
        rustls::Error::NoCertificatesPresented => Reason::PeerIdentity,
        other if svid_error(other).is_some() => Reason::PeerIdentity,
        _ => Reason::PeerProtocol,
    };
    reason.because(error)
}
