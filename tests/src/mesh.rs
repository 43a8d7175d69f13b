//! The mesh itself, as its users have it: the real binaries, and Kubernetes objects in a directory.
//!
//! A mesh has a directory of its own for state, objects, tokens and logs, which goes with it. The controller runs on the
//! node; a pod's sidecar goes through `init --verify` and `run` in the pod, the last without privileges.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tempfile::TempDir;

use crate::{
    bed::{Exemption, PROXY_IDENTITY},
    load::{Reply, fetch},
    netns::{NODE_V4, Namespace, Node, Pod},
    process::Process,
    wait,
};

/// The built programs.
mod binaries;

/// Kubernetes objects as YAML.
pub mod objects;

pub use binaries::{Binaries, DIRECTORY_VARIABLE};
pub use objects::{Service, ServicePort, Workload};

/// The trust domain of every mesh here.
pub const TRUST_DOMAIN: &str = "mesh.local";

/// Where proxies call.
pub const CONTROLLER_PORT: u16 = 15012;

/// Where the controller is scraped, on the node's loopback.
pub const CONTROLLER_METRICS: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15014);

/// Where a proxy says whether it is ready, and is scraped.
pub const PROXY_ADMIN_PORT: u16 = 15020;

/// How long a start may take on a busy machine.
pub const START_LIMIT: Duration = Duration::from_secs(30);

/// How the controller is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a certificate is valid; proxies renew at half.
    pub leaf_lifetime: Duration,
    /// More flags of `ringmail-controller run`.
    pub controller_flags: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            leaf_lifetime: Duration::from_secs(20),
            controller_flags: Vec::new(),
        }
    }
}

/// A controller and what it reads.
#[derive(Debug)]
pub struct Mesh<'node> {
    node: &'node Node,
    binaries: Binaries,
    settings: Settings,
    controller: Option<Process>,
    directory: TempDir,
}

