//! Promise: a real browser, on a page of another origin, posts events and reads the answers; from an
//! origin that no list names it can do neither.

pub mod chromium;
pub mod devtools;
mod live;

use chromium::Site;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::cors::set_key;
use crate::harness::{Database, Process, Service, Settings, click, eventually, key, texts};

/// Posts with `fetch` and notes in `results` what the page can read of the answer.
const CALL: &str = "
    const call = async (name, url, init) => {
      try {
        const answer = await fetch(url, {method: 'POST', ...init});
        const header = name => answer.headers.get(name);
        results[name] = {
          status: answer.status, body: await answer.json(), ack: header('x-ingest-ack'),
          retry_after: header('retry-after'), request_id: header('x-request-id'),
          limit: header('ratelimit'), policy: header('ratelimit-policy'),
        };
      } catch (error) { results[name] = {failed: String(error)}; }
    };
    const json = {'content-type': 'application/json'};
    const text = {'content-type': 'text/plain'};
    const event = name => JSON.stringify({
      event_id: name, occurred_at: '2026-03-10T08:00:00Z', event_type: 'click', item_id: name,
    });
";

/// A database where demo's publish key lists an origin.
async fn listed(origin: &str) -> Database {
    let database = Database::with_tenants().await;
    let secret = key("demo", Role::Publish);
    set_key(&database, &secret, &json!({"origins": [origin]})).await;
    database
}

