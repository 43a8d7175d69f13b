//! What this machine allows: pods as root, pods in a user namespace, or no pods and why.
//!
//! Decided before any thread starts, as the kernel asks of those who enter a user namespace. The main thread stays in
//! the machine's network: only the pods' own threads leave it.

use std::{env, fs, io, os::unix::process::CommandExt, process::Command, thread};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal},
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};

/// The first argument of this program when it runs as the launcher of another: `--bed-exec UID PROGRAM ARGUMENTS`.
pub(crate) const LAUNCH: &str = "--bed-exec";

/// The user of the proxies, and their mark where there are no users.
pub const PROXY_IDENTITY: u32 = 1337;

/// Why there can be no pods here, and what would change that.
#[derive(Debug, Clone)]
pub struct Unavailable(pub String);

/// How the proxies' own connections are told from the apps'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemption {
    /// Proxies run as user [`PROXY_IDENTITY`].
    Uid,
    /// A user namespace has one user: proxies mark their sockets with [`PROXY_IDENTITY`].
    Mark,
}

/// Permission to make pods.
#[derive(Debug, Clone, Copy)]
pub struct Bed {
    /// What the proxies are known by.
    pub exemption: Exemption,
}

impl Bed {
    /// Call first thing in `main`. Does not return when this process is to become another program.
    pub fn start() -> Result<Self, Unavailable> {
        let mut arguments = env::args_os().skip(1);
        if arguments.next().is_some_and(|first| first == LAUNCH) {
            let error = launch(arguments);
            return Err(Unavailable(format!("cannot launch: {error}")));
        }
        if try_network_namespace().is_ok() {
            return Ok(Self {
                exemption: Exemption::Uid,
            });
        }
        enter_user_namespace().map_err(|error| {
            Unavailable(format!(
                "no root, and no user namespace ({error}); enable by running as root, or with sysctl \
                 user.max_user_namespaces > 0, kernel.unprivileged_userns_clone=1 and \
                 kernel.apparmor_restrict_unprivileged_userns=0 where these exist"
            ))
        })?;
        Ok(Self {
            exemption: Exemption::Mark,
        })
    }
}

/// May this process make network namespaces as it is? Goes in and comes back.
fn try_network_namespace() -> io::Result<()> {
    let home = fs::File::open("/proc/self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    Ok(setns(home, CloneFlags::CLONE_NEWNET)?)
}

/// Becomes root in a user namespace of its own, in which this user is the only one.
fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    // On a thread that ends there: this user may not come back into the machine's network.
    let tried = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
    Ok(tried.map_err(|_| io::Error::other("the trying thread died"))??)
}

/// Becomes another program, as another user, that ends when the thread that started it does.
fn launch(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> io::Error {
    let uid = arguments
        .next()
        .and_then(|uid| uid.to_str()?.parse::<u32>().ok());
    let (Some(uid), Some(program)) = (uid, arguments.next()) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let identity = || -> nix::Result<()> {
        if uid != 0 {
            setgroups(&[])?;
            setgid(Gid::from_raw(uid))?;
            setuid(Uid::from_raw(uid))?;
        }
        prctl::set_pdeathsig(Signal::SIGKILL)
    };
    match identity() {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(errno) => errno.into(),
    }
}
