//! HTTP clients over hyper, one connection each.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    HeaderMap, Request, StatusCode, Version,
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::dial;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers, if any.
    pub trailers: Option<HeaderMap>,
}

impl Reply {
    /// The body, for people.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Makes one request on a new connection, HTTP/2 when `request` says so, else HTTP/1.1. The URI of an HTTP/1.1 request
/// is sent as it is, so it should be a path, and `host` be set.
pub async fn fetch(address: SocketAddr, request: Request<Full<Bytes>>) -> io::Result<Reply> {
    let io = TokioIo::new(dial(address).await?);
    let response = if request.version() == Version::HTTP_2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io)
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    let (head, body) = response.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?;
    let trailers = body.trailers().cloned();
    Ok(Reply {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    })
}

/// An HTTP/1.1 client with keep-alive.
#[derive(Debug)]
pub struct Http1 {
    sender: http1::SendRequest<Empty<Bytes>>,
    request: Request<()>,
}

impl Http1 {
    /// Connects; every exchange will be a GET of `path`.
    pub async fn connect(address: SocketAddr, path: &str) -> io::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(dial(address).await?))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", address.to_string())
            .body(());
        Ok(Self {
            sender,
            request: request.map_err(io::Error::other)?,
        })
    }

    /// One request, whose answer must be a whole 200.
    pub async fn exchange(&mut self) -> io::Result<()> {
        self.sender.ready().await.map_err(io::Error::other)?;
        let response = self
            .sender
            .send_request(self.request.clone().map(|()| Empty::new()))
            .await;
        judge(response).await
    }
}

/// An HTTP/2 client with prior knowledge.
#[derive(Debug)]
pub struct Http2 {
    sender: http2::SendRequest<Empty<Bytes>>,
    request: Request<()>,
}

impl Http2 {
    /// Connects; every exchange will be a GET of `path`.
    pub async fn connect(address: SocketAddr, path: &str) -> io::Result<Self> {
        let io = TokioIo::new(dial(address).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::get(format!("http://{address}{path}")).body(());
        Ok(Self {
            sender,
            request: request.map_err(io::Error::other)?,
        })
    }

    /// One request, whose answer must be a whole 200.
    pub async fn exchange(&mut self) -> io::Result<()> {
        self.sender.ready().await.map_err(io::Error::other)?;
        let response = self
            .sender
            .send_request(self.request.clone().map(|()| Empty::new()))
            .await;
        judge(response).await
    }
}

async fn judge(response: hyper::Result<hyper::Response<Incoming>>) -> io::Result<()> {
    let response = response.map_err(|error| io::Error::other(format!("request: {error}")))?;
    let status = response.status();
    let body = response.into_body().collect().await;
    body.map_err(|error| io::Error::other(format!("body: {error}")))?;
    if status == StatusCode::OK {
        Ok(())
    } else {
        Err(io::Error::other(format!("status {status}")))
    }
}
