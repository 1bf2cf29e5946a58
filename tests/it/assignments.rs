//! Promise: assignments to experiments are taken and stored like the other events, and the views
//! merge them with those of exposures, in any order of arrival.

use std::path::Path;

use recsys_ingest::event::table::Table;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{Database, Mix, Plan, Rig, Service, Told, assigned, click, one, rows, shown};

const TABLE: &str = "ingest_assignments";
const PATH: &str = "/v1/assignments";

#[tokio::test]
async fn an_assignment_is_stored_with_each_field_in_its_column() {
    let service = Service::start().await;
    let event = json!({
        "experiment_id": "ranking", "variant": "B", "request_id": "r1", "user_id": "user",
        "ts": "2025-01-01T00:00:00Z", "context": {"surface": "home", "user_id": "user", "n": 1}
    });
    let reply = service.client().post(PATH, &json!([event, event])).await;
    assert_eq!(reply.settled(), (1, 1, 0, 0));
    let mut found = rows(&service.database, TABLE).await;
    let id = found[0].remove("event_id").unwrap();
    assert_eq!(id.as_str().unwrap().as_bytes()[14], b'5', "a UUIDv5: {id}");
    let user = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";
    assert_eq!(
        json!(found),
        json!([{
            "tenant_id": crate::harness::DEMO, "occurred_at": "2025-01-01 00:00:00+00",
            "request_id": "d01a42ab-5bfd-532a-a2bb-240ba2e5bc12",
            "experiment_id": "ranking", "variant": "B", "user_key": format!("\\x{user}"),
            "surface": "home",
            "context": {"surface": "home", "user_id_hash": user, "n": 1},
            "meta": {"source": "ingest", "schema": "assignment_v1", "request_id": "r1"},
        }])
    );
    let client = service.database.connect().await;
    let partition: String = one(
        &client,
        "SELECT tableoid::regclass::text FROM ingest_assignments",
    )
    .await;
    assert_eq!(partition, "ingest_assignments_2025_01_01");
}

#[tokio::test]
async fn the_endpoint_behaves_as_the_other_two() {
    let service = Service::start().await;
    let plain = service.client();
    for (what, client, status, code) in [
        ("role ingest", plain.clone(), 200, ""),
        (
            "role service",
            plain.role("demo", Role::Service),
            422,
            "all_events_rejected",
        ),
        (
            "role publish",
            plain.role("demo", Role::Publish),
            403,
            "role_not_allowed",
        ),
        (
            "role viewer",
            plain.role("demo", Role::Viewer),
            403,
            "role_not_allowed",
        ),
        ("no key", plain.without("x-api-key"), 401, "missing_api_key"),
        (
            "a page whose origin no list names",
            plain.header("origin", "https://shop.example"),
            403,
            "origin_not_allowed",
        ),
        ("ack", plain.query("ack=durable"), 202, ""),
        ("validate", plain.query("validate"), 200, ""),
        (
            "a format of this endpoint",
            plain.query("format=assignment_v1"),
            200,
            "",
        ),
        (
            "native",
            plain.query("format=native"),
            400,
            "invalid_format",
        ),
        (
            "another endpoint's format",
            plain.query("format=eval_v1"),
            400,
            "invalid_format",
        ),
    ] {
        let reply = client.post(PATH, &assigned(what)).await;
        assert_eq!(reply.status, status, "{what}: {}", reply.text);
        assert_eq!(
            reply.json["code"].as_str().unwrap_or_default(),
            code,
            "{what}"
        );
    }
    let reply = plain.post("//v1/assignments/", &assigned("spelled")).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0));
    // Verdicts, one by one; the rejected one names the event.
    let mut without = assigned("without");
    without["variant"] = json!(null);
    let body = json!([assigned("a"), without, assigned("a"), assigned("b")]);
    let reply = plain.post(PATH, &body).await;
    assert_eq!(reply.settled(), (2, 1, 0, 1));
    assert_eq!(reply.rejection(), ("missing_field", "variant"));
    // The other rejected one is that of the role `service`, which named no tenant.
    for (outcome, expected) in [("duplicate", 1.0), ("rejected", 2.0)] {
        let sample =
            format!("recsys_ingest_events_total{{table=\"{TABLE}\",outcome=\"{outcome}\"}}");
        assert_eq!(service.metric(&sample).await, expected, "{sample}");
    }
    // A row that Postgres refuses is set aside alone.
    service
        .database
        .execute("ALTER TABLE ingest_assignments ADD CHECK (variant <> 'poison')")
        .await;
    let mut poison = assigned("poison");
    poison["variant"] = json!("poison");
    let body = json!([assigned("c"), poison, assigned("d")]);
    assert_eq!(plain.post(PATH, &body).await.settled(), (2, 0, 1, 0));
    let ready = plain.get("/readyz?verbose").await;
    let accounts = ready.json["rows"].as_array().unwrap();
    let account = accounts.iter().find(|one| one["table"] == TABLE).unwrap();
    assert_eq!(account["quarantined"], 1, "{account}");
}

