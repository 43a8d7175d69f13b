//! Lines of the access log: JSON by the names of OpenTelemetry's semantic conventions, or the combined format of web
//! servers. Pure. What of it a client has chosen is escaped.

use std::io::Write;

use ringmail_proto::records::{ApacheTime, Timestamp};

use super::object::Object;
use super::told::Told;

/// Appends a line of JSON; `own` is our SPIFFE ID.
pub(super) fn json(told: &Told, own: Option<&str>, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    object.text("timestamp", &Timestamp(told.at).to_string());
    object.text("ringmail.direction", told.direction.label());
    let (client, server) = told.identities(own);
    object.text_if("ringmail.client.identity", client);
    object.text_if("ringmail.server.identity", server);
    object.display("client.address", told.source);
    object.text("server.address", &told.host());
    object.number("server.port", told.destination.port());
    if let Some(service) = &told.service {
        object.display("ringmail.service", service);
    }
    if !told.route.is_empty() {
        object.text("ringmail.route", &told.route);
    }
    object.text("network.protocol.name", told.protocol_name());
    if let Some(request) = &told.request {
        object.text("network.protocol.version", request.version);
        object.text("http.request.method", &request.method);
        object.text("url.path", &request.path);
        object.number("http.request.body.size", told.request_bytes());
        object.number("http.response.body.size", told.response_bytes());
        for (at, (name, _)) in request.headers.iter().enumerate() {
            // All values of a name at once, where it is first.
            let is_new = !request.headers[..at].iter().any(|(known, _)| known == name);
            if is_new {
                let values = request.headers.iter().filter(|(known, _)| known == name);
                let name = format!("http.request.header.{name}");
                object.texts(&name, values.map(|(_, value)| &**value));
            }
        }
    } else {
        object.number("ringmail.sent.size", told.sent);
        object.number("ringmail.received.size", told.received);
    }
    if let Some(status) = told.status {
        object.number("http.response.status_code", status);
    }
    if let Some(status) = told.grpc_status {
        object.number("rpc.grpc.status_code", status);
    }
    if let Some(reason) = told.reason {
        object.text("ringmail.reason", reason.row().label);
    }
    if let Some(decision) = told.decision {
        object.display("ringmail.decision", decision);
    }
    if let Some(first_byte) = told.first_byte {
        object.seconds("ringmail.first_byte", first_byte);
    }
    object.seconds("duration", told.took);
    if let Some(trace) = told.trace {
        object.display("trace_id", trace);
    }
    if let Some(span) = &told.span {
        object.display("span_id", span.id);
    }
    object.end();
    out.push(b'\n');
}

/// Appends a line in the combined log format; the user is whoever asked, by SPIFFE ID.
pub(super) fn text(told: &Told, own: Option<&str>, out: &mut Vec<u8>) {
    let (client, _) = told.identities(own);
    let header = |wanted: &str| {
        let mut headers = told.request.iter().flat_map(|request| &request.headers);
        let found = headers.find(|(name, _)| name == wanted);
        found.map_or("-", |(_, value)| value)
    };
    let line = match &told.request {
        Some(request) => format!(
            "{} {} HTTP/{}",
            request.method, request.path, request.version
        ),
        None => format!("TCP {}", told.destination),
    };
    let status = told
        .status
        .map_or("-".to_owned(), |status| status.to_string());
    let bytes = match told.request {
        Some(_) => told.response_bytes(),
        None => told.sent + told.received,
    };
    // A vector takes all that is written.
    let _ = writeln!(
        out,
        "{} - {} [{}] \"{}\" {status} {bytes} \"{}\" \"{}\"",
        told.source,
        client.unwrap_or("-"),
        ApacheTime(told.at),
        quoted(&line),
        quoted(header("referer")),
        quoted(header("user-agent")),
    );
}

/// As Apache does: quotes, backslashes and what is no visible ASCII become escapes.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::records::told::tests::told;
    use serde_json::Value;

    fn line(told: &Told, own: Option<&str>) -> Value {
        let mut out = Vec::new();
        json(told, own, &mut out);
        assert_eq!(out.pop(), Some(b'\n'));
        serde_json::from_slice(&out).expect("one object")
    }

    #[test]
    fn json_has_the_names_of_the_conventions() {
        let mut told = told(
            "/a\u{1}b?secret=1",
            &[
                ("host", "[fd00::1]:80"),
                ("x-tenant", "\"\n"),
                ("X-Request-Id", "7"),
                ("X-Tenant", "b"),
            ],
        );
        told.answered(204, Duration::from_micros(1500));
        told.moved(7, 5);
        let found = line(&told, Some("spiffe://mesh.local/ns/shop/sa/us"));
        let expected = serde_json::json!({
            "ringmail.direction": "inbound",
            "ringmail.client.identity": "spiffe://mesh.local/ns/shop/sa/them",
            "ringmail.server.identity": "spiffe://mesh.local/ns/shop/sa/us",
            "server.address": "fd00::1",
            "server.port": 8080,
            "client.address": "10.0.0.2",
            "network.protocol.name": "http",
            "network.protocol.version": "1.1",
            "http.request.method": "GET",
            "url.path": "/a\u{1}b",
            "http.request.header.x-tenant": ["\"\n", "b"],
            "http.request.header.x-request-id": ["7"],
            "http.response.status_code": 204,
            "http.request.body.size": 5,
            "http.response.body.size": 7,
            "ringmail.first_byte": 0.0015,
        });
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(found[name], *value, "{name}");
        }
        assert!(!found.to_string().contains("secret"));
    }

    #[test]
    fn text_is_one_line_whatever_a_client_says() {
        let headers = [("user-agent", "a\"\\\n\u{e4}"), ("x-tenant", "t")];
        let mut told = told("/", &headers);
        told.answered(200, Duration::ZERO);
        let mut out = Vec::new();
        text(&told, None, &mut out);
        let found = String::from_utf8(out).expect("ASCII");
        let begin = "10.0.0.2 - spiffe://mesh.local/ns/shop/sa/them [";
        let end = "] \"GET / HTTP/1.1\" 200 0 \"-\" \"a\\\"\\\\\\x0a\\xc3\\xa4\"\n";
        assert!(found.starts_with(begin) && found.ends_with(end), "{found}");
    }
}
