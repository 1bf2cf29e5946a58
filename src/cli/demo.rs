//! `recsys-ingest demo`: plays a small shop against a running service, and shows what became of it.
//!
//! Its ids and times follow from the seed and the hour, so that a shop that is played again in the same hour
//! is recognised: its events are duplicates, and the numbers stay. All of its events are on a surface of
//! its own, by which they are counted.

mod evaluation;
mod outcome;
mod shop;
mod told;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::Offset;
use serde_json::Value;

use super::dev::env_file::EnvFile;
use crate::clock;
use crate::config::demo::Demo;
use crate::config::environment;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::jobs::day::Days;
use crate::jobs::join_quality::{self, Question};
use crate::jobs::played::{self, Scope};
use crate::postgres::connect::Target;
use crate::postgres::connect::environment::LibpqEnvironment;
use crate::postgres::error::ErrorChain;
use crate::postgres::session::Session;
use crate::ship::answer::{self, Reply};
use crate::ship::client::{Client, ClientSettings, Coding};
use crate::tenants::admin::tenants::find_tenant;
use outcome::{Found, Posted, is_as_played};
use shop::{Play, Shop};
use told::Told;

const HOUR_US: i64 = 3_600_000_000;

/// The tenant that `dev` makes.
const TENANT_OF_DEV: &str = "demo";

/// Attempts to post where the service has no room, and the longest pause between two.
const ATTEMPTS: u32 = 10;
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Longest wait for events that are on the service's disk to be in Postgres.
const STORED_WAIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Lists are at most this much before the interactions with them.
const LOOKBACK: Duration = Duration::from_secs(3600);
/// As `report join` has it by default.
const LATE_AFTER: Duration = Duration::from_secs(3600);

/// Where it is played.
struct Place {
    url: String,
    key: String,
    tenant: Option<String>,
    database: Option<(String, Target)>,
}

pub(crate) async fn run(config: Demo) -> Result<()> {
    let place = place(&config)?;
    let shop = Shop {
        seed: config.seed,
        lists: config.lists,
        opens: opening(config.at),
        tenant: place.tenant.clone(),
    };
    let play = shop.play();
    let client = Client::new(&ClientSettings {
        url: &place.url,
        key: &place.key,
        tenant: place.tenant.as_deref(),
        ca: config.tls_ca.as_deref(),
    })?;
    let posted = [
        post(&client, Table::Exposures, &play.exposures).await?,
        post(&client, Table::Assignments, &play.assignments).await?,
        post(&client, Table::Interactions, &play.interactions).await?,
    ];
    let mut told = Told::begin(&place.url, &shop, &posted);
    let Some((database_url, target)) = &place.database else {
        told.without_database(&scope(&shop, None));
        return told.print(config.json);
    };
    let mut session = Session::open(target, Some(Duration::from_secs(60)))
        .await
        .map_err(|error| anyhow::anyhow!("{}", ErrorChain(&error)))?;
    let tenant = match &place.tenant {
        Some(named) => Some(find_tenant(&session.client, named).await?.id),
        None => None,
    };
    let scope = scope(&shop, tenant);
    let patience = match posted.iter().all(|posted| posted.is_committed) {
        true => Duration::ZERO,
        false => STORED_WAIT,
    };
    let found = find(&mut session, &scope, &play, patience).await?;
    told.found(&play, &found, &scope);
    if let Some(suite) = &config.suite_dir {
        let report = evaluation::report(suite, database_url, &scope, &config.report).await?;
        told.evaluated(&report, &config.report.display().to_string());
    }
    told.print(config.json)?;
    if !is_as_played(&play, &found) {
        bail!(
            "Postgres does not hold what was played on the surface {}; see the numbers above",
            scope.surface
        );
    }
    Ok(())
}

