//! Promise: the suite's readers can decode all that is accepted, from the views and from the table.
//!
//! One row that they cannot decode ends their run of a whole day.

mod go;

use std::collections::HashMap;

use go::{Item, Node, parse, quoted};
use proptest::prelude::*;
use proptest::sample::select;

use crate::harness::{Database, Row, Service, generated, rows_as_text};

const EVENTS: usize = 4000;
const BODY: usize = 500;

/// What the decoder has to refuse; otherwise the test below says nothing.
#[test]
fn the_readers_give_up_where_the_suites_do() {
    for items in [
        r#"[{"Rank": "x", "rank": 1, "item_id": "a"}]"#,
        r#"[{"rank": 1, "item_id": "a", "ITEM_ID": 7}]"#,
        "[{\"ran\u{212A}\": 1.5, \"item_id\": \"a\"}]",
        r#"[{"rank": 1.0, "item_id": "a"}]"#,
        r#"[{"rank": 1e0, "item_id": "a"}]"#,
        r#"[{"rank": "1", "item_id": "a"}]"#,
        r#"[{"rank": 9223372036854775808, "item_id": "a"}]"#,
        r#"[{"rank": -1, "item_id": "a"}]"#,
        r#"[{"rank": 1, "item_id": ""}]"#,
        r#"[{"rank": 1}]"#,
        r#"[{"rank": 1, "item_id": 7}]"#,
        r#"[7]"#,
        r#"{}"#,
    ] {
        let response = format!(r#"{{"items": {items}}}"#);
        go::pipelines_row("home", "s", &response).unwrap_err();
        let data = format!(
            r#"{{"request_id": "r", "user_id": "u", "ts": "2026-05-24T10:00:00Z", "items": {items}}}"#
        );
        go::exposure(&data).unwrap_err();
    }
    let response = r#"{"items": [{"Rank": 5, "rank": 0, "item_id": "a", "more": {"rank": "x"}}]}"#;
    let item = Item {
        id: "a".into(),
        rank: 0,
    };
    assert_eq!(go::pipelines_row("home", "s", response), Ok(vec![item]));
    go::pipelines_row("home", " ", response).unwrap_err();
    go::pipelines_row("a/b", "s", response).unwrap_err();
    for wrong in [
        r#""latency_ms": 1e309"#,
        r#""latency_ms": "slow""#,
        r#""error": 1"#,
        r#""context": {"n": 7}"#,
        r#""context": []"#,
        r#""more": 1"#,
        r#""user_id": """#,
        r#""ts": "yesterday""#,
    ] {
        let name = wrong.split('"').nth(1).unwrap();
        let rest = [
            ("request_id", r#""r""#),
            ("user_id", r#""u""#),
            ("ts", r#""2026-05-24T10:00:00Z""#),
        ];
        let rest = rest.iter().filter(|(field, _)| *field != name);
        let rest: String = rest
            .map(|(field, value)| format!(", \"{field}\": {value}"))
            .collect();
        go::exposure(&format!("{{{wrong}{rest}}}")).unwrap_err();
    }
}

/// Values of every kind, as JSON text: what a reader may take for another type, or not at all.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(vec![
            "1", "2", "7", "0", "-0", "-1", "1.0", "1e0", "1E2", "0.5", "2147483647", "2147483648",
            "99999999999999999999", "1e308", "1e309", "-1e400", "1e-400", "null", "true", "false",
            r#""x""#, r#""1""#, r#""""#, r#"" ""#, r#""\u00a0""#, "[]", "{}", r#"["a"]"#,
            r#"{"Rank":"x","rank":1}"#, r#"[{"a":[1.0]}]"#,
        ])
        .prop_map(str::to_owned),
        1 => "[1-9][0-9]{300,330}",
        1 => any::<String>().prop_map(|text| quoted(&text.replace('\0', ""))),
        1 => any::<f64>().prop_map(|number| serde_json::Value::from(number).to_string()),
    ]
}

/// Names that mean something to a reader, and names that it may take for those.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(vec![
            "item_id", "rank", "score", "propensity", "logging_propensity", "target_propensity",
        ])
        .prop_map(quoted),
        1 => select(vec![
            "Rank", "RANK", "ran\u{212A}", "\u{17F}core", "Score", "ITEM_ID", "Item_Id", "Propensity",
            "propen\u{17F}ity", "LOGGING_propensity", "target_Propensity",
        ])
        .prop_map(quoted),
        1 => select(vec![r#""ran\u006b""#, r#""R\u0061nk""#, r#""\u0069tem_id""#])
            .prop_map(str::to_owned),
        2 => select(vec!["items", "Items", "more", "itemId", "ranks", "explain", "reasons", "meta"])
            .prop_map(quoted),
    ]
}

