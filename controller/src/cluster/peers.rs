//! The other replicas: what they say of their proxies, over plain HTTP within the cluster, at the metrics' port. It is for
//! people to read and decides nothing.
//!
//! Limits: `REPLICAS_MAX` are asked at once, `ANSWER_TIMEOUT` and `ANSWER_BYTES_MAX` each.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::lead::{Desk, FIELD_MANAGER};
use crate::applied::Said;
use crate::source::Objects;

/// Replicas beside this one.
const REPLICAS_MAX: usize = 16;
/// From the connection to the last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Ten thousand proxies with some policies each.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The port of the controller's Service.
const PORT: &str = "metrics";
/// Which Service a slice is of.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// What the others say, and how many do not.
pub(super) async fn ask(desk: &Desk) -> (Vec<Said>, usize) {
    let state = desk.states.borrow().clone();
    let Some(state) = state else {
        return (Vec::new(), 0);
    };
    let mut asked = JoinSet::new();
    for address in addresses(&state.objects, &desk.namespace, &desk.pod) {
        asked.spawn(async move {
            let answer = timeout(ANSWER_TIMEOUT, get(address)).await;
            let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            answer
                .inspect_err(|e| debug!(%address, "a replica does not say what it knows: {e}"))
                .ok()
        });
    }
    let all = asked.join_all().await;
    let silent = all.iter().filter(|one| one.is_none()).count();
    (all.into_iter().flatten().collect(), silent)
}

/// Where the other replicas have their metrics.
fn addresses(objects: &Objects, namespace: &str, pod: &str) -> BTreeSet<SocketAddr> {
    let is_ours = |slice: &&EndpointSlice| {
        let labels = slice.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_LABEL));
        slice.metadata.namespace.as_deref() == Some(namespace)
            && service.is_some_and(|service| service == FIELD_MANAGER)
    };
    let mut found = BTreeSet::new();
    for slice in objects.endpoint_slices().filter(is_ours) {
        let mut ports = slice.ports.iter().flatten();
        let port = ports.find(|port| port.name.as_deref() == Some(PORT));
        let port = port.and_then(|port| u16::try_from(port.port?).ok());
        for endpoint in slice.endpoints.iter().flatten() {
            let target = endpoint.target_ref.as_ref();
            let is_self = target.is_some_and(|target| target.name.as_deref() == Some(pod));
            let address = endpoint.addresses.first().and_then(|one| one.parse().ok());
            if let (false, Some(port), Some(address)) = (is_self, port, address) {
                let address: IpAddr = address;
                found.insert(SocketAddr::new(address, port));
            }
        }
    }
    found.into_iter().take(REPLICAS_MAX).collect()
}

async fn get(address: SocketAddr) -> io::Result<Said> {
    let socket = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
        .await
        .map_err(io::Error::other)?;
    let request = Request::get("/applied")
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let exchange = async move {
        let response = sender.send_request(request).await;
        let response = response.map_err(io::Error::other)?;
        if response.status() != StatusCode::OK {
            return Err(io::Error::other(response.status().to_string()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(io::Error::other)?;
        serde_json::from_slice(&body.to_bytes()).map_err(io::Error::other)
    };
    // The connection is driven here and ends with the exchange: no task is left behind.
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended.map_err(io::Error::other)?;
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_are_in_the_slices_of_our_own_service() {
        let slice = |namespace: &str, service: &str, endpoints: &str| {
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{name: grpc, port: 15012}}, {{name: metrics, port: 15014}}]\nendpoints: [{endpoints}]\n"
            )
        };
        let own = "{addresses: [10.1.0.1], targetRef: {kind: Pod, name: one}}, {addresses: [10.1.0.2], conditions: {ready: false}, targetRef: {kind: Pod, name: two}}";
        let yaml = [
            slice("mesh", FIELD_MANAGER, own),
            slice("mesh", "other", "{addresses: [10.1.0.3]}"),
            slice("shop", FIELD_MANAGER, "{addresses: [10.1.0.4]}"),
        ];
        let objects = crate::source::parse_text(&yaml.concat());
        let found = addresses(&objects.into_iter().collect(), "mesh", "one");
        let two = "10.1.0.2:15014".parse().expect("an address");
        assert_eq!(found, BTreeSet::from([two]));
    }
}
