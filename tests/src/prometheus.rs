//! The real Prometheus with our rules at the pace of a drill: what it scrapes, what it is asked, and which alerts it has
//! raised so far.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fmt::Write as _,
    fs,
    io::{self, Read, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    observe::{
        rules::{self, Rule},
        tempo::Tempo,
    },
    process::Process,
    wait,
};

/// Where it listens, in the network that it runs in.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 19_090);

/// For an alert to fire or to be over: the longest range of a drill, and time for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// For an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A value now, and whose.
#[derive(Debug)]
pub struct Sample {
    /// By name.
    pub labels: BTreeMap<String, String>,
    /// What it is.
    pub value: f64,
}

/// What is asked by its own API: the bytes of a page's body.
pub type Pages<'a> = Box<dyn Fn(SocketAddr, &str) -> anyhow::Result<Vec<u8>> + 'a>;

/// One that runs; killed when dropped.
pub struct Prometheus<'a> {
    _process: Process,
    _directory: TempDir,
    pages: Pages<'a>,
    /// Alerts that have fired, and those of them that were over again: name and window.
    fired: BTreeSet<String>,
    over: BTreeSet<String>,
}

impl fmt::Debug for Prometheus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Prometheus");
        shown.field("fired", &self.fired).finish_non_exhaustive()
    }
}

/// The command that scrapes pods by name, and keeps everything in `directory`. At a drill's pace once a second.
pub fn configured(
    mut program: Command,
    directory: &Path,
    targets: &[(String, SocketAddr)],
    tempo: Tempo,
) -> anyhow::Result<Command> {
    let seconds = match tempo {
        Tempo::Shipped => 5,
        Tempo::Drill => 1,
    };
    let mut config = format!(
        "global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s, evaluation_interval: {seconds}s}}\n\
         rule_files: [recording.yaml, alerts.yaml]\n\
         scrape_configs:\n- job_name: ringmail\n  honor_labels: true\n  static_configs:\n",
    );
    for (pod, address) in targets {
        writeln!(
            config,
            "  - {{targets: ['{address}'], labels: {{pod: '{pod}'}}}}"
        )?;
    }
    let file = |name: &str| directory.join(name);
    fs::write(file("prometheus.yaml"), config)?;
    for (name, groups) in [
        ("recording.yaml", rules::recording(tempo)),
        ("alerts.yaml", rules::alerts(tempo)),
    ] {
        fs::write(file(name), rules::yaml(&groups))?;
    }
    program
        .arg(format!(
            "--config.file={}",
            file("prometheus.yaml").display()
        ))
        .arg(format!("--storage.tsdb.path={}", file("data").display()))
        .arg(format!("--web.listen-address={ADDRESS}"));
    Ok(program)
}

/// A page, of this thread's network. HTTP/1.0: all of it, and then the end.
pub fn page(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    let ask = || -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
        let mut whole = Vec::new();
        stream.read_to_end(&mut whole)?;
        Ok(whole)
    };
    let mut whole = ask().with_context(|| format!("{address}{path}"))?;
    let end = whole.windows(4).position(|four| four == b"\r\n\r\n");
    Ok(whole.split_off(end.context("no head")? + 4))
}

impl<'a> Prometheus<'a> {
    /// Runs `program` by `start`, to scrape pods by name once a second; waits until it has.
    pub fn start(
        program: Command,
        targets: &[(String, SocketAddr)],
        start: impl FnOnce(&Command) -> anyhow::Result<Process>,
        pages: Pages<'a>,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("ringmail-prometheus-")
            .tempdir()?;
        let program = configured(program, directory.path(), targets, Tempo::Drill)?;
        let prometheus = Self {
            _process: start(&program)?,
            _directory: directory,
            pages,
            fired: BTreeSet::new(),
            over: BTreeSet::new(),
        };
        let count = targets.len() as f64;
        wait::until(LIMIT, || {
            prometheus.figure("sum(up)").is_ok_and(|up| up == count)
        })
        .context("not all is scraped")?;
        Ok(prometheus)
    }

    fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let answer: Value = serde_json::from_slice(&(self.pages)(ADDRESS, path)?)?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// What an expression is now.
    pub fn query(&self, expression: &str) -> anyhow::Result<Vec<Sample>> {
        let data = self.ask(&format!("/api/v1/query?query={}", encoded(expression)))?;
        let result = data["result"].as_array().context("no result")?;
        let samples = result.iter().map(|one| {
            let value = one["value"][1].as_str().context("no value")?.parse()?;
            let labels = serde_json::from_value(one["metric"].clone())?;
            Ok(Sample { labels, value })
        });
        samples.collect()
    }

