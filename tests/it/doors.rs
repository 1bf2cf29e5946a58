//! Promise: no client can shut out another one by what it sends, does not send, or does not read.
//! Messages are parsed as RFC 9112 requires.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use recsys_ingest::tenants::role::Role;
use serde_json::json;

use crate::harness::{
    Client, Database, Process, RawConnection, Reply, Settings, click, eventually, key,
};

const INTERACTIONS: &str = "/v1/interactions";

/// A loopback address from which only attackers connect.
const STRANGER: &str = "127.0.0.2";

struct Served {
    process: Process,
    client: Client,
    database: Database,
}

async fn serve(change: impl FnOnce(Settings) -> Settings) -> Served {
    let database = Database::with_tenants().await;
    let (process, client) = Process::serve(&change(Settings::new(&database)));
    Served {
        process,
        client,
        database,
    }
}

impl Served {
    fn address(&self) -> SocketAddr {
        self.client.address
    }

    async fn connect(&self) -> RawConnection {
        RawConnection::open(self.address()).await
    }

    async fn post(&self, id: &str) -> Reply {
        let event = click(id);
        let post = self.client.post(INTERACTIONS, &event);
        tokio::time::timeout(Duration::from_secs(10), post)
            .await
            .expect("no answer to an honest client")
    }

    async fn closed_for(&self, cause: &str) -> f64 {
        let sample = format!("recsys_ingest_connections_closed_total{{cause=\"{cause}\"}}");
        self.sample(&sample).await
    }

    async fn sample(&self, sample: &str) -> f64 {
        let text = self.client.get("/metrics").await.text;
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
        found.unwrap_or(0.0)
    }
}

/// The head of a POST with the key of a role, and more headers.
fn head(role: Role, more: &str) -> String {
    format!(
        "POST {INTERACTIONS} HTTP/1.1\r\nhost: test\r\nx-api-key: {}\r\ncontent-type: application/json\r\n{more}\r\n",
        key("demo", role)
    )
}

