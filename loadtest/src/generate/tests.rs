//! What the generator promises to those who post its bodies and check the tables.
//!
//! That every event becomes the row that is expected is tested with the check,
//! which has a database.

use std::collections::HashSet;
use std::io::Read as _;

use super::*;
use crate::service::{Format, Pseudonymizer, Table};

/// A thousand events in every format.
pub fn settings() -> Settings {
    Settings {
        seed: Some(42),
        events: 1_000,
        body_events: 1..=50,
        mix: (1, 1),
        formats: Format::ALL.to_vec(),
        tenants: vec!["demo".to_owned()],
        callers: vec![Caller {
            key: None,
            scope: Scope::Tenant(0),
        }],
        until: Some(jiff::Timestamp::from_second(1_795_000_000).unwrap()),
        days: 3.0,
        duplicates: 0.1,
        invalid: 0.1,
        items: 10_000,
        users: 1_000,
        framing: Framing::Ndjson,
        ..Settings::default()
    }
}

fn plan(change: impl FnOnce(&mut Settings)) -> Plan {
    let mut settings = settings();
    change(&mut settings);
    Plan::new(settings).unwrap()
}

fn bodies(settings: Settings) -> Vec<Body> {
    Bodies::new(&Plan::new(settings).unwrap()).collect()
}

#[test]
fn the_same_seed_posts_the_same_bytes_and_another_seed_others() {
    let (first, second) = (bodies(settings()), bodies(settings()));
    assert!(first.iter().zip(&second).all(|(a, b)| a.bytes == b.bytes));
    let other = bodies(Settings {
        seed: Some(43),
        ..settings()
    });
    assert_ne!(first[0].bytes, other[0].bytes);
}

#[test]
fn a_repeat_is_the_same_text_as_the_event_that_it_repeats_and_stands_in_a_later_body() {
    let plan = plan(|settings| {
        settings.formats = vec![Format::Native];
    });
    let texts: Vec<String> = (0..plan.bodies())
        .map(|body| String::from_utf8(Bodies::new(&plan).text(body).0.to_vec()).unwrap())
        .collect();
    let line = |body: u32, slot: u32| {
        let at = (slot - plan.slots_of(body).start) as usize;
        texts[body as usize].lines().nth(at).unwrap()
    };
    let mut repeats = 0;
    for body in 0..plan.bodies() {
        for slot in plan.slots_of(body) {
            let (Role::Repeat(original), first, _) = plan.source(body, slot) else {
                continue;
            };
            repeats += 1;
            assert!(first < body);
            assert_eq!(plan.role(first, original), Role::Fresh);
            assert_eq!(line(body, slot), line(first, original));
        }
    }
    assert!((50..150).contains(&repeats), "{repeats} repeats");
}

#[test]
fn no_body_holds_a_list_twice() {
    let plan = plan(|settings| {
        settings.formats = vec![Format::PipelinesV1];
        settings.mix = (1, 0);
        settings.body_events = 1..=300;
        settings.duplicates = 0.5;
    });
    let mut repeats = 0;
    for body in 0..plan.bodies() {
        let mut seen = HashSet::new();
        for slot in plan.slots_of(body) {
            if let Role::Repeat(original) = plan.role(body, slot) {
                repeats += 1;
                assert!(seen.insert(original));
            }
        }
    }
    assert!(repeats > 0);
}

#[test]
fn ids_are_unique_and_lead_back_to_their_slots() {
    let plan = plan(|settings| {
        settings.duplicates = 0.0;
    });
    let mut ids = HashSet::new();
    for slot in 0..plan.slots() {
        let event = plan.event(plan.body_of(slot), slot);
        assert!(ids.insert(event.event_id));
        let found = slot_of(plan.seed, names::EVENT, &event.event_id);
        assert_eq!(found, Some(slot));
        if event.format != Format::Native {
            let request = request_uuid(&event.request.expect("it is recognised by it"));
            assert_eq!(slot_of(plan.seed, names::REQUEST, &request), Some(slot));
        }
    }
}

#[test]
fn tables_get_their_shares_of_the_mix_and_formats_equal_shares_of_those() {
    let plan = plan(|settings| {
        settings.events = 40_000;
        settings.mix = (1, 3);
    });
    let share = |table: Table, native_only: bool| -> usize {
        let counts = |body: &u32| {
            let stream = plan.stream_of(*body);
            stream.table == table && (!native_only || stream.format == Format::Native)
        };
        let bodies = (0..plan.bodies()).filter(counts);
        bodies.map(|body| plan.slots_of(body).len()).sum()
    };
    for (table, native_only, due) in [
        (Table::Exposures, false, 10_000),
        (Table::Interactions, false, 30_000),
        (Table::Exposures, true, 2_500),
        (Table::Interactions, true, 15_000),
    ] {
        let got = share(table, native_only);
        assert!(got.abs_diff(due) < 200, "{got} instead of {due}");
    }
}

#[test]
fn formats_that_fit_no_table_of_the_mix_are_refused() {
    let settings = Settings {
        formats: vec![Format::OutcomeV1],
        mix: (1, 0),
        ..settings()
    };
    assert!(Plan::new(settings).is_err());
}

#[test]
fn a_service_key_names_every_tenant_in_its_events() {
    let names = ["a", "b", "c"];
    let plan = plan(|settings| {
        settings.tenants = names.map(str::to_owned).to_vec();
        settings.callers[0].scope = Scope::Any;
        settings.formats = vec![Format::Native];
        settings.invalid = 0.0;
        settings.duplicates = 0.0;
    });
    let mut makes = Bodies::new(&plan);
    let mut seen = HashSet::new();
    for body in 0..plan.bodies() {
        let lines = makes.text(body).0.split(|byte| *byte == b'\n');
        for (slot, text) in plan.slots_of(body).zip(lines) {
            let at = plan.tenant(body, slot).expect("each event names one");
            let event: serde_json::Value = serde_json::from_slice(text).unwrap();
            assert_eq!(event["tenant_id"], names[at]);
            seen.insert(at);
        }
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn compressed_bodies_inflate_to_the_plain_ones() {
    let of = |encoding| {
        bodies(Settings {
            encoding,
            ..settings()
        })
    };
    let (gzip, zstd) = (of(Encoding::Gzip), of(Encoding::Zstd));
    for (at, plain) in of(Encoding::None).iter().enumerate() {
        let mut text = Vec::new();
        let mut inflate = flate2::read::GzDecoder::new(&gzip[at].bytes[..]);
        inflate.read_to_end(&mut text).unwrap();
        assert_eq!(text, plain.bytes);
        let text = zstd::bulk::decompress(&zstd[at].bytes, 10 << 20).unwrap();
        assert_eq!(text, plain.bytes);
    }
}

#[test]
fn times_stay_within_the_days_of_the_run_and_advance_with_its_events() {
    let plan = Plan::new(settings()).unwrap();
    let (until, span) = (plan.settings.until_us(), plan.settings.span_us());
    let times: Vec<_> = (0..1000).map(|slot| occurred_us(&plan, slot)).collect();
    assert!(times.iter().all(|at| (until - span..until).contains(at)));
    let step = span / 1000;
    assert!(times.windows(2).all(|pair| pair[1] > pair[0] - step));
}

#[test]
fn hashes_match_the_suites_vectors() {
    let hash = Pseudonymizer::new(b"salt").hash("user").unwrap();
    let due = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";
    assert_eq!(hex::encode(hash), due);
    let request = request_uuid("req-1").to_string();
    assert_eq!(request, "212368a7-0138-518e-aa15-c4ccfd6834b6");
}
