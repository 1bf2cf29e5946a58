//! A strict reader of the contract's formats, for tests only: from bytes back to
//! rows, by another way than the writer took.

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use super::expect::{ExpectedItem, Hashed, OfTable, Row, Salt};
use super::settings::{Format, Framing, Table};

/// Events of a body as JSON texts.
pub(crate) fn split(framing: Framing, body: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(body).expect("bodies are UTF-8");
    let raw = |values: Vec<serde_json::Value>| values.iter().map(ToString::to_string).collect();
    match framing {
        Framing::Json => raw(serde_json::from_str(text).expect("an array")),
        Framing::Ndjson => {
            assert!(text.ends_with('\n'), "the last line ends, too");
            text.lines().map(str::to_owned).collect()
        }
        Framing::Envelope => {
            let envelope: Envelope = serde_json::from_str(text).expect("an envelope");
            envelope.sent_at.parse::<jiff::Timestamp>().expect("a time");
            raw(envelope.events)
        }
    }
}

/// The row of one event; for pipelines_v1, of all the lines of one list.
pub(crate) fn row(
    table: Table,
    format: Format,
    texts: &[String],
    salt: &Salt,
) -> Result<Row, String> {
    let [text] = texts else {
        return list(texts, salt);
    };
    match (table, format) {
        (_, Format::PipelinesV1) => list(texts, salt),
        (_, Format::ServiceV1) => service(&parse(text)?, salt),
        (_, Format::EvalV1) => eval(&parse(text)?, salt),
        (_, Format::OutcomeV1) => outcome(&parse(text)?, salt),
        (Table::Exposures, Format::Native) => exposure(&parse(text)?, salt),
        (Table::Interactions, Format::Native) => interaction(&parse(text)?, salt),
    }
}

