//! Decimals from JSON text to `numeric(18,6)`.

use proptest::prelude::*;
use uuid::Uuid;

use crate::harness::{Service, generated, one, texts};

#[tokio::test]
async fn the_text_of_a_number_is_rounded_as_postgres_rounds_it() {
    let service = Service::start().await;
    let mut numbers: Vec<String> = [
        "0",
        "-0",
        "0.0",
        "-0.0000004",
        "1e-7",
        "5e-7",
        "-5e-7",
        "4.9999999999999999e-7",
        "0.1",
        "12.3456785",
        "-12.3456785",
        "12.34567849999999",
        "999999999999.999999",
        "999999999999.9999994",
        "-999999999999.999999",
        "1e11",
        "1E11",
        "123e-2",
        "1.5E+3",
        "0.000000000000000000000000000001e30",
        "0e400",
        "1e-400",
        "900719925474.0993",
        "0.30000000000000004",
        "100000000000.0000005",
        "1.0000000000000000000000000000000001",
    ]
    .map(String::from)
    .to_vec();
    let random = (
        any::<bool>(),
        0..=999_999_999_u64,
        proptest::option::of("[0-9]{1,20}"),
        -14..=2_i32,
    )
        .prop_map(|(negative, whole, fraction, exponent)| {
            let sign = if negative { "-" } else { "" };
            let fraction = fraction
                .map(|digits| format!(".{digits}"))
                .unwrap_or_default();
            let exponent = if exponent == 2 {
                String::new()
            } else {
                format!("e{exponent}")
            };
            format!("{sign}{whole}{fraction}{exponent}")
        });
    numbers.extend(generated(random, 2000));
    let events: Vec<String> = numbers
        .iter()
        .enumerate()
        .map(|(n, number)| {
            let id = Uuid::from_u128(n as u128 + 1);
            format!(
                r#"{{"event_id":"{id}","occurred_at":"2026-03-10T08:00:00Z","event_type":"view","item_id":"{number}","value":{number}}}"#
            )
        })
        .collect();
    let body = format!("[{}]", events.join(","));
    let reply = service.client().post_bytes("/v1/interactions", body).await;
    assert_eq!(reply.settled().0, numbers.len() as u64, "{}", reply.text);
    let client = service.database.connect().await;
    let sql = "SELECT item_id || ' became ' || value FROM interaction_events
                WHERE value::text IS DISTINCT FROM (item_id::numeric(18,6))::text";
    assert_eq!(texts(&client, sql).await, Vec::<String>::new());
    let all: i64 = one(&client, "SELECT count(*) FROM interaction_events").await;
    assert_eq!(all, numbers.len() as i64);
}
