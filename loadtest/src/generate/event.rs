//! What happened in a slot, before it is written in a format.
//!
//! Keeps one invariant: an event is a function of the settings and its slot. The
//! writer and the check both start from here, and share nothing behind it.

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

#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub item: u32,
    /// In thousandths.
    pub score: u32,
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
    pub surface: Option<&'static str>,
    pub segment: Option<&'static str>,
    pub experiment: Option<(u32, &'static str)>,
    /// Of algorithm, config and rules.
    pub version: Option<u32>,
    /// A number that decides device, locale and country.
    pub context: Option<u32>,
    pub items: Vec<Item>,
    pub event_type: &'static str,
    pub item: u32,
    pub position: Option<u32>,
    /// In millionths.
    pub value: Option<u64>,
    pub fault: Option<Fault>,
}

impl Event {
    /// The items that are written as lines: a bad list has one, so that one slot is one rejection.
    pub fn lines(&self) -> &[Item] {
        match self.fault {
            Some(_) => &self.items[..1],
            None => &self.items,
        }
    }

    /// How many events the service sees in the slot.
    pub fn count(&self) -> u32 {
        match self.format {
            Format::PipelinesV1 => u32::try_from(self.lines().len()).expect("lists are short"),
            _ => 1,
        }
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
        let fault = (self.role(body, slot) == Role::Invalid).then(|| draws.one_of(&Fault::ALL));
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
        let mut event = Event {
            table,
            format,
            tenant: self.tenant(body, slot),
            event_id: names::of_slot(self.seed, names::EVENT, slot),
            request: None,
            occurred_us: occurred_us(self, slot),
            style,
            user,
            is_anonymous,
            session,
            surface: None,
            segment: None,
            experiment: None,
            version: None,
            context: None,
            items: Vec::new(),
            event_type: "",
            item: 0,
            position: None,
            value: None,
            fault,
        };
        match table {
            Table::Exposures => self.show(&mut event, slot, &mut draws),
            Table::Interactions => self.act(&mut event, body, slot, &mut draws),
        }
        event
    }

    fn show(&self, event: &mut Event, slot: u32, draws: &mut Draws) {
        event.request = Some(request_of(self.seed, event.format, slot));
        event.items = self.list(event.format, slot);
        event.surface = Some(draws.one_of(&SURFACES));
        // A line of pipelines_v1 has no fields for the rest.
        if event.format != Format::PipelinesV1 {
            event.segment = draws.maybe(0.8, |draws| draws.one_of(&SEGMENTS));
            event.experiment = draws.maybe(0.25, |draws| (draws.below(5), draws.one_of(&VARIANTS)));
            event.version = draws.maybe(0.9, |draws| draws.below(32));
            event.context = draws.maybe(0.75, |draws| draws.below(8));
        }
    }

    fn act(&self, event: &mut Event, body: u32, slot: u32, draws: &mut Draws) {
        let is_native = event.format == Format::Native;
        let shown_in = self.shown_before(body).filter(|_| is_native);
        event.item = draws.popular(self.settings.items);
        // Seven in eight answer to a list; the others are searches and the like.
        match shown_in {
            Some(shown) if draws.below(8) > 0 => {
                let slots = self.slots_of(shown);
                let to = slots.start + draws.below(slots.end - slots.start);
                let shown = self.list(Format::Native, to);
                let at = draws.below(u32::try_from(shown.len()).expect("lists are short"));
                event.request = Some(request_of(self.seed, Format::Native, to));
                event.item = shown[at as usize].item;
                event.position = Some(at + 1);
            }
            _ if !is_native => event.request = Some(request_of(self.seed, event.format, slot)),
            // Interactions alone answer to lists that another client reports.
            None if self.settings.mix.0 == 0 && draws.below(8) > 0 => {
                event.request = Some(request_of(self.seed, event.format, slot));
                event.position = Some(1 + draws.below(LIST_ITEMS_MAX));
            }
            _ => {}
        }
        if is_native {
            event.surface = draws.maybe(0.9, |draws| draws.one_of(&SURFACES));
            event.segment = draws.maybe(0.3, |draws| draws.one_of(&SEGMENTS));
            event.context = draws.maybe(0.1, |draws| draws.below(8));
        }
        event.event_type = match (is_native, draws.below(100)) {
            (false, 0..80) => "click",
            (false, _) => "purchase",
            (true, 0..40) => "impression",
            (true, 40..65) => "view",
            (true, 65..90) => "click",
            (true, 90..97) => "add_to_cart",
            (true, _) => "purchase",
        };
        event.value = match (event.event_type, draws.below(8)) {
            // Some clients send more than cents.
            ("purchase", 0) => Some(u64::from(draws.below(2_000_000_000))),
            ("purchase", _) => Some(u64::from(draws.below(50_000)) * 10_000),
            ("add_to_cart", 0) => Some(0),
            _ => None,
        };
    }

    /// The list of `slot`: apart from the rest, so that an interaction can find the
    /// items that its exposure showed.
    fn list(&self, format: Format, slot: u32) -> Vec<Item> {
        let mut draws = Draws::new(self.seed, 13, slot);
        let len = match format {
            Format::PipelinesV1 => 1 + draws.below(LIST_ITEMS_MAX),
            _ => 5 + draws.below(11),
        };
        let item = |_| Item {
            item: draws.popular(self.settings.items),
            score: draws.below(1000),
        };
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
