//! A proxy between the service and PostgreSQL that understands messages.
//!
//! `proxy` works on a stream of bytes; this one finds the messages that store a batch, and loses,
//! refuses or delays exactly one of them or its answer, or ends the connection there. Ends when
//! it is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf as UnixWriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

use super::cluster::Cluster;
use super::front::Front;

/// A step of the exchange that stores a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// BEGIN.
    Begin,
    /// Bind, Execute and Sync of the COPY.
    Copy,
    /// The rows, up to CopyDone and Sync.
    Rows,
    /// Bind, Execute and Sync of the update of the ledger's row.
    Entry,
    /// COMMIT.
    Commit,
}

/// What happens to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server never gets it, and both sides keep waiting.
    Lose,
    /// The server never gets it; the client gets an error.
    Refuse,
    /// The server gets it after this time.
    Delay(Duration),
    /// The server gets it; the answer is held for this time.
    AnswerLate(Duration),
    /// The server gets it; the client never gets the answer.
    LoseAnswer,
    /// The connection ends before the server gets it.
    CutBefore,
    /// The connection ends after the server has answered, before the client gets the answer.
    CutAfter,
}

/// A relay in front of a server.
pub struct Relay {
    front: Front,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    planned: Mutex<Option<(Step, Fault)>>,
    hits: AtomicU64,
}

/// The error of a refusal: `out_of_memory`, which is retried.
const REFUSAL: &[(u8, &str)] = &[
    (b'S', "ERROR"),
    (b'V', "ERROR"),
    (b'C', "53200"),
    (b'M', "out of memory"),
];

impl Relay {
    /// Starts a relay in front of a cluster.
    pub fn start(cluster: &Cluster) -> Self {
        let socket = super::proxy::socket(cluster);
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let front = Front::of(socket, move |client, server| {
            pass_on(client, server, Arc::clone(&shared))
        });
        Self { front, state }
    }

    /// The URL of the same database through the relay.
    pub fn url(&self, url: &str) -> String {
        super::proxy::behind(self.front.address, url)
    }

    /// The next `step` gets this fault.
    pub fn plan(&self, step: Step, fault: Fault) {
        *self.state.planned.lock().unwrap() = Some((step, fault));
    }

    /// Number of faults that have happened.
    pub fn hits(&self) -> u64 {
        self.state.hits.load(Ordering::Relaxed)
    }
}

impl State {
    fn take(&self, step: Step) -> Option<Fault> {
        let mut planned = self.planned.lock().unwrap();
        let (_, fault) = planned.take_if(|(of, _)| *of == step)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(fault)
    }
}

/// What happens to an answer of the server, up to its ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Pass,
    Late(Duration),
    Lose,
    Cut,
}

/// State that both directions of a connection share.
struct Wire {
    to_client: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Number of answers that have arrived in full.
    answered: watch::Sender<u64>,
    /// Answers with a plan, by their number.
    answers: Mutex<HashMap<u64, Answer>>,
}

async fn pass_on(client: TcpStream, server: UnixStream, state: Arc<State>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let wire = Wire {
        to_client: tokio::sync::Mutex::new(to_client),
        answered: watch::Sender::new(0),
        answers: Mutex::default(),
    };
    tokio::select! {
        _ = up(from_client, to_server, &wire, &state) => {}
        _ = down(from_server, &wire) => {}
    }
}

/// Reads a message: its type, and all its bytes.
pub(super) async fn message(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
) -> std::io::Result<(u8, Vec<u8>)> {
    let mut whole = vec![0; 5];
    from.read_exact(&mut whole).await?;
    let length = u32::from_be_bytes(whole[1..5].try_into().unwrap()) as usize;
    whole.resize(length + 1, 0);
    from.read_exact(&mut whole[5..]).await?;
    Ok((whole[0], whole))
}

/// Reads the first message, which has no type.
pub(super) async fn startup(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
) -> std::io::Result<Vec<u8>> {
    let mut startup = vec![0; 4];
    from.read_exact(&mut startup).await?;
    let length = u32::from_be_bytes(startup[..4].try_into().unwrap()) as usize;
    startup.resize(length, 0);
    from.read_exact(&mut startup[4..]).await?;
    Ok(startup)
}

