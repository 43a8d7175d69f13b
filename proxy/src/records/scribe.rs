//! The thread that writes: lines of the access log, to standard output or to the end of a file. It may be held up for as long
//! as a disk or a reader likes; who hands over to it never waits.
//!
//! What could not be written is lost, and counted; the next line begins on a line of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringmail_proto::records::{AccessLog, Audit};

use super::access;
use super::audit::{self, Leaf};
use super::export::{self, Export, Post};
use super::queue::{BATCHES_MAX, Batch, Hands, TICK};
use crate::config::{Config, Destination};
use crate::metrics::Counts;
use crate::snapshot::Snapshot;

/// For what is there when the process ends to be written.
const LAST_LINES: Duration = Duration::from_millis(300);

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Page {
    Access(Batch),
    /// Who is told that all that came before is written.
    Flush(SyncSender<()>),
}

/// The threads that write.
#[derive(Debug)]
pub(crate) struct Scribes {
    access_log: Option<SyncSender<Page>>,
    audit: Option<SyncSender<Leaf>>,
    post: Option<Post>,
}

impl Scribes {
    /// Opens what is to be written to, and starts a thread for each.
    ///
    /// # Errors
    /// When a file cannot be opened, or a thread not be started.
    pub(crate) fn start(
        config: &Config,
        snapshot: &Arc<Snapshot>,
        counts: &Counts,
    ) -> io::Result<(Self, Option<Export>)> {
        let records = &config.records;
        let (post, export) = records.collector.as_ref().map(|_| export::post()).unzip();
        let stdout = Sink::open(&Destination::Stdout)?;
        let sink = |to: &Destination| match to {
            Destination::Stdout => Ok(stdout.clone()),
            Destination::File(_) => Sink::open(to),
        };
        let access_log = match records.access_log {
            AccessLog::Off => None,
            form @ (AccessLog::Json | AccessLog::Text) => Some(start(Scribe {
                to: sink(&records.access_log_to)?,
                form,
                snapshot: snapshot.clone(),
                counts: counts.clone(),
            })?),
        };
        let audit = match records.audit {
            Audit::Off => None,
            Audit::Refusals | Audit::All => {
                let lines = post.as_ref().filter(|_| records.audit_otlp);
                let lines = lines.map(|post| post.lines.clone());
                let to = (sink(&records.audit_to)?, lines);
                Some(audit::start(config, to, counts)?)
            }
        };
        let scribes = Self {
            access_log,
            audit,
            post,
        };
        Ok((scribes, export))
    }

    /// For workers to hand over to.
    pub(crate) fn hands(&self, counts: Counts) -> Hands {
        Hands {
            access_log: self.access_log.clone(),
            audit: self.audit.clone(),
            spans: self.post.as_ref().map(|post| post.spans.clone()),
            counts,
        }
    }

    /// Waits until what workers have recorded is written, for a moment, and ends the audit.
    pub(crate) async fn finish(self) {
        tokio::time::sleep(TICK * 2).await;
        let post = self.post.clone();
        let waited = tokio::task::spawn_blocking(move || {
            let until = Instant::now() + LAST_LINES;
            let (done, is_done) = sync_channel(2);
            let flushed = self
                .access_log
                .map(|to| to.try_send(Page::Flush(done.clone())));
            let ended = self.audit.map(|to| to.try_send(Leaf::End(done.clone())));
            drop(done);
            let expected = [
                flushed.map(|sent| sent.is_ok()),
                ended.map(|sent| sent.is_ok()),
            ];
            for _ in expected.into_iter().filter(|sent| *sent == Some(true)) {
                // Whether or not: the process ends.
                let _ = is_done.recv_timeout(until.saturating_duration_since(Instant::now()));
            }
        });
        let _ = waited.await;
        if let Some(post) = post {
            post.flush().await;
        }
    }
}

fn start(scribe: Scribe) -> io::Result<SyncSender<Page>> {
    let (to, pages) = sync_channel(BATCHES_MAX);
    std::thread::Builder::new()
        .name("records".to_owned())
        .spawn(move || scribe.write(&pages))?;
    Ok(to)
}

struct Scribe {
    to: Sink,
    form: AccessLog,
    snapshot: Arc<Snapshot>,
    counts: Counts,
}

impl Scribe {
    /// Until nobody is left to hand over.
    fn write(self, pages: &Receiver<Page>) {
        let mut text = Vec::new();
        for page in pages {
            match page {
                Page::Access(batch) => self.lines(&batch, &mut text),
                // It may have given up.
                Page::Flush(done) => drop(done.try_send(())),
            }
        }
    }

    fn lines(&self, batch: &Batch, text: &mut Vec<u8>) {
        let own = self.snapshot.last_identity();
        let own = own.as_ref().map(|own| own.svid.id.as_str());
        text.clear();
        let mut lines = 0_u64;
        for told in batch.iter().filter(|told| told.is_logged) {
            match self.form {
                AccessLog::Text => access::text(told, own, text),
                AccessLog::Json | AccessLog::Off => access::json(told, own, text),
            }
            lines += 1;
        }
        match self.to.put(text) {
            Ok(()) => self.counts.access_log.add(lines),
            Err(error) => {
                tracing::debug!(%error, lines, "the access log could not be written");
                self.counts.access_log_lost.add(lines);
            }
        }
    }
}

/// Where lines go. Clones share it, and take turns.
#[derive(Debug, Clone)]
pub(super) struct Sink(Arc<Mutex<Sheet>>);

#[derive(Debug)]
struct Sheet {
    file: File,
    /// The last line was not written to its end.
    is_torn: bool,
}

impl Sink {
    fn open(to: &Destination) -> io::Result<Self> {
        let sheet = match to {
            // Not by way of the library's buffer, which somebody else may hold.
            Destination::Stdout => Sheet {
                file: File::from(io::stdout().as_fd().try_clone_to_owned()?),
                is_torn: false,
            },
            Destination::File(path) => {
                let opened = OpenOptions::new().append(true).create(true).open(path);
                let file = opened.map_err(|error| {
                    let what = format!("cannot write to {}: {error}", path.display());
                    io::Error::new(error.kind(), what)
                })?;
                let is_torn = tail(path, 1).is_ok_and(|last| !matches!(last[..], [] | [b'\n']));
                Sheet { file, is_torn }
            }
        };
        Ok(Self(Arc::new(Mutex::new(sheet))))
    }

    /// Writes whole lines, in one go if the system takes them so.
    pub(super) fn put(&self, lines: &[u8]) -> io::Result<()> {
        // A thread that panicked has left nothing worse than a torn line.
        let mut sheet = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sheet.put(lines)
    }
}

/// The last bytes of a file; none of what is no file.
pub(super) fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut tail = Vec::new();
    if path.metadata()?.is_file() {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        file.take(bytes).read_to_end(&mut tail)?;
    }
    Ok(tail)
}

impl Sheet {
    fn put(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            let written = match self.file.write(rest) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                written => written,
            };
            match written {
                Ok(bytes) => rest = &rest[bytes..],
                Err(error) => {
                    let before = &lines[..lines.len() - rest.len()];
                    self.is_torn = before.last().is_some_and(|last| *last != b'\n');
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let full = Destination::File("/dev/full".into());
        let sink = Sink::open(&full).expect("there");
        assert!(sink.put(b"a line\n").is_err());
        assert!(
            !sink.0.lock().expect("whole").is_torn,
            "nothing of it was written"
        );
        assert!(Sink::open(&Destination::File("/nowhere/file".into())).is_err());
    }
}
