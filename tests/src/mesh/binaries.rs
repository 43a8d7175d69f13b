//! The programs under test, built by the cargo that runs us, in our own profile: what is tested is what is there.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

/// Where to find programs that somebody else has built.
pub const DIRECTORY_VARIABLE: &str = "RINGMAIL_BIN_DIR";

/// The built programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `ringmail-controller`.
    pub controller: PathBuf,
    /// `ringmail-proxy`.
    pub proxy: PathBuf,
    /// `ringmail`, the command line.
    pub ringmail: PathBuf,
}

impl Binaries {
    /// Builds them, unless [`DIRECTORY_VARIABLE`] says where they are. Costs little when nothing has changed; call it
    /// once, before scenarios.
    pub fn build() -> anyhow::Result<Self> {
        if let Some(directory) = env::var_os(DIRECTORY_VARIABLE) {
            return Self::found_in(Path::new(&directory));
        }
        let executable = env::current_exe()?;
        let directory = executable
            .ancestors()
            .skip(1)
            .find(|directory| !directory.ends_with("deps"));
        let directory = directory.context("this program is in no directory")?;
        let profile = match directory.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let cargo = env::var_os("CARGO").or_else(|| option_env!("CARGO").map(OsString::from));
        // The whole workspace, so that features are those of the build that is already there.
        let status = Command::new(cargo.unwrap_or_else(|| "cargo".into()))
            .args(["build", "--workspace", "--bins", "--profile", profile])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .context("cannot run cargo to build the programs under test")?;
        if !status.success() {
            bail!("the programs under test do not build: {status}");
        }
        Self::found_in(directory)
    }

    fn found_in(directory: &Path) -> anyhow::Result<Self> {
        let find = |name| {
            let path = directory.join(name);
            let found = path.is_file().then_some(&path);
            found
                .cloned()
                .with_context(|| format!("there is no {}", path.display()))
        };
        Ok(Self {
            controller: find("ringmail-controller")?,
            proxy: find("ringmail-proxy")?,
            ringmail: find("ringmail")?,
        })
    }

    /// The same, copied to `directory` if the proxies' user could not reach them where they are.
    pub(super) fn reachable_by_all(&self, directory: &Path) -> anyhow::Result<Self> {
        let reachable = |program: &Path| {
            let everyone_may = |path: &Path| {
                fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 1 != 0)
            };
            if program.ancestors().all(everyone_may) {
                return Ok(program.to_owned());
            }
            let copy = directory.join(program.file_name().context("a program has a name")?);
            fs::copy(program, &copy)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
            anyhow::Ok(copy)
        };
        Ok(Self {
            controller: reachable(&self.controller)?,
            proxy: reachable(&self.proxy)?,
            ringmail: reachable(&self.ringmail)?,
        })
    }
}
