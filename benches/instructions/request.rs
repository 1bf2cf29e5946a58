//! A whole request: from the connection's bytes to the answer, through every step of the service.
//!
//! The service runs in this process, on a private PostgreSQL. Its tasks run beside each other, so
//! only what the task of the connection does is counted: see [`CONNECTION`].

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use clap::Parser as _;
use loadtest::sample;
use private_postgres::{Options, PrivatePostgres};
use recsys_ingest::cli::{Cli, Command};
use recsys_ingest::config::Serve;
use recsys_ingest::event::table::Table;
use recsys_ingest::postgres::connect::Target;
use recsys_ingest::postgres::migrate;
use recsys_ingest::postgres::session::Session;
use recsys_ingest::service;
use recsys_ingest::tenants::admin::keys::insert_key;
use recsys_ingest::tenants::admin::tenants::create_tenant;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The function that polls a connection's task, as callgrind writes its name.
pub const CONNECTION: &str = "recsys_ingest::http::listener::Door::let_in::{{closure}}";

const TENANT: &str = "bench";
const KEY: &str = "bench-key";
const SECRET: &str = "bench-secret";

/// Posts a body of `events` interactions, `times` times on one connection.
pub fn post(events: usize, times: u64) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let dir = tempfile::tempdir()?;
    let postgres = PrivatePostgres::start(&Options::ephemeral(dir.path().join("postgres")))?;
    runtime.block_on(prepare(&postgres.url()))?;
    let config = config(
        &postgres.url(),
        &dir.path().join("spool").display().to_string(),
    )?;
    let (stopping, ready) = (CancellationToken::new(), CancellationToken::new());
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let run = service::run(config, vec![listener], stopping.clone(), ready.clone());
    let running = runtime.spawn(run);
    runtime.block_on(ready.cancelled());
    let sent = send(address, &sample::body(Table::Interactions, events), times);
    stopping.cancel();
    runtime.block_on(running)??;
    sent
}

async fn prepare(url: &str) -> Result<(), Box<dyn Error>> {
    let target = Target::parse(url)?;
    let mut session = Session::open(&target, None).await?;
    migrate::migrate(&mut session.client).await?;
    create_tenant(&mut session.client, TENANT, "Bench").await?;
    let hasher = ApiKeyHasher::new(SECRET.as_bytes());
    insert_key(&session.client, &hasher, TENANT, None, &[Role::Ingest], KEY).await?;
    Ok(())
}

fn config(url: &str, spool_dir: &str) -> Result<Serve, Box<dyn Error>> {
    let cli = Cli::try_parse_from([
        "recsys-ingest",
        "serve",
        "--listen=127.0.0.1:0",
        "--horizon-past=20000d",
        "--exposure-hash-salt=salt",
        &format!("--api-key-hash-secret={SECRET}"),
        &format!("--database-url={url}"),
        &format!("--spool-dir={spool_dir}"),
    ])?;
    match cli.command {
        Command::Serve(serve) => Ok(*serve),
        other => Err(format!("parsed as {other:?}").into()),
    }
}

/// Sends the same request again and again, each once the last is answered.
fn send(address: SocketAddr, body: &str, times: u64) -> Result<(), Box<dyn Error>> {
    let request = format!(
        "POST /v1/interactions?ack=durable&format=native HTTP/1.1\r\nhost: {address}\r\n\
         content-type: application/json\r\nx-api-key: {KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address)?;
    let mut answer = [0; 16 << 10];
    for _ in 0..times {
        stream.write_all(request.as_bytes())?;
        let mut length = 0;
        loop {
            let read = stream.read(&mut answer[length..])?;
            length += read;
            let text = std::str::from_utf8(&answer[..length])?;
            if text.contains("\r\n\r\n") && text.ends_with('}') {
                break;
            }
            if read == 0 || !text.starts_with("HTTP/1.1 202 ") {
                return Err(format!("the service answers: {text}").into());
            }
        }
    }
    Ok(())
}
