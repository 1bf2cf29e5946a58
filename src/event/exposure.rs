//! What was shown: native events, and the row of any exposure.

use std::borrow::Cow;

use super::body::RawEvent;
use super::decode::{Context, Format, native_identity};
use super::field::{self, KEY_BYTES_MAX, Value, opt_path_safe, opt_text, required};
use super::identity::RequestId;
use super::json::{self, ObjectWriter, push_string};
use super::meta::Meta;
use super::rejection::{Code, Rejection};
use super::row::{Key, RowWriter};
use super::subject::{self, Subject, pseudonym};
use super::time::Micros;

/// Numbers that an item may carry; readers of the suite decode them as such.
const ITEM_NUMBERS: [&str; 4] = [
    "score", "propensity", "logging_propensity", "target_propensity",
];

/// A valid exposure.
#[derive(Debug)]
pub(super) struct Exposure<'a> {
    pub(super) key: Key,
    pub(super) received_at: Micros,
    pub(super) request_id: RequestId<'a>,
    pub(super) surface: Cow<'a, str>,
    pub(super) segment: Option<Cow<'a, str>>,
    pub(super) subject: Subject,
    pub(super) experiment: Experiment<'a>,
    pub(super) versions: Versions<'a>,
    pub(super) request: String,
    pub(super) response: String,
    pub(super) meta: Option<String>,
}

/// The experiment that decided what was shown.
#[derive(Debug, Default)]
pub(super) struct Experiment<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) variant: Option<Cow<'a, str>>,
}

/// The versions that decided what was shown.
#[derive(Debug, Default)]
pub(super) struct Versions<'a> {
    pub(super) algo: Option<Cow<'a, str>>,
    pub(super) config: Option<Cow<'a, str>>,
    pub(super) rules: Option<Cow<'a, str>>,
}

impl<'a> Experiment<'a> {
    /// From an object `{id, variant}`.
    pub(super) fn read(value: Option<Value<'a>>) -> Result<Self, Rejection> {
        let Some(value) = value else {
            return Ok(Self::default());
        };
        let mut found = Self::default();
        for field in value.members()? {
            let slot = match &*field.key {
                "id" => (&mut found.id, "experiment.id"),
                "variant" => (&mut found.variant, "experiment.variant"),
                _ => continue,
            };
            if field.raw != "null" {
                *slot.0 = Value {
                    name: slot.1,
                    raw: field.raw,
                    escaped: field.escaped,
                }
                .text(KEY_BYTES_MAX)?;
            }
        }
        Ok(found)
    }
}

impl<'a> Versions<'a> {
    pub(super) fn read(
        algo: Option<Value<'a>>,
        config: Option<Value<'a>>,
        rules: Option<Value<'a>>,
    ) -> Result<Self, Rejection> {
        Ok(Self {
            algo: opt_text(algo)?,
            config: opt_text(config)?.map(bare_etag),
            rules: opt_text(rules)?.map(bare_etag),
        })
    }
}

impl Exposure<'_> {
    /// Appends the event's row.
    pub(super) fn encode(&self, out: &mut RowWriter) {
        // The suite's pipelines abort on a row without a session, and a constant
        // would merge all such requests into one session: each stands alone.
        let session = self
            .subject
            .session
            .as_deref()
            .unwrap_or(&self.request_id.text);
        out.row(&self.key)
            .time(self.received_at)
            .uuid(&self.request_id.uuid)
            .text(&self.surface)
            .text(self.segment.as_deref().unwrap_or("default"))
            .opt_bytes(self.subject.user_key.as_ref().map(<[u8; 32]>::as_slice))
            .text(session)
            .opt_text(self.experiment.id.as_deref())
            .opt_text(self.experiment.variant.as_deref())
            .text(self.versions.algo.as_deref().unwrap_or("unknown"))
            .opt_text(self.versions.config.as_deref())
            .opt_text(self.versions.rules.as_deref())
            .json(&self.request)
            .json(&self.response)
            .opt_json(self.meta.as_deref())
            .end();
    }
}

/// Reads a native exposure.
pub(super) fn native<'a>(
    event: &RawEvent<'a, '_>,
    context: &Context<'_>,
) -> Result<Exposure<'a>, Rejection> {
    let mut meta = Meta::default();
    let [
        event_id,
        occurred_at,
        request_id,
        surface,
        segment,
        user_id,
        user_id_hash,
        anonymous_id,
        anonymous_id_hash,
        session_id,
        session_id_hash,
        experiment,
        algo,
        config,
        rules,
        client_context,
        items,
        request,
        client_meta,
        tenant_id,
        tenant,
    ] = field::pick(
        event,
        [
            "event_id", "occurred_at", "request_id", "surface", "segment", "user_id",
            "user_id_hash", "anonymous_id", "anonymous_id_hash", "session_id", "session_id_hash",
            "experiment", "algo_version", "config_version", "rules_version", "context", "items",
            "request", "meta", "tenant_id", "tenant",
        ],
        &mut meta.extra,
    )?;
    let tenant = context.tenant_of(tenant_id.or(tenant))?;
    let (event_id, occurred_at) = native_identity(&tenant, event_id, occurred_at, context)?;
    let request_id = required_request_id(request_id)?;
    let surface = required_surface(surface)?;
    let segment = opt_path_safe(segment)?;
    let subject = Subject::new(
        pseudonym(user_id, user_id_hash, context)?,
        pseudonym(anonymous_id, anonymous_id_hash, context)?,
        pseudonym(session_id, session_id_hash, context)?,
    );

    let mut request_column = String::new();
    let mut object = ObjectWriter::open(&mut request_column);
    let given = match request {
        Some(request) => {
            let members = request.members()?;
            for field in &members {
                subject::push_member(&mut object, field, context.pseudonymizer);
            }
            members
        }
        None => {
            object
                .str("surface", &surface)
                .opt_str("segment", segment.as_deref());
            Vec::new()
        }
    };
    for value in [client_context, experiment].into_iter().flatten() {
        let raw = value.object()?;
        if given.iter().any(|field| field.key == value.name) {
            meta.displaced.push((value.name, raw));
        } else {
            subject::push_scrubbed(object.name(value.name), raw, context.pseudonymizer);
        }
    }
    object.close();

    let mut response = String::from("{\"items\":");
    push_items(&mut response, required(items, "items")?, context)?;
    response.push('}');

    meta.client = client_meta;
    Ok(Exposure {
        key: Key {
            tenant,
            occurred_at,
            event_id,
        },
        received_at: context.received_at,
        surface,
        segment,
        experiment: Experiment::read(experiment)?,
        versions: Versions::read(algo, config, rules)?,
        request: request_column,
        response,
        meta: meta.text(Format::Native, true, Some(&request_id), &subject, context)?,
        request_id,
        subject,
    })
}

