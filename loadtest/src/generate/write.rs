//! Events as JSON, in every format of the contract.
//!
//! Knows the formats' fields and nothing of bodies: the text of one event (of
//! each line of a list, in pipelines_v1) is handed out to be framed.

use super::event::{EVENT_TYPES, Event, Fault, Item, SEGMENTS, SURFACES, Session, Who};
use super::names::{
    push_hex, push_item_json, push_numbered, push_request, session_hash, user_hash,
};
use super::plan::Owner;
use super::settings::{Format, Settings, Table};
use super::text::{Object, push_number, push_padded, push_uuid};
use super::time::{DAY_US, push_rfc3339};

/// Long before any horizon of a service.
const LONG_AGO_DAYS: i64 = 20 * 365;

/// Writes an event's documents into `out`; `between` is called before each.
pub(crate) fn write(
    settings: &Settings,
    event: &Event,
    out: &mut Vec<u8>,
    mut between: impl FnMut(&mut Vec<u8>),
) {
    let writer = Writer { settings, event };
    if event.format == Format::PipelinesV1 {
        // A bad list has one line, so that one slot is one rejection.
        let lines = match event.fault {
            Some(_) => &event.items[..1],
            None => &event.items,
        };
        for (at, item) in lines.iter().enumerate() {
            between(out);
            writer.pipelines_line(out, at, *item);
        }
        return;
    }
    between(out);
    match (event.table, event.format) {
        (_, Format::ServiceV1) => writer.service_v1(out),
        (_, Format::EvalV1) => writer.eval_v1(out),
        (_, Format::OutcomeV1) => writer.outcome_v1(out),
        (Table::Exposures, _) => writer.exposure(out),
        (Table::Interactions, _) => writer.interaction(out),
    }
}

struct Writer<'e> {
    settings: &'e Settings,
    event: &'e Event,
}

