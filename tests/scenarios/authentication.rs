//! JSON web tokens as apps, their clients and an issuer see them. The issuer's keys are where the controller has to fetch
//! them.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Version};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ringmail_tests::apps::{self, BANNER};
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Reply, fetch};
use ringmail_tests::mesh::{Service, ServicePort};
use ringmail_tests::netns::Namespace;
use ringmail_tests::wait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::Scenario;
use crate::raw::{Ending, dial, expect, read_rest};
use crate::shop::{LIMIT, Plan, REFUSALS, Shop, TALK, WEB, play, refusal};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("authentication::tokens_are_verified", tokens_are_verified),
    (
        "authentication::claims_decide_and_reach_the_app",
        claims_decide_and_reach_the_app,
    ),
    (
        "authentication::trailers_are_no_headers",
        trailers_are_no_headers,
    ),
    (
        "authentication::keys_come_change_and_grow_old",
        keys_come_change_and_grow_old,
    ),
    (
        "authentication::what_is_under_way_ends_with_its_token",
        what_is_under_way_ends_with_its_token,
    ),
    (
        "authentication::what_is_not_understood_refuses",
        what_is_not_understood_refuses,
    ),
    (
        "authentication::local_addresses_are_not_dialled",
        local_addresses_are_not_dialled,
    ),
];

const ISSUER: &str = "https://idp.test";

/// A key pair of the issuer's.
struct Key {
    private: EncodingKey,
    public: Jwk,
}

impl Key {
    fn new(id: &str) -> anyhow::Result<Self> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let private = EncodingKey::from_ec_der(pair.serialized_der());
        let mut public = Jwk::from_encoding_key(&private, Algorithm::ES256)?;
        public.common.key_id = Some(id.to_owned());
        Ok(Self { private, public })
    }

    /// A good token that says more.
    fn token(&self, more: &Value) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut claims = json!({"iss": ISSUER, "aud": "shop", "exp": now + 600, "sub": "alice"});
        let more = more.as_object().context("an object")?;
        claims
            .as_object_mut()
            .context("an object")?
            .extend(more.clone());
        let mut header = Header::new(Algorithm::ES256);
        header.kid.clone_from(&self.public.common.key_id);
        Ok(encode(&header, &claims, &self.private)?)
    }

    fn set(&self) -> String {
        json!({ "keys": [self.public] }).to_string()
    }
}

/// Where the keys are: answers with what is there, or hangs up.
#[derive(Clone, Default)]
struct KeyServer(Arc<Mutex<Served>>);

#[derive(Default)]
struct Served {
    keys: Option<String>,
    calls: u32,
}

impl KeyServer {
    fn start(namespace: &Namespace, address: SocketAddr) -> anyhow::Result<Self> {
        let server = Self::default();
        let listener = namespace.run(|| std::net::TcpListener::bind(address))??;
        listener.set_nonblocking(true)?;
        let serving = server.clone();
        namespace.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (mut socket, _) = listener.accept().await?;
                let Some(keys) = serving.called() else {
                    continue;
                };
                let _ = socket.read(&mut [0; 4096]).await;
                let length = keys.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                let _ = socket.write_all((head + &keys).as_bytes()).await;
            }
            #[allow(unreachable_code, reason = "it names the type of the errors above")]
            Ok::<(), std::io::Error>(())
        });
        Ok(server)
    }

    fn called(&self) -> Option<String> {
        let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        served.calls += 1;
        served.keys.clone()
    }

    fn calls(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).calls
    }

    fn serve(&self, keys: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys = keys;
    }
}

/// For all of the namespace, with more fields of its issuer.
fn object(jwks: &str, more: &str) -> String {
    format!(
        "apiVersion: ringmail.io/v1alpha1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: shop}}\nspec:\n  targetRefs: [{{kind: Namespace}}]\n  issuers: [{{issuer: '{ISSUER}', audiences: [shop], jwks: {jwks}, {more}}}]\n"
    )
}

