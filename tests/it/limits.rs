//! Limits on what tenants, keys and client addresses send, fairness between tenants, and callers
//! that are new.

use std::time::{Duration, Instant};

use recsys_ingest::tenants::admin;
use recsys_ingest::tenants::admin::keys::KeyDraft;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{
    Client, DEMO, Database, OTHER, PEPPER, Process, RawConnection, Reply, Service, Settings, click,
    eventually, key,
};

const PATH: &str = "/v1/interactions";

fn clicks(name: &str, count: usize) -> Value {
    (0..count).map(|n| click(&format!("{name}-{n}"))).collect()
}

/// Writes the settings of a tenant, as `tenants set` does.
async fn set_tenant(database: &Database, tenant: &str, settings: &Value) {
    database
        .execute(&format!(
            "INSERT INTO ingest_tenant_settings (tenant_id, settings) VALUES ('{tenant}', '{settings}')
             ON CONFLICT (tenant_id) DO UPDATE SET settings = excluded.settings"
        ))
        .await;
}

/// Writes the settings of the key of a tenant with a role.
async fn set_key(database: &Database, secret: &str, settings: &Value) {
    let hash = hasher().hash(secret).to_hex();
    database
        .execute(&format!(
            "INSERT INTO ingest_key_settings (key_id, settings)
             SELECT id, '{settings}' FROM tenant_api_keys WHERE key_hash = '{hash}'"
        ))
        .await;
}

fn hasher() -> ApiKeyHasher {
    ApiKeyHasher::new(PEPPER.as_bytes())
}

async fn new_key(database: &Database, role: Role) -> String {
    let mut client = database.connect().await;
    let draft = KeyDraft {
        tenant: "demo",
        roles: &[role],
        ..KeyDraft::default()
    };
    let made = admin::keys::create_key(&mut client, &hasher(), &draft).await;
    made.unwrap().secret
}

/// A key for web pages.
async fn publish_key(database: &Database, secret: &str) {
    let hash = hasher().hash(secret).to_hex();
    database
        .execute(&format!(
            "INSERT INTO ingest_publish_keys (tenant_id, key_hash) VALUES ('{DEMO}', '{hash}')"
        ))
        .await;
}

/// A header as a number.
fn number(reply: &Reply, name: &str) -> u64 {
    reply
        .header(name)
        .parse()
        .unwrap_or_else(|_| panic!("{name} in {:?}", reply.headers))
}

