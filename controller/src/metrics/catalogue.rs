//! Everything the controller counts, one row each. `Metrics` registers from here; the README's table, the
//! dashboards and the alerts are held against it.
//!
//! Labels have few values each (`labels.rs` lists them); but for `limit`, one for each limit there is, and `kind`, one for each
//! kind of object that is watched.

use ringmail_proto::catalogue::Kind::{Counter, Gauge, Histogram, Info};
use ringmail_proto::catalogue::Metric;
use ringmail_proto::process;

/// One constant for a row, and the list of all.
macro_rules! rows {
    ($($row:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal)*) => {
        $(pub(super) const $row: &Metric = &Metric::new($kind, $name, &[$($label),*], $help);)*

        /// All there are, with what any process has.
        pub const ALL: &[&Metric] = &[
            $($row,)*
            process::RESIDENT,
            process::CPU,
            process::OPEN_FILES,
            process::FILES_MAX,
            process::START,
        ];
    };
}

rows! {
    SOURCE_OBJECTS: Gauge "ringmail_controller_source_objects" [] "Objects in force"
    SOURCE_FILES_REFUSED: Gauge "ringmail_controller_source_files_refused" [] "Source files whose content is not in force"
    SOURCE_OBJECTS_REFUSED: Gauge "ringmail_controller_source_objects_refused" [] "Objects of the cluster whose value is not in force"
    SNAPSHOT_SEQUENCE: Gauge "ringmail_controller_snapshot_sequence" [] "Place of the current state in its epoch"
    SNAPSHOT_PROBLEMS: Gauge "ringmail_controller_snapshot_problems" [] "Contradictions in the objects in force"
    WORKLOADS: Gauge "ringmail_controller_workloads" [] "Live pods"
    WORKLOADS_MESHED: Gauge "ringmail_controller_workloads_meshed" [] "Live pods with a sidecar"
    PODS_UNCOVERED: Gauge "ringmail_controller_pods_uncovered" [] "Running pods that should have a sidecar and have none, as the leader counts"
    ISSUER_EXPIRY: Gauge "ringmail_controller_issuer_expiry_timestamp_seconds" [] "End of the issuer certificate's validity"
    ISSUER_REFUSED: Gauge "ringmail_controller_issuer_refused" [] "Whether the issuer's Secret holds one that is not taken"
    CERTIFICATE_ISSUED: Gauge "ringmail_controller_certificate_issued_timestamp_seconds" [] "When the controller's own certificate was made"
    CERTIFICATE_EXPIRY: Gauge "ringmail_controller_certificate_expiry_timestamp_seconds" [] "End of the controller's own certificate's validity"
    CERTIFY_REQUESTS: Counter "ringmail_controller_certify_requests_total" ["outcome", "credential"] "Certificate requests"
    HANDSHAKES: Counter "ringmail_controller_handshakes_total" ["outcome"] "TLS handshakes of callers"
    CONNECTIONS: Gauge "ringmail_controller_connections" [] "Open connections"
    PROXIES_CONNECTED: Gauge "ringmail_controller_proxies_connected" [] "Proxies that watch this replica"
    PROXIES_BEHIND: Gauge "ringmail_controller_proxies_behind" [] "Of those, proxies that have left a response without an answer for more than 5 s"
    WATCH_STREAMS: Gauge "ringmail_controller_watch_streams" [] "Open watch streams"
    WATCH_STREAM_ENDS: Counter "ringmail_controller_watch_stream_ends_total" ["reason"] "Watch streams that ended or were not admitted"
    WATCH_RESPONSES: Counter "ringmail_controller_watch_responses_total" ["cause"] "Responses sent to proxies"
    WATCH_ACKS: Counter "ringmail_controller_watch_acks_total" [] "Responses that proxies took"
    WATCH_NACKS: Counter "ringmail_controller_watch_nacks_total" [] "Responses that proxies refused"
    WATCH_RESPONSES_OUTSTANDING: Gauge "ringmail_controller_watch_responses_outstanding" [] "Responses sent and not yet answered"
    WATCH_ACK_DURATION: Histogram "ringmail_controller_watch_ack_duration_seconds" [] "From a response to the proxy's answer that it took it"
    LEADER: Gauge "ringmail_controller_leader" [] "Whether this replica writes into the cluster"
    WATCH_FAILURES: Counter "ringmail_controller_watch_failures_total" ["kind"] "Watches of the cluster that broke"
    WRITES: Counter "ringmail_controller_writes_total" ["object", "outcome"] "Writes into the cluster"
    WEBHOOK_REQUESTS: Counter "ringmail_controller_webhook_requests_total" ["webhook", "outcome"] "Calls of the API server"
    WEBHOOK_DURATION: Histogram "ringmail_controller_webhook_duration_seconds" ["webhook"] "From the head of such a call to its answer"
    JWKS_REFRESHES: Counter "ringmail_controller_jwks_refreshes_total" [] "Fetches of the JWT issuer's keys"
    JWKS_FAILURES: Counter "ringmail_controller_jwks_failures_total" [] "Fetches of the JWT issuer's keys that failed"
    LEDGER_SESSIONS: Gauge "ringmail_controller_ledger_sessions" [] "Proxies that lease tokens of rate limits"
    LEDGER_TOKENS_LEASED: Counter "ringmail_controller_ledger_tokens_leased_total" [] "Tokens of rate limits leased to proxies"
    LEDGER_TOKENS_RETURNED: Counter "ringmail_controller_ledger_tokens_returned_total" [] "Tokens of rate limits that proxies gave back unspent"
    LEDGER_SHARE_USED: Gauge "ringmail_controller_ledger_share_used" ["limit"] "The part of what a rate limit lets through that its busiest key used of late"
    LEDGER_HOME_UP: Gauge "ringmail_controller_ledger_home_up" [] "Whether the ledger of rate limits is kept here"
    LEDGER_EXCHANGES: Counter "ringmail_controller_ledger_exchanges_total" ["outcome"] "Exchanges with the server that keeps the ledger"
    LEDGER_EXCHANGE_DURATION: Histogram "ringmail_controller_ledger_exchange_seconds" [] "How long these took"
    BUILD: Info "ringmail_controller_build_info" ["version"] "Which controller this is"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_they_should_be() {
        assert_eq!(
            ringmail_proto::catalogue::problems(ALL),
            Vec::<String>::new()
        );
    }
}
