use ringmail_proto::policy::Posture;
use std::collections::BTreeSet;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::request::REQUEST_BYTES_MAX;
use super::*;
use crate::config::{GivenAuthority, Home};

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn home(state: &Path) -> DirectoryHome {
    DirectoryHome {
        source_dir: state.join("source"),
        state_dir: state.to_owned(),
        given_authority: None,
        jwt: None,
    }
}

fn config() -> Config {
    Config {
        trust_domain: "mesh.local".parse().expect("domain"),
        default_policy: Posture::default(),
        cluster_networks: Vec::new(),
        home: Home::Directory(home(Path::new("unused"))),
        listen: ([127, 0, 0, 1], 0).into(),
        metrics_listen: ([127, 0, 0, 1], 0).into(),
        leaf_lifetime: Duration::from_secs(3600),
        drain_timeout: Duration::from_secs(1),
        jwks: Default::default(),
        limits_redis: None,
    }
}

fn open(state: &Path, now: u64) -> Result<Authority, AuthorityError> {
    Authority::open(&config(), &home(state), at(now))
}

fn id() -> SpiffeId {
    "spiffe://mesh.local/ns/shop/sa/cart".parse().expect("id")
}

/// A request that asks for everything it must not get.
fn hostile(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "EVIL-NAME");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.subject_alt_names = vec![
        SanType::DnsName("EVIL-NAME".try_into().expect("IA5")),
        SanType::URI(
            "spiffe://mesh.local/ns/EVIL-NAME/sa/x"
                .try_into()
                .expect("IA5"),
        ),
    ];
    params
        .serialize_request(key)
        .expect("request")
        .der()
        .to_vec()
}

fn p256() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key")
}

#[test]
fn a_hostile_request_gives_its_key_and_nothing_else() {
    let dir = tempfile::tempdir().expect("dir");
    let authority = open(dir.path(), NOW).expect("opened");
    let key = p256();
    let leaf_key = LeafKey::from_request(&hostile(&key)).expect("a P-256 key");
    let issued = authority.issue(&leaf_key, &id(), at(NOW)).expect("issued");
    let der = issued.chain[0].to_vec();
    let evil = der.windows(9).any(|window| window == b"EVIL-NAME");
    assert!(!evil, "a name of the request is in the leaf");
    let (_, leaf) = X509Certificate::from_der(&der).expect("parsed");
    assert_eq!(
        leaf.public_key().subject_public_key.data,
        key.public_key_raw()
    );
}

#[test]
fn leaves_keep_every_rule_of_the_standard() {
    let dir = tempfile::tempdir().expect("dir");
    let authority = open(dir.path(), NOW).expect("opened");
    let key = LeafKey::from_request(&hostile(&p256())).expect("key");
    let issued = authority.issue(&key, &id(), at(NOW)).expect("issued");
    for role in [Role::Client, Role::Server] {
        let svid = Svid::verify(
            &issued.chain[0],
            &issued.chain[1..],
            &authority.bundle(),
            role,
            at(NOW),
        );
        assert_eq!(svid.as_ref(), Ok(&issued.svid));
    }
    assert_eq!(issued.chain.len(), 2, "leaf and issuer, without the root");

    let (rest, leaf) = X509Certificate::from_der(&issued.chain[0]).expect("parsed");
    assert!(rest.is_empty());
    // Section 2: exactly one URI, and here no other name.
    let san = leaf
        .subject_alternative_name()
        .expect("readable")
        .expect("there");
    assert!(san.critical, "RFC 5280 4.2.1.6: the subject is empty");
    assert!(matches!(san.value.general_names[..], [GeneralName::URI(uri)] if uri == id().as_str()));
    assert_eq!(leaf.subject().iter().count(), 0);
    // Section 4.1 and 4.3.
    let constraints = leaf.basic_constraints().expect("readable").expect("there");
    assert!(!constraints.value.ca && constraints.value.path_len_constraint.is_none());
    let usage = leaf.key_usage().expect("readable").expect("there");
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature and nothing else");
    // Section 4.4.
    let extended = leaf
        .extended_key_usage()
        .expect("readable")
        .expect("there")
        .value;
    assert!(extended.server_auth && extended.client_auth);
    assert!(!extended.any && !extended.code_signing && extended.other.is_empty());
    // RFC 5280 4.2.1.1: the chain is linked by key identifiers.
    let (_, issuer) = X509Certificate::from_der(&issued.chain[1]).expect("parsed");
    assert_eq!(key_ids(&leaf).0, key_ids(&issuer).1);
    assert!(key_ids(&leaf).0.is_some());
    assert_eq!(
        leaf.validity().not_before.timestamp(),
        i64::try_from(NOW).expect("fits") - 300
    );
    assert_eq!(
        leaf.validity().not_after.timestamp(),
        i64::try_from(NOW).expect("fits") + 3600
    );
}

