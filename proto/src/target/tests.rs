//! The table of the module, row by row, and what holds for every input.

use super::*;
use proptest::prelude::*;

#[test]
fn paths() {
    let rows = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("/a?b=c%2f//../%41[]", "/a?b=c%2f//../%41[]"),
        ("/%7euser/%41%2d%5f%2E", "/~user/A-_."),
        ("/%c3%a4%3a", "/%C3%A4%3A"),
        ("/a/./b", "/a/b"),
        ("/a/.", "/a/"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("//", "/"),
        ("//a///b//", "/a/b/"),
        ("/a//../b", "/b"),
        ("/.a/..b/...", "/.a/..b/..."),
        ("/{a}|[b]^`\"<>", "/%7Ba%7D%7C%5Bb%5D%5E%60%22%3C%3E"),
        ("/a;v=1,2:@!$&'()*+=", "/a;v=1,2:@!$&'()*+="),
        ("/%20%25%3F%23", "/%20%25%3F%23"),
        ("/https://a/b", "/https:/a/b"),
    ];
    for (target, expected) in rows {
        let normal = origin(target);
        assert_eq!(normal.as_deref(), Ok(expected), "{target:?}");
        let borrowed = matches!(normal, Ok(Cow::Borrowed(_)));
        assert_eq!(
            borrowed,
            target == expected,
            "{target:?} is copied for nothing"
        );
    }
}

#[test]
fn refused_paths() {
    let rows = [
        ("", "neither a path"),
        ("a", "neither a path"),
        ("?a", "neither a path"),
        ("/..", "above its root"),
        ("/a/../..", "above its root"),
        ("/%2e%2e/a", "above its root"),
        ("//../a", "above its root"),
        ("/a/..;/b", "with parameters"),
        ("/a/.;x/b", "with parameters"),
        ("/a/%2E%2e;x", "with parameters"),
        ("/a%2Fb", "encoded slash"),
        ("/a%2fb", "encoded slash"),
        ("/a%5Cb", "backslash"),
        ("/a\\b", "backslash"),
        ("/a%00", "NUL"),
        ("/%", "percent sign"),
        ("/%4", "percent sign"),
        ("/%zz", "percent sign"),
        ("/%+1", "percent sign"),
        ("/?%g0", "percent sign"),
        ("/?a%", "percent sign"),
        ("/a#b", "fragment"),
        ("/?a#b", "fragment"),
        ("/\u{e4}", "no target may have"),
        ("/a b", "no target may have"),
        ("/?a b", "no target may have"),
        ("/\u{7f}", "no target may have"),
    ];
    for (target, rule) in rows {
        let refused = origin(target).expect_err(target);
        assert!(refused.contains(rule), "{target:?}: {refused}");
    }
}

#[test]
fn hosts() {
    let rows = [
        ("shop", "shop"),
        ("Shop.Example.", "shop.example"),
        ("shop.example:8080", "shop.example:8080"),
        ("shop.:8080", "shop:8080"),
        ("shop:", "shop"),
        ("shop:0080", "shop:80"),
        ("shop:80", "shop:80"),
        ("a_b-c~d.e", "a_b-c~d.e"),
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]:80"),
        ("[2001:DB8:0:0:0:0:0:1]:443", "[2001:db8::1]:443"),
        ("10a", "10a"),
    ];
    for (value, expected) in rows {
        let normal = host(value.as_bytes());
        assert_eq!(normal.as_deref(), Ok(expected), "{value:?}");
        let borrowed = matches!(normal, Ok(Cow::Borrowed(_)));
        assert_eq!(
            borrowed,
            value == expected,
            "{value:?} is copied for nothing"
        );
    }
}

#[test]
fn refused_hosts() {
    let rows: [&[u8]; 27] = [
        b"",
        b".",
        b":80",
        b"a..b",
        b".a",
        b"u@a",
        b"u:p@a",
        b"a/b",
        b"a,b",
        b"a, b",
        b"a b",
        b"a\\b",
        b"a?b",
        b"a#b",
        b"a%41",
        b"\xc3\xa4",
        b"a:b",
        b"a:0",
        b"a:65536",
        b"a:+80",
        b"a:80:80",
        b"1.2.3",
        b"256.0.0.1",
        b"0x7f.1",
        b"[::1",
        b"[::1]a",
        b"[fe80::1%25eth0]",
    ];
    for value in rows {
        let text = String::from_utf8_lossy(value);
        assert!(host(value).is_err(), "{text:?}: {:?}", host(value));
    }
    assert!(authority("a").is_err(), "a CONNECT needs a port");
    assert_eq!(authority("A:443").as_deref(), Ok("a:443"));
}

proptest! {
    #[test]
    fn what_is_normal_stays_so(target in "/([a-zA-Z.%;/\\\\?{|#]|%[0-9a-fA-F]{2}|\\.\\.?/){0,12}") {
        if let Ok(normal) = origin(&target) {
            let again = origin(&normal);
            prop_assert_eq!(again.as_deref(), Ok(&*normal));
            prop_assert!(matches!(again, Ok(Cow::Borrowed(_))));
            let path = normal.split('?').next().unwrap_or_default();
            let has = |part: &str| path.contains(part);
            prop_assert!(!has("//") && !has("/./") && !has("/../") && !path.ends_with("/.."));
            prop_assert!(path.starts_with('/') && !has("%2F") && !has("%2E") && !has("\\"));
        }
    }

    #[test]
    fn what_is_a_normal_host_stays_so(value in "[a-zA-Z0-9.:\\[\\]_%@,-]{0,14}(:[0-9]{1,5})?") {
        if let Ok(normal) = host(value.as_bytes()) {
            prop_assert!(matches!(host(normal.as_bytes()), Ok(Cow::Borrowed(_))), "{}", normal);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = host(&bytes);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = origin(text);
            let _ = authority(text);
        }
    }
}