impl Writer<'_> {
    fn exposure(&self, out: &mut Vec<u8>) {
        let event = self.event;
        let mut object = Object::open(out);
        object.quoted("event_id", |out| push_uuid(out, &event.event_id));
        self.time(&mut object, "occurred_at", 0);
        self.tenant(&mut object, "tenant_id", false);
        self.request(&mut object);
        self.place(&mut object);
        self.who(&mut object);
        self.session(&mut object);
        self.experiment(&mut object);
        self.versions(&mut object);
        self.context(&mut object);
        self.items(&mut object);
        object.close();
    }

    fn interaction(&self, out: &mut Vec<u8>) {
        let event = self.event;
        let mut object = Object::open(out);
        object.quoted("event_id", |out| push_uuid(out, &event.event_id));
        self.time(&mut object, "occurred_at", 0);
        self.tenant(&mut object, "tenant_id", false);
        self.request(&mut object);
        self.who(&mut object);
        self.session(&mut object);
        self.place(&mut object);
        self.action(&mut object, EVENT_TYPES[usize::from(event.event_type)]);
        if let Some(position) = event.position {
            object.number("position", u64::from(position));
        }
        if let Some(context) = event.context {
            let mut meta = Object::open(object.name("meta"));
            meta.plain("device", device(context)).raw("retry", "false");
            meta.close();
        }
        object.close();
    }

    fn service_v1(&self, out: &mut Vec<u8>) {
        let event = self.event;
        let seed = self.settings.seed;
        let mut object = Object::open(out);
        object.plain("schema_version", "v1");
        self.time(&mut object, "timestamp", 0);
        self.request(&mut object);
        self.tenant(&mut object, "tenant_id", true);
        self.place(&mut object);
        self.versions(&mut object);
        self.experiment(&mut object);
        let mut subject = Object::open(object.name("subject"));
        if let Who::UserHash(user) = event.who {
            subject.quoted("user_id_hash", |out| push_hex(out, &user_hash(seed, user)));
        }
        if let Session::Hash(visit) = event.session {
            subject.quoted("session_id_hash", |out| {
                push_hex(out, &session_hash(seed, visit));
            });
        }
        subject.close();
        self.context(&mut object);
        self.items(&mut object);
        object.close();
    }

    fn eval_v1(&self, out: &mut Vec<u8>) {
        let event = self.event;
        let mut object = Object::open(out);
        self.request(&mut object);
        self.any_user(&mut object);
        self.time(&mut object, "ts", 0);
        self.items(&mut object);
        let mut context = Object::open(object.name("context"));
        self.tenant(&mut context, "tenant_id", true);
        self.place(&mut context);
        self.versions(&mut context);
        if let Some((experiment, variant)) = event.experiment {
            context.quoted("experiment_id", |out| {
                push_numbered(out, "exp-", u32::from(experiment));
            });
            context.plain("experiment_variant", variant_name(variant));
        }
        if let Some(device_of) = event.context {
            context.plain("device", device(device_of));
        }
        context.close();
        object.close();
    }

    fn outcome_v1(&self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        self.request(&mut object);
        self.any_user(&mut object);
        let name = match EVENT_TYPES[usize::from(self.event.event_type)] {
            "purchase" => "conversion",
            other => other,
        };
        self.action(&mut object, name);
        self.time(&mut object, "ts", 0);
        object.close();
    }

    fn pipelines_line(&self, out: &mut Vec<u8>, at: usize, item: Item) {
        let event = self.event;
        let place = u32::try_from(at).expect("lists are short");
        let mut object = Object::open(out);
        object.raw("v", "1");
        // A list's lines are written one after the other.
        self.time(&mut object, "ts", i64::from(place) * 7);
        self.tenant(&mut object, "tenant", true);
        if event.fault != Some(Fault::Missing) {
            object.plain("surface", SURFACES[usize::from(event.surface.unwrap_or(0))]);
        }
        self.session_id(&mut object);
        match event.fault {
            Some(Fault::Wrong) => object.number("item_id", 7),
            _ => object.quoted("item_id", |out| push_item_json(out, item.item)),
        };
        if let Who::User(user) = event.who {
            object.quoted("user_id", |out| push_numbered(out, "user-", user));
        }
        self.request(&mut object);
        object.number("rank", u64::from(place));
        object.close();
    }

    fn time(&self, object: &mut Object<'_>, name: &str, later_us: i64) {
        let event = self.event;
        let at = event.occurred_us + later_us;
        match event.fault {
            Some(Fault::Time) => object.plain(name, "yesterday, 10 o'clock"),
            Some(Fault::LongAgo) => object.quoted(name, |out| {
                push_rfc3339(out, at - LONG_AGO_DAYS * DAY_US, event.style);
            }),
            _ => object.quoted(name, |out| push_rfc3339(out, at, event.style)),
        };
    }

    /// Names the tenant where the key does not say it, or where the format asks for it.
    fn tenant(&self, object: &mut Object<'_>, name: &str, always: bool) {
        let per_event = self.settings.callers[0].scope == super::settings::Scope::Any;
        if let Owner::Tenant(tenant) = self.event.owner
            && (always || per_event)
        {
            object.plain(name, &self.settings.tenants[usize::from(tenant)]);
        }
    }

    fn request(&self, object: &mut Object<'_>) {
        if let Some(request) = self.event.request {
            object.quoted("request_id", |out| push_request(out, request));
        }
    }

    fn place(&self, object: &mut Object<'_>) {
        let event = self.event;
        let left_out = event.table == Table::Exposures && event.fault == Some(Fault::Missing);
        if let Some(surface) = event.surface.filter(|_| !left_out) {
            object.plain("surface", SURFACES[usize::from(surface)]);
        }
        if let Some(segment) = event.segment {
            object.plain("segment", SEGMENTS[usize::from(segment)]);
        }
    }

    fn who(&self, object: &mut Object<'_>) {
        match self.event.who {
            Who::Nobody => object,
            Who::User(user) => object.quoted("user_id", |out| push_numbered(out, "user-", user)),
            Who::Anonymous(user) => {
                object.quoted("anonymous_id", |out| push_numbered(out, "anon-", user))
            }
            Who::UserHash(user) => object.quoted("user_id_hash", |out| {
                push_hex(out, &user_hash(self.settings.seed, user));
            }),
        };
    }

    /// The field of exposure.v1 and outcome.v1 that holds a hash, a raw id, or
    /// the request's id for nobody.
    fn any_user(&self, object: &mut Object<'_>) {
        let event = self.event;
        object.quoted("user_id", |out| match event.who {
            Who::User(user) => push_numbered(out, "user-", user),
            Who::Anonymous(user) => push_numbered(out, "anon-", user),
            Who::UserHash(user) => push_hex(out, &user_hash(self.settings.seed, user)),
            Who::Nobody => push_request(out, event.request.expect("these formats have one")),
        });
    }

    fn session(&self, object: &mut Object<'_>) {
        match self.event.session {
            Session::Hash(visit) => {
                object.quoted("session_id_hash", |out| {
                    push_hex(out, &session_hash(self.settings.seed, visit));
                });
            }
            _ => self.session_id(object),
        }
    }

    fn session_id(&self, object: &mut Object<'_>) {
        object_session(object, self.settings.seed, self.event.session);
    }

    fn experiment(&self, object: &mut Object<'_>) {
        if let Some((experiment, variant)) = self.event.experiment {
            let mut inner = Object::open(object.name("experiment"));
            inner.quoted("id", |out| {
                push_numbered(out, "exp-", u32::from(experiment))
            });
            inner.plain("variant", variant_name(variant));
            inner.close();
        }
    }

    fn versions(&self, object: &mut Object<'_>) {
        let Some(version) = self.event.version else {
            return;
        };
        object.quoted("algo_version", |out| {
            push_numbered(out, "algo-", u32::from(version));
        });
        // Some copy the ETag as HTTP has it.
        object.quoted("config_version", |out| match version % 16 {
            0 => {
                push_numbered(out, "W/\\\"cfg-", u32::from(version));
                out.extend_from_slice(b"\\\"");
            }
            _ => push_numbered(out, "cfg-", u32::from(version)),
        });
        object.quoted("rules_version", |out| {
            push_numbered(out, "rules-", u32::from(version));
        });
    }

    fn context(&self, object: &mut Object<'_>) {
        if let Some(context) = self.event.context {
            let mut inner = Object::open(object.name("context"));
            inner
                .plain("locale", ["de-DE", "en-GB"][usize::from(context % 2)])
                .plain("device", device(context))
                .plain("country", ["DE", "GB"][usize::from(context % 2)]);
            inner.close();
        }
    }

    fn items(&self, object: &mut Object<'_>) {
        let event = self.event;
        if event.fault == Some(Fault::Wrong) {
            object.plain("items", "none");
            return;
        }
        let out = object.name("items");
        out.push(b'[');
        for (at, shown) in event.items.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"item_id\":\"");
            push_item_json(out, shown.item);
            out.extend_from_slice(b"\",\"rank\":");
            push_number(out, u64::try_from(at + 1).expect("lists are short"));
            if event.format != Format::EvalV1 {
                out.extend_from_slice(b",\"score\":0.");
                push_padded(out, u64::from(shown.score), 3);
            }
            out.push(b'}');
        }
        out.push(b']');
    }

    /// What was done, to what, and what it was worth.
    fn action(&self, object: &mut Object<'_>, event_type: &str) {
        let event = self.event;
        let event_type = match event.fault {
            Some(Fault::Wrong) => "hover",
            _ => event_type,
        };
        object.plain("event_type", event_type);
        if event.fault != Some(Fault::Missing) {
            object.quoted("item_id", |out| push_item_json(out, event.item));
        }
        if let Some(millionths) = event.value {
            push_value(object.name("value"), millionths);
        }
    }
}

/// A session's raw id or hash, in the one field that takes both.
fn object_session(object: &mut Object<'_>, seed: u64, session: Session) {
    match session {
        Session::None => {}
        Session::Raw(visit) => {
            object.quoted("session_id", |out| push_numbered(out, "session-", visit));
        }
        Session::Hash(visit) => {
            object.quoted("session_id", |out| {
                push_hex(out, &session_hash(seed, visit))
            });
        }
    }
}

/// A decimal number with the digits that it needs.
fn push_value(out: &mut Vec<u8>, millionths: u64) {
    push_number(out, millionths / 1_000_000);
    let rest = millionths % 1_000_000;
    if rest > 0 {
        out.push(b'.');
        push_padded(out, rest, 6);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// The name of an experiment's variant.
pub(crate) fn variant_name(variant: u8) -> &'static str {
    ["control", "treatment"][usize::from(variant % 2)]
}

/// The name of a device; some need an escape.
pub(crate) fn device(context: u8) -> &'static str {
    ["web", "ios", "android", "tv 55\\\" – größer"][usize::from(context / 2 % 4)]
}
