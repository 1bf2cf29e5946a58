//! A measurement: what an honest client notices while others attack.
//!
//! Each attack gets a fresh service; phases of calm and of attack alternate. The honest client
//! posts single events with `durable`: 100 a second on new connections and 100 a second on kept
//! ones. Latency counts from when a request was due. The attackers run on a separate thread. Each
//! attack prints a line:
//!
//! ```sh
//! cargo test --release --test it attacks -- --ignored --nocapture
//! ```
//!
//! `ATTACKS` (a part of a name), `ATTACK_ROUNDS` and `ATTACK_SECONDS` make it shorter.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use recsys_ingest::tenants::role::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::{Database, Process, Settings, click, key};

const INTERACTIONS: &str = "/v1/interactions";

/// Interval between two requests on the same kind of connection.
const EVERY: Duration = Duration::from_millis(10);

/// A request without an answer in this time counts as refused.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The service's peak memory has to stay below this.
const MEMORY_MAX: u64 = 300 << 20;

/// An attack: its name, the service's flags, the number of attackers, and what each one does.
struct Attack {
    name: &'static str,
    flags: &'static [(&'static str, &'static str)],
    attackers: usize,
    attacker: fn(SocketAddr, &mut JoinSet<()>),
}

const ATTACKS: [Attack; 15] = [
    Attack {
        name: "slow bodies, HTTP/1",
        flags: &[],
        attackers: 64,
        attacker: slow_body,
    },
    Attack {
        name: "slow bodies, HTTP/2",
        flags: &[],
        attackers: 8,
        attacker: slow_streams,
    },
    Attack {
        name: "bodies without their last byte",
        flags: &[],
        attackers: 64,
        attacker: unended_body,
    },
    Attack {
        name: "silent connections",
        flags: &[("--connections-max", "200")],
        attackers: 230,
        attacker: silent,
    },
    Attack {
        name: "halves of HTTP/2's preface",
        flags: &[("--connections-max", "200")],
        attackers: 230,
        attacker: half_preface,
    },
    Attack {
        name: "large heads without an end",
        flags: &[],
        attackers: 500,
        attacker: unended_head,
    },
    Attack {
        name: "streams reset at once",
        flags: &[],
        attackers: 2,
        attacker: rapid_reset,
    },
    Attack {
        name: "pings",
        flags: &[],
        attackers: 4,
        attacker: pings,
    },
    Attack {
        name: "DATA frames of a byte",
        flags: &[],
        attackers: 4,
        attacker: tiny_data,
    },
    Attack {
        name: "a flood without a key",
        flags: &[],
        attackers: 4,
        attacker: keyless_flood,
    },
    Attack {
        name: "nested meta, 818 bytes",
        flags: &[],
        attackers: 6,
        attacker: nested,
    },
    Attack {
        name: "unread answers, HTTP/2",
        flags: &[],
        attackers: 4,
        attacker: unread_streams,
    },
    Attack {
        name: "unread answers, HTTP/1",
        flags: &[],
        attackers: 60,
        attacker: unread,
    },
    Attack {
        name: "unread large answers",
        flags: &[],
        attackers: 60,
        attacker: unread_pages,
    },
    Attack {
        name: "1.4 million fields",
        flags: &[],
        attackers: 4,
        attacker: many_fields,
    },
];

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
#[ignore = "measures for minutes"]
fn attacks_of_all_kinds_and_an_honest_client() {
    let wanted = std::env::var("ATTACKS").unwrap_or_default();
    let rounds = setting("ATTACK_ROUNDS", 5);
    let time = Duration::from_secs(setting("ATTACK_SECONDS", 4));
    let threads = |n| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(n)
            .enable_all()
            .build()
            .unwrap()
    };
    let (honest, hostile) = (threads(1), threads(1));
    println!(
        "{:<32} {:>7} {:>7} | p99 in ms, new: calm attack | kept: calm attack | peak MiB",
        "attack", "sent", "refused"
    );
    for attack in ATTACKS.iter().filter(|a| a.name.contains(&wanted)) {
        let database = honest.block_on(Database::with_tenants());
        let settings = attack
            .flags
            .iter()
            .fold(Settings::new(&database), |settings, (flag, value)| {
                settings.with(flag, value)
            })
            .with("--default-ack", "durable")
            .with("--spool-bytes-max", "2GiB");
        let (process, client) = Process::serve(&settings);
        let address = client.address;
        // The first requests create a partition and warm the caches.
        honest.block_on(posts(address, Duration::from_secs(1)));
        let mut seen: Vec<[Seen; 2]> = Vec::new();
        for _ in 0..rounds {
            let calm = honest.block_on(posts(address, time));
            let attackers = Attackers::start(&hostile, attack, address);
            std::thread::sleep(Duration::from_millis(500));
            let attacked = honest.block_on(posts(address, time));
            attackers.stop(&hostile);
            std::thread::sleep(Duration::from_secs(1));
            seen.push([calm, attacked]);
        }
        report(attack.name, &seen, process.memory("VmHWM"));
    }
}

