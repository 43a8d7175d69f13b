//! Databases of Debian: PostgreSQL and Redis, whose clients speak first, and MariaDB, whose server does. On ports that are
//! declared opaque and on such that nothing is declared of; in plain TCP, and in TLS of the app's own, which ends in the
//! app and nowhere else.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ringmail_tests::bed::Bed;
use ringmail_tests::wait;

use super::desk::Desk;
use super::{announce, play_at_desk, tools};
use crate::shop::{LIMIT, Shop};

/// Declared or not, one app behind both.
fn both(shop: &Shop<'_>, number: u8, opaque: u16, target: u16) -> anyhow::Result<[SocketAddr; 2]> {
    Ok([
        announce(shop, number, opaque, target, Some("tcp"))?,
        announce(shop, number + 1, 5555, target, None)?,
    ])
}

/// Waits until the client's proxy has found out that something is opaque, by what.
fn detected(shop: &Shop<'_>, by: &str) -> anyhow::Result<()> {
    let labels = [("protocol", "tcp"), ("by", by)];
    wait::until(LIMIT, || {
        shop.client_metric("ringmail_detections_total", &labels) > 0.0
    })
    .with_context(|| format!("nothing was detected by {by}"))
}

/// A client's command, all its arguments as text.
fn client(name: &str, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = tools::command(name)?;
    command.args(arguments);
    Ok(command)
}

/// The client's program succeeds, and this is what it says last.
fn says(desk: &Desk, shop: &Shop<'_>, command: &Command, expected: &str) -> anyhow::Result<()> {
    let text = desk.output(&shop.client, command)?;
    let last = text.trim_end().lines().last().unwrap_or_default();
    ensure!(last.ends_with(expected), "{command:?}: {text}");
    Ok(())
}

/// Names of the app's certificate: the addresses it is dialled at.
fn names(numbers: [u8; 2]) -> [String; 2] {
    numbers.map(|number| IpAddr::from([10, 96, 0, number]).to_string())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("names of ours are text")
}

pub(super) fn postgresql(bed: Bed) -> anyhow::Result<()> {
    const PORT: u16 = 15_432;
    play_at_desk(bed, |shop, desk| {
        let data = desk.database_directory("postgresql")?;
        let (certificate, key) = desk.certificate(&names([141, 142]))?;
        let mut make = tools::command("initdb")?;
        make.arg("--pgdata").arg(&data);
        make.args(["--auth=trust", "--username=app", "--no-sync", "--locale=C"]);
        desk.run_as_nobody(&shop.server, &make)?;
        let mut rules = fs::OpenOptions::new()
            .append(true)
            .open(data.join("pg_hba.conf"))?;
        std::io::Write::write_all(&mut rules, b"host all all all trust\n")?;

        let mut server = tools::command("postgres")?;
        server.arg("-D").arg(&data).args(["-p", &PORT.to_string()]);
        for setting in [
            "listen_addresses=*",
            "unix_socket_directories=",
            "fsync=off",
            "ssl=on",
            &format!("ssl_cert_file={}", text(&certificate)?),
            &format!("ssl_key_file={}", text(&key)?),
            // Nothing outlives the data's directory.
            "dynamic_shared_memory_type=mmap",
            "shared_memory_type=mmap",
        ] {
            server.args(["-c", setting]);
        }
        let mut server = desk.serve_database(&shop.server, &server, PORT)?;
        let ready = client("pg_isready", &["-h", "127.0.0.1", "-p", &PORT.to_string()])?;
        wait::until(LIMIT, || {
            let ran = desk.run(&shop.server, &ready);
            ran.is_ok_and(|ran| ran.status.success())
        })?;
        for to in both(shop, 141, 5432, PORT)? {
            ask_postgresql(shop, desk, to, text(&certificate)?).with_context(|| to.to_string())?;
        }
        detected(shop, "first_bytes")?;
        // It cleans up after itself when it is asked to end.
        server.signal(Signal::SIGINT)?;
        server.wait(LIMIT)?;
        Ok(())
    })
}

fn ask_postgresql(shop: &Shop<'_>, desk: &Desk, to: SocketAddr, root: &str) -> anyhow::Result<()> {
    let place = format!(
        "host={} port={} user=app dbname=postgres",
        to.ip(),
        to.port()
    );
    let psql = |tls: &str, commands: &[&str]| {
        let place = format!("{place} gssencmode=disable {tls}");
        let mut command = client("psql", &["--no-psqlrc", "-qAt", &place])?;
        for one in commands {
            command.args(["-c", one]);
        }
        anyhow::Ok(command)
    };
    let is_tls = ["select ssl from pg_stat_ssl where pid = pg_backend_pid()"];
    let verified = format!("sslmode=verify-full sslrootcert={root}");
    for (tls, answer) in [
        ("sslmode=disable", "f"),
        ("sslmode=prefer", "t"),
        (&verified, "t"),
    ] {
        says(desk, shop, &psql(tls, &is_tls)?, answer).context(tls.to_owned())?;
        let down = "select repeat('plaintext-marker-7f3a', 250000)";
        says(desk, shop, &psql(tls, &[down])?, "plaintext-marker-7f3a")?;
        let copy = format!(
            r"\copy t from program 'yes {} | head -n 15000'",
            "x".repeat(1000)
        );
        let up = [
            "create temp table t(a text)",
            &copy,
            "select count(*), sum(length(a)) from t",
        ];
        says(desk, shop, &psql(tls, &up)?, "15000|15000000")?;
    }
    let statement = desk.path("statement.sql");
    fs::write(&statement, "select 1;\n")?;
    let mut many = client("pgbench", &["-n", "-C", "-c", "8", "-t", "20", "-f"])?;
    many.arg(&statement).arg(&place);
    let text = desk.output(&shop.client, &many)?;
    ensure!(text.contains("actually processed: 160/160"), "{text}");
    Ok(())
}