fn parse<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    events: Vec<serde_json::Value>,
    sent_at: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    item_id: String,
    rank: u64,
    score: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Experiment {
    id: String,
    variant: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exposure {
    event_id: String,
    occurred_at: String,
    request_id: String,
    surface: String,
    segment: Option<String>,
    user_id: Option<String>,
    user_id_hash: Option<String>,
    anonymous_id: Option<String>,
    session_id: Option<String>,
    session_id_hash: Option<String>,
    experiment: Option<Experiment>,
    algo_version: Option<String>,
    config_version: Option<String>,
    rules_version: Option<String>,
    #[serde(rename = "context")]
    _context: Option<BTreeMap<String, String>>,
    items: Vec<Item>,
    #[serde(rename = "tenant_id")]
    _tenant_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Interaction {
    event_id: String,
    occurred_at: String,
    request_id: Option<String>,
    user_id: Option<String>,
    user_id_hash: Option<String>,
    anonymous_id: Option<String>,
    session_id: Option<String>,
    session_id_hash: Option<String>,
    surface: Option<String>,
    segment: Option<String>,
    event_type: String,
    item_id: String,
    position: Option<i32>,
    value: Option<serde_json::Number>,
    #[serde(rename = "meta")]
    _meta: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(rename = "tenant_id")]
    _tenant_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceV1 {
    schema_version: String,
    timestamp: String,
    request_id: String,
    #[serde(rename = "tenant_id")]
    _tenant_id: Option<String>,
    surface: String,
    segment: Option<String>,
    algo_version: Option<String>,
    config_version: Option<String>,
    rules_version: Option<String>,
    experiment: Option<Experiment>,
    subject: Subject,
    #[serde(rename = "context")]
    _context: Option<BTreeMap<String, String>>,
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    user_id_hash: Option<String>,
    session_id_hash: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvalV1 {
    request_id: String,
    user_id: String,
    ts: String,
    items: Vec<Item>,
    context: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeV1 {
    request_id: String,
    user_id: String,
    item_id: String,
    event_type: String,
    value: Option<serde_json::Number>,
    ts: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PipelinesV1 {
    v: u32,
    ts: String,
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
    surface: String,
    session_id: String,
    item_id: String,
    user_id: Option<String>,
    request_id: String,
    rank: u64,
}

fn exposure(event: &Exposure, salt: &Salt) -> Result<Row, String> {
    let user = event.user_id.as_ref().or(event.anonymous_id.as_ref());
    Ok(Row {
        occurred_us: time(&event.occurred_at)?,
        event_id: Some(Uuid::try_parse(&event.event_id).map_err(|error| error.to_string())?),
        request_id: Some(request(&event.request_id)),
        surface: Some(event.surface.clone()),
        segment: Some(
            event
                .segment
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
        ),
        user_key: pseudonym(user, event.user_id_hash.as_ref(), salt)?,
        session_id: session(
            pseudonym(
                event.session_id.as_ref(),
                event.session_id_hash.as_ref(),
                salt,
            )?,
            &event.request_id,
        ),
        of_table: shown(
            event
                .experiment
                .as_ref()
                .map(|e| (e.id.clone(), e.variant.clone())),
            [
                &event.algo_version, &event.config_version, &event.rules_version,
            ],
            items(&event.items)?,
        ),
    })
}

fn service(event: &ServiceV1, salt: &Salt) -> Result<Row, String> {
    if event.schema_version != "v1" {
        return Err("schema_version".to_owned());
    }
    Ok(Row {
        occurred_us: time(&event.timestamp)?,
        event_id: None,
        request_id: Some(request(&event.request_id)),
        surface: Some(event.surface.clone()),
        segment: Some(
            event
                .segment
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
        ),
        user_key: pseudonym(None, event.subject.user_id_hash.as_ref(), salt)?,
        session_id: session(
            pseudonym(None, event.subject.session_id_hash.as_ref(), salt)?,
            &event.request_id,
        ),
        of_table: shown(
            event
                .experiment
                .as_ref()
                .map(|e| (e.id.clone(), e.variant.clone())),
            [
                &event.algo_version, &event.config_version, &event.rules_version,
            ],
            items(&event.items)?,
        ),
    })
}

fn eval(event: &EvalV1, salt: &Salt) -> Result<Row, String> {
    let of = |name: &str| event.context.get(name).cloned();
    let versions = [
        of("algo_version"),
        of("config_version"),
        of("rules_version"),
    ];
    let experiment = of("experiment_id").map(|id| (id, of("experiment_variant").unwrap()));
    Ok(Row {
        occurred_us: time(&event.ts)?,
        event_id: None,
        request_id: Some(request(&event.request_id)),
        surface: Some(of("surface").ok_or("context.surface")?),
        segment: Some(of("segment").unwrap_or_else(|| "default".to_owned())),
        user_key: anyone(&event.user_id, &event.request_id, salt)?,
        session_id: Hashed::Text(event.request_id.clone()),
        of_table: shown(experiment, versions.each_ref(), items(&event.items)?),
    })
}

fn interaction(event: &Interaction, salt: &Salt) -> Result<Row, String> {
    if !["impression", "view", "click", "add_to_cart", "purchase"].contains(&&*event.event_type) {
        return Err("event_type".to_owned());
    }
    let user = event.user_id.as_ref().or(event.anonymous_id.as_ref());
    let session_hash = event.session_id_hash.as_ref();
    Ok(Row {
        occurred_us: time(&event.occurred_at)?,
        event_id: Some(Uuid::try_parse(&event.event_id).map_err(|error| error.to_string())?),
        request_id: event.request_id.as_deref().map(request),
        surface: event.surface.clone(),
        segment: event.segment.clone(),
        user_key: pseudonym(user, event.user_id_hash.as_ref(), salt)?,
        session_id: pseudonym(event.session_id.as_ref(), session_hash, salt)?,
        of_table: OfTable::Interaction {
            event_type: event.event_type.clone(),
            item_id: event.item_id.clone(),
            position: event.position,
            value: event.value.as_ref().map(numeric),
        },
    })
}

fn outcome(event: &OutcomeV1, salt: &Salt) -> Result<Row, String> {
    let event_type = match &*event.event_type {
        "click" => "click",
        "conversion" => "purchase",
        _ => return Err("event_type".to_owned()),
    };
    Ok(Row {
        occurred_us: time(&event.ts)?,
        event_id: None,
        request_id: Some(request(&event.request_id)),
        surface: None,
        segment: None,
        user_key: anyone(&event.user_id, &event.request_id, salt)?,
        session_id: Hashed::Null,
        of_table: OfTable::Interaction {
            event_type: event_type.to_owned(),
            item_id: event.item_id.clone(),
            position: None,
            value: event.value.as_ref().map(numeric),
        },
    })
}

fn list(texts: &[String], salt: &Salt) -> Result<Row, String> {
    let lines: Vec<PipelinesV1> = texts
        .iter()
        .map(|text| parse(text))
        .collect::<Result<_, _>>()?;
    let first = lines.first().ok_or("no lines")?;
    let mut occurred_us = i64::MAX;
    for line in &lines {
        if line.v != 1 || line.request_id != first.request_id || line.surface != first.surface {
            return Err("lines of two lists".to_owned());
        }
        occurred_us = occurred_us.min(time(&line.ts)?);
    }
    let items = lines.iter().map(|line| ExpectedItem {
        item_id: line.item_id.clone(),
        rank: line.rank,
        score: None,
    });
    Ok(Row {
        occurred_us,
        event_id: None,
        request_id: Some(request(&first.request_id)),
        surface: Some(first.surface.clone()),
        segment: Some("default".to_owned()),
        user_key: pseudonym(first.user_id.as_ref(), None, salt)?,
        session_id: anyone(&first.session_id, "", salt)?,
        of_table: shown(None, [&None, &None, &None], items.collect()),
    })
}

fn shown(
    experiment: Option<(String, String)>,
    [algo, config, rules]: [&Option<String>; 3],
    items: Vec<ExpectedItem>,
) -> OfTable {
    let bare = |etag: &Option<String>| {
        etag.as_ref()
            .map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned())
    };
    let (experiment_id, experiment_variant) = experiment.unzip();
    OfTable::Exposure {
        experiment_id,
        experiment_variant,
        algo_version: algo.clone().unwrap_or_else(|| "unknown".to_owned()),
        config_etag: bare(config),
        rules_etag: bare(rules),
        items,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "scores are between 0 and 1"
)]
fn items(items: &[Item]) -> Result<Vec<ExpectedItem>, String> {
    let of = |item: &Item| match item.rank {
        0 => Err("rank 0".to_owned()),
        rank => Ok(ExpectedItem {
            item_id: item.item_id.clone(),
            rank,
            score: item.score.map(|score| (score * 1000.0).round() as u32),
        }),
    };
    items.iter().map(of).collect()
}

fn time(text: &str) -> Result<i64, String> {
    let at: jiff::Timestamp = text.parse().map_err(|error| format!("{text}: {error}"))?;
    let us = at.as_microsecond();
    if us < 1_700_000_000_000_000 {
        return Err(format!("{text} is long ago"));
    }
    Ok(us)
}

fn request(text: &str) -> Uuid {
    Uuid::try_parse(text).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()))
}

fn session(found: Hashed, request: &str) -> Hashed {
    match found {
        Hashed::Null => Hashed::Text(request.to_owned()),
        found => found,
    }
}

fn pseudonym(raw: Option<&String>, hash: Option<&String>, salt: &Salt) -> Result<Hashed, String> {
    match (raw, hash) {
        (Some(_), Some(_)) => Err("an id and its hash".to_owned()),
        (Some(raw), None) => Ok(salt.hash(raw)),
        (None, Some(hash)) => {
            let mut bytes = [0; 32];
            hex::decode_to_slice(hash, &mut bytes).map_err(|error| error.to_string())?;
            Ok(Hashed::Hash(bytes))
        }
        (None, None) => Ok(Hashed::Null),
    }
}

fn anyone(text: &str, request: &str, salt: &Salt) -> Result<Hashed, String> {
    let text = text.to_owned();
    match text.len() {
        _ if text == request => Ok(Hashed::Null),
        64 => pseudonym(None, Some(&text), salt),
        _ => pseudonym(Some(&text), None, salt),
    }
}

/// As numeric(18,6) prints it.
fn numeric(number: &serde_json::Number) -> String {
    let text = number.to_string();
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let part = if part == "0" { "" } else { part };
    format!("{whole}.{part:0<6}")
}
