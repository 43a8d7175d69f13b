//! Until both ends have proved who they are: rustls leads, on its unbuffered interface, and hands over the keys.
//!
//! Limits: [`HANDSHAKE_TIMEOUT`].

use std::io;
use std::ops::RangeInclusive;
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

use super::record::HEADER_BYTES;
use crate::buffer::{Buffer, write_all};
use crate::error::{Error, Reason};

/// Content types from change_cipher_spec to application_data.
const RECORD_TYPES: RangeInclusive<u8> = 20..=23;
/// The longest record, as old versions of TLS may have it: rustls says which is too long for it.
const RECORD_BYTES_MAX: usize = HEADER_BYTES + (1 << 14) + 2048;
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
    /// What the peer sent right behind its handshake.
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
        shown: 0,
        outgoing: Buffer::default(),
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
    /// How much of `incoming` is for rustls: a record at a time, so that what follows its last is still there.
    shown: usize,
    outgoing: Buffer,
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
                    while !self.show_record() {
                        if self.incoming.fill(self.socket).await.map_err(gone)? == 0 {
                            return Err(gone(io::ErrorKind::UnexpectedEof.into()));
                        }
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

    /// One more record for rustls, if all of it is there; of what is no record, all that is there, to be refused.
    fn show_record(&mut self) -> bool {
        let unseen = &self.incoming.data()[self.shown..];
        let Some(&[content, major, _, high, low]) = unseen.first_chunk() else {
            return false;
        };
        let length = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        let is_record = RECORD_TYPES.contains(&content) && major == 3 && length <= RECORD_BYTES_MAX;
        if !is_record {
            self.shown = self.incoming.data().len();
        } else if unseen.len() >= length {
            self.shown += length;
        } else {
            return false;
        }
        true
    }

    /// One step, which is the alert's: with another, the state machine would read what it has refused once more.
    async fn send_alert(&mut self) -> io::Result<()> {
        let _ = self.step();
        self.send().await
    }

    fn step(&mut self) -> Result<Step, Error> {
        let records = &mut self.incoming.data_mut()[..self.shown];
        let outgoing = &mut self.outgoing;
        let (discard, step) = match &mut self.session {
            Session::Client(session) => process(session.process_tls_records(records), outgoing),
            Session::Server(session) => process(session.process_tls_records(records), outgoing),
        };
        self.incoming.consume(discard);
        self.shown -= discard;
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
            incoming: self.incoming,
        })
    }
}

/// One step of the state machine: how many incoming bytes are used up, and what to do next.
fn process<Side>(
    status: UnbufferedStatus<'_, '_, Side>,
    outgoing: &mut Buffer,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { discard, state } = status;
    let step = match state {
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
        // Data before the handshake is over, which we never offer, and states of a newer rustls.
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
