//! How paths, messages and compressions are written.

use super::{Habits, PATH, Post, deflate, gzip, zlib};
use crate::harness::{RawConnection, click};

/// Content-Encodings, what is sent, its bytes, and the answer.
type Refused = (
    &'static [&'static str],
    &'static str,
    Vec<u8>,
    (u16, &'static str),
);

#[tokio::test]
async fn a_path_is_found_in_each_of_its_spellings() {
    let mut habits = Habits::start().await;
    for target in [
        "/v1/interactions/",
        "/v1/interactions//",
        "//v1/interactions",
        "/v1//interactions/",
        "/v1/%69nteractions",
        "/%76%31/interactions",
        "http://test/v1/interactions",
        "http://test:8080/v1/interactions/",
        "HTTP://other.example//v1/interactions",
        "/v1/interactions/?ack=committed",
        "/v1/interactions?",
    ] {
        let post = Post::of(target).line(format!("POST {target} HTTP/1.1"));
        habits.takes(post, 1).await;
    }
    for target in [
        "/v1/interactions/x", "/v1%2Finteractions", "/V1/interactions", "/v1/interactions%20",
        "/interactions",
    ] {
        let post = Post::of(target).line(format!("POST {target} HTTP/1.1"));
        habits.refuses(post, (404, "not_found")).await;
    }
    // Other methods, too.
    for target in [
        PATH, "/v1/interactions/", "//v1/exposures", "/v1/%65xposures",
    ] {
        let post = Post::of(target).line(format!("PUT {target} HTTP/1.1"));
        let reply = habits.refuses(post, (405, "method_not_allowed")).await;
        assert_eq!(reply.header("allow"), "POST, OPTIONS", "{target}");
    }
    for (target, status) in [
        ("/healthz", 200),
        ("/healthz/", 200),
        ("/readyz/?verbose", 200),
        ("/metrics/", 200),
        ("/openapi.json/", 200),
        ("http://test/healthz/", 200),
        // What a proxy in front hides by its path stays hidden.
        ("//metrics", 404),
        ("/%6detrics", 404),
    ] {
        let get = Post::of(target)
            .line(format!("GET {target} HTTP/1.1"))
            .body("");
        let reply = habits.send(&get).await;
        assert_eq!(reply.status, status, "{target}: {}", reply.text);
    }
    // One path is one label.
    let label = "recsys_ingest_requests_total{route=\"/v1/interactions\",status=\"200\"}";
    assert_eq!(habits.service.metric(label).await, 11.0);
}

