//! What happened in a slot, whatever the format it is written in.
//!
//! Keeps one invariant: an event is a function of the settings and its slot. The
//! writer and the check both start from here, and share nothing behind it.

use uuid::Uuid;

use super::identity::{self, Naming};
use super::plan::{Owner, Plan, Role};
use super::random::{Draws, Share, Zipf};
use super::settings::{Format, Order, Settings, Table};
use super::time::{DAY_US, Style};

/// The longest list of pipelines_v1, in lines.
pub(crate) const LIST_ITEMS_MAX: u32 = 10;

/// Where lists are shown.
pub(crate) const SURFACES: [&str; 4] = ["home", "product_page", "cart", "search"];
/// To whom; the last one needs more than ASCII.
pub(crate) const SEGMENTS: [&str; 4] = ["default", "returning", "vip", "größer"];
/// What people do; the order is that of `Action`.
pub(crate) const EVENT_TYPES: [&str; 5] =
    ["impression", "view", "click", "add_to_cart", "purchase"];

/// A request's id as the client writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestId {
    /// A UUID.
    Uuid(Uuid),
    /// `req-…`: a string that becomes a UUID at the service.
    Text(u32),
}

/// Whom an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Nobody that the client knows.
    Nobody,
    /// A user by raw id.
    User(u32),
    /// An anonymous visitor by raw id.
    Anonymous(u32),
    /// A user by hash.
    UserHash(u32),
}

/// The session of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// None.
    None,
    /// A raw id.
    Raw(u32),
    /// A hash.
    Hash(u32),
}

/// One item of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Which one.
    pub(crate) item: u32,
    /// In thousandths.
    pub(crate) score: u32,
}

/// Why an event must be rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The time is no time.
    Time,
    /// The time is long ago.
    LongAgo,
    /// The surface or the item is missing.
    Missing,
    /// A value has the wrong type, or means nothing.
    Wrong,
}

impl Fault {
    /// The code that the service must answer with.
    pub(crate) fn code(self, table: Table) -> &'static str {
        match self {
            Fault::Time => "invalid_timestamp",
            Fault::LongAgo => "occurred_at_out_of_range",
            Fault::Missing => "missing_field",
            Fault::Wrong if table == Table::Interactions => "invalid_value",
            Fault::Wrong => "invalid_type",
        }
    }
}

/// An event; kept between slots for its list's memory.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) slot: u32,
    pub(crate) table: Table,
    pub(crate) format: Format,
    pub(crate) owner: Owner,
    pub(crate) event_id: Uuid,
    pub(crate) request: Option<RequestId>,
    pub(crate) occurred_us: i64,
    pub(crate) style: Style,
    pub(crate) who: Who,
    pub(crate) session: Session,
    pub(crate) surface: Option<u8>,
    pub(crate) segment: Option<u8>,
    /// Experiment and variant.
    pub(crate) experiment: Option<(u8, u8)>,
    /// Of algorithm, config and rules.
    pub(crate) version: Option<u8>,
    pub(crate) context: Option<u8>,
    /// What was shown.
    pub(crate) items: Vec<Item>,
    /// What was done: an index into [`EVENT_TYPES`].
    pub(crate) event_type: u8,
    /// To which item.
    pub(crate) item: u32,
    pub(crate) position: Option<u32>,
    /// In millionths.
    pub(crate) value: Option<u64>,
    pub(crate) fault: Option<Fault>,
}

/// Makes the events of a run.
#[derive(Debug)]
pub(crate) struct Events<'s> {
    pub(crate) settings: &'s Settings,
    pub(crate) plan: &'s Plan,
    items: Zipf,
    users: Zipf,
    event: Event,
    /// The list that an interaction answers to.
    shown: Vec<Item>,
}

impl<'s> Events<'s> {
    pub(crate) fn new(settings: &'s Settings, plan: &'s Plan) -> Self {
        Self {
            settings,
            plan,
            items: Zipf::new(settings.items),
            users: Zipf::new(settings.users),
            event: Event {
                slot: 0,
                table: Table::Exposures,
                format: Format::Native,
                owner: Owner::Caller(0),
                event_id: Uuid::nil(),
                request: None,
                occurred_us: 0,
                style: Style::Micros,
                who: Who::Nobody,
                session: Session::None,
                surface: None,
                segment: None,
                experiment: None,
                version: None,
                context: None,
                items: Vec::new(),
                event_type: 0,
                item: 0,
                position: None,
                value: None,
                fault: None,
            },
            shown: Vec::new(),
        }
    }

