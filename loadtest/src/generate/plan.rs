//! Which slots each body holds, and what stands in each slot.
//!
//! A slot is the place of one event in the run (of one whole list, in
//! pipelines_v1). Keeps one invariant: everything about a slot is a function of
//! the settings and its number, so that the check can ask again afterwards. In
//! memory are some ten bytes a body, and nothing an event.

use super::random::Draws;
use super::settings::{Scope, Settings};
use crate::service::{Format, Table};

/// Bodies of one format into one table by one caller.
#[derive(Debug)]
pub struct Stream {
    pub table: Table,
    pub format: Format,
    /// The client that posts: an index into the settings' callers.
    pub caller: u16,
    /// How often its turn is, in relation to the other streams.
    weight: u64,
    bodies: Vec<u32>,
}

impl Stream {
    /// What is counted together: a table, and the format's place in [`Format::ALL`].
    pub fn kind(&self) -> Kind {
        let format = Format::ALL.iter().position(|format| *format == self.format);
        (self.table, format.expect("ALL holds every format"))
    }
}

/// A table, and a format's place in [`Format::ALL`].
pub type Kind = (Table, usize);

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Fresh,
    /// An event that must be rejected.
    Invalid,
    /// The event of an earlier slot once more, byte for byte.
    Repeat(u32),
}

#[derive(Debug)]
pub struct Plan {
    pub settings: Settings,
    pub seed: u64,
    streams: Vec<Stream>,
    /// Body b holds the slots from `starts[b]` up to `starts[b + 1]`.
    starts: Vec<u32>,
    stream_of: Vec<u16>,
}

/// How many bodies of its stream a repeat may reach back: a client that sends
/// again does so soon.
const REPEATS_REACH_BACK: u32 = 64;
/// Lists are this long at most, so a body of pipelines_v1 gets as many times
/// fewer slots.
const LINES_PER_LIST: u32 = super::event::LIST_ITEMS_MAX;

