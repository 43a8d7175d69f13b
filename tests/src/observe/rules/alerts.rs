//! What is worth waking somebody (critical), or telling them today (warning).

use super::recording::share;
use super::{Alert, Group, Rule, Severity, grew, minutes};
use crate::observe::tempo::Tempo;

/// All of them.
#[must_use]
pub fn alerts(tempo: Tempo) -> Vec<Group> {
    let groups = [
        ("ringmail-certificates", certificates(tempo)),
        ("ringmail-control-plane", control(tempo)),
        ("ringmail-cluster", cluster(tempo)),
        ("ringmail-security", security(tempo)),
        ("ringmail-records", records(tempo)),
        ("ringmail-error-budget", budget(tempo)),
    ];
    groups
        .into_iter()
        .map(|(name, alerts)| Group {
            name,
            rules: alerts.into_iter().map(Rule::Alert).collect(),
        })
        .collect()
}

/// Which proxy it is.
const PROXY: &str = "namespace, workload, pod, instance";

fn certificates(tempo: Tempo) -> Vec<Alert> {
    let quarter = minutes(tempo, 15);
    let renewals = |which: &str| {
        format!(
            "sum by ({PROXY}) (increase(ringmail_certificate_renewals_total{{result{which}}}[{quarter}]))"
        )
    };
    vec![
        Alert {
            name: "RingmailCertificateOld",
            severity: Severity::Critical,
            window: None,
            expression: "(\n  \
                 (time() - ringmail_certificate_issued_timestamp_seconds)\n  \
                 / (ringmail_certificate_expiry_timestamp_seconds - ringmail_certificate_issued_timestamp_seconds)\n  \
                 > 0.75\n)\nand ringmail_certificate_issued_timestamp_seconds > 0"
                .into(),
            wait: tempo.wait(60),
            summary: "The certificate of {{ $labels.namespace }}/{{ $labels.workload }} is past {{ $value | humanizePercentage }} of its life",
            description: "Proxies renew at about half of a certificate's life. When it ends, the proxy of pod {{ $labels.pod }} ({{ $labels.instance }}) \
                          lets nothing in or out.",
            action: "See why renewals fail: the proxy's log, ringmail_certificate_renewals_total, and the controller's log. Is the controller reached \
                     (RingmailProxyDisconnected)? Has the pod's service account changed?",
        },
        Alert {
            name: "RingmailRenewalsFailing",
            severity: Severity::Warning,
            window: None,
            expression: format!(
                "{} > 0\nunless on ({PROXY})\n{} > 0",
                renewals("!=\"ok\""),
                renewals("=\"ok\"")
            ),
            wait: tempo.wait(300),
            summary: "The proxy of {{ $labels.namespace }}/{{ $labels.workload }} gets no new certificate",
            description: "All renewals of pod {{ $labels.pod }} ({{ $labels.instance }}) failed for a while. The certificate that it has serves until it ends.",
            action: "Look at ringmail_controller_certify_requests_total by outcome: denied is the credential, unknown_workload the pod, rate_limited too \
                     many at once, failed the authority. Nothing there: the controller is not reached.",
        },
    ]
}

