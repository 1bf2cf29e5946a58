//! Promise: `import` stores each line of a file once, however often it is killed or run again, and
//! writes every other line to the rejects with its reason.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use recsys_ingest::event::table::Table;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{
    BODY_EVENTS, Database, Mix, PEPPER, Plan, Process, Rig, SALT, SOON, Service, Template, key, one,
};

/// The time that imports give to events without one.
const TIME: &str = "2026-03-10T09:00:00Z";

/// The command line of an import into a service.
fn arguments(url: &str, state: &Path, files: &[&Path]) -> Vec<OsString> {
    let mut all: Vec<OsString> = ["import", "--json", "--url", url, "--api-key"]
        .map(OsString::from)
        .to_vec();
    all.push(key("demo", Role::Ingest).into());
    all.push("--state-dir".into());
    all.push(state.into());
    all.extend(["--occurred-at", TIME].map(OsString::from));
    all.extend(files.iter().map(|file| file.as_os_str().to_owned()));
    all
}

fn url(service: &Service) -> String {
    format!("http://{}", service.client().address)
}

/// Runs an import to its end; returns its exit code, its report and its log.
fn import(service: &Service, state: &Path, files: &[&Path]) -> (i32, Value, String) {
    let mut process = Process::run(arguments(&url(service), state, files));
    let status = process.wait();
    let report = match process.answer().trim() {
        "" => Value::Null,
        _ => process.report(),
    };
    (status.code().unwrap(), report, process.log())
}

fn numbers(report: &Value) -> [u64; 3] {
    ["lines", "accepted", "rejected"].map(|name| report[name].as_u64().unwrap())
}

/// Place, code and line of the rejected lines.
fn rejects(state: &Path) -> Vec<(String, u64, String, Value)> {
    let text = std::fs::read_to_string(state.join("rejected.jsonl")).unwrap_or_default();
    let letters = text.lines().map(|line| {
        let letter: Value = serde_json::from_str(line).unwrap();
        let file = Path::new(letter["file"].as_str().unwrap()).file_name();
        (
            file.unwrap().to_string_lossy().into_owned(),
            letter["offset"].as_u64().unwrap(),
            letter["code"].as_str().unwrap().to_owned(),
            letter,
        )
    });
    letters.collect()
}

async fn counts(database: &Database) -> [i64; 2] {
    [
        database.count("exposure_events").await,
        database.count("interaction_events").await,
    ]
}