/// Authority and subject key identifier.
fn key_ids(certificate: &X509Certificate<'_>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (mut authority, mut subject) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                authority = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(id.0.to_vec()),
            _ => {}
        }
    }
    (authority, subject)
}

#[test]
fn signing_certificates_keep_the_standard_too() {
    let dir = tempfile::tempdir().expect("dir");
    let authority = open(dir.path(), NOW).expect("opened");
    let key = LeafKey::of(&p256()).expect("key");
    let issued = authority.issue(&key, &id(), at(NOW)).expect("issued");
    let bundle = authority.bundle();
    let root = &bundle.certificates(&id().trust_domain())[0];
    for (der, path_length) in [(&issued.chain[1], 0), (root, 1)] {
        let (_, one) = X509Certificate::from_der(der).expect("parsed");
        let constraints = one.basic_constraints().expect("readable").expect("there");
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(path_length));
        let usage = one.key_usage().expect("readable").expect("there");
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
        // Section 4.2: a SPIFFE ID without a path.
        let san = one
            .subject_alternative_name()
            .expect("readable")
            .expect("there");
        assert!(matches!(
            san.value.general_names[..],
            [GeneralName::URI("spiffe://mesh.local")]
        ));
        let (authority, subject) = key_ids(&one);
        assert!(authority.is_some() && subject.is_some());
    }
}

#[test]
fn serials_are_random_and_positive() {
    let dir = tempfile::tempdir().expect("dir");
    let authority = open(dir.path(), NOW).expect("opened");
    let key = LeafKey::of(&p256()).expect("key");
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let issued = authority.issue(&key, &id(), at(NOW)).expect("issued");
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).expect("parsed");
        let raw = leaf.raw_serial();
        assert!(
            raw[0] < 0x80 && raw.len() <= 17,
            "positive, 128 bits at most"
        );
        assert!(seen.insert(issued.svid.serial), "twice");
    }
}

#[test]
fn bad_requests_are_refused() {
    let of = |key: &KeyPair| {
        CertificateParams::default()
            .serialize_request(key)
            .expect("request")
            .der()
            .to_vec()
    };
    let good = of(&p256());
    let mut flipped = good.clone();
    *flipped.last_mut().expect("bytes") ^= 1;
    let mut longer = good.clone();
    longer.push(0);
    let p384 = of(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("key"));
    let ed = of(&KeyPair::generate_for(&PKCS_ED25519).expect("key"));
    let rsa = of(
        &KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("key"),
    );
    let rows: &[(&str, &[u8], RequestError)] = &[
        ("nothing", &[], RequestError::Malformed),
        ("garbage", &[0x30; 200], RequestError::Malformed),
        ("cut", &good[..good.len() - 1], RequestError::Malformed),
        ("trailing byte", &longer, RequestError::Malformed),
        ("signature", &flipped, RequestError::Signature),
        ("P-384", &p384, RequestError::Key),
        ("Ed25519", &ed, RequestError::Key),
        ("RSA", &rsa, RequestError::Key),
        (
            "too large",
            &[0x30; REQUEST_BYTES_MAX + 1],
            RequestError::TooLarge,
        ),
    ];
    assert!(LeafKey::from_request(&good).is_ok());
    for (what, der, expected) in rows {
        assert_eq!(LeafKey::from_request(der).err(), Some(*expected), "{what}");
    }
    let key = LeafKey::from_request(&good);
    for at in 0..good.len() {
        let mut bent = good.clone();
        bent[at] ^= 0x41;
        // Must not panic; a byte that is not signed may pass, but never with another key.
        let read = LeafKey::from_request(&bent);
        assert!(read.is_err() || read == key, "byte {at}");
    }
}

