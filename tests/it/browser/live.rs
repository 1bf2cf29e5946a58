//! The live page in a real browser: numbers move as events come, and what is away is said to be.

use std::path::Path;

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use super::chromium;
use super::devtools::Page;
use crate::harness::{Rig, assigned, click, key, shown};

/// The names of a page's parts that assistive programs need, in the page's own words.
const NAMELESS: &str = "
    [...document.querySelectorAll('table')].filter(table => !table.caption?.textContent).length
    + [...document.querySelectorAll('input')].filter(input => !input.labels.length).length
    + [...document.querySelectorAll('[role=region], [role=img], meter')].filter(part => !part.getAttribute('aria-label')).length
    + [...document.querySelectorAll('button, a')].filter(part => !part.textContent.trim()).length
";

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
    let mut rig = Rig::start(|settings| settings.with("--default-ack", "durable")).await;
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

/// Takes the README's pictures: `cargo test --test it pictures_of_the_live_page -- --ignored`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes into docs/"]
async fn pictures_of_the_live_page() {
    let Some(chromium) = chromium::find() else {
        return;
    };
    let rig = Rig::start(|settings| settings.with("--default-ack", "durable")).await;
    let mut page = open(&rig, &chromium, &key("demo", Role::Viewer)).await;
    page.show_as(1440, "light").await;
    for n in 0..60 {
        let id = format!("e{n}");
        let mut now = click(&id);
        now["occurred_at"] = jiff::Timestamp::now().to_string().into();
        let mut bad = now.clone();
        bad["event_type"] = "stare".into();
        let bad = if n % 7 == 0 { Some(bad) } else { None };
        let clicks: Vec<Value> = (0..=n % 9)
            .map(|at| {
                let mut one = now.clone();
                one["event_id"] = format!("{id}-{at}").into();
                one
            })
            .chain(bad)
            .collect();
        rig.client.post("/v1/interactions", &json!(clicks)).await;
        if n % 3 == 0 {
            rig.client.post("/v1/exposures", &shown(&id)).await;
            rig.client.post("/v1/assignments", &assigned(&id)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    page.until(
        "partitions",
        "document.querySelectorAll('.timeline li').length > 3",
    )
    .await;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (width, scheme, height, path) in [
        (1440, "light", 1150, docs.join("live-page.png")),
        (390, "dark", 1150, docs.join("live-page-390.png")),
        (1440, "dark", 6000, folder.join("live-1440-dark.png")),
        (390, "light", 9000, folder.join("live-390-light.png")),
    ] {
        page.show_as(width, scheme).await;
        // The charts are drawn again with the next answer.
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        page.picture(&path, height).await;
        println!("{}", path.display());
    }
}
