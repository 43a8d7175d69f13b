//! curl as clients use it: every version it speaks, and the corners of HTTP/1.1.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;

use super::desk::shown;
use super::{announce, play_at_desk, tools};

/// What is asked, and what curl must print.
struct Row {
    arguments: &'static [&'static str],
    path: &'static str,
    printed: &'static [&'static str],
}

const fn row(
    arguments: &'static [&'static str],
    path: &'static str,
    printed: &'static [&'static str],
) -> Row {
    Row {
        arguments,
        path,
        printed,
    }
}

/// Of an app that speaks HTTP/1 and HTTP/2, on a port that declares nothing.
const ROWS: &[Row] = &[
    row(&["--http1.0"], "/a", &["HTTP/1.1 200 OK", "GET /a\n"]),
    row(
        &["--http1.0", "--header", "Connection: keep-alive"],
        "/a",
        &["HTTP/1.1 200 OK", "onnection: keep-alive", "GET /a\n"],
    ),
    row(
        &["--http1.0", "--data", "abc"],
        "/a",
        &["POST /a\n", "\n\nabc"],
    ),
    row(
        &["--http1.1", "--head"],
        "/bytes/99",
        &["HTTP/1.1 200 OK", "ontent-length: 99"],
    ),
    row(
        &["--http2-prior-knowledge", "--head"],
        "/bytes/99",
        &["HTTP/2 200", "content-length: 99"],
    ),
    row(
        &["--http2-prior-knowledge"],
        "/a",
        &["HTTP/2 200", "GET http://", "/a\n"],
    ),
    // An offer that nobody has to take up.
    row(&["--http2"], "/a", &["HTTP/1.1 200 OK", "GET /a\n"]),
    row(
        &[
            "--verbose",
            "--header",
            "Expect: 100-continue",
            "--data",
            "abc",
        ],
        "/a",
        &["< HTTP/1.1 100 Continue", "HTTP/1.1 200 OK", "\n\nabc"],
    ),
    row(
        &[
            "--http2-prior-knowledge",
            "--header",
            "Expect: 100-continue",
            "--data",
            "abc",
        ],
        "/a",
        &["HTTP/2 200", "\n\nabc"],
    ),
    row(
        &["--header", "Transfer-Encoding: chunked", "--data", "abc"],
        "/a",
        &["HTTP/1.1 200 OK", "transfer-encoding: chunked", "\n\nabc"],
    ),
    row(
        &["--header", "TE: trailers"],
        "/trailers",
        &["ransfer-Encoding: chunked", "one,two", "x-checksum: 7"],
    ),
    row(
        &["--http2-prior-knowledge", "--header", "TE: trailers"],
        "/trailers",
        &["HTTP/2 200", "one,two", "x-checksum: 7"],
    ),
    row(&[], "/status/204", &["HTTP/1.1 204 No Content"]),
    row(&[], "/status/304", &["HTTP/1.1 304 Not Modified"]),
    row(
        &["--request", "OPTIONS", "--request-target", "*"],
        "/",
        &["HTTP/1.1 200 OK", "OPTIONS *\n"],
    ),
    row(&["--path-as-is"], "/a/../b//c/%2e%2e/d", &["GET /b/d\n"]),
    row(
        &["--header", "Host: a@b"],
        "/",
        &["HTTP/1.1 400 ", "x-ringmail-reason: malformed_request"],
    ),
    row(
        &["--header", "x-ringmail-peer: forged"],
        "/a",
        &["HTTP/1.1 200 OK", "GET /a\n"],
    ),
];

const REFUSES: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n";
/// A body larger than any buffer on its way.
const UPLOAD_BYTES: usize = 3_000_000;

pub(super) fn versions(bed: Bed) -> anyhow::Result<()> {
    play_at_desk(bed, |shop, desk| {
        let (web, refuses) = (9201, 9202);
        apps::serve_web(&shop.server.namespace, "curled", web)?;
        apps::serve_bytes(&shop.server.namespace, refuses, REFUSES)?;
        let to = announce(shop, 131, 80, web, None)?;
        let refusing = announce(shop, 132, 80, refuses, None)?;
        let curl = |to: SocketAddr, arguments: &[&str], path: &str| {
            let mut command = tools::command("curl")?;
            command
                .args(["--silent", "--show-error", "--include", "--max-time", "20"])
                .args(arguments)
                .arg(format!("http://{to}{path}"));
            let text = desk.output(&shop.client, &command)?.replace('\r', "");
            ensure!(!text.contains("forged"), "{}", shown(&text));
            Ok(text)
        };
        for Row {
            arguments,
            path,
            printed,
        } in ROWS
        {
            let text = curl(to, arguments, path)?;
            for part in *printed {
                ensure!(
                    text.contains(part),
                    "no {part:?}: curl {arguments:?} {path}:\n{}",
                    shown(&text)
                );
            }
        }
        let text = curl(
            refusing,
            &["--header", "Expect: 100-continue", "--data", "abc"],
            "/",
        )?;
        ensure!(
            text.contains("HTTP/1.1 403 ") && text.ends_with("no\n"),
            "{text}"
        );

        let file = desk.path("upload");
        std::fs::write(&file, vec![b'x'; UPLOAD_BYTES])?;
        let file = file.to_str().context("a name of ours")?;
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            for more in [&[][..], &["--header", "Transfer-Encoding: chunked"]] {
                let upload = [&[version, "--upload-file", file], more].concat();
                let text = curl(to, &upload, "/stream")?;
                let returned = text.bytes().rev().take_while(|b| *b == b'x').count();
                ensure!(returned == UPLOAD_BYTES, "{upload:?}: {returned} bytes");
            }
        }
        Ok(())
    })
}
