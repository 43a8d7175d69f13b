//! Our end against rustls' own, and against one that does what it must not.

use std::future::poll_fn;

use rustls::pki_types::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::tls::identity::Identity;
use crate::tls::record::wear;
use ringmail_proto::tls::ALPN_RINGMAIL;

const ID: &str = "spiffe://mesh.local/ns/shop/sa/cart";

fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test);
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.expect("connected"), accepted.expect("accepted").0)
}

fn identity() -> (Identity, Arc<ClientConfig>) {
    let identity = Identity::of_test(ID);
    let client = identity.client(ID.parse().expect("valid"), ALPN_RINGMAIL);
    (identity, client.expect("a configuration"))
}

/// Two of ours: who dialled, and who answered.
async fn ours() -> (TlsStream, TlsStream) {
    let (identity, client) = identity();
    let (dialled, accepted) = sockets().await;
    let (client, server) = tokio::join!(
        TlsStream::connect(dialled, client),
        TlsStream::accept(accepted, identity.server.clone())
    );
    (client.expect("shaken hands"), server.expect("shaken hands"))
}

/// Sends all of `data` and reads as much.
async fn exchange(tls: &mut TlsStream, data: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut sent, mut received) = (0, Vec::new());
    poll_fn(|cx| {
        loop {
            sent += tls.write(&data[sent..])?;
            let flushed = tls
                .poll_flush(cx)
                .map_err(|e| Reason::PeerGone.because(e))?;
            if flushed.is_pending() || sent == data.len() {
                break;
            }
        }
        while received.len() < data.len() {
            let read = ready!(tls.poll_read(cx, &mut |part| received.extend_from_slice(part)))?;
            assert_eq!(read, Read::Some);
        }
        Poll::Ready(Ok(std::mem::take(&mut received)))
    })
    .await
}

/// The next read, which brings nothing.
async fn next(tls: &mut TlsStream) -> Result<Read, Error> {
    poll_fn(|cx| tls.poll_read(cx, &mut |data| assert_eq!(data, b""))).await
}

async fn say(tls: &mut TlsStream, content: u8, message: &[u8]) {
    assert!(tls.seal_message(content, message).expect("sealed"));
    poll_fn(|cx| tls.poll_flush(cx)).await.expect("sent");
}

fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// Echoes what comes until a goodbye, with a new key every now and then; `refresh` makes one.
async fn echo<Tls: AsyncRead + AsyncWrite + Unpin>(mut tls: Tls, refresh: impl Fn(&mut Tls)) {
    let (mut room, mut bytes) = (vec![0; 70_000], 0);
    loop {
        let n = tls.read(&mut room).await.expect("no end without a goodbye");
        if n == 0 {
            break;
        }
        tls.write_all(&room[..n]).await.expect("sent");
        bytes += n;
        if bytes > 100_000 {
            bytes = 0;
            refresh(&mut tls);
        }
    }
    tls.shutdown().await.expect("closed");
}

/// Any length crosses both ways, over our new keys and the other's, and both ends say goodbye.
async fn talk(mut tls: TlsStream) {
    assert_eq!(tls.peer().expect("proved").id.to_string(), ID);
    assert_eq!(tls.alpn(), Some(ALPN_RINGMAIL));
    assert_eq!(tls.key_exchange(), "X25519MLKEM768");
    let full = PLAINTEXT_BYTES_MAX;
    for length in [1, 100, full - 1, full, full + 1, 3 * full, 1_000_000, 7] {
        let data = pattern(length);
        let echoed = exchange(&mut tls, &data).await.expect("echoed");
        assert!(echoed == data, "{length} bytes");
        tls.owes_key = true;
    }
    poll_fn(|cx| tls.poll_close(cx)).await.expect("closed");
    assert_eq!(next(&mut tls).await.expect("a goodbye"), Read::End);
}

#[test]
fn a_server_of_rustls_understands_us() {
    run(async {
        let (identity, client) = identity();
        let (dialled, accepted) = sockets().await;
        let acceptor = TlsAcceptor::from(identity.server.clone());
        let server = async {
            let tls = acceptor.accept(accepted).await.expect("shaken hands");
            echo(tls, |tls| {
                tls.get_mut().1.refresh_traffic_keys().expect("1.3")
            })
            .await;
        };
        let ours = TlsStream::connect(dialled, client);
        tokio::join!(server, async {
            talk(ours.await.expect("shaken hands")).await
        });
    });
}

#[test]
fn a_client_of_rustls_understands_us() {
    run(async {
        let (identity, client) = identity();
        let (dialled, accepted) = sockets().await;
        let connector = TlsConnector::from(client);
        let name = ServerName::IpAddress(IpAddr::V4([127, 0, 0, 1].into()));
        let client = async {
            let tls = connector
                .connect(name, dialled)
                .await
                .expect("shaken hands");
            echo(tls, |tls| {
                tls.get_mut().1.refresh_traffic_keys().expect("1.3")
            })
            .await;
        };
        let ours = TlsStream::accept(accepted, identity.server.clone());
        tokio::join!(client, async {
            talk(ours.await.expect("shaken hands")).await
        });
    });
}

