//! Promise: web pages of the origins that a list names may post and read every answer, and no others
//! may. What a publish key, which is in public hands, posts is never taken for a server's word.

use std::net::SocketAddr;
use std::time::Duration;

use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{
    DEMO, Database, OTHER, PEPPER, Process, RawConnection, Reply, Service, Settings, click,
    eventually, key, shown, texts,
};

const INTERACTIONS: &str = "/v1/interactions";

const SHOP: &str = "https://shop.example";
const EVIL: &str = "https://evil.example";

/// Writes the settings of a key.
pub async fn set_key(database: &Database, secret: &str, settings: &Value) {
    let hash = ApiKeyHasher::new(PEPPER.as_bytes()).hash(secret).to_hex();
    database
        .execute(&format!(
            "INSERT INTO ingest_key_settings (key_id, settings)
             SELECT id, '{settings}' FROM (SELECT id, key_hash FROM tenant_api_keys
                 UNION ALL SELECT id, key_hash FROM ingest_publish_keys) k
              WHERE key_hash = '{hash}'
             ON CONFLICT (key_id) DO UPDATE SET settings = excluded.settings"
        ))
        .await;
}

async fn set_tenant(database: &Database, tenant: &str, settings: &Value) {
    database
        .execute(&format!(
            "INSERT INTO ingest_tenant_settings (tenant_id, settings) VALUES ('{tenant}', '{settings}')"
        ))
        .await;
}

/// Lists at all three levels: demo's publish key has its own list, demo's other keys have the
/// tenant's, and other's keys have the service's.
async fn lists() -> Database {
    let database = Database::with_tenants().await;
    let publish = key("demo", Role::Publish);
    set_key(
        &database,
        &publish,
        &json!({"origins": [SHOP, "https://*.shop.example"]}),
    )
    .await;
    let closed = key("demo", Role::Service);
    set_key(&database, &closed, &json!({"origins": []})).await;
    set_tenant(
        &database,
        DEMO,
        &json!({"origins": ["https://tenant.example", "null"]}),
    )
    .await;
    database
}

const SERVICES: (&str, &str) = (
    "--cors-origins",
    "http://localhost:3000, https://default.example",
);

/// A post: the tenant and role of its key, its headers, and whether it is let in.
type Case<'a> = ((&'a str, Role), &'a [(&'a str, &'a str)], bool);

async fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut connection = RawConnection::open(address).await;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: ingest.example\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    connection.write(head.as_bytes()).await;
    connection.reply().await
}

async fn preflight(address: SocketAddr, origin: &str, more: &[(&str, &str)]) -> Reply {
    let mut headers = vec![
        ("origin", origin),
        ("access-control-request-method", "POST"),
    ];
    headers.extend(more);
    send(address, "OPTIONS", INTERACTIONS, &headers).await
}

fn assert_readable(reply: &Reply, origin: &str) {
    let what = format!("{origin} {} {}", reply.status, reply.text);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        origin,
        "{what}"
    );
    assert_eq!(
        reply.header("access-control-allow-credentials"),
        "true",
        "{what}"
    );
    assert!(
        reply.header("vary").to_lowercase().contains("origin"),
        "{what}"
    );
    let exposed = reply.header("access-control-expose-headers").to_lowercase();
    for name in [
        "x-ingest-ack", "retry-after", "ratelimit", "ratelimit-policy", "ratelimit-limit",
        "ratelimit-remaining", "ratelimit-reset", "x-request-id",
    ] {
        assert!(exposed.split(", ").any(|one| one == name), "{name}: {what}");
    }
}

fn assert_unreadable(reply: &Reply) {
    let names = reply.headers.keys();
    let found: Vec<_> = names
        .filter(|name| name.as_str().starts_with("access-control-"))
        .collect();
    assert!(
        found.is_empty(),
        "{found:?} {} {}",
        reply.status,
        reply.text
    );
    assert!(reply.header("vary").to_lowercase().contains("origin"));
}