/// The request id of an exposure, which cannot do without one.
pub(super) fn required_request_id<'a>(
    value: Option<Value<'a>>,
) -> Result<RequestId<'a>, Rejection> {
    let text = required(opt_text(value)?, "request_id")?;
    Ok(RequestId::parse(text))
}

/// The surface of an exposure, which cannot do without one.
pub(super) fn required_surface<'a>(value: Option<Value<'a>>) -> Result<Cow<'a, str>, Rejection> {
    required(opt_path_safe(value)?, "surface")
}

/// Writes the items as they are, with a rank where one is missing: one bad item
/// in one row would abort the suite's whole signal job.
pub(super) fn push_items(
    out: &mut String,
    list: Value<'_>,
    context: &Context<'_>,
) -> Result<(), Rejection> {
    let items = list.elements()?;
    if items.len() > context.items_max {
        return Err(Rejection::of(
            Code::TooManyItems,
            "items",
            format!(
                "has {} items; the most is {}",
                items.len(),
                context.items_max
            ),
        ));
    }
    let names_ids = subject::may_name_ids(list.raw);
    out.push('[');
    for (place, raw) in items.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        let missing_rank = check_item(raw).map_err(|mut rejection| {
            let inner = rejection.field.as_deref().unwrap_or_default();
            let dot = if inner.is_empty() { "" } else { "." };
            rejection.field = Some(format!("items[{place}]{dot}{inner}").into());
            rejection
        })?;
        if names_ids {
            subject::push_scrubbed(out, raw, context.pseudonymizer);
        } else {
            out.push_str(raw);
        }
        if missing_rank {
            // In front of the object's end.
            out.truncate(out.len() - 1);
            out.push_str(&format!(",\"rank\":{}}}", place + 1));
        }
    }
    out.push(']');
    Ok(())
}

/// Checks one item; says whether its rank is missing.
fn check_item(raw: &str) -> Result<bool, Rejection> {
    let members = json::members(raw)
        .ok_or_else(|| Rejection::of(Code::InvalidType, "", "an item is an object"))?;
    let mut item_id = None;
    let mut rank = None;
    for field in &members {
        let (raw, escaped) = (field.raw, field.escaped);
        let slot = match &*field.key {
            "item_id" => (&mut item_id, "item_id"),
            "rank" => (&mut rank, "rank"),
            key => {
                if let Some(name) = ITEM_NUMBERS.iter().find(|name| **name == key)
                    && raw != "null"
                {
                    Value { name, raw, escaped }.number()?;
                }
                continue;
            }
        };
        if slot
            .0
            .replace(Value {
                name: slot.1,
                raw,
                escaped,
            })
            .is_some()
        {
            return Err(Rejection::of(
                Code::DuplicateField,
                slot.1,
                "the field stands twice",
            ));
        }
    }
    let text = required(item_id, "item_id")?.text(KEY_BYTES_MAX)?;
    required(text, "item_id")?;
    match rank {
        Some(rank) if rank.raw != "null" => rank.int(1).map(|_| false),
        // After a null, the rank that is appended wins: jsonb keeps the last.
        _ => Ok(true),
    }
}

/// An ETag without the `W/` and the quotes of its HTTP form.
fn bare_etag(etag: Cow<'_, str>) -> Cow<'_, str> {
    let bare = etag.strip_prefix("W/").unwrap_or(&etag).trim_matches('"');
    if bare.len() == etag.len() {
        etag
    } else {
        Cow::Owned(bare.to_owned())
    }
}

/// Writes the members that the suite's own response has under `meta`.
pub(super) fn push_response_meta(
    object: &mut ObjectWriter<'_>,
    tenant: Option<&str>,
    exposure: (&str, Option<&str>, &Versions<'_>, &RequestId<'_>),
) {
    let (surface, segment, versions, request_id) = exposure;
    let mut meta = ObjectWriter::open(object.name("meta"));
    meta.opt_str("tenant_id", tenant)
        .str("surface", surface)
        .opt_str("segment", segment)
        .opt_str("algo_version", versions.algo.as_deref())
        .opt_str("config_version", versions.config.as_deref())
        .opt_str("rules_version", versions.rules.as_deref());
    push_string(meta.name("request_id"), &request_id.text);
    meta.close();
}
