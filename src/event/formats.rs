//! The suite's other formats, mapped as the tables of contract §3 say.
//!
//! They name no event id, so one is made from the event's own text: a log file
//! that is posted twice is stored once.

use std::borrow::Cow;
use std::collections::HashMap;

use uuid::Uuid;

use super::body::RawEvent;
use super::decode::{Context, Format};
use super::exposure::{
    Experiment, Exposure, Versions, push_items, push_response_meta, required_request_id,
    required_surface,
};
use super::field::{self, Names, Value, opt_path_safe, opt_text, required};
use super::identity::{self, Pseudonym, RequestId};
use super::interaction::{self, Interaction};
use super::json::{self, ObjectWriter};
use super::meta::Meta;
use super::rejection::{Code, Rejection};
use super::row::Key;
use super::subject::{self, HexText, Subject};
use super::time::Micros;

/// Lines of one list that carry no request id lie this close together.
const SAME_LIST_US: i64 = 1_000_000;

/// recsys-service's exposure log: `service_v1`.
pub(super) fn service_v1<'a>(
    event: &RawEvent<'a, '_>,
    context: &Context<'_>,
) -> Result<Exposure<'a>, Rejection> {
    let mut meta = Meta::default();
    let [
        schema_version,
        timestamp,
        request_id,
        tenant_id,
        surface,
        segment,
        algo,
        config,
        rules,
        experiment,
        who,
        client_context,
        items,
    ] = field::pick(
        event,
        const {
            &Names::new([
                "schema_version", "timestamp", "request_id", "tenant_id", "surface", "segment",
                "algo_version", "config_version", "rules_version", "experiment", "subject",
                "context", "items",
            ])
        },
        &mut meta.extra,
    )?;
    if let Some(version) = schema_version
        && version.string()? != "v1"
    {
        return Err(Rejection::of(
            Code::UnsupportedFormat,
            "schema_version",
            "must be \"v1\"",
        ));
    }
    let tenant = context.tenant_of(tenant_id)?;
    let occurred_at = context.instant(required(timestamp, "timestamp")?)?;
    let request_id = required_request_id(request_id)?;
    let surface = required_surface(surface)?;
    let segment = opt_path_safe(segment)?;
    let versions = Versions::read(algo, config, rules)?;
    let subject = match who {
        Some(who) => hashed_subject(who, context)?,
        None => Subject::default(),
    };

    let mut request = String::new();
    let mut object = ObjectWriter::open(&mut request);
    object
        .str("surface", &surface)
        .opt_str("segment", segment.as_deref());
    for value in [client_context, experiment, who].into_iter().flatten() {
        subject::push_scrubbed(
            object.name(value.name),
            value.object()?,
            context.pseudonymizer,
        );
    }
    object.close();

    let mut response = String::new();
    let mut object = ObjectWriter::open(&mut response);
    // The log leaves an empty list out.
    let none = Value {
        name: "items",
        raw: "[]",
        escaped: false,
    };
    push_items(object.name("items"), items.unwrap_or(none), context)?;
    let named = tenant_id.map(|value| value.string()).transpose()?;
    push_response_meta(
        &mut object,
        named.as_deref(),
        (&surface, segment.as_deref(), &versions, &request_id),
    );
    object.close();

    Ok(Exposure {
        key: derived_key(tenant, occurred_at, Format::ServiceV1, event),
        received_at: context.received_at,
        surface,
        segment,
        experiment: Experiment::read(experiment)?,
        versions,
        request,
        response,
        meta: meta.text(
            Format::ServiceV1,
            true,
            Some(&request_id),
            &subject,
            context,
        )?,
        request_id,
        subject,
    })
}

