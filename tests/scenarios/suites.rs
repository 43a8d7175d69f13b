//! Suites and programs of others, played through a pair of sidecars. `.ci/tools` installs what they need; what is not
//! there is skipped and said, never counted as passed. They judge the proxies: no case of theirs is changed, and each one
//! that may fail is listed with the reason.

/// Finding the programs.
pub(crate) mod tools;

/// Where a suite keeps files, and runs programs.
mod desk;

/// h2spec: HTTP/2 as server and as client.
mod h2spec;

/// grpc's own programs.
mod grpc;

/// The websockets package, over HTTP/1 and HTTP/2.
mod websocket;

/// curl.
mod curl;

/// Databases: TCP of servers that speak first, of clients that do, and TLS that is not ours.
mod databases;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, ensure};
use ringmail_tests::bed::{Bed, Exemption};
use ringmail_tests::mesh::{Service, ServicePort};

use crate::shop::{Plan, REFUSALS, Shop, play};
use crate::{Scenario, limits, observe, records};
use desk::Desk;

/// A suite, and what it cannot do without.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    needs: &'static [Need],
    pub(crate) scenario: Scenario,
}

#[derive(Debug)]
enum Need {
    /// An installed program.
    Program(&'static str),
    /// More than one user: a server that refuses to run as root.
    Users,
}

use Need::{Program, Users};

pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "suites::h2spec_outbound",
        needs: &[Program("h2spec")],
        scenario: h2spec::outbound,
    },
    Suite {
        name: "suites::h2spec_permissive",
        needs: &[Program("h2spec")],
        scenario: h2spec::permissive,
    },
    Suite {
        name: "suites::h2specd_inbound",
        needs: &[Program("h2specd"), Program("curl"), Program("nsenter")],
        scenario: h2spec::client,
    },
    Suite {
        name: "suites::grpc_interop",
        needs: &[
            Program("grpc-interop-client"),
            Program("grpc-interop-server"),
        ],
        scenario: grpc::interop,
    },
    Suite {
        name: "suites::websocket",
        needs: &[Program("python-tools")],
        scenario: websocket::over_both,
    },
    Suite {
        name: "suites::curl",
        needs: &[Program("curl")],
        scenario: curl::versions,
    },
    Suite {
        name: "suites::postgresql",
        needs: &[
            Program("initdb"),
            Program("postgres"),
            Program("pg_isready"),
            Program("pgbench"),
            Program("psql"),
            Users,
        ],
        scenario: databases::postgresql,
    },
    Suite {
        name: "suites::mariadb",
        needs: &[Program("mariadbd"), Program("mariadb")],
        scenario: databases::mariadb,
    },
    Suite {
        name: "suites::redis",
        needs: &[
            Program("redis-server"),
            Program("redis-cli"),
            Program("redis-benchmark"),
        ],
        scenario: databases::redis,
    },
    Suite {
        name: "records::collected",
        needs: &[Program(records::traces::COLLECTOR)],
        scenario: records::traces::collected,
    },
    Suite {
        name: "limits::redis_two_controllers",
        needs: &[Program("redis-server")],
        scenario: limits::redis::two_controllers,
    },
    Suite {
        name: "limits::redis_goes_away",
        needs: &[Program("redis-server")],
        scenario: limits::redis::goes_away,
    },
    Suite {
        name: "limits::redis_forgets",
        needs: &[Program("redis-server")],
        scenario: limits::redis::forgets,
    },
    Suite {
        name: "observe::prometheus",
        needs: &[Program("prometheus")],
        scenario: observe::proof,
    },
];

impl Suite {
    /// What this machine lacks for it, and what would change that.
    pub(crate) fn missing(&self, bed: Bed) -> Option<String> {
        self.needs.iter().find_map(|need| match need {
            Program(name) if tools::find(name).is_err() => {
                Some(format!("no {name}; install by .ci/tools"))
            }
            Users if bed.exemption != Exemption::Uid => {
                Some("a server that refuses to be root; enable by running as root".to_owned())
            }
            Program(_) | Users => None,
        })
    }
}

/// Opens a shop with a desk, and explains a failure with what the proxies refused.
fn play_at_desk(
    bed: Bed,
    suite: impl FnOnce(&Shop<'_>, &Desk) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let desk = Desk::new(bed)?;
        suite(shop, &desk).map_err(|error| error.context(refusals(shop)))?;
        // Of bulk the watcher may lose frames, so that it is not asked whether all is TLS.
        let report = shop.wire.report();
        let readable: Vec<_> = report.with_marker().map(ToString::to_string).collect();
        ensure!(
            readable.is_empty(),
            "the marker was on the wire: {readable:?}"
        );
        Ok(())
    })
}

/// What both proxies refused so far, by reason.
fn refusals(shop: &Shop<'_>) -> String {
    let sidecars = [&shop.client_sidecar, &shop.server_sidecar];
    let pages = sidecars.map(|sidecar| sidecar.metrics(shop.node).unwrap_or_default());
    let lines: Vec<_> = pages
        .iter()
        .flat_map(|page| page.lines())
        .filter(|line| line.starts_with(REFUSALS) && !line.ends_with(" 0"))
        .collect();
    format!("the proxies refused {lines:?}")
}

/// Announces `port` of a service of its own, `10.96.0.NUMBER`, that goes to the server's `target`.
fn announce(
    shop: &Shop<'_>,
    number: u8,
    port: u16,
    target: u16,
    protocol: Option<&str>,
) -> anyhow::Result<SocketAddr> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, number)), port);
    let service = Service {
        namespace: "shop".to_owned(),
        name: format!("suite-{number}"),
        cluster_ips: vec![address.ip()],
        ports: vec![ServicePort {
            name: "suite".to_owned(),
            port,
            target,
            app_protocol: protocol.map(str::to_owned),
        }],
    };
    shop.announce(&service, &[(&Plan::default().server, &shop.server)])
        .with_context(|| format!("announcing {address}"))?;
    Ok(address)
}
