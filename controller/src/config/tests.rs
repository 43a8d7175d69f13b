use clap::Parser;

use super::*;

fn parse(extra: &[&'static str]) -> Result<Config, String> {
    let base = ["--source-dir=/src", "--state-dir=/state"];
    parse_all(base.iter().chain(extra))
}

fn parse_all<'a>(extra: impl Iterator<Item = &'a &'static str>) -> Result<Config, String> {
    let base = ["ringmail-controller", "run", "--trust-domain=mesh.local"];
    let cli =
        Cli::try_parse_from(base.into_iter().chain(extra.copied())).map_err(|e| e.to_string())?;
    match cli.command {
        Command::Run(flags) => Config::try_from(*flags).map_err(|e| e.to_string()),
        Command::JoinToken(_) => Err("not run".into()),
    }
}

#[test]
fn refusals_name_the_flag() {
    let rows: &[(&[&'static str], Option<&str>)] = &[
        (&[], None),
        (&["--leaf-lifetime=10s"], None),
        (&["--leaf-lifetime=9s"], Some("--leaf-lifetime")),
        (&["--leaf-lifetime=25h"], Some("--leaf-lifetime")),
        (&["--leaf-lifetime=-1h"], Some("--leaf-lifetime")),
        (&["--leaf-lifetime=é"], Some("--leaf-lifetime")),
        (&["--leaf-lifetime="], Some("--leaf-lifetime")),
        (&["--trust-domain=Mesh"], Some("--trust-domain")),
        (&["--issuer-cert=a"], Some("--issuer-key")),
        (&["--jwt-issuer=a"], Some("--jwks")),
        (&["--jwks=a"], Some("--jwt-issuer")),
        (&["--jwt-issuer=a", "--jwks=keys.json"], None),
        (&["--jwt-issuer=a", "--jwks=https://a.b/keys"], None),
        (&["--jwt-issuer=a", "--jwks=http://127.0.0.1:1/keys"], None),
        (
            &["--jwt-issuer=a", "--jwks=http://a.b/keys"],
            Some("--jwks"),
        ),
        (&["--jwt-issuer=a", "--jwks=ftp://a.b/keys"], Some("--jwks")),
        (
            &["--jwt-issuer=a", "--jwks=k", "--jwt-audience="],
            Some("--jwt-audience"),
        ),
    ];
    for (flags, refused) in rows {
        match (parse(flags), refused) {
            (Ok(_), None) => {}
            (Err(text), Some(flag)) => assert!(text.contains(flag), "{flags:?}: {text}"),
            (other, _) => unreachable!("{flags:?}: {other:?}"),
        }
    }
}

#[test]
fn a_cluster_takes_the_place_of_directories() {
    let cluster = ["--kubernetes", "--namespace=mesh", "--pod=controller-1"];
    let rows: &[(&[&'static str], Option<&str>)] = &[
        (&[], None),
        (&["--issuer-secret=issuer"], None),
        (&["--source-dir=/src"], Some("--source-dir")),
        (&["--state-dir=/state"], Some("--state-dir")),
        (&["--jwt-issuer=a", "--jwks=b"], Some("--jwt-issuer")),
    ];
    for (flags, refused) in rows {
        match (parse_all(cluster.iter().chain(*flags)), refused) {
            (Ok(config), None) => {
                let id = config.identity().expect("an identity").to_string();
                assert_eq!(id, "spiffe://mesh.local/ns/mesh/sa/ringmail-controller");
            }
            (Err(text), Some(flag)) => assert!(text.contains(flag), "{flags:?}: {text}"),
            (other, _) => unreachable!("{flags:?}: {other:?}"),
        }
    }
    for missing in 1..cluster.len() {
        let mut flags = cluster.to_vec();
        let name = flags.remove(missing).split_once('=').expect("a value").0;
        let text = parse_all(flags.iter()).expect_err("incomplete");
        assert!(text.contains(name), "{text}");
    }
    for flag in ["--namespace=a", "--pod=b", "--issuer-secret=c"] {
        let text = parse(&[flag]).expect_err("without a cluster");
        assert!(text.contains("--kubernetes"), "{text}");
    }
    assert!(parse(&["--kubernetes=false"]).is_ok());
    assert!(parse_all([].iter()).is_err());
}

#[test]
fn redis_is_where_its_url_says() {
    use secrecy::ExposeSecret;
    let rows = [
        ("redis://cache", ("cache", 6379, None, None, 0, false)),
        (
            "redis://cache:6380/2",
            ("cache", 6380, None, None, 2, false),
        ),
        ("redis://[::1]:7", ("[::1]", 7, None, None, 0, false)),
        (
            "rediss://:p%40s%3As@cache",
            ("cache", 6379, None, Some("p@s:s"), 0, true),
        ),
        (
            "valkeys://me:secret@cache/",
            ("cache", 6379, Some("me"), Some("secret"), 0, true),
        ),
    ];
    for (url, expected) in rows {
        let flag: &'static str = format!("--limits-redis={url}").leak();
        let config = parse(&[flag]).expect(url);
        let redis = config.limits_redis.as_ref().expect("a home");
        let password = redis
            .password
            .as_ref()
            .map(|password| password.expose_secret());
        let found = (
            &*redis.host,
            redis.port,
            redis.username.as_deref(),
            password,
            redis.database,
            redis.root_cert.is_some(),
        );
        assert_eq!(found, expected, "{url}");
        assert!(!format!("{config:?}").contains("secret"), "{config:?}");
    }
    assert!(parse(&["--limits-redis="]).is_ok_and(|config| config.limits_redis.is_none()));
    for refused in [
        "http://a",
        "cache:6379",
        "redis://",
        "redis://:hush@a/b",
        "redis://:hush%4@a",
        "redis://:hush@a?b=c",
        "redis://:hu sh@a",
    ] {
        let flag: &'static str = format!("--limits-redis={refused}").leak();
        let text = parse(&[flag]).expect_err(refused);
        assert!(
            text.contains("--limits-redis") && !text.contains("hu"),
            "{text}"
        );
    }
    for prefix in ["--limits-redis-prefix=", "--limits-redis-prefix=a{b}"] {
        assert!(parse(&[prefix]).is_err(), "{prefix}");
    }
}