/// recsys-eval's exposure.v1, which recsys-service can also write: `eval_v1`.
pub(super) fn eval_v1<'a>(
    event: &RawEvent<'a, '_>,
    context: &Context<'_>,
) -> Result<Exposure<'a>, Rejection> {
    let mut meta = Meta::default();
    let [
        request_id,
        user_id,
        ts,
        items,
        client_context,
        latency_ms,
        error,
    ] = field::pick(
        event,
        const {
            &Names::new([
                "request_id", "user_id", "ts", "items", "context", "latency_ms", "error",
            ])
        },
        &mut meta.extra,
    )?;
    let inner = match client_context {
        Some(value) => value.members()?,
        None => Vec::new(),
    };
    let in_context = |name: &'static str, key: &str| {
        let field = inner
            .iter()
            .find(|field| field.key == key && field.raw != "null")?;
        Some(Value {
            name,
            raw: field.raw,
            escaped: field.escaped,
        })
    };
    let named = in_context("context.tenant_id", "tenant_id")
        .or_else(|| in_context("context.tenant", "tenant"));
    let tenant = context.tenant_of(named)?;
    let occurred_at = context.instant(required(ts, "ts")?)?;
    let request_id = required_request_id(request_id)?;
    let surface = match in_context("context.surface", "surface") {
        Some(value) => value.path_safe()?,
        None => None,
    };
    let surface = required(surface, "context.surface")?;
    let user = subject::pseudonym_or_raw(user_id, Some(&request_id.text), context)?;
    let subject = Subject {
        user_key: user,
        ..Subject::default()
    };
    let latency_ms = latency_ms
        .map(|value| Ok(("latency_ms", value.number()?)))
        .transpose()?;
    meta.kept = [latency_ms, error.map(|value| ("error", value.raw))]
        .into_iter()
        .flatten()
        .collect();

    let mut request = String::from("{\"context\":");
    match client_context {
        Some(value) => subject::push_scrubbed(&mut request, value.raw, context.pseudonymizer),
        None => request.push_str("{}"),
    }
    request.push('}');
    let mut response = String::from("{\"items\":");
    push_items(&mut response, required(items, "items")?, context)?;
    response.push('}');

    Ok(Exposure {
        key: derived_key(tenant, occurred_at, Format::EvalV1, event),
        received_at: context.received_at,
        surface,
        segment: opt_path_safe(in_context("context.segment", "segment"))?,
        experiment: Experiment {
            id: opt_text(in_context("context.experiment_id", "experiment_id"))?,
            variant: opt_text(in_context(
                "context.experiment_variant",
                "experiment_variant",
            ))?,
        },
        versions: Versions::read(
            in_context("context.algo_version", "algo_version"),
            in_context("context.config_version", "config_version"),
            in_context("context.rules_version", "rules_version"),
        )?,
        request,
        response,
        meta: meta.text(Format::EvalV1, true, Some(&request_id), &subject, context)?,
        request_id,
        subject,
    })
}

/// recsys-eval's outcome.v1: `outcome_v1`.
pub(super) fn outcome_v1<'a>(
    event: &RawEvent<'a, '_>,
    context: &Context<'_>,
) -> Result<Interaction<'a>, Rejection> {
    let mut meta = Meta::default();
    let [request_id, user_id, item_id, event_type, value, ts] = field::pick(
        event,
        const {
            &Names::new([
                "request_id", "user_id", "item_id", "event_type", "value", "ts",
            ])
        },
        &mut meta.extra,
    )?;
    let occurred_at = context.instant(required(ts, "ts")?)?;
    let request_id = opt_text(request_id)?.map(RequestId::parse);
    let nobody = request_id.as_ref().map(|id| &*id.text);
    let subject = Subject {
        user_key: subject::pseudonym_or_raw(user_id, nobody, context)?,
        ..Subject::default()
    };
    let event_type = required(event_type, "event_type")?;
    let event_type = match &*event_type.string()? {
        "click" => "click",
        "conversion" => "purchase",
        _ => {
            return Err(Rejection::of(
                Code::InvalidValue,
                "event_type",
                "must be click or conversion in outcome.v1",
            ));
        }
    };
    Ok(Interaction {
        key: derived_key(context.tenant, occurred_at, Format::OutcomeV1, event),
        received_at: context.received_at,
        surface: None,
        segment: None,
        event_type,
        item_id: interaction::item(item_id)?,
        position: None,
        value: value.map(interaction::decimal).transpose()?,
        meta: meta.text(
            Format::OutcomeV1,
            true,
            request_id.as_ref(),
            &subject,
            context,
        )?,
        request_id: request_id.map(|id| id.uuid),
        subject,
    })
}