impl Plan {
    /// Deals the events out to bodies.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let formats_of = |table: Table| settings.formats.iter().filter(move |f| f.fits(table));
        let (exposures, interactions) = settings.mix;
        let mut streams = Vec::new();
        for (table, weight, other) in [
            (Table::Exposures, exposures, Table::Interactions),
            (Table::Interactions, interactions, Table::Exposures),
        ] {
            // A table's weight is shared by its streams.
            let others = u64::try_from(formats_of(other).count().max(1))?;
            for &format in formats_of(table).filter(|_| weight > 0) {
                for caller in 0..settings.callers.len() {
                    streams.push(Stream {
                        table,
                        format,
                        caller: u16::try_from(caller)?,
                        weight: u64::from(weight) * others,
                        bodies: Vec::new(),
                    });
                }
            }
        }
        anyhow::ensure!(
            !streams.is_empty(),
            "none of the formats fits the mix: native goes into both tables, outcome_v1 only into interactions, the others only into exposures"
        );
        let mut plan = Self {
            seed: settings.seed(),
            settings,
            streams,
            starts: vec![0],
            stream_of: Vec::new(),
        };
        plan.deal()?;
        Ok(plan)
    }

    /// Gives each next body to the stream that is furthest behind its share.
    fn deal(&mut self) -> anyhow::Result<()> {
        let (from, to) = self.settings.body_events.clone().into_inner();
        let mut dealt = vec![0u64; self.streams.len()];
        let mut next = 0;
        while next < self.settings.events {
            let behind = |(at, stream): &(usize, &Stream)| {
                u128::from(dealt[*at]) * (1 << 32) / u128::from(stream.weight)
            };
            let streams = self.streams.iter().enumerate();
            let (at, _) = streams.min_by_key(behind).expect("there is a stream");
            let body = u32::try_from(self.stream_of.len())?;
            let mut size = from + Draws::new(self.seed, 1, body).below(to - from + 1);
            let stream = &mut self.streams[at];
            if stream.format == Format::PipelinesV1 {
                size = (size / LINES_PER_LIST).max(1);
            }
            let size = size.min(self.settings.events - next);
            dealt[at] += u64::from(size);
            next += size;
            self.starts.push(next);
            self.stream_of.push(u16::try_from(at)?);
            stream.bodies.push(body);
        }
        Ok(())
    }

    pub fn bodies(&self) -> u32 {
        u32::try_from(self.stream_of.len()).expect("checked when dealt")
    }

    pub fn slots(&self) -> u32 {
        *self.starts.last().expect("starts with 0")
    }

    pub fn slots_of(&self, body: u32) -> std::ops::Range<u32> {
        self.starts[body as usize]..self.starts[body as usize + 1]
    }

    pub fn body_of(&self, slot: u32) -> u32 {
        let after = self.starts.partition_point(|&start| start <= slot);
        u32::try_from(after - 1).expect("checked when dealt")
    }

    /// The place of a body's stream among [`streams`](Self::streams).
    pub fn stream_at(&self, body: u32) -> usize {
        usize::from(self.stream_of[body as usize])
    }

    pub fn stream_of(&self, body: u32) -> &Stream {
        &self.streams[self.stream_at(body)]
    }

    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// What stands in `slot` of `body`.
    pub fn role(&self, body: u32, slot: u32) -> Role {
        let mut draws = Draws::new(self.seed, 2, slot);
        if draws.happens(self.settings.duplicates)
            && let Some(original) = self.original(body, slot, &mut draws)
        {
            return Role::Repeat(original);
        }
        // Drawn apart, so that `is_surely_fresh` sees the same without the above.
        match self.is_invalid(slot) {
            true => Role::Invalid,
            false => Role::Fresh,
        }
    }

    /// The role of `slot` of `body`, and the body and slot that its event is the one of.
    pub fn source(&self, body: u32, slot: u32) -> (Role, u32, u32) {
        match self.role(body, slot) {
            Role::Repeat(original) => (Role::Repeat(original), self.body_of(original), original),
            role => (role, body, slot),
        }
    }

    fn is_invalid(&self, slot: u32) -> bool {
        Draws::new(self.seed, 3, slot).happens(self.settings.invalid)
    }

    /// Whether a slot of a stream's first body, or one that draws no repeat, is new.
    fn is_surely_fresh(&self, slot: u32) -> bool {
        !Draws::new(self.seed, 2, slot).happens(self.settings.duplicates) && !self.is_invalid(slot)
    }

    /// A fresh slot in an earlier body of the same stream.
    ///
    /// Of a list, no two copies may stand in one body: they would be grouped into
    /// a longer one. So the lists of a body all repeat the same earlier body, each
    /// the one in its own place.
    fn original(&self, body: u32, slot: u32, draws: &mut Draws) -> Option<u32> {
        let stream = self.stream_of(body);
        let place = stream.bodies.partition_point(|&other| other < body);
        let place = u32::try_from(place).expect("there are fewer bodies than 2^32");
        let reach = place.min(REPEATS_REACH_BACK);
        let is_list = stream.format == Format::PipelinesV1;
        let back = 1 + match is_list {
            true => Draws::new(self.seed, 5, body).below(reach),
            false => draws.below(reach),
        };
        let earlier = stream.bodies[place.checked_sub(back)? as usize];
        let slots = self.slots_of(earlier);
        let len = slots.end - slots.start;
        if is_list {
            let same_place = slots.start + (slot - self.slots_of(body).start);
            return (slots.contains(&same_place) && self.is_surely_fresh(same_place))
                .then_some(same_place);
        }
        let from = draws.below(len);
        (0..len.min(8))
            .map(|step| slots.start + (from + step) % len)
            .find(|&slot| self.is_surely_fresh(slot))
    }

    /// The body of native exposures that the interactions in `body` answer to:
    /// the last one before it by the same caller.
    pub fn shown_before(&self, body: u32) -> Option<u32> {
        let caller = self.stream_of(body).caller;
        let shown = self.streams.iter().find(|stream| {
            stream.table == Table::Exposures
                && stream.format == Format::Native
                && stream.caller == caller
        })?;
        let after = shown.bodies.partition_point(|&shown| shown < body);
        shown.bodies.get(after.checked_sub(1)?).copied()
    }

    /// The tenant of the event in `slot` of `body`, by its place in the settings; none if it
    /// is that of the caller's key, which only the service knows.
    pub fn tenant(&self, body: u32, slot: u32) -> Option<usize> {
        let stream = self.stream_of(body);
        match self.settings.callers[usize::from(stream.caller)].scope {
            Scope::Own => None,
            Scope::Tenant(tenant) => Some(tenant.into()),
            // outcome.v1 has no field for it.
            Scope::Any if stream.format == Format::OutcomeV1 => None,
            Scope::Any => {
                let tenants = u32::try_from(self.settings.tenants.len()).expect("few tenants");
                Some(Draws::new(self.seed, 4, slot).below(tenants) as usize)
            }
        }
    }
}
