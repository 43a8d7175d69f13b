//! What answers: HTTP/1.1 and HTTP/2 by their first bytes, and a sink and a source of bulk bytes. As lean as it can be,
//! so that the proxies are what is measured. `GET /N` is answered with N bytes.

use std::io;
use std::net::Ipv4Addr;

use bytes::Bytes;
use ringmail_tests::netns::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes read at once.
pub(crate) const READ_BYTES: usize = 256 * 1024;
/// What a client that only receives says, and no more until it has enough.
pub(crate) const SOURCE: &[u8] = b"\0source\n";

/// Serves `port` in a pod for as long as it lives.
pub(crate) fn start(namespace: &Namespace, port: u16) -> anyhow::Result<()> {
    let listener = namespace.block_on(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))??;
    namespace.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // A client that is gone is no news.
            tokio::spawn(async move { drop(serve(socket).await) });
        }
    });
    Ok(())
}

async fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut first = [0; 3];
    while socket.peek(&mut first).await? < first.len() {
        tokio::task::yield_now().await;
    }
    match &first {
        b"PRI" => serve_http2(socket).await.map_err(io::Error::other),
        b"GET" => serve_http1(socket).await,
        b"\0so" => source(&mut socket).await,
        _ => sink(&mut socket).await,
    }
}

/// Says how much came, once all of it has.
async fn sink(socket: &mut TcpStream) -> io::Result<()> {
    let mut input = vec![0; READ_BYTES];
    let mut total: u64 = 0;
    loop {
        match socket.read(&mut input).await? {
            0 => return socket.write_all(&total.to_be_bytes()).await,
            n => total += n as u64,
        }
    }
}

/// Sends until the client has ended its side, then how many bytes that were.
async fn source(socket: &mut TcpStream) -> io::Result<()> {
    let (mut from, mut to) = socket.split();
    from.read_exact(&mut [0; SOURCE.len()]).await?;
    let block = vec![b'x'; READ_BYTES];
    let (mut sent, mut total) = (0, 0u64);
    let mut ended = [0];
    loop {
        tokio::select! {
            written = to.write(&block[sent..]) => {
                let written = written?;
                total += written as u64;
                sent = (sent + written) % block.len();
            }
            _ = from.read(&mut ended) => return to.write_all(&total.to_be_bytes()).await,
        }
    }
}

async fn serve_http1(mut socket: TcpStream) -> io::Result<()> {
    let mut input = Vec::with_capacity(4096);
    loop {
        while let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = body_bytes(&input);
            let close = input[..end]
                .windows(5)
                .any(|window| window.eq_ignore_ascii_case(b"close"));
            input.drain(..end + 4);
            let mut answer =
                format!("HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Length: {body}\r\n\r\n")
                    .into_bytes();
            answer.resize(answer.len() + body, b'x');
            socket.write_all(&answer).await?;
            if close {
                return socket.shutdown().await;
            }
        }
        if socket.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

/// The number in `GET /N`.
fn body_bytes(request: &[u8]) -> usize {
    let digits = request
        .iter()
        .skip(5)
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
}

async fn serve_http2(socket: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake::<_, Bytes>(socket)
        .await?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        let response = http::Response::builder().header("server", "bench").body(());
        let response = response.map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
        respond.send_response(response, true)?;
    }
    Ok(())
}
