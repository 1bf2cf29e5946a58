//! What `observability/` asks Prometheus for are metrics and labels of this program.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The words of a text that begin with `start`.
fn words<'t>(text: &'t str, start: &str) -> BTreeSet<&'t str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with(start))
        .collect()
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_and_labels_that_exist() {
    let source = read("src/metrics.rs");
    let is_literal = |word: &str| source.contains(&format!("\"{word}\""));
    for file in ["observability/alerts.yaml", "observability/dashboard.json"] {
        let text = read(file);
        let names = words(&text, "recsys_ingest_");
        assert!(names.len() > 10, "{file}: {names:?}");
        for name in names {
            let family = name.strip_prefix("recsys_ingest_").unwrap();
            let known = ["", "_total", "_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| family.strip_suffix(suffix))
                .any(is_literal);
            assert!(known, "{file}: there is no metric {name}");
        }
        for list in text.split("by (").skip(1) {
            for label in list.split(')').next().unwrap().split(", ") {
                // What Prometheus adds, and what a histogram has.
                let standard = ["instance", "le"].contains(&label);
                let own = source.contains(&format!("pub {label}: "));
                assert!(standard || own, "{file}: there is no label {label}");
            }
        }
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("observability/dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 12);
}
