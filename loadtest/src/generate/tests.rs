use std::collections::HashSet;

use super::body::{Bodies, Body, events_in};
use super::event::Events;
use super::expect::{self, Hashed, Salt};
use super::identity::{self, Naming};
use super::plan::{Owner, Plan, Role};
use super::settings::{Caller, Encoding, Format, Framing, Scope, Settings, Table};
use super::{names, sample, strict};

fn bodies(settings: &Settings) -> Vec<Body> {
    let plan = Plan::new(settings).unwrap();
    Bodies::new(Events::new(settings, &plan)).collect()
}

#[test]
fn the_same_seed_posts_the_same_bytes_and_another_seed_others() {
    let settings = sample::settings();
    let (first, second) = (bodies(&settings), bodies(&settings));
    assert!(first.iter().zip(&second).all(|(a, b)| a.bytes == b.bytes));
    let other = bodies(&Settings {
        seed: 43,
        ..settings
    });
    assert_ne!(first[0].bytes, other[0].bytes);
}

#[test]
fn every_event_reads_back_by_the_contract_as_the_row_that_is_expected() {
    for (framing, salt) in [
        (Framing::Ndjson, Some("salt")),
        (Framing::Json, Some("salt")),
        (Framing::Envelope, None),
    ] {
        let settings = Settings {
            framing,
            events: 5_000,
            ..sample::settings()
        };
        let plan = Plan::new(&settings).unwrap();
        let salt = Salt::new(salt);
        let mut makes = Bodies::new(Events::new(&settings, &plan));
        let mut events = Events::new(&settings, &plan);
        for number in 0..plan.bodies() {
            let (text, count, rejects) = makes.text(number);
            let texts = strict::split(framing, text);
            assert_eq!(texts.len(), count as usize);
            let stream = plan.stream_of(number);
            let mut place = 0;
            let mut rejects = rejects.into_iter();
            for slot in plan.slots_of(number) {
                let (body, slot) = match plan.role(number, slot) {
                    Role::Repeat(original) => (plan.body_of(original), original),
                    _ => (number, slot),
                };
                let event = events.event(body, slot);
                let lines = events_in(event);
                let of_slot = &texts[place as usize..(place + lines) as usize];
                let read = strict::row(stream.table, stream.format, of_slot, &salt);
                match event.fault {
                    None => assert_eq!(
                        read.unwrap_or_else(|wrong| panic!("{wrong}: {of_slot:?}")),
                        expect::row(settings.seed, event, &salt),
                        "{of_slot:?}"
                    ),
                    Some(fault) => {
                        assert!(read.is_err(), "{fault:?} is no fault: {of_slot:?}");
                        assert_eq!(rejects.next(), Some((place, fault.code(stream.table))));
                    }
                }
                place += lines;
            }
            assert_eq!(rejects.next(), None);
        }
    }
}

#[test]
fn a_repeat_is_the_same_text_as_the_event_that_it_repeats_and_stands_in_a_later_body() {
    let settings = Settings {
        formats: vec![Format::Native],
        ..sample::settings()
    };
    let plan = Plan::new(&settings).unwrap();
    let mut makes = Bodies::new(Events::new(&settings, &plan));
    let mut repeats = 0;
    for body in 0..plan.bodies() {
        for slot in plan.slots_of(body) {
            let Role::Repeat(original) = plan.role(body, slot) else {
                continue;
            };
            repeats += 1;
            let first = plan.body_of(original);
            assert!(first < body);
            assert_eq!(plan.role(first, original), Role::Fresh);
            let mut line = |body: u32, slot: u32| {
                let at = (slot - plan.slots_of(body).start) as usize;
                strict::split(settings.framing, makes.text(body).0)[at].clone()
            };
            assert_eq!(line(body, slot), line(first, original));
        }
    }
    assert!((50..150).contains(&repeats), "{repeats} repeats");
}

#[test]
fn no_body_holds_a_list_twice() {
    let settings = Settings {
        formats: vec![Format::PipelinesV1],
        mix: (1, 0),
        body_events: 1..=300,
        duplicates: 0.5,
        ..sample::settings()
    };
    let plan = Plan::new(&settings).unwrap();
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
    let settings = Settings {
        duplicates: 0.0,
        ..sample::settings()
    };
    let plan = Plan::new(&settings).unwrap();
    let mut events = Events::new(&settings, &plan);
    let mut ids = HashSet::new();
    for slot in 0..plan.slots() {
        let event = events.event(plan.body_of(slot), slot);
        assert!(ids.insert(event.event_id));
        let id = event.event_id;
        assert_eq!(
            identity::slot_of(settings.seed, Naming::Event, &id),
            Some(slot)
        );
        if event.format != Format::Native {
            let request = expect::request_uuid(event.request.expect("it is recognised by it"));
            let found = identity::slot_of(settings.seed, Naming::Request, &request);
            assert_eq!(found, Some(slot));
        }
    }
}