fn report(name: &str, seen: &[[Seen; 2]], peak: u64) {
    let median = |of: fn(&[Seen; 2]) -> Duration| {
        let mut all: Vec<_> = seen.iter().map(of).collect();
        all.sort();
        all[all.len() / 2].as_secs_f64() * 1e3
    };
    let sent: usize = seen.iter().map(|[_, attacked]| attacked.sent).sum();
    let refused: usize = seen.iter().map(|[_, a]| a.refusals.len()).sum();
    let new = (median(|[calm, _]| calm.p99[0]), median(|[_, a]| a.p99[0]));
    let kept = (median(|[calm, _]| calm.p99[1]), median(|[_, a]| a.p99[1]));
    let good = |(calm, attacked): (f64, f64)| attacked <= (2.0 * calm).max(50.0);
    let verdict = if refused == 0 && good(new) && good(kept) && peak < MEMORY_MAX {
        "holds"
    } else {
        "DOES NOT HOLD"
    };
    println!(
        "{name:<32} {sent:>7} {refused:>7} | {:>8.1} {:>8.1} | {:>8.1} {:>8.1} | {:>5} {verdict}",
        new.0,
        new.1,
        kept.0,
        kept.1,
        peak >> 20
    );
    for (n, [calm, attacked]) in seen.iter().enumerate() {
        println!(
            "    round {n}: calm {:?} {:?}, attack {:?} {:?}",
            calm.p99,
            first(calm),
            attacked.p99,
            first(attacked)
        );
    }
}

fn first(seen: &Seen) -> Option<&String> {
    seen.refusals.first()
}

/// What the honest client saw.
#[derive(Default)]
pub struct Seen {
    pub sent: usize,
    pub refusals: Vec<String>,
    /// On new connections and on kept ones.
    pub p99: [Duration; 2],
}

/// Posts at a fixed rate, however slow the answers are.
pub async fn posts(address: SocketAddr, time: Duration) -> Seen {
    let kept: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    let mut due = Duration::ZERO;
    while due < time {
        tokio::time::sleep_until((start + due).into()).await;
        for kind in 0..2 {
            let kept = Arc::clone(&kept);
            tasks.spawn(async move {
                let stream = if kind == 1 {
                    kept.lock().unwrap().pop()
                } else {
                    None
                };
                let answer = tokio::time::timeout(ANSWER_MAX, post(address, stream)).await;
                let took = start.elapsed().saturating_sub(due);
                let refusal = match answer {
                    Ok(Ok((text, stream))) => {
                        if kind == 1 {
                            kept.lock().unwrap().push(stream);
                        }
                        (!text.starts_with("HTTP/1.1 202 ")).then_some(text)
                    }
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some("no answer".to_owned()),
                };
                (kind, took, refusal)
            });
        }
        due += EVERY;
    }
    let mut seen = Seen::default();
    let mut took = [Vec::new(), Vec::new()];
    for (kind, time, refusal) in tasks.join_all().await {
        seen.sent += 1;
        took[kind].push(time);
        seen.refusals.extend(refusal);
    }
    for (kind, mut times) in took.into_iter().enumerate() {
        times.sort();
        seen.p99[kind] = times[times.len() * 99 / 100];
    }
    seen
}

