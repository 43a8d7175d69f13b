//! Every metric of the proxy. Each series also has the labels `namespace` and `workload`: whose proxy it is.
//!
//! Values of labels are either words of ours or names: of peers from verified certificates, of services, routes,
//! policies and limits from the controller, and addresses of clients. No request chooses one.

use ringmail_proto::catalogue::{Kind, Metric};
use ringmail_proto::process;

macro_rules! catalogue {
    ($($ident:ident: $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(#[doc = $help] pub const $ident: Metric = Metric::new(Kind::$kind, $name, &[$($label),*], $help);)*
        /// All of them, with what any process has.
        pub const ALL: &[&Metric] = &[
            $(&$ident,)*
            process::RESIDENT,
            process::CPU,
            process::OPEN_FILES,
            process::FILES_MAX,
            process::START,
        ];
    };
}

catalogue! {
    REQUESTS_STARTED: Counter "ringmail_requests_started_total" ["direction" "service" "route" "protocol"]
        "HTTP requests that began; less those that are over, those under way";
    REQUESTS: Counter "ringmail_requests_total" ["direction" "peer" "service" "route" "protocol" "tls" "outcome"]
        "HTTP requests that are over, by how they ended";
    REQUEST_DURATION: Histogram "ringmail_request_duration_seconds" ["direction" "peer" "service" "route" "protocol" "tls"]
        "From the request's head to the response's head";
    RESPONSES: Counter "ringmail_responses_total" ["direction" "code"]
        "Responses to HTTP requests, refusals of ours aside, by status code";
    GRPC_RESPONSES: Counter "ringmail_grpc_responses_total" ["direction" "peer" "service" "grpc_status"]
        "Responses to gRPC calls, by status code";
    CONNECTIONS_STARTED: Counter "ringmail_connections_started_total" ["direction" "peer" "service" "tls"]
        "Opaque TCP connections that began";
    CONNECTIONS: Counter "ringmail_connections_total" ["direction" "peer" "service" "tls" "outcome"]
        "Opaque TCP connections that are over, by how they ended";
    CONNECTIONS_OPEN: Gauge "ringmail_connections_open" ["direction"]
        "TCP connections of the app now";
    TRANSFERRED: Counter "ringmail_transferred_bytes_total" ["direction" "peer" "service" "protocol" "flow"]
        "Bytes of bodies and of opaque connections";
    PLAINTEXT: Counter "ringmail_plaintext_total" ["client"]
        "Connections of others that came in plaintext, by the client's address, taken or not";
    AUTHORIZATIONS: Counter "ringmail_authorizations_total" ["policy" "verdict" "shadow"]
        "Streams judged by policy, by what decided; with shadow, by what would decide";
    DENIALS: Counter "ringmail_denials_total" ["peer" "policy" "reason"]
        "Refusals of the app's clients and of what the app asks, by policy or rate limit";
    CHECKS: Histogram "ringmail_authorization_check_duration_seconds" ["policy" "result"]
        "What external authorizers took to answer, or we to give up, by result";
    REFUSALS: Counter "ringmail_refusals_total" ["direction" "reason"]
        "Requests and connections refused or broken, by reason";
    HANDSHAKES: Counter "ringmail_handshakes_total" ["direction" "result" "group"]
        "TLS handshakes with other proxies";
    HANDSHAKE_DURATION: Histogram "ringmail_handshake_duration_seconds" ["direction"]
        "TLS handshakes that succeeded";
    DETECTIONS: Counter "ringmail_detections_total" ["protocol" "by"]
        "Protocols of outbound connections, declared or detected";
    RATE_LIMIT_DECISIONS: Counter "ringmail_rate_limit_decisions_total" ["limit" "scope" "outcome" "shadow"]
        "Requests and connections that a rate limit was for; with shadow, what it would decide";
    RATE_LIMIT_LEDGER_UP: Gauge "ringmail_rate_limit_ledger_up" []
        "1 while the ledger of rate limits leases; 0 also while no limit needs it";
    RATE_LIMIT_FALLBACK: Gauge "ringmail_rate_limit_fallback_active" []
        "1 while the ledger is away and rate limits in use do as their onUnavailable says";
    RATE_LIMIT_WAITS: Histogram "ringmail_rate_limit_wait_duration_seconds" []
        "How long requests waited for tokens of rate limits, those that did";
    RATE_LIMIT_LEDGER_DURATION: Histogram "ringmail_rate_limit_ledger_duration_seconds" []
        "What the ledger of rate limits took to answer";
    AUDIT_RECORDS: Counter "ringmail_audit_records_total" ["verdict"]
        "Refusals and uses that the audit has, by verdict";
    AUDIT_LOST: Counter "ringmail_audit_lost_total" []
        "Refusals and uses without a line in the audit: there were too many at once, or no room";
    AUDIT_EXPORTS: Counter "ringmail_audit_exports_total" ["result"]
        "Lines of the audit that were for the collector, by whether it took them";
    ACCESS_LOG_RECORDS: Counter "ringmail_access_log_records_total" []
        "Lines of the access log that were written";
    ACCESS_LOG_LOST: Counter "ringmail_access_log_lost_total" []
        "Lines of the access log that could not be written in time";
    SPANS: Counter "ringmail_spans_total" ["result"]
        "Spans, by whether the collector took them";
    EGRESS_AUDITED: Counter "ringmail_egress_audited_total" []
        "Connections that left the mesh where it is audited";
    MIRRORED: Counter "ringmail_mirrored_total" ["result"]
        "Copies of requests for mirrors";
    ENDPOINT_EJECTIONS: Counter "ringmail_endpoint_ejections_total" ["peer" "cause"]
        "Endpoints that a worker asks no more, by why";
    ENDPOINT_RECOVERIES: Counter "ringmail_endpoint_recoveries_total" ["peer"]
        "Ejected endpoints that answered and were taken back";
    RETRIES: Counter "ringmail_retries_total" ["cause" "result"]
        "Requests sent again, by why, and those that the budget did not allow";
    IDENTITY: Gauge "ringmail_identity" ["identity"]
        "1 for the identity that our certificate proves";
    CERTIFICATE_ISSUED: Gauge "ringmail_certificate_issued_timestamp_seconds" []
        "When our certificate was issued";
    CERTIFICATE_EXPIRY: Gauge "ringmail_certificate_expiry_timestamp_seconds" []
        "When our certificate ends";
    CERTIFICATE_RENEWALS: Counter "ringmail_certificate_renewals_total" ["result"]
        "Certificates asked for";
    CONTROL_CONNECTED: Gauge "ringmail_control_connected" []
        "1 while the controller is reached";
    CONTROL_HEARD: Gauge "ringmail_control_heard_timestamp_seconds" []
        "When the controller last confirmed what is in force";
    CONTROL_UPDATES: Counter "ringmail_control_updates_total" ["result"]
        "Configuration received, by whether it was accepted";
    CAPTURE_IN_FORCE: Gauge "ringmail_capture_in_force" []
        "1 while the redirect rules are in force";
    SERIES: Gauge "ringmail_metrics_series" []
        "Series of this page whose labels are names, such as peers";
    SERIES_MAX: Gauge "ringmail_metrics_series_max" []
        "How many of these there may be";
    OVERFLOW: Counter "ringmail_metrics_overflow_total" []
        "Times that something was counted as overflow, for want of series";
    BUILD: Info "ringmail_build_info" ["version"]
        "This program";
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmail_proto::catalogue::problems;

    #[test]
    fn names_are_as_they_should_be() {
        assert_eq!(problems(ALL), Vec::<String>::new());
    }
}