/// The service and the database, as given or as `dev` says.
fn place(config: &Demo) -> Result<Place> {
    let given = config.database_url.as_ref().map(|url| {
        let libpq = LibpqEnvironment::new(environment::variables());
        let target = Target::parse_with(url.expose(), &libpq);
        target.map(|target| (url.expose().to_owned(), target))
    });
    let given = given.transpose()?;
    let key = config.api_key.as_ref().map(|key| key.expose().trim());
    if let (Some(url), Some(key)) = (&config.url, key) {
        return Ok(Place {
            url: url.clone(),
            key: key.to_owned(),
            tenant: config.tenant.clone(),
            database: given,
        });
    }
    if config.url.is_some() || key.is_some() {
        bail!(
            "give --url (INGEST_URL) and --api-key (INGEST_API_KEY) together, or neither, with a running dev"
        );
    }
    let path = config.data_dir.join("dev.env");
    let dev = EnvFile::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let of_dev = |name: &str| dev.get(name).map(str::to_owned);
    let (Some(url), Some(key)) = (of_dev("INGEST_URL"), of_dev("INGEST_API_KEY")) else {
        bail!(
            "there is no {}: start `recsys-ingest dev` in this folder (or name its --data-dir), or give --url and --api-key of another service",
            path.display()
        );
    };
    let database = match (given, of_dev("DATABASE_URL")) {
        (Some(given), _) => Some(given),
        // The variables of libpq are those of another server.
        (None, Some(url)) => {
            let target = Target::parse_with(&url, &LibpqEnvironment::default())?;
            Some((url, target))
        }
        (None, None) => None,
    };
    Ok(Place {
        url,
        key,
        tenant: Some(
            config
                .tenant
                .clone()
                .unwrap_or_else(|| TENANT_OF_DEV.to_owned()),
        ),
        database,
    })
}

/// When the shop opens: at the time given, or at the beginning of this hour, so that it is the same shop
/// for the rest of it.
fn opening(at: Option<Timestamp>) -> Micros {
    match at {
        Some(at) => Micros(at.as_microsecond()),
        None => {
            let now = clock::now().0;
            Micros(now - now.rem_euclid(HOUR_US))
        }
    }
}

fn scope(shop: &Shop, tenant: Option<uuid::Uuid>) -> Scope {
    Scope {
        tenant,
        surface: shop.surface(),
        from: shop.opens,
        to: shop.closes(),
    }
}

/// Posts events of one kind until the service has taken them.
async fn post(client: &Client, table: Table, events: &[Value]) -> Result<Posted> {
    let mut lines = String::new();
    for event in events {
        writeln!(lines, "{event}")?;
    }
    let (path, lines) = (
        format!("{}?ack=committed", table.path()),
        Bytes::from(lines),
    );
    for attempt in 1.. {
        let answer = client.post(&path, Coding::Identity, lines.clone()).await;
        let answer = answer.context(
            "nothing was played: is the service running? --url names it, or dev.env of a running dev",
        )?;
        let reply = answer::read(
            answer.status,
            answer.retry_after,
            &answer.body,
            events.len(),
        );
        match reply {
            Reply::Verdicts(verdicts) => {
                if let Some((place, reason)) = verdicts.rejected.first() {
                    let field = reason.field.as_deref().unwrap_or("the event");
                    bail!(
                        "the service rejects {} of {} {}: {field}: {} ({}) in {}",
                        verdicts.rejected.len() + verdicts.summed_up.len(),
                        events.len(),
                        table.events(),
                        reason.message,
                        reason.code,
                        events.get(*place).unwrap_or(&Value::Null),
                    );
                }
                return Ok(Posted {
                    events: events.len(),
                    duplicates: verdicts.duplicates,
                    is_committed: answer.status == 200,
                });
            }
            Reply::Retry { after, why } if attempt < ATTEMPTS => {
                tracing::warn!("the service has no room, and is asked again: {why}");
                tokio::time::sleep(after.unwrap_or(LOOK_EVERY).min(PAUSE_MAX)).await;
            }
            Reply::Retry { why, .. } | Reply::Fault(why) => bail!("the service refuses: {why}"),
            Reply::Split { reason, .. } | Reply::SendPlain(reason) => {
                bail!("the service refuses: {} ({})", reason.message, reason.code)
            }
        }
    }
    unreachable!("the loop ends with the last attempt")
}

/// Reads the numbers, once they are those that were played or `patience` is over.
async fn find(
    session: &mut Session,
    scope: &Scope,
    play: &Play,
    patience: Duration,
) -> Result<Found> {
    let day = |at: Micros| {
        let at = Timestamp::from_microsecond(at.0).unwrap_or_default();
        Offset::UTC.to_datetime(at).date()
    };
    let question = Question {
        days: Days {
            from: day(scope.from),
            to: day(scope.to),
        },
        tenant: scope.tenant,
        lookback: LOOKBACK,
        late_after: LATE_AFTER,
    };
    let started = Instant::now();
    loop {
        let numbers = played::read(&session.client, scope).await?;
        let join = join_quality::read(&mut session.client, &question).await?;
        let join = join
            .into_iter()
            .filter(|line| line.surface == scope.surface);
        let found = Found {
            numbers,
            join: join.collect(),
        };
        if is_as_played(play, &found) || started.elapsed() >= patience {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
