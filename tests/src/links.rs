//! Links, addresses and routes: just those that the bed needs, over rtnetlink. Numbers from `linux/rtnetlink.h`,
//! `linux/if_link.h` and `linux/ethtool_netlink.h`.
//!
//! Works on the network namespace of the thread that calls.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use anyhow::Context;
use nix::net::if_::if_nametoindex;
use ringmail_proxy::capture::netlink::{
    Attributes, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Refusal, Socket, attribute,
    message,
};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFF_UP: u32 = 1;
const IFF_PROMISC: u32 = 0x100;

/// A bridge without an address of its own takes the lowest of its ports', so that it would change with each pod that
/// comes, and be out of reach until the others have forgotten the old one.
const BRIDGE_ADDRESS: [u8; 6] = [2, 0x77, 0, 1, 0, 0];

/// Makes a bridge and brings it up, showing every frame to packet sockets.
pub(crate) fn bridge(name: &str) -> anyhow::Result<()> {
    let info = Attributes::default().text(IFLA_INFO_KIND, "bridge");
    let link = link_header(0, 0)
        .text(IFLA_IFNAME, name)
        .bytes(IFLA_ADDRESS, &BRIDGE_ADDRESS)
        .nest(IFLA_LINKINFO, &info);
    request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link)
        .with_context(|| format!("bridge {name}"))?;
    up(name, IFF_PROMISC)
}

/// Makes two ends of a cable; the peer goes to another namespace if one is given, with a hardware address made from the
/// pod's number: neighbours know a pod that takes over an address at once.
pub(crate) fn veth(
    name: &str,
    peer: &str,
    pod: Option<(BorrowedFd<'_>, u16)>,
) -> anyhow::Result<()> {
    let mut peer_link = link_header(0, 0).text(IFLA_IFNAME, peer);
    if let Some((namespace, number)) = pod {
        let [high, low] = number.to_be_bytes();
        peer_link = peer_link
            .bytes(IFLA_ADDRESS, &[2, 0x77, 0, 0, high, low])
            .bytes(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    }
    let data = Attributes::default().nest(VETH_INFO_PEER, &peer_link);
    let info = Attributes::default()
        .text(IFLA_INFO_KIND, "veth")
        .nest(IFLA_INFO_DATA, &data);
    let link = link_header(0, 0)
        .text(IFLA_IFNAME, name)
        .nest(IFLA_LINKINFO, &info);
    request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link)
        .with_context(|| format!("veth {name} to {peer}"))
}

/// Makes `name` a port of the bridge `master`.
pub(crate) fn enslave(name: &str, master: &str) -> anyhow::Result<()> {
    let link = link_header(index(name)?, 0).bytes(IFLA_MASTER, &index(master)?.to_ne_bytes());
    request(RTM_NEWLINK, 0, &link).with_context(|| format!("{name} as a port of {master}"))
}

/// Brings a link up, without link-local addresses: nothing is said on the wire but what tests say.
pub(crate) fn up(name: &str, more_flags: u32) -> anyhow::Result<()> {
    const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
    const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
    const AF_INET6: u16 = 10;
    let index = index(name)?;
    let inet6 = Attributes::default().bytes(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    let quiet =
        link_header(index, 0).nest(IFLA_AF_SPEC, &Attributes::default().nest(AF_INET6, &inet6));
    if name != "lo" {
        request(RTM_NEWLINK, 0, &quiet)
            .with_context(|| format!("{name} without link-local addresses"))?;
    }
    request(RTM_NEWLINK, 0, &link_header(index, IFF_UP | more_flags))
        .with_context(|| format!("{name} up"))
}

/// Adds an address, usable at once (no duplicate address detection).
pub(crate) fn address(name: &str, address: IpAddr, prefix: u8) -> anyhow::Result<()> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_F_NODAD: u8 = 2;
    let mut header = vec![family(address), prefix, IFA_F_NODAD, 0];
    header.extend(index(name)?.to_ne_bytes());
    let bytes = octets(address);
    let payload = Attributes::after(&header)
        .bytes(IFA_LOCAL, &bytes)
        .bytes(IFA_ADDRESS, &bytes);
    request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &payload)
        .with_context(|| format!("{address} on {name}"))
}

/// Sends what has no other way to `gateway`.
pub(crate) fn default_route(gateway: IpAddr) -> anyhow::Result<()> {
    const RTA_GATEWAY: u16 = 5;
    const RT_TABLE_MAIN: u8 = 254;
    const RTPROT_STATIC: u8 = 4;
    const RTN_UNICAST: u8 = 1;
    let header = [
        family(gateway),
        0,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        0,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let payload = Attributes::after(&header).bytes(RTA_GATEWAY, &octets(gateway));
    request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &payload)
        .with_context(|| format!("default route by {gateway}"))
}

/// Makes a link send frames as they are on a real wire, checksums made and nothing longer than its MTU, so that a
/// relay in user space can pass them on.
pub(crate) fn no_offload(name: &str) -> anyhow::Result<()> {
    const GENL_ID_CTRL: u16 = 16;
    const CTRL_CMD_GETFAMILY: u8 = 3;
    const CTRL_ATTR_FAMILY_ID: u16 = 1;
    const CTRL_ATTR_FAMILY_NAME: u16 = 2;
    const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
    let socket = Socket::open(Some(rustix::net::netlink::GENERIC))?;
    let family =
        Attributes::after(&[CTRL_CMD_GETFAMILY, 1, 0, 0]).text(CTRL_ATTR_FAMILY_NAME, "ethtool");
    let found = socket
        .ask(&message(
            GENL_ID_CTRL,
            NLM_F_REQUEST | NLM_F_ACK,
            1,
            &family,
        ))
        .map_err(refused)?;
    let family = found
        .as_deref()
        .and_then(|found| attribute(found.get(4..)?, CTRL_ATTR_FAMILY_ID)?.first_chunk())
        .map(|id| u16::from_ne_bytes(*id))
        .context("no ethtool netlink family in this kernel")?;

    let device = Attributes::default().bytes(1, &index(name)?.to_ne_bytes());
    let off = |feature| Attributes::default().text(2, feature);
    let bits = Attributes::default()
        .nest(1, &off("tx-checksum-ip-generic"))
        .nest(1, &off("tx-generic-segmentation"));
    let wanted = Attributes::default().nest(3, &bits);
    let payload = Attributes::after(&[ETHTOOL_MSG_FEATURES_SET, 1, 0, 0])
        .nest(1, &device)
        .nest(3, &wanted);
    socket
        .ask(&message(family, NLM_F_REQUEST | NLM_F_ACK, 2, &payload))
        .map_err(refused)
        .with_context(|| format!("{name} without offload"))?;
    Ok(())
}

fn request(kind: u16, flags: u16, payload: &Attributes) -> io::Result<()> {
    let message = message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, 1, payload);
    Socket::open(None)?.execute(&message, 1).map_err(refused)
}

fn refused(refusal: Refusal) -> io::Error {
    refusal.error
}

/// `struct ifinfomsg`, with flags to set.
fn link_header(index: u32, flags: u32) -> Attributes {
    let mut header = vec![0; 4];
    for field in [index, flags, flags] {
        header.extend(field.to_ne_bytes());
    }
    Attributes::after(&header)
}

pub(crate) fn index(name: &str) -> anyhow::Result<u32> {
    if_nametoindex(name).with_context(|| format!("there is no link {name}"))
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
