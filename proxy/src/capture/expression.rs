//! nf_tables expressions: the small steps of a rule. Pure; numbers from `linux/netfilter/nf_tables.h`.
//!
//! A rule loads a value into the one register we use, compares it, and goes on only when the comparison holds.

use std::net::IpAddr;

use super::{
    netlink::Attributes,
    plan::{Network, octets},
};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;

const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;

/// Is the value equal to what was asked for, or not?
#[derive(Debug, Clone, Copy)]
pub(super) enum Is {
    Equal = 0,
    Different = 1,
}

/// What ends a rule.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Drop,
    /// Leave the chain: its policy decides, which is always accept.
    Return,
}

/// What is known of a packet without reading it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    Mark = 3,
    InputInterface = 4,
    OutputInterface = 5,
    SocketUid = 10,
    /// IPv4 or IPv6.
    Family = 15,
    /// TCP, UDP or another.
    Protocol = 16,
}

/// Which address of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Source,
    Destination,
}

/// The steps of one rule, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expressions(Attributes);

impl Expressions {
    pub(super) fn attributes(&self) -> &Attributes {
        &self.0
    }

    /// Goes on when the packet's `key` is (not) `value`, a number in the machine's byte order.
    pub(super) fn meta(self, key: Meta, is: Is, value: u32) -> Self {
        self.load_meta(key).compare(is, &value.to_ne_bytes())
    }

    /// Goes on for packets of `address`' family.
    pub(super) fn family_of(self, address: IpAddr) -> Self {
        // NFPROTO_IPV4 and NFPROTO_IPV6.
        let family = if address.is_ipv4() { 2 } else { 10 };
        self.load_meta(Meta::Family).compare(Is::Equal, &[family])
    }

    /// Goes on for TCP.
    pub(super) fn tcp(self) -> Self {
        self.load_meta(Meta::Protocol).compare(Is::Equal, &[6])
    }

    /// Goes on for one TCP destination port.
    pub(super) fn tcp_port(self, port: u16) -> Self {
        const TRANSPORT_HEADER: u32 = 2;
        self.tcp()
            .load_payload(TRANSPORT_HEADER, 2, 2)
            .compare(Is::Equal, &port.to_be_bytes())
    }

    /// Goes on when the address is (not) `address`; the family must have been compared.
    pub(super) fn address(self, side: Side, is: Is, address: IpAddr) -> Self {
        self.load_address(side, address)
            .compare(is, &octets(address))
    }

    /// Goes on when the address is in `network`.
    pub(super) fn network(self, side: Side, network: Network) -> Self {
        let address = network.address();
        self.family_of(address)
            .load_address(side, address)
            .mask(&network.mask())
            .compare(Is::Equal, &octets(address))
    }

    /// Goes on for packets that connection tracking can make nothing of.
    pub(super) fn state_invalid(self) -> Self {
        const NFTA_CT_DREG: u16 = 1;
        const NFTA_CT_KEY: u16 = 2;
        const NFT_CT_STATE: u32 = 0;
        const NF_CT_STATE_INVALID_BIT: u32 = 1;
        let state = Attributes::default()
            .be32(NFTA_CT_DREG, NFT_REG_1)
            .be32(NFTA_CT_KEY, NFT_CT_STATE);
        self.push("ct", &state)
            .mask(&NF_CT_STATE_INVALID_BIT.to_ne_bytes())
            .compare(Is::Different, &0_u32.to_ne_bytes())
    }

    /// Ends the rule.
    pub(super) fn verdict(self, verdict: Verdict) -> Self {
        let code = match verdict {
            Verdict::Drop => 0,
            Verdict::Return => (-5_i32).cast_unsigned(),
        };
        let verdict = Attributes::default().be32(NFTA_VERDICT_CODE, code);
        self.immediate(
            NFT_REG_VERDICT,
            &Attributes::default().nest(NFTA_DATA_VERDICT, &verdict),
        )
    }

    /// Ends the rule: the connection goes to `port` of this machine.
    pub(super) fn redirect(self, port: u16) -> Self {
        const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
        self.immediate(
            NFT_REG_1,
            &Attributes::default().bytes(NFTA_DATA_VALUE, &port.to_be_bytes()),
        )
        .push(
            "redir",
            &Attributes::default().be32(NFTA_REDIR_REG_PROTO_MIN, NFT_REG_1),
        )
    }