/// A step of a case: what is posted, and where.
enum Step {
    /// An exposure with an experiment and its variant, if any.
    Shown(Option<(&'static str, &'static str)>),
    /// An exposure that names them in its context alone.
    ShownInContext(&'static str, &'static str),
    /// An assignment: experiment, variant, and the second of its `ts`.
    Assigned(&'static str, &'static str, u32),
}

/// Steps, the exposure's experiment and variant in its context, and the merged assignments.
type Case = (
    &'static str,
    Vec<Step>,
    Option<(&'static str, &'static str)>,
    Vec<(&'static str, &'static str)>,
);

fn cases() -> Vec<Case> {
    use Step::{Assigned, Shown, ShownInContext};
    vec![
        ("neither", vec![Shown(None)], None, vec![]),
        (
            "own",
            vec![Shown(Some(("x", "A")))],
            Some(("x", "A")),
            vec![("x", "A")],
        ),
        (
            "own, in the context",
            vec![ShownInContext("x", "A")],
            Some(("x", "A")),
            vec![("x", "A")],
        ),
        (
            "posted",
            vec![Shown(None), Assigned("x", "B", 1)],
            Some(("x", "B")),
            vec![("x", "B")],
        ),
        (
            "posted before own",
            vec![Shown(Some(("x", "A"))), Assigned("x", "B", 1)],
            Some(("x", "B")),
            vec![("x", "B")],
        ),
        (
            "posted before own, in the context",
            vec![ShownInContext("x", "A"), Assigned("x", "B", 1)],
            Some(("x", "B")),
            vec![("x", "B")],
        ),
        (
            "out of traffic, and posted",
            vec![Shown(Some(("x", ""))), Assigned("x", "B", 1)],
            Some(("x", "B")),
            vec![("x", "B")],
        ),
        (
            "posted without an exposure",
            vec![Assigned("x", "B", 1)],
            None,
            vec![("x", "B")],
        ),
        (
            "two experiments beside an own one",
            vec![
                Shown(Some(("x", "A"))),
                Assigned("y", "C", 1),
                Assigned("x", "B", 2),
            ],
            Some(("x", "B")),
            vec![("x", "B"), ("y", "C")],
        ),
        (
            "another experiment than its own",
            vec![Shown(Some(("x", "A"))), Assigned("y", "C", 1)],
            Some(("x", "A")),
            vec![("x", "A"), ("y", "C")],
        ),
        (
            "two experiments, none of them its own: the last",
            vec![Shown(None), Assigned("x", "B", 2), Assigned("y", "C", 1)],
            Some(("x", "B")),
            vec![("x", "B"), ("y", "C")],
        ),
        (
            "a correction: the last",
            vec![
                Shown(Some(("x", "A"))),
                Assigned("x", "B", 1),
                Assigned("x", "C", 2),
            ],
            Some(("x", "C")),
            vec![("x", "C")],
        ),
        (
            "the same twice",
            vec![Shown(None), Assigned("x", "B", 1), Assigned("x", "B", 1)],
            Some(("x", "B")),
            vec![("x", "B")],
        ),
    ]
}

/// All orders of up to three steps.
fn orders(steps: usize) -> Vec<Vec<usize>> {
    match steps {
        1 => vec![vec![0]],
        2 => vec![vec![0, 1], vec![1, 0]],
        _ => vec![
            vec![0, 1, 2],
            vec![0, 2, 1],
            vec![1, 0, 2],
            vec![1, 2, 0],
            vec![2, 0, 1],
            vec![2, 1, 0],
        ],
    }
}

/// The context's experiment and variant in the exposure of a request.
async fn in_exposure(client: &tokio_postgres::Client, request: &str) -> Option<(String, String)> {
    let row = client
        .query_opt(
            "SELECT data #>> '{context,experiment_id}', data #>> '{context,experiment_variant}'
               FROM recsys_exposures WHERE data ->> 'request_id' = $1",
            &[&request],
        )
        .await
        .unwrap()?;
    row.get::<_, Option<String>>(0)
        .map(|id| (id, row.get::<_, Option<String>>(1).unwrap_or_default()))
}