    /// The event of `slot`, which `body` is the first to hold.
    pub(crate) fn event(&mut self, body: u32, slot: u32) -> &Event {
        let stream = self.plan.stream_of(body);
        let (table, format) = (stream.table, stream.format);
        let seed = self.settings.seed;
        let event = &mut self.event;
        event.slot = slot;
        event.table = table;
        event.format = format;
        event.owner = self.plan.owner(self.settings, body, slot);
        event.event_id = identity::of_slot(seed, Naming::Event, slot);
        event.occurred_us = occurred_us(self.settings, slot);
        let mut draws = Draws::new(seed, 10, u64::from(slot));
        event.style = match draws.below(16) {
            0 => Style::Offset,
            1..=4 => Style::Nanos(u16::try_from(draws.below(1000)).expect("below 1000")),
            _ => Style::Micros,
        };
        event.fault = match self.plan.role(body, slot) {
            Role::Invalid => Some(match draws.below(4) {
                0 => Fault::Time,
                1 => Fault::LongAgo,
                2 => Fault::Missing,
                _ => Fault::Wrong,
            }),
            _ => None,
        };
        match table {
            Table::Exposures => self.shown(slot, &mut draws),
            Table::Interactions => self.done(body, slot, &mut draws),
        }
        &self.event
    }

    fn shown(&mut self, slot: u32, draws: &mut Draws) {
        let event = &mut self.event;
        let seed = self.settings.seed;
        event.request = Some(request_of(seed, event.format, slot));
        let user = self.users.draw(draws);
        let kind = draws.below(10);
        event.who = match (event.format, kind) {
            (_, 0) => Who::Nobody,
            (Format::ServiceV1, _) => Who::UserHash(user),
            (Format::PipelinesV1, _) => Who::User(user),
            (Format::EvalV1, 1..=7) => Who::UserHash(user),
            (Format::EvalV1, _) => Who::User(user),
            (_, 1..=5) => Who::User(user),
            (_, 6..=8) => Who::Anonymous(user),
            (_, _) => Who::UserHash(user),
        };
        let visit = user.wrapping_mul(16) + draws.below(16);
        event.session = match (event.format, draws.below(8)) {
            (Format::EvalV1, _) => Session::None,
            (Format::PipelinesV1, 0) => Session::Hash(visit),
            (_, 0) => Session::None,
            (Format::ServiceV1, _) => Session::Hash(visit),
            _ => Session::Raw(visit),
        };
        event.surface = Some(below_u8(draws, SURFACES.len()));
        event.segment = draws
            .happens(Share::percent(80))
            .then(|| below_u8(draws, SEGMENTS.len()));
        event.experiment = draws
            .happens(Share::percent(25))
            .then(|| (below_u8(draws, 5), below_u8(draws, 2)));
        event.version = draws
            .happens(Share::percent(90))
            .then(|| below_u8(draws, 32));
        event.context = draws
            .happens(Share::percent(75))
            .then(|| below_u8(draws, 8));
        if event.format == Format::PipelinesV1 {
            event.segment = None;
            event.experiment = None;
            event.version = None;
        }
        list(seed, event.format, slot, &self.items, &mut event.items);
    }