#[tokio::test]
async fn a_preflight_is_answered_for_what_any_list_allows() {
    let database = lists().await;
    let service = Service::on(&database, |s| s.with(SERVICES.0, SERVICES.1)).await;
    let address = service.client().address;
    for origin in [
        SHOP,
        "https://SHOP.example",
        "https://www.shop.example",
        "https://tenant.example",
        "null",
        "https://default.example",
        "http://localhost:3000",
    ] {
        let reply = preflight(address, origin, &[]).await;
        assert_eq!(reply.status, 204, "{origin}: {}", reply.text);
        assert_eq!(reply.text, "");
        assert_readable(&reply, origin);
        assert_eq!(reply.header("access-control-allow-methods"), "POST");
        assert_eq!(reply.header("access-control-max-age"), "7200");
        let headers = reply.header("access-control-allow-headers");
        for name in [
            "content-type", "content-encoding", "x-api-key", "authorization", "x-request-id",
            "x-org-id", "traceparent",
        ] {
            assert!(
                headers.split(", ").any(|one| one == name),
                "{name} in {headers}"
            );
        }
        assert!(
            reply
                .header("access-control-allow-private-network")
                .is_empty()
        );
    }
    for origin in [
        EVIL,
        "http://shop.example",
        "https://shop.example:8443",
        "https://shop.example.evil.example",
        "https://evilshop.example",
        "http://localhost",
        "http://ingest.example",
        "https://shop.example, https://evil.example",
        "",
    ] {
        let reply = preflight(address, origin, &[]).await;
        assert_eq!(reply.problem(), (403, "origin_not_allowed"), "{origin}");
        assert_unreadable(&reply);
    }
    let twice = preflight(address, SHOP, &[("origin", EVIL)]).await;
    assert_eq!(twice.problem(), (403, "origin_not_allowed"));
    assert_unreadable(&twice);
    // What a page asks for beyond that.
    let more = [
        (
            "access-control-request-headers",
            "content-type,sentry-trace",
        ),
        ("access-control-request-private-network", "true"),
    ];
    let reply = preflight(address, SHOP, &more).await;
    assert!(
        reply
            .header("access-control-allow-headers")
            .contains("sentry-trace")
    );
    assert_eq!(reply.header("access-control-allow-private-network"), "true");
    // Both endpoints, also with a trailing slash; no other path.
    let asks = [("origin", SHOP), ("access-control-request-method", "POST")];
    for (path, status) in [
        ("/v1/exposures", 204),
        ("/v1/exposures/", 204),
        ("/v1/interactions/", 204),
        ("/v1/interactions?key=k&ack=durable", 204),
        ("/healthz", 405),
        ("/v1/nothing", 404),
    ] {
        let reply = send(address, "OPTIONS", path, &asks).await;
        assert_eq!(reply.status, status, "{path}");
        match status {
            204 => assert_readable(&reply, SHOP),
            _ => assert_eq!(reply.header("access-control-allow-origin"), ""),
        }
    }
    // Who asks for the methods without CORS is told them.
    for headers in [&[][..], &[("origin", SHOP)], &[("origin", EVIL)]] {
        let reply = send(address, "OPTIONS", INTERACTIONS, headers).await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (204, "POST, OPTIONS")
        );
        assert_eq!(reply.header("access-control-allow-methods"), "");
    }
}