/// Waits until the spool has given all of it to PostgreSQL.
async fn stored(database: &Database, expected: [i64; 2]) {
    crate::harness::eventually("the rows", async || counts(database).await == expected).await;
    // Rows that are too many come late, too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(counts(database).await, expected);
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Lines of recsys-service's formats: a service_v1 exposure, an outcome, and a list of three items.
fn suite_lines() -> String {
    let service_v1 = json!({
        "schema_version": "v1", "timestamp": "2026-03-10T08:00:00Z", "request_id": "s-1",
        "tenant_id": "demo", "surface": "home", "items": [{"item_id": "a", "rank": 1}]
    });
    let outcome = json!({
        "request_id": "s-1", "user_id": "u", "item_id": "a", "event_type": "click",
        "ts": "2026-03-10T08:00:01Z"
    });
    let mut lines = format!("{service_v1}\n{outcome}\n");
    for item in ["a", "b", "c"] {
        let line = json!({
            "v": 1, "ts": "2026-03-10T08:00:02Z", "tenant": "demo", "surface": "home",
            "session_id": "s", "request_id": "p-1", "item_id": item
        });
        lines.push_str(&format!("{line}\n"));
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_kind_are_stored_once_and_what_is_wrong_is_told() {
    let service = Service::start().await;
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    let long = format!("{{\"item_id\":\"{}\"}}", "x".repeat(2 << 20));
    // Neither ids nor times, lines that are wrong in several ways, and an end without a line end.
    let plain = [
        r#"{"event_type":"click","item_id":"a"}"#,
        r#"{"event_type":"click","item_id":"a"}"#,
        "",
        r#"{"event_type":"stare","item_id":"a"}"#,
        "no json",
        &long,
        r#"{"event_type":"click","item_id":"b","event_id":"e-1","occurred_at":"2026-03-10T08:00:00Z"}"#,
    ]
    .join("\n");
    std::fs::create_dir(at("below")).unwrap();
    std::fs::write(at("below/clicks.jsonl"), &plain).unwrap();
    let native = r#"{"request_id":"r1","surface":"home","items":[{"item_id":"a"}]}"#;
    std::fs::write(at("a.jsonl.gz"), gzip(&format!("{native}\n{native}\n"))).unwrap();
    let suite = zstd::bulk::compress(suite_lines().as_bytes(), 1).unwrap();
    std::fs::write(at("suite.ndjson.zst"), suite).unwrap();
    std::fs::write(at("torn.jsonl"), "{\"event_type\":\"click\",\"item").unwrap();
    std::fs::write(at("empty.jsonl"), "").unwrap();
    std::fs::write(at("notes.txt"), "not for us\n").unwrap();

    let (code, report, log) = import(&service, state.path(), &[dir.path()]);
    assert_eq!(code, 3, "{report} {log}");
    assert!(
        log.contains("the import is done, and 4 lines were rejected"),
        "{log}"
    );
    // 7 + 2 + 5 + 1 lines, of which one is blank and four are rejected.
    assert_eq!(numbers(&report), [15, 10, 4], "{report}");
    let expected = [4, 4];
    stored(&service.database, expected).await;
    let found = rejects(state.path());
    let told: BTreeSet<_> = found
        .iter()
        .map(|(file, _, code, _)| (file.as_str(), code.as_str()))
        .collect();
    assert_eq!(
        told,
        BTreeSet::from([
            ("clicks.jsonl", "invalid_value"),
            ("clicks.jsonl", "invalid_json"),
            ("clicks.jsonl", "line_too_long"),
            ("torn.jsonl", "torn_line"),
        ])
    );
    for (_, offset, code, letter) in &found {
        let line = letter["line"].as_str().unwrap();
        assert!(!letter["message"].as_str().unwrap().is_empty());
        let Ok(from) = usize::try_from(*offset) else {
            continue;
        };
        if code == "line_too_long" {
            assert_eq!(letter["line_bytes"], long.len());
            assert!(plain[from..].starts_with(line) && line.len() == 4096);
        } else if code != "torn_line" {
            assert_eq!(plain[from..].lines().next(), Some(line));
        }
    }

    // Run again: only the torn line is looked at.
    let (code, report, _) = import(&service, state.path(), &[dir.path()]);
    assert_eq!((code, numbers(&report)), (3, [1, 0, 1]), "{report}");
    // Without positions, and from another place in another compression, it is the same.
    let (copies, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = copies.path().join("copy.gz");
    std::fs::write(&copy, gzip(&plain)).unwrap();
    let (code, report, _) = import(&service, fresh.path(), &[dir.path(), &copy]);
    assert_eq!((code, report["lines"].as_u64()), (3, Some(22)), "{report}");
    stored(&service.database, expected).await;

    // A file that has grown goes on, the torn line with it.
    let mut file = std::fs::File::options()
        .append(true)
        .open(at("torn.jsonl"))
        .unwrap();
    file.write_all(b"_id\":\"t\"}\n{\"event_type\":\"view\",\"item_id\":\"t\"}\n")
        .unwrap();
    let (code, report, _) = import(&service, state.path(), &[&at("torn.jsonl")]);
    assert_eq!((code, numbers(&report)), (0, [2, 2, 0]), "{report}");
    stored(&service.database, [4, 6]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_without_a_time_are_told_or_stored_once_however_their_file_is_copied_and_touched() {
    let service = Service::start().await;
    let dir = tempfile::tempdir().unwrap();
    let states = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [state, fresh, lost] = states.each_ref().map(|state| state.path());
    let (file, copy) = (dir.path().join("a.jsonl"), dir.path().join("b.jsonl"));
    let line = |item: &str| format!("{{\"event_type\":\"click\",\"item_id\":\"{item}\"}}\n");
    std::fs::write(&file, line("a")).unwrap();

    // No time that a file has stays the same, so none is made up.
    let mut timeless = arguments(&url(&service), state, &[dir.path()]);
    let flag = timeless.iter().position(|one| one == "--occurred-at");
    let flag = flag.unwrap();
    timeless.drain(flag..flag + 2);
    let mut process = Process::run(timeless);
    assert_eq!(process.wait().code(), Some(3), "{}", process.log());
    assert_eq!(numbers(&process.report()), [1, 0, 1]);
    let (_, offset, code, letter) = rejects(state).remove(0);
    assert_eq!((offset, code.as_str()), (0, "missing_field"), "{letter}");
    assert_eq!(letter["field"], "occurred_at", "{letter}");
    let message = letter["message"].as_str().unwrap();
    assert!(message.contains("--occurred-at TIME"), "{message}");

    // The lines are not done for who gives them a time.
    let (_, report, _) = import(&service, state, &[dir.path()]);
    assert_eq!(numbers(&report), [1, 1, 0], "{report}");
    stored(&service.database, [0, 1]).await;
    // Copied, touched, and with its positions lost, the file holds the same event.
    std::fs::copy(&file, &copy).unwrap();
    let touched = std::fs::File::options().append(true).open(&file).unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(3600);
    touched.set_modified(later).unwrap();
    for (state, sent) in [(state, 1), (fresh, 2)] {
        let (_, report, log) = import(&service, state, &[dir.path()]);
        assert_eq!(numbers(&report), [sent, sent, 0], "{report} {log}");
    }
    stored(&service.database, [0, 1]).await;
    // So does one that has grown.
    std::fs::write(&file, line("a") + &line("b")).unwrap();
    let (_, report, _) = import(&service, lost, &[&file]);
    assert_eq!(numbers(&report), [2, 2, 0], "{report}");
    stored(&service.database, [0, 2]).await;
    // What is noted as done is done, whatever the time is said to be by now.
    let mut other = arguments(&url(&service), lost, &[&file]);
    other[flag + 1] = "2026-03-10T10:00:00Z".into();
    let mut process = Process::run(other);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    assert_eq!(numbers(&process.report()), [0, 0, 0]);

    let mut wrong = arguments(&url(&service), lost, &[&file]);
    wrong[flag + 1] = "yesterday".into();
    let mut process = Process::run(wrong);
    assert_eq!(process.wait().code(), Some(2));
    assert!(process.log().contains("2026-05-24T10:00:00Z"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_gives_what_comes_before_the_damage_and_is_named() {
    let service = Service::start().await;
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let line = r#"{"event_type":"click","item_id":"a","occurred_at":"2026-03-10T08:00:00Z"}"#;
    let whole = gzip(&format!("{line}\n").repeat(1000));
    let damaged = dir.path().join("a.jsonl.gz");
    std::fs::write(&damaged, &whole[..whole.len() - 8]).unwrap();
    let good = dir.path().join("b.jsonl");
    std::fs::write(&good, format!("{line}\n")).unwrap();
    let (code, _, log) = import(&service, state.path(), &[dir.path()]);
    assert_eq!(code, 1);
    assert!(
        log.contains("a.jsonl.gz could not be read to its end"),
        "{log}"
    );
    // Both begin with the same line, which is the same event.
    stored(&service.database, [0, 1000]).await;

    for (arguments, why) in [
        (
            arguments("http://127.0.0.1:1", state.path(), &[&good]),
            "is the service running?",
        ),
        (
            arguments("127.0.0.1:8080", state.path(), &[&good]),
            "neither http://",
        ),
        (
            arguments(&url(&service), state.path(), &[&dir.path().join("none")]),
            "none",
        ),
        (
            arguments(&url(&service), state.path(), &[Path::new("-")]),
            "write the lines into a file",
        ),
        (
            arguments(&url(&service), state.path(), &[Path::new("/dev/null")]),
            "/dev/null: standard input and pipes",
        ),
    ] {
        let mut process = Process::run(arguments);
        assert_eq!(process.wait().code(), Some(1));
        assert!(process.log().contains(why), "{}", process.log());
    }
    // A key that is refused ends it, and nothing is noted as done.
    let fresh = tempfile::tempdir().unwrap();
    let mut refused = arguments(&url(&service), fresh.path(), &[&good]);
    refused[5] = "wrong".into();
    let mut process = Process::run(refused);
    assert_eq!(process.wait().code(), Some(1));
    assert!(
        process.log().contains("invalid_api_key"),
        "{}",
        process.log()
    );
    let (_, report, _) = import(&service, fresh.path(), &[&good]);
    assert_eq!(numbers(&report), [1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_beyond_the_horizon_comes_through_a_pipeline_of_its_own() {
    let service = Service::with(|settings| settings.with("--horizon-past", "90d")).await;
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("old.jsonl");
    let line = r#"{"event_type":"click","item_id":"a","occurred_at":"2001-03-10T08:00:00Z"}"#;
    std::fs::write(&file, format!("{line}\n{line}\n")).unwrap();
    let (code, report, _) = import(&service, state.path(), &[&file]);
    assert_eq!((code, numbers(&report)), (3, [2, 0, 2]));
    assert_eq!(rejects(state.path())[1].2, "occurred_at_out_of_range");

    // The lines that were refused are not done for who lifts the horizon.
    let mut arguments = arguments("http://127.0.0.1:1", state.path(), &[&file]);
    arguments.push("--beyond-horizon".into());
    let environment = [
        ("DATABASE_URL", service.database.url()),
        ("API_KEY_HASH_SECRET", PEPPER),
        ("EXPOSURE_HASH_SALT", SALT),
        ("INGEST_SPOOL_DISK_RESERVE", "0B"),
    ];
    let environment = environment.map(|(name, value)| (name, OsString::from(value)));
    for expected in [[2, 2, 0], [0, 0, 0]] {
        let mut process = Process::run_with(arguments.clone(), environment.to_vec());
        assert_eq!(process.wait().code(), Some(0), "{}", process.log());
        assert_eq!(numbers(&process.report()), expected);
        // It has stored all of it by its end.
        assert_eq!(counts(&service.database).await, [0, 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_elsewhere_is_not_done_here() {
    let (here, there) = (Service::start().await, Service::start().await);
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("a.jsonl");
    std::fs::write(&file, "{\"event_type\":\"click\",\"item_id\":\"a\"}\n").unwrap();
    let of = |service: &Service, tenant: &str, role: Role, org: Option<&str>| {
        let mut all = arguments(&url(service), state.path(), &[&file]);
        all[5] = key(tenant, role).into();
        for argument in org.into_iter().flat_map(|org| ["--tenant", org]) {
            all.push(argument.into());
        }
        all
    };
    // Each place that a line can go to has it once.
    for lines in [1, 0] {
        for arguments in [
            of(&here, "demo", Role::Ingest, None),
            of(&here, "other", Role::Ingest, None),
            of(&there, "demo", Role::Service, Some("demo")),
            of(&there, "demo", Role::Service, Some("other")),
        ] {
            let mut process = Process::run(arguments.clone());
            assert_eq!(process.wait().code(), Some(0), "{}", process.log());
            assert_eq!(
                numbers(&process.report()),
                [lines, lines, 0],
                "{arguments:?}"
            );
        }
    }
    for service in [here, there] {
        stored(&service.database, [0, 2]).await;
    }
}

/// Imports `lines` lines and kills the import `kills` times.
async fn killed(lines: u64, kills: u64) {
    let service = Service::start().await;
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("clicks.jsonl");
    let mut text = String::new();
    for number in 0..lines {
        // Without ids and times; one in a thousand is wrong.
        let kind = if number % 1000 == 7 { "stare" } else { "click" };
        text.push_str(&format!(
            "{{\"event_type\":\"{kind}\",\"item_id\":\"{number}\"}}\n"
        ));
    }
    std::fs::write(&file, &text).unwrap();
    let done = || {
        let text = std::fs::read(state.path().join("positions.json")).unwrap_or_default();
        let positions: Value = serde_json::from_slice(&text).unwrap_or_default();
        positions["files"][0]["offset"].as_u64().unwrap_or(0)
    };
    for kill in 0..kills {
        let mut process = Process::run(arguments(&url(&service), state.path(), &[&file]));
        let goal = text.len() as u64 * kill / (kills + 1);
        let started = Instant::now();
        while done() < goal && started.elapsed() < SOON && process.answer().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        process.kill();
    }
    let (code, report, log) = import(&service, state.path(), &[&file]);
    let has_rejected = numbers(&report)[2] > 0;
    assert_eq!(code, if has_rejected { 3 } else { 0 }, "{log}");
    let wrong = lines.div_ceil(1000);
    let good = i64::try_from(lines - wrong).unwrap();
    stored(&service.database, [0, good]).await;
    let client = service.database.connect().await;
    let sql = "SELECT count(DISTINCT item_id) FROM interaction_events";
    assert_eq!(one::<i64>(&client, sql).await, good);
    let offsets: Vec<_> = rejects(state.path()).iter().map(|one| one.1).collect();
    assert_eq!(
        offsets.len() as u64,
        wrong,
        "each rejected line is told once"
    );
    assert_eq!(offsets.iter().collect::<BTreeSet<_>>().len() as u64, wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_and_stores_each_line_once() {
    killed(40_000, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn an_import_that_is_killed_many_times_goes_on() {
    killed(1_000_000, 60).await;
}

/// Run with `cargo test --release --test it import -- --ignored gigabyte --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, which takes minutes and needs a release build"]
async fn a_gigabyte_is_imported_beside_posts_of_the_same_events() {
    const BODIES: u64 = 36_000;
    let rows = i64::try_from(BODIES * BODY_EVENTS).unwrap();
    let rig = Rig::start(|settings| settings).await;
    let started = Instant::now();
    let traffic = rig.traffic(Plan {
        bodies: BODIES,
        abandon_every: 0,
        ..Plan::default()
    });
    traffic.reach(BODIES);
    drop(traffic.stop());
    rig.settle().await;
    let posted = started.elapsed();
    assert_eq!(rig.database.count("interaction_events").await, rows);
    drop(rig);

    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("events.jsonl");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
    let mut template = Template::new(Table::Interactions);
    for body in 0..BODIES {
        let array = template.fill(Mix::Clean, body);
        // Events stand in an array with commas between; none holds a brace.
        let lines = String::from_utf8_lossy(&array[1..array.len() - 1]).replace("},{", "}\n{");
        writeln!(out, "{lines}").unwrap();
    }
    drop(out.into_inner().unwrap());
    let rig = Rig::start(|settings| settings).await;
    let started = Instant::now();
    let url = format!("http://{}", rig.address());
    let mut process = Process::run(arguments(&url, state.path(), &[&file]));
    while process.answer().is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    rig.settle().await;
    let imported = started.elapsed();
    assert_eq!(rig.database.count("interaction_events").await, rows);
    let rate = |took: Duration| rows as f64 / took.as_secs_f64();
    println!(
        "posted {:.0} a second, imported {:.0}: {:.2}",
        rate(posted),
        rate(imported),
        rate(imported) / rate(posted)
    );
}