#[tokio::test]
async fn the_views_merge_posted_assignments_with_those_of_exposures_in_any_order_of_arrival() {
    let service = Service::start().await;
    let client = service.database.connect().await;
    for (at, (what, steps, expected, merged)) in cases().into_iter().enumerate() {
        for (turn, order) in orders(steps.len()).into_iter().enumerate() {
            let request = format!("case-{at}-{turn}");
            for step in order.into_iter().map(|step| &steps[step]) {
                let (path, event) = match step {
                    Step::Shown(experiment) => {
                        let mut event = shown(&request);
                        event["request_id"] = json!(request);
                        if let Some((id, variant)) = experiment {
                            event["experiment"] = json!({"id": id, "variant": variant});
                        }
                        ("/v1/exposures", event)
                    }
                    Step::ShownInContext(id, variant) => {
                        let mut event = shown(&request);
                        event["request_id"] = json!(request);
                        event["context"] =
                            json!({"experiment_id": id, "experiment_variant": variant});
                        ("/v1/exposures", event)
                    }
                    Step::Assigned(id, variant, second) => {
                        let event = json!({
                            "experiment_id": id, "variant": variant, "request_id": request,
                            "user_id": "u", "ts": format!("2026-03-11T00:00:{second:02}Z"),
                        });
                        (PATH, event)
                    }
                };
                let (stored, duplicates, ..) = service.client().post(path, &event).await.settled();
                assert_eq!(stored + duplicates, 1, "{what}");
            }
            let own = |pair: (&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
            let found = in_exposure(&client, &request).await;
            assert_eq!(found, expected.map(own), "{what}, order {turn}");
            let rows = client
                .query(
                    "SELECT data ->> 'experiment_id', data ->> 'variant'
                       FROM experiment_assignments WHERE data ->> 'request_id' = $1 ORDER BY 1, 2",
                    &[&request],
                )
                .await
                .unwrap();
            let rows: Vec<(String, String)> =
                rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            let merged: Vec<_> = merged.iter().copied().map(own).collect();
            assert_eq!(rows, merged, "{what}, order {turn}");
        }
    }
}

#[tokio::test]
async fn the_documents_are_those_that_the_evaluator_decodes() {
    let service = Service::start().await;
    let posted = json!({
        "experiment_id": "x", "variant": "B", "request_id": "r1", "user_id": "user",
        "ts": "2026-03-10T08:00:00.25Z", "context": {"surface": "home", "device": "web", "n": 1, "none": null}
    });
    assert_eq!(service.client().post(PATH, &posted).await.settled().0, 1);
    // Two exposures of one request, as served and as rendered, are one assignment.
    for id in ["served", "rendered"] {
        let mut event = shown(id);
        event["request_id"] = json!("r2");
        event["user_id"] = json!("user");
        event["experiment"] = json!({"id": "x", "variant": "A"});
        assert_eq!(service.exposures(&event).await.settled().0, 1);
    }
    // Another tenant's request of the same name is another one.
    let mut theirs = shown("theirs");
    theirs["request_id"] = json!("r1");
    let other = service.client().role("other", Role::Ingest);
    assert_eq!(other.post("/v1/exposures", &theirs).await.settled().0, 1);
    let client = service.database.connect().await;
    let documents = async |sql: &str| -> Vec<Value> {
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let user = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";
    assert_eq!(
        documents("SELECT data FROM experiment_assignments ORDER BY data ->> 'request_id'").await,
        [
            json!({
                "experiment_id": "x", "variant": "B", "request_id": "r1", "user_id": user,
                "ts": "2026-03-10T08:00:00.250000Z",
                "context": {"tenant": "demo", "surface": "home", "device": "web", "n": "1"}
            }),
            json!({
                "experiment_id": "x", "variant": "A", "request_id": "r2", "user_id": user,
                "ts": "2026-03-10T08:00:00.000000Z",
                "context": {"tenant": "demo", "surface": "home"}
            }),
        ]
    );
    let theirs = "SELECT data -> 'context' FROM recsys_exposures WHERE tenant = 'other'";
    assert_eq!(documents(theirs).await[0].get("experiment_id"), None);
}

#[tokio::test]
async fn views_that_someone_else_made_stay_as_they_are() {
    use recsys_ingest::postgres::migrate::migrate;
    let database = Database::empty().await;
    let mut client = database.connect().await;
    migrate(&mut client).await.unwrap();
    // A database of the version before, whose view an operator has changed.
    client
        .batch_execute(
            "DELETE FROM ingest_schema_history WHERE version >= 9;
             DROP VIEW exposures_for_pipelines, ingest_join_quality;
             DROP FUNCTION ingest_join_quality_of;
             DROP TABLE ingest_changed_days, ingest_computed_days, ingest_removed_rows,
                 ingest_retention, ingest_erased_subjects, ingest_leases, ingest_log_readers;
             ALTER TABLE ingest_ledger DROP COLUMN erasures;
             ALTER TABLE ingest_holders DROP COLUMN is_shared;
             DROP VIEW experiment_assignments, recsys_exposures, ingest_posted_assignments;
             DROP TABLE ingest_assignments;
             CREATE VIEW recsys_exposures AS SELECT 1 AS theirs",
        )
        .await
        .unwrap();
    migrate(&mut client).await.unwrap();
    let theirs: i32 = one(&client, "SELECT theirs FROM recsys_exposures").await;
    assert_eq!(theirs, 1);
    let posted: i64 = one(&client, "SELECT count(*) FROM ingest_posted_assignments").await;
    assert_eq!(posted, 0);
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'ingest_v4%'";
    assert_eq!(one::<i64>(&client, left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_assignments_are_stored_once_through_kill_9_beside_other_events() {
    let mut rig = Rig::start(|settings| settings.with("--writers", 2)).await;
    let plan = Plan {
        bodies: 100_000,
        senders: 3,
        mix: Mix::Repeats { back: 2 },
        ..Plan::default()
    };
    let clicks = rig.traffic(plan);
    let assignments = rig.traffic(Plan {
        table: Table::Assignments,
        ..plan
    });
    for cycle in 1..=3 {
        assignments.reach(cycle * 20);
        if cycle == 2 {
            rig.crash_postgres();
        }
        rig.process.kill();
        rig.serve();
        for traffic in [&clicks, &assignments] {
            traffic.aim(rig.address());
        }
    }
    assignments.reach(90);
    let (assignments, clicks) = (assignments.stop(), clicks.stop());
    rig.assert_kept(&[&assignments]).await;
    rig.assert_kept(&[&clicks]).await;
    let (code, text) = rig.settings.verify();
    assert_eq!(code, 0, "{text}");
    for expected in [
        "ingest_assignments lane 0: ",
        "ingest_assignments: rows in the table",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}

/// Makes a spool's files those of the program before assignments, which differ in this alone: the
/// version in both copies of a segment's header, and the first line of the record of openings.
fn make_old(directory: &Path) {
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|extension| extension == "seg") {
            for at in [0, 4096] {
                let header = &mut bytes[at..at + 512];
                assert_eq!(header[8..12], [2, 0, 0, 0], "{name}");
                assert_eq!(header[192..256], [0; 64], "there are no later streams");
                header[8] = 1;
                let crc = crc32c::crc32c(&header[..508]);
                header[508..].copy_from_slice(&crc.to_le_bytes());
            }
        } else if name == "openings" {
            let text = String::from_utf8(bytes).unwrap();
            let (body, _) = text.rsplit_once("crc ").unwrap();
            let body = body.replacen("openings 2", "openings 1", 1);
            bytes = format!("{body}crc {:08x}\n", crc32c::crc32c(body.as_bytes())).into();
        } else {
            continue;
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_of_the_version_before_is_stored_whole_and_goes_on_with_assignments() {
    // Eight writers: all streams that the version before had.
    let mut rig = Rig::start(|settings| settings.with("--writers", 8)).await;
    rig.cluster.crash();
    let plan = Plan {
        bodies: 60,
        mix: Mix::Clean,
        ..Plan::default()
    };
    let shows = Plan {
        table: Table::Exposures,
        ..plan
    };
    let old = [rig.traffic(plan).finish(), rig.traffic(shows).finish()];
    for sent in &old {
        assert_eq!(sent.count(Told::Durable), 60);
    }
    rig.process.kill();
    make_old(rig.settings.spool.path());
    rig.serve();
    let later = rig
        .traffic(Plan {
            table: Table::Assignments,
            ..plan
        })
        .finish();
    assert_eq!(later.count(Told::Durable), 60);
    rig.cluster.restart();
    for sent in old.iter().chain([&later]) {
        rig.assert_kept(&[sent]).await;
    }
    // With fewer writers, and after a clean stop, nothing is missing or there twice.
    assert!(rig.process.stop().success());
    rig.settings = rig.settings.clone().with("--writers", 1);
    rig.serve();
    let reply = rig.client.post(PATH, &assigned("after")).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
    let reply = rig.client.post("/v1/interactions", &click("after")).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
    rig.settings.assert_verified();
}
