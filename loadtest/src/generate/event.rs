//! What happened in a slot, before it is written in a format.
//!
//! Keeps one invariant: an event is a function of the settings and its slot. The
//! writer and the check both start from here, and share nothing behind it.

use serde_json::{Value, json};
use uuid::Uuid;

use super::names;
use super::plan::{Plan, Role};
use super::random::Draws;
use super::settings::Order;
use super::write::Style;
use crate::service::{Format, Table};

/// The longest list of pipelines_v1, in lines.
pub const LIST_ITEMS_MAX: u32 = 10;

const SURFACES: [&str; 4] = ["home", "product_page", "cart", "search"];
/// The last one needs more than ASCII.
const SEGMENTS: [&str; 4] = ["default", "returning", "vip", "größer"];
const VARIANTS: [&str; 2] = ["control", "treatment"];
/// The last one needs an escape.
const DEVICES: [&str; 4] = ["web", "ios", "android", "tv 55\" – größer"];

/// A user's or a session's id, as the client sends it.
#[derive(Clone, Debug)]
pub enum Id {
    /// The service replaces it by its hash.
    Raw(String),
    /// Stored as it is.
    Hash([u8; 32]),
}

impl Id {
    pub fn text(&self) -> String {
        match self {
            Id::Raw(text) => text.clone(),
            Id::Hash(hash) => hex::encode(hash),
        }
    }
}

/// Why an event must be rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Time,
    LongAgo,
    /// The surface or the item is missing.
    Missing,
    /// A value has the wrong type, or means nothing.
    Wrong,
}

impl Fault {
    const ALL: [Fault; 4] = [Fault::Time, Fault::LongAgo, Fault::Missing, Fault::Wrong];

