//! HTTP/2 with prior knowledge: streams on one connection.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Count, dial};

/// As many streams at once, each of them one request after the other.
pub(super) async fn streams(
    address: SocketAddr,
    streams: usize,
    until: Instant,
) -> anyhow::Result<Count> {
    let socket = dial(address).await?;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake::<_, Bytes>(socket)
        .await?;
    let driver = tokio::spawn(connection);
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let client = client.clone();
        tasks.spawn(async move {
            let mut count = Count::new()?;
            while Instant::now() < until {
                let since = Instant::now();
                count.exchange(since, &get(&client).await);
            }
            anyhow::Ok(count)
        });
    }
    let mut total = Count::new()?;
    while let Some(count) = tasks.join_next().await {
        let count = count??;
        total.latency.add(&count.latency)?;
        total.failed += count.failed;
    }
    driver.abort();
    Ok(total)
}

async fn get(client: &h2::client::SendRequest<Bytes>) -> io::Result<()> {
    let mut client = client.clone().ready().await.map_err(io::Error::other)?;
    let request = http::Request::get("http://bench/0")
        .header("user-agent", "bench/1")
        .body(());
    let request = request.map_err(io::Error::other)?;
    let (response, _) = client
        .send_request(request, true)
        .map_err(io::Error::other)?;
    let mut response = response.await.map_err(io::Error::other)?;
    while let Some(data) = response.body_mut().data().await {
        data.map_err(io::Error::other)?;
    }
    if response.status() == 200 {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}
