//! Lists of recsys-pipelines, which come as one line for each item.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::event::body::RawEvent;
use crate::event::context::{Context, named_id};
use crate::event::exposure::{Experiment, Exposure, Versions, required_surface};
use crate::event::field::{Names, opt_text, required};
use crate::event::format::Format;
use crate::event::identity::{Pseudonym, RequestId};
use crate::event::items;
use crate::event::json::write::ObjectWriter;
use crate::event::meta::Meta;
use crate::event::rejection::{Code, Rejection};
use crate::event::row::Key;
use crate::event::subject::{self, HexText, Subject};
use crate::event::time::Micros;
use crate::event::unknown;
use crate::event::warning::Notes;

use super::name::Name;

/// A line without a request id joins a list within this time of its first or last line.
const SAME_LIST_US: i64 = 1_000_000;

/// The lines of recsys-pipelines' exposure.v1 in one body, grouped into the lists that were shown.
#[derive(Debug, Default)]
pub(in crate::event) struct Grouping<'a> {
    groups: Vec<Group<'a>>,
    by_list: HashMap<List<'a>, usize>,
    /// Bytes of memory, estimated.
    held_bytes: usize,
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
pub(in crate::event) struct Group<'a> {
    list: List<'a>,
    lines: Vec<Line<'a>>,
    first: Micros,
    last: Micros,
}

#[derive(Debug)]
struct Line<'a> {
    index: u32,
    name: LineName<'a>,
    /// Its item with its fields that are not known, scrubbed, as a JSON object; empty if there are none.
    extra: String,
}

/// What names a line of a list, in the order in which lines are compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct LineName<'a> {
    event_id: Option<Uuid>,
    at: Micros,
    item_id: Cow<'a, str>,
    rank: Option<i32>,
}

impl<'a> Grouping<'a> {
    /// Whether there are no lines.
    pub(in crate::event) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Bytes of memory that the lines take, estimated.
    pub(in crate::event) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Adds a line to its list.
    pub(in crate::event) fn add(
        &mut self,
        index: u32,
        event: &RawEvent<'a, '_>,
        context: &Context<'_>,
        notes: &mut Notes<'a>,
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
            tenant_id,
            event_id,
        ] = unknown::pick(
            event,
            const {
                &Names::new([
                    "v", "ts", "tenant", "surface", "session_id", "item_id", "user_id",
                    "request_id", "rank", "tenant_id", "event_id",
                ])
            },
            context,
            notes,
            &mut extra,
        )?;
        if v.is_some_and(|v| v.raw != "1") {
            return Err(Rejection::of(Code::UnsupportedFormat, "v", "must be 1"));
        }
        let at = context.instant(required(ts, "ts")?, notes)?;
        let surface = required_surface(surface)?;
        let session = subject::pseudonym_or_raw(session_id, None, context)?;
        let user = match user_id {
            Some(value) => context.pseudonymizer.hash(&value.string()?),
            None => None,
        };
        let list = List {
            tenant: context.tenant_of(&[tenant_id, tenant])?,
            surface,
            session: required(session, "session_id")?,
            user,
            request_id: opt_text(request_id)?,
        };
        context.check_surface(&list.tenant, Some(&list.surface))?;
        let name = LineName {
            event_id: named_id(&list.tenant, event_id)?,
            at,
            item_id: items::item_id(item_id)?,
            rank: rank.map(|value| value.int(0)).transpose()?,
        };
        let mut kept = String::new();
        if !extra.is_empty() {
            let mut object = ObjectWriter::open(&mut kept);
            object.str("item_id", &name.item_id);
            subject::push_members(&mut object, extra, context.pseudonymizer)?;
            object.close();
        }
        let line = Line {
            index,
            name,
            extra: kept,
        };
        self.held_bytes += size_of::<Line<'_>>() + line.extra.capacity();
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
                self.held_bytes += 2 * size_of::<Group<'_>>();
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

    pub(in crate::event) fn into_groups(self) -> impl Iterator<Item = Group<'a>> {
        self.groups.into_iter()
    }
}

impl<'a> Group<'a> {
    /// The places of the list's lines in the body.
    pub(in crate::event) fn lines(&self) -> impl Iterator<Item = u32> {
        self.lines.iter().map(|line| line.index)
    }

    fn is_close_to(&self, at: Micros) -> bool {
        at.0 >= self.first.0 - SAME_LIST_US && at.0 <= self.last.0 + SAME_LIST_US
    }

    /// The list as one exposure.
    pub(in crate::event) fn exposure(&self, context: &Context<'_>) -> Exposure<'a> {
        let list = &self.list;
        let session = HexText::of(&list.session);
        let request_id = RequestId::parse(match &list.request_id {
            Some(named) => named.clone(),
            None => format!("{}/{}/{}", session.as_str(), list.surface, self.first.0).into(),
        });
        let mut response = String::from("{\"items\":[");
        let mut extra = String::from("[");
        let mut names = HashSet::with_capacity(self.lines.len());
        for line in &self.lines {
            let place = names.len();
            // A line that stands twice is one item.
            if !names.insert(&line.name) {
                continue;
            }
            if place > 0 {
                response.push(',');
            }
            let rank = line.name.rank;
            let rank = rank.map_or_else(|| (place + 1).to_string(), |rank| rank.to_string());
            let mut item = ObjectWriter::open(&mut response);
            item.str("item_id", &line.name.item_id).raw("rank", &rank);
            item.close();
            if !line.extra.is_empty() {
                if extra.len() > 1 {
                    extra.push(',');
                }
                extra.push_str(&line.extra);
            }
        }
        response.push_str("]}");
        extra.push(']');
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
        // A request id that was made up here is not the client's raw one.
        let named = list.request_id.as_ref().map(|_| &request_id);
        let meta = meta
            .text(
                format,
                true,
                named,
                &subject,
                context,
                &mut Notes::default(),
            )
            .expect("only a client's own meta can be wrong, and lines have none");
        let name = Name {
            format,
            request_id: named,
            occurred_at: self.first,
            surface: Some(&list.surface),
            subject: &subject,
        };
        let event_id = shared_id(&names).unwrap_or_else(|| {
            let mut sorted: Vec<_> = names.into_iter().collect();
            sorted.sort_unstable();
            let parts: Vec<String> = sorted.into_iter().flat_map(LineName::parts).collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            name.id(&list.tenant, &parts)
        });
        Exposure {
            key: Key {
                tenant: list.tenant,
                occurred_at: self.first,
                event_id,
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

/// The id that all lines of a list carry, if it is one.
fn shared_id(names: &HashSet<&LineName<'_>>) -> Option<Uuid> {
    let mut ids = names.iter().map(|name| name.event_id);
    let first = ids.next()??;
    ids.all(|id| id == Some(first)).then_some(first)
}

impl LineName<'_> {
    /// The parts that the line adds to the name of its list. A list that comes in two pieces is two
    /// events: with the list's own fields alone, the second would be a duplicate of the first.
    fn parts(&self) -> [String; 4] {
        let text = |part: Option<String>| part.unwrap_or_default();
        [
            text(self.event_id.map(|id| id.to_string())),
            self.at.0.to_string(),
            self.item_id.to_string(),
            text(self.rank.map(|rank| rank.to_string())),
        ]
    }
}