async fn up(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: UnixWriteHalf,
    wire: &Wire,
    state: &State,
) -> std::io::Result<()> {
    let first = startup(&mut from).await?;
    to.write_all(&first).await?;
    // Answer 0 belongs to the startup message.
    let mut asked = 1;
    let mut statements: HashMap<Vec<u8>, Step> = HashMap::new();
    let (mut step, mut held) = (None, Vec::new());
    loop {
        let (kind, bytes) = message(&mut from).await?;
        match kind {
            b'P' => {
                let mut parts = bytes[5..].split(|&byte| byte == 0);
                let (name, sql) = (parts.next().unwrap(), parts.next().unwrap());
                let sql = String::from_utf8_lossy(sql);
                let sql = sql.trim_start();
                if sql.starts_with("COPY ") {
                    statements.insert(name.to_vec(), Step::Copy);
                } else if sql.starts_with("WITH entered AS ") {
                    statements.insert(name.to_vec(), Step::Entry);
                }
            }
            b'B' => {
                let mut parts = bytes[5..].split(|&byte| byte == 0);
                let name = parts.nth(1).unwrap();
                step = statements.get(name).copied();
            }
            b'd' => step = Some(Step::Rows),
            b'Q' => {
                step = match &bytes[5..] {
                    sql if sql.starts_with(b"BEGIN") => Some(Step::Begin),
                    b"COMMIT\0" => Some(Step::Commit),
                    _ => None,
                }
            }
            _ => {}
        }
        held.extend_from_slice(&bytes);
        // Rows carry no Sync: they are held until the Sync that ends the COPY.
        let whole = matches!(kind, b'S' | b'Q') || kind == b'X';
        let Some(this) = step else {
            to.write_all(&std::mem::take(&mut held)).await?;
            asked += u64::from(whole);
            continue;
        };
        if !whole {
            continue;
        }
        step = None;
        let held = std::mem::take(&mut held);
        // The Sync behind the Execute of a COPY is answered only after the rows.
        let number = asked;
        let answered = this != Step::Copy;
        let Some(fault) = state.take(this) else {
            to.write_all(&held).await?;
            asked += u64::from(answered);
            continue;
        };
        match fault {
            Fault::Lose => {}
            Fault::Refuse if this == Step::Rows => {
                // CopyFail tells the server that no rows follow.
                to.write_all(b"f\0\0\0\x0crefused\0S\0\0\0\x04").await?;
                asked += 1;
            }
            Fault::Refuse => {
                let mut answers = wire.answered.subscribe();
                drop(answers.wait_for(|answered| *answered >= number).await);
                let mut text = Vec::new();
                for &(field, value) in REFUSAL {
                    text.push(field);
                    text.extend_from_slice(value.as_bytes());
                    text.push(0);
                }
                text.push(0);
                let mut refusal = vec![b'E'];
                refusal.extend_from_slice(&u32::try_from(text.len() + 4).unwrap().to_be_bytes());
                refusal.extend_from_slice(&text);
                let ready = if this == Step::Begin { b'I' } else { b'T' };
                refusal.extend_from_slice(&[b'Z', 0, 0, 0, 5, ready]);
                wire.to_client.lock().await.write_all(&refusal).await?;
            }
            Fault::CutBefore => return Ok(()),
            Fault::Delay(_) | Fault::AnswerLate(_) | Fault::LoseAnswer | Fault::CutAfter => {
                let answer = match fault {
                    Fault::AnswerLate(late) => Answer::Late(late),
                    Fault::LoseAnswer => Answer::Lose,
                    Fault::CutAfter => Answer::Cut,
                    _ => Answer::Pass,
                };
                wire.answers.lock().unwrap().insert(number, answer);
                if let Fault::Delay(delay) = fault {
                    tokio::time::sleep(delay).await;
                }
                to.write_all(&held).await?;
                asked += u64::from(answered);
            }
        }
    }
}

async fn down(mut from: OwnedReadHalf, wire: &Wire) -> std::io::Result<()> {
    let mut number = 0;
    loop {
        let (kind, bytes) = message(&mut from).await?;
        let answer = wire.answers.lock().unwrap().get(&number).copied();
        match answer.unwrap_or(Answer::Pass) {
            Answer::Pass => wire.to_client.lock().await.write_all(&bytes).await?,
            Answer::Late(late) => {
                tokio::time::sleep(late).await;
                wire.answers.lock().unwrap().insert(number, Answer::Pass);
                wire.to_client.lock().await.write_all(&bytes).await?;
            }
            Answer::Lose => {}
            Answer::Cut => return Ok(()),
        }
        if kind == b'Z' {
            number += 1;
            wire.answered.send_replace(number);
        }
    }
}
