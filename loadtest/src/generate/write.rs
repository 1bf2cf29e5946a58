//! Events as JSON, in every format of the contract.
//!
//! Knows the formats' fields and nothing of bodies: the text of one event (of
//! each line of a list, in pipelines_v1) is handed out to be framed.

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use super::event::{Event, Fault, Id, Item};
use super::names;
use super::plan::{Owner, Plan};
use super::settings::Scope;
use crate::service::{Format, ObjectWriter, Table};

/// Twenty years: before any horizon of a service.
const LONG_AGO_US: i64 = 20 * 365 * 86_400_000_000;

/// How an instant is written; all of them mean the same microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `…T10:00:00.123456Z`
    Micros,
    /// `…T10:00:00.123456789Z`, as Go writes it; the service cuts the digits behind the microsecond.
    Nanos(u32),
    /// `…T12:00:00.123456+02:00`
    Offset,
}

/// An instant as RFC 3339.
pub(super) fn rfc3339(us: i64, style: Style) -> String {
    let at = Timestamp::from_microsecond(us).expect("a run lies within the calendar");
    match style {
        Style::Micros => format!("{at:.6}"),
        Style::Nanos(nanos) => format!("{:.9}", at + SignedDuration::from_nanos(nanos.into())),
        Style::Offset => format!("{:.6}", at.display_with_offset(Offset::constant(2))),
    }
}

/// Writes an event's documents into `out`; `between` is called before each.
pub(super) fn write(
    plan: &Plan,
    event: &Event,
    out: &mut String,
    mut between: impl FnMut(&mut String),
) {
    let writer = Writer { plan, event };
    if event.format == Format::PipelinesV1 {
        for (place, item) in (0..).zip(event.lines()) {
            between(out);
            let mut object = ObjectWriter::open(out);
            writer.pipelines_line(&mut object, place, *item);
            object.close();
        }
        return;
    }
    between(out);
    let mut object = ObjectWriter::open(out);
    match event.format {
        Format::ServiceV1 => writer.service_v1(&mut object),
        Format::EvalV1 => writer.eval_v1(&mut object),
        Format::OutcomeV1 => writer.outcome_v1(&mut object),
        Format::Native | Format::PipelinesV1 => writer.native(&mut object),
    }
    object.close();
}

struct Writer<'e> {
    plan: &'e Plan,
    event: &'e Event,
}

