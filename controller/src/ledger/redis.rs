//! The ledger's home in Redis or Valkey: buckets that several controllers lease from, each batch by one script, all time
//! being the server's.
//!
//! - What a controller has leased out is kept by its incarnation, a number that it takes when it opens the home. Every
//!   exchange says that the incarnation lives; when nothing was heard of it for `LEDGER_TIME`, what it had out is taken for
//!   spent, and it may not come back. A session is told that it was heard after an exchange that began later, so nothing is
//!   spent for longer than there is room for it.
//! - The server's data has an epoch. Where there is none, or one of another run of a server, what was leased is unknown:
//!   a new one begins, which listens for `RESYNC_TIME` to what proxies remember. Who was in the old one is told, and ends
//!   its sessions.
//!
//! Never asked while a request waits. Limits: [`OPEN_TIMEOUT`], [`EXCHANGE_TIMEOUT`], [`ORDERS_MAX`] orders in one script.

use std::fmt;
use std::io;
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value, cmd};
use ringmail_proto::limit::home::Answer;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tracing::warn;

use super::home::Asked;
use crate::config::LimitsRedis;
use crate::fetch;
use crate::metrics::{ExchangeLabels, ExchangeOutcome, Metrics};

/// What the script is told and what it answers.
mod wire;

use wire::{Caller, Keys};

const SCRIPT: &str = include_str!("redis/script.lua");

/// From the name's resolution to the epoch.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// One call of the script. Whatever is silent for longer is lost; a shorter pause a lease outlives.
const EXCHANGE_TIMEOUT: Duration = Duration::from_millis(500);
/// Orders in one call: as many as keep a server busy for about a millisecond.
const ORDERS_MAX: usize = 64;
/// Between the beginnings of two exchanges, so that what is said goes together.
const REST: Duration = Duration::from_millis(1);
/// An exchange there is after so long, whatever there is to say: who is silent for `LEDGER_TIME` is gone.
const BEAT: Duration = Duration::from_millis(200);
/// How long a bucket outlives the last word of what is leased from it. Proxies give back within some seconds what they do
/// not use.
const HELD_TIME: Duration = Duration::from_secs(60);
/// After so long without a word a bucket is full, whatever its limit says.
const KEPT_TIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Between two attempts to open a home, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Why a home is no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("it does not answer within {0:?}")]
    TimedOut(Duration),
    #[error("it cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    #[error("{0}")]
    Failed(#[from] RedisError),
    #[error("its answer {0}")]
    Nonsense(&'static str),
    #[error("it has forgotten what was leased, or has not heard of us in time")]
    Forgotten,
}

/// The server, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Server {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    settings: RedisConnectionInfo,
    keys: Keys,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({}:{})", self.host, self.port)
    }
}

/// A home, from when it is opened to when it is lost.
pub(super) struct Redis {
    connection: MultiplexedConnection,
    /// Drives the connection; its drop ends that.
    _driver: JoinSet<()>,
    /// By which the server knows the script.
    digest: String,
    keys: Keys,
    caller: Caller,
    /// When the last exchange began.
    began: Instant,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({:?})", self.caller)
    }
}

impl Server {
    /// # Errors
    /// When the roots that may vouch for it cannot be read.
    pub(crate) fn new(
        config: &LimitsRedis,
        trust_domain: &str,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let mut settings = RedisConnectionInfo::default().set_db(config.database);
        if let Some(username) = &config.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &config.password {
            settings = settings.set_password(password.expose_secret());
        }
        let tls = config.root_cert.as_deref().map(fetch::connector);
        Ok(Self {
            host: config.host.clone(),
            port: config.port,
            tls: tls.transpose()?,
            settings,
            keys: Keys::new(&config.prefix, trust_domain),
            metrics,
        })
    }

    /// The home, as soon as it can be had, and how long it only listens.
    pub(super) async fn open(&self) -> (Redis, Duration) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let opened = timeout(OPEN_TIMEOUT, Redis::open(self)).await;
            match opened.unwrap_or(Err(Lost::TimedOut(OPEN_TIMEOUT))) {
                Ok(opened) => return opened,
                Err(lost) => {
                    warn!(server = ?self, "the home of the ledger cannot be opened: {lost}")
                }
            }
            // All controllers lose it at once; they need not come back at once.
            sleep(backoff.mul_f64(jitter())).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn dial(&self) -> Result<(MultiplexedConnection, JoinSet<()>), Lost> {
        let bare = self.host.trim_matches(['[', ']']);
        let socket = TcpStream::connect((bare, self.port)).await?;
        socket.set_nodelay(true)?;
        match &self.tls {
            None => self.begin(socket).await,
            Some(connector) => {
                let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
                self.begin(connector.connect(name, socket).await?).await
            }
        }
    }