/// An HTTP/2 connection with an initial window of `window` bytes; a task reads its frames.
async fn http2(address: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .handshake(stream)
        .await
        .unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

fn http2_post(role: Role, length: usize) -> axum::http::Request<()> {
    axum::http::Request::post(format!("http://test{INTERACTIONS}"))
        .header("x-api-key", key("demo", role))
        .header("content-type", "application/json")
        .header("content-length", length)
        .body(())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_were_announced_and_do_not_come_hold_no_memory() {
    let served = serve(|s| {
        s.with("--queue-bytes-max", "4MiB")
            .with("--body-bytes-max", "512KiB")
    })
    .await;
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut connection = served.connect().await;
        let head = head(Role::Publish, "content-length: 524288\r\n");
        connection.write(head.as_bytes()).await;
        connection.write(b"[").await;
        slow.push(connection);
    }
    // Time for the service to begin all of them.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for n in 0..20 {
        assert_eq!(served.post(&n.to_string()).await.settled(), (1, 0, 0, 0));
    }
    let large = json!({"pad": "x".repeat(400_000)});
    let reply = served.client.post(INTERACTIONS, &large).await;
    assert_eq!(reply.problem(), (422, "all_events_rejected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_end_hold_a_share_and_shut_out_their_own_key_alone() {
    let served = serve(|s| {
        s.with("--queue-bytes-max", "4MiB")
            .with("--body-bytes-max", "512KiB")
    })
    .await;
    let part = vec![b' '; 300_000];
    let mut slow = Vec::new();
    for n in 0..16 {
        let mut connection = served.connect().await;
        let head = head(Role::Publish, "content-length: 524288\r\n");
        connection.write(head.as_bytes()).await;
        connection.write(&part).await;
        slow.push(connection);
        // Otherwise the last of them may be read first.
        let bytes_min = 300_000.0 * f64::from(n.min(2) + 1);
        eventually("the body to be read", async || {
            served.sample("recsys_ingest_queue_bytes").await >= bytes_min
        })
        .await;
    }
    // One key may hold a quarter of the memory limit, 1 MiB: room for three of these bodies.
    let reply = slow.pop().unwrap().reply().await;
    assert_eq!(reply.problem(), (503, "too_many_slow_bodies"));
    assert!(reply.header("retry-after").parse::<u32>().unwrap() >= 1);
    let held = served.sample("recsys_ingest_queue_bytes").await;
    assert!((300_000.0..=1_100_000.0).contains(&held), "{held}");
    for n in 0..20 {
        assert_eq!(served.post(&n.to_string()).await.settled(), (1, 0, 0, 0));
    }
    let large = json!({"pad": "x".repeat(400_000)});
    let reply = served.client.post(INTERACTIONS, &large).await;
    assert_eq!(reply.problem(), (422, "all_events_rejected"));
    drop(slow);
    eventually("the share to be free", async || {
        served.sample("recsys_ingest_queue_bytes").await == 0.0
    })
    .await;
    let client = served.client.role("demo", Role::Publish);
    let reply = client.post(INTERACTIONS, &large).await;
    assert_eq!(reply.problem(), (422, "all_events_rejected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_slow_streams_of_one_connection_count_like_many_connections() {
    let served = serve(|s| {
        s.with("--queue-bytes-max", "4MiB")
            .with("--body-bytes-max", "512KiB")
    })
    .await;
    let mut client = http2(served.address(), 65_535).await;
    let (mut streams, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        client = client.ready().await.unwrap();
        let request = http2_post(Role::Publish, 524_288);
        let (answer, mut stream) = client.send_request(request, false).unwrap();
        stream
            .send_data(Bytes::from(vec![b' '; 4000]), false)
            .unwrap();
        streams.push(stream);
        answers.push(answer);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for n in 0..20 {
        assert_eq!(served.post(&n.to_string()).await.settled(), (1, 0, 0, 0));
    }
    let held = served.sample("recsys_ingest_queue_bytes").await;
    assert!(held <= 1_100_000.0, "{held}");
    // Streams beyond the share are refused at once.
    let mut refused = 0;
    for answer in answers {
        let answer = tokio::time::timeout(Duration::from_millis(100), answer).await;
        if let Ok(Ok(answer)) = answer {
            assert_eq!(answer.status(), 503);
            refused += 1;
        }
    }
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_is_408_however_short_its_pauses() {
    let served = serve(|s| s.with("--body-timeout", "700ms")).await;
    for announced in [true, false] {
        let mut drip = served.connect().await;
        let (framing, piece) = if announced {
            ("content-length: 100000\r\n", " ")
        } else {
            ("transfer-encoding: chunked\r\n", "1\r\n \r\n")
        };
        drip.write(head(Role::Publish, framing).as_bytes()).await;
        let started = Instant::now();
        while !drip.is_closed() {
            assert!(started.elapsed() < Duration::from_secs(15), "{framing}");
            drip.write(piece.as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let reply = drip.reply().await;
        assert_eq!(reply.problem(), (408, "body_timeout"));
        let detail = reply.json["detail"].as_str().unwrap();
        assert!(detail.contains("too slowly"), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_the_middle_of_a_body_leaves_the_connection_usable() {
    let served = serve(|s| s.with("--body-bytes-max", "2KiB")).await;
    let mut connection = served.connect().await;
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    for _ in 0..3 {
        let head = head(Role::Ingest, "transfer-encoding: chunked\r\n");
        connection.write(head.as_bytes()).await;
        for _ in 0..5 {
            connection.write(chunk.as_bytes()).await;
        }
        connection.write(b"0\r\n\r\n").await;
        assert_eq!(connection.reply().await.problem(), (413, "body_too_large"));
    }
    let body = click("a").to_string();
    let reply = connection.post(INTERACTIONS, &[], body.as_bytes()).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_announced_as_too_large_is_413_however_large() {
    let served = serve(|s| s).await;
    for bytes in [9u64 << 20, 20 << 20, 100 << 20, 1 << 40, u64::MAX / 2] {
        let mut connection = served.connect().await;
        let head = head(Role::Ingest, &format!("content-length: {bytes}\r\n"));
        connection.write(head.as_bytes()).await;
        let reply = connection.reply().await;
        assert_eq!(reply.problem(), (413, "body_too_large"), "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_send_nothing_shut_out_no_one() {
    let served = serve(|s| s.with("--connections-max", 20)).await;
    let mut silent = Vec::new();
    for source in [STRANGER, "127.0.0.3", "127.0.0.1"] {
        for n in 0..20 {
            let mut connection = RawConnection::open_from(source, served.address()).await;
            // Half of them as if they spoke HTTP/2.
            if n % 2 == 0 {
                connection.write(b"PRI * HTT").await;
            }
            silent.push(connection);
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    for n in 0..20 {
        assert_eq!(served.post(&n.to_string()).await.settled(), (1, 0, 0, 0));
        assert_eq!(served.client.get("/healthz").await.status, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(served.closed_for("evicted").await > 0.0);
    assert_eq!(served.sample("recsys_ingest_connections_max").await, 20.0);
    let log = served.process.log();
    assert_eq!(log.matches("--connections-max").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_come_ends_the_connection() {
    let served = serve(|s| s.with("--head-timeout", "500ms")).await;
    for beginning in [
        "",
        "PRI * HTT",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n",
        "POST /v1",
        "\r\n",
    ] {
        let mut connection = served.connect().await;
        connection.write(beginning.as_bytes()).await;
        let started = Instant::now();
        assert_eq!(connection.read_to_end().await, "", "{beginning}");
        assert!(started.elapsed() < Duration::from_secs(10), "{beginning}");
    }
    // The limit is for the whole head: one that keeps dripping in is ended too.
    let mut drip = served.connect().await;
    let started = Instant::now();
    drip.write(b"POST /v1/interactions HTTP/1.1\r\n").await;
    while !drip.is_closed() {
        assert!(started.elapsed() < Duration::from_secs(15));
        drip.write(b"x: y\r\n").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(served.closed_for("head_timeout").await, 6.0);
}

/// Opens connections with a request in progress that never ends.
async fn busy(source: &str, address: SocketAddr, count: usize) -> Vec<RawConnection> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut connection = RawConnection::open_from(source, address).await;
        let head = head(Role::Publish, "content-length: 100\r\n");
        connection.write(head.as_bytes()).await;
        all.push(connection);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_at_most_half_of_the_connections_unless_it_is_a_trusted_proxy() {
    let served = serve(|s| s.with("--connections-max", 20)).await;
    let held = busy(STRANGER, served.address(), 10).await;
    let mut more = RawConnection::open_from(STRANGER, served.address()).await;
    more.write(head(Role::Publish, "content-length: 2\r\n").as_bytes())
        .await;
    let reply = more.reply().await;
    assert_eq!(reply.problem(), (503, "too_many_connections"));
    assert!(reply.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(reply.header("connection"), "close");
    more.read_to_end().await;
    assert_eq!(served.post("a").await.settled(), (1, 0, 0, 0));
    assert!(served.process.log().contains(STRANGER));
    drop(held);
    eventually("the places to be free", async || {
        served.sample("recsys_ingest_connections").await <= 2.0
    })
    .await;
    let body = click("b").to_string();
    let mut again = RawConnection::open_from(STRANGER, served.address()).await;
    let reply = again.post(INTERACTIONS, &[], body.as_bytes()).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0));

    let served = serve(|s| {
        s.with("--connections-max", 20)
            .with("--trusted-proxies", "10.0.0.0/8, 127.0.0.2")
    })
    .await;
    let _held = busy(STRANGER, served.address(), 15).await;
    let mut more = RawConnection::open_from(STRANGER, served.address()).await;
    let reply = more.post(INTERACTIONS, &[], body.as_bytes()).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_cap_health_is_answered_and_the_rest_told_to_come_back() {
    let served = serve(|s| {
        s.with("--connections-max", 4)
            .with("--trusted-proxies", "127.0.0.0/8")
    })
    .await;
    let held = busy("127.0.0.1", served.address(), 4).await;
    // More connections than the places beyond the cap: the newest ones are answered.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(served.connect().await);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(served.client.get(path).await.status, 200, "{path}");
    }
    let reply = served.post("a").await;
    assert_eq!(reply.problem(), (503, "too_many_connections"));
    let started = Instant::now();
    for mut connection in silent {
        assert_eq!(connection.read_to_end().await, "");
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(served.closed_for("refused").await > 0.0);
    drop(held);
    eventually("a place", async || served.post("a").await.status == 200).await;
}

#[test]
fn a_bad_network_of_trusted_proxies_is_refused_with_a_sentence() {
    let database_url = "--database-url=postgres://localhost/x";
    let arguments = [
        "serve",
        database_url,
        "--api-key-hash-secret=x",
        "--exposure-hash-salt=x",
        "--trusted-proxies=10.0.0.0/8,10.0.0.1/24",
    ];
    let mut process = Process::run(arguments.map(Into::into));
    assert_eq!(process.wait().code(), Some(2));
    let log = process.log();
    assert!(
        log.contains("has bits beyond its prefix; write 10.0.0.0/24"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_end_the_connection() {
    let served = serve(|s| s.with("--write-timeout", "500ms")).await;
    let mut greedy = served.connect().await;
    // Far more than socket buffers hold.
    let get = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: test\r\n\r\n";
    greedy.write(get.repeat(40).as_bytes()).await;
    eventually("the connection to be given up", async || {
        served.closed_for("write_timeout").await == 1.0
    })
    .await;
    // A client that reads gets all its answers.
    let mut patient = served.connect().await;
    let get = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: test\r\n";
    for _ in 0..10 {
        patient.write(format!("{get}\r\n").as_bytes()).await;
        assert_eq!(patient.reply().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_answers_for_which_there_is_no_window_end_the_connection() {
    let served = serve(|s| s.with("--write-timeout", "500ms")).await;
    let mut client = http2(served.address(), 0).await;
    let mut answers = Vec::new();
    for _ in 0..60 {
        client = client.ready().await.unwrap();
        let request = http2_post(Role::Ingest, 2);
        let (answer, mut stream) = client.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(b"[]"), true).unwrap();
        answers.push(answer);
    }
    for answer in answers {
        // Flow-control windows do not apply to HEADERS.
        let mut body = answer.await.unwrap().into_body();
        let ended = tokio::time::timeout(Duration::from_secs(20), body.data()).await;
        assert!(ended.expect("the connection stays open").unwrap().is_err());
    }
    assert_eq!(served.closed_for("write_timeout").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_key_is_thrown_away_up_to_a_cap() {
    let served = serve(|s| s).await;
    let mut flood = served.connect().await;
    let request = format!(
        "POST {INTERACTIONS} HTTP/1.1\r\nhost: test\r\nx-api-key: wrong\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    flood.write(request.as_bytes()).await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(16);
    let (started, mut sent) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(20) && flood.try_write(chunk.as_bytes()).await {
        sent += chunk.len();
    }
    // The discarded bytes and what the socket buffers hold.
    assert!(sent < 64 << 20, "{} MiB", sent >> 20);
    assert_eq!(served.post("a").await.settled(), (1, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_held_back_is_asked_for_only_if_it_is_wanted() {
    let served = serve(|s| s).await;
    let body = click("a").to_string();
    let expect = format!("expect: 100-continue\r\ncontent-length: {}\r\n", body.len());
    let wrong = head(Role::Ingest, &expect).replace("ingest-key", "no-key");
    let large = head(
        Role::Ingest,
        "expect: 100-continue\r\ncontent-length: 20000000\r\n",
    );
    for (head, status) in [(wrong, "401"), (large, "413")] {
        let mut connection = served.connect().await;
        connection.write(head.as_bytes()).await;
        let text = connection.read_to_end().await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(text.contains("connection: close"), "{text}");
    }
    let mut connection = served.connect().await;
    connection
        .write(head(Role::Ingest, &expect).as_bytes())
        .await;
    let interim = connection.interim().await;
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    connection.write(body.as_bytes()).await;
    assert_eq!(connection.reply().await.settled(), (1, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_rfc_9112_forbids_is_refused_and_ends_its_connection() {
    let served = serve(|s| s).await;
    let get = "GET /healthz HTTP/1.1\r\n";
    for (request, status) in [
        (format!("{get}\r\n"), 400),
        (format!("{get}host: a\r\nhost: a\r\n\r\n"), 400),
        (format!("{get}host: a, b\r\n\r\n"), 400),
        (format!("{get}host: a\n\n"), 400),
        ("GET /healthz HTTP/1.1\nhost: a\r\n\r\n".to_owned(), 400),
        (format!("{get}host: a\r\n x: folded\r\n\r\n"), 400),
        (format!("{get}host : a\r\n\r\n"), 400),
        (
            format!("{get}host: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            501,
        ),
        (
            format!(
                "{get}host: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            501,
        ),
        (
            format!("{get}host: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"),
            400,
        ),
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), 200),
        // Both framings: the chunks count, and the connection is closed after the answer.
        (
            format!(
                "{get}host: a\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            200,
        ),
    ] {
        let mut connection = served.connect().await;
        connection.write(request.as_bytes()).await;
        let text = connection.read_to_end().await;
        let line = text.lines().next().unwrap_or_default();
        assert!(line.contains(&format!(" {status} ")), "{request:?}: {text}");
    }
    // Also on a kept connection, after valid requests.
    let mut kept = served.connect().await;
    for _ in 0..2 {
        kept.write(format!("{get}host: a\r\n\r\n").as_bytes()).await;
        assert_eq!(kept.reply().await.status, 200);
    }
    let body = "{\n}\n";
    let reply = kept.post(INTERACTIONS, &[], body.as_bytes()).await;
    assert_eq!(reply.problem(), (422, "all_events_rejected"));
    kept.write(format!("{get}host: a\n\r\n").as_bytes()).await;
    assert!(kept.read_to_end().await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_half_closes_after_its_request_gets_the_answer() {
    let served = serve(|s| s).await;
    let mut connection = served.connect().await;
    let body = click("a").to_string();
    let head = head(Role::Ingest, &format!("content-length: {}\r\n", body.len()));
    connection.write(head.as_bytes()).await;
    connection.write(body.as_bytes()).await;
    connection.end_writing().await;
    assert_eq!(connection.reply().await.settled(), (1, 0, 0, 0));
    assert_eq!(
        connection.read_to_end().await,
        "",
        "nothing stays half open"
    );
    assert_eq!(served.database.count("interaction_events").await, 1);
    // A half-close before the body: 400, and the connection ends too.
    let mut connection = served.connect().await;
    connection.write(head.as_bytes()).await;
    connection.end_writing().await;
    assert_eq!(connection.reply().await.problem(), (400, "body_incomplete"));
    connection.read_to_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let served = serve(|s| {
        s.with("--head-timeout", "300ms")
            .with("--idle-timeout", "60s")
    })
    .await;
    let body = click("a").to_string();
    let mut connection = served.connect().await;
    for _ in 0..2 {
        let reply = connection.post(INTERACTIONS, &[], body.as_bytes()).await;
        assert_eq!(reply.status, 200);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(!connection.is_closed());
    }
    let mut client = http2(served.address(), 65_535).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    client = client.ready().await.unwrap();
    let get = axum::http::Request::get("http://test/healthz")
        .body(())
        .unwrap();
    let (answer, _) = client.send_request(get, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_ends_in_time() {
    let served = serve(|s| s.with("--idle-timeout", "500ms")).await;
    let body = click("a").to_string();
    let mut connection = served.connect().await;
    let reply = connection.post(INTERACTIONS, &[], body.as_bytes()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(connection.read_to_end().await, "");
    let mut client = http2(served.address(), 65_535).await;
    let ended = async {
        while let Ok(ready) = client.ready().await {
            client = ready;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), ended)
        .await
        .expect("the connection stays open");
    assert_eq!(served.closed_for("idle").await, 2.0);
}

/// Sends HTTP/2 frames that no client library sends, after a valid preface and SETTINGS; returns
/// the bytes sent.
async fn frames(served: &Served, frame: &[u8], seconds: u64) -> (usize, RawConnection) {
    let mut connection = served.connect().await;
    connection.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    connection.write(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let many = frame.repeat((1 << 16) / frame.len());
    let (started, mut sent) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(seconds) && !connection.is_closed() {
        let write = connection.try_write(&many);
        match tokio::time::timeout(Duration::from_millis(500), write).await {
            Ok(true) => sent += many.len(),
            Ok(false) => break,
            Err(_) => {}
        }
    }
    (sent, connection)
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_http2_frames_take_no_memory() {
    let served = serve(|s| s).await;
    let before = served.process.memory("VmHWM");
    // A head that never ends: HEADERS without END_HEADERS, followed by CONTINUATION frames.
    let mut connection = served.connect().await;
    connection.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    connection.write(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    connection.write(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).await;
    let mut continuation = vec![0, 0x10, 0, 9, 0, 0, 0, 0, 1];
    continuation.extend([0x40, 1, b'a', 0x7f, 0x81, 0x1e]);
    continuation.resize(9 + 0x1000, b'b');
    let started = Instant::now();
    while !connection.is_closed() && connection.try_write(&continuation).await {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "an endless head"
        );
    }
    // PING and SETTINGS frames with answers that are not read: the service stops reading.
    for frame in [
        &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8][..],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
    ] {
        let (_, flood) = frames(&served, frame, 3).await;
        assert_eq!(served.post("a").await.status, 200);
        drop(flood);
    }
    let grown = served.process.memory("VmHWM") - before;
    assert!(grown < 64 << 20, "grew by {} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_at_once_leave_nothing() {
    let served = serve(|s| s).await;
    let before = served.process.memory("VmHWM");
    let mut client = http2(served.address(), 65_535).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        let Ok(ready) = client.clone().ready().await else {
            client = http2(served.address(), 65_535).await;
            continue;
        };
        client = ready;
        let request = http2_post(Role::Publish, 1000);
        if let Ok((_, mut stream)) = client.send_request(request, false) {
            stream.send_reset(h2::Reason::CANCEL);
        }
    }
    drop(client);
    assert_eq!(served.post("a").await.settled(), (1, 0, 0, 0));
    eventually("the memory", async || {
        served.sample("recsys_ingest_queue_bytes").await == 0.0
    })
    .await;
    let grown = served.process.memory("VmHWM") - before;
    assert!(grown < 64 << 20, "grew by {} MiB", grown >> 20);
}