fn members(most: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec((name(), value()), 0..most).prop_map(|members| {
        let members = members.iter();
        let members: Vec<_> = members
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        members.join(",")
    })
}

/// An item: mostly one as it should be, with members that may be anything.
fn item() -> impl Strategy<Value = String> {
    let rank = prop_oneof![
        Just(String::new()),
        (1..300_u32).prop_map(|rank| format!(r#","rank":{rank}"#)),
    ];
    let good = (
        "[a-z]{1,6}",
        rank,
        prop_oneof![4 => Just(String::new()), 1 => members(3)],
    );
    prop_oneof![
        30 => good.prop_map(|(id, rank, more)| {
            let comma = if more.is_empty() { "" } else { "," };
            format!(r#"{{"item_id":"{id}"{rank}{comma}{more}}}"#)
        }),
        1 => members(4).prop_map(|members| format!("{{{members}}}")),
        1 => value(),
    ]
}

fn items() -> impl Strategy<Value = String> {
    prop_oneof![
        15 => proptest::collection::vec(item(), 0..5)
            .prop_map(|items| format!("[{}]", items.join(","))),
        1 => value(),
    ]
}

/// A field that may be absent, mostly with one of the `usual` values.
fn field(name: &'static str, usual: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    let usual: Vec<String> = usual.iter().map(|text| (*text).to_owned()).collect();
    prop_oneof![
        4 => Just(String::new()),
        10 => select(usual).prop_map(move |value| format!(r#","{name}":{value}"#)),
        1 => value().prop_map(move |value| format!(r#","{name}":{value}"#)),
    ]
}

/// An object with members that readers decode, or that look like them.
fn object() -> impl Strategy<Value = String> {
    let name = select(vec![
        "surface", "Surface", "locale", "request_id", "schema", "latency_ms", "error", "tenant",
        "experiment_id", "experiment_variant", "id", "variant", "Variant", "context", "items", "n",
        "user_id", "session_id", "extra", "source",
    ]);
    let member = (name, value()).prop_map(|(name, value)| format!("{}:{value}", quoted(name)));
    proptest::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(",")))
}

fn field_of_object(name: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::new()),
        2 => object().prop_map(move |object| format!(r#","{name}":{object}"#)),
    ]
}

/// The fields that exposures of all formats may have.
fn common() -> impl Strategy<Value = String> {
    let texts = (
        field("segment", &[r#""vip""#, r#""a b""#, r#""é""#, r#""a/b""#]),
        field("algo_version", &[r#""v7""#]),
        field("config_version", &[r#""W/\"c\"""#]),
        field("session_id", &[r#""s""#]),
        field("user_id", &[r#""u""#]),
        field("latency_ms", &["12.5"]),
        field("error", &["true"]),
    );
    let objects = (
        field_of_object("meta"),
        field_of_object("request"),
        prop_oneof![
            Just(String::new()),
            Just(r#","experiment":{"id":"e","variant":"A"}"#.to_owned()),
            object().prop_map(|object| format!(r#","experiment":{object}"#)),
        ],
    );
    (texts, objects)
        .prop_map(|((a, b, c, d, e, f, g), (h, i, j))| [a, b, c, d, e, f, g, h, i, j].concat())
}

/// The text of an exposure without its request id, and the text of its items.
fn exposure() -> impl Strategy<Value = (String, String)> {
    let surface = select(vec![
        r#""home""#, r#""home""#, r#""home""#, r#"" p d p ""#, r#""a/b""#, "7",
    ]);
    let at = r#""2026-03-10T08:00:00.25Z""#;
    let format = (0..3_u8, field_of_object("context"), object());
    (surface, format, common(), items()).prop_map(
        move |(surface, (format, context, inner), common, items)| {
            let fields = match format {
                0 => format!(r#""occurred_at":{at},"surface":{surface}{context}"#),
                1 => format!(
                    r#""schema_version":"v1","timestamp":{at},"surface":{surface}{context}"#
                ),
                _ => {
                    let more = &inner[1..inner.len() - 1];
                    let comma = if more.is_empty() { "" } else { "," };
                    format!(r#""ts":{at},"context":{{"surface":{surface}{comma}{more}}}"#)
                }
            };
            (format!(r#"{fields},"items":{items}{common}"#), items)
        },
    )
}

/// Lines of pipelines_v1, some of one list.
fn line() -> impl Strategy<Value = String> {
    let rank = prop_oneof![
        Just(String::new()),
        (0..3_u32).prop_map(|rank| format!(r#","rank":{rank}"#)),
        value().prop_map(|value| format!(r#","rank":{value}"#)),
    ];
    let id = prop_oneof![5 => "[a-c]".prop_map(|id| quoted(&id)), 1 => value()];
    (rank, id, 0..40_u8, field("request_id", &[r#""p1""#, r#""p2""#]), members(2)).prop_map(
        |(rank, id, second, request, more)| {
            let comma = if more.is_empty() { "" } else { "," };
            format!(
                r#"{{"v":1,"ts":"2026-03-10T09:00:{second:02}Z","tenant":"demo","surface":"home","session_id":"s{}","item_id":{id}{rank}{request}{comma}{more}}}"#,
                second % 4
            )
        },
    )
}

fn interaction() -> impl Strategy<Value = String> {
    let fields = (
        field("request_id", &[r#""r1""#]),
        field("user_id", &[r#""u""#]),
        field("session_id", &[r#""s""#]),
        field(
            "value",
            &["19.9", "0", "-0.0000001", "999999999999.999999", "1e-400"],
        ),
        field("position", &["3"]),
        field_of_object("meta"),
        prop_oneof![5 => "[a-z]{1,4}".prop_map(|id| quoted(&id)), 1 => value()],
        select(vec!["click", "conversion", "purchase", "view"]),
        select(vec!["ts", "occurred_at"]),
    );
    fields.prop_map(|(a, b, c, d, e, f, item, kind, at)| {
        format!(
            r#"{{"{at}":"2026-03-10T08:00:00Z","event_type":"{kind}","item_id":{item}{a}{b}{c}{d}{e}{f}}}"#
        )
    })
}

/// Posts events; returns how many were accepted and rejected.
async fn post(service: &Service, path: &str, events: &[String]) -> (u64, usize) {
    let (mut accepted, mut rejected) = (0, 0);
    for portion in events.chunks(BODY) {
        let body = format!("[{}]", portion.join(","));
        let reply = service.client().post_bytes(path, body).await;
        let (committed, duplicates, quarantined, refused) = reply.settled();
        assert_eq!(quarantined, 0, "{}", reply.text);
        accepted += committed + duplicates;
        rejected += refused;
    }
    assert!(accepted > events.len() as u64 / 6, "{accepted} accepted");
    assert!(rejected > events.len() / 20, "{rejected} rejected");
    (accepted, rejected)
}

/// The items of a list as the contract reads them: the rank of one that has none is its place.
fn sent_items(text: &str) -> Vec<Item> {
    let Node::List(items) = parse(text).unwrap() else {
        panic!("not a list: {text}");
    };
    let read = |(place, item): (i64, &Node)| {
        let Node::Object(members) = item else {
            panic!("not an item: {text}");
        };
        let of = |name: &str| {
            let mut found = members.iter().filter(|(key, _)| key == name);
            found.next_back().map(|(_, value)| value.clone())
        };
        let Some(Node::Text(id)) = of("item_id") else {
            panic!("an item without an id: {text}");
        };
        let rank = match of("rank") {
            Some(Node::Number(rank)) => rank.parse().unwrap(),
            _ => place,
        };
        Item { id, rank }
    };
    (1..).zip(&items).map(read).collect()
}

fn text<'r>(row: &'r Row, column: &str) -> &'r str {
    row[column].as_str().unwrap_or_default()
}

/// The items of each row of a relation that recsys-pipelines reads, by request id as it was sent.
async fn read_as_pipelines(database: &Database, relation: &str) -> HashMap<String, Vec<Item>> {
    let sql = format!(
        "SELECT surface, segment, session_id, response, coalesce(meta->>'request_id', request_id::text) AS named
           FROM {relation} WHERE occurred_at >= '2026-03-10' AND occurred_at < '2026-03-11'"
    );
    let rows = rows_as_text(database, &sql).await;
    let read = |row: &Row| {
        let read = go::pipelines_row(
            text(row, "surface"),
            text(row, "session_id"),
            text(row, "response"),
        );
        let items = read.unwrap_or_else(|why| panic!("{relation}: {why}: {row:?}"));
        (text(row, "named").to_owned(), items)
    };
    rows.iter().map(read).collect()
}

#[tokio::test]
async fn whatever_is_accepted_can_be_decoded_and_is_what_was_sent() {
    let service = Service::start().await;
    let exposures = generated(exposure(), EVENTS);
    let events: Vec<String> = exposures
        .iter()
        .enumerate()
        .map(|(n, (fields, _))| format!(r#"{{"request_id":"r{n}",{fields}}}"#))
        .collect();
    let (accepted, _) = post(&service, "/v1/exposures", &events).await;
    let lines = generated(line(), EVENTS / 4);
    post(&service, "/v1/exposures", &lines).await;
    let interactions = generated(interaction(), EVENTS / 2);
    post(&service, "/v1/interactions", &interactions).await;

    let sent = |named: &str| {
        let n: Option<usize> = named.strip_prefix('r').and_then(|n| n.parse().ok());
        n.map(|n| sent_items(&exposures[n].1))
    };
    for relation in ["exposure_events", "exposures_for_pipelines"] {
        let lists = read_as_pipelines(&service.database, relation).await;
        let mut compared = 0;
        for (named, found) in &lists {
            if let Some(sent) = sent(named) {
                assert_eq!(*found, sent, "{relation} {named}");
                compared += 1;
            }
        }
        assert_eq!(compared, accepted, "{relation}");
        let compared = usize::try_from(compared).unwrap();
        assert!(lists.len() > compared + 20, "no lists of lines");
    }
    let documents = async |view: &str| {
        let rows = rows_as_text(
            &service.database,
            &format!("SELECT data::text AS data FROM {view}"),
        )
        .await;
        assert!(rows.len() > 50, "{view}: {}", rows.len());
        rows
    };
    for row in documents("recsys_exposures").await {
        let data = text(&row, "data");
        let (named, found) = go::exposure(data).unwrap_or_else(|why| panic!("{why}: {data}"));
        if let Some(sent) = sent(&named) {
            // The view takes ranks of up to nine digits, and the place for others.
            let sent = sent
                .into_iter()
                .zip(&found)
                .map(|(sent, found)| match sent.rank {
                    ..1_000_000_000 => sent,
                    _ => found.clone(),
                });
            assert_eq!(found, sent.collect::<Vec<_>>(), "{named}");
        }
    }
    for row in documents("recsys_outcomes").await {
        let data = text(&row, "data");
        go::outcome(data).unwrap_or_else(|why| panic!("{why}: {data}"));
    }
    for row in documents("experiment_assignments").await {
        let data = text(&row, "data");
        go::assignment(data).unwrap_or_else(|why| panic!("{why}: {data}"));
    }
}

#[tokio::test]
async fn the_view_for_pipelines_mends_rows_that_others_wrote() {
    let service = Service::start().await;
    service.exposures(&crate::harness::shown("a")).await;
    let database = &service.database;
    let mut expected = Vec::new();
    for (n, (session, response, items)) in [
        ("'s1'", r#"{"items": [{"item_id": "a", "rank": 0, "Rank": "x"}], "meta": {"x": 1}}"#, vec![("a", 0)]),
        ("NULL", r#"{"items": [{"item_id": "a", "rank": "x"}, {"item_id": ""}, {"item_id": "b", "rank": 1.0}]}"#, vec![("a", 1), ("b", 3)]),
        ("''", r#"{"items": [7, {"item_id": 5}, {"item_id": "c", "rank": 3000000000}]}"#, vec![("5", 2), ("c", 3_000_000_000)]),
        ("E' \\t'", r#"{"items": {"item_id": "a"}}"#, vec![]),
        ("'s2'", "[1]", vec![]),
        ("'s3'", r#"{"items": [{"item_id": "a", "rank": -1, "ITEM_ID": 7}, {"item_id": "b", "rank": 99999999999999999999}]}"#, vec![("a", 1), ("b", 2)]),
    ]
    .into_iter()
    .enumerate()
    {
        let request = format!("00000000-0000-4000-8000-00000000000{n}");
        database
            .execute(&format!(
                "INSERT INTO exposure_events (tenant_id, occurred_at, event_id, received_at, request_id, surface, segment, session_id,
                                              algo_version, request, response)
                 SELECT tenant_id, occurred_at, '{request}', now(), '{request}', 'home', 'default', {session}, 'v', '{{}}', '{response}'
                   FROM exposure_events LIMIT 1"
            ))
            .await;
        let items = items.into_iter().map(|(id, rank)| Item { id: id.into(), rank });
        expected.push((request, items.collect::<Vec<_>>()));
    }
    let found = read_as_pipelines(database, "exposures_for_pipelines").await;
    assert_eq!(found.len(), expected.len() + 1);
    for (request, items) in expected {
        assert_eq!(found[&request], items, "{request}");
    }
    let sessions = "SELECT session_id FROM exposures_for_pipelines WHERE segment = 'default' AND algo_version = 'v' ORDER BY request_id";
    let client = database.connect().await;
    assert_eq!(
        crate::harness::texts(&client, sessions).await,
        [
            "s1",
            "00000000-0000-4000-8000-000000000001",
            "00000000-0000-4000-8000-000000000002",
            "00000000-0000-4000-8000-000000000003",
            "s2",
            "s3"
        ]
    );
    // A day of a tenant's surface is read without the other partitions.
    let plan = "EXPLAIN SELECT * FROM exposures_for_pipelines
                 WHERE tenant_id = gen_random_uuid() AND surface = 'home'
                   AND occurred_at >= '2026-03-11' AND occurred_at < '2026-03-12'";
    let plan = crate::harness::texts(&client, plan).await.join("\n");
    assert!(!plan.contains("exposure_events_2026_03_10"), "{plan}");
}