/// Posts a single event, on a kept connection or a new one; returns the answer and the connection.
pub async fn post(
    address: SocketAddr,
    kept: Option<TcpStream>,
) -> std::io::Result<(String, TcpStream)> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    let body = click(&uuid::Uuid::now_v7().to_string()).to_string();
    let request = format!(
        "{}content-length: {}\r\n\r\n{body}",
        head(Role::Ingest),
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::Error::other("closed without an answer"));
        }
        // An answer this small arrives in one piece.
        if answer.ends_with(b"}") {
            return Ok((String::from_utf8_lossy(&answer).into_owned(), stream));
        }
    }
}

/// Running attackers.
struct Attackers {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Attackers {
    fn start(runtime: &Runtime, attack: &Attack, address: SocketAddr) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for _ in 0..attack.attackers {
            let (stop, attacker) = (stop.clone(), attack.attacker);
            tasks.spawn_on(
                async move {
                    while !stop.is_cancelled() {
                        let mut one = JoinSet::new();
                        attacker(address, &mut one);
                        tokio::select! {
                            () = stop.cancelled() => one.shutdown().await,
                            _ = one.join_next() => {}
                        }
                        // An attacker that is disconnected comes back.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                runtime.handle(),
            );
        }
        Self { stop, tasks }
    }

    fn stop(mut self, runtime: &Runtime) {
        self.stop.cancel();
        runtime.block_on(async { while self.tasks.join_next().await.is_some() {} });
    }
}

fn head(role: Role) -> String {
    format!(
        "POST {INTERACTIONS} HTTP/1.1\r\nhost: test\r\nx-api-key: {}\r\ncontent-type: application/json\r\n",
        key("demo", role)
    )
}

async fn open(address: SocketAddr) -> Option<TcpStream> {
    // Attackers connect from another address than the honest client: limits are per address.
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind("127.0.0.2:0".parse().unwrap()).ok()?;
    socket.connect(address).await.ok()
}

/// Waits until the service closes the connection, and reads nothing before that.
async fn until_closed(stream: &mut TcpStream) {
    let mut byte = [0; 64];
    while matches!(stream.read(&mut byte).await, Ok(1..)) {}
}

/// Opens a connection, sends `bytes`, and waits until the service closes it.
fn sends(address: SocketAddr, tasks: &mut JoinSet<()>, bytes: Vec<u8>) {
    tasks.spawn(async move {
        let Some(mut stream) = open(address).await else {
            return;
        };
        if stream.write_all(&bytes).await.is_ok() {
            until_closed(&mut stream).await;
        }
    });
}

fn silent(address: SocketAddr, tasks: &mut JoinSet<()>) {
    sends(address, tasks, Vec::new());
}

fn half_preface(address: SocketAddr, tasks: &mut JoinSet<()>) {
    sends(address, tasks, b"PRI * HTT".to_vec());
}

fn unended_head(address: SocketAddr, tasks: &mut JoinSet<()>) {
    let line = format!("x: {}\r\n", "y".repeat(1000));
    let head = format!("{}{}", head(Role::Publish), line.repeat(29));
    sends(address, tasks, head.into_bytes());
}

fn unended_body(address: SocketAddr, tasks: &mut JoinSet<()>) {
    let length = 8 << 20;
    let mut request =
        format!("{}content-length: {length}\r\n\r\n", head(Role::Publish)).into_bytes();
    request.resize(request.len() + length - 1, b' ');
    sends(address, tasks, request);
}

fn slow_body(address: SocketAddr, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        let Some(mut stream) = open(address).await else {
            return;
        };
        let head = format!("{}content-length: 8388608\r\n\r\n[", head(Role::Publish));
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        let (mut read, mut write) = stream.split();
        let mut answer = [0; 1024];
        loop {
            tokio::select! {
                _ = read.read(&mut answer) => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    if write.write_all(b" ").await.is_err() {
                        return;
                    }
                }
            }
        }
    });
}

