//! A small shop: the lists that a recommendation service serves and logs, and what people do with
//! them.
//!
//! Pure and deterministic: one seed and one time always give the same events, with the same ids, so
//! that a shop that is played again is recognised. Events are made in the order in which a real one
//! would make them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::event::time::Micros;
use crate::jobs::played::{Numbers, POPULAR_MAX};

/// Items and their prices in cents, the best ones first.
const CATALOGUE: [(&str, u32); 12] = [
    ("book", 1_999),
    ("lamp", 2_490),
    ("mug", 850),
    ("chair", 8_900),
    ("desk", 24_900),
    ("plant", 1_250),
    ("rug", 5_995),
    ("clock", 3_120),
    ("vase", 1_475),
    ("shelf", 6_430),
    ("candle", 599),
    ("frame", 1_105),
];

/// Items in a list.
const LISTED: usize = 6;
/// Items of a list that a screen shows.
const VISIBLE: usize = 4;
const PEOPLE: u64 = 12;

/// Time between two lists, and between two events of one.
const LIST_EVERY_US: i64 = 200_000;
const EVENT_EVERY_US: i64 = 20_000;

/// Of each sixteen clicks, the one whose request id was lost on the way, and the one whose id the page
/// made up: both are habits of real pages, which the report on joins is there to find.
const CLICKS: u32 = 16;
const CLICK_WITHOUT_TOKEN: u32 = 5;
const CLICK_WITH_OWN_TOKEN: u32 = 9;

/// Which shop.
#[derive(Clone, Debug)]
pub(super) struct Shop {
    pub(super) seed: u32,
    pub(super) lists: u32,
    pub(super) opens: Micros,
    /// Named in the lines of the log, as the service names it.
    pub(super) tenant: Option<String>,
}

/// Everything that happens in a shop.
#[derive(Debug, Default)]
pub(super) struct Play {
    /// Lines of recsys-service's log, in its format service_v1.
    pub(super) exposures: Vec<Value>,
    pub(super) assignments: Vec<Value>,
    pub(super) interactions: Vec<Value>,
    /// What there is to find in Postgres afterwards.
    pub(super) numbers: Numbers,
    /// Rows of interactions that find their list.
    pub(super) joined: u64,
    pub(super) without_token: u64,
    pub(super) token_unknown: u64,
}

impl Shop {
    /// The name of the shop, and of the surface that all of its events are on.
    pub(super) fn surface(&self) -> String {
        let time: String = self.opens.to_string();
        let digits: String = time.chars().filter(char::is_ascii_digit).collect();
        format!("demo-{}-{digits}", self.seed)
    }

    /// The first moment after its last event.
    pub(super) fn closes(&self) -> Micros {
        self.at(self.lists, 0)
    }

    fn at(&self, list: u32, step: u32) -> Micros {
        let us = i64::from(list) * LIST_EVERY_US + i64::from(step) * EVENT_EVERY_US;
        Micros(self.opens.0 + us)
    }

