//! Certificates change and the controller goes away; nobody notices while a certificate lasts, and nothing leaves in
//! plaintext when it does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringmail_tests::bed::Bed;
use ringmail_tests::load::Client;
use ringmail_tests::mesh::{Settings, Workload};
use ringmail_tests::wait;
use tempfile::TempDir;

use crate::Scenario;
use crate::raw::{Ending, dial, read_rest};
use crate::shop::{LIMIT, MARKER, Plan, Shop, TALK, WEB, play, refusal};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "outage::renewals_and_a_dead_controller_under_load",
        renewals_and_a_dead_controller_under_load,
    ),
    (
        "outage::expiry_refuses_and_recovers",
        expiry_refuses_and_recovers,
    ),
    (
        "outage::another_root_is_taken_from_the_file",
        another_root_is_taken_from_the_file,
    ),
    (
        "outage::what_was_never_learnt_is_refused",
        what_was_never_learnt_is_refused,
    ),
];

const RENEWALS: &str = "ringmail_certificate_renewals_total";

fn renewals(shop: &Shop<'_>, result: &str) -> [f64; 2] {
    let labels = [("result", result)];
    [
        shop.client_metric(RENEWALS, &labels),
        shop.server_metric(RENEWALS, &labels),
    ]
}

fn renewals_and_a_dead_controller_under_load(bed: Bed) -> anyhow::Result<()> {
    let plan = Plan {
        settings: Settings {
            leaf_lifetime: Duration::from_secs(10),
            ..Settings::default()
        },
        ..Plan::default()
    };
    play(bed, &plan, |shop| {
        let loads = [
            shop.load(Client::Http1(WEB, format!("/{MARKER}")), 4)?,
            shop.load(Client::Http2(WEB, format!("/{MARKER}")), 2)?,
            shop.load(Client::Grpc(WEB, MARKER.to_owned()), 2)?,
            // One connection, however many certificates come and go.
            shop.load(Client::Lines(TALK, MARKER.to_owned()), 1)?,
        ];
        // The first certificate and two successors, on both sides.
        wait::until(3 * LIMIT, || renewals(shop, "ok").iter().all(|n| *n >= 3.0))
            .context("not renewed")?;

        // As a crash does it; it stays away until somebody has tried to renew in vain, and tried again.
        shop.mesh.kill_controller();
        wait::until(LIMIT, || renewals(shop, "failed").iter().any(|n| *n >= 3.0))
            .context("nobody missed the controller")?;
        let before = renewals(shop, "ok");
        shop.mesh.start_controller()?;
        wait::until(LIMIT, || {
            let after = renewals(shop, "ok");
            after[0] > before[0] && after[1] > before[1]
        })
        .context("not renewed after the outage")?;
        for load in loads {
            shop.assert_unhurt(load)?;
        }
        shop.assert_wire_unread()
    })
}

/// An issuer of JWTs that the controller trusts: unlike a join token, a JWT may be shown again.
pub(crate) struct JwtIssuer {
    directory: TempDir,
    key: rcgen::KeyPair,
}

const ISSUER: &str = "https://issuer.test";

impl JwtIssuer {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("ringmail-jwt-").tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        // An uncompressed point: 4, then both coordinates (SEC 1, section 2.3.3).
        let (x, y) = key.public_key_raw()[1..].split_at(32);
        let keys = serde_json::json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "one",
            "x": base64url(x), "y": base64url(y),
        }] });
        fs::write(directory.path().join("jwks.json"), keys.to_string())?;
        Ok(Self { directory, key })
    }

    pub(crate) fn flags(&self) -> Vec<String> {
        let jwks = self
            .directory
            .path()
            .join("jwks.json")
            .display()
            .to_string();
        ["--jwt-issuer", ISSUER, "--jwks", &jwks]
            .map(str::to_owned)
            .into()
    }

    /// The workload, with a token of its service account for credential.
    pub(crate) fn vouch(&self, workload: Workload) -> anyhow::Result<Workload> {
        let file = self.directory.path().join(&workload.name);
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("one".to_owned());
        let claims = serde_json::json!({
            "iss": ISSUER,
            "aud": "ringmail",
            "sub": format!("system:serviceaccount:{}:{}", workload.namespace, workload.service_account),
            "exp": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 3600,
        });
        let key = EncodingKey::from_ec_der(self.key.serialized_der());
        write_readable(&file, &jsonwebtoken::encode(&header, &claims, &key)?)?;
        let workload = workload.set("RINGMAIL_JOIN_TOKEN_FILE", "");
        Ok(workload.set("RINGMAIL_JWT_FILE", &file.display().to_string()))
    }
}

fn write_readable(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text)?;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o644),
    )?)
}

/// RFC 4648 section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .chain([&0; 2])
            .take(3)
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for place in 0..=three.len() {
            text.push(char::from(ALPHABET[bits >> (18 - 6 * place) & 63]));
        }
    }
    text
}