#[tokio::test]
async fn a_post_is_checked_against_the_list_of_its_own_key() {
    let database = lists().await;
    let service = Service::on(&database, |s| s.with(SERVICES.0, SERVICES.1)).await;
    let address = service.client().address;
    let host = address.to_string();
    let own = format!("http://{host}");
    let publish = ("demo", Role::Publish);
    let of_tenant = ("demo", Role::Ingest);
    let closed = ("demo", Role::Service);
    let of_service = ("other", Role::Ingest);
    let cases: [Case<'_>; 18] = [
        (publish, &[("origin", SHOP)], true),
        (publish, &[("origin", "https://a.b.shop.example")], true),
        (publish, &[("origin", "https://tenant.example")], false),
        (publish, &[("origin", "https://default.example")], false),
        (publish, &[("origin", "null")], false),
        (publish, &[("origin", EVIL)], false),
        (publish, &[], true),
        (of_tenant, &[("origin", "https://tenant.example")], true),
        (of_tenant, &[("origin", "null")], true),
        (of_tenant, &[("origin", SHOP)], false),
        (closed, &[("origin", "https://tenant.example")], false),
        (closed, &[("origin", "https://default.example")], false),
        (closed, &[], true),
        (of_service, &[("origin", "https://default.example")], true),
        (of_service, &[("origin", SHOP)], false),
        // A page of this very address, such as /docs.
        (closed, &[("origin", &own)], true),
        (
            closed,
            &[("origin", EVIL), ("sec-fetch-site", "same-origin")],
            true,
        ),
        (
            closed,
            &[("origin", &own), ("sec-fetch-site", "cross-site")],
            false,
        ),
    ];
    let mut stored = 0;
    for (n, ((tenant, role), headers, allowed)) in cases.into_iter().enumerate() {
        let mut client = service.client().role(tenant, role);
        for (name, value) in headers {
            client = client.header(name, value);
        }
        let reply = client.post(INTERACTIONS, &click(&n.to_string())).await;
        let what = format!("{tenant} {role} {headers:?}");
        if allowed {
            assert_eq!(reply.settled(), (1, 0, 0, 0), "{what}");
            stored += 1;
            match headers.first() {
                Some((_, origin)) => assert_readable(&reply, origin),
                None => assert!(!reply.headers.contains_key("access-control-allow-origin")),
            }
        } else {
            assert_eq!(reply.problem(), (403, "origin_not_allowed"), "{what}");
            assert_unreadable(&reply);
        }
        assert_eq!(
            service.database.count("interaction_events").await,
            stored,
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_star_lets_every_origin_in_and_is_never_echoed() {
    let service = Service::with(|s| s.with("--cors-origins", "*")).await;
    let address = service.client().address;
    for origin in [EVIL, "null", "capacitor://localhost"] {
        let reply = preflight(address, origin, &[]).await;
        assert_eq!(reply.status, 204);
        assert_readable(&reply, origin);
        let client = service.client().header("origin", origin);
        let reply = client.post(INTERACTIONS, &click(origin)).await;
        assert_eq!(reply.settled(), (1, 0, 0, 0));
        assert_readable(&reply, origin);
    }
    // Without a list no page gets in.
    let service = Service::start().await;
    let reply = preflight(service.client().address, EVIL, &[]).await;
    assert_eq!(reply.problem(), (403, "origin_not_allowed"));
    let client = service.client().header("origin", EVIL);
    let reply = client.post(INTERACTIONS, &click("a")).await;
    assert_eq!(reply.problem(), (403, "origin_not_allowed"));
    assert!(
        reply.json["detail"]
            .as_str()
            .unwrap()
            .contains("--cors-origins")
    );
}

#[tokio::test]
async fn a_page_can_read_every_error() {
    let database = lists().await;
    let service = Service::on(&database, |s| {
        s.with("--body-bytes-max", "2KiB")
            .with("--body-timeout", "400ms")
    })
    .await;
    let address = service.client().address;
    let publish = key("demo", Role::Publish);
    let length = |bytes: usize| format!("content-length: {bytes}\r\n");
    let json_type = "content-type: application/json\r\n";
    let body = click("a").to_string();
    let post = |path: &str, key: &str, more: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\norigin: {SHOP}\r\nx-api-key: {key}\r\n{more}\r\n{body}"
        )
    };
    let whole = |path: &str, key: &str, more: &str, body: &str| {
        post(path, key, &format!("{more}{}", length(body.len())), body)
    };
    for (request, status, code) in [
        (
            whole(INTERACTIONS, "", json_type, &body),
            401,
            "missing_api_key",
        ),
        (
            whole(INTERACTIONS, "wrong", json_type, &body),
            401,
            "invalid_api_key",
        ),
        (
            whole("/v1/exposures", &publish, json_type, &body),
            403,
            "role_not_allowed",
        ),
        (
            whole(INTERACTIONS, &key("asleep", Role::Ingest), json_type, &body),
            403,
            "tenant_not_active",
        ),
        (
            whole(
                INTERACTIONS,
                &publish,
                &format!("{json_type}x-org-id: other\r\n"),
                &body,
            ),
            403,
            "tenant_mismatch",
        ),
        (
            whole(INTERACTIONS, &publish, json_type, &" ".repeat(3000)),
            413,
            "body_too_large",
        ),
        (
            whole(INTERACTIONS, &publish, "content-type: image/png\r\n", &body),
            415,
            "unsupported_media_type",
        ),
        (
            whole(INTERACTIONS, &publish, json_type, "{"),
            400,
            "malformed_body",
        ),
        (
            whole(INTERACTIONS, &publish, json_type, "{}"),
            422,
            "all_events_rejected",
        ),
        (
            whole("/v1/interactions?ack=never", &publish, json_type, &body),
            400,
            "invalid_ack",
        ),
        (
            whole(INTERACTIONS, &publish, "host: b\r\n", &body),
            400,
            "invalid_host",
        ),
        (
            post(
                INTERACTIONS,
                &publish,
                &format!("{json_type}{}", length(100)),
                "[",
            ),
            408,
            "body_timeout",
        ),
        (
            format!("GET {INTERACTIONS} HTTP/1.1\r\nhost: a\r\norigin: {SHOP}\r\n\r\n"),
            405,
            "method_not_allowed",
        ),
    ] {
        let mut connection = RawConnection::open(address).await;
        connection.write(request.as_bytes()).await;
        let reply = connection.reply().await;
        assert_eq!(reply.problem(), (status, code), "{request}");
        assert_readable(&reply, SHOP);
        // The same from elsewhere cannot be read.
        let mut connection = RawConnection::open(address).await;
        connection
            .write(request.replace(SHOP, EVIL).as_bytes())
            .await;
        let reply = connection.reply().await;
        assert!(reply.status >= 400, "{request}");
        assert_unreadable(&reply);
    }
    assert_eq!(service.database.count("interaction_events").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_learns_of_lacking_room_for_its_connection() {
    let database = lists().await;
    let settings = Settings::new(&database)
        .with("--connections-max", 4)
        .with("--trusted-proxies", "127.0.0.0/8");
    let (_process, client) = Process::serve(&settings);
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut connection = RawConnection::open(client.address).await;
        connection
            .send_head(INTERACTIONS, &[("content-length", "100")])
            .await;
        held.push(connection);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let reply = preflight(client.address, SHOP, &[]).await;
    assert_eq!((reply.status, reply.header("connection")), (204, "close"));
    assert_readable(&reply, SHOP);
    let mut beyond = RawConnection::open(client.address).await;
    let body = click("a").to_string();
    let reply = beyond
        .post(INTERACTIONS, &[("origin", SHOP)], body.as_bytes())
        .await;
    assert_eq!(reply.problem(), (503, "too_many_connections"));
    assert_readable(&reply, SHOP);
    assert!(!reply.header("retry-after").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_503_while_no_list_can_be_read() {
    let database = Database::with_tenants().await;
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
    let settings = Settings::new(&database)
        .with("--database-url", nowhere)
        .with(SERVICES.0, SERVICES.1);
    let (_process, client) = Process::listen(&settings);
    let reply = preflight(client.address, SHOP, &[]).await;
    assert_eq!(reply.problem(), (503, "keys_unavailable"));
    assert!(!reply.header("retry-after").is_empty());
    assert_unreadable(&reply);
    let reply = preflight(client.address, "https://default.example", &[]).await;
    assert_eq!(reply.status, 204);
    let page = client.header("origin", "https://default.example");
    let reply = page.post(INTERACTIONS, &click("a")).await;
    assert_eq!(reply.problem(), (503, "keys_unavailable"));
    assert_readable(&reply, "https://default.example");
}

#[tokio::test]
async fn a_list_that_changes_is_in_force_after_a_refresh() {
    let service = Service::with(|s| s.with("--key-refresh", "1s")).await;
    let address = service.client().address;
    let secret = key("demo", Role::Publish);
    for (origins, status) in [(json!([SHOP]), 204), (json!([]), 403), (json!(["*"]), 204)] {
        set_key(&service.database, &secret, &json!({"origins": origins})).await;
        eventually("the list to be in force", async || {
            preflight(address, SHOP, &[]).await.status == status
        })
        .await;
    }
    service
        .database
        .execute("UPDATE ingest_publish_keys SET revoked_at = now()")
        .await;
    eventually("the key to be revoked", async || {
        preflight(address, SHOP, &[]).await.status == 403
    })
    .await;
}

#[tokio::test]
async fn a_publish_key_posts_interactions_of_its_tenant_and_says_nothing_as_a_server() {
    let service = Service::start().await;
    let public = service.client().role("demo", Role::Publish);
    let changed = |id: &str, changes: Value| {
        let mut event = click(id);
        for (name, value) in changes.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    };
    let hash = "0".repeat(64);
    let refused = [
        (
            "user_id_hash",
            json!({"user_id_hash": hash}),
            "field_not_allowed",
        ),
        (
            "anonymous_id_hash",
            json!({"anonymous_id_hash": hash}),
            "field_not_allowed",
        ),
        (
            "session_id_hash",
            json!({"session_id_hash": hash}),
            "field_not_allowed",
        ),
        ("user_key", json!({"user_key": hash}), "field_not_allowed"),
        (
            "subject",
            json!({"subject": {"user_id_hash": hash}}),
            "field_not_allowed",
        ),
        (
            "received_at",
            json!({"received_at": "2026-03-10T08:00:00Z"}),
            "field_not_allowed",
        ),
        ("source", json!({"source": "service"}), "field_not_allowed"),
        (
            "algo_version",
            json!({"algo_version": "a"}),
            "field_not_allowed",
        ),
        (
            "config_version",
            json!({"config_version": "a"}),
            "field_not_allowed",
        ),
        (
            "config_etag",
            json!({"config_etag": "a"}),
            "field_not_allowed",
        ),
        (
            "rules_version",
            json!({"rules_version": "a"}),
            "field_not_allowed",
        ),
        (
            "rules_etag",
            json!({"rules_etag": "a"}),
            "field_not_allowed",
        ),
        (
            "experiment",
            json!({"experiment": {"id": "x", "variant": "b"}}),
            "field_not_allowed",
        ),
        (
            "experiment_variant",
            json!({"experiment_variant": "b"}),
            "field_not_allowed",
        ),
        ("tenant_id", json!({"tenant_id": OTHER}), "tenant_mismatch"),
        ("tenant", json!({"tenant": "other"}), "tenant_mismatch"),
    ];
    for (field, changes, code) in refused {
        let body = json!([click(&format!("good {field}")), changed("bad", changes)]);
        let reply = public.post(INTERACTIONS, &body).await;
        assert_eq!(reply.settled(), (1, 0, 0, 1), "{field}: {}", reply.text);
        assert_eq!(reply.rejection(), (code, field), "{}", reply.text);
    }
    // Formats that servers write, recognised or named.
    let outcome = json!({
        "request_id": "r1", "user_id": hash, "item_id": "a", "event_type": "click",
        "ts": "2026-03-10T08:00:00Z"
    });
    for client in [public.clone(), public.query("format=outcome_v1")] {
        let reply = client.post(INTERACTIONS, &outcome).await;
        assert_eq!(reply.problem(), (422, "all_events_rejected"));
        assert_eq!(reply.rejection().0, "unsupported_format", "{}", reply.text);
    }
    let reply = public.post("/v1/exposures", &shown("a")).await;
    assert_eq!(reply.problem(), (403, "role_not_allowed"));
    let reply = public
        .header("x-org-id", "other")
        .post(INTERACTIONS, &click("a"))
        .await;
    assert_eq!(reply.problem(), (403, "tenant_mismatch"));
    // Everything that a page knows is taken: nulls count as absent.
    let whole = changed(
        "whole",
        json!({
            "event_type": "impression", "request_id": "r1", "user_id": "ada", "anonymous_id": "anon",
            "session_id": "s", "surface": "home", "segment": "new", "position": 1, "value": 9.5,
            "tenant_id": "demo", "user_id_hash": null, "page": "/shoes",
            "meta": {"source": "service", "skew_ms": 7, "campaign": "may"}
        }),
    );
    assert_eq!(
        public.post(INTERACTIONS, &whole).await.settled(),
        (1, 0, 0, 0)
    );
    let client = service.database.connect().await;
    let meta = "SELECT meta::text FROM interaction_events WHERE event_type = 'impression'";
    let [meta] = &texts(&client, meta).await[..] else {
        panic!("not one impression");
    };
    let meta: Value = serde_json::from_str(meta).unwrap();
    assert_eq!(
        (&meta["source"], &meta["campaign"]),
        (&json!("publish"), &json!("may"))
    );
    assert_eq!(
        meta["extra"]["meta"],
        json!({"source": "service", "skew_ms": 7})
    );
    assert_eq!(meta["extra"]["page"], "/shoes");
    // A server's key may say all of this, and its rows do not say where they come from.
    let server = changed(
        "server",
        json!({"user_id_hash": hash, "experiment": {"id": "x"}}),
    );
    assert_eq!(service.interactions(&server).await.settled(), (1, 0, 0, 0));
    let all =
        "SELECT DISTINCT coalesce(meta->>'source', 'none') FROM interaction_events ORDER BY 1";
    assert_eq!(texts(&client, all).await, ["none", "publish"]);
}
