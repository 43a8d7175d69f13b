use super::*;
use crate::error::{DecisionId, Reason};
use crate::http::neutral::Request;
use ringmail_proto::ext_authz::{BoolValue, HeaderValue, HttpStatus, QueryParameter, Status};

fn header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        ..HeaderValueOption::default()
    }
}

fn said(code: Option<i32>, http: Option<HttpResponse>) -> Result<Answer, &'static str> {
    let status = code.map(|code| Status {
        code,
        message: String::new(),
    });
    meaning(CheckResponse {
        status,
        http_response: http,
    })
}

fn ok(said: OkHttpResponse) -> Option<HttpResponse> {
    Some(HttpResponse::OkResponse(said))
}

fn denied(said: DeniedHttpResponse) -> Option<HttpResponse> {
    Some(HttpResponse::DeniedResponse(said))
}

#[test]
fn what_does_not_clearly_allow_refuses() {
    let check = |code, http, expected: Result<bool, ()>| {
        let found = said(code, http).map(|answer| matches!(answer, Answer::Allowed { .. }));
        assert_eq!(found.map_err(drop), expected, "{code:?}");
    };
    check(Some(0), None, Ok(true));
    check(Some(0), ok(OkHttpResponse::default()), Ok(true));
    check(None, ok(OkHttpResponse::default()), Ok(true));
    check(Some(7), None, Ok(false));
    check(Some(-1), None, Ok(false));
    check(Some(7), ok(OkHttpResponse::default()), Ok(false));
    check(Some(7), denied(DeniedHttpResponse::default()), Ok(false));
    check(Some(0), denied(DeniedHttpResponse::default()), Ok(false));
    check(None, denied(DeniedHttpResponse::default()), Ok(false));
    check(None, None, Err(()));
    assert!(read(b"\xff").is_err());
}

#[test]
fn what_it_may_not_change_makes_it_no_answer() {
    let changes = |change: fn(&mut OkHttpResponse)| {
        let mut response = OkHttpResponse::default();
        change(&mut response);
        said(Some(0), ok(response)).err()
    };
    for name in [
        "x-ringmail-reason",
        ":path",
        "Host",
        "Content-Length",
        "transfer-encoding",
        "connection",
        "te",
        "upgrade",
        "",
        "a b",
    ] {
        let response = OkHttpResponse {
            headers: vec![header(name, "1")],
            ..OkHttpResponse::default()
        };
        assert!(said(Some(0), ok(response)).is_err(), "{name:?}");
        let response = OkHttpResponse {
            response_headers_to_add: vec![header(name, "1")],
            ..OkHttpResponse::default()
        };
        assert!(said(Some(0), ok(response)).is_err(), "{name:?}");
    }
    assert!(changes(|one| one.headers = vec![header("a", "1\r\nb: 2")]).is_some());
    assert!(changes(|one| one.headers = vec![HeaderValueOption::default()]).is_some());
    assert!(changes(|one| one.headers = vec![header("a", "1"); EDITS_MAX + 1]).is_some());
    assert!(changes(|one| one.query_parameters_to_remove = vec!["a".to_owned()]).is_some());
    assert!(changes(|one| one.query_parameters_to_set = vec![QueryParameter::default()]).is_some());
    assert!(changes(|one| one.headers = vec![header("a", "1"); EDITS_MAX]).is_none());
}

