//! Whole frames of one interface, by a packet socket: what the wire watch reads and what a relay passes on.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use anyhow::Context;
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
        setsockopt, socket, sockopt,
    },
};

use crate::links;

/// The longest frame, offloaded ones included.
const FRAME_BYTES_MAX: usize = 128 * 1024;

/// What the kernel may hold for us.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;

/// `PACKET_OUTGOING` of Linux: a frame that this machine sends.
const OUTGOING: u8 = 4;

/// A frame, and whether it leaves by the interface rather than coming in.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) is_outgoing: bool,
}

/// A socket that neither waits for frames nor for room to send them.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    interface: usize,
    buffer: Vec<u8>,
}

impl PacketSocket {
    /// Binds to an interface of the calling thread's namespace.
    pub(crate) fn open(name: &str) -> anyhow::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )?;
        // Beyond the machine's limit where we may, up to it where not.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
        }
        let address = getifaddrs()?
            .filter(|interface| interface.interface_name == name)
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .with_context(|| format!("{name} has no link address"))?;
        bind(fd.as_raw_fd(), &address).with_context(|| format!("packet socket on {name}"))?;
        Ok(Self {
            fd,
            interface: links::index(name)? as usize,
            buffer: vec![0; FRAME_BYTES_MAX],
        })
    }

    /// The next frame, if there is one.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Frame<'_>>> {
        loop {
            let (length, from) = match recvfrom::<LinkAddr>(self.fd.as_raw_fd(), &mut self.buffer) {
                Ok(received) => received,
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            // Between making and binding the socket, frames of other interfaces come in.
            if let Some(from) = from.filter(|from| from.ifindex() == self.interface) {
                let bytes = &self.buffer[..length];
                return Ok(Some(Frame {
                    bytes,
                    is_outgoing: from.pkttype() == OUTGOING,
                }));
            }
        }
    }

    /// Sends a frame; one for which there is no room is lost, as on a real wire.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        match send(self.fd.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) | Err(nix::Error::EAGAIN | nix::Error::ENOBUFS | nix::Error::ENETDOWN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
