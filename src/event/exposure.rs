//! Exposures: what was shown. Reads native events, and encodes the row of any format.

use std::borrow::Cow;

use super::body::RawEvent;
use super::context::{Context, native_identity};
use super::field::{self, KEY_BYTES_MAX, Names, Value, opt_path_safe, opt_text, required};
use super::folding;
use super::format::Format;
use super::identity::RequestId;
use super::items::too_many;
use super::json;
use super::json::string::push_string;
use super::json::walk::Walker;
use super::json::write::ObjectWriter;
use super::meta::Meta;
use super::rejection::{Code, Rejection};
use super::row::Key;
use super::row::writer::RowWriter;
use super::subject::{self, HexText, Subject, pseudonym};
use super::time::Micros;
use super::unknown;
use super::warning::{Notes, WarningCode};

/// Members of an item that must be numbers: readers of the suite decode them as doubles.
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
    /// Reads an object `{id, variant}`.
    pub(super) fn read(value: Option<Value<'a>>) -> Result<Self, Rejection> {
        let Some(value) = value else {
            return Ok(Self::default());
        };
        let members = value.members()?;
        let text = |key, name| {
            field::member(&members, key, name)?.map_or(Ok(None), |value| value.text(KEY_BYTES_MAX))
        };
        Ok(Self {
            id: text("id", "experiment.id")?,
            variant: text("variant", "experiment.variant")?,
        })
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
            config: opt_text(config)?.map(field::bare_etag),
            rules: opt_text(rules)?.map(field::bare_etag),
        })
    }
}

impl Exposure<'_> {
    /// Appends the event's row.
    pub(super) fn encode(&self, out: &mut RowWriter) {
        // The suite's pipelines abort on a row without a session, and a constant would merge all
        // such requests into one session. So the request id stands in for it.
        let session = self
            .subject
            .session
            .as_ref()
            .map(HexText::as_str)
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
    notes: &mut Notes<'a>,
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
    ] = unknown::pick(
        event,
        const {
            &Names::new([
                "event_id", "occurred_at", "request_id", "surface", "segment", "user_id",
                "user_id_hash", "anonymous_id", "anonymous_id_hash", "session_id",
                "session_id_hash", "experiment", "algo_version", "config_version", "rules_version",
                "context", "items", "request", "meta", "tenant_id", "tenant",
            ])
        },
        context,
        notes,
        &mut meta.extra,
    )?;
    let tenant = context.tenant_of(&[tenant_id, tenant])?;
    let (event_id, occurred_at) = native_identity(&tenant, event_id, occurred_at, context, notes)?;
    let request_id = required_request_id(request_id)?;
    let surface = required_surface(surface)?;
    let segment = opt_path_safe(segment)?;
    let subject = Subject::new(
        pseudonym(user_id, user_id_hash, context)?,
        pseudonym(anonymous_id, anonymous_id_hash, context)?,
        pseudonym(session_id, session_id_hash, context)?,
    );

    let parts = [request, client_context, experiment].into_iter().flatten();
    let parts_bytes: usize = parts.map(|value| value.raw.len()).sum();
    // The rest is a few names, the surface and the segment.
    let mut request_column = String::with_capacity(parts_bytes + 96);
    let mut object = ObjectWriter::open(&mut request_column);
    let given = match request {
        Some(request) => {
            let members = request.members()?;
            subject::push_members(&mut object, &members, context.pseudonymizer)
                .map_err(|rejection| rejection.within("request"))?;
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
            notes.add(WarningCode::MovedField, value.name);
            meta.displaced.push((value.name, raw));
        } else {
            subject::push_value(&mut object, value.name, raw, context.pseudonymizer)?;
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
        meta: meta.text(
            Format::Native,
            true,
            Some(&request_id),
            &subject,
            context,
            notes,
        )?,
        request_id,
        subject,
    })
}

/// The request id of an exposure, which is required.
pub(super) fn required_request_id<'a>(
    value: Option<Value<'a>>,
) -> Result<RequestId<'a>, Rejection> {
    let text = required(opt_text(value)?, "request_id")?;
    Ok(RequestId::parse(text))
}

/// The surface of an exposure, which is required.
pub(super) fn required_surface<'a>(value: Option<Value<'a>>) -> Result<Cow<'a, str>, Rejection> {
    required(opt_path_safe(value)?, "surface")
}

