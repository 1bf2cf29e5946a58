//! What bodies are labelled, and what they begin with.

use serde_json::json;

use super::{Habits, Post, gzip};
use crate::harness::click;

const MARK: &str = "\u{feff}";
const FORM: &str = "application/x-www-form-urlencoded";
const MEDIA_TYPE: (u16, &str) = (415, "unsupported_media_type");
const CHARSET: (u16, &str) = (415, "unsupported_charset");

/// One event over several lines: a document, and not lines.
fn document(name: &str) -> String {
    serde_json::to_string_pretty(&click(name)).unwrap()
}

/// Two events a line: lines, and not a document.
fn lines(name: &str) -> String {
    format!(
        "{}\n{}\r\n",
        click(&format!("{name} 1")),
        click(&format!("{name} 2"))
    )
}

#[tokio::test]
async fn every_label_of_json_is_taken() {
    let mut habits = Habits::start().await;
    for kind in [
        "application/json",
        "Application/JSON",
        " application/json ",
        "application/json;charset=utf-8",
        "application/json ; Charset=\"UTF-8\" ; x=\"a;b,c\"",
        "application/json; charset=us-ascii",
        "application/json; charset=",
        "application/json;",
        "text/json",
        "text/x-json; charset=utf8",
        "application/x-json",
        "application/vnd.api+json",
        "application/ld+json; profile=\"x\"",
        "application/CloudEvents+JSON; charset=UTF-8",
        "application/json, application/json",
        "application/json, text/json; charset=utf-8",
    ] {
        let post = Post::of(kind).header("content-type", kind);
        habits
            .takes(post.body(document(&format!("{kind:?}"))), 1)
            .await;
        let post = Post::of(kind).header("content-type", kind);
        let refused = habits
            .refuses(post.body(lines("x")), (400, "malformed_body"))
            .await;
        assert!(refused.text.contains("application/x-ndjson"), "{kind}");
    }
    for kind in [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
        "application/json-lines",
        "application/x-json-lines",
        "application/x-ldjson",
        "application/stream+json",
        "text/x-ndjson",
        "text/jsonl; charset=utf-8",
        "TEXT/NDJSON",
    ] {
        let post = Post::of(kind).header("content-type", kind);
        habits
            .takes(post.body(lines(&format!("{kind:?}"))), 2)
            .await;
    }
    for kind in [
        "",
        " ",
        "text/plain",
        "Text/Plain;charset=UTF-8",
        ";charset=utf-8",
        FORM,
    ] {
        for (n, body) in [
            (1, document(&format!("{kind:?}"))),
            (2, lines(&format!("{kind:?}"))),
        ] {
            let post = Post::of(kind).header("content-type", kind);
            habits.takes(post.body(body), n).await;
        }
    }
    for (n, body) in [(1, document("no label")), (2, lines("no label"))] {
        habits.takes(Post::of("no label").body(body), n).await;
    }
}

#[tokio::test]
async fn a_label_that_is_not_taken_is_named() {
    let mut habits = Habits::start().await;
    let cases: [(&[&str], (u16, &str), &str); _] = [
        (&["text/html"], MEDIA_TYPE, "'text/html'"),
        (&["application/jsonx"], MEDIA_TYPE, "'application/jsonx'"),
        (
            &["application/json-seq"],
            MEDIA_TYPE,
            "'application/json-seq'",
        ),
        (
            &["application/octet-stream"],
            MEDIA_TYPE,
            "'application/octet-stream'",
        ),
        (&["image/json"], MEDIA_TYPE, "'image/json'"),
        (&["json"], MEDIA_TYPE, "'json'"),
        (&["application/json\u{e9}"], MEDIA_TYPE, "application/json"),
        (&["multipart/form-data; boundary=x"], MEDIA_TYPE, "FormData"),
        (&["application/json; charset=utf-16"], CHARSET, "'utf-16'"),
        (
            &["application/json;charset=\"ISO-8859-1\""],
            CHARSET,
            "'ISO-8859-1'",
        ),
        (
            &["text/plain; charset=windows-1252"],
            CHARSET,
            "'windows-1252'",
        ),
        (
            &["application/x-ndjson;CHARSET=latin1"],
            CHARSET,
            "'latin1'",
        ),
        (
            &["application/json", "application/x-ndjson"],
            MEDIA_TYPE,
            "'application/json' and 'application/x-ndjson'",
        ),
        (
            &["application/json, text/plain, */*"],
            MEDIA_TYPE,
            "'application/json' and 'text/plain'",
        ),
        (
            &["text/html", "application/json"],
            MEDIA_TYPE,
            "'text/html'",
        ),
    ];
    for (kinds, answer, named) in cases {
        let mut post = Post::of(kinds.join(" + "));
        for kind in kinds {
            post = post.header("content-type", kind);
        }
        let reply = habits.refuses(post, answer).await;
        let detail = reply.json["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{kinds:?}: {detail}");
    }
    // The same twice is no contradiction.
    let post = Post::of("twice").header("content-type", "application/json");
    habits
        .takes(post.header("content-type", "text/json"), 1)
        .await;
    let post = Post::of("one is empty").header("content-type", "");
    habits
        .takes(post.header("content-type", "application/json"), 1)
        .await;
}

