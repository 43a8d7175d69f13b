//! Sidecars that are asked for a page: those of a cluster, or those whose addresses are said.

use http::Uri;

use super::{controller, fleet};
use crate::cluster::client;

/// Which sidecars.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Which {
    /// One namespace; all, if none is said.
    #[arg(long, short)]
    namespace: Option<String>,
    /// A sidecar's pages, such as http://10.88.0.3:15020, instead of those of a cluster; may be said again.
    #[arg(long)]
    proxy: Vec<Uri>,
}

/// A page, or why there is none, by whose it is.
pub(super) type Pages = Vec<(String, Result<String, String>)>;

impl Which {
    pub(super) async fn pages(&self, path: &'static str) -> anyhow::Result<Pages> {
        if self.proxy.is_empty() {
            let client = client::infer().await?;
            let pods = fleet::pods(&client, self.namespace.as_deref()).await?;
            return Ok(fleet::pages(&client, &pods, path).await);
        }
        let mut pages = Vec::new();
        for proxy in &self.proxy {
            let proxy = proxy.to_string();
            let url = format!("{}/{path}", proxy.trim_end_matches('/')).parse()?;
            let page = controller::get(url).await.map_err(|e| format!("{e:#}"));
            pages.push((proxy, page));
        }
        Ok(pages)
    }
}

/// What was told, and who did not.
pub(super) fn answered(pages: Pages) -> (Vec<String>, Vec<String>) {
    let (mut told, mut silent) = (Vec::new(), Vec::new());
    for (whose, page) in pages {
        match page {
            Ok(page) => told.push(page),
            Err(problem) => silent.push(format!("{whose}: {problem}")),
        }
    }
    (told, silent)
}
