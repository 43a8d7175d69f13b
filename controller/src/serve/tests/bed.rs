//! A controller, a JWT issuer and proxies over loopback.

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
use ringmail_proto::pb::watch_request::Request as Message;
use ringmail_proto::policy::Posture;
use ringmail_proto::tls::{ALPN_H2, client_config};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Status, Streaming};

use super::super::*;
use crate::attest::join_token::JoinTokens;
use crate::config::{Config, DirectoryHome, Home, JwksLocation, JwtTrust};
use crate::run::{Running, start};

pub(super) const PODS: &str = "
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

pub(super) const NEW_POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: new-1, namespace: shop}
spec: {containers: []}
status: {podIP: 10.1.0.9}
";

/// How long a condition may take to come true on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Bed {
    pub(super) dir: tempfile::TempDir,
    pub(super) home: DirectoryHome,
    pub(super) config: Config,
    pub(super) running: Running,
    pub(super) signer: Signer,
}

/// A JWT issuer.
pub(super) struct Signer {
    pub(super) key: EncodingKey,
    pub(super) jwk: Jwk,
}

impl Signer {
    pub(super) fn new(id: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let key = EncodingKey::from_ec_der(&key.serialize_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("jwk");
        jwk.common.key_id = Some(id.into());
        Self { key, jwk }
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = self.jwk.common.key_id.clone();
        encode(&header, claims, &self.key).expect("signed")
    }
}

impl Bed {
    pub(super) async fn new() -> Self {
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
        let home = DirectoryHome {
            source_dir,
            state_dir: dir.path().join("state"),
            given_authority: None,
            jwt: Some(JwtTrust {
                issuer: "https://issuer".into(),
                audience: "ringmail".into(),
                jwks: JwksLocation::File(jwks),
            }),
        };
        let config = Config {
            trust_domain: "mesh.local".parse().expect("domain"),
            default_policy: Posture::default(),
            cluster_networks: Vec::new(),
            home: Home::Directory(home.clone()),
            listen: ([127, 0, 0, 1], 0).into(),
            metrics_listen: ([127, 0, 0, 1], 0).into(),
            leaf_lifetime: Duration::from_secs(3600),
            drain_timeout: Duration::from_secs(2),
            jwks: Default::default(),
            limits_redis: None,
        };
        let running = ready(&config).await;
        Self {
            dir,
            home,
            config,
            running,
            signer,
        }
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let temporary = self.dir.path().join("new");
        std::fs::write(&temporary, text).expect("written");
        std::fs::rename(temporary, self.home.source_dir.join(name)).expect("renamed");
    }

    pub(super) fn token(&self, account: &str) -> String {
        let id = SpiffeId::new(&self.config.trust_domain, "shop", account).expect("id");
        JoinTokens::open(&self.home.state_dir)
            .and_then(|tokens| tokens.make(&id, Duration::from_secs(60), UnixTime::now()))
            .expect("token")
    }

    pub(super) async fn page(&self, path: &str) -> String {
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
    pub(super) async fn says(&self, path: &str, text: &str) {
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

    pub(super) async fn certify(
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

    pub(super) async fn by_token(&self, pod: &str, account: &str) -> Identity {
        let token = Some(Credential::JoinToken(self.token(account)));
        self.certify(None, pod, token).await.expect("issued")
    }
}

pub(super) async fn ready(config: &Config) -> Running {
    let running = start(config.clone()).await.expect("started");
    let wait = async {
        while !running.is_ready() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("ready");
    running
}

pub(super) type Identity = Arc<CertifiedKey>;

pub(super) fn identity(chain: Vec<Vec<u8>>, key: &KeyPair) -> Identity {
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    Arc::new(CertifiedKey::new(chain, any_ecdsa_type(&der).expect("key")))
}

pub(super) fn whose(identity: &Identity) -> String {
    Svid::read(&identity.cert[0])
        .expect("an SVID")
        .id
        .to_string()
}

#[derive(Clone)]
pub(super) struct Channel(SendRequest<Body>);

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

pub(super) fn origin() -> http::Uri {
    http::Uri::from_static("https://controller")
}

pub(super) fn root(state: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(state.join("root.pem")).expect("root")
}

/// As a proxy does: the bundle is the state directory's root, and the controller is pinned by name.
pub(super) async fn connect(
    running: &Running,
    config: &Config,
    by: Option<&Identity>,
) -> std::io::Result<Channel> {
    let Home::Directory(home) = &config.home else {
        unreachable!("tests here have directories");
    };
    let bundle = TrustBundle::single(config.trust_domain.clone(), vec![root(&home.state_dir)]);
    let expected = config.identity();
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

pub(super) struct Watcher {
    pub(super) requests: mpsc::Sender<pb::WatchRequest>,
    pub(super) responses: Streaming<pb::WatchResponse>,
}

impl Watcher {
    pub(super) async fn new(bed: &Bed, by: Option<&Identity>, pod: &str) -> Result<Self, Status> {
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
        let watcher = Self {
            requests,
            responses,
        };
        watcher.say(Message::Hello(hello)).await;
        Ok(watcher)
    }

    pub(super) async fn say(&self, message: Message) {
        let request = pb::WatchRequest {
            request: Some(message),
        };
        self.requests.send(request).await.expect("sent");
    }

    pub(super) async fn subscribe(&self, name: &str) {
        let destinations = vec![name.to_owned()];
        self.say(Message::Subscribe(pb::Subscription { destinations }))
            .await;
    }

    pub(super) async fn hear(&mut self) -> Result<pb::WatchResponse, Status> {
        let response = timeout(PATIENCE, self.responses.message())
            .await
            .expect("in time")?;
        response.ok_or_else(|| Status::unknown("ended"))
    }

    /// Takes the next response.
    pub(super) async fn take(&mut self) -> pb::WatchResponse {
        let response = self.hear().await.expect("a response");
        self.say(Message::Ack(pb::Ack {
            nonce: response.nonce.clone(),
        }))
        .await;
        response
    }
}
