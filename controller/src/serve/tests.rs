//! The whole controller over loopback, in this process: real TLS, real HTTP/2, real gRPC.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{CertificateParams, KeyPair};
use ringmail_proto::bundle::TrustBundle;
use ringmail_proto::identity::SpiffeId;
use ringmail_proto::pb;
use ringmail_proto::pb::certificate_service_client::CertificateServiceClient;
use ringmail_proto::pb::certify_request::Credential;
use ringmail_proto::pb::discovery_service_client::DiscoveryServiceClient;
use ringmail_proto::pb::resource::Resource;
use ringmail_proto::pb::watch_request::Request as Message;
use ringmail_proto::tls::{ALPN_H2, client_config};
use ringmail_proto::version::Version;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status, Streaming};

use super::*;
use crate::attest::join_token::JoinTokens;
use crate::config::{Config, JwksLocation, JwtTrust};
use crate::run::{Running, start};

const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {ringmail.io/inject: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop}
spec: {serviceAccountName: cart, containers: []}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-2, namespace: shop}
spec: {serviceAccountName: cart, containers: []}
status: {podIP: 10.1.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: pay-1, namespace: shop}
spec: {serviceAccountName: pay, containers: []}
status: {podIP: 10.1.0.3}
";

const NEW_POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: new-1, namespace: shop}
spec: {containers: []}
status: {podIP: 10.1.0.9}
";

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bed {
    dir: tempfile::TempDir,
    config: Config,
    running: Running,
    signer: Signer,
}

/// A JWT issuer.
struct Signer {
    key: EncodingKey,
    jwk: Jwk,
}

impl Signer {
    fn new(id: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let key = EncodingKey::from_ec_der(&key.serialize_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("jwk");
        jwk.common.key_id = Some(id.into());
        Self { key, jwk }
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = self.jwk.common.key_id.clone();
        encode(&header, claims, &self.key).expect("signed")
    }
}

impl Bed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let source_dir = dir.path().join("source");
        std::fs::create_dir(&source_dir).expect("made");
        std::fs::write(source_dir.join("pods.yaml"), PODS).expect("written");
        let signer = Signer::new("one");
        let jwks = dir.path().join("jwks.json");
        let keys = JwkSet {
            keys: vec![signer.jwk.clone()],
        };
        std::fs::write(&jwks, serde_json::to_vec(&keys).expect("JSON")).expect("written");
        let config = Config {
            trust_domain: "mesh.local".parse().expect("domain"),
            source_dir,
            state_dir: dir.path().join("state"),
            listen: ([127, 0, 0, 1], 0).into(),
            metrics_listen: ([127, 0, 0, 1], 0).into(),
            leaf_lifetime: Duration::from_secs(3600),
            given_authority: None,
            jwt: Some(JwtTrust {
                issuer: "https://issuer".into(),
                audience: "ringmail".into(),
                jwks: JwksLocation::File(jwks),
            }),
            drain_timeout: Duration::from_secs(2),
        };
        let running = ready(&config).await;
        Self {
            dir,
            config,
            running,
            signer,
        }
    }

    fn write(&self, name: &str, text: &str) {
        let temporary = self.dir.path().join("new");
        std::fs::write(&temporary, text).expect("written");
        std::fs::rename(temporary, self.config.source_dir.join(name)).expect("renamed");
    }

    fn token(&self, account: &str) -> String {
        let id = SpiffeId::new(&self.config.trust_domain, "shop", account).expect("id");
        JoinTokens::open(&self.config.state_dir)
            .and_then(|tokens| tokens.make(&id, Duration::from_secs(60), UnixTime::now()))
            .expect("token")
    }

    async fn page(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = TcpStream::connect(self.running.metrics_address)
            .await
            .expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("read");
        answer
    }

    /// Waits until a page says `text`.
    async fn says(&self, path: &str, text: &str) {
        let wait = async {
            while !self.page(path).await.contains(text) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(
            timeout(PATIENCE, wait).await.is_ok(),
            "{text:?} is not in {}",
            self.page(path).await
        );
    }

    async fn certify(
        &self,
        by: Option<&Identity>,
        pod: &str,
        credential: Option<Credential>,
    ) -> Result<Identity, Status> {
        let key = KeyPair::generate().expect("key");
        let request = CertificateParams::default()
            .serialize_request(&key)
            .expect("request");
        let (namespace, name) = pod.split_once('/').expect("a pod's name");
        let channel = connect(&self.running, &self.config, by)
            .await
            .expect("connected");
        let response = CertificateServiceClient::with_origin(channel, origin())
            .certify(pb::CertifyRequest {
                certificate_signing_request: request.der().to_vec(),
                workload: Some(pb::WorkloadRef {
                    namespace: namespace.into(),
                    name: name.into(),
                }),
                credential,
            })
            .await?
            .into_inner();
        assert!(response.valid_for_seconds <= 3600);
        Ok(identity(response.certificate_chain, &key))
    }

    async fn by_token(&self, pod: &str, account: &str) -> Identity {
        let token = Some(Credential::JoinToken(self.token(account)));
        self.certify(None, pod, token).await.expect("issued")
    }
}