fn inline(key: &Key) -> String {
    format!("{{inline: '{}'}}", key.set())
}

/// What the client is answered with these fields.
fn ask(shop: &Shop<'_>, fields: &[(&str, &str)]) -> anyhow::Result<Reply> {
    let mut request = Request::get("/").header("host", "server");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::default())?;
    Ok(shop.client.namespace.block_on(fetch(WEB, request))??)
}

fn with_token(shop: &Shop<'_>, token: &str) -> anyhow::Result<Reply> {
    ask(shop, &[("authorization", &format!("Bearer {token}"))])
}

fn until_status(shop: &Shop<'_>, token: &str, expected: u16) -> anyhow::Result<()> {
    let status = || with_token(shop, token).map_or(0, |reply| reply.status.as_u16());
    wait::until(LIMIT, || status() == expected)
        .with_context(|| format!("a token is not answered {expected}, but {}", status()))
}

fn tokens_are_verified(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let (key, other) = (Key::new("k")?, Key::new("k")?);
        let good = key.token(&json!({}))?;
        let forged = other.token(&json!({}))?;
        let reply = with_token(shop, &forged)?;
        ensure!(reply.status == 200, "nobody asks for tokens: {reply:?}");
        ensure!(reply.text().contains(&forged), "{reply:?}");

        shop.mesh.put("r", &object(&inline(&key), ""))?;
        until_status(shop, &forged, 401)?;
        until_status(shop, &good, 200)?;
        ensure!(
            !with_token(shop, &good)?.text().contains(&good),
            "it is forwarded"
        );
        ensure!(ask(shop, &[])?.status == 200, "who brings none goes on");

        let bad = [
            forged.clone(),
            key.token(&json!({"aud": "other"}))?,
            key.token(&json!({"iss": "https://other.test"}))?,
            key.token(&json!({"exp": 1}))?,
            key.token(&json!({"exp": null}))?,
            key.token(&json!({"nbf": u32::MAX}))?,
            "x".to_owned(),
        ];
        for token in &bad {
            let reply = with_token(shop, token)?;
            ensure!(reply.status == 401, "{token}: {reply:?}");
            ensure!(refusal(&reply) == Some("token_invalid"), "{reply:?}");
            let challenge = reply.headers.get("www-authenticate");
            let challenge = challenge.and_then(|challenge| challenge.to_str().ok());
            ensure!(
                challenge == Some("Bearer error=\"invalid_token\""),
                "{reply:?}"
            );
        }
        let reply = with_token(shop, &forged)?;
        let decision = reply.headers.get("x-ringmail-decision");
        let decision = decision.context("no decision id")?.to_str()?;
        let line = shop.audited(&[&Plan::default().server], decision)?;
        let log = shop.mesh.proxy_log(&Plan::default().server)?;
        let fields = &line["fields"];
        ensure!(
            fields["policy"] == "shop/r" && fields["by"] == "token" && fields["verdict"] == "deny",
            "{line}"
        );
        let signature = |token: &str| token.rsplit('.').next().unwrap_or_default().to_owned();
        ensure!(!log.contains(&signature(&forged)), "a token in the log");

        let request = Request::post("http://server/")
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {forged}"))
            .body(Full::<Bytes>::default())?;
        let reply: Reply = shop.client.namespace.block_on(fetch(WEB, request))??;
        let status = reply.headers.get("grpc-status");
        let status = status.map(|status| status.as_bytes());
        ensure!(status == Some(b"16"), "{reply:?}");

        shop.mesh
            .put("r", &object(&inline(&key), "forward: true"))?;
        wait::until(LIMIT, || {
            with_token(shop, &good).is_ok_and(|reply| reply.text().contains(&good))
        })
        .context("not forwarded")?;
        shop.wait_server_refusal("token_invalid")
    })
}