/// Writes the items as they are, with a rank where one is missing. Each item is checked: one bad
/// item in one row would abort the suite's whole signal job.
pub(super) fn push_items(
    out: &mut String,
    list: Value<'_>,
    context: &Context<'_>,
) -> Result<(), Rejection> {
    let mut walker = Walker::new(list.raw);
    if !walker.enter(b'[') {
        return Err(list.wrong_type("an array"));
    }
    out.reserve(list.raw.len() + 2);
    out.push('[');
    let mut items = 0;
    let mut wrong = None;
    while walker.more(b']') {
        let place = items;
        items += 1;
        // A list that is too long is rejected for its length, even if an item is wrong, too.
        if wrong.is_some() || items > context.items_max {
            walker.value();
            continue;
        }
        let start = walker.offset();
        let item = match Item::read(&mut walker) {
            Ok(item) => item,
            Err(rejection) => {
                wrong = Some(rejection.in_item(place));
                continue;
            }
        };
        let raw = walker.since(start);
        if place > 0 {
            out.push(',');
        }
        if !item.names_ids {
            out.push_str(raw);
        } else if let Err(rejection) = subject::push_scrubbed(out, raw, context.pseudonymizer) {
            wrong = Some(rejection.in_item(place));
            continue;
        }
        if item.rank.is_none() {
            // Before the object's closing brace.
            out.truncate(out.len() - 1);
            out.push_str(&format!(",\"rank\":{items}}}"));
        }
    }
    if items > context.items_max {
        return Err(too_many(items, context));
    }
    out.push(']');
    wrong.map_or(Ok(()), Err)
}

/// What is read of an item.
#[derive(Debug, Default)]
struct Item<'a> {
    id: Option<Value<'a>>,
    /// Absent also if it is null: a rank is then appended, and wins, since jsonb keeps the last of
    /// two members.
    rank: Option<Value<'a>>,
    has_null_rank: bool,
    /// Whether a member may name raw ids; those with a fixed type cannot.
    names_ids: bool,
}

impl<'a> Item<'a> {
    /// Reads and checks one item; consumes all of it even if it is wrong.
    fn read(walker: &mut Walker<'a>) -> Result<Self, Rejection> {
        if !walker.enter(b'{') {
            walker.value();
            return Err(Rejection::of(Code::InvalidType, "", "an item is an object"));
        }
        let mut item = Self::default();
        let mut checked = Ok(());
        while walker.more(b'}') {
            // The names of nearly all items are compared, not scanned.
            let usual = ["item_id", "rank", "score"];
            let (key, key_escaped) = match usual.into_iter().find(|name| walker.take_key(name)) {
                Some(name) => (name, false),
                None => walker.key(),
            };
            let (raw, escaped) = walker.value();
            if checked.is_err() {
                continue;
            }
            checked = if key_escaped {
                item.names_ids = true;
                item.member(&json::string::unescape(key), raw, escaped)
            } else {
                item.member(key, raw, escaped)
            };
        }
        checked?;
        let text = required(item.id, "item_id")?.text(KEY_BYTES_MAX)?;
        required(text, "item_id")?;
        if let Some(rank) = item.rank {
            rank.int(1)?;
        }
        Ok(item)
    }

    #[inline]
    fn member(&mut self, key: &str, raw: &'a str, escaped: bool) -> Result<(), Rejection> {
        let named = |name| Value { name, raw, escaped };
        let twice = |name| Rejection::of(Code::DuplicateField, name, "the field stands twice");
        match key {
            // It must be a string, so no raw id is a member of it.
            "item_id" => match self.id.replace(named("item_id")) {
                None => Ok(()),
                Some(_) => Err(twice("item_id")),
            },
            "rank" if self.rank.is_some() || self.has_null_rank => Err(twice("rank")),
            "rank" if raw == "null" => {
                self.has_null_rank = true;
                Ok(())
            }
            "rank" => {
                self.rank = Some(named("rank"));
                Ok(())
            }
            key => self.other(key, named("")),
        }
    }

    /// Checks a member that is neither the item's id nor its rank.
    fn other(&mut self, key: &str, value: Value<'a>) -> Result<(), Rejection> {
        if let Some(name) = ITEM_NUMBERS.into_iter().find(|name| *name == key) {
            return match value.raw {
                "null" => Ok(()),
                _ => Value { name, ..value }.float().map(|_| ()),
            };
        }
        if let Some(name) = folding::mistaken_for(key) {
            return Err(Rejection::of(
                Code::DuplicateField,
                key.to_owned(),
                format!(
                    "readers of the suite ignore case in names and take it for {name}: write {name}, once, or leave it out"
                ),
            ));
        }
        self.names_ids |= subject::is_spelled_like_an_id(key) || subject::may_name_ids(value.raw);
        Ok(())
    }
}

/// Writes the members that the suite's own responses have under `meta`.
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
