//! Promise: what cannot work is reported before the first acknowledgement, with the true reason;
//! a repair is noticed.

mod clock;
mod idle;
mod limits;
pub mod pooler;
mod roles;
mod session;
mod settings;
mod shape;
mod transport;

use serde_json::Value;

use crate::harness::{Client, Process, eventually};

/// The status of `/readyz`, and all its reasons and notes as one text.
async fn readiness(client: &Client) -> (String, String) {
    let reply = client.get("/readyz").await.json;
    let sentences = |name: &str| -> Vec<String> {
        let list = reply[name].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    let all = [sentences("reasons"), sentences("notes")].concat();
    (reply["status"].as_str().unwrap().to_owned(), all.join("\n"))
}

/// Waits until `/readyz` has this status and contains this sentence.
async fn says(process: &Process, client: &Client, status: &str, sentence: &str) {
    let mut last = None;
    let seen = tokio::time::timeout(crate::harness::SOON, async {
        loop {
            let now = readiness(client).await;
            if now.0 == status && now.1.contains(sentence) {
                return;
            }
            last = Some(now);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let log = process.log();
    assert!(
        seen.is_ok(),
        "not {status} with '{sentence}': {last:?}\n{log}"
    );
}

/// Waits until `/readyz` is `ready`.
async fn is_ready(process: &Process, client: &Client) {
    says(process, client, "ready", "").await;
}

/// Waits until an event is refused with `cannot_store`, and returns the answer. Until the keys
/// are known, refusals have another code.
async fn refusal(client: &Client, path: &str, event: &Value) -> String {
    let client = client.query("ack=durable");
    let mut last = None;
    eventually("a refusal", async || {
        let reply = client.post(path, event).await;
        assert_eq!(reply.status, 503, "{}", reply.text);
        let is_it = reply.problem().1 == "cannot_store";
        last = Some(reply.text);
        is_it
    })
    .await;
    last.unwrap()
}

/// The findings of `/readyz?verbose` that have this code.
async fn findings(client: &Client, code: &str) -> Vec<Value> {
    let reply = client.get("/readyz?verbose").await.json;
    let all = reply["findings"].as_array().cloned().unwrap_or_default();
    all.into_iter()
        .filter(|finding| finding["code"] == code)
        .collect()
}

/// Waits until `rows` rows are stored.
async fn is_stored(client: &Client, rows: u64) {
    eventually("the rows to be stored", async || {
        let reply = client.get("/readyz?verbose").await.json;
        let tables = reply["rows"].as_array().unwrap().clone();
        tables
            .iter()
            .map(|table| table["stored"].as_u64().unwrap())
            .sum::<u64>()
            == rows
    })
    .await;
}
