//! The suite's other formats, mapped as the tables of contract §3 say.
//!
//! An event without an `event_id` has one made from what [`name`]s it: a log file that is posted
//! twice is stored once, also if a shipper has serialised its lines again.

pub(crate) mod grouping;
mod name;
pub(crate) mod segment;
#[cfg(test)]
mod tests;

use super::body::RawEvent;
use super::context::Context;
use super::exposure::{
    Experiment, Exposure, Versions, push_items, push_response_meta, required_request_id,
    required_surface,
};
use super::field::{self, Names, Value, opt_path_safe, opt_text, required};
use super::format::Format;
use super::identity::RequestId;
use super::interaction::Interaction;
use super::items;
use super::json::write::ObjectWriter;
use super::meta::Meta;
use super::rejection::{Code, Rejection};
use super::subject::{self, Subject};
use super::unknown;
use super::warning::Notes;
use name::Name;

/// recsys-service's exposure log: `service_v1`.
pub(super) fn service_v1<'a>(
    event: &RawEvent<'a, '_>,
    context: &Context<'_>,
    notes: &mut Notes<'a>,
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
        tenant,
        event_id,
    ] = unknown::pick(
        event,
        const {
            &Names::new([
                "schema_version", "timestamp", "request_id", "tenant_id", "surface", "segment",
                "algo_version", "config_version", "rules_version", "experiment", "subject",
                "context", "items", "tenant", "event_id",
            ])
        },
        context,
        notes,
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
    let named = tenant_id
        .or(tenant)
        .map(|value| value.string())
        .transpose()?;
    let tenant = context.tenant_of(&[tenant_id, tenant])?;
    let occurred_at = context.instant(required(timestamp, "timestamp")?, notes)?;
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
        let raw = value.object()?;
        subject::push_value(&mut object, value.name, raw, context.pseudonymizer)?;
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
    push_response_meta(
        &mut object,
        named.as_deref(),
        (&surface, segment.as_deref(), &versions, &request_id),
    );
    object.close();

    let name = Name {
        format: Format::ServiceV1,
        request_id: Some(&request_id),
        occurred_at,
        surface: Some(&surface),
        subject: &subject,
    };
    Ok(Exposure {
        key: name.key(tenant, event_id, &[])?,
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
            notes,
        )?,
        request_id,
        subject,
    })
}

/// recsys-eval's exposure.v1, which recsys-service can also write: `eval_v1`.
pub(super) fn eval_v1<'a>(
    event: &RawEvent<'a, '_>,
    context: &Context<'_>,
    notes: &mut Notes<'a>,
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
        tenant_id,
        tenant,
        event_id,
    ] = unknown::pick(
        event,
        const {
            &Names::new([
                "request_id", "user_id", "ts", "items", "context", "latency_ms", "error",
                "tenant_id", "tenant", "event_id",
            ])
        },
        context,
        notes,
        &mut meta.extra,
    )?;
    let inner = match client_context {
        Some(value) => value.members()?,
        None => Vec::new(),
    };
    let in_context = |name: &'static str, key: &str| field::member(&inner, key, name);
    let tenant = context.tenant_of(&[
        tenant_id,
        tenant,
        in_context("context.tenant_id", "tenant_id")?,
        in_context("context.tenant", "tenant")?,
    ])?;
    let occurred_at = context.instant(required(ts, "ts")?, notes)?;
    let request_id = required_request_id(request_id)?;
    let surface = match in_context("context.surface", "surface")? {
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
        .map(|value| Ok(("latency_ms", value.float()?)))
        .transpose()?;
    meta.kept = [latency_ms, error.map(|value| ("error", value.raw))]
        .into_iter()
        .flatten()
        .collect();

    let mut request = String::from("{\"context\":");
    match client_context {
        Some(value) => subject::push_scrubbed(&mut request, value.raw, context.pseudonymizer)
            .map_err(|rejection| rejection.within(value.name))?,
        None => request.push_str("{}"),
    }
    request.push('}');
    let mut response = String::from("{\"items\":");
    push_items(&mut response, required(items, "items")?, context)?;
    response.push('}');

    let name = Name {
        format: Format::EvalV1,
        request_id: Some(&request_id),
        occurred_at,
        surface: Some(&surface),
        subject: &subject,
    };
    Ok(Exposure {
        key: name.key(tenant, event_id, &[])?,
        received_at: context.received_at,
        surface,
        segment: opt_path_safe(in_context("context.segment", "segment")?)?,
        experiment: Experiment {
            id: opt_text(in_context("context.experiment_id", "experiment_id")?)?,
            variant: opt_text(in_context(
                "context.experiment_variant",
                "experiment_variant",
            )?)?,
        },
        versions: Versions::read(
            in_context("context.algo_version", "algo_version")?,
            in_context("context.config_version", "config_version")?,
            in_context("context.rules_version", "rules_version")?,
        )?,
        request,
        response,
        meta: meta.text(
            Format::EvalV1,
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

/// recsys-eval's outcome.v1: `outcome_v1`.
pub(super) fn outcome_v1<'a>(
    event: &RawEvent<'a, '_>,
    context: &Context<'_>,
    notes: &mut Notes<'a>,
) -> Result<Interaction<'a>, Rejection> {
    let mut meta = Meta::default();
    let [
        request_id,
        user_id,
        item_id,
        event_type,
        value,
        ts,
        tenant_id,
        tenant,
        event_id,
    ] = unknown::pick(
        event,
        const {
            &Names::new([
                "request_id", "user_id", "item_id", "event_type", "value", "ts", "tenant_id",
                "tenant", "event_id",
            ])
        },
        context,
        notes,
        &mut meta.extra,
    )?;
    let occurred_at = context.instant(required(ts, "ts")?, notes)?;
    let tenant = context.tenant_of_unnamed(&[tenant_id, tenant])?;
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
    let item_id = items::item_id(item_id)?;
    let name = Name {
        format: Format::OutcomeV1,
        request_id: request_id.as_ref(),
        occurred_at,
        surface: None,
        subject: &subject,
    };
    Ok(Interaction {
        key: name.key(tenant, event_id, &[&item_id, event_type])?,
        received_at: context.received_at,
        surface: None,
        segment: None,
        event_type,
        item_id,
        position: None,
        value: value
            .map(|value| items::decimal(value, notes))
            .transpose()?,
        meta: meta.text(
            Format::OutcomeV1,
            true,
            request_id.as_ref(),
            &subject,
            context,
            notes,
        )?,
        request_id: request_id.map(|id| id.uuid),
        subject,
    })
}

/// The subject of service_v1. Its ids are hashes; raw ones are accepted, too.
fn hashed_subject(who: Value<'_>, context: &Context<'_>) -> Result<Subject, Rejection> {
    let members = who.members()?;
    let of = |raw: &'static str, hash: &'static str| {
        let find = |name: &'static str, key: &str| field::member(&members, key, name);
        let key = |name: &'static str| name.trim_start_matches("subject.");
        subject::pseudonym(find(raw, key(raw))?, find(hash, key(hash))?, context)
    };
    Ok(Subject::new(
        of("subject.user_id", "subject.user_id_hash")?,
        of("subject.anonymous_id", "subject.anonymous_id_hash")?,
        of("subject.session_id", "subject.session_id_hash")?,
    ))
}
