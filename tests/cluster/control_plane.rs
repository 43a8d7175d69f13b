//! etcd and kube-apiserver on loopback, in a directory of their own, with certificates made here; and the client of its
//! administrator, which is the controller's own.

use std::{
    env,
    fmt::Write as _,
    fs,
    future::Future,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use hyper::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use ringmail_tests::{mesh::Binaries, process::Process};
use tempfile::TempDir;
use tokio::{
    runtime::{self, Runtime},
    time::{Instant, sleep},
};

/// The administrator's way to the API server.
const ADMIN: &str = "admin.kubeconfig";
/// How long a condition may take to come true on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// The first addresses of Services and of pods, and their networks: all of them are this machine's, so whoever listens
/// at a Service's or a pod's own address is found there without kube-proxy and without a network of pods.
pub(crate) const NETWORKS: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), 16),
    (IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1)), 16),
];
/// What is installed.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/ringmail");

/// Programs of others.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    apiserver: PathBuf,
    etcd: PathBuf,
    helm: PathBuf,
    kubectl: PathBuf,
}

impl Programs {
    /// Where `KUBE_BIN`, `KUBEBUILDER_ASSETS` or the tools' folder has them; etcd may be the system's.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let said = ["KUBE_BIN", "KUBEBUILDER_ASSETS"].map(env::var_os);
        let mut folders: Vec<PathBuf> = said.into_iter().flatten().map(PathBuf::from).collect();
        match env::var_os("RINGMAIL_TOOLS") {
            Some(tools) => folders.push(Path::new(&tools).join("kube")),
            None => {
                folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/kube"))
            }
        }
        let in_folders = |name: &str| {
            folders
                .iter()
                .map(|one| one.join(name))
                .find(|one| one.is_file())
        };
        let in_path = |name: &str| {
            let path = env::var_os("PATH")?;
            env::split_paths(&path)
                .map(|one| one.join(name))
                .find(|one| one.is_file())
        };
        let anywhere = |name: &str| in_folders(name).or_else(|| in_path(name));
        Ok(Self {
            apiserver: in_folders("kube-apiserver").context(
                "there is no kube-apiserver in KUBE_BIN, KUBEBUILDER_ASSETS, $RINGMAIL_TOOLS/kube or target/tools/kube",
            )?,
            etcd: anywhere("etcd").context(
                "there is no etcd in those or on the PATH; Debian has it in etcd-server",
            )?,
            helm: anywhere("helm").context("there is no helm in those or on the PATH")?,
            kubectl: anywhere("kubectl").context("there is no kubectl in those or on the PATH")?,
        })
    }
}

/// A control plane that runs.
pub(crate) struct ControlPlane {
    pub(crate) client: Client,
    pub(crate) binaries: Binaries,
    pub(crate) runtime: Runtime,
    url: String,
    programs: Programs,
    directory: TempDir,
    apiserver: Process,
    _etcd: Process,
}

impl ControlPlane {
    pub(crate) fn start(programs: &Programs, binaries: Binaries) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("ringmail-cluster-")
            .tempdir()?;
        let path = |name: &str| directory.path().join(name);
        certificates(directory.path())?;
        let [client_port, peer_port, port] = free_ports()?;

        let (client_url, peer_url) = (
            format!("http://127.0.0.1:{client_port}"),
            format!("http://127.0.0.1:{peer_port}"),
        );
        let mut etcd = Command::new(&programs.etcd);
        etcd.arg("--data-dir").arg(path("etcd"));
        for (flag, url) in [
            ("--listen-client-urls", &client_url),
            ("--advertise-client-urls", &client_url),
            ("--listen-peer-urls", &peer_url),
            ("--initial-advertise-peer-urls", &peer_url),
        ] {
            etcd.args([flag, url]);
        }
        etcd.args([
            "--initial-cluster",
            &format!("default={peer_url}"),
            "--unsafe-no-fsync",
        ]);
        let etcd = Process::start(&etcd, &path("etcd.log"))?;

        let mut apiserver = Command::new(&programs.apiserver);
        apiserver.args([
            "--bind-address=127.0.0.1",
            "--advertise-address=10.96.0.1",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--secure-port={port}"),
            &format!("--etcd-servers={client_url}"),
        ]);
        for (flag, file) in [
            ("tls-cert-file", "server.crt"),
            ("tls-private-key-file", "server.key"),
            ("client-ca-file", "ca.crt"),
            ("service-account-key-file", "accounts.pub"),
            ("service-account-signing-key-file", "accounts.key"),
            ("cert-dir", "apiserver"),
        ] {
            apiserver.arg(format!("--{flag}={}", path(file).display()));
        }
        let mut apiserver = Process::start(&apiserver, &path("apiserver.log"))?;

