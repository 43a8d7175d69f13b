use super::*;
use proptest::prelude::*;

/// A vector with a length of so many bytes before it.
fn vector(length_bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_be_bytes();
    [&length[4 - length_bytes..], content].concat()
}

fn server_name(names: &[(u8, &str)]) -> Vec<u8> {
    let names = names
        .iter()
        .flat_map(|(kind, name)| [vec![*kind], vector(2, name.as_bytes())].concat());
    extension(SERVER_NAME, &vector(2, &names.collect::<Vec<_>>()))
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(2, content)].concat()
}

/// A ClientHello with such extensions, as a message.
fn hello(extensions: &[u8]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &vector(1, &[9; 32]),
        &vector(2, &[0x13, 0x01, 0x13, 0x02]),
        &vector(1, &[0]),
        &vector(2, extensions),
    ]
    .concat();
    [&[CLIENT_HELLO][..], &vector(3, &body)].concat()
}

/// The message in records of so many bytes.
fn records(message: &[u8], bytes: usize) -> Vec<u8> {
    let record = |content: &[u8]| [&[HANDSHAKE, 3, 1][..], &vector(2, content)].concat();
    message.chunks(bytes).flat_map(record).collect()
}

fn named(name: &str) -> Hello {
    Hello::Tls(Some(name.to_owned()))
}

#[test]
fn names_as_clients_say_them() {
    let others = extension(43, &[2, 3, 4]);
    let one = server_name(&[(HOST_NAME, "A.example")]);
    let rows = [
        (one.clone(), named("a.example")),
        ([others.clone(), one.clone()].concat(), named("a.example")),
        (others, Hello::Tls(None)),
        (Vec::new(), Hello::Tls(None)),
        ([one.clone(), one].concat(), Hello::Not),
        (server_name(&[(HOST_NAME, "")]), Hello::Not),
        (server_name(&[(1, "a.example")]), Hello::Not),
        (
            server_name(&[(HOST_NAME, "a"), (HOST_NAME, "b")]),
            Hello::Not,
        ),
        (server_name(&[(HOST_NAME, "a b")]), Hello::Not),
        (server_name(&[]), Hello::Not),
        (vec![0, 0, 0], Hello::Not),
    ];
    for (extensions, expected) in rows {
        let message = hello(&extensions);
        for bytes in [1, 2, 7, RECORD_BYTES_MAX] {
            assert_eq!(
                client_hello(&records(&message, bytes)),
                expected,
                "{extensions:?}"
            );
        }
    }
}

#[test]
fn what_is_no_tls_is_known_by_its_first_bytes() {
    let too_long = [&[HANDSHAKE, 3, 1][..], &vector(2, &[CLIENT_HELLO, 1, 0, 1])].concat();
    let rows: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\n",
        b"S",
        &[HANDSHAKE, 2],
        &[HANDSHAKE, 3, 1, 0, 0],
        &[HANDSHAKE, 3, 1, 0x40, 1],
        &[HANDSHAKE, 3, 1, 0, 1, 2],
        &[21, 3, 1, 0, 2, 1, 0],
        &too_long,
    ];
    for bytes in rows {
        assert_eq!(client_hello(bytes), Hello::Not, "{bytes:?}");
    }
    assert_eq!(client_hello(&[]), Hello::More);
    // A session id that is longer than the message.
    let mut message = hello(&[]);
    message[MESSAGE_HEADER_BYTES + 34] = 255;
    assert_eq!(client_hello(&records(&message, 100)), Hello::Not);
}

#[test]
fn a_real_clients_hello_is_read() {
    let roots = rustls::RootCertStore::empty();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "shop.example".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let mut sent = Vec::new();
    client.write_tls(&mut sent).expect("bytes");
    assert_eq!(client_hello(&sent), named("shop.example"));
    for end in 0..sent.len() {
        assert_eq!(client_hello(&sent[..end]), Hello::More, "{end}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = client_hello(&bytes);
        let _ = client_hello(&records(&bytes, 20));
        let message = [&[CLIENT_HELLO][..], &vector(3, &bytes)].concat();
        prop_assert_ne!(client_hello(&records(&message, 20)), Hello::More);
    }
}