fn claims_decide_and_reach_the_app(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let key = Key::new("k")?;
        let more = "claimsToHeaders: [{claim: sub, header: X-User}, {claim: realm.roles, header: x-roles}]";
        shop.mesh.put("r", &object(&inline(&key), more))?;
        until_status(shop, "x", 401)?;
        let admin = key.token(&json!({"realm": {"roles": ["staff", "admin"]}}))?;
        let bearer = format!("Bearer {admin}");
        let spoofed = [("x-user", "root"), ("X_User", "root"), ("X-Roles", "admin")];
        let text = ask(shop, &spoofed)?.text().to_lowercase();
        ensure!(!text.contains("root") && !text.contains("admin"), "{text}");
        let fields = [&spoofed[..], &[("authorization", &bearer)]].concat();
        let text = ask(shop, &fields)?.text().to_lowercase();
        ensure!(
            text.contains("x-user: alice") && !text.contains("root"),
            "{text}"
        );
        ensure!(text.contains("x-roles: staff,admin"), "{text}");

        let policy = "apiVersion: ringmail.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  targetRefs: [{kind: Namespace}]\n  action: allow\n  rules: [{when: {claims: [{name: realm.roles, values: [admin]}]}}]\n";
        shop.mesh.put("p", policy)?;
        let guest = key.token(&json!({"realm": {"roles": ["guest"]}}))?;
        until_status(shop, &guest, 403)?;
        let reply = ask(shop, &[])?;
        ensure!(refusal(&reply) == Some("policy_denied"), "{reply:?}");
        ensure!(with_token(shop, &admin)?.status == 200);
        ensure!(with_token(shop, &admin)?.status == 200, "from memory");
        ensure!(with_token(shop, "x")?.status == 401);

        shop.mesh.remove("r")?;
        until_status(shop, &admin, 403).context("claims that nobody verifies")?;
        shop.mesh.remove("p")?;
        until_status(shop, &admin, 200)?;

        // A token in bytes that are no HTTP would pass for one that was looked at; what is declared to be no HTTP holds none.
        let talks = || {
            dial(&shop.client, TALK)
                .is_ok_and(|mut client| expect(&mut client, BANNER.as_bytes()).is_ok())
        };
        ensure!(talks());
        shop.mesh.put("r", &object(&inline(&key), ""))?;
        wait::until(LIMIT, || !talks()).context("bytes that nobody looks at")?;
        shop.wait_server_refusal("not_http")?;
        let opaque = Plan::default()
            .server
            .annotated("config.ringmail.io/opaque-ports", "7000");
        shop.mesh.put_workload(&shop.server, &opaque)?;
        wait::until(LIMIT, talks).context("what is declared to be no HTTP")
    })
}

