//! Does capture work just now? Seen by a process without privileges: the proxy dials a probe address, which belongs to
//! nobody, and its own outbound listener must find itself called.
//!
//! The whole way of an app's connection is proven, as the exemption of the proxy's user does not hold for these
//! addresses. What it cannot see is a loss of the inbound rules alone; `in_force` can, with
//! `NET_ADMIN`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Error, plan::Plan};

/// Addresses kept for documentation (RFC 5737, RFC 3849): nobody serves there.
pub const PROBE_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// What the outbound listener writes to a probe before it closes.
pub const PROBE_ANSWER: &[u8] = b"ringmail: captured\n";

/// The listener is in this pod: a probe that takes longer has gone elsewhere.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Is a captured connection, by its original destination, a probe of ours?
pub fn is_probe(original_destination: SocketAddr) -> bool {
    PROBE_ADDRESSES.contains(&original_destination.ip())
}

/// Dials the probe address of each IP version that has a route. The outbound listener must answer [`PROBE_ANSWER`] to
/// connections for which [`is_probe`] holds.
pub async fn probe_outbound(plan: &Plan) -> Result<(), Error> {
    let mut reached = 0;
    for target in targets(plan) {
        match timeout(PROBE_TIMEOUT, dial(target)).await {
            Ok(Ok(())) => reached += 1,
            Ok(Err(error)) if is_unroutable(&error) => {}
            Ok(Err(source)) => return Err(Error::ProbeFailed { target, source }),
            Err(_) => {
                return Err(Error::ProbeFailed {
                    target,
                    source: io::ErrorKind::TimedOut.into(),
                });
            }
        }
    }
    if reached == 0 {
        Err(Error::NoRoute)
    } else {
        Ok(())
    }
}

async fn dial(target: SocketAddr) -> io::Result<()> {
    let socket = if target.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    let mut stream: TcpStream = socket.connect(target).await?;
    let mut answer = [0; PROBE_ANSWER.len()];
    stream.read_exact(&mut answer).await?;
    if answer == PROBE_ANSWER {
        Ok(())
    } else {
        Err(io::Error::other("somebody else answered"))
    }
}

/// What to dial: the probe addresses that `plan` captures.
pub(super) fn targets(plan: &Plan) -> impl Iterator<Item = SocketAddr> {
    let port = (plan.outbound.port..).find(|port| !plan.outbound.skip_ports.contains(port));
    PROBE_ADDRESSES
        .into_iter()
        .filter(|address| {
            !plan
                .outbound
                .skip_networks
                .iter()
                .any(|network| network.contains(*address))
        })
        .zip(port.into_iter().cycle())
        .map(SocketAddr::from)
}

/// Is this the error of a pod that has no such IP version?
pub(super) fn is_unroutable(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable, Unsupported};
    const EAFNOSUPPORT: i32 = 97;
    matches!(
        error.kind(),
        NetworkUnreachable | HostUnreachable | AddrNotAvailable | Unsupported
    ) || error.raw_os_error() == Some(EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::plan::Settings;

    #[test]
    fn probes_avoid_what_is_skipped() {
        let plan = |ports: &[u16], networks: &[&str]| {
            let settings = Settings {
                exempt_uid: Some(1337),
                outbound_skip_ports: ports.to_vec(),
                outbound_skip_networks: networks
                    .iter()
                    .map(|text| text.parse().expect("a network"))
                    .collect(),
                ..Settings::default()
            };
            Plan::new(settings).expect("valid settings")
        };
        let rows: [(Plan, &[&str]); 4] = [
            (plan(&[], &[]), &["192.0.2.1:15001", "[2001:db8::1]:15001"]),
            (
                plan(&[15001, 15002], &[]),
                &["192.0.2.1:15003", "[2001:db8::1]:15003"],
            ),
            (plan(&[], &["192.0.0.0/8"]), &["[2001:db8::1]:15001"]),
            (plan(&[], &["0.0.0.0/0", "::/0"]), &[]),
        ];
        for (plan, expected) in rows {
            let shown: Vec<_> = targets(&plan).map(|target| target.to_string()).collect();
            assert_eq!(shown, expected);
        }
    }
}
