//! One node, and pods on its bridge: `10.77.0.n/16` and `fd77::n/64`, the node being 1. Everything else, such as a
//! Service's address, goes by the node, so that it passes the pod's own output rules first.
//!
//! A namespace is held by a thread that lives in it and runs its asynchronous work; when that thread ends and nobody
//! else is inside, the kernel takes namespace and links away. Nothing is ever mounted or named outside this process.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::Path,
    process::Command,
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::{runtime, sync::oneshot, task::JoinHandle};

use crate::{
    bed::{Bed, Exemption},
    fault::Link,
    links,
    process::Process,
    wait,
};

/// The node's bridge.
pub(crate) const BRIDGE: &str = "br0";

/// How long the kernel may take to forget a dropped pod.
const LINK_GONE_LIMIT: Duration = Duration::from_secs(10);

/// Where the node is reached by its pods.
pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The same for IPv6.
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// Leaves the machine's network, for good, for one of nothing but loopback, to which every address of `networks` belongs.
/// Call before any thread starts: those that are there stay where they are.
pub fn isolate(_: Bed, networks: &[(IpAddr, u8)]) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    links::up("lo", 0)?;
    // What is an address of loopback is one with its whole network.
    networks
        .iter()
        .try_for_each(|(address, prefix)| links::address("lo", *address, *prefix))
}

/// A network namespace and the thread that lives in it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    runtime: runtime::Handle,
    /// Dropping it ends the thread; the join waits for it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Namespace {
    fn new(name: &str) -> anyhow::Result<Self> {
        let (ready, started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let entered = (|| -> io::Result<_> {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    let file = File::open("/proc/thread-self/ns/net")?;
                    Ok((
                        file,
                        runtime::Builder::new_current_thread()
                            .enable_all()
                            .build()?,
                    ))
                })();
                match entered {
                    Ok((file, runtime)) => {
                        // A receiver that is gone means that nobody wants the namespace.
                        let _ = ready.send(Ok((file, runtime.handle().clone())));
                        let _ = runtime.block_on(stopped);
                        runtime.shutdown_background();
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            })?;
        let (file, runtime) = started.recv().context("the namespace's thread died")??;
        let namespace = Self {
            file,
            runtime,
            stop: Some(stop),
            thread: Some(thread),
        };
        namespace.run(|| links::up("lo", 0))??;
        Ok(namespace)
    }

    /// Runs a closure on a thread of its own inside the namespace, and waits for it.
    pub fn run<R: Send>(&self, inside: impl FnOnce() -> R + Send) -> anyhow::Result<R> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(inside())
            });
            thread
                .join()
                .map_err(|panic| anyhow!("panicked in the namespace: {}", panic_text(&panic)))?
        })
    }

    /// Starts asynchronous work on the namespace's thread. It ends with the namespace.
    pub fn spawn<R: Send + 'static>(
        &self,
        work: impl Future<Output = R> + Send + 'static,
    ) -> JoinHandle<R> {
        self.runtime.spawn(work)
    }

    /// Runs asynchronous work on the namespace's thread and waits for it. Call from outside any namespace's work.
    pub fn block_on<R: Send + 'static>(
        &self,
        work: impl Future<Output = R> + Send + 'static,
    ) -> anyhow::Result<R> {
        let (done, result) = mpsc::channel();
        let task = self
            .runtime
            .spawn(async move { drop(done.send(work.await)) });
        result.recv().map_err(|_| {
            anyhow!(
                "work in the namespace panicked (finished: {})",
                task.is_finished()
            )
        })
    }

    /// Starts a program inside, as `uid` when not 0, its output going to `log`. It is killed when the handle is
    /// dropped, and when this namespace's thread ends in any way.
    pub fn start(&self, command: &Command, uid: u32, log: &Path) -> anyhow::Result<Process> {
        let mut launcher = Process::launcher(command, uid, log)?;
        let child = self.block_on(async move { launcher.spawn() })?;
        let program = command.get_program().to_string_lossy().into_owned();
        Ok(Process::new(
            child.with_context(|| format!("cannot start {program}"))?,
            program,
            log,
        ))
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Namespace {
    /// Ends all work inside and waits for the thread.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

/// The machine that pods run on.
#[derive(Debug)]
pub struct Node {
    /// Its namespace: the controller runs here, and the wire is watched here.
    pub namespace: Namespace,
    /// How proxies are told from apps here.
    pub exemption: Exemption,
    next: AtomicU16,
}

impl Node {
    /// A node without pods.
    pub fn new(bed: Bed) -> anyhow::Result<Self> {
        let namespace = Namespace::new("node")?;
        namespace.run(|| {
            links::bridge(BRIDGE)?;
            links::address(BRIDGE, NODE_V4.into(), 16)?;
            links::address(BRIDGE, NODE_V6.into(), 64)
        })??;
        Ok(Self {
            namespace,
            exemption: bed.exemption,
            next: AtomicU16::new(2),
        })
    }

    /// A pod at the next address.
    pub fn pod(&self, name: &str) -> anyhow::Result<Pod> {
        self.pod_at(name, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A pod at the address of a pod that is gone, say. The old pod must have been dropped.
    pub fn pod_at(&self, name: &str, number: u16) -> anyhow::Result<Pod> {
        let namespace = Namespace::new(name)?;
        let port = port_name(number);
        self.namespace.run(|| {
            // The kernel takes a dropped pod's link away in the background.
            wait::until(LINK_GONE_LIMIT, || links::index(&port).is_err())?;
            links::veth(&port, "eth0", Some((namespace.file().as_fd(), number)))?;
            links::enslave(&port, BRIDGE)?;
            links::up(&port, 0)
        })??;
        Pod::configure(name, number, namespace)
    }

    /// A pod whose link can be cut, delayed and made lossy.
    pub fn pod_on_faulty_link(&self, name: &str) -> anyhow::Result<(Pod, Link)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace::new(name)?;
        let link = Link::between(&self.namespace, number, &namespace)?;
        Ok((Pod::configure(name, number, namespace)?, link))
    }
}

/// The bridge's port for a pod.
pub(crate) fn port_name(number: u16) -> String {
    format!("port{number}")
}

/// A network namespace with one interface, `eth0`.
#[derive(Debug)]
pub struct Pod {
    /// For people.
    pub name: String,
    /// Its place in the node's networks.
    pub number: u16,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Where its apps run.
    pub namespace: Namespace,
}

impl Pod {
    fn configure(name: &str, number: u16, namespace: Namespace) -> anyhow::Result<Self> {
        let [high, low] = number.to_be_bytes();
        let v4 = Ipv4Addr::new(10, 77, high, low);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number);
        namespace.run(|| {
            links::address("eth0", v4.into(), 16)?;
            links::address("eth0", v6.into(), 64)?;
            links::up("eth0", 0)?;
            links::default_route(NODE_V4.into())?;
            links::default_route(NODE_V6.into())
        })??;
        Ok(Self {
            name: name.to_owned(),
            number,
            v4,
            v6,
            namespace,
        })
    }

    /// Gives it another address in the node's network.
    pub fn also_at(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        self.namespace
            .run(|| links::address("eth0", address.into(), 16))?
    }

    /// Both addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}
