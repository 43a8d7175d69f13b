//! Files and running programs of one suite; all go with it.

use std::cell::Cell;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, ensure};
use ringmail_tests::bed::{Bed, Exemption};
use ringmail_tests::netns::Pod;
use ringmail_tests::process::Process;
use ringmail_tests::wait;
use tempfile::TempDir;

/// The longest that a program of a suite may take.
const PROGRAM_LIMIT: Duration = Duration::from_secs(60);
/// Databases' user where there are users: `nobody`.
const NOBODY: u32 = 65_534;
/// How much of a program's words a failure shows.
const SHOWN_BYTES_MAX: usize = 4_000;

/// A place for files, and a number for each program that was run.
#[derive(Debug)]
pub(super) struct Desk {
    directory: TempDir,
    runs: Cell<u32>,
    nobody: u32,
}

/// How a program ended, and what it said on both outputs.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) status: ExitStatus,
    pub(super) text: String,
}

impl Desk {
    pub(super) fn new(bed: Bed) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("ringmail-suite-")
            .tempdir()?;
        // Databases have another user.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            directory,
            runs: Cell::new(0),
            nobody: if bed.exemption == Exemption::Uid {
                NOBODY
            } else {
                0
            },
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file that only databases read.
    pub(super) fn put(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        self.give(&path, 0o600)?;
        Ok(path)
    }

    /// An empty directory for a database.
    pub(super) fn database_directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir(&path)?;
        self.give(&path, 0o700)?;
        Ok(path)
    }

    fn give(&self, path: &Path, mode: u32) -> anyhow::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(chown(path, Some(self.nobody), Some(self.nobody))?)
    }

    /// A certificate that only a client of the app trusts, and its key.
    pub(super) fn certificate(&self, names: &[String]) -> anyhow::Result<(PathBuf, PathBuf)> {
        let made = rcgen::generate_simple_self_signed(names)?;
        let certificate = self.path("app.crt");
        fs::write(&certificate, made.cert.pem())?;
        Ok((
            certificate,
            self.put("app.key", &made.signing_key.serialize_pem())?,
        ))
    }

    /// Runs a program in `pod` to its end.
    pub(super) fn run(&self, pod: &Pod, command: &Command) -> anyhow::Result<Ran> {
        self.run_as(0, pod, command)
    }

    /// Runs a program in `pod` to its end, as a database's user.
    pub(super) fn run_as_nobody(&self, pod: &Pod, command: &Command) -> anyhow::Result<String> {
        success(command, self.run_as(self.nobody, pod, command)?)
    }

    /// What a program says that has to succeed.
    pub(super) fn output(&self, pod: &Pod, command: &Command) -> anyhow::Result<String> {
        success(command, self.run(pod, command)?)
    }

    fn run_as(&self, user: u32, pod: &Pod, command: &Command) -> anyhow::Result<Ran> {
        let log = self.log();
        let mut process = pod.namespace.start(command, user, &log)?;
        let status = process.wait(PROGRAM_LIMIT)?;
        let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
        Ok(Ran { status, text })
    }

    /// Starts a server in `pod` and waits until it listens on `port`.
    pub(super) fn serve(&self, pod: &Pod, command: &Command, port: u16) -> anyhow::Result<Process> {
        self.serve_as(0, pod, command, port)
    }

    /// The same for a database, whose user owns its files.
    pub(super) fn serve_database(
        &self,
        pod: &Pod,
        command: &Command,
        port: u16,
    ) -> anyhow::Result<Process> {
        self.serve_as(self.nobody, pod, command, port)
    }

    fn serve_as(
        &self,
        user: u32,
        pod: &Pod,
        command: &Command,
        port: u16,
    ) -> anyhow::Result<Process> {
        let mut process = pod.namespace.start(command, user, &self.log())?;
        let listens = || {
            let dialled = pod
                .namespace
                .run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
            dialled.is_ok_and(|dialled| dialled.is_ok())
        };
        wait::until(PROGRAM_LIMIT, || {
            listens() || process.ended().is_ok_and(|ended| ended.is_some())
        })
        .and_then(|()| {
            ensure!(listens(), "it ended");
            Ok(())
        })
        .with_context(|| format!("{command:?}: {}", process.tail()))?;
        Ok(process)
    }

    fn log(&self) -> PathBuf {
        self.runs.set(self.runs.get() + 1);
        self.path(&format!("{}.log", self.runs.get()))
    }
}

fn success(command: &Command, ran: Ran) -> anyhow::Result<String> {
    ensure!(
        ran.status.success(),
        "{command:?} ended with {}:\n{}",
        ran.status,
        shown(&ran.text)
    );
    Ok(ran.text)
}

/// The end of a long text.
pub(super) fn shown(text: &str) -> &str {
    let start = text.len().saturating_sub(SHOWN_BYTES_MAX);
    (start..=text.len())
        .find_map(|start| text.get(start..))
        .unwrap_or_default()
}