        let url = format!("https://127.0.0.1:{port}");
        let user = format!(
            "client-certificate: {}, client-key: {}",
            path("admin.crt").display(),
            path("admin.key").display()
        );
        let text = kubeconfig(&url, &path("ca.crt"), &user);
        fs::write(path(ADMIN), &text)?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let client = runtime.block_on(async {
            let parsed = Kubeconfig::from_yaml(&text)?;
            let config =
                Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?;
            let client = ringmail_controller::cluster::client::connect(&config)?;
            let ready = eventually("the API server is ready", || async {
                let request = Request::get("/readyz").body(Vec::new()).ok()?;
                client.request_text(request).await.ok()
            });
            ready.await?;
            anyhow::Ok(client)
        });
        let client = client.with_context(|| {
            let _ = apiserver.ended();
            format!("{}\n{}", etcd.tail(), apiserver.tail())
        })?;
        Ok(Self {
            client,
            binaries,
            runtime,
            url,
            programs: programs.clone(),
            directory,
            apiserver,
            _etcd: etcd,
        })
    }

    /// A new place in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the administrator's kubeconfig is.
    pub(crate) fn admin(&self) -> PathBuf {
        self.path(ADMIN)
    }

    /// Helm, as the administrator and with no other settings than ours; the chart's folder stands for `CHART`.
    pub(crate) fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let arguments = arguments.iter().map(|one| match *one {
            "CHART" => CHART,
            other => other,
        });
        let mut helm = Command::new(&self.programs.helm);
        helm.args(arguments);
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(home, self.path("helm"));
        }
        self.run(&mut helm, "")?.success()
    }

    /// kubectl, as the administrator, with `input` to read.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<Ran> {
        let mut kubectl = Command::new(&self.programs.kubectl);
        self.run(kubectl.args(arguments), input)
    }

    /// Takes all pods away, for tests that look at all of a cluster.
    pub(crate) fn delete_pods(&self) -> anyhow::Result<()> {
        let all = "delete pods --all --all-namespaces --force --grace-period 0";
        let arguments: Vec<_> = all.split(' ').collect();
        self.kubectl(&arguments, "")?.success().map(drop)
    }

    /// A program, as the administrator, with `input` to read.
    pub(crate) fn run(&self, command: &mut Command, input: &str) -> anyhow::Result<Ran> {
        let file = self.path("input");
        fs::write(&file, input)?;
        let ran = command
            .env("KUBECONFIG", self.admin())
            .stdin(fs::File::open(&file)?)
            .output();
        let ran = ran.with_context(|| format!("cannot run {command:?}"))?;
        Ok(Ran {
            what: format!("{command:?}"),
            code: ran.status.code(),
            out: String::from_utf8(ran.stdout)?,
            err: String::from_utf8(ran.stderr)?,
        })
    }

    /// What holds up whoever has the API server's address.
    pub(crate) fn kubeconfig_of_token(&self, token_file: &Path) -> String {
        let user = format!("tokenFile: {}", token_file.display());
        kubeconfig(&self.url, &self.path("ca.crt"), &user)
    }

    /// Stops the API server without its connections noticing, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        use nix::sys::signal::Signal;
        self.apiserver.signal(if frozen {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        })
    }
}

/// What a program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// What it printed, if it says that all went well.
    pub(crate) fn success(self) -> anyhow::Result<String> {
        let Self {
            what,
            code,
            out,
            err,
        } = &self;
        ensure!(*code == Some(0), "{what} ended with {code:?}: {out}{err}");
        Ok(self.out)
    }
}

fn kubeconfig(url: &str, ca: &Path, user: &str) -> String {
    let mut text = String::from("apiVersion: v1\nkind: Config\ncurrent-context: x\n");
    let ca = ca.display();
    let _ = write!(
        text,
        "clusters: [{{name: c, cluster: {{server: \"{url}\", certificate-authority: {ca}}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
    );
    text
}

/// Ports that nobody has now.
pub(crate) fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn certificates(directory: &Path) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let ca = params.self_signed(&key)?;
    fs::write(directory.join("ca.crt"), ca.pem())?;
    let issuer = Issuer::new(params, key);
    let sign = |name: &str, usage, names: Vec<SanType>, groups: &[&str]| {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &issuer)?;
        fs::write(directory.join(format!("{name}.crt")), certificate.pem())?;
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem())?;
        anyhow::Ok(())
    };
    let loopback = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    sign("server", ExtendedKeyUsagePurpose::ServerAuth, loopback, &[])?;
    sign(
        "admin",
        ExtendedKeyUsagePurpose::ClientAuth,
        Vec::new(),
        &["system:masters"],
    )?;
    let accounts = KeyPair::generate()?;
    fs::write(directory.join("accounts.key"), accounts.serialize_pem())?;
    fs::write(directory.join("accounts.pub"), accounts.public_key_pem())?;
    Ok(())
}

/// Waits until there is something; says what when there is not.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("not within {PATIENCE:?}: {what}");
        }
        sleep(PAUSE).await;
    }
}