async fn stored(database: &Database) -> Vec<String> {
    let client = database.connect().await;
    texts(&client, "SELECT item_id FROM interaction_events ORDER BY 1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_posts_with_fetch_and_reads_every_answer() {
    let Some(chromium) = chromium::find() else {
        return;
    };
    let mut site = Site::start().await;
    let database = listed(&site.origin).await;
    // A key of one byte a second: after its first event it waits for minutes.
    let limited = key("demo", Role::Ingest);
    let settings = json!({
        "origins": [site.origin], "limits": {"bytes_per_second": 1, "bytes_burst": 1}
    });
    set_key(&database, &limited, &settings).await;
    let service = Service::on(&database, |s| s).await;
    // Another service, which cannot read its keys and says so with 503.
    let closed = Settings::new(&service.database)
        .with("--database-url", "postgres://nobody@127.0.0.1:1/nothing")
        .with("--cors-origins", &site.origin);
    let (_process, away) = Process::listen(&closed);
    let url = format!("http://{}/v1/interactions", service.client().address);
    let away = format!("http://{}/v1/interactions", away.address);
    let secret = key("demo", Role::Publish);
    let script = format!(
        "{CALL}
        const url = '{url}', key = {{'x-api-key': '{secret}'}};
        await call('json', url, {{headers: {{...json, ...key}}, body: event('json')}});
        await call('traced', url, {{
          headers: {{...json, ...key, traceparent: '00-0-0-01', 'x-of-the-page': '1'}}, body: event('traced'),
        }});
        await call('text', url + '?key={secret}', {{headers: text, body: event('text')}});
        await call('credentials', url + '?key={secret}', {{
          headers: text, credentials: 'include', body: event('credentials'),
        }});
        await call('keepalive', url, {{headers: {{...json, ...key}}, keepalive: true, body: event('keepalive')}});
        await call('wrong key', url, {{headers: {{...json, 'x-api-key': 'wrong'}}, body: event('wrong')}});
        await call('bad event', url, {{headers: {{...json, ...key}}, body: '{{}}'}});
        await call('exposures', url.replace('interactions', 'exposures'), {{
          headers: {{...json, ...key}}, body: event('exposures'),
        }});
        for (const name of ['within its limit', 'over its limit']) {{
          await call(name, url, {{headers: {{...json, 'x-api-key': '{limited}'}}, body: event(name)}});
        }}
        await call('away', '{away}', {{headers: {{...json, ...key}}, body: event('away')}});"
    );
    let (results, _browser) = site.visit(&chromium, &script).await;
    let taken = [
        "credentials", "json", "keepalive", "text", "traced", "within its limit",
    ];
    for name in taken {
        let found = &results[name];
        assert_eq!(found["status"], 200, "{name}: {results:#}");
        assert_eq!(found["body"]["committed"], 1, "{name}: {found}");
        assert_eq!(found["ack"], "committed", "{name}: {found}");
    }
    for (name, status, code) in [
        ("wrong key", 401, "invalid_api_key"),
        ("bad event", 422, "all_events_rejected"),
        ("exposures", 403, "role_not_allowed"),
        ("over its limit", 429, "rate_limited"),
        ("away", 503, "keys_unavailable"),
    ] {
        let found = &results[name];
        assert_eq!(found["status"], status, "{name}: {results:#}");
        assert_eq!(found["body"]["code"], code, "{name}: {found}");
        assert_eq!(
            found["request_id"], found["body"]["request_id"],
            "{name}: {found}"
        );
    }
    assert_eq!(
        results["bad event"]["body"]["rejected"][0]["code"],
        "missing_field"
    );
    for name in ["away", "over its limit"] {
        let retry_after = results[name]["retry_after"].as_str();
        let seconds: u32 = retry_after.expect(name).parse().unwrap();
        assert!(seconds >= 1, "{name}: {seconds}");
    }
    for name in ["within its limit", "over its limit"] {
        let text = |field: &str| results[name][field].as_str().unwrap_or_default().to_owned();
        assert!(
            text("limit").contains("\"key-bytes\";r=0;t="),
            "{name}: {results:#}"
        );
        assert_eq!(
            text("policy"),
            "\"key-bytes\";q=1;qu=\"content-bytes\";w=1",
            "{name}"
        );
    }
    assert_eq!(stored(&service.database).await, taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_posts_nothing_and_reads_nothing() {
    let Some(chromium) = chromium::find() else {
        return;
    };
    let (listing, mut other) = (Site::start().await, Site::start().await);
    let service = Service::on(&listed(&listing.origin).await, |s| s).await;
    let url = format!("http://{}/v1/interactions", service.client().address);
    let secret = key("demo", Role::Publish);
    let script = format!(
        "{CALL}
        const url = '{url}', beacon = url + '?key={secret}';
        await call('json', url, {{headers: {{...json, 'x-api-key': '{secret}'}}, body: event('json')}});
        await call('text', beacon, {{headers: text, body: event('text')}});
        await call('unread', beacon, {{headers: text, mode: 'no-cors', body: event('unread')}});
        navigator.sendBeacon(beacon, event('beacon'));"
    );
    let (results, _browser) = other.visit(&chromium, &script).await;
    for name in ["json", "text", "unread"] {
        assert!(results[name]["failed"].is_string(), "{name}: {results:#}");
    }
    // The preflight of the first, and the three posts that need none.
    let refused = "recsys_ingest_requests_total{route=\"/v1/interactions\",status=\"403\"}";
    eventually("the beacon to be refused", async || {
        service.metric(refused).await == 4.0
    })
    .await;
    assert_eq!(stored(&service.database).await, [""; 0]);
    // The key itself is good.
    let client = service.client().role("demo", Role::Publish);
    assert_eq!(
        client.post("/v1/interactions", &click("a")).await.settled(),
        (1, 0, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn beacons_of_json_are_stored_and_those_of_forms_are_not() {
    let Some(chromium) = chromium::find() else {
        return;
    };
    let mut site = Site::start().await;
    let service = Service::on(&listed(&site.origin).await, |s| s).await;
    let secret = key("demo", Role::Publish);
    let url = format!(
        "http://{}/v1/interactions?key={secret}",
        service.client().address
    );
    let script = format!(
        "{CALL}
        const form = new FormData(), parameters = new URLSearchParams();
        for (const fields of [form, parameters]) {{
          for (const [name, value] of Object.entries(JSON.parse(event('form')))) fields.append(name, value);
        }}
        const bodies = {{
          string: event('string'),
          blob: new Blob([event('blob')], {{type: 'application/json'}}),
          buffer: new TextEncoder().encode(event('buffer')).buffer,
          form, parameters,
        }};
        for (const [name, body] of Object.entries(bodies)) results[name] = navigator.sendBeacon('{url}', body);"
    );
    let (results, _browser) = site.visit(&chromium, &script).await;
    let sent: Vec<_> = results.as_object().unwrap().iter().collect();
    assert_eq!(sent.len(), 5, "{results}");
    assert!(
        sent.iter().all(|(_, sent)| **sent == Value::Bool(true)),
        "{results}"
    );
    eventually("three beacons to be stored", async || {
        stored(&service.database).await.len() == 3
    })
    .await;
    let refused = "recsys_ingest_requests_total{route=\"/v1/interactions\",status=\"415\"}";
    eventually("two beacons to be refused", async || {
        service.metric(refused).await == 2.0
    })
    .await;
    assert_eq!(
        stored(&service.database).await,
        ["blob", "buffer", "string"]
    );
}
