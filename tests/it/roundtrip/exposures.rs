//! Exposures with hostile values.

use proptest::collection::vec;
use proptest::option::of;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    EVENTS, any_json, assert_json_equal, filled, hashed, hostile, occurred, path_safe, post_all,
    rows_by_id, shown_time, stored_request, time,
};
use crate::harness::{DEMO, Service, generated};

#[tokio::test]
async fn hostile_exposures_read_back_as_they_were_sent() {
    let service = Service::start().await;
    let strategy = (
        (
            occurred(),
            filled(),
            path_safe(),
            of(path_safe()),
            of(hostile()),
        ),
        (of(filled()), of(filled()), of(filled()), of(filled())),
        (any_json(), any_json(), vec((filled(), any_json()), 0..4)),
    );
    let sent = generated(strategy, EVENTS / 3);
    let id = |n: usize| Uuid::from_u128(n as u128 + 1).to_string();
    let lists: Vec<Value> = sent
        .iter()
        .map(|(.., (_, _, items))| {
            let items = items.iter().zip(1..);
            items
                .map(|((item, more), rank)| json!({"item_id": item, "rank": rank, "more": more}))
                .collect()
        })
        .collect();
    let events: Vec<Value> = sent
        .iter()
        .zip(&lists)
        .enumerate()
        .map(|(n, ((one, two, (context, extra, _)), items))| {
            let (at, request, surface, segment, session) = one;
            let (experiment, variant, algo, config) = two;
            json!({
                "event_id": id(n), "occurred_at": time(*at).to_string(), "request_id": request,
                "surface": surface, "segment": segment, "anonymous_id": session,
                "experiment": {"id": experiment, "variant": variant}, "algo_version": algo,
                "rules_version": config, "context": {"c": context}, "items": items, "odd": extra
            })
        })
        .collect();
    post_all(&service, "/v1/exposures", &events).await;

    let found = rows_by_id(&service, "exposure_events").await;
    assert_eq!(found.len(), events.len());
    for (n, (one, two, _)) in sent.iter().enumerate() {
        let (at, request, surface, segment, session) = one;
        let (experiment, variant, algo, config) = two;
        let row = &found[&id(n)];
        let bare = config
            .as_ref()
            .map(|etag| etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"'));
        assert_eq!(
            json!(row),
            json!({
                "tenant_id": DEMO, "event_id": id(n), "occurred_at": shown_time(time(*at)),
                "request_id": stored_request(request), "surface": surface,
                "segment": segment.as_deref().unwrap_or("default"),
                "user_key": hashed(session.as_ref()).map(|hash| format!("\\x{hash}")),
                "session_id": request, "experiment_id": experiment, "experiment_variant": variant,
                "algo_version": algo.as_deref().unwrap_or("unknown"), "config_etag": null,
                "rules_etag": bare, "request": row["request"], "response": row["response"],
                "meta": row["meta"]
            }),
        );
    }
    let table = "exposure_events";
    let items = lists.iter().map(Value::to_string).collect();
    assert_json_equal(&service, table, "response->'items'", items).await;
    let contexts = sent.iter().map(|(.., (context, ..))| context.to_string());
    assert_json_equal(
        &service,
        table,
        "request->'context'->'c'",
        contexts.collect(),
    )
    .await;
    let odd = sent.iter().map(|(.., (_, extra, _))| extra);
    // A field with the value null counts as absent.
    let odd = odd.map(|value| {
        if value.is_null() {
            "null".to_owned()
        } else {
            value.to_string()
        }
    });
    let column = "coalesce(meta->'extra'->'odd', 'null')";
    assert_json_equal(&service, table, column, odd.collect()).await;
}
