//! A server that answers as Citus does: everything goes on to a real PostgreSQL, and what Citus
//! refuses, or tells in other words, is refused and told so here.
//!
//! - A simple query with several commands, one of which changes an event table: "cannot insert
//!   multiple commands into a prepared statement". Citus sends the text to its shards.
//! - A subquery that refers to a function in FROM, over an event table: 0A000.
//! - An error of a COPY's rows: XX000 of the routine `ReportCopyError`, with the message alone.
//!
//! Ends when it is dropped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::unix::{OwnedReadHalf as FromServer, OwnedWriteHalf as ToServer};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use super::cluster::Cluster;
use super::front::Front;
use super::proxy::{behind, socket};
use super::relay::{message, startup};

/// A front.
pub struct Citus {
    front: Front,
    state: Arc<State>,
}

struct State {
    /// Statements that were refused.
    refused: Mutex<Vec<String>>,
    /// Errors of rows that were told as a shard's.
    hidden: AtomicU64,
    /// Number of COPYs that have sent their rows.
    copies: AtomicU64,
    /// The COPY with this number waits before its rows go on.
    held: watch::Sender<Option<u64>>,
}

impl Citus {
    /// Starts a front of a cluster.
    pub fn start(cluster: &Cluster) -> Self {
        let socket = socket(cluster);
        let state = Arc::new(State {
            refused: Mutex::default(),
            hidden: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            held: watch::Sender::new(None),
        });
        let shared = Arc::clone(&state);
        let front = Front::of(socket, move |client, server| {
            pass_on(client, server, Arc::clone(&shared))
        });
        Self { front, state }
    }

    /// The URL of the same database through the front.
    pub fn url(&self, url: &str) -> String {
        behind(self.front.address, url)
    }

    /// Statements that were refused.
    pub fn refused(&self) -> Vec<String> {
        self.state.refused.lock().unwrap().clone()
    }

    /// Number of errors that were told as a shard's.
    pub fn hidden(&self) -> u64 {
        self.state.hidden.load(Ordering::Relaxed)
    }

    /// Number of COPYs whose rows have come.
    pub fn copies(&self) -> u64 {
        self.state.copies.load(Ordering::Relaxed)
    }

    /// Holds the COPY that comes after `more` others, until [`release`](Self::release).
    pub fn hold_copy_after(&self, more: u64) {
        self.state.held.send_replace(Some(self.copies() + more + 1));
    }

    /// Lets go what is held.
    pub fn release(&self) {
        self.state.held.send_replace(None);
    }
}

async fn pass_on(client: TcpStream, server: UnixStream, state: Arc<State>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whether the server's next error is about rows.
    let sends_rows = AtomicBool::new(false);
    let to_client = tokio::sync::Mutex::new(to_client);
    tokio::select! {
        _ = up(from_client, to_server, &to_client, &state, &sends_rows) => {}
        _ = down(from_server, &to_client, &state, &sends_rows) => {}
    }
}

async fn up(
    mut from: OwnedReadHalf,
    mut to: ToServer,
    to_client: &tokio::sync::Mutex<OwnedWriteHalf>,
    state: &State,
    sends_rows: &AtomicBool,
) -> std::io::Result<()> {
    let first = startup(&mut from).await?;
    to.write_all(&first).await?;
    let mut is_held = false;
    // A refused statement, up to the Sync behind it.
    let mut skips = false;
    loop {
        let (kind, bytes) = message(&mut from).await?;
        if skips {
            skips = kind != b'S';
            if !skips {
                let mut answer = error("0A000", CORRELATED);
                // Statements are prepared outside of transactions.
                answer.extend_from_slice(b"Z\0\0\0\x05I");
                to_client.lock().await.write_all(&answer).await?;
            }
            continue;
        }
        match kind {
            b'Q' => {
                let sql = text(&bytes[5..]);
                if has_several_commands_on_an_event_table(&sql) {
                    state.refused.lock().unwrap().push(sql);
                    to.write_all(&raise(SEVERAL)).await?;
                    continue;
                }
            }
            b'P' => {
                let sql = text(bytes[5..].split(|&byte| byte == 0).nth(1).unwrap());
                if is_correlated(&sql) {
                    state.refused.lock().unwrap().push(sql);
                    skips = true;
                    continue;
                }
            }
            b'd' => {
                sends_rows.store(true, Ordering::Relaxed);
                if !std::mem::replace(&mut is_held, true) {
                    let number = state.copies.fetch_add(1, Ordering::Relaxed) + 1;
                    let mut held = state.held.subscribe();
                    drop(held.wait_for(|held| *held != Some(number)).await);
                }
            }
            b'c' | b'f' => is_held = false,
            _ => {}
        }
        to.write_all(&bytes).await?;
    }
}

