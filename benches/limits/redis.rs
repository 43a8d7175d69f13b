//! One question to a real Redis for every request: a token bucket in a script, a connection for every node, questions on
//! it one after the other without waiting.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use ringmail_proto::limit::Pace;
use ringmail_tests::process::Process;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::judge::{Asked, Outcome};
use crate::trace::PODS;

/// For the server to start.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// One token bucket: the key, its rate a second and its burst.
const SCRIPT: &str = "\
local time, rate, burst = redis.call('TIME'), tonumber(ARGV[1]), tonumber(ARGV[2]) \
local now = time[1] + time[2] / 1000000 \
local kept = redis.call('HMGET', KEYS[1], 'level', 'at') \
local level = burst \
if kept[1] then level = math.min(burst, kept[1] + (now - kept[2]) * rate) end \
local admitted = 0 \
if level >= 1 then level = level - 1 admitted = 1 end \
redis.call('HSET', KEYS[1], 'level', string.format('%.6f', level), 'at', string.format('%.6f', now)) \
redis.call('EXPIRE', KEYS[1], 600) \
return admitted";

/// A `redis-server` of our own, which ends with this.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _process: Process,
}

/// Connections of all nodes, for one run.
pub(crate) struct Redis {
    nodes: Vec<Node>,
    command: Vec<u8>,
    answers: JoinSet<anyhow::Result<Vec<Asked>>>,
}

struct Node {
    questions: OwnedWriteHalf,
    /// When each was asked.
    asked: mpsc::UnboundedSender<(Instant, Instant)>,
}

impl Server {
    /// On a port of loopback, keeping nothing.
    pub(crate) async fn start(directory: &Path) -> anyhow::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(directory);
        let process = Process::start(&command, &directory.join("redis.log"))?;
        let ready = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let is_ready = timeout(PATIENCE, ready).await;
        is_ready.with_context(|| format!("no redis-server; {}", process.tail()))?;
        Ok(Self {
            address,
            _process: process,
        })
    }
}

impl Redis {
    /// A bucket of that name, full.
    pub(crate) async fn connect(
        address: SocketAddr,
        name: &str,
        pace: Pace,
    ) -> anyhow::Result<Self> {
        let hash = load(address).await?;
        let rate = f64::from(pace.tokens) / pace.period.as_secs_f64();
        let (rate, burst) = (rate.to_string(), pace.burst.to_string());
        let (mut nodes, mut answers) = (Vec::new(), JoinSet::new());
        for _ in 0..PODS {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let (from, questions) = socket.into_split();
            let (asked, asking) = mpsc::unbounded_channel();
            answers.spawn(read(from, asking));
            nodes.push(Node { questions, asked });
        }
        Ok(Self {
            nodes,
            command: command(&["EVALSHA", &hash, "1", name, &rate, &burst]),
            answers,
        })
    }

    /// Asks for one request.
    pub(crate) fn ask(&self, node: usize, begun: Instant) -> anyhow::Result<()> {
        let node = &self.nodes[node];
        let written = node.questions.try_write(&self.command)?;
        if written < self.command.len() {
            bail!("Redis takes no more");
        }
        node.asked.send((begun, Instant::now()))?;
        Ok(())
    }

    /// All answers, once the last is there.
    pub(crate) async fn end(self) -> anyhow::Result<Vec<Asked>> {
        let Self {
            nodes, mut answers, ..
        } = self;
        // A node that asks no more drops its list; its connection is needed until it was answered.
        let questions: Vec<_> = nodes.into_iter().map(|node| node.questions).collect();
        let mut all = Vec::new();
        while let Some(some) = answers.join_next().await {
            all.extend(some??);
        }
        drop(questions);
        Ok(all)
    }
}

/// Answers to what was asked, in its order.
async fn read(
    from: OwnedReadHalf,
    mut asking: mpsc::UnboundedReceiver<(Instant, Instant)>,
) -> anyhow::Result<Vec<Asked>> {
    let mut lines = BufReader::new(from).lines();
    let mut all = Vec::new();
    while let Some((begun, at)) = asking.recv().await {
        let line = lines.next_line().await?.context("Redis hung up")?;
        let outcome = match line.as_str() {
            ":1" => Outcome::Admitted,
            ":0" => Outcome::Refused,
            other => bail!("Redis says {other:?}"),
        };
        all.push(Asked {
            at: at - begun,
            answered: begun.elapsed(),
            outcome,
            is_limited: true,
        });
    }
    Ok(all)
}

/// Has the script kept, and returns its name.
async fn load(address: SocketAddr) -> anyhow::Result<String> {
    let mut socket = BufReader::new(TcpStream::connect(address).await?);
    socket
        .write_all(&command(&["SCRIPT", "LOAD", SCRIPT]))
        .await?;
    let (mut length, mut hash) = (String::new(), String::new());
    socket.read_line(&mut length).await?;
    socket.read_line(&mut hash).await?;
    anyhow::ensure!(length.starts_with('$'), "Redis says {length:?}");
    Ok(hash.trim().to_owned())
}

/// In Redis' own form (RESP).
fn command(words: &[&str]) -> Vec<u8> {
    let words_text = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    let text: String = words_text.collect();
    format!("*{}\r\n{text}", words.len()).into_bytes()
}
