//! The files of a directory, and what each holds now. Limits: `FILE_BYTES_MAX` a file, `FILES_MAX` files.
//!
//! A file is taken whole or not at all. What cannot be read, parsed or is a duplicate of another file's object is
//! refused, and what that file held before stays in force; of one that was never taken, what closes something is in force.
//! A file that is gone takes its objects with it.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use super::State;
use super::objects::{Key, OBJECTS_MAX, Object};
use super::parse::{self, Parsed};
use crate::files;

/// Bytes of one file.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Files of one directory.
pub(super) const FILES_MAX: usize = 10_000;
/// A file changed less than this before it was read may change again under the same time stamp.
const RACY: Duration = Duration::from_secs(1);

/// Why a file was refused.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// From 1; 0 when it is about no line.
    pub line: u64,
    /// Path of the field, or name of the annotation.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// One file, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FileStatus {
    /// Its name in the directory.
    pub file: String,
    /// Objects of it in force.
    pub objects: usize,
    /// Set when what it holds now is not what is in force.
    pub refused: Option<Refusal>,
    /// What was passed over.
    pub warnings: Vec<String>,
}

/// What a scan found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    /// Something differs from the last scan: objects or status.
    pub(super) changed: bool,
    /// A file was changed so lately that it may be half-written; look again soon.
    pub(super) unsettled: bool,
}

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    files: BTreeMap<String, File>,
    unreadable: Option<String>,
    scanned: bool,
}