/// One service declares that the pod's port speaks HTTP/2, whose apps hear trailers; a client of the other speaks HTTP/1.1.
fn trailers_are_no_headers(bed: Bed) -> anyhow::Result<()> {
    const PORT: u16 = 8081;
    play(bed, &Plan::default(), |shop| {
        apps::serve_web(&shop.server.namespace, "shop", PORT)?;
        let rows = [
            ("declares", Some("kubernetes.io/h2c"), 21),
            ("silent", None, 22),
        ];
        for (name, app_protocol, number) in rows {
            let service = Service {
                namespace: "shop".to_owned(),
                name: name.to_owned(),
                cluster_ips: vec![IpAddr::from([10, 96, 0, number])],
                ports: vec![ServicePort {
                    name: "x".to_owned(),
                    port: 80,
                    target: PORT,
                    app_protocol: app_protocol.map(ToOwned::to_owned),
                }],
            };
            shop.announce(&service, &[(&Plan::default().server, &shop.server)])?;
        }
        let to = SocketAddr::from(([10, 96, 0, 22], 80));
        let echoed = || -> anyhow::Result<String> {
            let mut client = dial(&shop.client, to)?;
            client.write_all(b"POST /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            client.write_all(b"4\r\nsome\r\n0\r\nX-User: root\r\n\r\n")?;
            Ok(read_rest(&mut client).0)
        };
        let text = echoed()?;
        ensure!(
            text.contains("some") && text.contains("root"),
            "no trailers at all: {text}"
        );
        let more = "claimsToHeaders: [{claim: sub, header: x-user}]";
        shop.mesh
            .put("r", &object(&inline(&Key::new("k")?), more))?;
        until_status(shop, "x", 401)?;
        let text = echoed()?;
        ensure!(text.contains("some") && !text.contains("root"), "{text}");
        Ok(())
    })
}

fn keys_come_change_and_grow_old(bed: Bed) -> anyhow::Result<()> {
    let mut plan = Plan::default();
    plan.settings.controller_flags = vec!["--jwks-allow-http".to_owned()];
    play(bed, &plan, |shop| {
        let (first, second) = (Key::new("first")?, Key::new("second")?);
        let (old, new) = (first.token(&json!({}))?, second.token(&json!({}))?);
        let idp = shop.node.pod("idp")?;
        let address = SocketAddr::new(idp.v4.into(), 8000);
        let server = KeyServer::start(&idp.namespace, address)?;
        let uri = format!("{{uri: 'http://{address}/keys'}}");
        shop.mesh.put("r", &object(&uri, "jwksMaxAge: 10s"))?;
        until_status(shop, &old, 401).context("keys that nobody has")?;
        server.serve(Some(first.set()));
        until_status(shop, &old, 200)?;
        ensure!(with_token(shop, &new)?.status == 401);

        server.serve(Some(second.set()));
        until_status(shop, &new, 200).context("after the rotation")?;
        ensure!(
            with_token(shop, &old)?.status == 401,
            "the key before is gone"
        );

        server.serve(None);
        let before = server.calls();
        wait::until(LIMIT, || server.calls() >= before + 2)?;
        ensure!(with_token(shop, &new)?.status == 200, "not too old yet");
        until_status(shop, &new, 401).context("too old")?;
        ensure!(ask(shop, &[])?.status == 200, "who brings none goes on");
        let status = shop.mesh.controller_page("/status")?.text();
        ensure!(
            status.contains("no token of their issuer is good"),
            "{status}"
        );
        server.serve(Some(second.set()));
        until_status(shop, &new, 200)?;

        // A controller that starts anew, and cannot fetch them, does not say that there are none.
        server.serve(None);
        shop.mesh.kill_controller();
        let is_connected =
            |shop: &Shop<'_>| shop.server_metric("ringmail_control_connected", &[]) > 0.0;
        wait::until(LIMIT, || !is_connected(shop))?;
        shop.mesh.start_controller()?;
        wait::until(LIMIT, || {
            let is_told = is_connected(shop);
            let status = with_token(shop, &new).map_or(0, |reply| reply.status.as_u16());
            assert_eq!(status, 200, "with the controller's word or without");
            is_told
        })?;
        ensure!(with_token(shop, &new)?.status == 200);
        until_status(shop, &new, 401).context("too old by now")?;
        server.serve(Some(second.set()));
        until_status(shop, &new, 200)
    })
}

/// An upload of the client's with a token, of which the last byte is missing.
fn upload(shop: &Shop<'_>, token: &str) -> anyhow::Result<TcpStream> {
    let judged = || shop.server_metric("ringmail_authorizations_total", &[("verdict", "allow")]);
    let before = judged();
    let mut client = dial(&shop.client, WEB)?;
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n";
    client.write_all(format!("{head}Authorization: Bearer {token}\r\n\r\nsome").as_bytes())?;
    wait::until(LIMIT, || judged() > before).context("it was not judged")?;
    Ok(client)
}

fn what_is_under_way_ends_with_its_token(bed: Bed) -> anyhow::Result<()> {
    /// By which clocks may differ.
    const LEEWAY_SECONDS: u64 = 60;
    play(bed, &Plan::default(), |shop| {
        let (key, other) = (Key::new("k")?, Key::new("other")?);
        let both = json!({ "keys": [key.public, other.public] }).to_string();
        shop.mesh
            .put("r", &object(&format!("{{inline: '{both}'}}"), ""))?;
        until_status(shop, "x", 401)?;
        let mut lasting = upload(shop, &other.token(&json!({}))?)?;

        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let soon = key.token(&json!({"exp": now + 4 - LEEWAY_SECONDS}))?;
        let mut expiring = upload(shop, &soon)?;
        let is_cut = |heard: &str| heard.is_empty() || heard.contains("token_invalid");
        let (heard, ending) = read_rest(&mut expiring);
        ensure!(
            is_cut(&heard) && ending != Ending::Open,
            "its time is over: {heard}"
        );
        let then = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        ensure!((now + 4..now + 8).contains(&then), "after {} s", then - now);

        // The key was stolen.
        let mut stolen = upload(shop, &key.token(&json!({}))?)?;
        shop.mesh.put("r", &object(&inline(&other), ""))?;
        let (heard, ending) = read_rest(&mut stolen);
        ensure!(
            is_cut(&heard) && ending != Ending::Open,
            "its key is gone: {heard}"
        );
        let refused = [("direction", "inbound"), ("reason", "token_invalid")];
        let cut = || shop.server_metric(REFUSALS, &refused);
        wait::until(LIMIT, || cut() >= 3.0).with_context(|| format!("{} were cut", cut()))?;

        lasting.write_all(b"!")?;
        let (heard, _) = read_rest(&mut lasting);
        ensure!(
            heard.contains("200 OK") && heard.ends_with("some!"),
            "{heard}"
        );
        // Nor for somebody else, or not at all.
        let mut elsewhere = upload(shop, &other.token(&json!({}))?)?;
        let object = object(&inline(&other), "").replace("audiences: [shop]", "audiences: [bank]");
        shop.mesh.put("r", &object)?;
        let (heard, ending) = read_rest(&mut elsewhere);
        ensure!(
            is_cut(&heard) && ending != Ending::Open,
            "it is for others: {heard}"
        );
        Ok(())
    })
}

fn what_is_not_understood_refuses(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let key = Key::new("k")?;
        ensure!(ask(shop, &[])?.status == 200);
        shop.mesh
            .put("r", &object(&inline(&key), "weather: fine"))?;
        let status = || ask(shop, &[]).map_or(0, |reply| reply.status.as_u16());
        wait::until(LIMIT, || status() == 401).context("a field that nobody knows")?;
        shop.mesh.put("r", &object(&inline(&key), ""))?;
        wait::until(LIMIT, || status() == 200)
    })
}

fn local_addresses_are_not_dialled(bed: Bed) -> anyhow::Result<()> {
    let mut plan = Plan::default();
    plan.settings.controller_flags = vec!["--jwks-allow-http".to_owned()];
    play(bed, &plan, |shop| {
        let key = Key::new("k")?;
        let token = key.token(&json!({}))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
        let server = KeyServer::start(&shop.node.namespace, address)?;
        server.serve(Some(key.set()));
        let at = |host: &str| object(&format!("{{uri: 'http://{host}:8000/keys'}}"), "");
        for host in ["127.0.0.1", "[::ffff:127.0.0.1]"] {
            shop.mesh.put("r", &at(host))?;
            wait::until(LIMIT, || {
                let page = shop.mesh.controller_page("/status");
                page.is_ok_and(|page| {
                    let text = page.text();
                    text.contains(host) && text.contains("are not dialled")
                })
            })
            .with_context(|| format!("{host} is not refused"))?;
            until_status(shop, &token, 401)?;
        }
        ensure!(server.calls() == 0, "somebody asked");
        shop.mesh.kill_controller();
        Ok(())
    })
}
