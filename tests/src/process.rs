//! A program in a pod: started through ourselves as a launcher, which gives it its user and ties its life to ours.

use std::{
    env, fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{bed::LAUNCH, wait};

/// How much of a log is shown when something failed.
const TAIL_LINES: usize = 40;

/// A child that is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    program: String,
    log: PathBuf,
}

impl Process {
    pub(crate) fn new(child: Child, program: String, log: &Path) -> Self {
        Self {
            child,
            program,
            log: log.to_owned(),
        }
    }

    /// Starts a program on this machine, outside of all pods. It ends with us.
    pub fn start(command: &Command, log: &Path) -> anyhow::Result<Self> {
        let mut launcher = Self::launcher(command, 0, log)?;
        let (sender, started) = mpsc::channel();
        // A child goes with the thread that started it, so that thread stays as long as we do.
        thread::spawn(move || {
            // Whoever waits for it is there.
            let _ = sender.send(launcher.spawn());
            loop {
                thread::park();
            }
        });
        let program = command.get_program().to_string_lossy().into_owned();
        let child = started.recv().context("the starting thread died")?;
        let child = child.with_context(|| format!("cannot start {program}"))?;
        Ok(Self::new(child, program, log))
    }

    /// The command that makes ourselves become `command`.
    pub(crate) fn launcher(command: &Command, uid: u32, log: &Path) -> anyhow::Result<Command> {
        let output = fs::OpenOptions::new().create(true).append(true).open(log);
        let output = output.with_context(|| format!("log {}", log.display()))?;
        let mut launcher = Command::new("/proc/self/exe");
        // Nothing of the caller's settings: a program gets what its scenario says.
        launcher.env_clear();
        // A terminal sends Ctrl-C to a whole group; who ends when is ours to say.
        launcher.process_group(0);
        launcher
            .arg(LAUNCH)
            .arg(uid.to_string())
            .arg(command.get_program())
            .args(command.get_args());
        let kept = ["PATH", "RUST_BACKTRACE"]
            .into_iter()
            .filter_map(|name| Some((name, env::var_os(name)?)));
        launcher.envs(kept);
        launcher.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        if let Some(directory) = command.get_current_dir() {
            launcher.current_dir(directory);
        }
        launcher
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        Ok(launcher)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).context("process ids are small")?;
        Ok(kill(Pid::from_raw(id), signal)?)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let mut status = None;
        let ended = wait::until(limit, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        match status {
            Some(status) if ended.is_ok() => Ok(status),
            _ => bail!(
                "{} still runs after {limit:?}; {}",
                self.program,
                self.tail()
            ),
        }
    }

    /// Waits for its end, which must be success.
    pub fn success(mut self, limit: Duration) -> anyhow::Result<()> {
        let status = self.wait(limit)?;
        if status.success() {
            return Ok(());
        }
        bail!(
            "{} ended with {} (signal {:?}); {}",
            self.program,
            status,
            status.signal(),
            self.tail()
        )
    }

    /// The end of its log, for a failure's message.
    pub fn tail(&self) -> String {
        Self::tail_of(&self.log)
    }

    /// The end of any log.
    pub(crate) fn tail_of(log: &Path) -> String {
        let text = fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let shown = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n    ");
        format!("end of {}:\n    {shown}", log.display())
    }
}

impl Drop for Process {
    /// Kills it and waits.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