impl Writer<'_> {
    fn native(&self, object: &mut ObjectWriter<'_>) {
        let event = self.event;
        object.str("event_id", &event.event_id.to_string());
        object.str("occurred_at", &self.time(0));
        object.opt_str("tenant_id", self.tenant(false));
        object.opt_str("request_id", event.request.as_deref());
        if let Some(user) = &event.user {
            object.str(self.field_of(user, "user_id"), &user.text());
        }
        if let Some(session) = &event.session {
            object.str(self.field_of(session, "session_id"), &session.text());
        }
        self.place(object);
        match event.table {
            Table::Exposures => {
                self.experiment(object);
                self.versions(object);
                self.context(object);
                self.items(object);
            }
            Table::Interactions => {
                self.action(object, event.event_type);
                if let Some(position) = event.position {
                    object.raw("position", &position.to_string());
                }
                if let Some(context) = event.context {
                    let mut meta = ObjectWriter::open(object.name("meta"));
                    meta.str("device", device(context)).raw("retry", "false");
                    meta.close();
                }
            }
        }
    }

    fn service_v1(&self, object: &mut ObjectWriter<'_>) {
        let event = self.event;
        object.str("schema_version", "v1");
        object.str("timestamp", &self.time(0));
        object.opt_str("request_id", event.request.as_deref());
        object.opt_str("tenant_id", self.tenant(true));
        self.place(object);
        self.versions(object);
        self.experiment(object);
        let mut subject = ObjectWriter::open(object.name("subject"));
        for (field, id) in [
            ("user_id_hash", &event.user),
            ("session_id_hash", &event.session),
        ] {
            subject.opt_str(field, id.as_ref().map(|id| id.text()).as_deref());
        }
        subject.close();
        self.context(object);
        self.items(object);
    }

    fn eval_v1(&self, object: &mut ObjectWriter<'_>) {
        let event = self.event;
        self.subject(object);
        object.str("ts", &self.time(0));
        self.items(object);
        let mut context = ObjectWriter::open(object.name("context"));
        context.opt_str("tenant_id", self.tenant(true));
        self.place(&mut context);
        self.versions(&mut context);
        if let Some((experiment, variant)) = event.experiment {
            context.str("experiment_id", &format!("exp-{experiment}"));
            context.str("experiment_variant", variant);
        }
        context.opt_str("device", event.context.map(device));
        context.close();
    }

    fn outcome_v1(&self, object: &mut ObjectWriter<'_>) {
        self.subject(object);
        let name = match self.event.event_type {
            "purchase" => "conversion",
            other => other,
        };
        self.action(object, name);
        object.str("ts", &self.time(0));
    }

    fn pipelines_line(&self, object: &mut ObjectWriter<'_>, place: u32, item: Item) {
        let event = self.event;
        let text = |id: &Option<Id>| id.as_ref().map(|id| id.text());
        object.raw("v", "1");
        // A list's lines are written one after the other.
        object.str("ts", &self.time(i64::from(place) * 7));
        object.opt_str("tenant", self.tenant(true));
        self.place(object);
        object.opt_str("session_id", text(&event.session).as_deref());
        match event.fault {
            Some(Fault::Wrong) => object.raw("item_id", "7"),
            _ => object.str("item_id", &names::item(item.item)),
        };
        object.opt_str("user_id", text(&event.user).as_deref());
        object.opt_str("request_id", event.request.as_deref());
        object.raw("rank", &place.to_string());
    }

    fn time(&self, later_us: i64) -> String {
        let event = self.event;
        let at = event.occurred_us + later_us;
        match event.fault {
            Some(Fault::Time) => "yesterday, 10 o'clock".to_owned(),
            Some(Fault::LongAgo) => rfc3339(at - LONG_AGO_US, event.style),
            _ => rfc3339(at, event.style),
        }
    }

    /// The tenant where the key does not say it, or where the format has a field that is `always` filled.
    fn tenant(&self, always: bool) -> Option<&str> {
        let settings = &self.plan.settings;
        match self.event.owner {
            Owner::Tenant(at) if always || settings.callers[0].scope == Scope::Any => {
                Some(&settings.tenants[usize::from(at)])
            }
            _ => None,
        }
    }

    /// The native field for an id, of which `raw` is the one for a raw id.
    fn field_of(&self, id: &Id, raw: &'static str) -> &'static str {
        match (id, raw) {
            (Id::Hash(_), "user_id") => "user_id_hash",
            (Id::Hash(_), _) => "session_id_hash",
            (_, "user_id") if self.event.is_anonymous => "anonymous_id",
            (_, raw) => raw,
        }
    }

    /// The request, and the field of exposure.v1 and outcome.v1 that holds a hash, a
    /// raw id, or the request's id where no user is known.
    fn subject(&self, object: &mut ObjectWriter<'_>) {
        let request = self
            .event
            .request
            .as_deref()
            .expect("these formats have one");
        object.str("request_id", request);
        match &self.event.user {
            Some(user) => object.str("user_id", &user.text()),
            None => object.str("user_id", request),
        };
    }

    fn place(&self, object: &mut ObjectWriter<'_>) {
        let event = self.event;
        let left_out = event.table == Table::Exposures && event.fault == Some(Fault::Missing);
        object.opt_str("surface", event.surface.filter(|_| !left_out));
        object.opt_str("segment", event.segment);
    }

    fn experiment(&self, object: &mut ObjectWriter<'_>) {
        if let Some((experiment, variant)) = self.event.experiment {
            let mut inner = ObjectWriter::open(object.name("experiment"));
            inner.str("id", &format!("exp-{experiment}"));
            inner.str("variant", variant);
            inner.close();
        }
    }

    fn versions(&self, object: &mut ObjectWriter<'_>) {
        let Some(version) = self.event.version else {
            return;
        };
        object.str("algo_version", &format!("algo-{version}"));
        // Some copy the ETag as HTTP has it.
        let config = match version % 16 {
            0 => format!("W/\"cfg-{version}\""),
            _ => format!("cfg-{version}"),
        };
        object.str("config_version", &config);
        object.str("rules_version", &format!("rules-{version}"));
    }

    fn context(&self, object: &mut ObjectWriter<'_>) {
        if let Some(context) = self.event.context {
            let (locale, country) = [("de-DE", "DE"), ("en-GB", "GB")][context as usize % 2];
            let mut inner = ObjectWriter::open(object.name("context"));
            inner.str("locale", locale);
            inner.str("device", device(context));
            inner.str("country", country);
            inner.close();
        }
    }

    fn items(&self, object: &mut ObjectWriter<'_>) {
        let event = self.event;
        if event.fault == Some(Fault::Wrong) {
            object.str("items", "none");
            return;
        }
        let out = object.name("items");
        for (rank, shown) in (1..).zip(&event.items) {
            out.push(if rank == 1 { '[' } else { ',' });
            let mut item = ObjectWriter::open(out);
            item.str("item_id", &names::item(shown.item));
            item.raw("rank", &rank.to_string());
            if event.format != Format::EvalV1 {
                item.raw("score", &format!("0.{:03}", shown.score));
            }
            item.close();
        }
        out.push(']');
    }

    /// What was done, to what, and what it was worth.
    fn action(&self, object: &mut ObjectWriter<'_>, event_type: &str) {
        let event = self.event;
        match event.fault {
            Some(Fault::Wrong) => object.str("event_type", "hover"),
            _ => object.str("event_type", event_type),
        };
        if event.fault != Some(Fault::Missing) {
            object.str("item_id", &names::item(event.item));
        }
        if let Some(millionths) = event.value {
            let value = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
            object.raw("value", value.trim_end_matches('0').trim_end_matches('.'));
        }
    }
}

/// The name of a device; some need an escape.
fn device(context: u32) -> &'static str {
    ["web", "ios", "android", "tv 55\" – größer"][context as usize / 2 % 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_reads_back_as_the_same_microsecond() {
        // Leap days, the turns of years and centuries, and the last microsecond of a day.
        for at in [
            0, 951_782_400_000_000, 951_868_799_999_999, 1_709_164_800_000_000,
            4_107_542_399_999_999, 1_795_000_000_123_456,
        ] {
            for style in [Style::Micros, Style::Nanos(999), Style::Offset] {
                let text = rfc3339(at, style);
                let parsed: Timestamp = text.parse().unwrap();
                assert_eq!(parsed.as_microsecond(), at, "{text}");
            }
        }
    }
}
