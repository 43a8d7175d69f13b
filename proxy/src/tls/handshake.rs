//! Until both ends have proved who they are: rustls leads, on its unbuffered interface, and hands over the keys.
//!
//! Limits: [`HANDSHAKE_TIMEOUT`].

use std::io;
use std::time::Duration;

use ringmail_proto::svid::{Svid, SvidError};
use ringmail_proto::tls::svid_error;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, ConnectionTrafficSecrets, ExtractedSecrets};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::buffer::{Buffer, write_all};
use crate::error::{Error, Reason};

/// From the TCP connection to the verified identity.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Our end of the handshake.
pub(super) enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What a handshake came to.
pub(super) struct Established {
    /// Whose certificate the peer proved to hold.
    pub(super) peer: Result<Svid, SvidError>,
    /// The protocol both ends agreed on.
    pub(super) alpn: Option<Vec<u8>>,
    /// The key exchange, as its IANA name.
    pub(super) key_exchange: &'static str,
    /// For records from here on.
    pub(super) secrets: ExtractedSecrets,
    /// Makes the keys that follow these.
    pub(super) keys: Keys,
    /// What the peer said right behind its handshake: what was read of it already, and records as they came.
    pub(super) early: Vec<u8>,
    pub(super) incoming: Buffer,
}

/// The secrets that keys are made from, one after the other (RFC 8446, section 7.2).
pub(super) enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Keys {
    pub(super) fn next_to_send(
        &mut self,
    ) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(keys) => keys.update_tx_secret(),
            Self::Server(keys) => keys.update_tx_secret(),
        }
    }

    pub(super) fn next_to_receive(
        &mut self,
    ) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(keys) => keys.update_rx_secret(),
            Self::Server(keys) => keys.update_rx_secret(),
        }
    }
}

/// Shakes hands over a connected socket. A peer that we refuse is told why.
pub(super) async fn shake_hands(
    socket: &mut TcpStream,
    session: Session,
) -> Result<Established, Error> {
    let mut handshake = Handshake {
        socket,
        session,
        incoming: Buffer::default(),
        outgoing: Buffer::default(),
        early: Vec::new(),
    };
    match timeout(HANDSHAKE_TIMEOUT, handshake.run()).await {
        Ok(Ok(())) => handshake
            .hand_over()
            .map_err(|error| Reason::Internal.because(error)),
        Ok(Err(error)) => {
            // What tells the peer why, unless it said so itself or is gone.
            if !matches!(error.reason, Reason::PeerRefusedIdentity | Reason::PeerGone) {
                let _ = timeout(HANDSHAKE_TIMEOUT, handshake.send_alert()).await;
            }
            Err(error)
        }
        Err(elapsed) => Err(Reason::PeerUnreachable.because(elapsed)),
    }
}

struct Handshake<'socket> {
    socket: &'socket mut TcpStream,
    session: Session,
    incoming: Buffer,
    outgoing: Buffer,
    early: Vec<u8>,
}

/// What a step of the state machine asks for.
enum Step {
    /// Call again.
    Again,
    /// The outgoing buffer must be sent before the next step.
    Send,
    /// More bytes are needed from the socket.
    Receive,
    /// Both ends are sure of each other.
    Done,
    /// The peer said that it will send no more.
    Closed,
}

impl Handshake<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let gone = |error: io::Error| Reason::PeerGone.because(error);
        loop {
            match self.step()? {
                Step::Again => {}
                Step::Send => self.send().await.map_err(gone)?,
                Step::Receive => {
                    if self.incoming.fill(self.socket).await.map_err(gone)? == 0 {
                        return Err(gone(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
                Step::Done => return self.send().await.map_err(gone),
                Step::Closed => return Err(Reason::PeerGone.into()),
            }
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        write_all(self.socket, self.outgoing.data()).await?;
        self.outgoing.consume(self.outgoing.data().len());
        Ok(())
    }

    /// One step, which is the alert's: with another, the state machine would read what it has refused once more.
    async fn send_alert(&mut self) -> io::Result<()> {
        let _ = self.step();
        self.send().await
    }

    fn step(&mut self) -> Result<Step, Error> {
        let records = self.incoming.data_mut();
        let (outgoing, early) = (&mut self.outgoing, &mut self.early);
        let (discard, step) = match &mut self.session {
            Session::Client(session) => {
                process(session.process_tls_records(records), outgoing, early)
            }
            Session::Server(session) => {
                process(session.process_tls_records(records), outgoing, early)
            }
        };
        self.incoming.consume(discard);
        step
    }

    fn hand_over(self) -> Result<Established, rustls::Error> {
        let common: &CommonState = match &self.session {
            Session::Client(session) => session,
            Session::Server(session) => session,
        };
        let leaf = common.peer_certificates().and_then(<[_]>::first);
        let peer = leaf.map_or(Err(SvidError::UriNames(0)), Svid::read);
        let alpn = common.alpn_protocol().map(<[u8]>::to_vec);
        let group = common.negotiated_key_exchange_group();
        let key_exchange = match group.map(|group| group.name()) {
            Some(rustls::NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
            Some(rustls::NamedGroup::X25519) => "x25519",
            Some(_) | None => "other",
        };
        let (secrets, keys) = match self.session {
            Session::Client(session) => {
                let (secrets, keys) = session.dangerous_into_kernel_connection()?;
                (secrets, Keys::Client(keys))
            }
            Session::Server(session) => {
                let (secrets, keys) = session.dangerous_into_kernel_connection()?;
                (secrets, Keys::Server(keys))
            }
        };
        Ok(Established {
            peer,
            alpn,
            key_exchange,
            secrets,
            keys,
            early: self.early,
            incoming: self.incoming,
        })
    }
}

/// One step of the state machine: how many incoming bytes are used up, and what to do next.
fn process<Side>(
    status: UnbufferedStatus<'_, '_, Side>,
    outgoing: &mut Buffer,
    early: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    early.extend_from_slice(record.payload);
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
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Closed),
        // Early data, which we never offer, and states of a newer rustls.
        Ok(_) => Err(Reason::PeerProtocol.into()),
        Err(error) => Err(refused(error)),
    };
    (discard, step)
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
