//! Heads as a browser and an app write them, bodies, and a service with routes.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringmail_proto::destination::{Service, Timeouts};
use ringmail_proto::identity::{SpiffeId, WorkloadName};
use ringmail_proto::pb;
use ringmail_proto::policy::{Asked, Authorizer, Caller, Http};
use ringmail_proto::route::Routes;
use ringmail_proxy::bench;

const REQUEST: &str = "GET /api/v1/carts/42?fields=items,total HTTP/1.1\r\nHost: cart.shop.svc.cluster.local:8080\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)\r\nAccept: application/json\r\nAccept-Encoding: gzip, br\r\n\
Accept-Language: en-GB,en;q=0.5\r\nCookie: session=0123456789abcdef0123456789abcdef\r\nX-Request-Id: 6f1c0f0a\r\n\
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nConnection: keep-alive\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nServer: app\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n\
Content-Length: 512\r\nCache-Control: no-store\r\nVary: Accept-Encoding\r\nETag: \"0123456789abcdef\"\r\n\r\n";

/// What cases work on.
pub(crate) struct Material {
    pub(crate) request: Vec<u8>,
    /// Its path is not in normal form.
    pub(crate) odd_request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    pub(crate) neutral_request: Vec<u8>,
    pub(crate) neutral_response: Vec<u8>,
    pub(crate) h2_request: Vec<u8>,
    /// The same by the table of `h2_blocks`, but for what has no entry there.
    pub(crate) h2_indices: Vec<u8>,
    pub(crate) h2_response: Vec<u8>,
    pub(crate) h2_blocks: RefCell<bench::H2Blocks>,
    /// 16 KiB that are no HTTP.
    pub(crate) bytes: Vec<u8>,
    /// The same in chunks of 1 KiB.
    pub(crate) chunks: Vec<u8>,
    /// 64 frames of 100 bytes.
    pub(crate) frames: Vec<u8>,
    pub(crate) plain: Service,
    /// The last of 16 rules matches.
    pub(crate) routed: Service,
    pub(crate) costs: Vec<f64>,
    /// Of 1, 10, 100, 1 000 and 10 000 rules.
    pub(crate) authorizers: Vec<Authorizer>,
    /// With no limit, and with one that has tokens.
    pub(crate) unlimited: bench::Limited,
    pub(crate) limited: bench::Limited,
    pub(crate) counted: bench::Counted,
    /// Without records, with an access log, and with a collector of traces.
    pub(crate) unrecorded: bench::Recorded,
    pub(crate) logged: bench::Recorded,
    pub(crate) traced: bench::Recorded,
    /// Of a request that took 3 ms.
    pub(crate) begun: Instant,
    pub(crate) answered: Instant,
    caller: SpiffeId,
}

impl Material {
    /// What the last rule of each authorizer allows.
    pub(crate) fn asked(&self) -> Asked<'_, [(&'static [u8], &'static [u8]); 2]> {
        Asked {
            caller: Caller {
                identity: Some(&self.caller),
                address: IpAddr::from([10, 1, 2, 3]),
            },
            port: 8080,
            http: Some(Http {
                method: "GET",
                path: "/api/v1/carts/42",
                host: Some("cart.shop.svc.cluster.local:8080"),
                fields: [(b"accept", b"application/json"), (b"x-team", b"red")],
                claims: None,
            }),
        }
    }
}

/// So many rules, in policies of at most 500: each for a caller and a path of its own, the last for what is asked.
fn authorizer(rules: usize) -> anyhow::Result<Authorizer> {
    use pb::condition::Kind;
    let all = |kinds: Vec<Kind>| pb::Conditions {
        all: kinds
            .into_iter()
            .map(|kind| pb::Condition { kind: Some(kind) })
            .collect(),
    };
    let rule = |n: usize| {
        let is_last = n + 1 == rules;
        let account = if is_last {
            "web".to_owned()
        } else {
            format!("client-{}", n % 100)
        };
        let path = if is_last {
            "/api/v1/carts".to_owned()
        } else {
            format!("/api/v1/resource-{n}")
        };
        let names = |one: &str| pb::NameSet {
            any: vec![one.to_owned()],
        };
        let prefix = pb::PathTemplate {
            kind: Some(pb::path_template::Kind::Prefix(path)),
        };
        pb::AuthorizationRule {
            from: vec![all(vec![Kind::ServiceAccounts(names(&format!(
                "shop/{account}"
            )))])],
            to: vec![all(vec![
                Kind::Methods(names("GET")),
                Kind::Paths(pb::PathSet { any: vec![prefix] }),
            ])],
            when: Vec::new(),
        }
    };
    let all: Vec<_> = (0..rules).map(rule).collect();
    let policies = all
        .chunks(500)
        .enumerate()
        .map(|(n, rules)| pb::AuthorizationPolicy {
            name: format!("shop/policy-{n}"),
            action: pb::PolicyAction::Allow.into(),
            mode: pb::PolicyMode::Enforce.into(),
            ports: vec![8080],
            rules: rules.to_vec(),
            external: None,
        });
    let wire = pb::Authorization {
        posture: pb::Posture::Deny.into(),
        cluster_networks: Vec::new(),
        policies: policies.collect(),
        authentications: Vec::new(),
        limits: Vec::new(),
    };
    Ok(Authorizer::new(wire.try_into()?))
}

/// So many limits, each with one bucket.
fn recorded(variables: &[(&str, &str)]) -> anyhow::Result<bench::Recorded> {
    bench::Recorded::new(variables).context("records")
}