fn control(tempo: Tempo) -> Vec<Alert> {
    vec![
        Alert {
            name: "RingmailProxyDisconnected",
            severity: Severity::Warning,
            window: None,
            expression: "ringmail_control_connected == 0".into(),
            wait: tempo.wait(300),
            summary: "The proxy of {{ $labels.namespace }}/{{ $labels.workload }} does not reach the controller",
            description: "Pod {{ $labels.pod }} ({{ $labels.instance }}) keeps what it has learnt. It hears of no change, learns of no new destination, and its \
                          certificate ends in time.",
            action: "Is the controller up and ready? Do network policies let pods reach port 15012 of ringmail-controller? The proxy's log has the reason.",
        },
        Alert {
            name: "RingmailProxiesMissing",
            severity: Severity::Warning,
            window: None,
            expression: "max(ringmail_controller_workloads_meshed) - sum(ringmail_controller_proxies_connected) > 0"
                .into(),
            wait: tempo.wait(600),
            summary: "{{ $value }} meshed pods have no proxy at the controller",
            description: "Live pods with a sidecar that watch no replica. They may be cut off, stuck, or not be scraped at all, so that no other alert tells of them.",
            action: "Pods whose ringmail_control_connected is 0 or that are not scraped; `ringmail check` names them.",
        },
        Alert {
            name: "RingmailProxiesOutOfSync",
            severity: Severity::Warning,
            window: None,
            // A proxy that does not answer is cut after 15 s, counts no more, and comes back: seen over a while.
            expression: format!(
                "max_over_time(ringmail_controller_proxies_behind[{}]) > 0",
                minutes(tempo, 5)
            ),
            wait: tempo.wait(300),
            summary: "{{ $value }} proxies of controller {{ $labels.instance }} do not follow",
            description: "They leave changes of policies, routes and endpoints without an answer for more than 5 s: what is in force there is old.",
            action: "A proxy without CPU (look at its limit) or a slow network. ringmail_controller_watch_stream_ends_total{reason=\"unacknowledged\"} \
                     counts those that were cut; the controller's log names them.",
        },
        Alert {
            name: "RingmailConfigurationRefused",
            severity: Severity::Warning,
            window: None,
            expression: format!(
                "sum by ({PROXY}) {} > 0",
                grew(
                    "ringmail_control_updates_total{result=\"nack\"}",
                    &minutes(tempo, 10)
                )
            ),
            wait: tempo.wait(0),
            summary: "The proxy of {{ $labels.namespace }}/{{ $labels.workload }} refuses its configuration",
            description: "Pod {{ $labels.pod }} ({{ $labels.instance }}) cannot act on something that it was told. It keeps what it had; a policy that it does not \
                          understand denies.",
            action: "The status of policies and routes says which and why, and so does the controller's log. Usually the proxy is older than the \
                     controller: restart the pod to get the current one.",
        },
        Alert {
            name: "RingmailLimiterDegraded",
            severity: Severity::Warning,
            window: None,
            expression: "ringmail_rate_limit_fallback_active == 1".into(),
            wait: tempo.wait(60),
            summary: "Rate limits of {{ $labels.namespace }}/{{ $labels.workload }} hold no more for all pods together",
            description: "The ledger is away, and limits do as their onUnavailable says in pod {{ $labels.pod }} ({{ $labels.instance }}): a share of their own, all, or none.",
            action: "Is there a leader among the controllers (ringmail_controller_leader)? If the ledger is in Redis: is it reached \
                     (ringmail_controller_ledger_exchanges_total)?",
        },
    ]
}

fn cluster(tempo: Tempo) -> Vec<Alert> {
    vec![
        Alert {
            name: "RingmailInjectionFailing",
            severity: Severity::Critical,
            window: None,
            expression: format!(
                "sum by (outcome) {} > 0",
                grew(
                    "ringmail_controller_webhook_requests_total{webhook=\"pods\", outcome=~\"denied|invalid|timed_out\"}",
                    &minutes(tempo, 10)
                )
            ),
            wait: tempo.wait(0),
            summary: "Pods are not admitted: {{ $labels.outcome }}",
            description: "The injector did not answer for a pod of a meshed namespace, or refused it, and the pod was not made.",
            action: "denied: the events of the pod's owner say which annotation is wrong. timed_out: the controller has too little CPU, or the API server is \
                     slow. invalid: somebody else calls, or the API server is newer than this controller.",
        },
        Alert {
            name: "RingmailPodsUncovered",
            severity: Severity::Warning,
            window: None,
            expression: "max(ringmail_controller_pods_uncovered) > 0".into(),
            wait: tempo.wait(600),
            summary: "{{ $value }} running pods should have a sidecar and have none",
            description: "They were made before their namespace was meshed, or past the webhook. They speak plaintext, and strict workloads refuse them.",
            action: "`ringmail coverage` lists them; restart their owners, or set the chart's controller.evict.",
        },
    ]
}

