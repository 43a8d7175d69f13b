//! The thread that writes: lines of the access log, to standard output or to the end of a file. It may be held up for as long
//! as a disk or a reader likes; who hands over to it never waits.
//!
//! What could not be written is lost, and counted; the next line begins on a line of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ringmail_proto::records::AccessLog;

use super::access;
use super::count::Counts;
use super::queue::{BATCHES_MAX, Batch, Hands, TICK};
use crate::config::{Destination, Records as Config};
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
}

impl Scribes {
    /// Opens what is to be written to, and starts a thread for each.
    ///
    /// # Errors
    /// When a file cannot be opened, or a thread not be started.
    pub(crate) fn start(
        config: &Config,
        snapshot: &Arc<Snapshot>,
        counts: &Arc<Counts>,
    ) -> io::Result<Self> {
        let access_log = match config.access_log {
            AccessLog::Off => None,
            form @ (AccessLog::Json | AccessLog::Text) => Some(start(Scribe {
                to: Sink::open(&config.access_log_to)?,
                form,
                snapshot: snapshot.clone(),
                counts: counts.clone(),
            })?),
        };
        Ok(Self { access_log })
    }

    /// For workers to hand over to.
    pub(crate) fn hands(&self, counts: Arc<Counts>) -> Hands {
        Hands {
            access_log: self.access_log.clone(),
            spans: None,
            counts,
        }
    }

    /// Waits until what workers have recorded is written, for a moment.
    pub(crate) async fn finish(&self) {
        let Some(to) = self.access_log.clone() else {
            return;
        };
        tokio::time::sleep(TICK * 2).await;
        let (done, is_done) = sync_channel(1);
        let waited = tokio::task::spawn_blocking(move || {
            if to.try_send(Page::Flush(done)).is_ok() {
                // Whether or not: the process ends.
                let _ = is_done.recv_timeout(LAST_LINES);
            }
        });
        let _ = waited.await;
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
    counts: Arc<Counts>,
}

impl Scribe {
    /// Until nobody is left to hand over.
    fn write(mut self, pages: &Receiver<Page>) {
        let mut text = Vec::new();
        for page in pages {
            match page {
                Page::Access(batch) => self.lines(&batch, &mut text),
                // It may have given up.
                Page::Flush(done) => drop(done.try_send(())),
            }
        }
    }

    fn lines(&mut self, batch: &Batch, text: &mut Vec<u8>) {
        let own = self.snapshot.last_identity();
        let own = own.as_ref().map(|own| own.svid.id.as_str());
        text.clear();
        let mut lines = 0;
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

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    /// The last line was not written to its end.
    is_torn: bool,
}

impl Sink {
    fn open(to: &Destination) -> io::Result<Self> {
        let file = match to {
            // Not by way of the library's buffer, which somebody else may hold.
            Destination::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            Destination::File(path) => {
                let opened = OpenOptions::new().append(true).create(true).open(path);
                opened.map_err(|error| {
                    let what = format!("cannot write to {}: {error}", path.display());
                    io::Error::new(error.kind(), what)
                })?
            }
        };
        Ok(Self {
            file,
            is_torn: false,
        })
    }

    /// Writes whole lines, in one go if the system takes them so.
    pub(super) fn put(&mut self, lines: &[u8]) -> io::Result<()> {
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
        let mut sink = Sink::open(&full).expect("there");
        assert!(sink.put(b"a line\n").is_err());
        assert!(!sink.is_torn, "nothing of it was written");
        assert!(Sink::open(&Destination::File("/nowhere/file".into())).is_err());
    }
}
