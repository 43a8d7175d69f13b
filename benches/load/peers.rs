//! Pairs of other proxies, from the templates in `peers/`: each needs its program and `nft`, which redirects the
//! client's connections by the port it dials. What cannot start is an error that says what was missing.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use ringmail_tests::bed::{Exemption, PROXY_IDENTITY};
use ringmail_tests::netns::{Node, Pod};
use ringmail_tests::process::Process;
use ringmail_tests::wait;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::pair::{APP_PORT, Pair, Proxies, pods};

/// Who may speak with whom.
mod certificates;

/// How long a proxy or a tool may take.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Where each takes requests of HTTP/1.1.
const OUTBOUND_PORT: u16 = 15001;
const REDIRECT: &str = include_str!("peers/redirect.nft");

/// A kind of proxy.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    program: &'static str,
    /// What makes it say its version.
    version: &'static str,
    template: &'static str,
    /// Envoy tells formats by it.
    file: &'static str,
    /// How it is started, with its directory and the configuration in it; the number differs for each pod.
    arguments: fn(&Path, &Path, usize) -> Vec<String>,
}

pub(crate) const KINDS: [Kind; 3] = [
    Kind {
        name: "HAProxy",
        program: "haproxy",
        version: "-v",
        template: include_str!("peers/haproxy.cfg"),
        file: "haproxy.cfg",
        arguments: |_, file, _| words(&["-db", "-f"], file),
    },
    Kind {
        name: "nginx",
        program: "nginx",
        version: "-v",
        template: include_str!("peers/nginx.conf"),
        file: "nginx.conf",
        arguments: |directory, file, _| {
            let directory = directory.display().to_string();
            words(&["-p", &directory, "-c"], file)
        },
    },
    Kind {
        name: "Envoy",
        program: "envoy",
        version: "--version",
        template: include_str!("peers/envoy.yaml"),
        file: "envoy.yaml",
        arguments: |_, file, number| {
            let base = number.to_string();
            let once = ["--disable-hot-restart", "--base-id", &base];
            words(
                &[&["--concurrency", "1", "-l", "error"], &once[..], &["-c"]].concat(),
                file,
            )
        },
    },
];

fn words(words: &[&str], file: &Path) -> Vec<String> {
    let file = file.display().to_string();
    words
        .iter()
        .copied()
        .chain([&*file])
        .map(str::to_owned)
        .collect()
}

/// A pair of this kind, ready.
pub(crate) fn start<'node>(kind: &Kind, node: &'node Node) -> anyhow::Result<Pair<'node>> {
    ensure!(
        node.exemption == Exemption::Uid,
        "its connections are told from the client's by user, which needs root"
    );
    let (program, nft) = (find(kind.program)?, find("nft")?);
    let version = version(&program, kind.version)?;
    let [client, server] = pods(node, kind.program)?;
    let directory = tempfile::Builder::new()
        .prefix("ringmail-peers-")
        .tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
    let authority = certificates::Authority::new()?;
    let sides = [(&client, &server, 1), (&server, &client, 2)];
    let processes = sides.map(|(pod, other, number)| {
        redirect(&nft, pod, &directory)?;
        let own = directory.path().join(&pod.name);
        let arguments = configure(kind, &authority, &own, (other, number))?;
        let mut command = Command::new(&program);
        command.args(arguments);
        let log = own.join("log");
        let mut process = pod.namespace.start(&command, PROXY_IDENTITY, &log)?;
        wait_ready(pod, &mut process)?;
        anyhow::Ok(process)
    });
    let [first, second] = processes;
    let pair = Pair {
        name: format!("{} {version}", kind.name),
        proxies: Proxies::Peers {
            processes: [first?, second?],
            _directory: directory,
        },
        client,
        server,
    };
    pair.pin()?;
    Ok(pair)
}

/// Writes what a proxy reads to `own`, a new directory; what to start it with.
fn configure(
    kind: &Kind,
    authority: &certificates::Authority,
    own: &Path,
    (other, number): (&Pod, usize),
) -> anyhow::Result<Vec<String>> {
    fs::create_dir(own)?;
    fs::set_permissions(own, fs::Permissions::from_mode(0o777))?;
    let leaf = authority.leaf(own)?;
    let app = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), APP_PORT);
    let values = [
        ("upstream", other.v4.to_string()),
        ("app", app.to_string()),
        ("app_address", app.ip().to_string()),
        ("app_port", app.port().to_string()),
        ("cert", leaf.certificate_and_key.display().to_string()),
        ("key", leaf.key.display().to_string()),
        ("ca", leaf.authority.display().to_string()),
        ("directory", own.display().to_string()),
    ];
    let file = own.join(kind.file);
    fs::write(&file, fill(kind.template, &values)?)?;
    Ok((kind.arguments)(own, &file, number))
}

/// A program, from `.ci/tools` or the system.
fn find(program: &str) -> anyhow::Result<PathBuf> {
    let tools = std::env::var_os("RINGMAIL_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools"),
        PathBuf::from,
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = vec![tools.join("bin"), PathBuf::from("/usr/sbin")];
    places.extend(std::env::split_paths(&path));
    let found = places
        .iter()
        .map(|place| place.join(program))
        .find(|path| path.is_file());
    // Links are resolved: who follows them, later, is another user.
    found
        .with_context(|| format!("there is no {program}: .ci/tools installs it"))?
        .canonicalize()
        .map_err(Into::into)
}

/// The first thing like `1.2` in what a program says of itself.
fn version(program: &Path, argument: &str) -> anyhow::Result<String> {
    let output = Command::new(program).arg(argument).output()?;
    let said = [output.stdout, output.stderr].concat();
    // It may begin with its own path, which may have numbers in it.
    let said = String::from_utf8_lossy(&said).replace(&*program.to_string_lossy(), "");
    let mut numbers = said.split(|c: char| !c.is_ascii_digit() && c != '.');
    let number = numbers.find(|number| number.contains('.') && !number.starts_with('.'));
    Ok(number.unwrap_or_default().to_owned())
}

fn redirect(nft: &Path, pod: &Pod, directory: &TempDir) -> anyhow::Result<()> {
    let rules = directory.path().join("redirect.nft");
    fs::write(
        &rules,
        fill(REDIRECT, &[("uid", PROXY_IDENTITY.to_string())])?,
    )?;
    let mut command = Command::new(nft);
    command.arg("-f").arg(&rules);
    let log = directory.path().join("nft.log");
    pod.namespace.start(&command, 0, &log)?.success(START_LIMIT)
}

/// Waits until it takes connections; an error if it ends before.
fn wait_ready(pod: &Pod, process: &mut Process) -> anyhow::Result<()> {
    let address = (Ipv4Addr::LOCALHOST, OUTBOUND_PORT);
    let mut ended = None;
    let accepts = || pod.namespace.block_on(TcpStream::connect(address));
    let waited = wait::until(START_LIMIT, || {
        ended = process.ended().ok().flatten();
        ended.is_some() || accepts().is_ok_and(|connected| connected.is_ok())
    });
    match ended {
        Some(status) => bail!("it ended with {status}; {}", process.tail()),
        None => waited.with_context(|| format!("not ready; {}", process.tail())),
    }
}

/// A template with its placeholders replaced; one that is left is an error.
fn fill(template: &str, values: &[(&str, String)]) -> anyhow::Result<String> {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    match text.find("{{") {
        Some(left) => bail!(
            "no value for {}",
            text[left..].lines().next().unwrap_or_default()
        ),
        None => Ok(text),
    }
}
