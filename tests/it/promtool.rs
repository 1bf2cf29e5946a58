//! Metrics are named and described as Prometheus asks for (`promtool check metrics`).
//!
//! The rules are checked twice: here, on every metric that `src/metrics.rs` declares, and by
//! promtool, on what `/metrics` has to say after a few requests, where promtool is installed.
//! Source of the rules: <https://prometheus.io/docs/practices/naming/>.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::Service;

const SOURCE: &str = include_str!("../../src/metrics.rs");

/// Set in CI: where the program is missing, the test fails instead of being skipped.
const REQUIRE: &str = "REQUIRE_PROMTOOL";

/// Units that have a base unit, with any prefix, and their base unit.
const UNITS: [(&str, &str); 12] = [
    ("minutes", "seconds"),
    ("hours", "seconds"),
    ("days", "seconds"),
    ("weeks", "seconds"),
    ("bits", "bytes"),
    ("bytes", "bytes"),
    ("seconds", "seconds"),
    ("meters", "meters"),
    ("grams", "grams"),
    ("joules", "joules"),
    ("volts", "volts"),
    ("fahrenheit", "celsius"),
];

const PREFIXES: [&str; 15] = [
    "", "pico", "nano", "micro", "milli", "centi", "kilo", "kibi", "mega", "mebi", "giga", "gibi",
    "tera", "tebi", "peta",
];

const ABBREVIATIONS: [&str; 15] = [
    "s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d", "pct",
];

const TYPES: [&str; 5] = ["counter", "gauge", "histogram", "summary", "untyped"];

/// What is wrong with a metric.
fn complaints(name: &str, kind: &str, help: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut wrong = |what: String| found.push(format!("{name}: {what}"));
    if help.trim().is_empty() {
        wrong("it has no help".to_owned());
    }
    if !TYPES[..3].contains(&kind) {
        wrong(format!("its type is '{kind}'"));
    }
    if name.ends_with("_total") != (kind == "counter") {
        wrong("counters end in _total, and nothing else does".to_owned());
    }
    for suffix in ["_count", "_sum", "_bucket"] {
        if name.ends_with(suffix) {
            wrong(format!("{suffix} is for the series of a histogram"));
        }
    }
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    if !name.chars().all(|letter| letter == '_' || is_plain(letter)) {
        wrong("it is not in snake case".to_owned());
    }
    for word in name.split('_') {
        if TYPES.contains(&word) {
            wrong(format!("'{word}' is a type"));
        }
        if ABBREVIATIONS.contains(&word) {
            wrong(format!("'{word}' is an abbreviation"));
        }
        for (unit, base) in UNITS {
            let prefix = word.strip_suffix(unit);
            if prefix.is_some_and(|prefix| PREFIXES.contains(&prefix)) && word != base {
                wrong(format!("'{word}' is no base unit: use {base}"));
            }
        }
    }
    found
}

/// Name, type and help of every metric that the source registers.
fn declared() -> Vec<(String, &'static str, &'static str)> {
    let field = |line: &'static str| line.trim().strip_prefix("pub ")?.split_once(": ");
    let fields: BTreeMap<&str, &str> = SOURCE.lines().filter_map(field).collect();
    let registered = SOURCE.split("registry.register(").skip(1);
    let metric = |call: &'static str| {
        let mut quoted = call.split('"');
        let (name, help) = (quoted.nth(1).unwrap(), quoted.nth(1).unwrap());
        let field = call.split("metrics.").nth(1).unwrap();
        let field = field.split('.').next().unwrap();
        let (kind, suffix) = match fields[field] {
            kind if kind.starts_with("Counter") => ("counter", "_total"),
            kind if kind.contains("Gauge") => ("gauge", ""),
            kind if kind.starts_with("Histogram") => ("histogram", ""),
            kind => panic!("{field} is a {kind}: say here which type of metric that is"),
        };
        (format!("recsys_ingest_{name}{suffix}"), kind, help)
    };
    registered.map(metric).collect()
}

#[test]
fn every_metric_is_named_as_prometheus_asks_for() {
    for (name, kind, help, expected) in [
        ("a_rows", "gauge", "Rows", ""),
        ("a_seconds", "histogram", "Time", ""),
        ("a_events_total", "counter", "Events", ""),
        ("a_rows", "gauge", " ", "no help"),
        ("a_rows", "", "Rows", "its type"),
        ("a_events", "counter", "Events", "_total"),
        ("a_events_total", "gauge", "Events", "_total"),
        ("a_row_count", "gauge", "Rows", "_count"),
        ("a_rowsKept", "gauge", "Rows", "snake case"),
        ("a_rows_gauge", "gauge", "Rows", "is a type"),
        ("a_wait_ms", "gauge", "Time", "abbreviation"),
        ("a_wait_milliseconds", "gauge", "Time", "use seconds"),
        ("a_wait_days", "gauge", "Time", "use seconds"),
        ("a_kilobytes", "gauge", "Size", "use bytes"),
    ] {
        let found = complaints(name, kind, help).join("; ");
        assert_eq!(found.is_empty(), expected.is_empty(), "{name}: {found}");
        assert!(found.contains(expected), "{name}: {found}");
    }
    let declared = declared();
    assert!(declared.len() > 20, "{declared:?}");
    let found: Vec<String> = declared
        .iter()
        .flat_map(|(name, kind, help)| complaints(name, kind, help))
        .collect();
    assert_eq!(found, [""; 0]);
}

#[tokio::test]
async fn promtool_has_nothing_to_say_about_the_metrics() {
    let service = Service::start().await;
    // An accepted event, and one that is refused.
    for body in [
        json!([{"event_id": "a", "occurred_at": jiff::Timestamp::now().to_string(), "user_id": "u",
                "event_type": "click", "item_id": "i"}]),
        json!([{"event_type": "stare"}]),
    ] {
        service.interactions(&body).await;
    }
    let text = service.client().get("/metrics").await.text;
    let served: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, _)| name)
        .collect();
    let declared: HashSet<String> = declared().into_iter().map(|(name, ..)| name).collect();
    assert!(served.len() > 10, "{text}");
    for name in served {
        assert!(declared.contains(name), "{name} is not declared");
    }
    let Some((succeeded, said)) = promtool(&["metrics"], &text) else {
        return;
    };
    assert!(succeeded && said.is_empty(), "{said}\n{text}");
}

#[test]
fn promtool_finds_no_fault_in_the_alerts() {
    let rules = include_str!("../../observability/alerts.yaml");
    if let Some((succeeded, said)) = promtool(&["rules", "/dev/stdin"], rules) {
        assert!(succeeded, "{said}");
    }
    if let Some((succeeded, said)) =
        promtool(&["rules", "/dev/stdin"], &rules.replace("expr:", "expr: ("))
    {
        assert!(!succeeded, "it takes anything: {said}");
    }
}

/// Whether `promtool check` with this text as its input succeeds, and what it says; `None` if there
/// is none.
fn promtool(what: &[&str], input: &str) -> Option<(bool, String)> {
    let promtool = Command::new("promtool")
        .arg("check")
        .args(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        let is_required = std::env::var_os(REQUIRE).is_some();
        assert!(!is_required, "there is no promtool, and {REQUIRE} is set");
        println!("skipped: there is no promtool (it is in Debian's package prometheus)");
        return None;
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Some((output.status.success(), said))
}