async fn ready(config: &Config) -> Running {
    let running = start(config.clone()).await.expect("started");
    let wait = async {
        while !running.is_ready() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("ready");
    running
}

type Identity = Arc<CertifiedKey>;

fn identity(chain: Vec<Vec<u8>>, key: &KeyPair) -> Identity {
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    Arc::new(CertifiedKey::new(chain, any_ecdsa_type(&der).expect("key")))
}

fn whose(identity: &Identity) -> String {
    Svid::read(&identity.cert[0])
        .expect("an SVID")
        .id
        .to_string()
}

#[derive(Clone)]
struct Channel(SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

fn origin() -> http::Uri {
    http::Uri::from_static("https://controller")
}

fn root(state: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(state.join("root.pem")).expect("root")
}

/// As a proxy does: the bundle is the state directory's root, and the controller is pinned by name.
async fn connect(
    running: &Running,
    config: &Config,
    by: Option<&Identity>,
) -> std::io::Result<Channel> {
    let bundle = TrustBundle::single(config.trust_domain.clone(), vec![root(&config.state_dir)]);
    let expected = SpiffeId::new(
        &config.trust_domain,
        identity::NAMESPACE,
        identity::SERVICE_ACCOUNT,
    );
    let tls = client_config(
        Arc::new(bundle.expect("bundle")),
        expected.expect("id"),
        by.cloned(),
        ALPN_H2,
    )
    .expect("config");
    let socket = TcpStream::connect(running.address).await?;
    let name = ServerName::IpAddress(running.address.ip().into());
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, socket)
        .await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(Channel(sender))
}

struct Watcher {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watcher {
    async fn new(bed: &Bed, by: Option<&Identity>, pod: &str) -> Result<Self, Status> {
        let (requests, outbound) = mpsc::channel(8);
        let (namespace, name) = pod.split_once('/').expect("a pod's name");
        let channel = connect(&bed.running, &bed.config, by)
            .await
            .expect("connected");
        let hello = pb::Hello {
            workload: Some(pb::WorkloadRef {
                namespace: namespace.into(),
                name: name.into(),
            }),
            proxy_version: "0.1.0".into(),
        };
        let responses = DiscoveryServiceClient::with_origin(channel, origin())
            .watch(ReceiverStream::new(outbound))
            .await?
            .into_inner();
        let mut watcher = Self {
            requests,
            responses,
        };
        watcher.say(Message::Hello(hello)).await;
        Ok(watcher)
    }

    async fn say(&mut self, message: Message) {
        let request = pb::WatchRequest {
            request: Some(message),
        };
        self.requests.send(request).await.expect("sent");
    }

    async fn subscribe(&mut self, name: &str) {
        let destinations = vec![name.to_owned()];
        self.say(Message::Subscribe(pb::Subscription { destinations }))
            .await;
    }

    async fn hear(&mut self) -> Result<pb::WatchResponse, Status> {
        let response = timeout(PATIENCE, self.responses.message())
            .await
            .expect("in time")?;
        response.ok_or_else(|| Status::unknown("ended"))
    }

    /// Takes the next response.
    async fn take(&mut self) -> pb::WatchResponse {
        let response = self.hear().await.expect("a response");
        self.say(Message::Ack(pb::Ack {
            nonce: response.nonce.clone(),
        }))
        .await;
        response
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_once_then_the_certificate() -> Result<(), Infallible> {
    let bed = Bed::new().await;
    let token = Some(Credential::JoinToken(bed.token("cart")));
    let wrong = bed
        .certify(None, "shop/pay-1", token.clone())
        .await
        .expect_err("another's");
    assert_eq!(wrong.code(), Code::PermissionDenied);
    let unknown = bed
        .certify(None, "shop/gone", token.clone())
        .await
        .expect_err("no pod");
    assert_eq!(unknown.code(), Code::NotFound);
    let cart = bed
        .certify(None, "shop/cart-1", token.clone())
        .await
        .expect("the first use");
    assert_eq!(whose(&cart), "spiffe://mesh.local/ns/shop/sa/cart");
    let again = bed
        .certify(None, "shop/cart-1", token.clone())
        .await
        .expect_err("the second");
    assert_eq!(again.code(), Code::Unauthenticated);

    let renewed = bed
        .certify(Some(&cart), "shop/cart-1", None)
        .await
        .expect("renewed");
    assert_ne!(cart.cert[0], renewed.cert[0]);
    let other = bed
        .certify(Some(&renewed), "shop/pay-1", None)
        .await
        .expect_err("another's");
    assert_eq!(other.code(), Code::PermissionDenied);
    let nobody = bed
        .certify(None, "shop/cart-1", None)
        .await
        .expect_err("no credential");
    assert_eq!(nobody.code(), Code::Unauthenticated);
    bed.says(
        "/metrics",
        "certify_requests_total{outcome=\"issued\",credential=\"join_token\"} 1",
    )
    .await;

    // What was used stays used, and who was trusted stays trusted.
    let Bed {
        dir,
        config,
        running,
        signer,
    } = bed;
    let before = root(&config.state_dir);
    running.stop().await;
    let running = ready(&config).await;
    let bed = Bed {
        dir,
        config,
        running,
        signer,
    };
    assert_eq!(root(&bed.config.state_dir), before);
    let again = bed
        .certify(None, "shop/cart-1", token)
        .await
        .expect_err("after a restart");
    assert_eq!(again.code(), Code::Unauthenticated);
    assert!(
        bed.certify(Some(&renewed), "shop/cart-1", None)
            .await
            .is_ok()
    );
    bed.running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn issuance_is_paced() {
    let bed = Bed::new().await;
    let cart = bed.by_token("shop/cart-1", "cart").await;
    let mut refused = None;
    for _ in 0..20 {
        refused = bed.certify(Some(&cart), "shop/cart-1", None).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(
        refused.expect("within twenty").code(),
        Code::ResourceExhausted
    );
    bed.says(
        "/metrics",
        "outcome=\"rate_limited\",credential=\"certificate\"} 1",
    )
    .await;
}

fn base64url(bytes: &[u8]) -> String {
    // The library's own encoding of an HMAC key is the shortest way to it.
    let jwk =
        Jwk::from_encoding_key(&EncodingKey::from_secret(bytes), Algorithm::HS256).expect("jwk");
    match jwk.algorithm {
        jsonwebtoken::jwk::AlgorithmParameters::OctetKey(key) => key.value,
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_good_jwts_prove_anything() {
    let bed = Bed::new().await;
    let hour = UnixTime::now().as_secs() + 3600;
    let good = json!({"iss": "https://issuer", "aud": "ringmail", "exp": hour,
        "sub": "system:serviceaccount:shop:cart"});
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        claims
    };
    let without = |key: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(key);
        claims
    };
    let sign = |claims: Value| bed.signer.sign(&claims);
    let bound = |pod: &str| json!({"namespace": "shop", "pod": {"name": pod}});
    let none = format!(
        "{}.{}.",
        base64url(b"{\"alg\":\"none\",\"kid\":\"one\"}"),
        base64url(good.to_string().as_bytes())
    );
    let mut hmac = Header::new(Algorithm::HS256);
    hmac.kid = Some("one".into());
    let public = serde_json::to_vec(&bed.signer.jwk).expect("JSON");
    let hmac = encode(&hmac, &good, &EncodingKey::from_secret(&public)).expect("signed");
    let rows = [
        ("service account", sign(good.clone()), Code::Ok),
        (
            "SPIFFE ID",
            sign(with("sub", "spiffe://mesh.local/ns/shop/sa/cart".into())),
            Code::Ok,
        ),
        (
            "several audiences",
            sign(with("aud", json!(["x", "ringmail"]))),
            Code::Ok,
        ),
        (
            "bound to it",
            sign(with("kubernetes.io", bound("cart-1"))),
            Code::Ok,
        ),
        (
            "bound to another",
            sign(with("kubernetes.io", bound("cart-2"))),
            Code::PermissionDenied,
        ),
        (
            "another account",
            sign(with("sub", "system:serviceaccount:shop:pay".into())),
            Code::PermissionDenied,
        ),
        (
            "another domain",
            sign(with("sub", "spiffe://other/ns/shop/sa/cart".into())),
            Code::Unauthenticated,
        ),
        (
            "a person",
            sign(with("sub", "alice".into())),
            Code::Unauthenticated,
        ),
        (
            "another audience",
            sign(with("aud", "other".into())),
            Code::Unauthenticated,
        ),
        ("no audience", sign(without("aud")), Code::Unauthenticated),
        (
            "another issuer",
            sign(with("iss", "https://other".into())),
            Code::Unauthenticated,
        ),
        ("no issuer", sign(without("iss")), Code::Unauthenticated),
        (
            "expired",
            sign(with("exp", json!(hour - 7200))),
            Code::Unauthenticated,
        ),
        ("no expiry", sign(without("exp")), Code::Unauthenticated),
        (
            "not yet",
            sign(with("nbf", json!(hour))),
            Code::Unauthenticated,
        ),
        ("no subject", sign(without("sub")), Code::Unauthenticated),
        (
            "another key by the same name",
            Signer::new("one").sign(&good),
            Code::Unauthenticated,
        ),
        (
            "an unknown key",
            Signer::new("two").sign(&good),
            Code::Unauthenticated,
        ),
        ("alg none", none, Code::Unauthenticated),
        ("HMAC with the public key", hmac, Code::Unauthenticated),
        ("not a token", "a.b.c".into(), Code::Unauthenticated),
        ("empty", String::new(), Code::Unauthenticated),
        ("huge", "a".repeat(20_000), Code::Unauthenticated),
    ];
    for (what, token, expected) in rows {
        let outcome = bed
            .certify(None, "shop/cart-1", Some(Credential::Jwt(token)))
            .await;
        let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
        assert_eq!(code, expected, "{what}: {:?}", outcome.err());
    }
    // A new key is taken up without a restart.
    let fresh = Signer::new("two");
    let keys = JwkSet {
        keys: vec![bed.signer.jwk.clone(), fresh.jwk.clone()],
    };
    std::fs::write(
        bed.dir.path().join("jwks.json"),
        serde_json::to_vec(&keys).expect("JSON"),
    )
    .expect("written");
    let token = Some(Credential::Jwt(fresh.sign(&good)));
    assert!(bed.certify(None, "shop/cart-1", token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_full_then_deltas() {
    let bed = Bed::new().await;
    let cart = bed.by_token("shop/cart-1", "cart").await;
    let mut watcher = Watcher::new(&bed, Some(&cart), "shop/cart-1")
        .await
        .expect("admitted");
    let first = watcher.take().await;
    assert!(first.full);
    let kinds: Vec<_> = first
        .resources
        .iter()
        .filter_map(|one| one.resource.as_ref())
        .collect();
    assert!(
        matches!(kinds[..], [Resource::TrustBundle(_), Resource::Workload(own)] if own.service_account == "cart")
    );

    watcher.subscribe("10.1.0.3:8080").await;
    let pay = watcher.take().await;
    assert!(pay.full && format!("{pay:?}").contains("spiffe://mesh.local/ns/shop/sa/pay"));

    // Nobody asked for this one.
    bed.write("more.yaml", NEW_POD);
    bed.says("/status", "\"workloads\": 4").await;
    // A bad file changes nothing, and says so.
    bed.write("bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: 7\n");
    bed.says("/status", "\"line\": 3").await;

    bed.write(
        "pods.yaml",
        &PODS.replace("serviceAccountName: pay", "serviceAccountName: bank"),
    );
    let delta = watcher.hear().await.expect("a delta");
    assert!(!delta.full && delta.resources.len() == 1);
    assert!(format!("{delta:?}").contains("spiffe://mesh.local/ns/shop/sa/bank"));
    let version = |wire: Option<pb::Version>| Version::try_from(wire).expect("a version");
    let (old, new) = (version(pay.version), version(delta.version));
    assert!(old.admits_delta(new) && old != new);
    let nack = pb::Nack {
        nonce: delta.nonce,
        reason: "destination.service: made up".into(),
    };
    watcher.say(Message::Nack(nack)).await;
    bed.says("/metrics", "ringmail_controller_watch_nacks_total 1")
        .await;
    bed.says("/metrics", "ringmail_controller_watch_acks_total 2")
        .await;
    bed.says(
        "/metrics",
        "ringmail_controller_watch_responses_outstanding 0",
    )
    .await;

    // Its pod becomes another's.
    bed.write(
        "pods.yaml",
        &PODS.replace("serviceAccountName: cart", "serviceAccountName: thief"),
    );
    let ended = loop {
        match watcher.hear().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended:?}");
    bed.says(
        "/metrics",
        "watch_stream_ends_total{reason=\"workload_gone\"} 1",
    )
    .await;
    bed.says("/metrics", "ringmail_controller_watch_streams 0")
        .await;
    bed.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_proxy_watches_a_pod() {
    let bed = Bed::new().await;
    let anonymous = Watcher::new(&bed, None, "shop/cart-1")
        .await
        .err()
        .expect("refused");
    assert_eq!(anonymous.code(), Code::Unauthenticated);
    let cart = bed.by_token("shop/cart-1", "cart").await;
    for (pod, code) in [
        ("shop/pay-1", Code::PermissionDenied),
        ("shop/gone", Code::NotFound),
    ] {
        let mut watcher = Watcher::new(&bed, Some(&cart), pod).await.expect("begun");
        let refused = watcher.hear().await.expect_err("refused");
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    let mut watcher = Watcher::new(&bed, Some(&cart), "shop/cart-1")
        .await
        .expect("begun");
    watcher.take().await;
    let nonce = "never-sent".to_owned();
    watcher.say(Message::Ack(pb::Ack { nonce })).await;
    assert_eq!(
        watcher.hear().await.expect_err("cut").code(),
        Code::InvalidArgument
    );

    // A certificate of nobody we trust does not get past the handshake.
    let key = KeyPair::generate().expect("key");
    let stranger = CertificateParams::default()
        .self_signed(&key)
        .expect("made");
    let stranger = identity(vec![stranger.der().to_vec()], &key);
    if let Ok(channel) = connect(&bed.running, &bed.config, Some(&stranger)).await {
        let answer = CertificateServiceClient::with_origin(channel, origin())
            .certify(pb::CertifyRequest::default())
            .await;
        assert!(answer.is_err());
    }
    bed.says("/metrics", "handshakes_total{outcome=\"refused\"} 1")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_tells_watchers_and_is_quick() {
    let bed = Bed::new().await;
    let cart = bed.by_token("shop/cart-1", "cart").await;
    let mut watcher = Watcher::new(&bed, Some(&cart), "shop/cart-1")
        .await
        .expect("begun");
    watcher.take().await;
    let stopped = tokio::spawn(bed.running.stop());
    assert_eq!(
        watcher.hear().await.expect_err("told").code(),
        Code::Unavailable
    );
    timeout(PATIENCE, stopped)
        .await
        .expect("in time")
        .expect("no panic");
}