#[tokio::test]
async fn each_limit_refuses_by_name_and_says_when_to_come_back() {
    let database = Database::with_tenants().await;
    set_tenant(
        &database,
        DEMO,
        &json!({"limits": {"events_per_second": 1, "events_burst": 20}}),
    )
    .await;
    let ingest = key("demo", Role::Ingest);
    set_key(
        &database,
        &ingest,
        &json!({"limits": {"events_per_second": 1, "events_burst": 10, "bytes_per_second": 10, "bytes_burst": 4000}}),
    )
    .await;
    let service = Service::on(&database, |settings| settings).await;
    let client = service.client();

    let taken = client.post(PATH, &clicks("a", 8)).await;
    assert_eq!(taken.status, 200, "{}", taken.text);
    let limits = taken.header("ratelimit");
    assert!(limits.contains(r#""tenant";r=12;t=8"#), "{limits}");
    assert!(limits.contains(r#""key";r=2;t=8"#), "{limits}");
    let policies = taken.header("ratelimit-policy");
    for policy in [
        r#""tenant";q=20;w=20"#,
        r#""key";q=10;w=10"#,
        r#""key-bytes";q=4000;qu="content-bytes";w=400"#,
    ] {
        assert!(policies.contains(policy), "{policies}");
    }

    // The key's events are spent, and what is refused is not charged.
    for _ in 0..3 {
        let refused = client.post(PATH, &clicks("b", 5)).await;
        assert_eq!(refused.problem(), (429, "rate_limited"));
        assert!((1..=3).contains(&number(&refused, "retry-after")));
        assert!(refused.header("ratelimit").contains(r#""key";r="#));
        let detail = refused.json["detail"].as_str().unwrap();
        assert!(
            detail.contains("the API key may send 1 event a second, and 10 at once"),
            "{detail}"
        );
    }
    // Less than was refused still passes.
    assert_eq!(client.post(PATH, &clicks("c", 1)).await.status, 200);

    // Bytes count after decompression, and a body that is announced as too large is not read.
    let mut large = click("large");
    large["meta"] = json!({"pad": "x".repeat(5000)});
    let refused = client.post(PATH, &large).await;
    assert_eq!(refused.problem(), (429, "rate_limited"));
    let detail = refused.json["detail"].as_str().unwrap();
    assert!(detail.contains("10 bytes a second"), "{detail}");

    // Another key of the tenant shares the tenant's limit only.
    let other = client.role("demo", Role::Service);
    assert_eq!(other.post(PATH, &clicks("d", 11)).await.status, 200);
    let refused = other.post(PATH, &clicks("e", 9)).await;
    assert_eq!(refused.problem(), (429, "rate_limited"));
    let detail = refused.json["detail"].as_str().unwrap();
    assert!(detail.contains("the tenant may send"), "{detail}");
    // Another tenant is not affected, and learns of no limit.
    let reply = client
        .role("other", Role::Ingest)
        .post(PATH, &clicks("f", 50))
        .await;
    assert_eq!((reply.status, reply.header("ratelimit")), (200, ""));

    // Only what was told to be stored is.
    let stored = database.count("interaction_events").await;
    assert_eq!(stored, 8 + 1 + 11 + 50);
    for (scope, unit) in [("key", "events"), ("key", "bytes"), ("tenant", "events")] {
        let sample =
            format!("recsys_ingest_limited_requests_total{{scope=\"{scope}\",unit=\"{unit}\"}}");
        assert!(service.metric(&sample).await >= 1.0, "{sample}");
    }
}

#[tokio::test]
async fn the_same_body_passes_after_the_time_that_its_refusal_names() {
    // Several, and more than a burst.
    for count in [4, 16] {
        let service = Service::with(|settings| {
            settings.with("--limits-tenant", "events_per_second=2,events_burst=8")
        })
        .await;
        let client = service.client().query("ack=durable");
        for n in 0..8 {
            let one = client.post(PATH, &click(&format!("{count}-{n}"))).await;
            assert_eq!(one.status, 202, "{}", one.text);
        }
        let body = clicks("again", count);
        let refused = client.post(PATH, &body).await;
        assert_eq!(refused.problem(), (429, "rate_limited"));
        let after = number(&refused, "retry-after");
        assert!((2..=5).contains(&after), "{after}");
        tokio::time::sleep(Duration::from_secs(after)).await;
        let taken = client.post(PATH, &body).await;
        assert_eq!(taken.status, 202, "{count} after {after} s: {}", taken.text);
    }
}

#[tokio::test]
async fn a_body_larger_than_the_burst_passes_once_the_bucket_is_full() {
    let service = Service::with(|settings| {
        settings.with("--limits-key", "events_per_second=1000,events_burst=100")
    })
    .await;
    let client = service.client();
    let taken = client.post(PATH, &clicks("a", 8000)).await;
    assert_eq!(taken.status, 200, "{}", taken.text);
    let refused = client.post(PATH, &click("b")).await;
    assert_eq!(refused.problem(), (429, "rate_limited"));
    assert!((1..=8).contains(&number(&refused, "retry-after")));
    eventually("the debt to be paid back", async || {
        client.post(PATH, &click("c")).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn addresses_have_limits_of_their_own_behind_proxies_too() {
    let service = Service::with(|settings| {
        settings
            .with("--limits-address", "events_per_second=1,events_burst=20")
            .with("--trusted-proxies", "127.0.0.2")
    })
    .await;
    let address = service.client().address;
    let body = clicks("a", 20).to_string();
    let from = async |source: &str, forwarded: &[(&str, &str)]| {
        let mut connection = RawConnection::open_from(source, address).await;
        connection.post(PATH, forwarded, body.as_bytes()).await
    };
    for (source, forwarded, status) in [
        ("127.0.0.1", None, 200),
        ("127.0.0.1", None, 429),
        // Not a proxy: it is not believed.
        ("127.0.0.1", Some("192.0.2.1"), 429),
        ("127.0.0.3", None, 200),
        ("127.0.0.2", Some("192.0.2.1"), 200),
        ("127.0.0.2", Some("198.51.100.1, 192.0.2.1"), 429),
        ("127.0.0.2", Some("192.0.2.2"), 200),
        ("127.0.0.2", Some("2001:db8:1:2:3::4"), 200),
        ("127.0.0.2", Some("2001:db8:1:2:ffff::4"), 429),
        ("127.0.0.2", Some("2001:db8:1:3::4"), 200),
        // A proxy that names no client stands for many.
        ("127.0.0.2", None, 200),
        ("127.0.0.2", None, 200),
    ] {
        let forwarded: Vec<_> = forwarded
            .map(|list| ("x-forwarded-for", list))
            .into_iter()
            .collect();
        let reply = from(source, &forwarded).await;
        assert_eq!(
            reply.status, status,
            "{source} {forwarded:?}: {}",
            reply.text
        );
        if status == 429 {
            let detail = reply.json["detail"].as_str().unwrap();
            assert!(detail.contains("the client's address may send"), "{detail}");
        }
    }
}

#[tokio::test]
async fn publish_keys_are_limited_where_nothing_is_set() {
    let database = Database::with_tenants().await;
    publish_key(&database, "in-a-web-page").await;
    let service = Service::on(&database, |settings| settings).await;
    let client = service.client().header("x-api-key", "in-a-web-page");
    let taken = client.post(PATH, &clicks("a", 400)).await;
    assert_eq!(taken.status, 200, "{}", taken.text);
    let limits = taken.header("ratelimit");
    assert!(
        limits.contains(r#""key";r="#) && limits.contains(r#""address";r="#),
        "{limits}"
    );
    let refused = client.post(PATH, &clicks("b", 400)).await;
    assert_eq!(refused.problem(), (429, "rate_limited"));
    // The same address with another key is not.
    assert_eq!(
        service.client().post(PATH, &clicks("c", 400)).await.status,
        200
    );
}

#[tokio::test]
async fn a_changed_limit_is_in_force_after_a_refresh_and_buckets_outlive_it() {
    let database = Database::with_tenants().await;
    let limit = |burst: u32| json!({"limits": {"events_per_second": 1, "events_burst": burst}});
    set_tenant(&database, DEMO, &limit(100)).await;
    let service = Service::on(&database, |settings| settings.with("--key-refresh", "1s")).await;
    let client = service.client();
    assert_eq!(client.post(PATH, &clicks("a", 90)).await.status, 200);
    set_tenant(&database, DEMO, &limit(200)).await;
    eventually("the new limit", async || {
        let reply = client.post(PATH, &clicks("b", 80)).await;
        assert!(matches!(reply.status, 200 | 429), "{}", reply.text);
        reply.status == 200
    })
    .await;
    // What was spent before the change stays spent.
    let refused = client.post(PATH, &clicks("c", 80)).await;
    assert_eq!(refused.problem(), (429, "rate_limited"));
}

#[tokio::test]
async fn a_body_that_a_limit_refuses_is_not_asked_for() {
    let service = Service::with(|settings| {
        settings.with("--limits-key", "bytes_per_second=1,bytes_burst=3000")
    })
    .await;
    assert_eq!(service.interactions(&click("a")).await.status, 200);
    let mut connection = RawConnection::open(service.client().address).await;
    connection
        .send_head(
            PATH,
            &[("content-length", "100000"), ("expect", "100-continue")],
        )
        .await;
    assert_eq!(connection.reply().await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_and_a_new_tenant_work_at_once() {
    let database = Database::with_tenants().await;
    let (_process, client) = Process::serve(&Settings::new(&database));
    for n in 0..3 {
        let secret = new_key(&database, Role::Ingest).await;
        let reply = client
            .header("x-api-key", &secret)
            .post(PATH, &click(&format!("k{n}")))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let mut connection = database.connect().await;
    let service = client.role("demo", Role::Service);
    for (n, way) in ["header", "event", "event and others"]
        .into_iter()
        .enumerate()
    {
        let name = format!("new-{n}");
        admin::tenants::create_tenant(&mut connection, &name, "")
            .await
            .unwrap();
        let mut event = click(&name);
        let reply = match way {
            "header" => service.header("x-org-id", &name).post(PATH, &event).await,
            "event" => {
                event["tenant"] = json!(name);
                service.post(PATH, &event).await
            }
            _ => {
                event["tenant"] = json!(name);
                let mut wrong = click("wrong");
                wrong["tenant"] = json!("there is none");
                service.post(PATH, &json!([event, wrong])).await
            }
        };
        assert_eq!(reply.status, 200, "{way}: {}", reply.text);
        assert_eq!(reply.json["accepted"], 1, "{way}: {}", reply.text);
        if way == "event and others" {
            assert_eq!(reply.rejection().0, "unknown_tenant");
        }
    }
    assert_eq!(
        client
            .role("other", Role::Service)
            .header("x-org-id", "no")
            .post(PATH, &click("x"))
            .await
            .problem(),
        (403, "unknown_tenant")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_keys_does_not_reach_the_database() {
    let database = Database::with_tenants().await;
    let service = Service::on(&database, |settings| settings).await;
    let started = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..300 {
        let client: Client = service
            .client()
            .header("x-api-key", &format!("made-up-{n}"));
        asking.spawn(async move { client.post(PATH, &click("a")).await.problem().0 });
    }
    while let Some(status) = asking.join_next().await {
        assert_eq!(status.unwrap(), 401);
    }
    let seconds = started.elapsed().as_secs_f64().ceil();
    let lookups = service.metric("recsys_ingest_caller_lookups").await;
    assert!(
        lookups >= 1.0 && lookups <= 20.0 * seconds,
        "{lookups} in {seconds} s"
    );
    // The same unknown key is not looked up again while its answer holds.
    let client = service.client().header("x-api-key", "made-up-again");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = service.metric("recsys_ingest_caller_lookups").await;
    for _ in 0..10 {
        assert_eq!(client.post(PATH, &click("a")).await.problem().0, 401);
    }
    let after = service.metric("recsys_ingest_caller_lookups").await;
    assert!(after <= before + 1.0, "{before} and then {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_keys_hides_no_new_key_and_no_new_tenant() {
    let database = Database::with_tenants().await;
    let service = Service::on(&database, |s| s.with("--key-refresh", "1h")).await;
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..30 {
        let client = service.client().clone();
        flood.spawn(async move {
            for m in 0.. {
                let client = client.header("x-api-key", &format!("made-up-{n}-{m}"));
                drop(client.post(PATH, &click("a")).await);
            }
        });
    }
    // Until the look-ups of a second are spent.
    eventually("the flood to be there", async || {
        service.metric("recsys_ingest_caller_lookups").await >= 10.0
    })
    .await;
    for n in 0..3 {
        let secret = new_key(&database, Role::Ingest).await;
        let client = service.client().header("x-api-key", &secret);
        let reply = client.post(PATH, &click(&format!("k{n}"))).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let mut connection = database.connect().await;
    let by_service = service.client().role("demo", Role::Service);
    for (n, in_header) in [true, false].into_iter().enumerate() {
        let name = format!("new-{n}");
        let made = admin::tenants::create_tenant(&mut connection, &name, "").await;
        made.unwrap();
        let mut event = click(&name);
        let client = match in_header {
            true => by_service.header("x-org-id", &name),
            false => {
                event["tenant"] = json!(name);
                by_service.clone()
            }
        };
        let reply = client.post(PATH, &event).await;
        assert_eq!(reply.json["accepted"], 1, "{}", reply.text);
    }
    flood.abort_all();
}

#[tokio::test]
async fn surfaces_that_a_tenant_does_not_have_are_rejected() {
    let database = Database::with_tenants().await;
    set_tenant(&database, DEMO, &json!({"surfaces": ["home", "product"]})).await;
    let service = Service::on(&database, |settings| settings).await;
    let at = |surface: Value| {
        let mut event = click("a");
        event["surface"] = surface;
        event
    };
    assert_eq!(service.interactions(&at(json!("home"))).await.status, 200);
    assert_eq!(service.interactions(&click("none")).await.status, 200);
    let refused = service.interactions(&at(json!("cart"))).await;
    assert_eq!(refused.rejection(), ("unknown_surface", "surface"));
    let other = service.client().role("other", Role::Ingest);
    assert_eq!(other.post(PATH, &at(json!("cart"))).await.status, 200);
    // The tenant that the event names counts.
    let mut named = at(json!("cart"));
    named["tenant_id"] = json!(OTHER);
    let by_service = service.client().role("demo", Role::Service);
    assert_eq!(by_service.post(PATH, &named).await.status, 200);
}
