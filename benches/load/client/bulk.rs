//! Bytes as fast as they go, none of them lost.

use std::net::SocketAddr;

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::{Count, dial};
use crate::server::{READ_BYTES, SOURCE};

/// What a client that only sends says first: not what any other client does.
const SINK: &[u8] = b"\0sink\n";

const MIB: usize = 1 << 20;

/// To the server, which says in the end how many came.
pub(super) async fn up(address: SocketAddr, until: Instant) -> anyhow::Result<Count> {
    let mut count = Count::new()?;
    let mut socket = dial(address).await?;
    socket.write_all(SINK).await?;
    let block = vec![b'x'; MIB];
    let mut sent = SINK.len() as u64;
    while Instant::now() < until {
        let since = Instant::now();
        socket.write_all(&block).await?;
        sent += block.len() as u64;
        count.exchange(since, &Ok(()));
    }
    socket.shutdown().await?;
    ensure!(socket.read_u64().await? == sent, "bytes were lost");
    Ok(count)
}

/// From the server, which says in the end how many it sent.
pub(super) async fn down(address: SocketAddr, until: Instant) -> anyhow::Result<Count> {
    let mut count = Count::new()?;
    let mut socket = dial(address).await?;
    socket.write_all(SOURCE).await?;
    let mut input = vec![0; READ_BYTES];
    let (mut received, mut since) = (0, Instant::now());
    while since < until {
        let n = socket.read(&mut input).await?;
        ensure!(n > 0, "the server ended early");
        received += n;
        if received / MIB > (received - n) / MIB {
            count.exchange(since, &Ok(()));
            since = Instant::now();
        }
    }
    socket.shutdown().await?;
    let mut rest = Vec::new();
    let (whole, said) = loop {
        rest.drain(..rest.len().saturating_sub(size_of::<u64>()));
        match socket.read_buf(&mut rest).await? {
            0 => break (received, u64::from_be_bytes(rest.as_slice().try_into()?)),
            n => received += n,
        }
    };
    ensure!(
        whole as u64 == said + size_of::<u64>() as u64,
        "bytes were lost"
    );
    Ok(count)
}
