//! Is one direction of a TCP connection TLS 1.3, from its first byte? Read as a stream, nothing kept but the record
//! under way.
//!
//! The hellos are in the clear; a server's must choose 1.3. After the hello only opaque records may come (RFC 8446,
//! section 5), and those of change_cipher_spec, which mean nothing. A plaintext alert ends a handshake that failed.

/// RFC 8446, section 5.2.
const RECORD_BYTES_MAX: usize = (1 << 14) + 256;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// The state of a stream.
#[derive(Debug, Default)]
pub struct TlsStream {
    pending: Vec<u8>,
    /// Records that were opaque.
    pub opaque_records: u64,
    /// Why this is not TLS 1.3, once it is not.
    pub problem: Option<String>,
    hellos: u32,
}

impl TlsStream {
    /// Takes the next bytes.
    pub fn read(&mut self, bytes: &[u8]) {
        if self.problem.is_some() {
            return;
        }
        self.pending.extend(bytes);
        let mut start = 0;
        while let Some(header) = self.pending.get(start..start + 5) {
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            if header[1] != 3
                || length > RECORD_BYTES_MAX
                || !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&header[0])
            {
                self.problem = Some(format!(
                    "not a TLS record: {:?}",
                    String::from_utf8_lossy(header)
                ));
                return;
            }
            let kind = header[0];
            let Some(record) = self.pending.get(start + 5..start + 5 + length) else {
                break;
            };
            self.problem = judge(kind, record, self.opaque_records, &mut self.hellos);
            self.opaque_records += u64::from(kind == APPLICATION_DATA);
            start += 5 + length;
        }
        self.pending.drain(..start);
    }
}

fn judge(kind: u8, record: &[u8], opaque_records: u64, hellos: &mut u32) -> Option<String> {
    const CLIENT_HELLO: u8 = 1;
    const SERVER_HELLO: u8 = 2;
    match (kind, record.first()) {
        (HANDSHAKE, Some(&CLIENT_HELLO)) if opaque_records == 0 => {
            *hellos += 1;
            None
        }
        (HANDSHAKE, Some(&SERVER_HELLO)) if opaque_records == 0 => {
            *hellos += 1;
            // Extension 43 (supported_versions), two bytes long, 0x0304.
            let chooses_tls13 = record
                .windows(6)
                .any(|window| window == [0, 43, 0, 2, 3, 4]);
            (!chooses_tls13).then(|| "the server chose a TLS version below 1.3".into())
        }
        (APPLICATION_DATA, _) if *hellos == 0 => Some("opaque records before a hello".into()),
        (APPLICATION_DATA | ALERT, _) => None,
        (CHANGE_CIPHER_SPEC, _) => {
            (record != [1]).then(|| "a change_cipher_spec of more than one byte".into())
        }
        (kind, first) => Some(format!(
            "a record of kind {kind}, message {first:?}, in the clear"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short");
        [&[kind, 3, 3][..], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn streams() {
        let hello = record(HANDSHAKE, &[1, 0, 0, 0]);
        let server = record(HANDSHAKE, &[2, 0, 0, 6, 0, 43, 0, 2, 3, 4]);
        let data = record(APPLICATION_DATA, &[7; 40]);
        let change = record(CHANGE_CIPHER_SPEC, &[1]);
        let rows = [
            (vec![&hello, &change, &data, &data], true),
            (vec![&server, &change, &data], true),
            (vec![&data], false),
            (vec![&hello, &data, &hello], false),
        ];
        for (row, (parts, good)) in rows.into_iter().enumerate() {
            let bytes: Vec<u8> = parts.into_iter().flatten().copied().collect();
            for size in [1, 3, bytes.len()] {
                let mut stream = TlsStream::default();
                bytes.chunks(size).for_each(|chunk| stream.read(chunk));
                assert_eq!(stream.problem.is_none(), good, "row {row}: {stream:?}");
            }
        }
    }

    /// A handshake of rustls, then a word from the client.
    #[test]
    fn a_real_connection() -> Result<(), Box<dyn std::error::Error>> {
        let made = rcgen::generate_simple_self_signed(["app".to_owned()])?;
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let mut client = rustls::ClientConnection::new(Arc::new(client), "app".try_into()?)?;
        let mut server = rustls::ServerConnection::new(Arc::new(server))?;
        client.writer().write_all(b"a word")?;
        let (mut up, mut down) = (TlsStream::default(), TlsStream::default());
        while client.wants_write() || server.wants_write() {
            let (mut sent, mut answered) = (Vec::new(), Vec::new());
            while client.wants_write() {
                client.write_tls(&mut sent)?;
            }
            up.read(&sent);
            server.read_tls(&mut sent.as_slice())?;
            server.process_new_packets()?;
            while server.wants_write() {
                server.write_tls(&mut answered)?;
            }
            down.read(&answered);
            client.read_tls(&mut answered.as_slice())?;
            client.process_new_packets()?;
        }
        assert!(up.problem.is_none() && up.opaque_records >= 2, "{up:?}");
        assert!(
            down.problem.is_none() && down.opaque_records >= 2,
            "{down:?}"
        );
        Ok(())
    }

    #[test]
    fn plaintext_and_older_versions() {
        let tls12 = record(HANDSHAKE, &[2, 0, 0, 6, 0, 0, 0, 0, 0, 0]);
        let certificate = [
            record(HANDSHAKE, &[2, 0, 43, 0, 2, 3, 4]),
            record(HANDSHAKE, &[11, 0, 0, 0]),
        ]
        .concat();
        for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), tls12, certificate] {
            let mut stream = TlsStream::default();
            stream.read(&bytes);
            assert!(stream.problem.is_some(), "{bytes:?}");
        }
    }
}
