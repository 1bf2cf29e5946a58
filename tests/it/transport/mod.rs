//! Promise: each listener shows what it is for and no more, over HTTP and HTTPS, and no answer helps
//! a website or a publish key that should not have it.

pub mod client;
mod tls;

use std::net::SocketAddr;

use recsys_ingest::tenants::role::Role;
use serde_json::json;

use crate::harness::{
    Client, Database, Process, RawConnection, Reply, Service, Settings, click, eventually, key,
};

const INTERACTIONS: &str = "/v1/interactions";

/// A service with a listener for operators.
async fn serve(change: impl FnOnce(Settings) -> Settings) -> (Process, Client, Client) {
    let database = Database::with_tenants().await;
    let settings = change(Settings::new(&database)).with("--ops-listen", "127.0.0.1:0");
    let (process, public) = Process::serve(&settings);
    let operators = operators(&process);
    (process, public, Client::new(operators))
}

fn operators(process: &Process) -> SocketAddr {
    let listening = process.message("listening for operators");
    listening["address"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_listener_shows_events_and_health_alone() {
    let (_process, public, operators) = serve(|settings| settings).await;
    for (path, on_public) in [
        ("/healthz", 200),
        ("/readyz", 404),
        ("/readyz?verbose", 404),
        ("/metrics", 404),
        ("/openapi.json", 404),
        ("/docs", 404),
        ("/docs/", 404),
        ("/docs/index.html", 404),
        ("/docs/swagger-ui-bundle.js", 404),
        ("/problems", 404),
        ("/", 404),
        ("/live", 404),
        ("/live/page.js", 404),
    ] {
        let reply = public.get(path).await;
        assert_eq!(reply.status, on_public, "{path}");
        if on_public == 404 {
            assert_eq!(reply.problem().1, "not_found");
            let detail = reply.json["detail"].as_str().unwrap();
            assert!(!detail.contains("/docs"), "{path}: {detail}");
            assert_eq!(reply.json.get("help"), None, "nothing there explains it");
        }
        // The key posts events, and may not look.
        let there = if path == "/live" { 403 } else { 200 };
        assert_eq!(operators.get(path).await.status, there, "{path}");
    }
    for client in [&public, &operators] {
        let reply = client.post(INTERACTIONS, &click("a")).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(
            client.get(INTERACTIONS).await.problem(),
            (405, "method_not_allowed")
        );
    }
    // Without it, all stays on one port.
    let service = Service::start().await;
    for path in [
        "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs/", "/problems", "/",
    ] {
        assert_eq!(service.client().get(path).await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_public_listener_leaves_monitoring_alone() {
    let (_process, public, operators) = serve(|settings| {
        settings
            .with("--connections-max", 4)
            .with("--trusted-proxies", "127.0.0.0/8")
    })
    .await;
    let mut busy = Vec::new();
    for _ in 0..30 {
        let mut connection = RawConnection::open(public.address).await;
        connection
            .send_head(INTERACTIONS, &[("content-length", "100")])
            .await;
        busy.push(connection);
    }
    eventually("the listener to be full", async || {
        public.get("/v1/none").await.problem() == (503, "too_many_connections")
    })
    .await;
    for _ in 0..100 {
        assert_eq!(operators.get("/readyz").await.status, 200);
    }
    let metrics = operators.get("/metrics").await.text;
    assert!(
        metrics.contains("recsys_ingest_connections_max 4\n"),
        "{metrics}"
    );
    assert_eq!(public.get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_for_operators_that_is_in_use_ends_the_start_and_names_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let database = Database::with_tenants().await;
    let settings = Settings::new(&database).with("--ops-listen", address);
    let mut process = Process::run(settings.arguments());
    assert_eq!(process.wait().code(), Some(1));
    let log = process.log();
    assert!(
        log.contains(&address.to_string()) && log.contains("--ops-listen, INGEST_OPS_LISTEN"),
        "{log}"
    );
}

/// The headers that protect a reader, as names and values.
fn protection(reply: &Reply) -> [&str; 6] {
    [
        "x-content-type-options",
        "referrer-policy",
        "content-security-policy",
        "cache-control",
        "strict-transport-security",
        "server",
    ]
    .map(|name| reply.header(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_the_headers_that_protect_its_reader() {
    let service = Service::start().await;
    let client = service.client();
    let data = "default-src 'none'; frame-ancestors 'none'";
    let event = click("a");
    for reply in [
        client.post(INTERACTIONS, &event).await,
        client
            .query("ack=received")
            .post(INTERACTIONS, &event)
            .await,
        client.post(INTERACTIONS, &json!({})).await,
        client.without("x-api-key").post(INTERACTIONS, &event).await,
        client
            .role("demo", Role::Viewer)
            .post(INTERACTIONS, &event)
            .await,
        client.get(INTERACTIONS).await,
        client.get("/nothing").await,
        client.get("/healthz").await,
        client.get("/readyz").await,
        client.get("/metrics").await,
    ] {
        let protection = protection(&reply);
        assert_eq!(
            protection,
            ["nosniff", "no-referrer", data, "no-store", "", ""],
            "{}",
            reply.text
        );
    }
    for path in ["/openapi.json", "/problems"] {
        let reply = client.get(path).await;
        assert_eq!(
            protection(&reply),
            ["nosniff", "no-referrer", data, "", "", ""],
            "{path}"
        );
    }
    // The page runs what it comes with, and calls this service.
    for path in [
        "/docs/",
        "/docs/index.html",
        "/docs/swagger-initializer.js",
        "/docs/swagger-ui.css",
    ] {
        let reply = client.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        let [nosniff, referrer, policy, _, _, server] = protection(&reply);
        assert_eq!(
            [nosniff, referrer, server],
            ["nosniff", "no-referrer", ""],
            "{path}"
        );
        for part in [
            "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(
            !reply.text.contains("<script>"),
            "an inline script would not run"
        );
    }
}

#[tokio::test]
async fn postgres_words_reach_operators_and_servers_and_no_publish_key() {
    let service = Service::start().await;
    let client = service.database.connect().await;
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF new.item_id LIKE 'bad%' THEN RAISE 'the secret of %', new.item_id USING ERRCODE = substr(new.item_id, 5); END IF;
               RETURN new; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON interaction_events FOR EACH ROW EXECUTE FUNCTION refuse();",
        )
        .await
        .unwrap();
    let body = |role: Role| {
        let codes = ["22023", "23514", "P0001"];
        let mut events: Vec<_> = codes
            .iter()
            .map(|code| {
                let mut event = click(&format!("{}-{code}", role.name()));
                event["item_id"] = format!("bad-{code}").into();
                event
            })
            .collect();
        events.push(click(&format!("{}-good", role.name())));
        json!(events)
    };
    for (role, told) in [
        (Role::Ingest, true),
        (Role::Service, true),
        (Role::Publish, false),
    ] {
        let sender = service.client().role("demo", role);
        let reply = sender.post(INTERACTIONS, &body(role)).await;
        assert_eq!(reply.settled(), (1, 0, 3, 0), "{role}: {}", reply.text);
        assert_eq!(
            reply.text.contains("secret"),
            told,
            "{role}: {}",
            reply.text
        );
        let codes = reply.json["quarantined"].as_array().unwrap().iter();
        let codes: Vec<_> = codes.map(|one| one["code"].as_str().unwrap()).collect();
        assert_eq!(
            codes,
            ["22023", "23514", "P0001"],
            "the code is for everyone"
        );
    }
    drop(service);

    // A database that cannot be used.
    let database = Database::with_tenants().await;
    let admin = database.connect().await;
    admin
        .batch_execute("ALTER TABLE interaction_events RENAME COLUMN item_id TO secret_item")
        .await
        .unwrap();
    let (_process, client) = Process::serve(&Settings::new(&database));
    for (role, told) in [(Role::Ingest, true), (Role::Publish, false)] {
        let sender = client.role("demo", role).query("ack=durable");
        eventually("a refusal", async || {
            let reply = sender.post(INTERACTIONS, &click("a")).await;
            reply.problem() == (503, "cannot_store")
        })
        .await;
        let reply = sender.post(INTERACTIONS, &click("a")).await;
        assert_eq!(
            reply.text.contains("interaction_events"),
            told,
            "{role}: {}",
            reply.text
        );
        assert!(
            reply
                .text
                .contains(if told { "item_id" } else { "column_" }),
            "{}",
            reply.text
        );
        for path in ["/readyz", "/readyz?verbose"] {
            let readiness = client.role("demo", role).get(path).await;
            assert_eq!(readiness.status, 503);
            let tells =
                readiness.text.contains("secret_item") || readiness.text.contains("item_id");
            assert_eq!(tells, told, "{role}: {}", readiness.text);
            assert!(
                told || readiness.text.contains("column_"),
                "{}",
                readiness.text
            );
        }
        let by_query = client.without("x-api-key");
        let readiness = by_query
            .query(&format!("key={}", key("demo", role)))
            .get("/readyz")
            .await;
        assert_eq!(
            readiness.text.contains("item_id"),
            told,
            "{}",
            readiness.text
        );
    }
}