#[derive(Debug, Default)]
struct File {
    /// What the file looked like when it was last read; none makes it be read again.
    seen: Option<Fingerprint>,
    objects: Vec<(Key, Object)>,
    /// Whether it was ever taken whole.
    was_taken: bool,
    refused: Option<Refusal>,
    warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Follows symbolic links.
    fn of(path: &Path) -> io::Result<Self> {
        let data = fs::metadata(path)?;
        Ok(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }

    fn younger_than(&self, age: Duration, now: SystemTime) -> bool {
        let (seconds, nanos) = self.modified;
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else {
            return false;
        };
        let modified = UNIX_EPOCH + Duration::new(seconds, nanos);
        // A time in the future says nothing.
        now.duration_since(modified)
            .is_ok_and(|passed| passed < age)
    }
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            files: BTreeMap::new(),
            unreadable: None,
            scanned: false,
        }
    }

    pub(super) fn state(&self) -> State {
        let status = |(name, file): (&String, &File)| FileStatus {
            file: name.clone(),
            objects: file.objects.len(),
            refused: file.refused.clone(),
            warnings: file.warnings.clone(),
        };
        State {
            objects: self
                .files
                .values()
                .flat_map(|file| file.objects.iter().cloned())
                .collect(),
            files: self.files.iter().map(status).collect(),
            noted: Vec::new(),
            unreadable: self.unreadable.clone(),
        }
    }

    /// Reads what changed. A file must have been left alone for `settle`.
    pub(super) fn scan(&mut self, now: SystemTime, settle: Duration) -> Outcome {
        let mut outcome = Outcome {
            changed: !self.scanned,
            unsettled: false,
        };
        self.scanned = true;
        let names = match list(&self.path) {
            Ok(names) => names,
            Err(e) => {
                let problem = Some(e.to_string());
                outcome.changed |= self.unreadable != problem;
                self.unreadable = problem;
                return outcome;
            }
        };
        outcome.changed |= self.unreadable.take().is_some();
        let before = self.files.len();
        self.files.retain(|name, _| names.contains(name));
        outcome.changed |= self.files.len() != before;
        let mut fresh = BTreeMap::new();
        for name in names {
            let path = self.path.join(&name);
            let print = Fingerprint::of(&path).ok();
            let known = self.files.get(&name).and_then(|file| file.seen);
            if print.is_some() && print == known {
                continue;
            }
            if print.is_some_and(|print| print.younger_than(settle, now)) {
                outcome.unsettled = true;
                continue;
            }
            let racy = print.is_none_or(|print| print.younger_than(RACY, now));
            let parsed = files::read(&path, FILE_BYTES_MAX)
                .map_err(|e| about_file(&e.to_string()))
                .map(|bytes| parse::parse(&bytes));
            fresh.insert(name, (if racy { None } else { print }, parsed));
        }
        outcome.changed |= self.accept(fresh);
        outcome
    }

    /// Puts new contents in force; true when anything differs.
    fn accept(
        &mut self,
        fresh: BTreeMap<String, (Option<Fingerprint>, Result<Parsed, Refusal>)>,
    ) -> bool {
        let mut changed = false;
        let mut good = BTreeMap::new();
        for (name, (print, parsed)) in fresh {
            let was_taken = self.files.get(&name).is_some_and(|file| file.was_taken);
            match parsed {
                Ok(Parsed {
                    refused: Some(refusal),
                    ..
                }) if was_taken => changed |= self.refuse(&name, print, refusal),
                Ok(parsed) => {
                    good.insert(name, (print, parsed));
                }
                Err(refusal) => changed |= self.refuse(&name, print, refusal),
            }
        }
        // A refusal keeps old objects, which may clash with what was accepted before it: begin again until none is.
        while let Some((name, refusal)) = self.first_clash(&good) {
            good.remove(&name);
            // Read again at each scan: the other file may give way.
            changed |= self.refuse(&name, None, refusal);
        }
        for (name, (print, parsed)) in good {
            let file = self.files.entry(name).or_insert_with(|| {
                changed = true;
                File::default()
            });
            file.seen = print;
            file.was_taken |= parsed.refused.is_none();
            let same = file.refused == parsed.refused
                && file.objects == parsed.objects
                && file.warnings == parsed.warnings;
            if !same {
                changed = true;
                file.refused = parsed.refused;
                file.objects = parsed.objects;
                file.warnings = parsed.warnings;
            }
        }
        changed
    }

    fn refuse(&mut self, name: &str, print: Option<Fingerprint>, refusal: Refusal) -> bool {
        let file = self.files.entry(name.to_owned()).or_default();
        file.seen = print;
        let changed = file.refused.as_ref() != Some(&refusal);
        file.refused = Some(refusal);
        changed
    }

    /// The first new content that holds an object of another file, or one too many.
    fn first_clash(
        &self,
        good: &BTreeMap<String, (Option<Fingerprint>, Parsed)>,
    ) -> Option<(String, Refusal)> {
        let mut owners: HashMap<&Key, &str> = HashMap::new();
        for (name, file) in &self.files {
            if !good.contains_key(name) {
                owners.extend(file.objects.iter().map(|(key, _)| (key, name.as_str())));
            }
        }
        for (name, (_, parsed)) in good {
            for (key, _) in &parsed.objects {
                let Some(other) = owners.insert(key, name) else {
                    continue;
                };
                let problem = format!("{key} is in {other} too");
                return Some((
                    name.clone(),
                    Refusal {
                        field: "metadata.name".into(),
                        ..about_file(&problem)
                    },
                ));
            }
            if owners.len() > OBJECTS_MAX {
                let problem = format!("with it there are more than {OBJECTS_MAX} objects");
                return Some((name.clone(), about_file(&problem)));
            }
        }
        None
    }
}

fn about_file(problem: &str) -> Refusal {
    Refusal {
        line: 0,
        field: String::new(),
        problem: problem.into(),
    }
}

/// Names that are read, hidden ones excepted (Kubernetes keeps the files of a ConfigMap behind `..data`).
fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        if !name.starts_with('.') && (name.ends_with(".yaml") || name.ends_with(".yml")) {
            names.push(name);
        }
        if names.len() > FILES_MAX {
            return Err(io::Error::other("holds more than 10000 files"));
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests;