    /// Plays it.
    pub(super) fn play(&self) -> Play {
        let surface = self.surface();
        let mut dice = Dice(u64::from(self.seed));
        let mut play = Play::default();
        let (mut clicks, mut orders) = (0, 0);
        let mut ordered = 0_u32;
        let mut counts = Counts::default();
        for list in 0..self.lists {
            let request = format!("{surface}-{list:03}");
            let person = dice.below(PEOPLE);
            // As a service assigns: by the person, and always the same.
            let variant = if person.is_multiple_of(2) { "A" } else { "B" };
            let shown = dice.list(variant);
            for (item, _) in &shown {
                *counts.shown.entry((*item).to_owned()).or_default() += 1;
            }
            *counts.variants.entry(variant.to_owned()).or_default() += 1;
            play.exposures
                .push(self.exposure(list, &request, person, &shown));
            play.assignments.push(json!({
                "experiment_id": "demo-ranking", "variant": variant, "request_id": request,
                "user_id": user(person), "ts": self.at(list, 0).to_string(),
                "context": {"surface": surface, "device": "web"},
            }));
            let event = |kind: &str, step, more: Value| {
                let mut event = json!({
                    "event_id": format!("{request}-{kind}"), "event_type": kind,
                    "occurred_at": self.at(list, step).to_string(), "request_id": request,
                    "surface": surface, "user_id": user(person), "session_id": session(person),
                });
                put(&mut event, more);
                event
            };
            let visible = &shown[..VISIBLE];
            let seen: Vec<_> = (1..)
                .zip(visible)
                .map(|(rank, (item, _))| json!({"item_id": item, "position": rank}))
                .collect();
            counts.add("impression", VISIBLE as u64);
            play.joined += VISIBLE as u64;
            play.interactions
                .push(event("impression", 1, json!({"items": seen})));
            // Three of five lists are clicked on, mostly at their top.
            if dice.below(5) >= 3 {
                continue;
            }
            clicks += 1;
            let place = dice.below(VISIBLE as u64).min(dice.below(VISIBLE as u64));
            let place = usize::try_from(place).unwrap_or(0);
            let (item, price) = shown[place];
            let mut click = event("click", 2, json!({"item_id": item, "position": place + 1}));
            counts.add("click", 1);
            match clicks % CLICKS {
                CLICK_WITHOUT_TOKEN => {
                    if let Some(fields) = click.as_object_mut() {
                        fields.remove("request_id");
                    }
                    play.without_token += 1;
                }
                CLICK_WITH_OWN_TOKEN => {
                    click["request_id"] = format!("{request}-own").into();
                    play.token_unknown += 1;
                }
                _ => play.joined += 1,
            }
            play.interactions.push(click);
            // Every third click ends with an order, of that item and of another one of the list.
            if clicks % 3 != 0 {
                continue;
            }
            let (other, other_price) = shown[(place + 1) % LISTED];
            let quantity = if dice.below(2) == 0 { 1 } else { 2 };
            let total = price + quantity * other_price;
            (orders, ordered) = (orders + 1, ordered + total);
            counts.add("purchase", 2);
            play.joined += 2;
            play.interactions.push(event(
                "purchase",
                3,
                json!({
                    "items": [
                        {"item_id": item, "price": euros(price), "quantity": 1},
                        {"item_id": other, "price": euros(other_price), "quantity": quantity},
                    ],
                    "order": {"id": format!("{request}-order"), "value": euros(total), "currency": "EUR"},
                }),
            ));
        }
        play.numbers = counts.numbers(self.lists, orders, ordered);
        play
    }

    /// The line that recsys-service logs for a list. It would hash the ids itself; here they are
    /// hashed as they arrive, under the same salt.
    fn exposure(&self, list: u32, request: &str, person: u64, shown: &[(&str, u32)]) -> Value {
        let items: Vec<_> = (1_u32..)
            .zip(shown)
            .map(|(rank, (item, _))| {
                json!({"item_id": item, "rank": rank, "score": f64::from(100 - 10 * rank) / 100.0})
            })
            .collect();
        let mut line = json!({
            "schema_version": "v1", "timestamp": self.at(list, 0).to_string(),
            "request_id": request, "surface": self.surface(), "segment": "default",
            "algo_version": "demo@1",
            "subject": {"user_id": user(person), "session_id": session(person)},
            "context": {"locale": "en", "device": "web"}, "items": items,
        });
        if let Some(tenant) = &self.tenant {
            line["tenant_id"] = tenant.as_str().into();
        }
        line
    }
}

fn user(person: u64) -> String {
    format!("demo-user-{person}")
}

fn session(person: u64) -> String {
    format!("demo-session-{person}")
}

fn euros(cents: u32) -> f64 {
    f64::from(cents) / 100.0
}

fn put(event: &mut Value, more: Value) {
    if let (Value::Object(event), Value::Object(more)) = (event, more) {
        event.extend(more);
    }
}

