//! The live page in a real browser: numbers move as events come, and what is away is said to be.

use std::path::Path;
use std::time::Duration;

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use super::chromium;
use super::devtools::Page;
use crate::harness::{Client, Rig, Settings, assigned, click, key, shown};

/// The names of a page's parts that assistive programs need, in the page's own words.
const NAMELESS: &str = "
    [...document.querySelectorAll('table')].filter(table => !table.caption?.textContent).length
    + [...document.querySelectorAll('input')].filter(input => !input.labels.length).length
    + [...document.querySelectorAll('[role=region], [role=img], meter')].filter(part => !part.getAttribute('aria-label')).length
    + [...document.querySelectorAll('button, a')].filter(part => !part.textContent.trim()).length
";

/// Keys that were not read for a minute are no reason to call another one wrong.
fn settings(settings: Settings) -> Settings {
    settings
        .with("--default-ack", "durable")
        .with("--key-refresh", "20s")
}

async fn open(rig: &Rig, chromium: &str, secret: &str) -> Page {
    let url = format!("http://{}/", rig.address());
    let mut page = Page::open(chromium, &url).await;
    page.until(
        "the page to ask for a key",
        "!document.getElementById('key-form').hidden",
    )
    .await;
    assert_eq!(
        page.eval("document.activeElement.id").await,
        "key",
        "it can be typed at once"
    );
    for (typed, then) in [
        (
            "wrong",
            "document.getElementById('key-why').textContent.includes('no such API key')",
        ),
        (secret, "!document.getElementById('main').hidden"),
    ] {
        let text = json!({"text": typed});
        page.call("Input.insertText", text).await;
        page.eval("document.getElementById('key-form').requestSubmit()")
            .await;
        page.until("the key to be looked at", then).await;
    }
    page
}

