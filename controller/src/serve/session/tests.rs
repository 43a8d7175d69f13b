use super::*;
use crate::model::Mesh;
use crate::source::objects::Objects;

struct World {
    version: Version,
    bundle: Arc<TrustBundle>,
    now: Instant,
}

const ADDRESS: &str = "10.96.0.5:80";

impl World {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("root").der().clone();
        let domain = "mesh.local".parse().expect("domain");
        Self {
            version: Version {
                epoch: 7,
                sequence: 1,
            },
            bundle: Arc::new(TrustBundle::single(domain, vec![root]).expect("bundle")),
            now: Instant::now(),
        }
    }

    /// A state in which the service has these endpoints and the pod this service account.
    fn state(&mut self, endpoints: &str, account: &str) -> Snapshot {
        self.version.sequence += 1;
        let yaml = format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: me, namespace: shop}}\nspec: {{serviceAccountName: {account}, containers: []}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\nspec: {{clusterIP: 10.96.0.5, ports: [{{port: 80}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: x, namespace: shop, labels: {{kubernetes.io/service-name: cart}}}}\naddressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{endpoints}]\n"
        );
        let objects: Objects = crate::source::parse_text(&yaml).into_iter().collect();
        Snapshot {
            version: self.version,
            bundle: self.bundle.clone(),
            mesh: Arc::new(Mesh::build(&objects, &crate::model::Defaults::of_tests())),
        }
    }

    fn session(&self) -> Session {
        Session::new("shop/me".parse().expect("name"), "cart".into())
    }
}