impl<'node> Mesh<'node> {
    /// Starts a controller on `node`, with no objects yet.
    pub fn start(
        node: &'node Node,
        binaries: &Binaries,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("ringmail-mesh-")
            .tempdir()?;
        // Proxies have another user, and read tokens and the root in here.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        for name in ["objects", "state", "tokens", "logs"] {
            fs::create_dir(directory.path().join(name))?;
        }
        fs::set_permissions(
            directory.path().join("state"),
            fs::Permissions::from_mode(0o700),
        )?;
        let binaries = binaries.reachable_by_all(directory.path())?;
        let mut mesh = Self {
            node,
            binaries,
            settings,
            controller: None,
            directory,
        };
        mesh.start_controller()?;
        Ok(mesh)
    }

    /// Starts the controller (again) with the same state, and waits until it is ready.
    pub fn start_controller(&mut self) -> anyhow::Result<()> {
        let controller = self.replica("controller", CONTROLLER_PORT, CONTROLLER_METRICS)?;
        let root = self.path("state").join("root.pem");
        fs::copy(root, self.path("root.pem")).context("the controller left no root.pem")?;
        fs::set_permissions(self.path("root.pem"), fs::Permissions::from_mode(0o644))?;
        self.controller = Some(controller);
        Ok(())
    }

    /// Starts another controller of the same objects and state, which listens elsewhere, and waits until it is ready.
    pub fn replica(&self, name: &str, port: u16, metrics: SocketAddr) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.binaries.controller);
        command
            .args(["run", "--trust-domain", TRUST_DOMAIN])
            .arg("--source-dir")
            .arg(self.path("objects"))
            .arg("--state-dir")
            .arg(self.path("state"))
            .args([
                "--listen",
                &SocketAddr::new(NODE_V4.into(), port).to_string(),
            ])
            .args(["--metrics-listen", &metrics.to_string()])
            .args([
                "--leaf-lifetime",
                &format!("{}s", self.settings.leaf_lifetime.as_secs()),
            ])
            .args(&self.settings.controller_flags);
        let mut controller = self.node.namespace.start(&command, 0, &self.log(name))?;
        wait_ready(&self.node.namespace, metrics, &mut controller)?;
        Ok(controller)
    }

    /// The running controller, for signals; `None` after [`Self::kill_controller`].
    pub fn controller(&mut self) -> Option<&mut Process> {
        self.controller.as_mut()
    }

    /// Kills the controller as a crash does.
    pub fn kill_controller(&mut self) {
        self.controller = None;
    }

    /// A page of the controller's: `/metrics`, `/ready`, `/status`.
    pub fn controller_page(&self, path: &str) -> anyhow::Result<Reply> {
        page(&self.node.namespace, CONTROLLER_METRICS, path)
    }

    /// Writes an object, in place of an older one of that name, for the controller to find; all at once.
    pub fn put(&self, name: &str, yaml: &str) -> anyhow::Result<()> {
        let (draft, file) = (
            self.path("objects").join(format!(".{name}.draft")),
            self.object(name),
        );
        fs::write(&draft, yaml)?;
        Ok(fs::rename(draft, file)?)
    }

    /// Takes an object away.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        fs::remove_file(self.object(name)).with_context(|| format!("object {name}"))
    }

    /// Announces a namespace, whose pods are meshed if `is_meshed`.
    pub fn put_namespace(&self, name: &str, is_meshed: bool) -> anyhow::Result<()> {
        self.put(
            &format!("namespace-{name}"),
            &objects::namespace(name, is_meshed),
        )
    }

    /// Announces a pod and its service account.
    pub fn put_workload(&self, pod: &Pod, workload: &Workload) -> anyhow::Result<()> {
        let Workload {
            namespace,
            name,
            service_account,
            ..
        } = workload;
        let account = objects::service_account(namespace, service_account);
        self.put(
            &format!("serviceaccount-{namespace}-{service_account}"),
            &account,
        )?;
        self.put(
            &format!("pod-{namespace}-{name}"),
            &objects::pod(workload, &pod.addresses()),
        )
    }

    /// Announces a Service and its endpoints.
    pub fn put_service(
        &self,
        service: &Service,
        backends: &[(&Workload, &Pod)],
    ) -> anyhow::Result<()> {
        let backends: Vec<_> = backends
            .iter()
            .map(|(workload, pod)| (workload.name.as_str(), pod.addresses()))
            .collect();
        let Service {
            namespace, name, ..
        } = service;
        self.put(
            &format!("service-{namespace}-{name}"),
            &objects::service(service),
        )?;
        self.put(
            &format!("endpoints-{namespace}-{name}"),
            &objects::endpoint_slices(service, &backends),
        )
    }

    /// A one-time token for `namespace/service-account`, in a file that the proxy's user can read.
    pub fn join_token(&self, workload: &Workload) -> anyhow::Result<PathBuf> {
        let output = Command::new(&self.binaries.controller)
            .args(["join-token", "--trust-domain", TRUST_DOMAIN, "--state-dir"])
            .arg(self.path("state"))
            .args([
                "--service-account",
                &format!("{}/{}", workload.namespace, workload.service_account),
            ])
            .output()?;
        if !output.status.success() {
            bail!("join-token: {}", String::from_utf8_lossy(&output.stderr));
        }
        let file = self
            .path("tokens")
            .join(format!("{}-{}", workload.namespace, workload.name));
        fs::write(&file, output.stdout)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400))?;
        if self.node.exemption == Exemption::Uid {
            chown(&file, Some(PROXY_IDENTITY), Some(PROXY_IDENTITY))?;
        }
        Ok(file)
    }

    /// Captures a pod's connections, proves it, and starts its proxy, as a pod's containers do; does not wait until it
    /// is ready. Announce the workload first.
    pub fn start_sidecar(&self, pod: &Pod, workload: &Workload) -> anyhow::Result<Sidecar> {
        let token = self.join_token(workload)?;
        let uid = if self.node.exemption == Exemption::Uid {
            PROXY_IDENTITY
        } else {
            0
        };
        let log = self.log(&format!("proxy-{}-{}", workload.namespace, workload.name));
        let command = |arguments: &[&str]| {
            let mut command = Command::new(&self.binaries.proxy);
            command
                .args(arguments)
                .env("RINGMAIL_TRUST_DOMAIN", TRUST_DOMAIN)
                .env(
                    "RINGMAIL_CONTROLLER_ADDRESS",
                    SocketAddr::new(NODE_V4.into(), CONTROLLER_PORT).to_string(),
                )
                .env("RINGMAIL_BOOTSTRAP_ROOTS_FILE", self.path("root.pem"))
                .env(
                    "RINGMAIL_WORKLOAD",
                    format!("{}/{}", workload.namespace, workload.name),
                )
                .env("RINGMAIL_JOIN_TOKEN_FILE", &token)
                .envs(
                    workload
                        .environment
                        .iter()
                        .map(|(name, value)| (name, value)),
                );
            match self.node.exemption {
                Exemption::Uid => command.env("RINGMAIL_PROXY_UID", PROXY_IDENTITY.to_string()),
                Exemption::Mark => command.env("RINGMAIL_SOCKET_MARK", PROXY_IDENTITY.to_string()),
            };
            command
        };
        pod.namespace
            .start(&command(&["init", "--verify"]), 0, &log)?
            .success(START_LIMIT)?;
        let process = pod.namespace.start(&command(&["run"]), uid, &log)?;
        Ok(Sidecar {
            process,
            admin: SocketAddr::new(pod.v4.into(), PROXY_ADMIN_PORT),
        })
    }

    /// A sidecar that is ready.
    pub fn sidecar(&self, pod: &Pod, workload: &Workload) -> anyhow::Result<Sidecar> {
        let mut sidecar = self.start_sidecar(pod, workload)?;
        sidecar.wait_ready(self.node)?;
        Ok(sidecar)
    }

    /// Adds the end of every log to an error, for people.
    pub fn explain<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        result.map_err(|error| match self.tails() {
            Ok(tails) => anyhow::anyhow!("{error:#}\n{tails}"),
            Err(_) => error,
        })
    }

    fn tails(&self) -> anyhow::Result<String> {
        let mut tails = String::new();
        for entry in fs::read_dir(self.path("logs"))? {
            tails += &Process::tail_of(&entry?.path());
            tails.push('\n');
        }
        Ok(tails)
    }

    /// Where a workload's proxy says what happens.
    pub fn proxy_log_path(&self, workload: &Workload) -> PathBuf {
        self.log(&format!("proxy-{}-{}", workload.namespace, workload.name))
    }

    /// All that a workload's proxy has said so far.
    pub fn proxy_log(&self, workload: &Workload) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.proxy_log_path(workload))?)
    }

    /// What the command line answers on the node, whatever its exit code.
    pub fn ringmail(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.binaries.ringmail);
        command.args(arguments);
        let output = self.node.namespace.run(move || command.output())??;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(error.is_empty(), "ringmail {arguments:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What the controller keeps, its keys included.
    pub fn state_directory(&self) -> PathBuf {
        self.path("state")
    }

    fn object(&self, name: &str) -> PathBuf {
        self.path("objects").join(format!("{name}.yaml"))
    }

    /// Where a program of that name says what happens.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path("logs").join(format!("{name}.log"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A pod's proxy; killed when dropped. The pod's rules stay: its apps are then refused.
#[derive(Debug)]
pub struct Sidecar {
    /// `ringmail-proxy run`.
    pub process: Process,
    admin: SocketAddr,
}

impl Sidecar {
    /// Waits until the proxy says that it is ready; an error if it ends before.
    pub fn wait_ready(&mut self, node: &Node) -> anyhow::Result<()> {
        wait_ready(&node.namespace, self.admin, &mut self.process)
    }

    /// Does the proxy say that it is ready?
    pub fn is_ready(&self, node: &Node) -> bool {
        page(&node.namespace, self.admin, "/ready").is_ok_and(|reply| reply.status.is_success())
    }

    /// What a scrape finds.
    pub fn metrics(&self, node: &Node) -> anyhow::Result<String> {
        Ok(page(&node.namespace, self.admin, "/metrics")?.text())
    }
}

fn wait_ready(from: &Namespace, admin: SocketAddr, process: &mut Process) -> anyhow::Result<()> {
    let mut ended = None;
    let waited = wait::until(START_LIMIT, || {
        ended = process.ended().ok().flatten();
        ended.is_some() || page(from, admin, "/ready").is_ok_and(|reply| reply.status.is_success())
    });
    match ended {
        Some(status) => bail!(
            "it ended with {status} before it was ready; {}",
            process.tail()
        ),
        None => waited.with_context(|| format!("not ready; {}", process.tail())),
    }
}

/// A page of a controller's or a proxy's, seen from a namespace.
pub fn page(from: &Namespace, admin: SocketAddr, path: &str) -> anyhow::Result<Reply> {
    let request = Request::get(path)
        .header("host", admin.to_string())
        .body(Full::<Bytes>::default())?;
    Ok(from.block_on(fetch(admin, request))??)
}