/// What was counted while playing.
#[derive(Debug, Default)]
struct Counts {
    shown: BTreeMap<String, u64>,
    variants: BTreeMap<String, u64>,
    /// Rows by type.
    rows: BTreeMap<String, u64>,
}

impl Counts {
    fn add(&mut self, kind: &str, rows: u64) {
        *self.rows.entry(kind.to_owned()).or_default() += rows;
    }

    fn numbers(self, lists: u32, orders: u64, ordered: u32) -> Numbers {
        let mut popular: Vec<_> = self.shown.into_iter().collect();
        popular.sort_by(|(one, often), (other, than)| than.cmp(often).then_with(|| one.cmp(other)));
        popular.truncate(POPULAR_MAX);
        let money = format!("{}.{:02}", ordered / 100, ordered % 100);
        // In the order of the enum of event types, in which Postgres sorts them.
        let in_order = ["impression", "click", "purchase"];
        let interactions = in_order.into_iter().filter_map(|kind| {
            let rows = self.rows.get(kind)?;
            Some((kind.to_owned(), *rows))
        });
        Numbers {
            lists: lists.into(),
            items: u64::from(lists) * LISTED as u64,
            variants: self.variants.into_iter().collect(),
            interactions: interactions.collect(),
            revenue: money.clone(),
            orders,
            ordered: money,
            popular,
        }
    }
}

/// SplitMix64: the numbers of a seed are the same in every version of this program.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    /// Different items, the better ones more often; variant B shows others, too.
    fn list(&mut self, variant: &str) -> Vec<(&'static str, u32)> {
        let mut taken = BTreeSet::new();
        let mut list = Vec::new();
        let all = CATALOGUE.len() as u64;
        while list.len() < LISTED {
            let one = self.below(all);
            let place = match variant {
                "A" => one.min(self.below(all)),
                _ => one,
            };
            let place = usize::try_from(place).unwrap_or(0);
            if taken.insert(place) {
                list.push(CATALOGUE[place]);
            }
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop(seed: u32, lists: u32) -> Shop {
        Shop {
            seed,
            lists,
            opens: Micros::parse("2026-05-24T10:00:00Z").unwrap(),
            tenant: None,
        }
    }

    #[test]
    fn a_shop_is_the_same_each_time_and_another_one_is_not() {
        let play = |seed| {
            let play = shop(seed, 40).play();
            format!("{:?}{:?}", play.exposures, play.interactions)
        };
        assert_eq!(play(1), play(1));
        assert_ne!(play(1), play(2));
        assert_eq!(shop(1, 40).surface(), "demo-1-20260524100000");
    }

    #[test]
    fn its_events_are_few_and_their_numbers_add_up() {
        for (seed, lists) in [(1, 40), (1, 1), (7, 200), (u32::MAX, 40)] {
            let shop = shop(seed, lists);
            let play = shop.play();
            let count = play.exposures.len() + play.assignments.len() + play.interactions.len();
            assert!(count <= 5 * lists as usize, "{count}");
            let ids: BTreeSet<_> = play
                .interactions
                .iter()
                .map(|event| event["event_id"].to_string())
                .collect();
            assert_eq!(ids.len(), play.interactions.len(), "an id stands twice");
            let rows: u64 = play.numbers.interactions.iter().map(|(_, rows)| rows).sum();
            assert_eq!(rows, play.joined + play.without_token + play.token_unknown);
            let last = shop.closes();
            let times = play.interactions.iter().chain(&play.exposures);
            let times = times.map(|event| {
                let at = event.get("occurred_at").or(event.get("timestamp"));
                Micros::parse(at.unwrap().as_str().unwrap()).unwrap()
            });
            assert!(times.max().unwrap() < last);
        }
        let play = shop(1, 40).play();
        assert!(play.without_token > 0 && play.token_unknown > 0 && play.numbers.orders > 3);
    }
}