/// The lines of recsys-pipelines' exposure.v1 in one body, put back together
/// into the lists that were shown.
#[derive(Debug, Default)]
pub(super) struct Grouping<'a> {
    groups: Vec<Group<'a>>,
    by_list: HashMap<List<'a>, usize>,
}

/// What the lines of one list have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct List<'a> {
    tenant: Uuid,
    surface: Cow<'a, str>,
    session: Pseudonym,
    user: Option<Pseudonym>,
    request_id: Option<Cow<'a, str>>,
}

/// One list, line by line.
#[derive(Debug)]
pub(super) struct Group<'a> {
    list: List<'a>,
    lines: Vec<Line<'a>>,
    first: Micros,
    last: Micros,
}

#[derive(Debug)]
struct Line<'a> {
    index: u32,
    text: &'a str,
    item_id: Cow<'a, str>,
    rank: Option<i32>,
    extra: Vec<json::Field<'a>>,
}

impl<'a> Grouping<'a> {
    /// Puts a line with the others of its list.
    pub(super) fn add(
        &mut self,
        index: u32,
        event: &RawEvent<'a, '_>,
        context: &Context<'_>,
    ) -> Result<(), Rejection> {
        let mut extra = Vec::new();
        let [
            v,
            ts,
            tenant,
            surface,
            session_id,
            item_id,
            user_id,
            request_id,
            rank,
        ] = field::pick(
            event,
            const {
                &Names::new([
                    "v", "ts", "tenant", "surface", "session_id", "item_id", "user_id",
                    "request_id", "rank",
                ])
            },
            &mut extra,
        )?;
        if v.is_some_and(|v| v.raw != "1") {
            return Err(Rejection::of(Code::UnsupportedFormat, "v", "must be 1"));
        }
        let at = context.instant(required(ts, "ts")?)?;
        let surface = required_surface(surface)?;
        let session = subject::pseudonym_or_raw(session_id, None, context)?;
        let user = match user_id {
            Some(value) => context.pseudonymizer.hash(&value.string()?),
            None => None,
        };
        let list = List {
            tenant: context.tenant_of(tenant)?,
            surface,
            session: required(session, "session_id")?,
            user,
            request_id: opt_text(request_id)?,
        };
        let line = Line {
            index,
            text: event.text,
            item_id: interaction::item(item_id)?,
            rank: rank.map(|value| value.int(0)).transpose()?,
            extra: extra.into_iter().cloned().collect(),
        };
        let open = self.by_list.get(&list).copied().filter(|&at_group| {
            let group = &self.groups[at_group];
            list.request_id.is_some() || group.is_close_to(at)
        });
        match open {
            Some(group) => {
                let group = &mut self.groups[group];
                if group.lines.len() >= context.items_max {
                    return Err(Rejection::of(
                        Code::TooManyItems,
                        "item_id",
                        format!("its list has {} items already", context.items_max),
                    ));
                }
                group.first = group.first.min(at);
                group.last = group.last.max(at);
                group.lines.push(line);
            }
            None => {
                self.by_list.insert(list.clone(), self.groups.len());
                self.groups.push(Group {
                    list,
                    lines: vec![line],
                    first: at,
                    last: at,
                });
            }
        }
        Ok(())
    }

    pub(super) fn into_groups(self) -> impl Iterator<Item = Group<'a>> {
        self.groups.into_iter()
    }
}

