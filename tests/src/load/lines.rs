//! A client of the server that speaks first.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::dial;
use crate::apps::{BANNER, GOODBYE};

/// A connection on which the banner has been read.
#[derive(Debug)]
pub struct Lines {
    stream: BufReader<TcpStream>,
    line: String,
}

impl Lines {
    /// Connects and waits for the banner; every exchange will send `text`.
    pub async fn connect(address: SocketAddr, text: &str) -> io::Result<Self> {
        let mut stream = BufReader::new(dial(address).await?);
        let mut banner = String::new();
        stream.read_line(&mut banner).await?;
        expect(&banner, BANNER)?;
        Ok(Self {
            stream,
            line: format!("{text}\r\n"),
        })
    }

    /// Sends the line, which must come back.
    pub async fn exchange(&mut self) -> io::Result<()> {
        self.stream.write_all(self.line.as_bytes()).await?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).await?;
        expect(&answer, &self.line)
    }

    /// Ends our half; the server must say goodbye and end its own.
    pub async fn finish(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).await?;
        expect(&rest, GOODBYE)
    }
}

fn expect(found: &str, wanted: &str) -> io::Result<()> {
    if found == wanted {
        Ok(())
    } else {
        Err(io::Error::other(format!("read {found:?}, not {wanted:?}")))
    }
}