async fn down(
    mut from: FromServer,
    to_client: &tokio::sync::Mutex<OwnedWriteHalf>,
    state: &State,
    sends_rows: &AtomicBool,
) -> std::io::Result<()> {
    loop {
        let (kind, mut bytes) = message(&mut from).await?;
        if kind == b'E' && sends_rows.load(Ordering::Relaxed) && !ends_connection(&bytes[5..]) {
            state.hidden.fetch_add(1, Ordering::Relaxed);
            bytes = as_of_a_shard(&bytes[5..]);
        }
        if kind == b'Z' {
            sends_rows.store(false, Ordering::Relaxed);
        }
        to_client.lock().await.write_all(&bytes).await?;
    }
}

const SEVERAL: &str = "cannot insert multiple commands into a prepared statement";
const CORRELATED: &str = "correlated subqueries are not supported when the FROM clause contains a set returning function";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

/// Whether one of several commands changes an event table, a partition or an index of one. The
/// names of events' tables all contain the same word.
fn has_several_commands_on_an_event_table(sql: &str) -> bool {
    let commands: Vec<&str> = sql
        .split(';')
        .map(str::trim)
        .filter(|command| !command.is_empty())
        .collect();
    let changes = |command: &&str| {
        let word = command.split_whitespace().next().unwrap_or_default();
        let is_utility = [
            "ALTER", "CREATE", "DROP", "LOCK", "TRUNCATE", "VACUUM", "ANALYZE",
        ];
        is_utility.contains(&word) && is_of_events(command)
    };
    commands.len() > 1 && commands.iter().any(changes)
}

fn is_of_events(sql: &str) -> bool {
    [
        "exposure_events", "interaction_events", "ingest_assignments",
    ]
    .iter()
    .any(|table| sql.contains(table))
}

/// Whether a function in FROM stands beside a subquery over an event table that refers to it.
fn is_correlated(sql: &str) -> bool {
    let outer = sql.split("WHERE").next().unwrap_or_default();
    let inner = sql.split_once("WHERE").map_or("", |(_, rest)| rest);
    outer.contains("unnest(") && inner.contains("(SELECT") && is_of_events(inner)
}

fn ends_connection(fields: &[u8]) -> bool {
    fields.starts_with(b"SFATAL\0") || fields.starts_with(b"SPANIC\0")
}

fn error(code: &str, message: &str) -> Vec<u8> {
    of_fields(&[
        (b'S', "ERROR"),
        (b'V', "ERROR"),
        (b'C', code),
        (b'M', message),
    ])
}

/// The error as Citus passes it on: the message, the detail, and nothing else of the shard's.
fn as_of_a_shard(fields: &[u8]) -> Vec<u8> {
    let field = |kind: u8| {
        let mut all = fields.split(|&byte| byte == 0);
        let found = all.find(|field| field.first() == Some(&kind));
        found.map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    };
    let (message, detail) = (field(b'M').unwrap(), field(b'D'));
    let mut kept = vec![
        (b'S', "ERROR"),
        (b'V', "ERROR"),
        (b'C', "XX000"),
        (b'M', message.as_str()),
    ];
    kept.extend(detail.as_deref().map(|detail| (b'D', detail)));
    kept.extend([
        (b'F', "multi_copy.c"),
        (b'L', "1246"),
        (b'R', "ReportCopyError"),
    ]);
    of_fields(&kept)
}

fn of_fields(fields: &[(u8, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (kind, value) in fields {
        text.push(*kind);
        text.extend_from_slice(value.as_bytes());
        text.push(0);
    }
    text.push(0);
    let mut bytes = vec![b'E'];
    bytes.extend_from_slice(&u32::try_from(text.len() + 4).unwrap().to_be_bytes());
    bytes.extend_from_slice(&text);
    bytes
}

/// A query that fails at the server with this message, and its transaction with it.
fn raise(message: &str) -> Vec<u8> {
    let sql = format!("DO $$ BEGIN RAISE EXCEPTION '{message}' USING ERRCODE = '42601'; END $$\0");
    let mut bytes = vec![b'Q'];
    bytes.extend_from_slice(&u32::try_from(sql.len() + 4).unwrap().to_be_bytes());
    bytes.extend_from_slice(sql.as_bytes());
    bytes
}
