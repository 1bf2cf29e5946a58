//! Promise: an event is known by what it says, for the tenant that it is of.

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{Client, DEMO, OTHER, Service, texts};

const AT: &str = "2026-03-10T08:00:00.5Z";

fn outcome(request: &str) -> Value {
    json!({"request_id": request, "user_id": "u", "item_id": "a", "event_type": "click", "ts": AT})
}

fn with(mut event: Value, name: &str, value: &str) -> Value {
    event[name] = json!(value);
    event
}

#[tokio::test]
async fn a_log_that_a_shipper_has_written_anew_is_stored_once() {
    let service = Service::start().await;
    let list = json!([{"item_id": "a", "rank": 1}]);
    let line = |item: &str| {
        json!({"v": 1, "ts": AT, "tenant": "demo", "surface": "home", "session_id": "s",
               "item_id": item, "request_id": "r1"})
    };
    for (path, events, rows) in [
        (
            "/v1/exposures",
            vec![
                json!({"schema_version": "v1", "timestamp": AT, "request_id": "r1", "tenant_id": "demo",
                       "surface": "home", "subject": {"session_id": "s"}, "items": list}),
            ],
            1,
        ),
        (
            "/v1/exposures",
            vec![
                json!({"request_id": "r1", "user_id": "u", "ts": AT, "items": list,
                       "context": {"surface": "home", "tenant": "demo"}}),
            ],
            2,
        ),
        ("/v1/exposures", vec![line("a"), line("b")], 3),
        ("/v1/interactions", vec![outcome("r1")], 1),
    ] {
        let lines = service
            .client()
            .header("content-type", "application/x-ndjson");
        let count = events.len() as u64;
        let body: Vec<String> = events.iter().map(Value::to_string).collect();
        let reply = lines.post_bytes(path, body.join("\n")).await;
        assert_eq!(reply.settled(), (count, 0, 0, 0), "{}", reply.text);
        let anew: Vec<String> = body
            .iter()
            .map(|line| {
                let line = line.replacen('{', r#"{"host": "web-1", "#, 1);
                line.replace("08:00:00.5Z", "09:00:00.500000+01:00")
            })
            .collect();
        let reply = lines.post_bytes(path, anew.join("\n")).await;
        assert_eq!(reply.settled(), (0, count, 0, 0), "{}", reply.text);
        let table = path.replace("/v1/exposures", "exposure_events");
        let table = table.replace("/v1/interactions", "interaction_events");
        assert_eq!(service.database.count(&table).await, rows);
        // With ids of their own they are events of their own.
        let named = events
            .iter()
            .map(|event| with(event.clone(), "event_id", "e").to_string());
        let named: Vec<String> = named.collect();
        let reply = lines
            .query("validate=true")
            .post_bytes(path, named.join("\n"))
            .await;
        assert_eq!(reply.json["valid"], count, "{}", reply.text);
        assert_eq!(reply.json["warnings"], Value::Null, "{}", reply.text);
    }
}

#[tokio::test]
async fn an_outcome_under_a_key_for_all_tenants_names_its_tenant() {
    let service = Service::start().await;
    let all = service.client().role("demo", Role::Service);
    let path = "/v1/interactions";
    let other = all.header("x-org-id", "other");
    let refused: Vec<(Client, Value)> = vec![
        (all.clone(), outcome("r")),
        (all.clone(), with(outcome("r"), "tenant_id", " ")),
        (all.clone(), with(outcome("r"), "event_id", "e")),
        (
            all.query("format=outcome_v1"),
            with(outcome("r"), "occurred_at", AT),
        ),
    ];
    for (client, event) in refused {
        let reply = client.post(path, &event).await;
        assert_eq!(reply.status, 422, "{event}");
        assert_eq!(
            reply.rejection(),
            ("missing_tenant", "tenant_id"),
            "{event}"
        );
        let message = reply.json["rejected"][0]["message"].as_str().unwrap();
        for advice in ["X-Org-Id", "tenant_id", "the tenant's own key"] {
            assert!(message.contains(advice), "{message}");
        }
    }
    assert_eq!(service.database.count("interaction_events").await, 0);
    let taken: Vec<(Client, Value, String)> = vec![
        (other.clone(), outcome("1"), OTHER.to_string()),
        (
            all.header("x-org-id", "demo"),
            outcome("2"),
            DEMO.to_string(),
        ),
        (
            all.clone(),
            with(outcome("3"), "tenant_id", "other"),
            OTHER.to_string(),
        ),
        (
            all.clone(),
            with(outcome("4"), "tenant", DEMO),
            DEMO.to_string(),
        ),
        (service.client().clone(), outcome("5"), DEMO.to_string()),
        (
            service.client().role("other", Role::Ingest),
            outcome("6"),
            OTHER.to_string(),
        ),
        // A native event of such a key is its own tenant's.
        (
            all.clone(),
            json!({"request_id": "7", "occurred_at": AT, "event_type": "click", "item_id": "a"}),
            DEMO.to_string(),
        ),
    ];
    let client = service.database.connect().await;
    for (sender, event, tenant) in taken {
        let reply = sender.post(path, &event).await;
        assert_eq!(reply.settled(), (1, 0, 0, 0), "{event}: {}", reply.text);
        let named = event["request_id"].as_str().unwrap();
        let sql = format!(
            "SELECT tenant_id::text FROM interaction_events WHERE meta->>'request_id' = '{named}'"
        );
        assert_eq!(texts(&client, &sql).await, [tenant], "{event}");
    }
}

#[tokio::test]
async fn a_line_that_stands_twice_is_one_row_and_one_document() {
    let service = Service::start().await;
    let list = json!([{"item_id": "a", "rank": 1}]);
    let assignment =
        json!({"experiment_id": "e", "variant": "A", "request_id": "r4", "user_id": "u", "ts": AT});
    let mut timeless = assignment.clone();
    timeless["request_id"] = json!("r5");
    timeless.as_object_mut().unwrap().remove("ts");
    for (path, line, view, request, is_known) in [
        (
            "/v1/exposures",
            json!({"schema_version": "v1", "timestamp": AT, "request_id": "r1", "tenant_id": "demo",
                   "surface": "home", "items": list}),
            "recsys_exposures",
            "r1",
            true,
        ),
        (
            "/v1/exposures",
            json!({"request_id": "r2", "user_id": "u", "ts": AT, "items": list,
                   "context": {"surface": "home", "tenant": "demo"}}),
            "recsys_exposures",
            "r2",
            true,
        ),
        (
            "/v1/interactions",
            outcome("r3"),
            "recsys_outcomes",
            "r3",
            true,
        ),
        (
            "/v1/assignments", assignment, "experiment_assignments", "r4", true,
        ),
        // Without a time a repetition is another row, of which the view shows one.
        (
            "/v1/assignments", timeless, "experiment_assignments", "r5", false,
        ),
    ] {
        let lines = service
            .client()
            .header("content-type", "application/x-ndjson");
        let reply = lines.post_bytes(path, format!("{line}\n{line}\n")).await;
        assert_eq!(reply.settled(), (1, 1, 0, 0), "{}", reply.text);
        let again = lines.post_bytes(path, line.to_string()).await;
        let expected = if is_known { (0, 1, 0, 0) } else { (1, 0, 0, 0) };
        assert_eq!(again.settled(), expected, "{}", again.text);
        let documents = format!("{view} WHERE data ->> 'request_id' = '{request}'");
        assert_eq!(
            service.database.count(&documents).await,
            1,
            "{view} {request}"
        );
    }
}

#[tokio::test]
async fn a_list_in_lines_has_ranks_from_one_for_evaluation_and_pieces_as_it_was_cut() {
    let service = Service::start().await;
    let line = |request: &str, item: &str, rank: Option<u32>| {
        let mut line = json!({"v": 1, "ts": AT, "tenant": "demo", "surface": "home", "session_id": "s",
                              "item_id": item, "request_id": request});
        if let Some(rank) = rank {
            line["rank"] = json!(rank);
        }
        line
    };
    let post = async |lines: &[Value]| {
        let reply = service.client().post("/v1/exposures", &json!(lines)).await;
        let (stored, known, quarantined, rejected) = reply.settled();
        assert_eq!((quarantined, rejected), (0, 0), "{}", reply.text);
        (stored, known)
    };
    let client = service.database.connect().await;
    let ranks = async |sql: &str, request: &str| {
        let sql = sql.replace("REQUEST", request);
        texts(&client, &sql).await.join(" ")
    };
    let evaluated = "SELECT string_agg(item ->> 'rank', ',' ORDER BY n) FROM recsys_exposures,
                            jsonb_array_elements(data -> 'items') WITH ORDINALITY AS listed (item, n)
                      WHERE data ->> 'request_id' = 'REQUEST' GROUP BY data ORDER BY data";
    let stored = "SELECT string_agg(item ->> 'rank', ',' ORDER BY n) FROM exposures_for_pipelines,
                         jsonb_array_elements(response -> 'items') WITH ORDINALITY AS listed (item, n)
                   WHERE meta ->> 'request_id' = 'REQUEST' GROUP BY response ORDER BY response";
    for (request, sent, read, kept) in [
        ("from-0", [Some(0), Some(1), Some(2)], "1,2,3", "0,1,2"),
        ("from-1", [Some(1), Some(2), Some(3)], "1,2,3", "1,2,3"),
        ("back", [Some(2), Some(1), Some(0)], "3,2,1", "2,1,0"),
        ("none", [None, None, None], "1,2,3", "1,2,3"),
        ("gaps", [Some(0), Some(7), Some(9)], "1,8,10", "0,7,9"),
    ] {
        let lines: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .zip(sent)
            .map(|(item, rank)| line(request, item, rank))
            .collect();
        assert_eq!(post(&lines).await, (3, 0), "{request}");
        assert_eq!(ranks(evaluated, request).await, read, "{request}");
        assert_eq!(ranks(stored, request).await, kept, "{request}");
    }
    // A list that is cut is stored in its pieces, each once; cut elsewhere they are other pieces.
    let [a, b, c] = ["a", "b", "c"].map(|item| line("cut", item, None));
    let pieces: [&[Value]; 2] = [&[a.clone(), b.clone()], std::slice::from_ref(&c)];
    for (first, second) in [((2, 0), (1, 0)), ((0, 2), (0, 1))] {
        assert_eq!(
            [post(pieces[0]).await, post(pieces[1]).await],
            [first, second]
        );
    }
    assert_eq!(post(std::slice::from_ref(&a)).await, (1, 0));
    assert_eq!(post(&[b, c]).await, (2, 0));
    let named = |line: &Value, id: &str| with(line.clone(), "event_id", id);
    // One id for all of its lines is the list's, and the first body with it is the list.
    assert_eq!(
        post(&[named(&a, "whole"), named(&line("cut", "d", None), "whole")]).await,
        (2, 0)
    );
    assert_eq!(post(&[named(&a, "whole")]).await, (0, 1));
}