#[test]
fn changes_are_as_envoy_has_them() {
    let with = |append: Option<bool>, action: AppendAction| HeaderValueOption {
        append: append.map(|value| BoolValue { value }),
        append_action: action.into(),
        ..header("X-A", " 1 ")
    };
    use AppendAction::{
        AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists, OverwriteIfExistsOrAdd,
    };
    for (append, action, of_request, of_response) in [
        (None, AppendIfExistsOrAdd, How::Set, How::Append),
        (Some(false), AppendIfExistsOrAdd, How::Set, How::Set),
        (Some(true), AppendIfExistsOrAdd, How::Append, How::Append),
        (None, AddIfAbsent, How::IfAbsent, How::IfAbsent),
        (None, OverwriteIfExistsOrAdd, How::Set, How::Set),
        (None, OverwriteIfExists, How::IfPresent, How::IfPresent),
    ] {
        let response = OkHttpResponse {
            headers: vec![with(append, action)],
            headers_to_remove: ["b", "host", ":path", "x-ringmail-peer"]
                .map(str::to_owned)
                .to_vec(),
            response_headers_to_add: vec![with(append, action)],
            ..OkHttpResponse::default()
        };
        let edit = |how| Edit {
            name: "x-a".to_owned(),
            value: b"1".to_vec(),
            how,
        };
        let expected = Answer::Allowed {
            request: Edits {
                coming: vec![edit(of_request)],
                removed: vec!["b".to_owned()],
            },
            response: Edits {
                coming: vec![edit(of_response)],
                removed: Vec::new(),
            },
        };
        assert_eq!(
            said(Some(0), ok(response)),
            Ok(expected),
            "{append:?} {action:?}"
        );
    }
}

/// A refusal as its client is told.
fn told(response: DeniedHttpResponse, is_grpc: bool) -> (u16, Vec<(String, String)>, bool) {
    let Ok(Answer::Denied(Some(denial))) = said(Some(7), denied(response)) else {
        unreachable!("it is a denial");
    };
    let refused = Error::from(Reason::AuthorizerDenied).decided(DecisionId::from_bytes(&[1; 8]));
    let (head, has_body) = denial.head(&refused, is_grpc);
    let (response, fields) = Response::decode(&head).expect("a head");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = fields
        .into_iter()
        .map(|(name, value)| (text(name), text(value)));
    (response.status, fields.collect(), has_body)
}

#[test]
fn a_client_is_told_what_the_authorizer_says() {
    let response = |code, body: &str| DeniedHttpResponse {
        status: Some(HttpStatus { code }),
        headers: vec![
            header("location", "/login"),
            header("Set-Cookie", "a"),
            header("Set-Cookie", "b"),
            header("content-length", "9"),
            header("x-ringmail-a", "b"),
        ],
        body: body.to_owned(),
    };
    let of_refusal = [
        ("x-ringmail-reason", "authorizer_denied"),
        ("x-ringmail-decision", "0101010101010101"),
    ];
    let check = |code, body, is_grpc, expected: (u16, &[(&str, &str)], bool)| {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let (status, fields, has_body) = expected;
        let fields = fields.iter().chain(&of_refusal).map(own).collect();
        assert_eq!(
            told(response(code, body), is_grpc),
            (status, fields, has_body),
            "{code} {body}"
        );
    };
    let location = ("location", "/login");
    let (one, two) = (("set-cookie", "a"), ("set-cookie", "b"));
    let plain = ("content-type", "text/plain");
    check(
        302,
        "",
        false,
        (302, &[location, one, two, ("content-length", "0")], false),
    );
    check(
        401,
        "no!",
        false,
        (
            401,
            &[location, one, two, plain, ("content-length", "3")],
            true,
        ),
    );
    check(204, "no!", false, (204, &[location, one, two], false));
    for odd in [0, 101, -1, 600, 70_000] {
        check(
            odd,
            "",
            false,
            (403, &[location, one, two, ("content-length", "0")], false),
        );
    }
    let grpc = ("content-type", "application/grpc");
    let message = ("grpc-message", "50%25%0A%C3%A4");
    for (status, code) in [(403, "7"), (401, "16"), (200, "7"), (503, "14")] {
        let fields = [location, one, two, grpc, ("grpc-status", code), message];
        check(status, "50%\n\u{e4}", true, (200, &fields, false));
    }
}

#[test]
fn a_request_with_all_changes_is_still_one() {
    let response = OkHttpResponse {
        headers: vec![header("a", "1"); EDITS_MAX],
        ..OkHttpResponse::default()
    };
    let Ok(Answer::Allowed { request, .. }) = said(Some(0), ok(response)) else {
        unreachable!("it is allowed");
    };
    let mut head = Vec::new();
    let line = Request {
        version: Version::Http11,
        upgrade: false,
        method: "GET",
        target: "/",
    };
    line.encode(&mut head);
    request.put(Fields::NONE, &mut head);
    assert!(Request::decode(&head).is_ok());
}