#[test]
fn a_worn_key_is_replaced() {
    run(async {
        let (mut client, mut server) = ours().await;
        wear(&mut client.sealer, &mut server.opener);
        let data = pattern(100);
        let (one, other) = tokio::join!(exchange(&mut client, &data), exchange(&mut server, &data));
        assert_eq!(one.expect("received"), data);
        assert_eq!(other.expect("received"), data);
        assert!(!client.sealer.is_worn());
        assert_eq!((server.fruitless, server.owes_key), (0, false));
    });
}

#[test]
fn what_may_not_come_ends_the_connection() {
    let ticket: &[u8] = &[4, 0, 0, 1, 0];
    let rows: [(u8, &[u8], Reason, &str); 8] = [
        (HANDSHAKE, ticket, Reason::PeerProtocol, "no key update"),
        (
            HANDSHAKE,
            &KEY_UPDATE[..4],
            Reason::PeerProtocol,
            "no key update",
        ),
        (
            HANDSHAKE,
            &[24, 0, 0, 1, 2],
            Reason::PeerProtocol,
            "no key update",
        ),
        (HANDSHAKE, &[], Reason::PeerProtocol, "no key update"),
        (20, &[1], Reason::PeerProtocol, "content of type 20"),
        (ALERT, &[2], Reason::PeerProtocol, "malformed"),
        (
            ALERT,
            &[2, 42],
            Reason::PeerRefusedIdentity,
            "BadCertificate",
        ),
        (0, &[], Reason::PeerProtocol, "no content"),
    ];
    run(async {
        for (content, message, reason, text) in rows {
            let (mut client, mut server) = ours().await;
            say(&mut client, content, message).await;
            let error = next(&mut server).await.expect_err(text);
            let said = format!("{error:?}");
            assert!(
                error.reason == reason && said.contains(text),
                "{said}, not {text}"
            );
        }
    });
}

#[test]
fn records_without_data_have_an_end() {
    let rows: [(u8, &[u8]); 3] = [(HANDSHAKE, &KEY_UPDATE), (DATA, &[]), (ALERT, &[1, 90])];
    run(async {
        for (content, message) in rows {
            let (mut client, mut server) = ours().await;
            let say = async |client: &mut TlsStream, times| {
                for _ in 0..times {
                    let is_room = match content {
                        HANDSHAKE => client.update_key(),
                        _ => client.seal_message(content, message),
                    };
                    assert!(is_room.expect("sealed"));
                }
                poll_fn(|cx| client.poll_flush(cx)).await.expect("sent");
            };
            say(&mut client, FRUITLESS_MAX).await;
            let (one, other) =
                tokio::join!(exchange(&mut client, b"!"), exchange(&mut server, b"?"));
            assert_eq!(one.expect("received"), b"?");
            assert_eq!(other.expect("received"), b"!");
            say(&mut client, FRUITLESS_MAX + 1).await;
            let error = next(&mut server).await.expect_err("too many");
            assert_eq!(error.reason, Reason::PeerProtocol);
        }
    });
}

/// Carries bytes both ways, but holds all that `near` says behind its hello until it is `said`.
async fn hold_back(mut near: DuplexStream, mut far: TcpStream, said: &Notify) {
    let mut hello = vec![0; 16 * 1024];
    let n = near.read(&mut hello).await.expect("a hello");
    far.write_all(&hello[..n]).await.expect("sent");
    let (mut from_far, mut to_far) = far.split();
    let (mut from_near, mut to_near) = tokio::io::split(near);
    let forth = async {
        said.notified().await;
        tokio::io::copy(&mut from_near, &mut to_far).await
    };
    let back = tokio::io::copy(&mut from_far, &mut to_near);
    let _ = tokio::join!(forth, back);
}

#[test]
fn what_comes_right_behind_a_handshake_is_read() {
    run(async {
        let (identity, client) = identity();
        let (dialled, accepted) = sockets().await;
        let (io, held) = tokio::io::duplex(64 * 1024);
        let said = Notify::new();
        let client = async {
            let name = ServerName::IpAddress(IpAddr::V4([127, 0, 0, 1].into()));
            let tls = TlsConnector::from(client).connect(name, io).await;
            let mut tls = tls.expect("shaken hands");
            let refreshed = tls.get_mut().1.refresh_traffic_keys();
            refreshed.expect("1.3");
            tls.write_all(b"at once").await.expect("sent");
            tls.flush().await.expect("sent");
            said.notify_one();
            let mut answer = [0; 7];
            tls.read_exact(&mut answer).await.expect("answered");
            answer
        };
        let server = async {
            let tls = TlsStream::accept(accepted, identity.server.clone()).await;
            let mut tls = tls.expect("shaken hands");
            assert!(!tls.incoming.is_empty(), "it came with the handshake");
            exchange(&mut tls, b"as soon").await.expect("received")
        };
        let both = async { tokio::join!(client, server) };
        let (answer, received) = tokio::select! {
            done = both => done,
            () = hold_back(held, dialled, &said) => unreachable!("it carries for ever"),
        };
        assert_eq!((&answer, &received[..]), (b"as soon", &b"at once"[..]));
    });
}