fn expiry_refuses_and_recovers(bed: Bed) -> anyhow::Result<()> {
    let issuer = JwtIssuer::new()?;
    let default = Plan::default();
    let plan = Plan {
        settings: Settings {
            leaf_lifetime: Duration::from_secs(10),
            controller_flags: issuer.flags(),
        },
        client: issuer.vouch(default.client)?,
        server: issuer.vouch(default.server)?,
    };
    play(bed, &plan, |shop| {
        let path = format!("/{MARKER}");
        ensure!(shop.get(WEB, &path)?.status == 200);
        shop.mesh.kill_controller();
        // Until its end the certificate serves; then requests are refused, with the reason.
        let mut last = None;
        wait::until(LIMIT, || {
            last = Some(shop.get(WEB, &path));
            !matches!(&last, Some(Ok(reply)) if reply.status == 200)
        })
        .context("an expired certificate still serves")?;
        // Whichever side's certificate ends first, the client's own is over soon.
        wait::until(LIMIT, || {
            last = Some(shop.get(WEB, &path));
            matches!(&last, Some(Ok(reply)) if reply.status == 503 && refusal(reply) == Some("certificate_expired"))
        })
        .with_context(|| format!("not refused as expired: {last:?}"))?;
        shop.wait_client_refusal("certificate_expired")?;
        let mut opaque = dial(&shop.client, TALK)?;
        let (heard, ending) = read_rest(&mut opaque);
        ensure!(
            heard.is_empty() && ending != Ending::Open,
            "{heard:?}, {ending:?}"
        );
        ensure!(
            !shop.client_sidecar.is_ready(shop.node),
            "ready with an expired certificate"
        );

        shop.mesh.start_controller()?;
        wait::until(2 * LIMIT, || {
            shop.get(WEB, &path).is_ok_and(|reply| reply.status == 200)
        })
        .context("not recovered")?;
        wait::until(LIMIT, || shop.client_sidecar.is_ready(shop.node))
            .context("not ready again")?;
        shop.assert_wire_unread()
    })
}

/// The controller's authority is lost and made anew: nothing that was signed before is worth anything to it, and it to
/// nobody. The roots' file is replaced, as the kubelet does it, and nobody touches the proxies.
fn another_root_is_taken_from_the_file(bed: Bed) -> anyhow::Result<()> {
    let issuer = JwtIssuer::new()?;
    let default = Plan::default();
    let plan = Plan {
        settings: Settings {
            // Not renewed by its time while this lasts.
            leaf_lifetime: Duration::from_secs(3600),
            controller_flags: issuer.flags(),
        },
        client: issuer.vouch(default.client)?,
        server: issuer.vouch(default.server)?,
    };
    play(bed, &plan, |shop| {
        let path = format!("/{MARKER}");
        ensure!(shop.get(WEB, &path)?.status == 200);
        let before = renewals(shop, "ok");
        shop.mesh.kill_controller();
        fs::remove_dir_all(shop.mesh.state_directory().join("authority"))?;
        shop.mesh.start_controller()?;
        wait::until(2 * LIMIT, || {
            let after = renewals(shop, "ok");
            after[0] > before[0] && after[1] > before[1]
        })
        .context("no certificate of the new root")?;
        wait::until(LIMIT, || {
            connected(shop) == 1.0 && shop.get(WEB, &path).is_ok_and(|reply| reply.status == 200)
        })
        .context("not recovered")?;
        let again = renewals(shop, "ok");
        ensure!(
            again.iter().sum::<f64>() <= before.iter().sum::<f64>() + 4.0,
            "certificates are asked for again and again: {before:?}, {again:?}"
        );
        shop.assert_wire_unread()
    })
}

fn connected(shop: &Shop<'_>) -> f64 {
    shop.client_metric("ringmail_control_connected", &[])
}

fn what_was_never_learnt_is_refused(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let path = format!("/{MARKER}");
        ensure!(shop.get(WEB, &path)?.status == 200);
        shop.mesh.kill_controller();
        wait::until(LIMIT, || connected(shop) == 0.0).context("nobody noticed")?;
        // Nobody can tell whether that is the mesh or the world: so it is neither.
        let refused = shop.get(shop.server_at(8080), &path);
        ensure!(
            refused
                .as_ref()
                .map_or(true, |reply| refusal(reply) == Some("unknown_destination")),
            "{refused:?}"
        );
        shop.wait_client_refusal("unknown_destination")?;
        // What was learnt stays in force.
        ensure!(shop.get(WEB, &path)?.status == 200);
        shop.mesh.start_controller()?;
        wait::until(LIMIT, || connected(shop) == 1.0).context("not connected again")?;
        ensure!(shop.get(shop.server_at(8080), &path)?.status == 200);
        shop.assert_wire_unread()
    })
}
