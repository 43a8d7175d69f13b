//! `ringmail identity`: the certificate that a pod shows to its peers, read as they read it.

use anyhow::{Context, bail};
use ringmail_proto::svid::Svid;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::fleet;
use super::report::{self, Format, now, span};
use crate::cluster::client;

/// As the proxy tells it.
#[derive(Debug, Deserialize)]
struct Told {
    chain: Vec<String>,
}

/// One certificate of the chain.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    certificate: &'static str,
    name: String,
    serial: String,
    /// How long ago it was issued, but for what it is back-dated.
    valid_since: String,
    expires: String,
}

pub(super) async fn run(format: Format, namespace: &str, pod: &str) -> anyhow::Result<bool> {
    let client = client::infer().await?;
    let page = fleet::page(&client, namespace, pod, 15020, "identity").await;
    let page = match page {
        Ok(page) => page,
        Err(problem) => bail!("pod {namespace}/{pod} tells nothing: {problem}"),
    };
    let told: Told = serde_json::from_str(&page).context("the pod's answer is none of a proxy")?;
    let rows = rows(&told, now())?;
    let columns = ["certificate", "name", "serial", "valid_since", "expires"];
    report::print(format, &rows, &columns, "no certificate")?;
    Ok(rows.iter().all(|row| !row.expires.starts_with('-')))
}

fn rows(told: &Told, now: i64) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (index, pem) in told.chain.iter().enumerate() {
        let der =
            CertificateDer::from_pem_slice(pem.as_bytes()).context("a certificate is no PEM")?;
        let (_, read) =
            x509_parser::parse_x509_certificate(&der).context("a certificate is none")?;
        let name = match index {
            // By the mesh's own rules.
            0 => Svid::read(&der)
                .context("the leaf is no SVID")?
                .id
                .to_string(),
            _ => read.subject().to_string(),
        };
        let validity = read.validity();
        rows.push(Row {
            certificate: if index == 0 { "leaf" } else { "issuer" },
            name,
            serial: read.raw_serial_as_string().replace(':', ""),
            valid_since: span(now - validity.not_before.timestamp()),
            expires: span(validity.not_after.timestamp() - now),
        });
    }
    Ok(rows)
}
