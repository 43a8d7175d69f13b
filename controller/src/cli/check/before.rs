//! What has to be right before the mesh is there: the cluster's version, its clock and ours, and the rights of whoever
//! installs.

use http::{Request, header};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::client::Body;
use kube::{Api, Client};

use super::Finding;
use crate::cli::report::now;

/// The oldest Kubernetes with native sidecars that are there to stay.
const MINOR_MIN: u32 = 33;
/// Certificates are back-dated by five minutes: beyond that nobody would take a new one.
const SKEW_WARN_SECONDS: i64 = 60;
const SKEW_FAIL_SECONDS: i64 = 300;
/// What `helm install` creates.
const CREATED: [(&str, &str); 6] = [
    ("", "namespaces"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
    ),
];

pub(super) async fn look(client: &Client) -> Vec<Finding> {
    vec![version(client).await, clock(client).await]
}

async fn version(client: &Client) -> Finding {
    const CHECK: &str = "kubernetes version";
    match client.apiserver_version().await {
        Err(e) => Finding::fail(
            CHECK,
            format!("the API server does not answer: {e}"),
            "see that KUBECONFIG names the right cluster and that it is up",
        ),
        Ok(version) => judge_version(&version.major, &version.minor, &version.git_version),
    }
}

fn judge_version(major: &str, minor: &str, full: &str) -> Finding {
    const CHECK: &str = "kubernetes version";
    let digits = minor.trim_end_matches(|c: char| !c.is_ascii_digit());
    let is_new = major == "1" && digits.parse().is_ok_and(|minor: u32| minor >= MINOR_MIN);
    match is_new {
        true => Finding::ok(CHECK, full),
        false => Finding::fail(
            CHECK,
            full,
            format!("upgrade the cluster: 1.{MINOR_MIN} or newer is needed"),
        ),
    }
}

/// By the date of an answer, which the API server gives in whole seconds.
async fn clock(client: &Client) -> Finding {
    const CHECK: &str = "clocks";
    let date = async {
        let request = Request::get("/version").body(Body::empty()).ok()?;
        let response = client.send(request).await.ok()?;
        let date = response.headers().get(header::DATE)?.to_str().ok()?;
        let format = time::format_description::well_known::Rfc2822;
        let date = time::OffsetDateTime::parse(&date.replace("GMT", "+0000"), &format).ok()?;
        Some(date.unix_timestamp())
    };
    match date.await {
        Some(theirs) => judge_clock(now() - theirs),
        None => Finding::warn(CHECK, "the API server does not say what time it is", ""),
    }
}

fn judge_clock(ahead: i64) -> Finding {
    const CHECK: &str = "clocks";
    let found = format!("ours is {ahead} s ahead of the API server's");
    let advice = "set the clocks of this machine and of the nodes (NTP)";
    match ahead.abs() {
        0..SKEW_WARN_SECONDS => Finding::ok(CHECK, found),
        SKEW_WARN_SECONDS..SKEW_FAIL_SECONDS => Finding::warn(CHECK, found, advice),
        _ => Finding::fail(CHECK, found, advice),
    }
}

/// Whether we could install.
pub(super) async fn rights(client: &Client) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (group, resource) in CREATED {
        findings.push(may_create(client, group, resource).await);
    }
    findings
}

async fn may_create(client: &Client, group: &str, resource: &str) -> Finding {
    const CHECK: &str = "rights to install";
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some("create".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api = Api::<SelfSubjectAccessReview>::all(client.clone());
    let advice = "ask an administrator of the cluster to install, or for the role cluster-admin";
    match api.create(&PostParams::default(), &review).await {
        Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {
            Finding::ok(CHECK, format!("you may create {resource}"))
        }
        Ok(_) => Finding::fail(CHECK, format!("you may not create {resource}"), advice),
        Err(e) => Finding::fail(
            CHECK,
            format!("cannot ask whether you may create {resource}: {e}"),
            advice,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::Verdict;

    #[test]
    fn versions_and_clocks() {
        for (minor, expected) in [
            ("36", Verdict::Ok),
            ("33+", Verdict::Ok),
            ("32", Verdict::Fail),
            ("", Verdict::Fail),
        ] {
            assert_eq!(judge_version("1", minor, "v").verdict, expected, "{minor}");
        }
        for (ahead, expected) in [
            (0, Verdict::Ok),
            (-59, Verdict::Ok),
            (60, Verdict::Warn),
            (-300, Verdict::Fail),
        ] {
            assert_eq!(judge_clock(ahead).verdict, expected, "{ahead}");
        }
    }
}
