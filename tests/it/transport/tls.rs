//! HTTPS: what is spoken, which certificates are taken, and what a client that stalls costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use recsys_ingest::tenants::role::Role;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{BOTH, Certificates, Secure, client, get, post};
use crate::harness::{Database, Process, RawConnection, Settings, click, eventually};

const COMMITTED: &str = "/v1/interactions?ack=committed";

/// A service that speaks HTTPS, with its operators' listener for questions in clear text.
struct Served {
    process: Process,
    address: SocketAddr,
    operators: crate::harness::Client,
    _database: Database,
}

async fn serve(change: impl FnOnce(Settings) -> Settings) -> Served {
    let database = Database::with_tenants().await;
    let settings = change(Settings::new(&database)).with("--ops-listen", "127.0.0.1:0");
    let (process, client) = Process::serve(&settings);
    let listening = process.message("listening for operators");
    let operators = listening["address"].as_str().unwrap().parse().unwrap();
    Served {
        process,
        address: client.address,
        operators: crate::harness::Client::new(operators),
        _database: database,
    }
}

impl Served {
    async fn sample(&self, sample: &str) -> f64 {
        let text = self.operators.get("/metrics").await.text;
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
        found.unwrap_or(0.0)
    }

    async fn failures(&self, cause: &str) -> f64 {
        self.sample(&format!(
            "recsys_ingest_tls_handshake_failures_total{{cause=\"{cause}\"}}"
        ))
        .await
    }

    async fn closed_for(&self, cause: &str) -> f64 {
        self.sample(&format!(
            "recsys_ingest_connections_closed_total{{cause=\"{cause}\"}}"
        ))
        .await
    }