    async fn begin(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(MultiplexedConnection, JoinSet<()>), Lost> {
        // How long is waited, our caller says.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(&self.settings, stream, config);
        let (connection, driver) = opened.await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        Ok((connection, tasks))
    }
}

impl Redis {
    async fn open(server: &Server) -> Result<(Self, Duration), Lost> {
        let incarnation = incarnation()?;
        let (mut connection, driver) = server.dial().await?;
        let info: String = cmd("INFO")
            .arg("server")
            .query_async(&mut connection)
            .await?;
        let run = field(&info, "run_id").ok_or(Lost::Nonsense("names no run of the server"))?;
        let memory: String = cmd("INFO")
            .arg("memory")
            .query_async(&mut connection)
            .await?;
        if evicts(&memory) {
            warn!(
                ?server,
                "it evicts keys when its memory is full, and limits are then not kept: maxmemory-policy should be noeviction"
            );
        }
        let load = cmd("SCRIPT").arg("LOAD").arg(SCRIPT).take();
        let digest = load.query_async(&mut connection).await?;
        let mut redis = Self {
            connection,
            _driver: driver,
            digest,
            keys: server.keys.clone(),
            caller: Caller {
                run: run.to_owned(),
                epoch: None,
                incarnation,
            },
            began: Instant::now(),
            metrics: server.metrics.clone(),
        };
        let (head, _) = redis.call(&[]).await?;
        redis.caller.epoch = Some(head.epoch);
        Ok((redis, head.opens_in))
    }

    pub(super) async fn exchange(&mut self, orders: &[Asked]) -> Result<Vec<Answer>, Lost> {
        self.began = Instant::now();
        let mut answers = Vec::with_capacity(orders.len());
        let (first, rest) = orders.split_at(orders.len().min(ORDERS_MAX));
        // Without an order, too: it hears that we live, and we that it remembers.
        for orders in iter::once(first).chain(rest.chunks(ORDERS_MAX)) {
            let begun = Instant::now();
            let called = timeout(EXCHANGE_TIMEOUT, self.call(orders)).await;
            let called = called.unwrap_or(Err(Lost::TimedOut(EXCHANGE_TIMEOUT)));
            let called = called.and_then(|(head, answers)| match head.is_known {
                true => Ok(answers),
                false => Err(Lost::Forgotten),
            });
            self.count(called.as_ref().err(), begun.elapsed());
            answers.extend(called?);
        }
        Ok(answers)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.began + BEAT
    }

    pub(super) fn rests_until(&self) -> Instant {
        self.began + REST
    }

    /// The script, once.
    async fn call(&mut self, orders: &[Asked]) -> Result<(wire::Head, Vec<Answer>), Lost> {
        let mut command = cmd("EVALSHA");
        command.arg(&self.digest);
        let reply = match self.ask(command, orders).await {
            // Somebody has emptied the server's cache of scripts. Nothing was carried out.
            Err(error) if error.code() == Some("NOSCRIPT") => {
                let mut command = cmd("EVAL");
                command.arg(SCRIPT);
                self.ask(command, orders).await
            }
            reply => reply,
        };
        wire::read(&reply?, orders)
    }

    async fn ask(&mut self, mut command: Cmd, orders: &[Asked]) -> Result<Value, RedisError> {
        wire::write(&mut command, &self.keys, &self.caller, orders);
        command.query_async(&mut self.connection).await
    }

    fn count(&self, lost: Option<&Lost>, took: Duration) {
        let outcome = match lost {
            None => ExchangeOutcome::Done,
            Some(Lost::TimedOut(_)) => ExchangeOutcome::TimedOut,
            Some(Lost::Forgotten) => ExchangeOutcome::Forgotten,
            Some(Lost::Unreachable(_) | Lost::Failed(_) | Lost::Nonsense(_)) => {
                ExchangeOutcome::Failed
            }
        };
        let labels = ExchangeLabels { outcome };
        self.metrics.ledger_exchanges.get_or_create(&labels).inc();
        self.metrics
            .ledger_exchange_seconds
            .observe(took.as_secs_f64());
    }
}

/// A value in what INFO says.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = info.lines().filter_map(|line| line.split_once(':'));
    fields
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// Whether a full server would forget buckets.
fn evicts(memory: &str) -> bool {
    let has_limit = field(memory, "maxmemory").is_some_and(|bytes| bytes != "0");
    has_limit && field(memory, "maxmemory_policy").is_some_and(|policy| policy != "noeviction")
}

fn incarnation() -> Result<String, Lost> {
    let mut bytes = [0; 8];
    let filled = rand::fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// From 0 to 1. Where there are no random numbers, nothing is opened either.
fn jitter() -> f64 {
    let mut bytes = [0; 4];
    match rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests;
