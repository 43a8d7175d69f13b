//! Programs of others: where `.ci/tools` puts them, then where everybody looks.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

/// Where `.ci/tools` was told to put what no package manager puts on the `PATH`.
const DIRECTORY_VARIABLE: &str = "RINGMAIL_TOOLS";
/// Where it puts it else, from the workspace's root.
const DIRECTORY: &str = "target/tools";

/// A program that can be run, by name.
pub(crate) fn command(name: &str) -> anyhow::Result<Command> {
    find(name).map(Command::new)
}

/// Where a program is.
pub(super) fn find(name: &str) -> anyhow::Result<PathBuf> {
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let own = env::var_os(DIRECTORY_VARIABLE).unwrap_or_else(|| DIRECTORY.into());
    let mut directories = vec![workspace.join(own).join("bin")];
    directories.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    // Debian keeps servers out of users' way, and PostgreSQL's in a directory for each version.
    directories.push("/usr/sbin".into());
    directories.extend(postgresql());
    let found = directories
        .into_iter()
        .map(|directory| directory.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("there is no {name}"))
}

/// PostgreSQL's programs, newest version last in the name's order.
fn postgresql() -> Option<PathBuf> {
    let versions = Path::new("/usr/lib/postgresql").read_dir().ok()?;
    let versions = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    versions.max()
}

/// A script or program that the suites bring along, `tests/suites/NAME`.
pub(super) fn ours(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/suites")).join(name)
}
