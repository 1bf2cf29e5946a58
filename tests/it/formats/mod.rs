//! Promise: events of each format become the rows that the suite's contract specifies.
//!
//! Whole rows are compared, as PostgreSQL returns them. The expected values come from the
//! contract, not from the program.

mod native;
mod suite;

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Row, Service, rows};

/// HMAC-SHA256 with the salt "salt": of "user" (the contract's vector), "anon-1" and "session-1",
/// computed by another program.
const USER: &str = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";
const ANON: &str = "9d7086896eb1d9e9e54aa00cf55727b7f3d136e70748739cd04c76c5833fcffe";
const SESSION: &str = "abebc6c5284454fc251c93b72de04e58098a8382b1cb4d6a53d2be191a547e85";
/// UUIDv5 in the OID namespace: vectors of the contract.
const R1: &str = "d01a42ab-5bfd-532a-a2bb-240ba2e5bc12";
const REQ_1: &str = "212368a7-0138-518e-aa15-c4ccfd6834b6";
/// UUIDv5 of "evt-1" in the namespace of the tenant `demo`.
const EVT_1: &str = "aee0af67-3ee3-5d79-bcf1-771a8992a7a5";
const A_UUID: &str = "0190163d-8694-439b-aea5-966c26f8ad91";
const ETAG: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn bytes(hash: &str) -> Value {
    json!(format!("\\x{hash}"))
}

/// Posts `body` and returns its rows.
async fn exposures(body: &Value, role: Role) -> Vec<Row> {
    let service = Service::start().await;
    let client = service.client().role("demo", role);
    let reply = client.post("/v1/exposures", body).await;
    let events = body.as_array().map_or(1, Vec::len) as u64;
    assert_eq!(reply.settled(), (events, 0, 0, 0), "{}", reply.text);
    rows(&service.database, "exposure_events").await
}

/// Posts `body` and returns its rows.
async fn interactions(body: &Value) -> Vec<Row> {
    let service = Service::start().await;
    let reply = service.interactions(body).await;
    let events = body.as_array().map_or(1, Vec::len) as u64;
    assert_eq!(reply.settled(), (events, 0, 0, 0), "{}", reply.text);
    rows(&service.database, "interaction_events").await
}

/// Removes the generated event id from a row and checks its version.
fn take_made_id(row: &mut Row, version: usize) -> Uuid {
    let id = row.remove("event_id").unwrap();
    let id = Uuid::parse_str(id.as_str().unwrap()).unwrap();
    assert_eq!(id.get_version_num(), version, "{id}");
    id
}
