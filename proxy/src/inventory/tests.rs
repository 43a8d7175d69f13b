//! What requests show of an API, and that they show it in bounded space.

use super::*;
use crate::http::neutral::{Version, put_field};
use std::net::Ipv4Addr;

/// What an observer sees of these: target, status, token.
fn page(came: &[(&str, u16, &str)], now: u64) -> serde_json::Value {
    let (inventory, begun) = (Arc::new(Inventory::default()), Instant::now());
    let observer = Observer::new(inventory.clone(), begun);
    let client = Client {
        svid: None,
        address: Ipv4Addr::LOCALHOST.into(),
    };
    for (n, (target, status, token)) in came.iter().enumerate() {
        let mut fields = Vec::new();
        put_field(&mut fields, b"authorization", token.as_bytes());
        let request = Request {
            version: Version::Http11,
            upgrade: false,
            method: "GET",
            target,
        };
        let answer = Answer {
            status: Some(*status),
            grpc_status: None,
        };
        observer.see(begun, || Came {
            client: &client,
            port: 8080,
            head: (request, Fields::check(&fields).expect("valid")),
            outcome: Outcome::of(answer),
            answer,
            is_covered: false,
        });
        if n % 100 == 0 {
            observer.hand_over(now + n as u64);
        }
    }
    observer.hand_over(now + came.len() as u64);
    inventory.page(now + came.len() as u64)
}

#[test]
fn routes_callers_and_credentials() {
    let page = page(
        &[
            ("/orders/1?secret=hidden", 200, "Bearer one"),
            ("/orders/2", 500, "Bearer two"),
            ("/orders/3", 200, "Bearer two"),
            ("/.env", 404, "Bearer two"),
        ],
        1000,
    );
    let routes = page["routes"].as_array().expect("routes");
    assert_eq!(routes.len(), 1, "{page}");
    let route = &routes[0];
    assert_eq!(route["route"], "/orders/{}");
    let figures = [&route["requests"], &route["errors"], &page["unmatched"]];
    assert_eq!(
        figures.map(serde_json::Value::as_u64),
        [Some(3), Some(1), Some(1)]
    );
    assert_eq!(route["covered"], false);
    let credentials = &route["callers"][0]["credentials"];
    assert_eq!(credentials[0]["kind"], "bearer", "{page}");
    assert_eq!(credentials[0]["different"], 2);
    assert_eq!(credentials[0]["static"], false);
    assert_eq!(credentials[1]["kind"], "api_key_query");
    assert_eq!(credentials[1]["static"], true);
    let text = page.to_string();
    assert!(!text.contains("hidden") && !text.contains("two"), "{text}");
}

#[test]
fn a_token_that_never_changes_is_noticed() {
    let came = vec![("/", 200, "Bearer same"); 3];
    let seen = |seconds: u64| {
        let inventory = Inventory::default();
        inventory.locked(|seen| {
            for at in [0, seconds] {
                seen.add(observed("/", "Bearer same", &inventory.salt), at);
            }
            seen.page(seconds)["routes"][0]["callers"][0]["credentials"][0]["static"].clone()
        })
    };
    assert_eq!(page(&came, 0)["routes"][0]["requests"], 3);
    assert_eq!([seen(3600), seen(7200)], [false, true]);
}

fn observed(path: &str, token: &str, salt: &RandomState) -> Observation {
    let mut fields = Vec::new();
    put_field(&mut fields, b"authorization", token.as_bytes());
    let fields = Fields::check(&fields).expect("valid");
    Observation {
        port: 8080,
        method: "GET",
        path: path.into(),
        caller: NO_IDENTITY.into(),
        is_mutual: false,
        credentials: credential::shown(path, fields, salt),
        outcome: Outcome::Success,
        status: Some(200),
        is_covered: true,
        weight: 1,
    }
}

#[test]
fn whatever_is_asked_takes_bounded_room() {
    let inventory = Inventory::default();
    inventory.locked(|seen| {
        for n in 0..50_000_u64 {
            let word: String = n
                .to_string()
                .bytes()
                .map(|b| char::from(b - b'0' + b'a'))
                .collect();
            let mut one = observed(
                &format!("/{word}/{word}/{n}"),
                &format!("Bearer {n}"),
                &inventory.salt,
            );
            one.caller = format!("spiffe://mesh.local/ns/shop/sa/{n}").into();
            seen.add(one, n);
        }
    });
    let page = inventory.page(50_000);
    let routes = page["routes"].as_array().expect("routes");
    assert!(routes.len() <= 1024, "{}", routes.len());
    assert!(
        routes
            .iter()
            .all(|one| one["callers"].as_array().is_some_and(|all| all.len() <= 65))
    );
    assert!(page.to_string().len() < 8 << 20);
}

#[test]
fn one_in_so_many_stands_for_all() {
    let (inventory, begun) = (Arc::new(Inventory::default()), Instant::now());
    let observer = Observer::new(inventory.clone(), begun);
    let client = Client {
        svid: None,
        address: Ipv4Addr::LOCALHOST.into(),
    };
    let mut looks = 0;
    for second in 0..3_u64 {
        for n in 0..6400 {
            let at = begun + Duration::from_secs(second) + Duration::from_micros(n);
            observer.see(at, || {
                looks += 1;
                Came {
                    client: &client,
                    port: 80,
                    head: (
                        Request {
                            version: Version::Http11,
                            upgrade: false,
                            method: "GET",
                            target: "/",
                        },
                        Fields::check(b"").expect("none"),
                    ),
                    outcome: Outcome::Success,
                    answer: Answer {
                        status: Some(200),
                        grpc_status: None,
                    },
                    is_covered: true,
                }
            });
        }
        observer.hand_over(second);
    }
    assert!(looks <= WAITING_MAX + 2 * 64, "{looks}");
    let requests = inventory.page(3)["routes"][0]["requests"].as_u64();
    // The first second's are not known to be many before it is over.
    assert_eq!(requests, Some(WAITING_MAX as u64 + 2 * 6400));
}