    /// The one value of an expression.
    pub fn figure(&self, expression: &str) -> anyhow::Result<f64> {
        let found = self.query(expression)?;
        ensure!(found.len() == 1, "{expression}: {found:?}");
        Ok(found[0].value)
    }

    /// What a panel's expression is now, as Grafana would ask: variables that are not chosen are all.
    pub fn panel(
        &self,
        expression: &str,
        chosen: &[(&str, &str)],
        range: &str,
    ) -> anyhow::Result<Vec<Sample>> {
        let mut text = expression.replace("$__rate_interval", range);
        for (variable, value) in chosen {
            text = text.replace(&format!("${variable}"), value);
        }
        while let Some((before, rest)) = text.split_once('$') {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let rest = &rest[end.unwrap_or(rest.len())..];
            text = format!("{before}.*{rest}");
        }
        self.query(&text)
    }

    /// The values that a variable offers.
    pub fn values(&self, series: &str, label: &str) -> anyhow::Result<Vec<String>> {
        let series = ["namespace", "workload", "service"]
            .iter()
            .fold(series.to_owned(), |series, variable| {
                series.replace(&format!("${variable}"), ".*")
            });
        let data = self.ask(&format!(
            "/api/v1/label/{label}/values?match[]={}",
            encoded(&series)
        ))?;
        Ok(serde_json::from_value(data)?)
    }

    /// Alerts that fire now: name and window.
    fn firing(&mut self) -> anyhow::Result<BTreeSet<String>> {
        let data = self.ask("/api/v1/alerts")?;
        let alerts = data["alerts"].as_array().context("no alerts")?;
        let firing = alerts.iter().filter(|one| one["state"] == "firing");
        let firing: BTreeSet<String> = firing
            .map(|one| {
                let label = |name: &str| one["labels"][name].as_str().unwrap_or_default();
                key(label("alertname"), Some(label("window")))
            })
            .collect();
        self.over.extend(self.fired.difference(&firing).cloned());
        self.fired.extend(firing.iter().cloned());
        Ok(firing)
    }

    /// Nothing fires while nothing is wrong.
    pub fn calm(&mut self) -> anyhow::Result<()> {
        // Until all rules have seen something for as long as their longest wait.
        let ranges = || self.figure("count_over_time(ringmail:error_budget:ratio[20s])");
        wait::until(LIMIT, || ranges().is_ok_and(|count| count > 8.0))?;
        let firing = self.firing()?;
        ensure!(firing.is_empty(), "nothing is wrong, and yet: {firing:?}");
        Ok(())
    }

    /// Sees what fires now. An alert that is over soon is seen only by who looks meanwhile.
    pub fn look(&mut self) {
        // Whoever waits for something asks again.
        let _ = self.firing();
    }

    /// Waits until each has fired, now or before: each has one drill.
    pub fn until_firing(&mut self, names: &[&str]) -> anyhow::Result<()> {
        let waited = wait::until(LIMIT, || {
            self.look();
            names.iter().all(|name| self.fired.contains(*name))
        });
        let missing = names.iter().filter(|name| !self.fired.contains(**name));
        waited.with_context(|| format!("no alert: {:?}", missing.collect::<Vec<_>>()))
    }

    /// Waits until none fires.
    pub fn until_silent(&mut self) -> anyhow::Result<()> {
        let mut last = BTreeSet::new();
        let waited = wait::until(LIMIT, || {
            let firing = self.firing();
            let is_silent = firing.as_ref().is_ok_and(BTreeSet::is_empty);
            last = firing.unwrap_or_default();
            is_silent
        });
        waited.with_context(|| format!("not over: {last:?}"))
    }

    /// Alerts that have fired and were over.
    pub fn drilled(&self) -> &BTreeSet<String> {
        &self.over
    }
}

/// Every alert there is: name and window.
#[must_use]
pub fn alerts() -> BTreeSet<String> {
    let groups = rules::alerts(Tempo::Drill);
    let all = groups.iter().flat_map(|group| &group.rules);
    let alerts = all.filter_map(|rule| match rule {
        Rule::Alert(alert) => Some(key(alert.name, alert.window)),
        Rule::Record { .. } => None,
    });
    alerts.collect()
}

fn key(name: &str, window: Option<&str>) -> String {
    match window {
        None | Some("") => name.to_owned(),
        Some(window) => format!("{name} {window}"),
    }
}

/// RFC 3986 section 2.1.
fn encoded(text: &str) -> String {
    let mut all = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            all.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(all, "%{byte:02X}");
        }
    }
    all
}