    /// Posts an event on a new connection; fails if it is not committed.
    async fn posts(&self, client: &Arc<ClientConfig>, id: &str) {
        let mut connection = Secure::open(self.address, client).await.unwrap();
        let body = click(id).to_string();
        let (head, body) = connection.send(&post(Role::Ingest, COMMITTED, &body)).await;
        assert!(head.starts_with("http/1.1 200"), "{head} {body}");
        assert!(
            head.contains("strict-transport-security: max-age=31536000"),
            "{head}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_key_serves_both_versions_of_tls_and_of_http() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    for (cert, key) in [
        ("pkcs8.crt", "pkcs8.key"),
        ("sec1.crt", "sec1.key"),
        ("rsa.crt", "rsa.key"),
        ("pkcs1.crt", "pkcs1.key"),
        ("ed.crt", "ed.key"),
        ("chain.crt", "pkcs8.key"),
        ("both.pem", "both.pem"),
    ] {
        let served = serve(|settings| certificates.on(settings, cert, key)).await;
        let ca = certificates.path("ca.crt");
        for versions in [&BOTH[..1], &BOTH[1..]] {
            for protocols in [&[][..], &["http/1.1"], &["http/1.0"]] {
                let client = client(&ca, protocols, versions);
                served.posts(&client, "a").await;
            }
            let client = client(&ca, &["h2", "http/1.1"], versions);
            let secure = Secure::open(served.address, &client).await.unwrap();
            assert_eq!(
                secure.0.get_ref().1.alpn_protocol(),
                Some(&b"h2"[..]),
                "{cert}"
            );
            let (h2, connection) = h2::client::handshake(secure.0).await.unwrap();
            tokio::spawn(connection);
            let request = axum::http::Request::get("https://localhost/healthz");
            let mut h2 = h2.ready().await.unwrap();
            let (reply, _) = h2.send_request(request.body(()).unwrap(), true).unwrap();
            let reply = reply.await.unwrap();
            assert_eq!(reply.status(), 200);
            assert!(reply.headers().contains_key("strict-transport-security"));
        }
        let unknown = client(&ca, &["spdy/3"], &BOTH);
        assert!(Secure::open(served.address, &unknown).await.is_err());
        assert_eq!(served.failures("incompatible").await, 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_ends_the_start_and_says_why() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let database = Database::with_tenants().await;
    for (cert, key, words) in [
        (
            "none.crt",
            "pkcs8.key",
            [
                "cannot read --tls-cert (INGEST_TLS_CERT)",
                "none.crt",
                "check the path",
            ],
        ),
        (
            "pkcs8.crt",
            "none.key",
            [
                "cannot read --tls-key (INGEST_TLS_KEY)",
                "none.key",
                "check the path",
            ],
        ),
        ("empty", "pkcs8.key", ["--tls-cert", "empty", "is empty"]),
        (
            "text",
            "pkcs8.key",
            ["--tls-cert", "text", "BEGIN CERTIFICATE"],
        ),
        (
            "pkcs8.crt",
            "text",
            ["--tls-key", "text", "holds no private key"],
        ),
        (
            "der.crt",
            "pkcs8.key",
            ["--tls-cert", "der.crt", "openssl x509 -inform DER"],
        ),
        (
            "pkcs8.crt",
            "der.key",
            ["--tls-key", "der.key", "openssl pkey -inform DER"],
        ),
        (
            "pkcs8.key",
            "pkcs8.crt",
            ["--tls-cert", "pkcs8.key", "swapped"],
        ),
        (
            "pkcs8.crt",
            "pkcs8.crt",
            ["--tls-key", "pkcs8.crt", "swapped"],
        ),
        (
            "pkcs8.crt",
            "encrypted.key",
            ["--tls-key", "encrypted.key", "decrypt it"],
        ),
        (
            "rsa.crt",
            "oldencrypted.key",
            ["--tls-key", "oldencrypted.key", "decrypt it"],
        ),
        (
            "pkcs8.crt",
            "next.key",
            ["pkcs8.crt", "next.key", "do not belong together"],
        ),
        (
            "rsa.crt",
            "pkcs8.key",
            ["rsa.crt", "pkcs8.key", "do not belong together"],
        ),
        (
            "reversed.crt",
            "pkcs8.key",
            ["reversed.crt", "certificate 2", "own certificate first"],
        ),
        ("p521.crt", "p521.key", ["--tls-key", "p521.key", "P-256"]),
    ] {
        let settings = certificates.on(Settings::new(&database), cert, key);
        let mut process = Process::run(settings.arguments());
        assert_eq!(process.wait().code(), Some(1), "{cert} {key}");
        let log = process.log();
        for word in words {
            assert!(log.contains(word), "{cert} {key}: no '{word}' in {log}");
        }
    }
    let cert = ("--tls-cert", "--tls-cert (INGEST_TLS_CERT)");
    let key = ("--tls-key", "--tls-key (INGEST_TLS_KEY)");
    for ((alone, named), (_, other)) in [(cert, key), (key, cert)] {
        let settings = Settings::new(&database).with(alone, "/x.pem");
        let mut process = Process::run(settings.arguments());
        assert_eq!(process.wait().code(), Some(1));
        let log = process.log();
        assert!(log.contains(&format!("{named} /x.pem needs")), "{log}");
        assert!(log.contains(&format!("give {other}, too")), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_over_and_a_broken_one_is_not() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    certificates.put("pkcs8.crt", "pkcs8.key");
    let served = serve(|settings| certificates.on(settings, "live.crt", "live.key")).await;
    let client = certificates.client(&[]);
    let shown = async || {
        let secure = Secure::open(served.address, &client).await.unwrap();
        secure.certificate()
    };
    let der = |file: &str| {
        use rustls::pki_types::pem::PemObject as _;
        let file = certificates.path(file);
        rustls::pki_types::CertificateDer::from_pem_file(file)
            .unwrap()
            .to_vec()
    };
    let mut kept = Secure::open(served.address, &client).await.unwrap();
    assert_eq!(shown().await, der("pkcs8.crt"));

    certificates.put("next.crt", "next.key");
    eventually("the new certificate", async || {
        shown().await == der("next.crt")
    })
    .await;
    let (head, _) = kept.send(&get("/healthz")).await;
    assert!(
        head.starts_with("http/1.1 200"),
        "the open connection goes on: {head}"
    );
    assert_eq!(kept.certificate(), der("pkcs8.crt"));

    let notes = async || {
        let readiness = served.operators.get("/readyz").await;
        assert_eq!(readiness.json["status"], "ready", "{}", readiness.text);
        readiness.json["notes"].to_string()
    };
    // Half of a pair, then no certificate at all.
    for (cert, key, why) in [
        ("rsa.crt", "next.key", "do not belong together"),
        ("text", "next.key", "BEGIN CERTIFICATE"),
    ] {
        certificates.put(cert, key);
        eventually(why, async || notes().await.contains(why)).await;
        assert_eq!(shown().await, der("next.crt"));
        eventually("it is logged", async || served.process.log().contains(why)).await;
        let log = served.process.log();
        assert_eq!(log.matches(why).count(), 1, "{log}");
    }
    std::fs::remove_file(certificates.path("live.key")).unwrap();
    eventually("a note", async || {
        notes().await.contains("cannot read --tls-key")
    })
    .await;

    // It expires within a week.
    certificates.put("soon.crt", "soon.key");
    eventually("a note", async || {
        let notes = notes().await;
        notes.contains("expires at") && !notes.contains("cannot")
    })
    .await;
    assert_eq!(shown().await, der("soon.crt"));
    served.posts(&client, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_do_not_come_end_in_time_and_shut_out_no_one() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let served = serve(|settings| {
        certificates
            .on(settings, "pkcs8.crt", "pkcs8.key")
            .with("--connections-max", 20)
            .with("--head-timeout", "3s")
    })
    .await;
    let client = certificates.client(&[]);
    let mut held = Vec::new();
    for source in ["127.0.0.2", "127.0.0.3"] {
        for n in 0..20 {
            let mut connection = RawConnection::open_from(source, served.address).await;
            // Half of them begin a handshake.
            if n % 2 == 0 {
                connection.write(&[0x16, 3, 1, 2, 0, 1]).await;
            }
            held.push(connection);
        }
    }
    // The first bytes of a connection are waited for.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for n in 0..10 {
        served.posts(&client, &n.to_string()).await;
    }
    for mut connection in held {
        assert_eq!(connection.read_to_end().await, "");
    }
    let ended = served.closed_for("head_timeout").await + served.closed_for("evicted").await;
    assert!(
        ended + served.closed_for("refused").await >= 40.0,
        "{ended}"
    );
    // One that drips has no more time than one that is silent.
    let mut drip = RawConnection::open(served.address).await;
    let started = Instant::now();
    drip.write(&[0x16, 3, 1, 2, 0]).await;
    while !drip.is_closed() {
        assert!(started.elapsed() < Duration::from_secs(15));
        drip.write(&[1]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        !served.process.log().contains("handshake"),
        "{}",
        served.process.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_tls_is_told_or_counted() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let served = serve(|settings| certificates.on(settings, "pkcs8.crt", "pkcs8.key")).await;
    let body = click("a").to_string();
    for request in [post(Role::Ingest, COMMITTED, &body), get("/healthz")] {
        let mut plain = RawConnection::open(served.address).await;
        plain.write(request.as_bytes()).await;
        let reply = plain.reply().await;
        assert_eq!(reply.problem(), (400, "https_required"), "{}", reply.text);
        assert!(reply.json["detail"].as_str().unwrap().contains("https://"));
        assert_eq!(reply.header("connection"), "close");
        assert_eq!(reply.header("strict-transport-security"), "");
        assert_eq!(plain.read_to_end().await, "");
    }
    let mut garbage = RawConnection::open(served.address).await;
    garbage.write(b"\x01\x02\x03garbage garbage garbage").await;
    garbage.read_to_end().await;
    let stranger = client(&certificates.path("stranger.crt"), &[], &BOTH);
    assert!(Secure::open(served.address, &stranger).await.is_err());
    drop(TcpStream::connect(served.address).await.unwrap());
    for cause in ["invalid", "certificate_refused", "closed"] {
        eventually(cause, async || served.failures(cause).await == 1.0).await;
    }
    // A client that begins in clear text is not stuck in the service.
    served.posts(&certificates.client(&[]), "b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_deadline_of_a_client_holds_under_tls() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let served = serve(|settings| {
        certificates
            .on(settings, "pkcs8.crt", "pkcs8.key")
            .with("--head-timeout", "1s")
            .with("--body-timeout", "1s")
            .with("--idle-timeout", "2s")
            .with("--write-timeout", "1s")
    })
    .await;
    let client = certificates.client(&[]);
    let open = async || Secure::open(served.address, &client).await.unwrap();

    // No head, half of a head, a bare line feed, a body that stops, no further request.
    assert!(open().await.ends().await);
    let mut half = open().await;
    half.0
        .write_all(b"POST /v1/interactions HTTP/1.1\r\nhost: x\r\n")
        .await
        .unwrap();
    assert!(half.ends().await);
    assert_eq!(served.closed_for("head_timeout").await, 2.0);
    let (head, _) = open()
        .await
        .send("GET /healthz HTTP/1.1\nhost: x\r\n\r\n")
        .await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
    let stopped =
        post(Role::Ingest, COMMITTED, "{}").replace("content-length: 2", "content-length: 20");
    let (head, body) = open().await.send(&stopped).await;
    assert!(head.starts_with("http/1.1 408"), "{head} {body}");
    let mut idle = open().await;
    idle.send(&get("/healthz")).await;
    assert!(idle.ends().await);
    eventually("its count", async || served.closed_for("idle").await == 1.0).await;

    // Answers that are not read.
    let mut unread = open().await;
    let requests = get("/healthz").repeat(200_000);
    let writing = unread.0.write_all(requests.as_bytes());
    drop(
        tokio::time::timeout(crate::harness::SOON, writing)
            .await
            .expect("it is not ended"),
    );
    eventually("an end", async || {
        served.closed_for("write_timeout").await == 1.0
    })
    .await;

    // A client that half-closes gets its answer.
    let mut half_closed = open().await;
    half_closed
        .0
        .write_all(get("/healthz").as_bytes())
        .await
        .unwrap();
    half_closed.0.shutdown().await.unwrap();
    let mut answer = Vec::new();
    half_closed.0.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}