fn security(tempo: Tempo) -> Vec<Alert> {
    let refused = "ringmail_refusals_total{direction=\"inbound\", reason=\"mtls_required\"}";
    let five = minutes(tempo, 5);
    let taken = |metric: &str| {
        format!(
            "rate({metric}{{direction=\"inbound\", tls=\"none\", outcome!=\"refused\"}}[{five}])"
        )
    };
    vec![
        Alert {
            name: "RingmailDenialSpike",
            severity: Severity::Warning,
            window: None,
            expression: format!(
                "workload:ringmail_denials:rate5m > 0.5\nunless on (namespace, workload)\nworkload:ringmail_denials:rate5m \
                 <= 5 * avg_over_time(workload:ringmail_denials:rate5m[{}] offset {})",
                minutes(tempo, 60),
                minutes(tempo, 10)
            ),
            wait: tempo.wait(120),
            summary: "{{ $labels.namespace }}/{{ $labels.workload }} refuses {{ $value | humanize }} requests a second by policy",
            description: "More than five times what it was in the hour before. Somebody tries what they may not, or a policy has changed and refuses those who should pass.",
            action: "The dashboard Security shows who is refused by which policy. `ringmail why` explains a decision id; compare with the latest changes of policies.",
        },
        Alert {
            name: "RingmailPlaintextAttempted",
            severity: Severity::Warning,
            window: None,
            expression: format!(
                "sum by (namespace, workload) {} > 0",
                grew(refused, &minutes(tempo, 10))
            ),
            wait: tempo.wait(0),
            summary: "Somebody tries to reach {{ $labels.namespace }}/{{ $labels.workload }} in plaintext",
            description: "The workload takes mutual TLS only, and refused it: nothing got in. Somebody without a sidecar needs one, or has no business there.",
            action: "The dashboard Security lists clients by address. Mesh them, or set ringmail.io/inbound: permissive for as long as they are not.",
        },
        Alert {
            name: "RingmailPlaintextTaken",
            severity: Severity::Critical,
            window: None,
            // Only who refuses plaintext proves to be strict, and in a namespace that is strict nobody should take it.
            expression: format!(
                "sum by (namespace, workload) (\n  {}\n  or {}\n) > 0\nand on (namespace)\nsum by (namespace) {} > 0",
                taken("ringmail_requests_total"),
                taken("ringmail_connections_total"),
                grew(refused, &minutes(tempo, 1440)),
            ),
            wait: tempo.wait(60),
            summary: "{{ $labels.namespace }}/{{ $labels.workload }} takes plaintext, in a namespace that refuses it",
            description: "Another workload of the namespace, or this one before, refused plaintext within a day; this one lets it in.",
            action: "Look for ringmail.io/inbound: permissive on the pods, and take it away if it is not meant.",
        },
        Alert {
            name: "RingmailCaptureGone",
            severity: Severity::Critical,
            window: None,
            // Zero where nothing ever was captured, too: with explicit listeners.
            expression: format!(
                "ringmail_capture_in_force == 0 and max_over_time(ringmail_capture_in_force[{}]) == 1",
                minutes(tempo, 1440)
            ),
            wait: tempo.wait(60),
            summary: "Connections of {{ $labels.namespace }}/{{ $labels.workload }} go past the proxy",
            description: "The rules that bring connections of pod {{ $labels.pod }} ({{ $labels.instance }}) to its proxy are gone; the pod is unready.",
            action: "Find out who flushed nftables in the pod's network (another agent on the node, an operator), and delete the pod.",
        },
    ]
}

fn records(tempo: Tempo) -> Vec<Alert> {
    vec![
        Alert {
            name: "RingmailAuditLost",
            severity: Severity::Critical,
            window: None,
            expression: format!(
                "increase(ringmail_audit_lost_total[{}]) > 0",
                minutes(tempo, 10)
            ),
            wait: tempo.wait(0),
            summary: "The audit of {{ $labels.namespace }}/{{ $labels.workload }} has gaps",
            description: "Pod {{ $labels.pod }} ({{ $labels.instance }}) made decisions without a record of them: more than it may write at once, or whoever takes them \
                          does not keep up.",
            action: "The dashboard Security shows who causes so many decisions. Is the disk full, or the collector away?",
        },
        Alert {
            name: "RingmailSeriesOverflow",
            severity: Severity::Warning,
            window: None,
            expression: format!(
                "increase(ringmail_metrics_overflow_total[{}]) > 0",
                minutes(tempo, 10)
            ),
            wait: tempo.wait(0),
            summary: "The proxy of {{ $labels.namespace }}/{{ $labels.workload }} has more to tell apart than it may",
            description: "Some of what pod {{ $labels.pod }} ({{ $labels.instance }}) counts is under `overflow` in place of a name. Totals stay right.",
            action: "Which label has so many values? The dashboard Workload shows series in use. Series of peers that are gone go by themselves.",
        },
    ]
}

/// Burn rates of the SRE workbook (chapter 5, table 5-8): fast enough to spend so much of thirty days' budget. The short
/// window ends the alert soon after the errors.
fn budget(tempo: Tempo) -> Vec<Alert> {
    use Severity::{Critical, Warning};
    let rows = [
        (
            (Critical, "14.4", "1h", "5m", 120),
            "At this rate of the last hour, two days use up the errors that thirty may have.",
        ),
        (
            (Critical, "6", "6h", "30m", 900),
            "At this rate of the last six hours, five days use up the errors that thirty may have.",
        ),
        (
            (Warning, "3", "1d", "2h", 3600),
            "At this rate of the last day, ten days use up the errors that thirty may have.",
        ),
        (
            (Warning, "1", "3d", "6h", 10_800),
            "At this rate of the last three days, there will be more errors in thirty than there may be.",
        ),
    ];
    let burns = |window: &str, factor: &str| {
        let share = share(window);
        format!("{share} > {factor} * scalar(ringmail:error_budget:ratio)")
    };
    let alert = |((severity, factor, long, short, wait), description)| Alert {
        name: "RingmailErrorBudgetBurn",
        severity,
        window: Some(long),
        expression: format!("{}\nand\n{}", burns(long, factor), burns(short, factor)),
        wait: tempo.wait(wait),
        summary: "{{ $labels.namespace }}/{{ $labels.workload }} fails {{ $value | humanizePercentage }} of its requests",
        description,
        action: "The dashboard Workload shows which callers and statuses; compare with what changed: a release, a route, a policy.",
    };
    rows.into_iter().map(alert).collect()
}
