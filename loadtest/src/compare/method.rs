//! The methods by which rows are loaded, and what each is called.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::environment::Environment;
use super::rows::{Rows, columns, suite_columns};
use super::sample::Sample;
use crate::service::{Ack, Session, Table, copy, word};

/// Events of a body where nothing else is said.
pub const BODY: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// (a) psql's `\copy`.
    Text,
    /// (b), (c) Binary COPY in this many streams.
    Binary(usize),
    /// (d) psql's `\copy` into the suite's own tables.
    SuiteText,
    /// (e), (f) HTTP, in bodies of this many events.
    Http(Ack, u32),
    /// HTTP at half the rate that is held, in bodies of [`BODY`].
    HalfRate(Ack),
    /// (g) Single events to an HTTP server that does nothing with them.
    Empty,
}

impl Method {
    /// What a round does with a table, in this order.
    pub fn of_a_round(table: Table) -> Vec<Method> {
        let mut methods = vec![
            Method::Text,
            Method::Binary(1),
            Method::Binary(2),
            Method::SuiteText,
        ];
        methods.extend_from_slice(match table {
            Table::Interactions => &[
                Method::Http(Ack::Durable, 1),
                Method::Empty,
                Method::Http(Ack::Durable, 10),
                Method::Http(Ack::Durable, BODY),
                Method::Http(Ack::Durable, 1000),
                Method::Http(Ack::Committed, BODY),
                Method::HalfRate(Ack::Durable),
                Method::HalfRate(Ack::Committed),
            ],
            Table::Exposures => &[
                Method::Http(Ack::Durable, BODY),
                Method::Http(Ack::Committed, BODY),
            ],
            Table::Assignments => &[],
        });
        methods
    }

    /// How many of a load's rows it gets: as many as take it a second or so.
    pub fn rows_of(self, rows: u32) -> u32 {
        let share = match self {
            Method::Empty | Method::Http(_, ..10) => 10,
            Method::Http(_, ..100) => 3,
            _ => 1,
        };
        (rows / share).max(1)
    }

    pub fn id(self, table: Table) -> String {
        let method = match self {
            Method::Text => "copy_text".to_owned(),
            Method::Binary(1) => "copy_binary".to_owned(),
            Method::Binary(streams) => format!("copy_binary_{streams}"),
            Method::SuiteText => "suite_copy_text".to_owned(),
            Method::Http(ack, body) => format!("http_{ack}_{body}"),
            Method::HalfRate(ack) => format!("half_rate_{ack}"),
            Method::Empty => "empty_handler".to_owned(),
        };
        format!("{}/{method}", word(table))
    }

    pub fn title(self) -> String {
        match self {
            Method::Text => "psql \\copy, text".to_owned(),
            Method::Binary(1) => "binary COPY, one stream".to_owned(),
            Method::Binary(_) => "binary COPY, two streams".to_owned(),
            Method::SuiteText => "psql \\copy, the suite's own indexes".to_owned(),
            Method::Http(ack, 1) => format!("HTTP, ack={ack}, single events"),
            Method::Http(ack, body) => format!("HTTP, ack={ack}, bodies of {body}"),
            Method::HalfRate(ack) => format!("HTTP, ack={ack}, half the held rate"),
            Method::Empty => "HTTP, empty handler, single events".to_owned(),
        }
    }
}

/// Loads all rows without the service; `method` is one of those.
pub async fn load_by_copy(
    environment: &Environment,
    rows: &Rows,
    method: Method,
) -> anyhow::Result<Sample> {
    let table = rows.table;
    let (into, columns, file) = match method {
        Method::SuiteText => (
            format!("suite.{table}"),
            suite_columns(table),
            &rows.suite_text,
        ),
        _ => (table.to_string(), columns(table), &rows.text),
    };
    environment.clear(&into).await?;
    let load = async {
        let took = match method {
            Method::Binary(streams) => binary(environment, rows, streams).await?,
            _ => {
                let file = file.display();
                let copy = format!("\\copy {into} ({columns}) FROM '{file}'");
                environment.psql(&copy).await?
            }
        };
        Ok(Sample {
            rows: rows.count,
            seconds: took.as_secs_f64(),
            ..Sample::default()
        })
    };
    let sample = environment.metered(None, load).await?;
    environment.ensure_rows(&into, rows.count).await?;
    Ok(sample)
}

/// Loads all rows in `streams` concurrent COPYs, and says how long it took.
///
/// Streams take the blocks in turn, so that all of them write at the same edge
/// of the index, as writers of a live stream of events do.
async fn binary(
    environment: &Environment,
    rows: &Rows,
    streams: usize,
) -> anyhow::Result<Duration> {
    let mut sessions = Vec::new();
    for _ in 0..streams {
        sessions.push(Session::open(&environment.target, None).await?);
    }
    let began = Instant::now();
    let mut copies = JoinSet::new();
    for (at, session) in sessions.into_iter().enumerate() {
        let blocks = rows.blocks.iter().skip(at).step_by(streams);
        let (table, blocks) = (rows.table, blocks.cloned().collect::<Vec<_>>());
        copies.spawn(async move { copy(&session, table, &blocks).await });
    }
    while let Some(copied) = copies.join_next().await {
        copied.context("a COPY panicked")??;
    }
    Ok(began.elapsed())
}

/// One COPY, and its COMMIT.
pub async fn copy(session: &Session, table: Table, blocks: &[Bytes]) -> anyhow::Result<()> {
    let cannot = || format!("cannot copy into {table}");
    let sink = session.client.copy_in(&copy::statement(table)).await;
    let chunks = blocks
        .iter()
        .flat_map(|block| block.chunks(copy::CHUNK_BYTES));
    let copied = copy::send(sink.with_context(cannot)?, chunks).await;
    copied.with_context(cannot).map(drop)
}