#[test]
fn a_leaf_never_outlives_its_issuer_and_the_issuer_is_renewed_at_half() {
    let dir = tempfile::tempdir().expect("dir");
    let authority = open(dir.path(), NOW).expect("opened");
    let key = LeafKey::of(&p256()).expect("key");
    let end = authority.issuer_not_after();
    let late = authority.issue(&key, &id(), at(end - 100)).expect("issued");
    assert_eq!(late.valid_for, Duration::from_secs(100));
    assert!(matches!(
        authority.issue(&key, &id(), at(end - 9)),
        Err(AuthorityError::Expired)
    ));

    let old = authority.issue(&key, &id(), at(NOW)).expect("issued");
    assert!(
        !authority
            .renew_issuer(at(NOW + 180 * 86_400))
            .expect("looked")
    );
    let half = at(NOW + 183 * 86_400);
    assert!(authority.renew_issuer(half).expect("renewed"));
    assert!(!authority.renew_issuer(half).expect("looked"));
    let new = authority.issue(&key, &id(), half).expect("issued");
    assert_ne!(old.chain[1], new.chain[1]);
    for (issued, now) in [(old, at(NOW)), (new, half)] {
        let verified = Svid::verify(
            &issued.chain[0],
            &issued.chain[1..],
            &authority.bundle(),
            Role::Client,
            now,
        );
        assert!(verified.is_ok(), "{verified:?}");
    }
}

#[test]
fn a_restart_keeps_the_authority_and_finishes_what_a_crash_left() {
    let dir = tempfile::tempdir().expect("dir");
    let key = LeafKey::of(&p256()).expect("key");
    let chain = |authority: &Authority| {
        authority.issue(&key, &id(), at(NOW)).expect("issued").chain[1].clone()
    };
    let first = open(dir.path(), NOW).expect("opened");
    let again = open(dir.path(), NOW + 10).expect("opened");
    assert_eq!(first.bundle(), again.bundle());
    assert_eq!(chain(&first), chain(&again));
    // A crash between root and issuer.
    std::fs::remove_file(dir.path().join("authority/issuer.pem")).expect("removed");
    let third = open(dir.path(), NOW + 20).expect("opened");
    assert_eq!(first.bundle(), third.bundle());
    // Half a file is refused, never replaced: the root in it may be in use.
    std::fs::write(dir.path().join("authority/root.pem"), "-----BEGIN").expect("written");
    assert!(open(dir.path(), NOW + 30).is_err());
}

#[test]
fn given_files_must_belong_together() {
    let (ours, theirs) = (
        tempfile::tempdir().expect("dir"),
        tempfile::tempdir().expect("dir"),
    );
    for dir in [&ours, &theirs] {
        open(dir.path(), NOW).expect("made");
    }
    let state = tempfile::tempdir().expect("dir");
    let path = |dir: &tempfile::TempDir, name: &str| dir.path().join("authority").join(name);
    let open = |cert: &tempfile::TempDir, key: &tempfile::TempDir, root: &tempfile::TempDir| {
        let given = GivenAuthority {
            issuer_cert: path(cert, "issuer.pem"),
            issuer_key: path(key, "issuer.pem"),
            root_cert: path(root, "root.pem"),
        };
        let home = DirectoryHome {
            given_authority: Some(given),
            ..home(state.path())
        };
        Authority::open(&config(), &home, at(NOW))
    };
    let good = open(&ours, &ours, &ours).expect("belongs together");
    assert!(
        !good
            .renew_issuer(at(NOW + 300 * 86_400))
            .expect("not ours to renew")
    );
    assert!(state.path().join("root.pem").exists());
    assert!(matches!(
        open(&ours, &theirs, &ours),
        Err(AuthorityError::Material { .. })
    ));
    assert!(matches!(
        open(&ours, &ours, &theirs),
        Err(AuthorityError::Unusable(_))
    ));
}

#[test]
fn a_successor_is_trusted_before_it_signs_and_the_old_root_stays() {
    let dirs = [(), ()].map(|()| tempfile::tempdir().expect("dir"));
    let [first, second] = dirs.each_ref().map(|dir| {
        open(dir.path(), NOW).expect("made");
        let path = |name: &str| dir.path().join("authority").join(name);
        let given = GivenAuthority {
            issuer_cert: path("issuer.pem"),
            issuer_key: path("issuer.pem"),
            root_cert: path("root.pem"),
        };
        IssuerPem::read(&given).expect("read")
    });
    let authority = Authority::of_issuer(&config(), &first, at(NOW)).expect("opened");
    let key = LeafKey::of(&p256()).expect("key");
    let issued = || authority.issue(&key, &id(), at(NOW)).expect("issued").chain;
    let verify = |chain: &[CertificateDer<'static>]| {
        let (leaf, above) = chain.split_first().expect("a leaf");
        Svid::verify(leaf, above, &authority.bundle(), Role::Server, at(NOW)).is_ok()
    };
    assert!(matches!(authority.consider(&first, at(NOW)), Ok(None)));
    let late = authority.consider(&second, at(NOW + 20 * 365 * 86_400));
    assert!(late.is_err(), "its life is over");

    let old = issued();
    let successor = authority.consider(&second, at(NOW)).expect("good");
    let successor = successor.expect("another");
    assert!(authority.trust(&successor).expect("few roots"));
    assert!(
        !authority.trust(&successor).expect("few roots"),
        "known already"
    );
    assert_eq!(
        issued()[1],
        old[1],
        "the old one signs until told otherwise"
    );
    authority.succeed(successor, at(NOW));
    let new = issued();
    assert_ne!(new[1], old[1]);
    assert!(verify(&old) && verify(&new));
    assert!(matches!(authority.consider(&second, at(NOW)), Ok(None)));
}