#[test]
fn tables_get_their_shares_of_the_mix_and_formats_equal_shares_of_those() {
    let settings = Settings {
        events: 40_000,
        mix: (1, 3),
        ..sample::settings()
    };
    let plan = Plan::new(&settings).unwrap();
    let mut of_table = [0, 0];
    let mut of_native = [0, 0];
    for body in 0..plan.bodies() {
        let stream = plan.stream_of(body);
        let at = usize::from(stream.table == Table::Interactions);
        of_table[at] += plan.slots_of(body).len();
        if stream.format == Format::Native {
            of_native[at] += plan.slots_of(body).len();
        }
    }
    let near = |got: usize, due: usize| assert!(got.abs_diff(due) < 200, "{got} instead of {due}");
    near(of_table[0], 10_000);
    near(of_table[1], 30_000);
    near(of_native[0], 2_500);
    near(of_native[1], 15_000);
}

#[test]
fn formats_that_fit_no_table_of_the_mix_are_refused() {
    let settings = Settings {
        formats: vec![Format::OutcomeV1],
        mix: (1, 0),
        ..sample::settings()
    };
    assert!(Plan::new(&settings).is_err());
}

#[test]
fn a_service_key_names_every_tenant_in_its_events() {
    let names = ["a", "b", "c"];
    let settings = Settings {
        tenants: names.map(str::to_owned).to_vec(),
        callers: vec![Caller {
            key: Some("k".to_owned()),
            scope: Scope::Any,
        }],
        formats: vec![Format::Native],
        invalid: 0.0,
        duplicates: 0.0,
        ..sample::settings()
    };
    let plan = Plan::new(&settings).unwrap();
    let mut makes = Bodies::new(Events::new(&settings, &plan));
    let mut seen = HashSet::new();
    for body in 0..plan.bodies() {
        let texts = strict::split(settings.framing, makes.text(body).0);
        for (slot, text) in plan.slots_of(body).zip(texts) {
            let Owner::Tenant(at) = plan.owner(&settings, body, slot) else {
                panic!("nobody's");
            };
            let event: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(event["tenant_id"], names[usize::from(at)]);
            seen.insert(at);
        }
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn compressed_bodies_inflate_to_the_plain_ones() {
    use std::io::Read as _;
    let settings = sample::settings();
    let plain = bodies(&settings);
    let gzip = bodies(&Settings {
        encoding: Encoding::Gzip,
        ..settings.clone()
    });
    let zstd = bodies(&Settings {
        encoding: Encoding::Zstd,
        ..settings
    });
    for at in 0..plain.len() {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&gzip[at].bytes[..])
            .read_to_end(&mut text)
            .unwrap();
        assert_eq!(text, plain[at].bytes);
        let text = zstd::bulk::decompress(&zstd[at].bytes, 10 << 20).unwrap();
        assert_eq!(text, plain[at].bytes);
    }
}

#[test]
fn times_stay_within_the_days_of_the_run_and_advance_with_its_events() {
    let settings = sample::settings();
    let times: Vec<_> = (0..settings.events)
        .map(|slot| super::event::occurred_us(&settings, slot))
        .collect();
    let from = settings.until_us - settings.span_us;
    assert!(
        times
            .iter()
            .all(|at| (from..settings.until_us).contains(at))
    );
    let step = settings.span_us / i64::from(settings.events);
    assert!(times.windows(2).all(|pair| pair[1] > pair[0] - step));
}

#[test]
fn hashes_match_the_suites_vectors() {
    let due = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";
    let Hashed::Hash(hash) = Salt::new(Some("salt")).hash("user") else {
        panic!("there is a salt");
    };
    assert_eq!(hex::encode(hash), due);
    let request = expect::request_uuid(super::event::RequestId::Text(1));
    assert_eq!(request.to_string(), "212368a7-0138-518e-aa15-c4ccfd6834b6");
}

#[test]
fn an_odd_item_reads_back_from_json_as_its_column_shows_it() {
    for item in [0, 95, 96, 97, 193] {
        let mut text = b"\"".to_vec();
        names::push_item_json(&mut text, item);
        text.push(b'"');
        let read: String = serde_json::from_slice(&text).unwrap();
        assert_eq!(read, names::item(item));
    }
}