fn limited(limits: usize) -> anyhow::Result<bench::Limited> {
    let limit = |n: usize| pb::RateLimit {
        name: format!("shop/calls/{n}"),
        mode: pb::PolicyMode::Enforce.into(),
        counts: pb::LimitCounts::Requests.into(),
        rate: Some(pb::LimitRate {
            tokens: 1000,
            period_seconds: 1,
            burst: 1000,
        }),
        scope: pb::LimitScope::Global.into(),
        on_unavailable: pb::LimitUnavailable::LocalShare.into(),
        ..pb::RateLimit::default()
    };
    let wire = pb::Authorization {
        posture: pb::Posture::Deny.into(),
        limits: (0..limits).map(limit).collect(),
        ..pb::Authorization::default()
    };
    bench::Limited::new(wire).context("limits")
}

pub(crate) fn make() -> anyhow::Result<Material> {
    let (mut neutral_request, mut neutral_response) = (Vec::new(), Vec::new());
    bench::h1_request(REQUEST.as_bytes(), &mut neutral_request).context("the request")?;
    bench::h1_response(RESPONSE.as_bytes(), &mut neutral_response).context("the response")?;
    let (mut h2_request, mut h2_response) = (Vec::new(), Vec::new());
    bench::h2_request_block(&neutral_request, &mut h2_request).context("the request")?;
    bench::h2_response_block(&neutral_response, &mut h2_response).context("the response")?;
    let mut h2_blocks = bench::H2Blocks::default();
    let h2_indices = indices(&mut h2_blocks, &h2_request).context("the request")?;
    let bytes = vec![0x16; 16 * 1024];
    let mut chunks = Vec::new();
    for data in bytes.chunks(1024) {
        bench::put_chunk(data, &mut chunks).context("a chunk")?;
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    let mut frames = Vec::new();
    for stream in 1..=64 {
        bench::put_data(&mut frames, stream, &bytes[..100]).expect("a small one");
    }
    let now = Instant::now();
    Ok(Material {
        request: REQUEST.into(),
        odd_request: REQUEST.replace("/api/v1/", "/api//./%76%31/x/../").into(),
        response: RESPONSE.into(),
        h2_request,
        h2_indices,
        h2_response,
        h2_blocks: RefCell::new(h2_blocks),
        neutral_request,
        neutral_response,
        bytes,
        chunks,
        frames,
        plain: named("cart")?,
        routed: routed()?,
        costs: (0..100_u8).map(f64::from).collect(),
        authorizers: [1, 10, 100, 1_000, 10_000]
            .map(authorizer)
            .into_iter()
            .collect::<Result<_, _>>()?,
        unlimited: limited(0)?,
        limited: limited(1)?,
        counted: bench::Counted::new().context("a peer")?,
        unrecorded: recorded(&[])?,
        logged: recorded(&[("RINGMAIL_ACCESS_LOG", "json")])?,
        traced: recorded(&[("RINGMAIL_OTLP_ENDPOINT", "http://otel:4317")])?,
        begun: now,
        answered: now + Duration::from_millis(3),
        caller: "spiffe://cluster.local/ns/shop/sa/web".parse()?,
    })
}

/// Has the table remember each literal of a block, and makes the block that says the same (RFC 7541 section 6).
fn indices(blocks: &mut bench::H2Blocks, literals: &[u8]) -> Option<Vec<u8>> {
    let (mut learning, mut entries, mut indices) = (Vec::new(), 0, Vec::new());
    let mut rest = literals;
    while let [first, after @ ..] = rest {
        if *first & 0x80 != 0 {
            learning.push(*first);
            indices.push(*first);
            rest = after;
            continue;
        }
        // A literal whose name is an entry, or a string; all lengths are below 127.
        let (index, index_bytes) = match first & 0x0f {
            0x0f => (0x0f + *after.first()?, 2),
            index => (index, 1),
        };
        let name_bytes = match index {
            0 => 1 + usize::from(*after.first()?),
            _ => 0,
        };
        let value_bytes = 1 + usize::from(*rest.get(index_bytes + name_bytes)?);
        let (literal, after) = rest.split_at_checked(index_bytes + name_bytes + value_bytes)?;
        learning.push(0x40 | index);
        learning.extend_from_slice(&literal[index_bytes..]);
        entries += 1;
        indices.push(0);
        rest = after;
    }
    // The newest entry is the first behind the static table.
    for place in indices.iter_mut().filter(|place| **place == 0) {
        entries -= 1;
        *place = 0x80 | (62 + entries);
    }
    blocks.request(&learning)?;
    Some(indices)
}

fn named(name: &str) -> anyhow::Result<Service> {
    Ok(Service {
        name: WorkloadName::new("shop", name)?,
        port: 8080,
        protocol: ringmail_proto::workload::Protocol::Http1,
        endpoints: Vec::new(),
        routes: None,
        backends: Vec::new(),
        timeouts: Timeouts::default(),
    })
}

/// Fifteen rules for other paths, and one for what is asked.
fn routed() -> anyhow::Result<Service> {
    let path = |rule: u32| match rule {
        15 => "/api".to_owned(),
        rule => format!("/api/v1/orders/{rule}"),
    };
    let matched = |rule: u32| pb::RouteMatch {
        path: Some(pb::PathMatch {
            kind: Some(pb::path_match::Kind::Prefix(path(rule))),
        }),
        rule,
        ..pb::RouteMatch::default()
    };
    let rule = pb::RouteRule {
        backends: vec![pb::WeightedBackend {
            weight: 1,
            backend: Some(0),
            ..pb::WeightedBackend::default()
        }],
        ..pb::RouteRule::default()
    };
    let wire = pb::Routes {
        matches: (0..16).map(matched).collect(),
        rules: vec![rule; 16],
        ..pb::Routes::default()
    };
    Ok(Service {
        routes: Some(Arc::new(Routes::from_wire(wire, 1)?)),
        backends: vec![Arc::new(named("backend")?)],
        ..named("front")?
    })
}
