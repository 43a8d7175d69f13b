//! What is recorded of traffic, and where it goes.

use std::path::PathBuf;

use ringmail_proto::records::{AccessLog, Audit, Collector, HeaderNames, Share};

use super::{ConfigError, Lookup, optional, refuse};

/// What is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    pub(crate) access_log: AccessLog,
    /// Of requests and opaque connections, those that the access log has.
    pub(crate) access_log_sample: Share,
    /// Headers of requests that it has.
    pub(crate) access_log_headers: HeaderNames,
    pub(crate) access_log_to: Destination,
    pub(crate) audit: Audit,
    pub(crate) audit_to: Destination,
    /// Whether the audit goes to the collector as well.
    pub(crate) audit_otlp: bool,
    /// Of requests without a trace, those that begin one.
    pub(crate) trace_sample: Share,
    /// Who collects traces.
    pub(crate) collector: Option<Collector>,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Standard output; the proxy's own log is on standard error.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

pub(super) fn read(lookup: Lookup<'_>) -> Result<Records, ConfigError> {
    let file = |variable| -> Result<Destination, ConfigError> {
        let path = optional::<PathBuf>(lookup, variable)?;
        Ok(path.map_or(Destination::Stdout, Destination::File))
    };
    let collector = optional(lookup, "RINGMAIL_OTLP_ENDPOINT")?;
    let audit_otlp = match optional::<String>(lookup, "RINGMAIL_AUDIT_OTLP")?.as_deref() {
        None | Some("off") => false,
        Some("on") if collector.is_some() => true,
        Some("on") => {
            let problem = "is on, and RINGMAIL_OTLP_ENDPOINT is not set";
            return Err(refuse("RINGMAIL_AUDIT_OTLP", problem));
        }
        Some(_) => return Err(refuse("RINGMAIL_AUDIT_OTLP", "is neither on nor off")),
    };
    Ok(Records {
        access_log: optional(lookup, "RINGMAIL_ACCESS_LOG")?.unwrap_or_default(),
        access_log_sample: optional(lookup, "RINGMAIL_ACCESS_LOG_SAMPLE")?.unwrap_or(Share::ALL),
        access_log_headers: optional(lookup, "RINGMAIL_ACCESS_LOG_HEADERS")?.unwrap_or_default(),
        access_log_to: file("RINGMAIL_ACCESS_LOG_FILE")?,
        audit: optional(lookup, "RINGMAIL_AUDIT")?.unwrap_or_default(),
        audit_to: file("RINGMAIL_AUDIT_FILE")?,
        audit_otlp,
        trace_sample: optional(lookup, "RINGMAIL_TRACE_SAMPLE")?.unwrap_or(Share::NONE),
        collector,
    })
}
