//! An external authorizer, as Envoy's `ext_authz` asks one: tonic's server over hyper. What it answers is in the path of
//! the request that it is asked about; what it was asked last is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ringmail_proto::ext_authz::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue,
    HeaderValueOption, HttpStatus, OkHttpResponse,
    attribute_context::HttpRequest,
    authorization_server::{Authorization, AuthorizationServer},
    check_response::HttpResponse,
};
use tokio::{net::TcpListener, task::JoinHandle, task::JoinSet, time::sleep};
use tonic::{Request, Response, Status, codegen::Service};

use super::listen;
use crate::netns::Namespace;

/// Longer than any proxy may wait.
const SLOW: Duration = Duration::from_secs(15);

/// What it was asked last, by the path that was asked about.
type Questions = Arc<Mutex<HashMap<String, AttributeContext>>>;

/// An authorizer. By path:
///
/// - `/denied`: refuses, and says no more; `/login`: refuses with a response of its own.
/// - `/edited`: sets `x-user`, removes `x-secret`, and adds `x-checked` to the response.
/// - `/slow`: does not answer in time; `/broken`: fails; `/odd`: wants what may not be.
/// - Anything else: may.
#[derive(Debug)]
pub struct Authorizer {
    questions: Questions,
    served: JoinHandle<std::io::Result<()>>,
}

impl Authorizer {
    /// Starts to serve.
    pub fn start(namespace: &Namespace, port: u16) -> anyhow::Result<Self> {
        let questions = Questions::default();
        let listener = namespace.run(|| listen(port))??;
        let check = Check(questions.clone());
        let served = namespace.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let check = check.clone();
                let answers = service_fn(move |request| {
                    AuthorizationServer::new(check.clone()).call(request)
                });
                let server = http2::Builder::new(TokioExecutor::new());
                connections.spawn(server.serve_connection(TokioIo::new(stream), answers));
            }
        });
        Ok(Self { questions, served })
    }

    /// What was asked last about such a path, without its query.
    pub fn asked(&self, path: &str) -> Option<AttributeContext> {
        let questions = self.questions.lock();
        let questions = questions.unwrap_or_else(PoisonError::into_inner);
        questions.get(path).cloned()
    }

    /// How many paths were asked about.
    pub fn count(&self) -> usize {
        let questions = self.questions.lock();
        questions.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// It is gone, as a process is that was killed.
    pub fn kill(self) {
        self.served.abort();
    }
}

#[derive(Debug, Clone)]
struct Check(Questions);

impl Check {
    fn note(&self, path: &str, attributes: AttributeContext) {
        let mut questions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        questions.insert(path.to_owned(), attributes);
    }
}

#[tonic::async_trait]
impl Authorization for Check {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let http = attributes.request.as_ref();
        let http = http.and_then(|request| request.http.clone());
        let HttpRequest { path, .. } = http.unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default().to_owned();
        self.note(&path, attributes);
        let (code, http_response) = match path.as_str() {
            "/denied" => (7, None),
            "/login" => (16, Some(HttpResponse::DeniedResponse(login()))),
            "/edited" => (0, Some(HttpResponse::OkResponse(edited()))),
            "/slow" => {
                sleep(SLOW).await;
                (0, None)
            }
            "/broken" => return Err(Status::internal("it is broken")),
            "/odd" => (0, Some(HttpResponse::OkResponse(odd()))),
            _ => (0, None),
        };
        let message = String::new();
        Ok(Response::new(CheckResponse {
            status: Some(ringmail_proto::ext_authz::Status { code, message }),
            http_response,
        }))
    }
}

fn login() -> DeniedHttpResponse {
    DeniedHttpResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![
            header("www-authenticate", "Basic"),
            header("x-ringmail-reason", "forged"),
        ],
        body: "who are you?".to_owned(),
    }
}

fn edited() -> OkHttpResponse {
    OkHttpResponse {
        headers: vec![header("x-user", "alice")],
        headers_to_remove: vec!["x-secret".to_owned()],
        response_headers_to_add: vec![header("x-checked", "yes")],
        ..OkHttpResponse::default()
    }
}

fn odd() -> OkHttpResponse {
    OkHttpResponse {
        headers: vec![header("host", "elsewhere")],
        ..OkHttpResponse::default()
    }
}

fn header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        ..HeaderValueOption::default()
    }
}
