//! The HTTP application, over hyper: another implementation than the one under test.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{HeaderName, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use ringmail_proto::health::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status, Streaming, codegen::Service};

use super::pb::{
    ChatRequest, ChatResponse, SayRequest, SayResponse,
    echo_service_server::{EchoService, EchoServiceServer},
};

type Body = UnsyncBoxBody<Bytes, tonic::codegen::StdError>;

/// The largest body that `/bytes/N` makes.
const BODY_BYTES_MAX: usize = 1 << 30;

/// Answers to `/trailers`.
const TRAILER: (&str, &str) = ("x-checksum", "7");

pub(super) async fn serve(
    listener: TcpListener,
    name: String,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let each = stopped.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                connections.spawn(connection(stream, name.clone(), each.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn connection(stream: TcpStream, name: String, mut stopped: watch::Receiver<bool>) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1024);
    let answers = service_fn(move |request| answer(name.clone(), request));
    let mut serving = pin!(server.serve_connection_with_upgrades(TokioIo::new(stream), answers));
    // A connection's end, however it comes, is its client's to judge.
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

async fn answer(name: String, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let number = |prefix| {
        path.strip_prefix(prefix)
            .and_then(|rest| rest.parse::<usize>().ok())
    };
    let mut response = if path.starts_with("/ringmail.test.v1.") {
        let Ok(response) = EchoServiceServer::new(Echo).call(request).await;
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    } else if path.starts_with("/grpc.health.v1.Health/") {
        let Ok(response) = HealthServer::new(Healthy).call(request).await;
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    } else if let Some(length) = number("/bytes/") {
        Response::new(full(vec![b'x'; length.min(BODY_BYTES_MAX)]))
    } else if let Some(milliseconds) = number("/delay/") {
        sleep(Duration::from_millis(milliseconds as u64)).await;
        Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync())
    } else if let Some(status) = number("/status/") {
        let mut response = Response::new(full(""));
        let status = u16::try_from(status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok());
        *response.status_mut() = status.unwrap_or(StatusCode::BAD_REQUEST);
        response
    } else if path == "/stream" {
        Response::new(request.into_body().map_err(Into::into).boxed_unsync())
    } else if path == "/trailers" {
        with_trailers()
    } else {
        Response::new(describe(request).await)
    };
    let name = HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("unnamed"));
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-app"), name);
    Ok(response)
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A chunked body of two parts, and a trailer.
fn with_trailers() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert(
        HeaderName::from_static(TRAILER.0),
        HeaderValue::from_static(TRAILER.1),
    );
    let parts = [
        Frame::data(Bytes::from("one,")),
        Frame::data(Bytes::from("two")),
        Frame::trailers(trailers),
    ];
    let stream = tokio_stream::iter(parts.map(Ok));
    let mut response = Response::new(http_body_util::StreamBody::new(stream).boxed_unsync());
    response
        .headers_mut()
        .insert("trailer", HeaderValue::from_static(TRAILER.0));
    response
}

/// The request as text: line, headers, empty line, body.
async fn describe(request: Request<Incoming>) -> Body {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {}\n", head.method, head.uri).into_bytes();
    for (name, value) in &head.headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
    }
    text.push(b'\n');
    match body.collect().await {
        Ok(body) => text.extend(body.to_bytes()),
        Err(error) => text.extend(format!("body failed: {error}").into_bytes()),
    }
    full(text)
}

#[derive(Debug)]
struct Healthy;

#[tonic::async_trait]
impl Health for Healthy {
    /// The server as a whole is well, and nothing in particular.
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let status = match request.into_inner().service.as_str() {
            "" => ServingStatus::Serving,
            _ => ServingStatus::NotServing,
        };
        let status = status.into();
        Ok(tonic::Response::new(HealthCheckResponse { status }))
    }
}

struct Echo;

#[tonic::async_trait]
impl EchoService for Echo {
    type ChatStream = Chat;

    async fn say(
        &self,
        request: tonic::Request<SayRequest>,
    ) -> Result<tonic::Response<SayResponse>, Status> {
        let SayRequest {
            text,
            fail_with_code,
        } = request.into_inner();
        match fail_with_code {
            0 => Ok(tonic::Response::new(SayResponse { text })),
            code => Err(Status::new(Code::from(code), text)),
        }
    }

    async fn chat(
        &self,
        request: tonic::Request<Streaming<ChatRequest>>,
    ) -> Result<tonic::Response<Self::ChatStream>, Status> {
        Ok(tonic::Response::new(Chat(request.into_inner())))
    }
}

/// Each message as it comes.
struct Chat(Streaming<ChatRequest>);

impl Stream for Chat {
    type Item = Result<ChatResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut answers =
            (&mut self.0).map(|message| message.map(|message| ChatResponse { text: message.text }));
        Pin::new(&mut answers).poll_next(context)
    }
}
