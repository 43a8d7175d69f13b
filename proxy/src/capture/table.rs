//! Puts the rules into the kernel, takes them out, and looks whether they are there.
//!
//! All in one transaction: the old table goes and the new one comes, or nothing changes. Needs `NET_ADMIN`.

use std::io;

use super::{
    Error,
    netlink::{
        Attributes, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, Refusal,
        Socket, attribute, message, says_the_same,
    },
    plan::Plan,
    ruleset::{Chain, Rule, chains},
};

/// The table's name, in the `inet` family: IPv4 and IPv6 at once.
pub const TABLE: &str = "ringmail";

/// A list that changes while it is read is read again this often.
const READ_TRIES: usize = 5;

const NFPROTO_INET: u8 = 1;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NF_ACCEPT: u32 = 1;

/// Messages of nf_tables, and the attributes of the objects in them.
mod nft {
    pub(super) const NEWTABLE: u16 = 0;
    pub(super) const GETTABLE: u16 = 1;
    pub(super) const DELTABLE: u16 = 2;
    pub(super) const NEWCHAIN: u16 = 3;
    pub(super) const GETCHAIN: u16 = 4;
    pub(super) const NEWRULE: u16 = 6;
    pub(super) const GETRULE: u16 = 7;

    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const TABLE_FLAGS: u16 = 2;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    pub(super) const RULE_TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const RULE_USERDATA: u16 = 7;
}

/// Programs `plan`, in place of whatever an earlier plan left.
pub fn apply(plan: &Plan) -> Result<(), Error> {
    let mut batch = Batch::clear();
    batch.push(
        nft::NEWTABLE,
        NLM_F_CREATE,
        &table(),
        format!("table {TABLE}"),
    );
    for chain in chains(plan) {
        batch.push(
            nft::NEWCHAIN,
            NLM_F_CREATE,
            &chain_attributes(&chain),
            format!("chain {}", chain.name),
        );
        for rule in &chain.rules {
            let name = format!("rule {:?} of chain {}", rule.comment, chain.name);
            batch.push(
                nft::NEWRULE,
                NLM_F_CREATE | NLM_F_APPEND,
                &rule_attributes(&chain, rule),
                name,
            );
        }
    }
    batch.execute()
}

/// Removes everything of ours; fine when there is nothing.
pub fn cleanup() -> Result<(), Error> {
    Batch::clear().execute()
}

/// Reads the rules back and compares them, expression by expression: [`Error::NotInForce`] tells what is missing.
pub fn in_force(plan: &Plan) -> Result<(), Error> {
    let mut tries = 1;
    loop {
        match compare(plan) {
            Err(Error::Netlink(error))
                if error.kind() == io::ErrorKind::Interrupted && tries < READ_TRIES =>
            {
                tries += 1
            }
            outcome => return outcome,
        }
    }
}

fn compare(plan: &Plan) -> Result<(), Error> {
    let socket = open()?;
    let found = socket
        .ask(&message(
            kind(nft::GETTABLE),
            NLM_F_REQUEST | NLM_F_ACK,
            1,
            &table(),
        ))
        .map_err(|refusal| missing(refusal, "the table"))?;
    if !found.is_some_and(|found| says_the_same(body(table().as_bytes()), body(&found))) {
        return Err(Error::NotInForce("the table is dormant".into()));
    }
    let list = |what| {
        socket.dump(&message(
            kind(what),
            NLM_F_REQUEST | NLM_F_DUMP,
            1,
            &header(NFPROTO_INET, 0),
        ))
    };
    let chain_list =
        list(nft::GETCHAIN).map_err(|refusal| missing(refusal, "the list of chains"))?;
    let rule_list = list(nft::GETRULE).map_err(|refusal| missing(refusal, "the list of rules"))?;
    for chain in chains(plan) {
        let wanted = chain_attributes(&chain);
        if !chain_list
            .iter()
            .any(|found| says_the_same(body(wanted.as_bytes()), body(found)))
        {
            return Err(Error::NotInForce(format!(
                "chain {} is missing or changed",
                chain.name
            )));
        }
        compare_rules(&chain, &rule_list)?;
    }
    Ok(())
}

fn compare_rules(chain: &Chain, list: &[Vec<u8>]) -> Result<(), Error> {
    let is = |found: &[u8], kind, name: &str| {
        attribute(found, kind)
            .is_some_and(|value| value.strip_suffix(&[0]) == Some(name.as_bytes()))
    };
    let found: Vec<_> = list
        .iter()
        .map(|found| body(found))
        .filter(|found| is(found, nft::RULE_TABLE, TABLE) && is(found, nft::RULE_CHAIN, chain.name))
        .collect();
    if found.len() != chain.rules.len() {
        let problem = format!(
            "chain {} has {} rules, not {}",
            chain.name,
            found.len(),
            chain.rules.len()
        );
        return Err(Error::NotInForce(problem));
    }
    for (rule, found) in chain.rules.iter().zip(found) {
        let wanted = rule_attributes(chain, rule);
        if !says_the_same(body(wanted.as_bytes()), found) {
            return Err(Error::NotInForce(format!(
                "rule {:?} of chain {} has changed",
                rule.comment, chain.name
            )));
        }
    }
    Ok(())
}

/// A transaction: messages, each with the name of what it makes for the error that may come of it.
struct Batch {
    bytes: Vec<u8>,
    names: Vec<String>,
    last_start: usize,
}