#[tokio::test]
async fn http_1_0_is_spoken() {
    let mut habits = Habits::start().await;
    let line = format!("POST {PATH} HTTP/1.0");
    for (n, keeps) in [false, true, false, true].into_iter().enumerate() {
        let mut post = Post::of(format!("old {n}")).line(&line);
        if n < 2 {
            post = post.without("host");
        }
        if keeps {
            post = post.header("connection", "Keep-Alive");
        }
        let mut connection = RawConnection::open(habits.service.client().address).await;
        connection.write(&post.bytes()).await;
        let reply = connection.reply().await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        habits.stored += 1;
        habits.counts("old").await;
        if keeps {
            assert!(
                reply
                    .header("connection")
                    .eq_ignore_ascii_case("keep-alive")
            );
            connection.write(b"GET /healthz HTTP/1.0\r\n\r\n").await;
            let reply = connection.reply().await;
            assert_eq!((reply.status, &*reply.text), (200, "ok"));
        }
        assert_eq!(connection.read_to_end().await, "");
    }
    // Without a key, a refusal, and a method that is not there.
    let post = Post::of("x").line(&line).without("x-api-key");
    habits.refuses(post, (401, "missing_api_key")).await;
    let post = Post::of("x").line(format!("PUT {PATH} HTTP/1.0"));
    habits.refuses(post, (405, "method_not_allowed")).await;
    // 1.0 knows no interim answers.
    let post = Post::of("expect")
        .line(&line)
        .header("expect", "100-continue");
    habits.takes(post, 1).await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it_in_any_case() {
    let mut habits = Habits::start().await;
    for expect in ["100-continue", "100-Continue", "100-CONTINUE"] {
        let post = Post::of(expect).header("expect", expect);
        let bytes = post.bytes();
        let (head, body) = bytes.split_at(bytes.len() - post.body.len());
        let mut connection = RawConnection::open(habits.service.client().address).await;
        connection.write(head).await;
        let interim = connection.interim().await;
        assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
        connection.write(body).await;
        assert_eq!(connection.reply().await.status, 200, "{expect}");
        habits.stored += 1;
        habits.counts(expect).await;
        // A refusal comes instead.
        let post = Post::of(expect)
            .without("x-api-key")
            .header("expect", expect);
        let bytes = post.bytes();
        let mut connection = RawConnection::open(habits.service.client().address).await;
        connection
            .write(&bytes[..bytes.len() - post.body.len()])
            .await;
        assert_eq!(connection.reply().await.status, 401, "{expect}");
    }
}

#[tokio::test]
async fn compressions_are_taken_as_they_are_written() {
    let mut habits = Habits::start().await;
    let padded = |bytes: &[u8]| [gzip(bytes), vec![0; 512]].concat();
    let members = |bytes: &[u8]| {
        let (a, b) = bytes.split_at(bytes.len() / 2);
        [gzip(a), vec![0; 3], gzip(b), gzip(b""), vec![0; 1]].concat()
    };
    let plain = |bytes: &[u8]| bytes.to_vec();
    let taken: [(&[&str], &str, Vec<u8>); _] = [
        (
            &["gzip"],
            "padding",
            padded(click("padding").to_string().as_bytes()),
        ),
        (
            &["gzip"],
            "members",
            members(click("members").to_string().as_bytes()),
        ),
        (
            &["X-GZip"],
            "case",
            gzip(click("case").to_string().as_bytes()),
        ),
        (
            &["identity"],
            "identity",
            plain(click("identity").to_string().as_bytes()),
        ),
        (
            &["Identity"],
            "Identity",
            plain(click("Identity").to_string().as_bytes()),
        ),
        (&[""], "empty", plain(click("empty").to_string().as_bytes())),
        (
            &[" , "],
            "commas",
            plain(click("commas").to_string().as_bytes()),
        ),
        (
            &["identity, gzip"],
            "a list",
            gzip(click("a list").to_string().as_bytes()),
        ),
        (
            &["gzip,identity"],
            "another",
            gzip(click("another").to_string().as_bytes()),
        ),
        (
            &["", "gzip"],
            "two headers",
            gzip(click("two headers").to_string().as_bytes()),
        ),
        (
            &["Deflate"],
            "zlib",
            zlib(click("zlib").to_string().as_bytes()),
        ),
        (
            &["deflate"],
            "raw",
            deflate(click("raw").to_string().as_bytes()),
        ),
    ];
    for (encodings, what, body) in taken {
        let mut post = Post::of(what).body(body);
        for encoding in encodings {
            post = post.header("content-encoding", encoding);
        }
        habits.takes(post, 1).await;
    }
    let body = click("x").to_string();
    let body = body.as_bytes();
    let damaged = (400, "invalid_compression");
    let unknown = (415, "unsupported_encoding");
    let refused: [Refused; _] = [
        (
            &["gzip"],
            "garbage behind it",
            [gzip(body), b"x".to_vec()].concat(),
            damaged,
        ),
        (
            &["gzip"],
            "garbage behind padding",
            [gzip(body), b"\0\0x".to_vec()].concat(),
            damaged,
        ),
        (&["gzip"], "padding alone", vec![0; 512], damaged),
        (
            &["gzip"],
            "padding before it",
            [vec![0], gzip(body)].concat(),
            damaged,
        ),
        (
            &["gzip"],
            "a member cut off",
            gzip(body)[..20].to_vec(),
            damaged,
        ),
        (
            &["gzip"],
            "a second one cut off",
            [gzip(body), gzip(body)[..9].to_vec()].concat(),
            damaged,
        ),
        (&["gzip, gzip"], "twice", gzip(&gzip(body)), unknown),
        (&["gzip", "br"], "two", gzip(body), unknown),
        (&["utf-8"], "a charset", body.to_vec(), unknown),
    ];
    for (encodings, what, body, answer) in refused {
        let mut post = Post::of(what).body(body);
        for encoding in encodings {
            post = post.header("content-encoding", encoding);
        }
        habits.refuses(post, answer).await;
    }
    // An empty body is none, under any label.
    for encoding in ["gzip", "deflate", "zstd", "br", "identity", ""] {
        let post = Post::of(encoding)
            .header("content-encoding", encoding)
            .body("");
        habits.refuses(post, (400, "no_events")).await;
    }
    // Padding that comes in pieces, and alone.
    let zipped = gzip(click("pieces").to_string().as_bytes());
    let mut connection = RawConnection::open(habits.service.client().address).await;
    let headers = [
        ("transfer-encoding", "chunked"),
        ("content-encoding", "gzip"),
    ];
    connection.send_head(PATH, &headers).await;
    for piece in [&zipped[..7], &zipped[7..], b"\0", b"\0\0"] {
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        connection.write(&chunk).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    connection.write(b"0\r\n\r\n").await;
    assert_eq!(connection.reply().await.status, 200);
    habits.stored += 1;
    habits.counts("pieces").await;
}
