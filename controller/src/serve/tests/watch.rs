//! What proxies are told, and when they are cut.

use rcgen::{CertificateParams, KeyPair};
use ringmail_proto::pb;
use ringmail_proto::pb::certificate_service_client::CertificateServiceClient;
use ringmail_proto::pb::resource::Resource;
use ringmail_proto::pb::watch_request::Request as Message;
use ringmail_proto::version::Version;
use tokio::time::timeout;
use tonic::Code;

use super::bed::{Bed, NEW_POD, PATIENCE, PODS, Watcher, connect, identity, origin};

#[tokio::test(flavor = "multi_thread")]
async fn watching_full_then_deltas() {
    let bed = Bed::new().await;
    let cart = bed.by_token("shop/cart-1", "cart").await;
    let mut watcher = Watcher::new(&bed, Some(&cart), "shop/cart-1")
        .await
        .expect("admitted");
    let first = watcher.take().await;
    assert!(first.full);
    let kinds: Vec<_> = first
        .resources
        .iter()
        .filter_map(|one| one.resource.as_ref())
        .collect();
    assert!(
        matches!(kinds[..], [Resource::TrustBundle(_), Resource::Workload(own), Resource::Revocations(_), Resource::Authorization(_)] if own.service_account == "cart")
    );

    watcher.subscribe("10.1.0.3:8080").await;
    let pay = watcher.take().await;
    assert!(pay.full && format!("{pay:?}").contains("spiffe://mesh.local/ns/shop/sa/pay"));

    // Nobody asked for this one.
    bed.write("more.yaml", NEW_POD);
    bed.says("/status", "\"workloads\": 4").await;
    // A bad file changes nothing, and says so.
    bed.write("bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: 7\n");
    bed.says("/status", "\"line\": 3").await;

    bed.write(
        "pods.yaml",
        &PODS.replace("serviceAccountName: pay", "serviceAccountName: bank"),
    );
    let delta = watcher.hear().await.expect("a delta");
    assert!(!delta.full && delta.resources.len() == 1);
    assert!(format!("{delta:?}").contains("spiffe://mesh.local/ns/shop/sa/bank"));
    let version = |wire: Option<pb::Version>| Version::try_from(wire).expect("a version");
    let (old, new) = (version(pay.version), version(delta.version));
    assert!(old.admits_delta(new) && old != new);
    let nack = pb::Nack {
        nonce: delta.nonce,
        reason: "destination.service: made up".into(),
        denied: Vec::new(),
    };
    watcher.say(Message::Nack(nack)).await;
    for counted in [
        "watch_nacks_total 1",
        "watch_acks_total 2",
        "watch_ack_duration_seconds_count 2",
        "watch_responses_total{cause=\"asked\"} 2",
        "watch_responses_total{cause=\"changed\"} 1",
        "watch_responses_outstanding 0",
        "proxies_connected 1",
        "proxies_behind 0",
    ] {
        let text = format!("ringmail_controller_{counted}\n");
        bed.says("/metrics", &text).await;
    }

    // Its pod becomes another's.
    bed.write(
        "pods.yaml",
        &PODS.replace("serviceAccountName: cart", "serviceAccountName: thief"),
    );
    let ended = loop {
        match watcher.hear().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended:?}");
    bed.says(
        "/metrics",
        "watch_stream_ends_total{reason=\"workload_gone\"} 1",
    )
    .await;
    bed.says("/metrics", "ringmail_controller_watch_streams 0")
        .await;
    bed.says("/metrics", "ringmail_controller_proxies_connected 0")
        .await;
    bed.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_proxy_watches_a_pod() {
    let bed = Bed::new().await;
    let anonymous = Watcher::new(&bed, None, "shop/cart-1")
        .await
        .err()
        .expect("refused");
    assert_eq!(anonymous.code(), Code::Unauthenticated);
    let cart = bed.by_token("shop/cart-1", "cart").await;
    for (pod, code) in [
        ("shop/pay-1", Code::PermissionDenied),
        ("shop/gone", Code::NotFound),
    ] {
        let mut watcher = Watcher::new(&bed, Some(&cart), pod).await.expect("begun");
        let refused = watcher.hear().await.expect_err("refused");
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    let mut watcher = Watcher::new(&bed, Some(&cart), "shop/cart-1")
        .await
        .expect("begun");
    watcher.take().await;
    let nonce = "never-sent".to_owned();
    watcher.say(Message::Ack(pb::Ack { nonce })).await;
    assert_eq!(
        watcher.hear().await.expect_err("cut").code(),
        Code::InvalidArgument
    );

    // A certificate of nobody we trust does not get past the handshake.
    let key = KeyPair::generate().expect("key");
    let stranger = CertificateParams::default()
        .self_signed(&key)
        .expect("made");
    let stranger = identity(vec![stranger.der().to_vec()], &key);
    if let Ok(channel) = connect(&bed.running, &bed.config, Some(&stranger)).await {
        let answer = CertificateServiceClient::with_origin(channel, origin())
            .certify(pb::CertifyRequest::default())
            .await;
        assert!(answer.is_err());
    }
    bed.says("/metrics", "handshakes_total{outcome=\"refused\"} 1")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_tells_watchers_and_is_quick() {
    let bed = Bed::new().await;
    let cart = bed.by_token("shop/cart-1", "cart").await;
    let mut watcher = Watcher::new(&bed, Some(&cart), "shop/cart-1")
        .await
        .expect("begun");
    watcher.take().await;
    let stopped = tokio::spawn(bed.running.stop());
    assert_eq!(
        watcher.hear().await.expect_err("told").code(),
        Code::Unavailable
    );
    timeout(PATIENCE, stopped)
        .await
        .expect("in time")
        .expect("no panic");
}

/// What a proxy answers is in the policy's status.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_says_on_how_many_proxies_it_is_in_force() {
    let bed = Bed::new().await;
    let policy = |name: &str, service: &str| {
        format!(
            "{{apiVersion: ringmail.io/v1alpha1, kind: AuthorizationPolicy, metadata: {{name: {name}, namespace: shop}}, spec: {{targetRefs: [{service}], action: deny}}}}\n"
        )
    };
    bed.write("policy.yaml", &policy("all", "{kind: Namespace}"));
    bed.says("/status", "\"applied\": \"0/3\"").await;
    let cart = bed.by_token("shop/cart-1", "cart").await;
    let mut watcher = Watcher::new(&bed, Some(&cart), "shop/cart-1")
        .await
        .expect("admitted");
    watcher.take().await;
    bed.says("/status", "\"applied\": \"1/3\"").await;
    bed.says("/applied", "\"workload\":\"shop/cart-1\",\"applied\":[0]")
        .await;

    bed.write(
        "other.yaml",
        &policy("other", "{kind: Service, name: gone}, {kind: Namespace}"),
    );
    let response = watcher.hear().await.expect("a response");
    let denied = pb::DeniedPolicy {
        name: "shop/all".into(),
        reason: "rules[0]: is new to me".into(),
    };
    let nack = pb::Nack {
        nonce: response.nonce,
        reason: "policy shop/all: rules[0]: is new to me".into(),
        denied: vec![denied],
    };
    watcher.say(Message::Nack(nack)).await;
    bed.says("/status", "shop/cart-1 says: rules[0]: is new to me")
        .await;
    bed.says("/status", "there is no Service shop/gone").await;
    bed.running.stop().await;
}