fn names(names: &[&str]) -> pb::Subscription {
    pb::Subscription {
        destinations: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// `full` or `delta`, and what it is about.
fn show(response: Option<&pb::WatchResponse>) -> String {
    let Some(response) = response else {
        return "nothing".into();
    };
    let mut text = if response.full { "full" } else { "delta" }.to_owned();
    for resource in &response.resources {
        text += &match &resource.resource {
            Some(Kind::TrustBundle(_)) => " bundle".to_owned(),
            Some(Kind::Workload(_)) => " workload".to_owned(),
            Some(Kind::Authorization(_)) => " authorization".to_owned(),
            Some(Kind::Revocations(_)) => " revocations".to_owned(),
            Some(Kind::Destination(one)) => format!(" {}", one.name),
            None => unreachable!("a resource is something"),
        };
    }
    text
}

#[test]
fn full_first_then_only_what_changed_and_is_subscribed() {
    let mut world = World::new();
    let mut session = world.session();
    let one = world.state("{addresses: [192.0.2.1]}", "cart");
    let next = |session: &mut Session, snapshot: &Snapshot| {
        let response = session.next(snapshot, world.now).expect("goes on");
        if let Some(response) = &response {
            session.answered(&response.nonce).expect("outstanding");
        }
        show(response.as_ref())
    };
    assert_eq!(
        next(&mut session, &one),
        "full bundle workload revocations authorization"
    );
    assert_eq!(next(&mut session, &one), "nothing");
    session
        .subscribe(names(&[ADDRESS, "1.2.3.4:5"]))
        .expect("good");
    assert_eq!(next(&mut session, &one), "full 10.96.0.5:80 1.2.3.4:5");
    assert_eq!(next(&mut session, &one), "nothing");
    session.subscribe(names(&[ADDRESS])).expect("good");
    assert_eq!(next(&mut session, &one), "full 10.96.0.5:80", "asked again");
    let mut world = World {
        version: one.version,
        bundle: one.bundle.clone(),
        now: Instant::now(),
    };
    let two = world.state("{addresses: [192.0.2.2]}", "cart");
    let same = world.state("{addresses: [192.0.2.2]}", "cart");
    let three = world.state("{addresses: [192.0.2.3]}", "cart");
    assert_eq!(next(&mut session, &two), "delta 10.96.0.5:80");
    assert_eq!(next(&mut session, &same), "nothing");
    session.unsubscribe(names(&[ADDRESS])).expect("good");
    assert_eq!(next(&mut session, &three), "nothing");
    world.bundle = World::new().bundle;
    let rotated = world.state("{addresses: [192.0.2.3]}", "cart");
    assert_eq!(next(&mut session, &rotated), "delta bundle");
}

/// Who counts where routes are in force must hear of each address that is followed, and no more once it is not.
#[test]
fn answers_say_what_is_followed() {
    let mut world = World::new();
    let mut session = world.session();
    let state = world.state("", "cart");
    let first = session.next(&state, world.now).expect("goes on");
    let first = session.answered(&first.expect("something").nonce);
    assert!(first.expect("outstanding").0.authorization.is_some());
    let followed = |session: &mut Session| {
        session.subscribe(names(&[ADDRESS])).expect("good");
        let told = session.next(&state, world.now).expect("goes on");
        told.expect("the destination").nonce
    };
    let nonce = followed(&mut session);
    let (told, sent) = session.answered(&nonce).expect("outstanding");
    assert_eq!(sent, world.now);
    let address = ADDRESS.parse().expect("an address");
    assert_eq!(told.destinations, [(address, None)]);
    let nonce = followed(&mut session);
    let left = session.unsubscribe(names(&[ADDRESS])).expect("good");
    assert_eq!(left, [address]);
    let (told, _) = session.answered(&nonce).expect("outstanding");
    assert_eq!(told.destinations, []);
}

#[test]
fn a_slow_proxy_gets_the_newest_state_and_no_queue() {
    let mut world = World::new();
    let mut session = world.session();
    let first = world.state("{addresses: [192.0.2.1]}", "cart");
    session.subscribe(names(&[ADDRESS])).expect("good");
    let mut sent = Vec::new();
    for last in 1..100 {
        let state = world.state(&format!("{{addresses: [192.0.2.{last}]}}"), "cart");
        while let Some(response) = session.next(&state, world.now).expect("goes on") {
            sent.push(response);
        }
    }
    assert_eq!(sent.len(), OUTSTANDING_MAX);
    assert_eq!(session.waits_since(), Some(world.now));
    for response in &sent {
        session.answered(&response.nonce).expect("outstanding");
    }
    let last = world.state("{addresses: [192.0.2.200]}", "cart");
    let response = session
        .next(&last, world.now)
        .expect("goes on")
        .expect("newest");
    assert_eq!(show(Some(&response)), "delta 10.96.0.5:80");
    assert!(format!("{response:?}").contains("192.0.2.200"));
    assert_eq!(session.next(&last, world.now), Ok(None));
    assert_ne!(first.version, last.version);
}

#[test]
fn what_breaks_the_protocol_ends_the_stream() {
    let mut world = World::new();
    let good = world.state("", "cart");
    let other = world.state("", "other");
    let gone = Snapshot {
        mesh: Arc::default(),
        ..good.clone()
    };
    let mut session = world.session();
    assert!(matches!(
        session.next(&gone, world.now),
        Err(Broken::NoWorkload(_))
    ));
    assert!(matches!(
        session.next(&other, world.now),
        Err(Broken::OtherIdentity(_))
    ));
    assert_eq!(session.answered("1"), Err(Broken::Nonce), "never sent");
    let response = session
        .next(&good, world.now)
        .expect("goes on")
        .expect("first");
    assert!(session.answered(&response.nonce).is_ok());
    assert_eq!(
        session.answered(&response.nonce),
        Err(Broken::Nonce),
        "twice"
    );
    assert!(matches!(
        session.subscribe(names(&["cart"])),
        Err(Broken::Name(_))
    ));
    assert!(matches!(
        session.subscribe(names(&["010.0.0.1:80"])),
        Err(Broken::Name(_))
    ));
    let many: Vec<String> = (0..=SUBSCRIPTIONS_MAX)
        .map(|n| format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255))
        .collect();
    let many = pb::Subscription { destinations: many };
    assert_eq!(session.subscribe(many), Err(Broken::TooMany));
}

#[test]
fn large_states_are_told_in_several_responses() {
    let mut world = World::new();
    let mut session = world.session();
    let state = world.state("", "cart");
    let count = RESPONSE_RESOURCES_MAX * 2 + 1;
    let many = (0..count)
        .map(|n| format!("10.0.{}.{}:80", n >> 8, n & 255))
        .collect();
    session
        .subscribe(pb::Subscription { destinations: many })
        .expect("good");
    let mut sizes = Vec::new();
    while let Some(response) = session.next(&state, world.now).expect("goes on") {
        session.answered(&response.nonce).expect("outstanding");
        sizes.push(response.resources.len());
    }
    assert_eq!(
        sizes,
        [4, RESPONSE_RESOURCES_MAX, RESPONSE_RESOURCES_MAX, 1]
    );
}
