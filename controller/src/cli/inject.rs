//! `ringmail inject`: files with sidecars in them, as the webhook would put them there.

use std::io::{self, Read, Write};

use anyhow::{Context, bail};
use ringmail_proto::identity::TrustDomain;
use serde_json::Value;

use crate::config::{SidecarFlags, sidecar};
use crate::inject::Outcome;
use crate::inject::manifest::inject_all;

/// Bytes of a file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub(super) fn run(
    filename: &str,
    system: &str,
    trust_domain: &TrustDomain,
    flags: &SidecarFlags,
) -> anyhow::Result<bool> {
    let settings = sidecar(flags, trust_domain, system)?;
    let mut text = String::new();
    let read = match filename {
        "-" => io::stdin()
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text),
        path => std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read {filename}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("{filename} is larger than {FILE_BYTES_MAX} bytes");
    }
    let mut objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("{filename} is no YAML"))?;
    objects.retain(|one| !one.is_null());
    let found = inject_all(&mut objects, &settings)?;
    let mut out = String::new();
    for object in &objects {
        out += "---\n";
        out += &serde_saphyr::to_string(object).context("cannot write YAML")?;
    }
    io::stdout().lock().write_all(out.as_bytes())?;
    let mut told = io::stderr().lock();
    for one in found {
        let outcome = match one.outcome {
            Outcome::Injected(_) => "has a sidecar",
            Outcome::Skipped(reason) => reason,
        };
        writeln!(told, "{}: {outcome}", one.object)?;
        for warning in one.warnings {
            writeln!(told, "{}: {warning}", one.object)?;
        }
    }
    Ok(true)
}