impl Batch {
    /// One that begins with removing our table: making it first makes removal right in either case.
    fn clear() -> Self {
        let subsystem = header(0, NFNL_SUBSYS_NFTABLES);
        let begin = message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, &subsystem);
        let mut batch = Self {
            bytes: begin,
            names: vec!["the transaction".into()],
            last_start: 0,
        };
        batch.push(
            nft::NEWTABLE,
            NLM_F_CREATE,
            &table(),
            format!("table {TABLE}"),
        );
        batch.push(nft::DELTABLE, 0, &table(), format!("the old table {TABLE}"));
        batch
    }

    fn push(&mut self, operation: u16, flags: u16, object: &Attributes, name: String) {
        self.last_start = self.bytes.len();
        self.bytes.extend(message(
            kind(operation),
            NLM_F_REQUEST | flags,
            self.next(),
            object,
        ));
        self.names.push(name);
    }

    /// A message's sequence number is its place in `names`.
    fn next(&self) -> u32 {
        u32::try_from(self.names.len()).expect("a plan makes a few hundred rules at most")
    }

    /// Commits. The kernel acknowledges the last object only, and reports a refusal of any before that.
    fn execute(mut self) -> Result<(), Error> {
        let flags_at = self.last_start + 6;
        let flags = [self.bytes[flags_at], self.bytes[flags_at + 1]];
        self.bytes[flags_at..flags_at + 2]
            .copy_from_slice(&(u16::from_ne_bytes(flags) | NLM_F_ACK).to_ne_bytes());
        let end = message(
            NFNL_MSG_BATCH_END,
            NLM_F_REQUEST,
            self.next(),
            &header(0, NFNL_SUBSYS_NFTABLES),
        );
        let last = self.next() - 1;
        self.bytes.extend(end);
        open()?
            .execute(&self.bytes, last)
            .map_err(|refusal| self.explain(refusal))
    }

    fn explain(&self, refusal: Refusal) -> Error {
        let Some(sequence) = refusal.sequence else {
            return Error::Netlink(refusal.error);
        };
        if refusal.error.kind() == io::ErrorKind::PermissionDenied {
            return Error::NotPermitted;
        }
        let name = usize::try_from(sequence)
            .ok()
            .and_then(|place| self.names.get(place));
        Error::Refused {
            object: name.cloned().unwrap_or_else(|| "an unknown object".into()),
            source: refusal.error,
        }
    }
}

fn open() -> Result<Socket, Error> {
    Socket::open(Some(rustix::net::netlink::NETFILTER)).map_err(Error::Netlink)
}

/// Why a list cannot be had: the kernel's answer, or it is not there.
fn missing(refusal: Refusal, what: &str) -> Error {
    match refusal.error.kind() {
        io::ErrorKind::NotFound => Error::NotInForce(format!("{what} is missing")),
        io::ErrorKind::PermissionDenied => Error::NotPermitted,
        _ => Error::Netlink(refusal.error),
    }
}

fn kind(operation: u16) -> u16 {
    (NFNL_SUBSYS_NFTABLES << 8) | operation
}

/// `struct nfgenmsg`: family, version 0, resource.
fn header(family: u8, resource: u16) -> Attributes {
    let [high, low] = resource.to_be_bytes();
    Attributes::after(&[family, 0, high, low])
}

/// A message's attributes, behind its `struct nfgenmsg`.
fn body(payload: &[u8]) -> &[u8] {
    payload.get(4..).unwrap_or_default()
}

fn table() -> Attributes {
    header(NFPROTO_INET, 0)
        .text(nft::TABLE_NAME, TABLE)
        .be32(nft::TABLE_FLAGS, 0)
}

fn chain_attributes(chain: &Chain) -> Attributes {
    let hook = Attributes::default()
        .be32(nft::HOOK_NUMBER, chain.hook as u32)
        .be32(nft::HOOK_PRIORITY, chain.priority.cast_unsigned());
    header(NFPROTO_INET, 0)
        .text(nft::CHAIN_TABLE, TABLE)
        .text(nft::CHAIN_NAME, chain.name)
        .nest(nft::CHAIN_HOOK, &hook)
        .be32(nft::CHAIN_POLICY, NF_ACCEPT)
        .text(nft::CHAIN_TYPE, chain.kind)
}

fn rule_attributes(chain: &Chain, rule: &Rule) -> Attributes {
    header(NFPROTO_INET, 0)
        .text(nft::RULE_TABLE, TABLE)
        .text(nft::RULE_CHAIN, chain.name)
        .nest(nft::RULE_EXPRESSIONS, rule.expressions.attributes())
        .bytes(nft::RULE_USERDATA, &comment(&rule.comment))
}

/// A comment as `nft` stores it: kind 0, length, text, zero.
fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).expect("comments are made here and short");
    [&[0, length], text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::plan::Settings;

    /// The kernel's refusal of a message is told by what that message makes.
    #[test]
    fn refusals_name_the_object() {
        let plan = Plan::new(Settings {
            exempt_uid: Some(1),
            ..Settings::default()
        })
        .expect("valid settings");
        let mut batch = Batch::clear();
        let chain = &chains(&plan)[0];
        batch.push(
            nft::NEWCHAIN,
            NLM_F_CREATE,
            &chain_attributes(chain),
            "chain output".into(),
        );
        let refusal = |sequence, error: i32| Refusal {
            sequence,
            error: io::Error::from_raw_os_error(error),
        };
        let rows = [
            (refusal(Some(3), 95), "the kernel refused chain output"),
            (refusal(Some(0), 95), "the kernel refused the transaction"),
            (
                refusal(Some(99), 95),
                "the kernel refused an unknown object",
            ),
            (
                refusal(Some(0), 1),
                "not permitted: the NET_ADMIN capability is needed in this network namespace",
            ),
            (refusal(None, 105), "netlink failed"),
        ];
        for (refusal, expected) in rows {
            assert_eq!(batch.explain(refusal).to_string(), expected);
        }
    }
}