impl<'a> Group<'a> {
    /// The places of the group's lines in the body.
    pub(super) fn lines(&self) -> impl Iterator<Item = u32> {
        self.lines.iter().map(|line| line.index)
    }

    fn is_close_to(&self, at: Micros) -> bool {
        at.0 >= self.first.0 - SAME_LIST_US && at.0 <= self.last.0 + SAME_LIST_US
    }

    /// The list as one exposure.
    pub(super) fn exposure(&self, context: &Context<'_>) -> Exposure<'a> {
        let list = &self.list;
        let session = HexText::of(&list.session);
        let request_id = RequestId::parse(match &list.request_id {
            Some(named) => named.clone(),
            None => format!("{}/{}/{}", session.as_str(), list.surface, self.first.0).into(),
        });
        let mut response = String::from("{\"items\":[");
        let mut extra = String::from("[");
        for (place, line) in self.lines.iter().enumerate() {
            if place > 0 {
                response.push(',');
            }
            let rank = line
                .rank
                .map_or_else(|| (place + 1).to_string(), |rank| rank.to_string());
            let mut item = ObjectWriter::open(&mut response);
            item.str("item_id", &line.item_id).raw("rank", &rank);
            item.close();
            if !line.extra.is_empty() {
                if extra.len() > 1 {
                    extra.push(',');
                }
                let mut kept = ObjectWriter::open(&mut extra);
                kept.str("item_id", &line.item_id);
                for field in &line.extra {
                    subject::push_member(&mut kept, field, context.pseudonymizer);
                }
                kept.close();
            }
        }
        response.push_str("]}");
        extra.push(']');
        let texts = self.lines.iter().map(|line| line.text);
        let subject = Subject {
            user_key: list.user,
            session: Some(session),
            ..Subject::default()
        };
        let mut meta = Meta::default();
        if extra.len() > 2 {
            meta.displaced.push(("lines", &extra));
        }
        let format = Format::PipelinesV1;
        // An id that was made up here is nobody's raw one.
        let named = list.request_id.as_ref().map(|_| &request_id);
        let meta = meta
            .text(format, true, named, &subject, context)
            .expect("only a client's own meta can be wrong, and lines have none");
        Exposure {
            key: Key {
                tenant: list.tenant,
                occurred_at: self.first,
                event_id: identity::event_id_of_text(&list.tenant, format.as_str(), texts),
            },
            received_at: context.received_at,
            surface: list.surface.clone(),
            segment: None,
            experiment: Experiment::default(),
            versions: Versions::default(),
            request: String::from("{}"),
            response,
            meta,
            request_id,
            subject,
        }
    }
}

/// The subject of service_v1, whose ids are hashes; raw ones are taken too.
fn hashed_subject(who: Value<'_>, context: &Context<'_>) -> Result<Subject, Rejection> {
    let members = who.members()?;
    let of = |raw: &'static str, hash: &'static str| {
        let find = |name: &'static str, key: &str| {
            let field = members
                .iter()
                .find(|field| field.key == key && field.raw != "null")?;
            Some(Value {
                name,
                raw: field.raw,
                escaped: field.escaped,
            })
        };
        let key = |name: &'static str| name.trim_start_matches("subject.");
        subject::pseudonym(find(raw, key(raw)), find(hash, key(hash)), context)
    };
    Ok(Subject::new(
        of("subject.user_id", "subject.user_id_hash")?,
        of("subject.anonymous_id", "subject.anonymous_id_hash")?,
        of("subject.session_id", "subject.session_id_hash")?,
    ))
}

fn derived_key(tenant: Uuid, occurred_at: Micros, format: Format, event: &RawEvent<'_, '_>) -> Key {
    Key {
        tenant,
        occurred_at,
        event_id: identity::event_id_of_text(&tenant, format.as_str(), [event.text]),
    }
}
