//! Records as the OpenTelemetry protocol has them, by its semantic conventions. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmail_proto::otlp::collector::logs::v1::ExportLogsServiceRequest;
use ringmail_proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
use ringmail_proto::otlp::common::v1::any_value::Value;
use ringmail_proto::otlp::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use ringmail_proto::otlp::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use ringmail_proto::otlp::resource::v1::Resource;
use ringmail_proto::otlp::trace::v1::span::SpanKind;
use ringmail_proto::otlp::trace::v1::status::StatusCode;
use ringmail_proto::otlp::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::told::{Request, Told};
use crate::config::Config;
use crate::metrics::Direction;

/// Methods that spans are named after; others are one to them (RFC 9110 section 9, RFC 5789).
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];
/// A log record's severity.
const WARNING: (i32, &str) = (13, "WARN");
const INFORMATION: (i32, &str) = (9, "INFO");

/// A line of the audit on its way to a collector.
#[derive(Debug)]
pub(crate) struct Line {
    pub(super) at: SystemTime,
    /// As it is written elsewhere.
    pub(super) text: String,
    /// Somebody was refused, or something was lost.
    pub(super) is_warning: bool,
}

/// Whose proxy this is.
pub(super) fn resource(config: &Config) -> Resource {
    let (pod, owner) = (&config.workload, &config.owner);
    let mut attributes = Attributes::default();
    attributes.text("service.name", &owner.name);
    attributes.text("service.namespace", &pod.namespace);
    attributes.text("k8s.namespace.name", &pod.namespace);
    attributes.text("k8s.pod.name", &pod.name);
    Resource {
        attributes: attributes.0,
    }
}

/// What is sent of those records that are spans; `own` is our SPIFFE ID.
pub(super) fn spans<'a>(
    resource: &Resource,
    told: impl Iterator<Item = &'a Told>,
    own: Option<&str>,
) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans: told.filter_map(|told| span(told, own)).collect(),
            }],
        }],
    }
}

/// What is sent of lines of the audit: each as it is, so that the chain can be verified there.
pub(super) fn lines(resource: &Resource, lines: Vec<Line>) -> ExportLogsServiceRequest {
    let record = |line: Line| {
        let severity = match line.is_warning {
            true => WARNING,
            false => INFORMATION,
        };
        LogRecord {
            time_unix_nano: nanoseconds(line.at),
            observed_time_unix_nano: nanoseconds(line.at),
            severity_number: severity.0,
            severity_text: severity.1.to_owned(),
            body: Some(value(Value::StringValue(line.text))),
            attributes: Vec::new(),
            event_name: "ringmail.audit".to_owned(),
        }
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource.clone()),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: lines.into_iter().map(record).collect(),
            }],
        }],
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "ringmail-proxy".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Of our app's own requests a client's span, of those to it a server's.
fn span(told: &Told, own: Option<&str>) -> Option<Span> {
    let (ours, request) = (told.span.as_ref()?, told.request.as_ref()?);
    let method = known(&request.method);
    let (kind, fails_from) = match told.direction {
        Direction::Outbound => (SpanKind::Client, 400),
        Direction::Inbound => (SpanKind::Server, 500),
    };
    let failed = told.status.is_none_or(|status| status >= fails_from);
    let mut attributes = Attributes::default();
    attributes.of_request(told, request, method);
    attributes.of_mesh(told, own);
    if failed {
        attributes.text("error.type", &error_type(told));
    }
    let start = nanoseconds(told.at);
    Some(Span {
        trace_id: ours.trace.0.to_vec(),
        span_id: ours.id.0.to_vec(),
        trace_state: ours.state.to_string(),
        parent_span_id: ours.parent.map(|id| id.0.to_vec()).unwrap_or_default(),
        name: match method {
            "_OTHER" => "HTTP".to_owned(),
            method => method.to_owned(),
        },
        kind: kind.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(whole(told.took)),
        attributes: attributes.0,
        status: failed.then(|| Status {
            message: told
                .reason
                .map_or_else(String::new, |reason| reason.row().explanation.to_owned()),
            code: StatusCode::Error.into(),
        }),
        flags: ours.flags().into(),
    })
}

fn known(method: &str) -> &'static str {
    let known = METHODS.into_iter().find(|known| *known == method);
    known.unwrap_or("_OTHER")
}

fn error_type(told: &Told) -> String {
    match (told.reason, told.status) {
        (Some(reason), _) => reason.row().label.to_owned(),
        (None, Some(status)) => status.to_string(),
        (None, None) => "broken".to_owned(),
    }
}

#[derive(Debug, Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, key: &str, of: Value) {
        self.0.push(KeyValue {
            key: key.to_owned(),
            value: Some(value(of)),
        });
    }

    fn text(&mut self, key: &str, text: &str) {
        self.put(key, Value::StringValue(text.to_owned()));
    }

    fn number(&mut self, key: &str, number: impl Into<i64>) {
        self.put(key, Value::IntValue(number.into()));
    }

    fn bytes(&mut self, key: &str, bytes: u64) {
        self.number(key, i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn of_request(&mut self, told: &Told, request: &Request, method: &str) {
        self.text("http.request.method", method);
        if method == "_OTHER" {
            self.text("http.request.method_original", &request.method);
        }
        let host = told.host();
        self.text("server.address", &host);
        self.number("server.port", told.destination.port());
        match told.direction {
            Direction::Outbound => {
                let authority = request.host.as_deref().unwrap_or(&host);
                self.text("url.full", &format!("http://{authority}{}", request.path));
            }
            Direction::Inbound => {
                self.text("url.path", &request.path);
                self.text("url.scheme", "http");
                self.text("client.address", &told.source.to_string());
            }
        }
        self.text("network.protocol.name", "http");
        self.text("network.protocol.version", request.version);
        self.bytes("http.request.body.size", told.request_bytes());
        self.bytes("http.response.body.size", told.response_bytes());
        if let Some(status) = told.status {
            self.number("http.response.status_code", status);
        }
        if let Some(status) = told.grpc_status {
            self.number("rpc.grpc.status_code", status);
        }
    }

    fn of_mesh(&mut self, told: &Told, own: Option<&str>) {
        let (client, server) = told.identities(own);
        let service = told.service.as_ref().map(ToString::to_string);
        let decision = told.decision.map(|decision| decision.to_string());
        let known = [
            ("ringmail.client.identity", client),
            ("ringmail.server.identity", server),
            ("ringmail.service", service.as_deref()),
            (
                "ringmail.route",
                Some(&*told.route).filter(|route| !route.is_empty()),
            ),
            (
                "ringmail.reason",
                told.reason.map(|reason| reason.row().label),
            ),
            ("ringmail.decision", decision.as_deref()),
        ];
        for (key, text) in known {
            if let Some(text) = text {
                self.text(key, text);
            }
        }
    }
}

fn value(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

/// Since the Unix epoch.
fn nanoseconds(at: SystemTime) -> u64 {
    whole(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn whole(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
