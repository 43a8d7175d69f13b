//! A gRPC client without tonic's transport: its stubs over hyper's HTTP/2.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{Uri, body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::codegen::Service;

use super::dial;
use crate::apps::pb::{SayRequest, echo_service_client::EchoServiceClient};

/// One HTTP/2 connection, as tonic's stubs want it.
#[derive(Debug, Clone)]
pub struct GrpcChannel {
    sender: http2::SendRequest<tonic::body::Body>,
    authority: String,
}

impl GrpcChannel {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let io = TokioIo::new(dial(address).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self {
            sender,
            authority: address.to_string(),
        })
    }
}

impl Service<hyper::Request<tonic::body::Body>> for GrpcChannel {
    type Response = hyper::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, mut request: hyper::Request<tonic::body::Body>) -> Self::Future {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.as_str())
            .path_and_query(request.uri().path());
        *request.uri_mut() = uri
            .build()
            .expect("a socket address and a stub's path make a URI");
        Box::pin(self.sender.send_request(request))
    }
}

/// A client of `EchoService.Say`.
#[derive(Debug)]
pub struct Grpc {
    stub: EchoServiceClient<GrpcChannel>,
    text: String,
}

impl Grpc {
    /// Connects; every exchange will say `text`.
    pub async fn connect(address: SocketAddr, text: &str) -> io::Result<Self> {
        Ok(Self {
            stub: EchoServiceClient::new(GrpcChannel::connect(address).await?),
            text: text.to_owned(),
        })
    }

    /// One call, whose answer must be what was said.
    pub async fn exchange(&mut self) -> io::Result<()> {
        let request = SayRequest {
            text: self.text.clone(),
            fail_with_code: 0,
        };
        match self.stub.say(request).await {
            Ok(answer) if answer.get_ref().text == self.text => Ok(()),
            Ok(_) => Err(io::Error::other("another text came back")),
            Err(status) => Err(io::Error::other(format!(
                "gRPC status {:?}: {}",
                status.code(),
                status.message()
            ))),
        }
    }
}
