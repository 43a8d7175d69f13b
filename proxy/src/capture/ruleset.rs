//! The rules of a plan: one table, three chains. Pure.
//!
//! Every verdict is either "leave the packet alone" or "redirect"; the first that fits ends the chain. A connection
//! is only ever redirected to this pod itself: where nobody listens yet it is refused, it never leaves in plaintext.
//!
//! The exempt user's and mark's connections are left alone save those to the probe addresses: these
//! take the way of the app's, so the proxy can see at any time, without privileges, that its rules hold.

use std::net::IpAddr;

use super::{
    expression::{Expressions, Is, Meta, Side, Verdict},
    plan::{Direction, Plan},
    probe::PROBE_ADDRESSES,
};

/// The interface number of `lo`, in every network namespace.
const LOOPBACK: u32 = 1;

/// `NF_IP_PRI_NAT_DST` of Linux: destinations are rewritten here.
const PRIORITY_NAT_DESTINATION: i32 = -100;

/// `NF_IP_PRI_FILTER` of Linux.
const PRIORITY_FILTER: i32 = 0;

/// Where in a packet's way a chain stands; the numbers are those of `enum nf_inet_hooks`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hook {
    Prerouting = 0,
    Input = 1,
    Output = 3,
}

#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) hook: Hook,
    pub(super) priority: i32,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(super) struct Rule {
    /// Shown by `nft list ruleset`, and in errors.
    pub(super) comment: String,
    pub(super) expressions: Expressions,
}

fn rule(comment: impl Into<String>, expressions: Expressions) -> Rule {
    Rule {
        comment: comment.into(),
        expressions,
    }
}

/// All chains of `plan`.
pub(super) fn chains(plan: &Plan) -> [Chain; 3] {
    [
        Chain {
            name: "output",
            kind: "nat",
            hook: Hook::Output,
            priority: PRIORITY_NAT_DESTINATION,
            rules: outbound(plan),
        },
        Chain {
            name: "prerouting",
            kind: "nat",
            hook: Hook::Prerouting,
            priority: PRIORITY_NAT_DESTINATION,
            rules: inbound(plan),
        },
        Chain {
            name: "input",
            kind: "filter",
            hook: Hook::Input,
            priority: PRIORITY_FILTER,
            rules: vec![invalid()],
        },
    ]
}

fn outbound(plan: &Plan) -> Vec<Rule> {
    let exempt_uid = plan
        .exempt_uid
        .map(|uid| (Meta::SocketUid, uid, format!("the proxy's user {uid}")));
    let exempt_mark = plan
        .exempt_mark
        .map(|mark| (Meta::Mark, mark, format!("the proxy's mark {mark}")));
    let mut rules = Vec::new();
    for (key, value, who) in exempt_uid.into_iter().chain(exempt_mark) {
        for probe in PROBE_ADDRESSES {
            rules.push(rule(
                format!("{who}, {}, but its probes", version(probe)),
                exempt(key, value, probe),
            ));
        }
    }
    let to_itself = Expressions::default().meta(Meta::OutputInterface, Is::Equal, LOOPBACK);
    rules.push(rule(
        "to the pod itself",
        to_itself.verdict(Verdict::Return),
    ));
    rules.extend(skips(&plan.outbound, Side::Destination));
    rules.push(rule(
        "to the proxy",
        Expressions::default().tcp().redirect(plan.outbound.port),
    ));
    rules
}

fn inbound(plan: &Plan) -> Vec<Rule> {
    let from_itself = Expressions::default().meta(Meta::InputInterface, Is::Equal, LOOPBACK);
    let mut rules = vec![rule(
        "from the pod itself",
        from_itself.verdict(Verdict::Return),
    )];
    rules.extend(skips(&plan.inbound, Side::Source));
    rules.push(rule(
        "to the proxy",
        Expressions::default().tcp().redirect(plan.inbound.port),
    ));
    rules
}

fn exempt(key: Meta, value: u32, probe: IpAddr) -> Expressions {
    Expressions::default()
        .meta(key, Is::Equal, value)
        .family_of(probe)
        .address(Side::Destination, Is::Different, probe)
        .verdict(Verdict::Return)
}

/// What a user wants left alone, by port and by the network at the other end.
fn skips(direction: &Direction, side: Side) -> impl Iterator<Item = Rule> {
    let ports = direction.skip_ports.iter().map(|port| {
        rule(
            format!("port {port} is skipped"),
            Expressions::default()
                .tcp_port(*port)
                .verdict(Verdict::Return),
        )
    });
    let networks = direction.skip_networks.iter().map(move |network| {
        let expressions = Expressions::default()
            .network(side, *network)
            .verdict(Verdict::Return);
        rule(format!("network {network} is skipped"), expressions)
    });
    ports.chain(networks)
}

/// A packet that connection tracking cannot place is not translated back, so it would reach a socket that does not
/// exist, and our kernel's RST would end a healthy upload. Dropped, it is sent again.
fn invalid() -> Rule {
    rule(
        "state invalid",
        Expressions::default()
            .tcp()
            .state_invalid()
            .verdict(Verdict::Drop),
    )
}

fn version(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::plan::Settings;

    fn comments(settings: Settings) -> Vec<String> {
        let plan = Plan::new(settings).expect("valid settings");
        let chains = chains(&plan);
        let line = |chain: &Chain, rule: &Rule| format!("{}: {}", chain.name, rule.comment);
        chains
            .iter()
            .flat_map(|chain| chain.rules.iter().map(move |rule| line(chain, rule)))
            .collect()
    }

    #[test]
    fn order_of_rules() {
        let settings = Settings {
            exempt_uid: Some(1337),
            outbound_skip_ports: vec![53],
            outbound_skip_networks: vec!["10.0.0.0/8".parse().expect("a network")],
            inbound_skip_networks: vec!["fd00::/8".parse().expect("a network")],
            ..Settings::default()
        };
        let expected = [
            "output: the proxy's user 1337, IPv4, but its probes",
            "output: the proxy's user 1337, IPv6, but its probes",
            "output: to the pod itself",
            "output: port 53 is skipped",
            "output: network 10.0.0.0/8 is skipped",
            "output: to the proxy",
            "prerouting: from the pod itself",
            "prerouting: port 15008 is skipped",
            "prerouting: port 15020 is skipped",
            "prerouting: network fd00::/8 is skipped",
            "prerouting: to the proxy",
            "input: state invalid",
        ];
        assert_eq!(comments(settings), expected);
    }

    #[test]
    fn user_and_mark_are_both_exempt() {
        let settings = Settings {
            exempt_uid: Some(1),
            exempt_mark: Some(2),
            ..Settings::default()
        };
        let exempt = comments(settings)
            .iter()
            .filter(|comment| comment.contains("but its probes"))
            .count();
        assert_eq!(exempt, 4);
    }
}