#[tokio::test]
async fn a_form_is_taken_if_it_is_json_by_another_name() {
    let mut habits = Habits::start().await;
    let array = |name: &str| json!([click(name)]).to_string();
    for (what, body, events) in [
        ("curl -d of an object", click("curl -d").to_string(), 1),
        ("of an array", array("an array"), 1),
        (
            "of an envelope",
            json!({"events": [click("e1"), click("e2")]}).to_string(),
            2,
        ),
        ("of lines", lines("form"), 2),
        (
            "behind white space",
            format!(" \r\n\t{}", array("space")),
            1,
        ),
        ("behind a mark", format!("{MARK} {}", array("mark")), 1),
    ] {
        let post = Post::of(what).header("content-type", format!("{FORM}; charset=UTF-8"));
        habits.takes(post.body(&body), events).await;
        // Other events, compressed.
        let body = body.replace("\"event_id\":\"", "\"event_id\":\"gzip ");
        let post = Post::of(what).header("content-type", FORM);
        let post = post
            .header("content-encoding", "gzip")
            .body(gzip(body.as_bytes()));
        habits.takes(post, events).await;
    }
    for (what, body, answer) in [
        ("URLSearchParams", "a=1&b=2", MEDIA_TYPE),
        ("an encoded object", "%7B%22a%22%3A1%7D", MEDIA_TYPE),
        ("a field with JSON", "data={\"a\":1}", MEDIA_TYPE),
        ("a number", "7", MEDIA_TYPE),
        ("nothing", "", (400, "no_events")),
        ("a space", " ", (400, "no_events")),
        ("broken JSON", "{\"a\"", (400, "malformed_body")),
    ] {
        let post = Post::of(what).header("content-type", FORM);
        let reply = habits.refuses(post.body(body), answer).await;
        let told =
            reply.text.contains("URLSearchParams") && reply.text.contains("application/json");
        assert_eq!(told, answer == MEDIA_TYPE, "{what}: {}", reply.text);
        let post = Post::of(what).header("content-type", FORM);
        let post = post
            .header("content-encoding", "gzip")
            .body(gzip(body.as_bytes()));
        habits.refuses(post, answer).await;
    }
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped_in_every_framing() {
    let mut habits = Habits::start().await;
    let mut n = 0;
    for encoded in [false, true] {
        for kind in [
            "application/json", "application/x-ndjson", "text/plain", FORM, "",
        ] {
            let json_only = kind == "application/json";
            let lines_only = kind == "application/x-ndjson";
            n += 1;
            let named = |part: &str| click(&format!("{part} {n}"));
            let array = json!([named("a"), named("b")]);
            let envelope = json!({"sent_at": "2026-03-10T08:00:00Z", "events": [named("c")]});
            let mut bodies = vec![(format!("{MARK}{}", named("one")), 1)];
            if !lines_only {
                bodies.push((format!("{MARK}\n {array:#}"), 2));
                bodies.push((format!("{MARK}{envelope:#}"), 1));
                bodies.push((format!("{MARK}{MARK}{}", named("two marks")), 1));
            }
            if !json_only {
                let files =
                    [named("d"), named("e"), named("f")].map(|event| format!("{MARK}{event}\n"));
                bodies.push((files.concat(), 3));
                bodies.push((format!("{MARK}\n{}\n{MARK}", named("g")), 1));
            }
            for (body, events) in bodies {
                let what = format!("{kind} {body:?}");
                let mut post = Post::of(what).header("content-type", kind).body(&body);
                if encoded {
                    post = post
                        .header("content-encoding", "gzip")
                        .body(gzip(body.as_bytes()));
                }
                habits.takes(post, events).await;
            }
            let mut post = Post::of("a mark alone")
                .header("content-type", kind)
                .body(MARK);
            if encoded {
                post = post
                    .header("content-encoding", "gzip")
                    .body(gzip(MARK.as_bytes()));
            }
            habits.refuses(post, (400, "no_events")).await;
        }
    }
    // Compressed files, one after the other.
    let files = ["h", "i"].map(|name| gzip(format!("{MARK}{}\n", click(name)).as_bytes()));
    let post = Post::of("members").header("content-type", "application/x-ndjson");
    let post = post.header("content-encoding", "gzip").body(files.concat());
    habits.takes(post, 2).await;
    // An offset counts from the body's first byte.
    let post = Post::of("an offset").header("content-type", "application/json");
    let reply = habits
        .refuses(post.body(format!("{MARK}{{}} x")), (400, "malformed_body"))
        .await;
    assert!(reply.text.contains("from byte 6 on"), "{}", reply.text);
}

#[tokio::test]
async fn another_encoding_than_utf8_is_named() {
    let mut habits = Habits::start().await;
    for (mark, has_mark) in [("", false), (MARK, true)] {
        let text = format!("{mark}{}", json!([click("é")]));
        let units: Vec<u16> = text.encode_utf16().collect();
        let chars: Vec<u32> = text.chars().map(u32::from).collect();
        let little = |bytes: &[u16]| {
            bytes
                .iter()
                .flat_map(|unit| unit.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let big = |bytes: &[u16]| {
            bytes
                .iter()
                .flat_map(|unit| unit.to_be_bytes())
                .collect::<Vec<u8>>()
        };
        for (name, body) in [
            ("UTF-16LE", little(&units)),
            ("UTF-16BE", big(&units)),
            (
                "UTF-32LE",
                chars.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
            ),
            (
                "UTF-32BE",
                chars.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
            ),
        ] {
            for kind in [
                "application/json", "application/x-ndjson", "text/plain", FORM, "",
            ] {
                let what = format!("{name}, {kind}, mark: {has_mark}");
                let post = Post::of(&what).header("content-type", kind).body(&body);
                let plain = habits.refuses(post, CHARSET).await;
                let post = Post::of(&what)
                    .header("content-type", kind)
                    .body(gzip(&body));
                let inflated = habits
                    .refuses(post.header("content-encoding", "gzip"), CHARSET)
                    .await;
                for reply in [plain, inflated] {
                    let detail = reply.json["detail"].as_str().unwrap();
                    assert!(
                        detail.contains(name) && detail.contains("UTF-8"),
                        "{what}: {detail}"
                    );
                }
            }
        }
    }
}