pub(super) fn mariadb(bed: Bed) -> anyhow::Result<()> {
    const PORT: u16 = 13_306;
    play_at_desk(bed, |shop, desk| {
        let data = desk.database_directory("mariadb")?;
        let (certificate, key) = desk.certificate(&names([143, 144]))?;
        let mut server = tools::command("mariadbd")?;
        // Without tables of users everybody may come in; without names it asks no resolver.
        server.args([
            "--no-defaults",
            "--skip-grant-tables",
            "--skip-name-resolve",
        ]);
        server.args([
            "--user=root",
            "--innodb-buffer-pool-size=16M",
            "--bind-address=0.0.0.0",
        ]);
        server.arg(format!("--port={PORT}"));
        server.arg(format!("--datadir={}", text(&data)?));
        server.arg(format!("--socket={}", text(&data.join("socket"))?));
        server.arg(format!("--ssl-cert={}", text(&certificate)?));
        server.arg(format!("--ssl-key={}", text(&key)?));
        let _server = desk.serve_database(&shop.server, &server, PORT)?;
        let verified = format!("--ssl-ca={}", text(&certificate)?);
        for to in both(shop, 143, 3306, PORT)? {
            let (host, port) = (to.ip().to_string(), to.port().to_string());
            let ask = |tls: &[&str], statement: &str| {
                let place = [
                    "--no-defaults",
                    "--host",
                    &host,
                    "--port",
                    &port,
                    "--user=app",
                ];
                let rest = [
                    "--skip-column-names",
                    "--max-allowed-packet=64M",
                    "--execute",
                    statement,
                ];
                client("mariadb", &[&place[..], tls, &rest].concat())
            };
            for (tls, version) in [
                (&["--skip-ssl"][..], ""),
                (&["--ssl", &verified, "--ssl-verify-server-cert"], "TLSv1.3"),
            ] {
                let command = ask(tls, "show status like 'Ssl_version'")?;
                let answer = format!("Ssl_version\t{version}");
                says(desk, shop, &command, answer.trim_end()).context(to)?;
                let command = ask(tls, "select repeat('plaintext-marker-7f3a', 500000)")?;
                says(desk, shop, &command, "plaintext-marker-7f3a").context(to)?;
                for _ in 0..10 {
                    says(desk, shop, &ask(tls, "select 1")?, "1").context(to)?;
                }
            }
        }
        detected(shop, "server_first")
    })
}

pub(super) fn redis(bed: Bed) -> anyhow::Result<()> {
    const PORT: u16 = 16_379;
    const TLS_PORT: u16 = 16_380;
    play_at_desk(bed, |shop, desk| {
        let data = desk.database_directory("redis")?;
        let (certificate, key) = desk.certificate(&names([147, 148]))?;
        let mut server = tools::command("redis-server")?;
        server.args([
            "--protected-mode",
            "no",
            "--save",
            "",
            "--dir",
            text(&data)?,
        ]);
        server.args([
            "--port",
            &PORT.to_string(),
            "--tls-port",
            &TLS_PORT.to_string(),
        ]);
        server.args([
            "--tls-cert-file",
            text(&certificate)?,
            "--tls-key-file",
            text(&key)?,
        ]);
        server.args([
            "--tls-ca-cert-file",
            text(&certificate)?,
            "--tls-auth-clients",
            "no",
        ]);
        let _server = desk.serve_database(&shop.server, &server, PORT)?;
        let plain = both(shop, 145, 6379, PORT)?.map(|to| (to, Vec::new()));
        let tls = ["--tls", "--cacert", text(&certificate)?];
        let tls = both(shop, 147, 6379, TLS_PORT)?.map(|to| (to, tls.to_vec()));
        for (to, tls) in plain.into_iter().chain(tls) {
            let place = [
                &["-h", &to.ip().to_string(), "-p", &to.port().to_string()],
                &tls[..],
            ];
            let place = place.concat();
            let cli = |more: &[&str]| client("redis-cli", &[&place, more].concat());
            says(desk, shop, &cli(&["ping"])?, "PONG").context(to)?;
            says(
                desk,
                shop,
                &cli(&["set", "key", "plaintext-marker-7f3a"])?,
                "OK",
            )
            .context(to)?;
            says(desk, shop, &cli(&["get", "key"])?, "plaintext-marker-7f3a").context(to)?;
            let load = [
                "-q",
                "-n",
                "5000",
                "-c",
                "50",
                "-P",
                "4",
                "-t",
                "set,get,lpush",
            ];
            let bench = client("redis-benchmark", &[&place, &load[..]].concat())?;
            let said = desk.output(&shop.client, &bench)?;
            ensure!(said.matches("requests per second").count() >= 3, "{said}");
        }
        detected(shop, "first_bytes")
    })
}