    fn load_meta(self, key: Meta) -> Self {
        const NFTA_META_DREG: u16 = 1;
        const NFTA_META_KEY: u16 = 2;
        self.push(
            "meta",
            &Attributes::default()
                .be32(NFTA_META_KEY, key as u32)
                .be32(NFTA_META_DREG, NFT_REG_1),
        )
    }

    fn load_address(self, side: Side, address: IpAddr) -> Self {
        const NETWORK_HEADER: u32 = 1;
        let (offset, length) = match (address, side) {
            (IpAddr::V4(_), Side::Source) => (12, 4),
            (IpAddr::V4(_), Side::Destination) => (16, 4),
            (IpAddr::V6(_), Side::Source) => (8, 16),
            (IpAddr::V6(_), Side::Destination) => (24, 16),
        };
        self.load_payload(NETWORK_HEADER, offset, length)
    }

    fn load_payload(self, base: u32, offset: u32, length: u32) -> Self {
        let load = Attributes::default()
            .be32(1, NFT_REG_1)
            .be32(2, base)
            .be32(3, offset)
            .be32(4, length);
        self.push("payload", &load)
    }

    fn compare(self, is: Is, value: &[u8]) -> Self {
        let value = Attributes::default().bytes(NFTA_DATA_VALUE, value);
        self.push(
            "cmp",
            &Attributes::default()
                .be32(1, NFT_REG_1)
                .be32(2, is as u32)
                .nest(3, &value),
        )
    }

    fn mask(self, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).expect("a mask has at most 16 bytes");
        let value = |bytes: &[u8]| Attributes::default().bytes(NFTA_DATA_VALUE, bytes);
        let step = Attributes::default()
            .be32(1, NFT_REG_1)
            .be32(2, NFT_REG_1)
            .be32(3, length)
            .nest(4, &value(mask))
            .nest(5, &value(&vec![0; mask.len()]));
        self.push("bitwise", &step)
    }

    fn immediate(self, register: u32, data: &Attributes) -> Self {
        self.push(
            "immediate",
            &Attributes::default().be32(1, register).nest(2, data),
        )
    }

    fn push(self, name: &str, data: &Attributes) -> Self {
        let step = Attributes::default()
            .text(NFTA_EXPR_NAME, name)
            .nest(NFTA_EXPR_DATA, data);
        Self(self.0.nest(NFTA_LIST_ELEM, &step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::netlink::{attribute, attributes};

    /// The names of the steps, as `nft --debug=netlink` shows them.
    fn names(expressions: &Expressions) -> Vec<String> {
        attributes(expressions.attributes().as_bytes())
            .map(|(_, step)| attribute(step, NFTA_EXPR_NAME).expect("each step has a name"))
            .map(|name| String::from_utf8_lossy(&name[..name.len() - 1]).into_owned())
            .collect()
    }

    #[test]
    fn steps_of_each_match() {
        let network: Network = "10.0.0.0/8".parse().expect("a network");
        let new = Expressions::default;
        let rows: [(Expressions, &[&str]); 7] = [
            (
                new().meta(Meta::SocketUid, Is::Equal, 1337),
                &["meta", "cmp"],
            ),
            (new().tcp(), &["meta", "cmp"]),
            (new().tcp_port(80), &["meta", "cmp", "payload", "cmp"]),
            (
                new().network(Side::Source, network),
                &["meta", "cmp", "payload", "bitwise", "cmp"],
            ),
            (new().state_invalid(), &["ct", "bitwise", "cmp"]),
            (new().verdict(Verdict::Return), &["immediate"]),
            (new().redirect(15001), &["immediate", "redir"]),
        ];
        for (row, (expressions, expected)) in rows.into_iter().enumerate() {
            assert_eq!(names(&expressions), expected, "row {row}");
        }
    }

    /// Byte for byte what `nft add rule ... meta l4proto tcp` sends, but for the nest flags.
    #[test]
    fn one_rule_as_bytes() {
        let made = Expressions::default().tcp();
        let expected = [
            &[0x24, 0, 1, 0x80, 9, 0, 1, 0][..],
            b"meta\0\0\0\0",
            &[
                0x14, 0, 2, 0x80, 8, 0, 2, 0, 0, 0, 0, 16, 8, 0, 1, 0, 0, 0, 0, 1,
            ],
            &[0x2c, 0, 1, 0x80, 8, 0, 1, 0],
            b"cmp\0",
            &[
                0x20, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 0,
            ],
            &[0x0c, 0, 3, 0x80, 5, 0, 1, 0, 6, 0, 0, 0],
        ]
        .concat();
        if cfg!(target_endian = "little") {
            assert_eq!(made.attributes().as_bytes(), expected);
        }
    }
}