fn text(id: &str) -> String {
    format!("(document.getElementById('{id}')?.textContent ?? '')")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_page_shows_events_as_they_come_and_says_what_is_away() {
    let Some(chromium) = chromium::find() else {
        return;
    };
    let mut rig = Rig::start(settings).await;
    let mut page = open(&rig, &chromium, &key("demo", Role::Viewer)).await;
    page.until(
        "Postgres to be there",
        &format!("{}.includes('Postgres answers')", text("postgres-state")),
    )
    .await;
    for id in ["accepted-0", "accepted-1", "rejected-1", "stored-1"] {
        assert_eq!(page.eval(&text(id)).await, "0", "{id}");
    }

    // Events arrive.
    let mut bad = click("secret-event");
    bad["event_type"] = "stare".into();
    bad["user_id"] = "secret-user".into();
    let body = json!([click("a"), click("b"), bad]);
    assert_eq!(rig.client.post("/v1/interactions", &body).await.status, 202);
    rig.client.post("/v1/exposures", &shown("a")).await;
    for (id, number) in [
        ("accepted-0", "1"),
        ("accepted-1", "2"),
        ("stored-1", "2"),
        ("rejected-1", "1"),
        ("stored-0", "1"),
        ("oldest-1", "none"),
    ] {
        page.until(id, &format!("{} === '{number}'", text(id)))
            .await;
    }
    for (id, words) in [
        ("bodies", "/v1/interactions"),
        ("bodies", "invalid_value event_type"),
        ("rejections", "must be one of"),
        ("accounts", "interaction_events"),
        ("instances", "(this one)"),
        ("lanes", "stores"),
        ("partitions", "hot"),
        ("commands", "curl"),
    ] {
        page.until(words, &format!("{}.includes('{words}')", text(id)))
            .await;
    }
    page.until(
        "the charts",
        "document.querySelectorAll('canvas').length === 2",
    )
    .await;
    let all = page.eval("document.documentElement.outerHTML").await;
    for secret in ["secret-event", "secret-user", &key("demo", Role::Viewer)] {
        assert!(!all.as_str().unwrap().contains(secret), "{secret}");
    }

    // On a phone and on a screen, nothing sticks out; each part has a name; the keyboard is enough.
    for width in [390, 1440] {
        for scheme in ["light", "dark"] {
            page.show_as(width, scheme).await;
            let wide = page.eval("document.documentElement.scrollWidth").await;
            assert!(
                wide.as_u64().unwrap() <= u64::from(width),
                "{width}: {wide}"
            );
        }
    }
    assert_eq!(page.eval(NAMELESS).await, 0);
    let alive = "[...document.querySelectorAll('[aria-live]')].map(part => part.id).join()";
    assert_eq!(
        page.eval(alive).await,
        "states",
        "only changes of state are said"
    );
    page.eval("document.body.tabIndex = -1; document.body.focus()")
        .await;
    page.press("Tab", 9, "").await;
    assert_eq!(page.eval("document.activeElement.className").await, "skip");
    page.press("Enter", 13, "\r").await;
    page.until(
        "the skip link to lead to the numbers",
        "location.hash === '#now'",
    )
    .await;

    // Postgres goes: events are taken, and wait.
    rig.cluster.crash();
    page.until(
        "the page to say that Postgres is away",
        &format!("{}.includes('Postgres is away')", text("postgres-state")),
    )
    .await;
    assert_eq!(
        rig.client
            .post("/v1/interactions", &click("c"))
            .await
            .status,
        202
    );
    page.until(
        "the event to arrive",
        &format!("{} === '3'", text("accepted-1")),
    )
    .await;
    page.until(
        "the event to wait",
        &format!("{} !== 'none'", text("oldest-1")),
    )
    .await;
    rig.cluster.restart();
    page.until(
        "Postgres to be there again",
        &format!("{}.includes('Postgres answers')", text("postgres-state")),
    )
    .await;
    page.until(
        "the event to be stored",
        &format!("{} === '3'", text("stored-1")),
    )
    .await;

    // The service itself goes.
    rig.process.kill();
    page.until(
        "the page to say that the service is away",
        &format!("{}.includes('does not answer')", text("service-state")),
    )
    .await;
    assert_eq!(
        page.complaints(),
        [""; 0],
        "exceptions, or what the policy forbids"
    );
}

/// A body of each kind, again and again.
async fn keep_posting(client: Client) {
    for n in 0.. {
        let now = jiff::Timestamp::now().as_microsecond();
        let now = jiff::Timestamp::from_microsecond(now).unwrap().to_string();
        let at = |mut event: Value, time: &str, id: String| {
            event["event_id"] = id.into();
            event[time] = now.clone().into();
            event
        };
        let clicks = (0..=n % 9).map(|m| at(click(""), "occurred_at", format!("{n}-{m}")));
        let wrong = (n % 7 == 0).then(|| json!({"event_type": "stare", "item_id": "lamp"}));
        let clicks: Vec<Value> = clicks.chain(wrong).collect();
        client.post("/v1/interactions", &json!(clicks)).await;
        if n % 3 == 0 {
            let shown = at(shown(""), "occurred_at", n.to_string());
            client.post("/v1/exposures", &shown).await;
            let assigned = at(assigned(""), "ts", n.to_string());
            client.post("/v1/assignments", &assigned).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Takes the README's pictures: `cargo test --test it pictures_of_the_live_page -- --ignored`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes into docs/"]
async fn pictures_of_the_live_page() {
    let Some(chromium) = chromium::find() else {
        return;
    };
    let rig = Rig::start(settings).await;
    let mut page = open(&rig, &chromium, &key("demo", Role::Viewer)).await;
    page.show_as(1440, "light").await;
    let posting = tokio::spawn(keep_posting(rig.client.clone()));
    tokio::time::sleep(Duration::from_secs(40)).await;
    page.until(
        "partitions",
        "document.querySelectorAll('.timeline li').length > 3",
    )
    .await;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (width, scheme, height, path) in [
        (1440, "light", 850, docs.join("live-page.png")),
        (390, "dark", 1150, docs.join("live-page-390.png")),
        (1440, "dark", 6000, folder.join("live-1440-dark.png")),
        (390, "light", 9000, folder.join("live-390-light.png")),
    ] {
        page.show_as(width, scheme).await;
        // The charts are drawn again with the next answer.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        page.picture(&path, height).await;
        println!("{}", path.display());
    }
    posting.abort();
}

/// Seconds of CPU, in user mode and in the kernel, that a process has used.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks = |at: usize| -> f64 { after_name.split(' ').nth(at).unwrap().parse().unwrap() };
    (ticks(11) + ticks(12)) / 100.0
}

/// What an open page costs the service: `cargo test --release --test it cost_of_an_open_page --
/// --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of two minutes"]
async fn cost_of_an_open_page() {
    let Some(chromium) = chromium::find() else {
        return;
    };
    let rig = Rig::start(settings).await;
    let measured = async || {
        let before = cpu_seconds(rig.process.pid());
        tokio::time::sleep(Duration::from_secs(60)).await;
        100.0 * (cpu_seconds(rig.process.pid()) - before) / 60.0
    };
    let closed = measured().await;
    let _page = open(&rig, &chromium, &key("demo", Role::Viewer)).await;
    let opened = measured().await;
    println!("CPU of the service: {closed:.2} % with the page closed, {opened:.2} % with it open");
    assert!(opened - closed <= 1.0, "{closed:.2} %, {opened:.2} %");
}
