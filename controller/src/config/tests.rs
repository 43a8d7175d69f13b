use clap::Parser;

use super::*;

fn parse(extra: &[&str]) -> Result<Config, String> {
    let base = [
        "ringmail-controller",
        "run",
        "--trust-domain=mesh.local",
        "--source-dir=/src",
        "--state-dir=/state",
    ];
    let cli = Cli::try_parse_from(base.iter().chain(extra)).map_err(|e| e.to_string())?;
    match cli.command {
        Command::Run(flags) => Config::try_from(*flags).map_err(|e| e.to_string()),
        Command::JoinToken(_) => Err("not run".into()),
    }
}

#[test]
fn refusals_name_the_flag() {
    let rows: &[(&[&str], Option<&str>)] = &[
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