    /// The code that the service must answer with.
    pub fn code(self, table: Table) -> &'static str {
        match self {
            Fault::Time => "invalid_timestamp",
            Fault::LongAgo => "occurred_at_out_of_range",
            Fault::Missing => "missing_field",
            Fault::Wrong if table == Table::Interactions => "invalid_value",
            Fault::Wrong => "invalid_type",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Event {
    pub table: Table,
    pub format: Format,
    pub tenant: Option<usize>,
    pub event_id: Uuid,
    pub request: Option<String>,
    pub occurred_us: i64,
    pub style: Style,
    pub user: Option<Id>,
    /// The raw user id is that of an anonymous visitor.
    pub is_anonymous: bool,
    pub session: Option<Id>,
    /// What else happened, as the native format has it; null is what the event does not have.
    pub members: Value,
    pub fault: Option<Fault>,
}

impl Event {
    /// How many events the service sees in the slot: a list of pipelines_v1 has a line an item.
    pub fn count(&self) -> u32 {
        let items = self.members["items"].as_array().map_or(1, Vec::len);
        match self.format {
            Format::PipelinesV1 => u32::try_from(items).expect("lists are short"),
            _ => 1,
        }
    }

    /// Makes it one that must be rejected.
    fn spoil(&mut self, fault: Fault) {
        let (members, is_list) = (&mut self.members, self.format == Format::PipelinesV1);
        // One line, so that one slot is one rejection.
        if let Some(lines) = members["items"].as_array_mut().filter(|_| is_list) {
            lines.truncate(1);
        }
        match (fault, self.table) {
            (Fault::Time | Fault::LongAgo, _) => {}
            (Fault::Missing, Table::Exposures) => members["surface"] = Value::Null,
            (Fault::Missing, Table::Interactions) => members["item_id"] = Value::Null,
            (Fault::Wrong, Table::Exposures) if is_list => {
                members["items"][0]["item_id"] = 7.into()
            }
            (Fault::Wrong, Table::Exposures) => members["items"] = "none".into(),
            (Fault::Wrong, Table::Interactions) => members["event_type"] = "hover".into(),
            (_, Table::Assignments) => unreachable!("assignments are not loaded"),
        }
        self.fault = Some(fault);
    }
}

impl Plan {
    /// The event of `slot`, which `body` is the first to hold.
    pub fn event(&self, body: u32, slot: u32) -> Event {
        let stream = self.stream_of(body);
        let (table, format) = (stream.table, stream.format);
        let mut draws = Draws::new(self.seed, 10, slot);
        let style = match draws.below(16) {
            0 => Style::Offset,
            1..=4 => Style::Nanos(draws.below(1000)),
            _ => Style::Micros,
        };
        let number = draws.popular(self.settings.users);
        let visit = number.wrapping_mul(16) + draws.below(16);
        let kind = draws.below(10);
        let is_anonymous = format == Format::Native && (6..=8).contains(&kind);
        let user = match (format, kind) {
            (_, 0) => None,
            (Format::ServiceV1, _)
            | (Format::EvalV1, 1..=7)
            | (Format::OutcomeV1, 1..=4)
            | (Format::Native, 9) => Some(Id::Hash(names::hash(self.seed, 20, number))),
            _ if is_anonymous => Some(Id::Raw(format!("anon-{number}"))),
            _ => Some(Id::Raw(format!("user-{number}"))),
        };
        let session = match (format, draws.below(8)) {
            (Format::EvalV1 | Format::OutcomeV1, _) => None,
            (Format::PipelinesV1, 0) | (Format::ServiceV1, 1..) | (Format::Native, 1) => {
                Some(Id::Hash(names::hash(self.seed, 21, visit)))
            }
            (_, 0) => None,
            _ => Some(Id::Raw(format!("session-{visit}"))),
        };
        let (request, members) = match table {
            Table::Exposures => self.show(format, slot, &mut draws),
            Table::Interactions => self.act(format, body, slot, &mut draws),
            Table::Assignments => unreachable!("assignments are not loaded"),
        };
        let mut event = Event {
            table,
            format,
            tenant: self.tenant(body, slot),
            event_id: names::of_slot(self.seed, names::EVENT, slot),
            request,
            occurred_us: occurred_us(self, slot),
            style,
            user,
            is_anonymous,
            session,
            members,
            fault: None,
        };
        if self.role(body, slot) == Role::Invalid {
            event.spoil(draws.one_of(&Fault::ALL));
        }
        event
    }

    /// The request and the members of an exposure.
    fn show(&self, format: Format, slot: u32, draws: &mut Draws) -> (Option<String>, Value) {
        // A line of pipelines_v1 has no fields for the rest.
        let mut members = json!({});
        if format != Format::PipelinesV1 {
            let version = draws.maybe(0.9, |draws| draws.below(32));
            let named = |word: &str| version.map(|version| format!("{word}-{version}"));
            let config = named("cfg").map(|config| match version {
                // Some copy the ETag as HTTP has it.
                Some(0 | 16) => format!("W/\"{config}\""),
                _ => config,
            });
            let experiment = |draws: &mut Draws| json!({"id": format!("exp-{}", draws.below(5)), "variant": draws.one_of(&VARIANTS)});
            let context = |draws: &mut Draws| {
                let (locale, country) = draws.one_of(&[("de-DE", "DE"), ("en-GB", "GB")]);
                json!({"locale": locale, "device": draws.one_of(&DEVICES), "country": country})
            };
            members = json!({
                "segment": draws.maybe(0.8, |draws| draws.one_of(&SEGMENTS)),
                "experiment": draws.maybe(0.25, experiment),
                "context": draws.maybe(0.75, context),
                "algo_version": named("algo"),
                "config_version": config,
                "rules_version": named("rules"),
            });
        }
        let has_score = matches!(format, Format::Native | Format::ServiceV1);
        let item = |(rank, (item, score)): (u32, (u32, u32))| {
            let mut item = json!({"item_id": names::item(item), "rank": rank});
            if has_score {
                item["score"] = (f64::from(score) / 1000.0).into();
            }
            item
        };
        let ranks = u32::from(format != Format::PipelinesV1)..;
        members["items"] = ranks.zip(self.list(format, slot)).map(item).collect();
        members["surface"] = draws.one_of(&SURFACES).into();
        (Some(request_of(self.seed, format, slot)), members)
    }

    /// The request and the members of an interaction.
    fn act(
        &self,
        format: Format,
        body: u32,
        slot: u32,
        draws: &mut Draws,
    ) -> (Option<String>, Value) {
        let is_native = format == Format::Native;
        let shown_in = self.shown_before(body).filter(|_| is_native);
        let (mut request, mut position) = (None, None);
        let mut item = draws.popular(self.settings.items);
        // Seven in eight answer to a list; the others are searches and the like.
        match shown_in {
            Some(shown) if draws.below(8) > 0 => {
                let slots = self.slots_of(shown);
                let to = slots.start + draws.below(slots.end - slots.start);
                let shown = self.list(Format::Native, to);
                let at = draws.below(u32::try_from(shown.len()).expect("lists are short"));
                request = Some(request_of(self.seed, Format::Native, to));
                item = shown[at as usize].0;
                position = Some(at + 1);
            }
            _ if !is_native => request = Some(request_of(self.seed, format, slot)),
            // Interactions alone answer to lists that another client reports.
            None if self.settings.mix.0 == 0 && draws.below(8) > 0 => {
                request = Some(request_of(self.seed, format, slot));
                position = Some(1 + draws.below(LIST_ITEMS_MAX));
            }
            _ => {}
        }
        let event_type = match (is_native, draws.below(100)) {
            (false, 0..80) => "click",
            (false, _) => "purchase",
            (true, 0..40) => "impression",
            (true, 40..65) => "view",
            (true, 65..90) => "click",
            (true, 90..97) => "add_to_cart",
            (true, _) => "purchase",
        };
        let millionths = match (event_type, draws.below(8)) {
            // Some clients send more than cents.
            ("purchase", 0) => Some(draws.below(2_000_000_000)),
            ("purchase", _) => Some(draws.below(50_000) * 10_000),
            ("add_to_cart", 0) => Some(0),
            _ => None,
        };
        let mut members = json!({
            "event_type": event_type,
            "item_id": names::item(item),
            "value": millionths.map(|millionths| f64::from(millionths) / 1e6),
            "position": position,
        });
        if is_native {
            let meta =
                |draws: &mut Draws| json!({"device": draws.one_of(&DEVICES), "retry": false});
            members["surface"] = json!(draws.maybe(0.9, |draws| draws.one_of(&SURFACES)));
            members["segment"] = json!(draws.maybe(0.3, |draws| draws.one_of(&SEGMENTS)));
            members["meta"] = json!(draws.maybe(0.1, meta));
        }
        (request, members)
    }

    /// The list of `slot`, items and scores in thousandths: apart from the rest, so that an
    /// interaction can find the items that its exposure showed.
    fn list(&self, format: Format, slot: u32) -> Vec<(u32, u32)> {
        let mut draws = Draws::new(self.seed, 13, slot);
        let len = match format {
            Format::PipelinesV1 => 1 + draws.below(LIST_ITEMS_MAX),
            _ => 5 + draws.below(11),
        };
        let item = |_| (draws.popular(self.settings.items), draws.below(1000));
        (0..len).map(item).collect()
    }
}

/// When the event of a slot happened.
pub fn occurred_us(plan: &Plan, slot: u32) -> i64 {
    let settings = &plan.settings;
    let span_us = settings.span_us();
    let drawn = Draws::new(plan.seed, 11, slot).next() >> 1;
    let drawn = i64::try_from(drawn).expect("63 bits");
    let us = match settings.order {
        Order::Random => drawn % span_us.max(1),
        Order::Time => {
            let step = span_us / i64::from(settings.events.max(1));
            // Clients send what happened in the last seconds, not in order.
            i64::from(slot) * step + drawn % step.max(2_000_000)
        }
    };
    settings.until_us() - span_us + us.clamp(0, span_us.max(1) - 1)
}

/// The request that showed the list of `slot`.
///
/// One in sixteen native ones is a string that is no UUID, as older clients write
/// it. Elsewhere the request is what a row is recognised by, and stays a UUID.
fn request_of(seed: u64, format: Format, slot: u32) -> String {
    match Draws::new(seed, 12, slot).below(16) {
        0 if format == Format::Native => format!("req-{slot}"),
        _ => names::of_slot(seed, names::REQUEST, slot).to_string(),
    }
}
