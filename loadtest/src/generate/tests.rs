//! What the generator promises to those who post its bodies and check the tables.
//!
//! That every event becomes the row that is expected is tested with the check,
//! which has a database.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;

use super::*;
use crate::service::{Format, Table};

/// A thousand events in every format.
pub fn settings() -> Settings {
    Settings {
        seed: Some(42),
        events: 1_000,
        body_events: 1..=50,
        mix: (1, 1),
        formats: FORMATS.to_vec(),
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
    let of = |seed| {
        let mut settings = settings();
        settings.seed = Some(seed);
        bodies(settings).into_iter().map(|body| body.bytes)
    };
    assert!(of(42).eq(of(42)));
    assert!(of(42).ne(of(43)));
}

#[test]
fn a_repeat_is_the_same_text_as_the_event_that_it_repeats_and_stands_in_a_later_body() {
    let plan = plan(|settings| settings.formats = vec![Format::Native]);
    let mut repeats = 0;
    let line = |body: u32, slot: u32| {
        let mut bodies = Bodies::new(&plan);
        let text = String::from_utf8(bodies.text(body).0.to_vec()).unwrap();
        let at = (slot - plan.slots_of(body).start) as usize;
        text.lines().nth(at).unwrap().to_owned()
    };
    for slot in 0..plan.slots() {
        let body = plan.body_of(slot);
        if let (Role::Repeat(original), first, _) = plan.source(body, slot) {
            repeats += 1;
            assert!(first < body && plan.role(first, original) == Role::Fresh);
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
    let mut seen = HashSet::new();
    for slot in 0..plan.slots() {
        let body = plan.body_of(slot);
        if let Role::Repeat(original) = plan.role(body, slot) {
            assert!(seen.insert((body, original)));
        }
    }
    assert!(!seen.is_empty());
}

#[test]
fn ids_are_unique_and_lead_back_to_their_slots_in_their_own_run_only() {
    let plan = plan(|settings| settings.duplicates = 0.0);
    let mut ids = HashSet::new();
    for slot in 0..plan.slots() {
        let event = plan.event(plan.body_of(slot), slot);
        assert!(ids.insert(event.event_id));
        let found = |seed, naming| slot_of(seed, naming, &event.event_id);
        assert_eq!(found(plan.seed, EVENT), Some(slot));
        assert_eq!(found(plan.seed + 1, EVENT), None);
        assert_eq!(found(plan.seed, REQUEST), None);
        if event.format != Format::Native {
            let request = request_uuid(&event.request.expect("it is recognised by it"));
            assert_eq!(slot_of(plan.seed, REQUEST, &request), Some(slot));
        }
    }
}

#[test]
fn tables_get_their_shares_of_the_mix_and_formats_equal_shares_of_those() {
    let plan = plan(|settings| (settings.events, settings.mix) = (40_000, (1, 3)));
    let mut shares: HashMap<Kind, usize> = HashMap::new();
    for body in 0..plan.bodies() {
        let share = shares.entry(plan.stream_of(body).kind()).or_default();
        *share += plan.slots_of(body).len();
    }
    for ((table, format), got) in shares {
        let due: usize = match table {
            Table::Exposures => 2_500,
            Table::Interactions => 15_000,
            Table::Assignments => 0,
        };
        assert!(got.abs_diff(due) < 200, "{got} of {table} in {format}");
    }
    let mut unfit = settings();
    (unfit.formats, unfit.mix) = (vec![Format::OutcomeV1], (1, 0));
    assert!(Plan::new(unfit).is_err(), "no format fits the mix");
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
    let [plain, gzip, zstd] = [Encoding::None, Encoding::Gzip, Encoding::Zstd].map(|encoding| {
        let mut settings = settings();
        settings.encoding = encoding;
        bodies(settings)
    });
    for (at, plain) in plain.iter().enumerate() {
        let mut text = Vec::new();
        let mut inflate = flate2::read::GzDecoder::new(&gzip[at].bytes[..]);
        inflate.read_to_end(&mut text).unwrap();
        assert_eq!(text, plain.bytes);
        let text = zstd::bulk::decompress(&zstd[at].bytes, 10 << 20).unwrap();
        assert_eq!(text, plain.bytes);
    }
}