fn keyless_flood(address: SocketAddr, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        let Some(mut stream) = open(address).await else { return };
        let head = format!(
            "POST {INTERACTIONS} HTTP/1.1\r\nhost: test\r\nx-api-key: wrong\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        if stream.write_all(head.as_bytes()).await.is_ok() {
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
        }
    });
}

/// Posts a body on a new connection and reads the answer; the attacker's loop repeats it.
fn posts_again(
    address: SocketAddr,
    tasks: &mut JoinSet<()>,
    encoding: &'static str,
    body: Vec<u8>,
) {
    tasks.spawn(async move {
        let Some(mut stream) = open(address).await else {
            return;
        };
        let mut request = format!(
            "{}content-encoding: {encoding}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            head(Role::Publish),
            body.len()
        )
        .into_bytes();
        request.extend(body);
        if stream.write_all(&request).await.is_ok() {
            until_closed(&mut stream).await;
        }
    });
}

fn nested(address: SocketAddr, tasks: &mut JoinSet<()>) {
    let text = "_".repeat(250_000 / 32);
    let meta = format!("{}\"{text}\"{}", "{\"a\":".repeat(60), "}".repeat(60));
    let event = format!("{{\"event_type\":\"click\",\"item_id\":\"a\",\"meta\":{meta}}}");
    let body = format!("[{}]", vec![event; 32].join(","));
    posts_again(
        address,
        tasks,
        "zstd",
        zstd::encode_all(body.as_bytes(), 19).unwrap(),
    );
}

fn many_fields(address: SocketAddr, tasks: &mut JoinSet<()>) {
    let body = format!("{{{}\"a\":0}}", "\"a\":0,".repeat(1_390_000));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(body.as_bytes()).unwrap();
    posts_again(address, tasks, "gzip", gzip.finish().unwrap());
}

/// A small body of 10,000 invalid events: each one gets a result in the answer.
fn verdicts() -> Vec<u8> {
    let body = format!("[{}0]", "0,".repeat(9_999));
    zstd::encode_all(body.as_bytes(), 19).unwrap()
}

/// Sends requests and never reads; a small receive buffer fills up quickly.
fn reads_nothing(address: SocketAddr, tasks: &mut JoinSet<()>, requests: Vec<u8>) {
    tasks.spawn(async move {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let Ok(mut stream) = socket.connect(address).await else {
            return;
        };
        drop(stream.write_all(&requests).await);
        // Never read here: it would free the buffer. A write fails once the service has closed
        // the connection.
        while stream.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
}

fn unread(address: SocketAddr, tasks: &mut JoinSet<()>) {
    let body = verdicts();
    let mut request = format!(
        "{}content-encoding: zstd\r\ncontent-length: {}\r\n\r\n",
        head(Role::Publish),
        body.len()
    )
    .into_bytes();
    request.extend(body);
    reads_nothing(address, tasks, request.repeat(20));
}

fn unread_pages(address: SocketAddr, tasks: &mut JoinSet<()>) {
    let get = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: test\r\n\r\n";
    reads_nothing(address, tasks, get.repeat(50).into_bytes());
}

/// An attacker's HTTP/2 connection.
async fn http2(
    address: SocketAddr,
    window: u32,
) -> Option<(h2::client::SendRequest<Bytes>, JoinSet<()>)> {
    let stream = open(address).await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    let (client, connection) = builder.handshake(stream).await.ok()?;
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    Some((client, driver))
}

fn request(encoding: &str) -> axum::http::Request<()> {
    axum::http::Request::post(format!("http://test{INTERACTIONS}"))
        .header("x-api-key", key("demo", Role::Publish))
        .header("content-type", "application/json")
        .header("content-encoding", encoding)
        .body(())
        .unwrap()
}

fn slow_streams(address: SocketAddr, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        let Some((mut client, mut driver)) = http2(address, 65_535).await else {
            return;
        };
        let mut open = Vec::new();
        for _ in 0..128 {
            let Ok(ready) = client.ready().await else {
                return;
            };
            client = ready;
            let Ok((answer, mut stream)) = client.send_request(request("identity"), false) else {
                return;
            };
            drop(stream.send_data(Bytes::from_static(b"["), false));
            open.push((answer, stream));
        }
        loop {
            tokio::select! {
                _ = driver.join_next() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    for (_, stream) in &mut open {
                        drop(stream.send_data(Bytes::from_static(b" "), false));
                    }
                }
            }
        }
    });
}