/// What cert-manager keeps for a self-signed CA: the root itself signs.
#[test]
fn a_root_that_signs_is_known_by_its_key() {
    let dirs = [(), ()].map(|()| tempfile::tempdir().expect("dir"));
    let [first, second] = dirs.each_ref().map(|dir| {
        open(dir.path(), NOW).expect("made");
        let root = dir.path().join("authority/root.pem");
        let given = GivenAuthority {
            issuer_cert: root.clone(),
            issuer_key: root.clone(),
            root_cert: root,
        };
        IssuerPem::read(&given).expect("read")
    });
    let authority = Authority::of_issuer(&config(), &first, at(NOW)).expect("opened");
    let mut heard = authority.successions();
    for given in [&second, &first, &second] {
        let successor = authority.consider(given, at(NOW)).expect("good");
        let successor = successor.expect("another than the one that signs");
        authority.trust(&successor).expect("few roots");
        assert!(!heard.has_changed().expect("open"), "not in force yet");
        authority.succeed(successor, at(NOW));
        assert!(heard.has_changed().expect("open"));
        heard.mark_unchanged();
        assert!(matches!(authority.consider(given, at(NOW)), Ok(None)));
    }
}

#[test]
fn roots_of_formerly_are_trusted_while_a_leaf_under_them_may_live() {
    const DAY: u64 = 86_400;
    let root =
        |now: u64| RootPem::make(&"mesh.local".parse().expect("domain"), at(now)).expect("made");
    let own = root(NOW);
    let authority = Authority::of_root(&config(), "root", &own, at(NOW)).expect("opened");
    let count = || {
        authority
            .bundle()
            .certificates(&config().trust_domain)
            .len()
    };
    let der = |pem: &RootPem| pem.certificates().expect("PEM");

    authority.remember(&der(&root(NOW - 11 * 365 * DAY)), at(NOW));
    assert_eq!(count(), 1, "one that is over is worth nothing");
    authority.remember(&der(&own), at(NOW));
    assert_eq!(count(), 1, "its own is none of formerly");
    let old = root(NOW - DAY);
    authority.remember(&der(&old), at(NOW));
    assert_eq!(count(), 2);
    assert!(
        !authority.forget(at(NOW + 3600)),
        "a leaf of an hour and clocks"
    );
    assert!(authority.forget(at(NOW + 2 * 3600)));
    assert_eq!(count(), 1);

    let other = root(NOW);
    assert!(authority.trust_also(&other).expect("few roots"));
    assert!(!authority.trust_also(&other).expect("few roots"));
    assert!(
        !authority.forget(at(NOW + DAY)),
        "nobody said that it is over"
    );
    for n in 0..20 {
        authority.remember(&der(&root(NOW)), at(NOW + n));
    }
    assert_eq!(count(), 16);
    let bundle = authority.bundle();
    let kept = bundle.certificates(&config().trust_domain);
    assert!(kept.contains(&der(&own)[0]) && kept.contains(&der(&other)[0]));
}

#[test]
fn issuers_of_a_kept_root_live_in_memory() {
    let root = RootPem::make(&"mesh.local".parse().expect("domain"), at(NOW)).expect("made");
    let replica = || Authority::of_root(&config(), "root", &root, at(NOW)).expect("opened");
    let (one, other) = (replica(), replica());
    assert_eq!(one.bundle(), other.bundle());
    let key = LeafKey::of(&p256()).expect("key");
    let chains = [&one, &other].map(|one| one.issue(&key, &id(), at(NOW)).expect("issued").chain);
    assert_ne!(chains[0][1], chains[1][1], "each has an issuer of its own");
    for chain in chains {
        Svid::verify(&chain[0], &chain[1..], &one.bundle(), Role::Server, at(NOW)).expect("good");
    }
    assert!(!one.renew_issuer(at(NOW + 100 * 86_400)).expect("early"));
    assert!(
        one.renew_issuer(at(NOW + 200 * 86_400))
            .expect("past half of its life")
    );
}