    fn done(&mut self, body: u32, slot: u32, draws: &mut Draws) {
        let seed = self.settings.seed;
        let shown_in = match self.event.format {
            Format::Native => self.plan.shown_before(body),
            _ => None,
        };
        let event = &mut self.event;
        event.items.clear();
        event.request = None;
        event.position = None;
        event.item = self.items.draw(draws);
        // Seven in eight answer to a list; the others are searches and the like.
        match shown_in {
            Some(shown) if draws.below(8) > 0 => {
                let slots = self.plan.slots_of(shown);
                let to = slots.start + draws.below(slots.end - slots.start);
                list(seed, Format::Native, to, &self.items, &mut self.shown);
                let at = draws.below(u32::try_from(self.shown.len()).expect("short"));
                event.request = Some(request_of(seed, Format::Native, to));
                event.item = self.shown[at as usize].item;
                event.position = Some(at + 1);
            }
            _ if event.format == Format::OutcomeV1 => {
                event.request = Some(request_of(seed, event.format, slot));
            }
            // Interactions alone answer to lists that somebody else reports.
            None if self.settings.mix.0 == 0 && draws.below(8) > 0 => {
                event.request = Some(request_of(seed, event.format, slot));
                event.position = Some(1 + draws.below(LIST_ITEMS_MAX));
            }
            _ => {}
        }
        let user = self.users.draw(draws);
        event.who = match (event.format, draws.below(10)) {
            (_, 0) => Who::Nobody,
            (Format::OutcomeV1, 1..=4) => Who::UserHash(user),
            (_, 1..=6) => Who::User(user),
            (Format::OutcomeV1, _) => Who::User(user),
            (_, 7..=8) => Who::Anonymous(user),
            (_, _) => Who::UserHash(user),
        };
        let visit = user.wrapping_mul(16) + draws.below(16);
        event.session = match (event.format, draws.below(8)) {
            (Format::OutcomeV1, _) | (_, 0) => Session::None,
            (_, 1) => Session::Hash(visit),
            _ => Session::Raw(visit),
        };
        event.surface = draws
            .happens(Share::percent(90))
            .then(|| below_u8(draws, SURFACES.len()));
        event.segment = draws
            .happens(Share::percent(30))
            .then(|| below_u8(draws, SEGMENTS.len()));
        if event.format == Format::OutcomeV1 {
            event.surface = None;
            event.segment = None;
        }
        event.event_type = match (event.format, draws.below(100)) {
            (Format::OutcomeV1, 0..80) => 2,
            (Format::OutcomeV1, _) => 4,
            (_, 0..40) => 0,
            (_, 40..65) => 1,
            (_, 65..90) => 2,
            (_, 90..97) => 3,
            _ => 4,
        };
        event.value = match (event.event_type, draws.below(8)) {
            // Some clients send more than cents.
            (4, 0) => Some(u64::from(draws.below(2_000_000_000))),
            (4, _) => Some(u64::from(draws.below(50_000)) * 10_000),
            (3, 0) => Some(0),
            _ => None,
        };
        event.context = draws
            .happens(Share::percent(10))
            .then(|| below_u8(draws, 8));
    }
}

/// When the event of a slot happened.
pub(crate) fn occurred_us(settings: &Settings, slot: u32) -> i64 {
    let from = settings.until_us - settings.span_us;
    let mut draws = Draws::new(settings.seed, 11, u64::from(slot));
    let low = |draw: u64| i64::try_from(draw >> 1).expect("63 bits");
    let us = match settings.order {
        Order::Random => low(draws.next()) % settings.span_us.max(1),
        Order::Time => {
            let step = settings.span_us / i64::from(settings.events.max(1));
            // Clients send what happened in the last seconds, not in order.
            let jitter = low(draws.next()) % step.max(2_000_000);
            i64::from(slot) * step + jitter
        }
    };
    from + us.clamp(0, settings.span_us.max(1) - 1)
}

/// The days that a run touches, from the first to the last microsecond.
pub(crate) fn window_us(settings: &Settings) -> (i64, i64) {
    (
        settings.until_us - settings.span_us - DAY_US,
        settings.until_us + DAY_US,
    )
}

/// The request that showed the list of `slot`.
///
/// One in sixteen native ones is a string, as older clients write it. Elsewhere
/// the request is what a row is recognised by, and stays a UUID.
fn request_of(seed: u64, format: Format, slot: u32) -> RequestId {
    match Draws::new(seed, 12, u64::from(slot)).below(16) {
        0 if format == Format::Native => RequestId::Text(slot),
        _ => RequestId::Uuid(identity::of_slot(seed, Naming::Request, slot)),
    }
}

/// The list of `slot`: apart from the rest, so that an interaction can find the
/// items that its exposure showed.
fn list(seed: u64, format: Format, slot: u32, items: &Zipf, out: &mut Vec<Item>) {
    let mut draws = Draws::new(seed, 13, u64::from(slot));
    let len = match format {
        Format::PipelinesV1 => 1 + draws.below(LIST_ITEMS_MAX),
        _ => 5 + draws.below(11),
    };
    out.clear();
    for _ in 0..len {
        out.push(Item {
            item: items.draw(&mut draws),
            score: draws.below(1000),
        });
    }
}

fn below_u8(draws: &mut Draws, n: usize) -> u8 {
    let n = u32::try_from(n).expect("short lists");
    u8::try_from(draws.below(n)).expect("short lists")
}
