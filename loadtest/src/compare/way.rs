//! The ways in which rows are loaded, and what each is called.

use super::sample::Series;
use crate::answer::Ack;
use crate::generate::settings::Table;

/// Events of a body where nothing else is said.
pub(crate) const BODY: u32 = 100;

/// A way to load rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// (a) psql's `\copy`.
    Text,
    /// (b) Binary COPY in one stream.
    Binary,
    /// (c) Binary COPY in two streams.
    BinaryTwo,
    /// (d) psql's `\copy` into the suite's own tables.
    SuiteText,
    /// (e), (f) HTTP, in bodies of so many events.
    Http(Ack, u32),
    /// HTTP at half the rate that is held, in bodies of [`BODY`].
    HalfRate(Ack),
    /// (g) Single events to an HTTP server that does nothing with them.
    Empty,
}

impl Way {
    /// What a round does with a table, in this order.
    pub(crate) fn of_a_round(table: Table) -> &'static [Way] {
        match table {
            Table::Interactions => &[
                Way::Text,
                Way::Binary,
                Way::BinaryTwo,
                Way::SuiteText,
                Way::Http(Ack::Durable, 1),
                Way::Empty,
                Way::Http(Ack::Durable, 10),
                Way::Http(Ack::Durable, BODY),
                Way::Http(Ack::Durable, 1000),
                Way::Http(Ack::Committed, BODY),
                Way::HalfRate(Ack::Durable),
                Way::HalfRate(Ack::Committed),
            ],
            Table::Exposures => &[
                Way::Text,
                Way::Binary,
                Way::BinaryTwo,
                Way::SuiteText,
                Way::Http(Ack::Durable, BODY),
                Way::Http(Ack::Committed, BODY),
            ],
        }
    }

    /// How many of a load's rows it gets: as many as take it a second or so.
    pub(crate) fn rows_of(self, rows: u32) -> u32 {
        let share = match self {
            Way::Empty | Way::Http(_, ..10) => 10,
            Way::Http(_, ..100) => 3,
            _ => 1,
        };
        (rows / share).max(1)
    }

    /// For programs.
    pub(crate) fn id(self, table: Table) -> String {
        let table = match table {
            Table::Exposures => "exposures",
            Table::Interactions => "interactions",
        };
        let way = match self {
            Way::Text => "copy_text".to_owned(),
            Way::Binary => "copy_binary".to_owned(),
            Way::BinaryTwo => "copy_binary_2".to_owned(),
            Way::SuiteText => "suite_copy_text".to_owned(),
            Way::Http(ack, body) => format!("http_{}_{body}", ack.as_str()),
            Way::HalfRate(ack) => format!("half_rate_{}", ack.as_str()),
            Way::Empty => "empty_handler".to_owned(),
        };
        format!("{table}/{way}")
    }

    /// For people.
    pub(crate) fn title(self) -> String {
        match self {
            Way::Text => "psql \\copy, text".to_owned(),
            Way::Binary => "binary COPY, one stream".to_owned(),
            Way::BinaryTwo => "binary COPY, two streams".to_owned(),
            Way::SuiteText => "psql \\copy, the suite's own indexes".to_owned(),
            Way::Http(ack, 1) => format!("HTTP, ack={}, single events", ack.as_str()),
            Way::Http(ack, body) => format!("HTTP, ack={}, bodies of {body}", ack.as_str()),
            Way::HalfRate(ack) => format!("HTTP, ack={}, half the held rate", ack.as_str()),
            Way::Empty => "HTTP, empty handler, single events".to_owned(),
        }
    }

    /// Whether its rate says something: at half the rate it is the schedule's.
    pub(crate) fn is_throughput(self) -> bool {
        !matches!(self, Way::HalfRate(_))
    }

    /// A series of it without any samples yet.
    pub(crate) fn series(self, table: Table) -> Series {
        Series::new(self.id(table), self.title())
    }
}
