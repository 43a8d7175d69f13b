//! TCP applications. Errors end the one connection: its client sees them.

use std::io;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// What the line server says first.
pub const BANNER: &str = "220 ringmail test\r\n";

/// What the line server says last.
pub const GOODBYE: &str = "221 goodbye\r\n";

/// The longest line, and the longest request head.
const LINE_BYTES_MAX: u64 = 1 << 20;

pub(super) async fn serve_lines(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(lines(stream));
    }
}

async fn lines(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    writer.write_all(BANNER.as_bytes()).await?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await?
            == 0
        {
            writer.write_all(GOODBYE.as_bytes()).await?;
            return writer.shutdown().await;
        }
        writer.write_all(&line).await?;
    }
}

pub(super) async fn serve_bytes(listener: TcpListener, answer: &'static [u8]) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(bytes(stream, answer));
    }
}

async fn bytes(mut stream: TcpStream, answer: &'static [u8]) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await?
            == 0
        {
            return Ok(());
        }
        if line == b"\r\n" {
            writer.write_all(answer).await?;
        }
    }
}