fn unread_streams(address: SocketAddr, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        let Some((mut client, mut driver)) = http2(address, 0).await else {
            return;
        };
        let (mut open, body) = (Vec::new(), Bytes::from(verdicts()));
        for _ in 0..60 {
            let Ok(ready) = client.ready().await else {
                return;
            };
            client = ready;
            let Ok((answer, mut stream)) = client.send_request(request("zstd"), false) else {
                return;
            };
            drop(stream.send_data(body.clone(), true));
            open.push(answer);
        }
        driver.join_next().await;
    });
}

fn rapid_reset(address: SocketAddr, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        let Some((mut client, _driver)) = http2(address, 65_535).await else {
            return;
        };
        loop {
            for _ in 0..50 {
                let Ok(ready) = client.ready().await else {
                    return;
                };
                client = ready;
                let Ok((_, mut stream)) = client.send_request(request("identity"), false) else {
                    return;
                };
                stream.send_reset(h2::Reason::CANCEL);
            }
            tokio::task::yield_now().await;
        }
    });
}

/// Sends HTTP/2 frames that no client library sends, as fast as the service accepts them.
fn frames(address: SocketAddr, tasks: &mut JoinSet<()>, beginning: Vec<u8>, frame: &'static [u8]) {
    tasks.spawn(async move {
        let Some(stream) = open(address).await else {
            return;
        };
        let (mut read, mut write) = stream.into_split();
        // Read the answers: a service with blocked writes would stop reading.
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut space = vec![0; 1 << 16];
            while matches!(read.read(&mut space).await, Ok(1..)) {}
        });
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        all.extend(beginning);
        let many = frame.repeat((1 << 14) / frame.len());
        if write.write_all(&all).await.is_ok() {
            while write.write_all(&many).await.is_ok() {}
        }
    });
}

fn pings(address: SocketAddr, tasks: &mut JoinSet<()>) {
    let ping = b"\0\0\x08\x06\0\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08";
    frames(address, tasks, Vec::new(), ping);
}

fn tiny_data(address: SocketAddr, tasks: &mut JoinSet<()>) {
    // HEADERS of a POST to /v1/interactions, as literal fields without indexing.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (":path", INTERACTIONS.to_owned()),
        (":authority", "test".to_owned()),
        ("x-api-key", key("demo", Role::Publish)),
        ("content-type", "application/json".to_owned()),
    ] {
        block.push(0);
        for text in [name, value.as_str()] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    let mut headers = vec![0, 0, u8::try_from(block.len()).unwrap(), 1, 4, 0, 0, 0, 1];
    headers.extend(block);
    frames(address, tasks, headers, b"\0\0\x01\0\0\0\0\0\x01 ");
}
