//! The page of a made-up comparison.

use super::*;
use crate::compare::machine::Machine;
use crate::compare::method::Method;
use crate::compare::sample::Sample;
use crate::service::Table;

fn comparison() -> Comparison {
    let methods = Method::of_a_round(Table::Interactions).into_iter();
    let series = methods.map(|method| {
        let mut series = Series::new(method.id(Table::Interactions), method.title());
        series.samples.extend([1.0, 1.5, 2.0].map(|seconds| Sample {
            rows: 1000,
            seconds,
            service_cpu: Some(0.1),
            postgres_cpu: Some(0.2),
            wal_bytes: Some(300_000.0),
            service_peak_bytes: Some(90 << 20),
            latency: Some(Latency([1.0, 2.0, 9.0, 11.0, 12.0])),
            ..Sample::default()
        }));
        series
    });
    let section = Section {
        title: "Interactions".to_owned(),
        series: series.collect(),
    };
    Comparison {
        machine: Machine {
            cpu: "<CPU> & more".to_owned(),
            cores: 2,
            memory_bytes: 4 << 30,
            kernel: "6".to_owned(),
            postgres: "16.1".to_owned(),
            sync_ms: None,
        },
        began_at: jiff::Timestamp::UNIX_EPOCH,
        took: std::time::Duration::from_secs(9),
        rounds: 3,
        service_args: Vec::new(),
        sections: vec![section],
    }
}

#[test]
fn the_page_holds_all_charts_and_needs_nothing_from_elsewhere_and_names_cannot_break_it() {
    let page = render(&comparison());
    // Targets twice, rates twice, latency, CPU twice, WAL.
    assert_eq!(page.matches("<svg").count(), 8);
    assert_eq!(page.matches("</svg>").count(), 8);
    for foreign in [
        "http://", "https://", "<script", "@import", "url(", "NaN", "inf", "<CPU>",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("&lt;CPU&gt; &amp; more"));
}
