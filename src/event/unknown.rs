//! Fields that an event's format does not know. They are kept in `meta.extra`, told in the answer,
//! and compared with fields for the same thing: of two that differ, choosing one would be a guess.
//!
//! Ordinary events have none, and pay nothing.

use std::borrow::Cow;
use std::collections::HashSet;

use super::body::RawEvent;
use super::context::Context;
use super::field::{self, Names, Value};
use super::identity::{self, Pseudonym};
use super::json::Field;
use super::json::string::as_str;
use super::json::walk;
use super::numeric::Decimal;
use super::rejection::{Code, Rejection};
use super::subject;
use super::time::Micros;
use super::warning::{Notes, WarningCode, beginning_of};

/// How values of one thing are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// RFC 3339, by instant.
    Time,
    /// Raw ids and their hashes, by pseudonym.
    Id,
    /// By value.
    Number,
    /// Without white space around it.
    Text,
    /// The same, without the quotes of HTTP.
    Etag,
}

/// Names for one thing, over all formats. The items of an exposure are kept as they are, and may have
/// a `rank` from 1 and a `position` from 0. Where a format knows two names itself (`tenant_id` and
/// `tenant`, a raw id and its hash), the reader of that field compares them.
struct Synonyms {
    kind: Kind,
    /// At the top of an event.
    names: &'static [&'static str],
    /// In one of its objects: its name, and the member's.
    members: &'static [(&'static str, &'static str)],
}

const SYNONYMS: [Synonyms; 12] = [
    Synonyms {
        kind: Kind::Time,
        names: &["occurred_at", "ts", "timestamp"],
        members: &[],
    },
    Synonyms {
        kind: Kind::Id,
        names: &["user_id", "user_id_hash"],
        members: &[("subject", "user_id"), ("subject", "user_id_hash")],
    },
    Synonyms {
        kind: Kind::Id,
        names: &["anonymous_id", "anonymous_id_hash"],
        members: &[
            ("subject", "anonymous_id"),
            ("subject", "anonymous_id_hash"),
        ],
    },
    Synonyms {
        kind: Kind::Id,
        names: &["session_id", "session_id_hash"],
        members: &[("subject", "session_id"), ("subject", "session_id_hash")],
    },
    Synonyms {
        kind: Kind::Number,
        names: &["position", "rank"],
        members: &[],
    },
    Synonyms {
        kind: Kind::Text,
        names: &["surface"],
        members: &[("context", "surface")],
    },
    Synonyms {
        kind: Kind::Text,
        names: &["segment"],
        members: &[("context", "segment")],
    },
    Synonyms {
        kind: Kind::Text,
        names: &["algo_version"],
        members: &[("context", "algo_version")],
    },
    Synonyms {
        kind: Kind::Etag,
        names: &["config_version", "config_etag"],
        members: &[("context", "config_version")],
    },
    Synonyms {
        kind: Kind::Etag,
        names: &["rules_version", "rules_etag"],
        members: &[("context", "rules_version")],
    },
    Synonyms {
        kind: Kind::Text,
        names: &["experiment_id"],
        members: &[("experiment", "id"), ("context", "experiment_id")],
    },
    Synonyms {
        kind: Kind::Text,
        names: &["experiment_variant"],
        members: &[("experiment", "variant"), ("context", "experiment_variant")],
    },
];

/// Picks the fields `names` of an event; the others go to `extra`, and are looked at.
#[inline]
pub(super) fn pick<'a, 'b, const N: usize>(
    event: &RawEvent<'a, 'b>,
    names: &Names<N>,
    context: &Context<'_>,
    notes: &mut Notes<'a>,
    extra: &mut Vec<&'b Field<'a>>,
) -> Result<[Option<Value<'a>>; N], Rejection> {
    let mut values = [None; N];
    field::pick(event, names, &mut values, extra)?;
    if !extra.is_empty() {
        check(extra, &values, context, notes)?;
    }
    Ok(values)
}

/// Looks at the fields that a format does not know, given the values of those that it knows.
#[cold]
fn check<'a>(
    unknown: &[&Field<'a>],
    known: &[Option<Value<'a>>],
    context: &Context<'_>,
    notes: &mut Notes<'a>,
) -> Result<(), Rejection> {
    if context.strict
        && let Some(field) = unknown.first()
    {
        return Err(refused(&field.key));
    }
    note(notes, unknown.iter().copied(), |field| field.key.clone());
    // Unknown fields that mean something, each at most once: so there are few comparisons, however
    // many fields there are.
    let mut seen: Vec<&Field<'_>> = Vec::new();
    for field in unknown {
        let Some(synonyms) = Synonyms::of(&field.key).filter(|_| field.raw != "null") else {
            continue;
        };
        if seen.iter().any(|other| other.key == field.key) {
            return Err(Rejection::of(
                Code::DuplicateField,
                field.key.clone().into_owned(),
                "the field stands twice",
            ));
        }
        if synonyms.kind == Kind::Id {
            check_hash(field)?;
        }
        // Of names that the format does not know, it chooses none. Ids are compared all the same:
        // they meet once they are hashed.
        let others = seen
            .iter()
            .filter(|other| synonyms.kind == Kind::Id && synonyms.has(&other.key));
        let others = others.map(|other| (&*other.key, other.raw));
        let values = known.iter().flatten();
        let named = values.clone().filter(|value| synonyms.has(value.name));
        let named = named.map(|value| (value.name, value.raw));
        let this = (&*field.key, field.raw);
        let found = others
            .chain(named)
            .find(|other| synonyms.kind.differ(this, *other, context));
        let found = found.map(|(other, _)| other.to_owned());
        let found = found.or_else(|| synonyms.member_that_differs(this, values, context));
        if let Some(other) = found {
            return Err(Rejection::of(
                Code::ConflictingFields,
                field.key.clone().into_owned(),
                format!(
                    "says something else than {other}, which means the same; send one of the two"
                ),
            ));
        }
        seen.push(*field);
    }
    Ok(())
}

/// Notes the fields of one object that are not known, and those that stand twice in it, by their names for
/// people.
pub(super) fn note<'a, 'b>(
    notes: &mut Notes<'a>,
    unknown: impl IntoIterator<Item = &'b Field<'a>>,
    name: impl Fn(&Field<'a>) -> Cow<'a, str>,
) where
    'a: 'b,
{
    let mut seen = HashSet::new();
    for field in unknown {
        let code = match seen.insert(&*field.key) {
            true => WarningCode::UnknownField,
            false => WarningCode::DuplicateField,
        };
        notes.add(code, name(field));
    }
}

/// The rejection of an event for a field that its format does not know.
pub(super) fn refused(name: &str) -> Rejection {
    Rejection::of(
        Code::UnknownField,
        beginning_of(name).to_owned(),
        "the format does not know this field, and strict=true asks to refuse it; put it into meta, or leave it out",
    )
}

/// The names at the top of an event that mean what `name` does, with itself.
#[cfg(test)]
pub(super) fn synonyms(name: &str) -> &'static [&'static str] {
    let found = Synonyms::of(name).map(|synonyms| synonyms.names);
    found.unwrap_or_default()
}

impl Synonyms {
    fn of(name: &str) -> Option<&'static Self> {
        SYNONYMS.iter().find(|synonyms| synonyms.has(name))
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    /// The path of the first member of an object of the event that says something else.
    fn member_that_differs<'v>(
        &self,
        this: (&str, &str),
        known: impl Iterator<Item = &'v Value<'v>> + Clone,
        context: &Context<'_>,
    ) -> Option<String> {
        self.members.iter().find_map(|(object, member)| {
            let value = known.clone().find(|value| value.name == *object)?;
            let members = walk::members(value.raw)?;
            let found = members.into_iter().find(|field| field.key == *member)?;
            let differs =
                found.raw != "null" && self.kind.differ(this, (member, found.raw), context);
            differs.then(|| format!("{object}.{member}"))
        })
    }
}

impl Kind {
    /// Whether two values, each with its name, are of this kind and say different things.
    fn differ(self, one: (&str, &str), other: (&str, &str), context: &Context<'_>) -> bool {
        fn differ<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            matches!((one, other), (Some(one), Some(other)) if one != other)
        }
        let text = |raw| {
            let text = as_str(raw)?.trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        match self {
            Kind::Time => {
                let time = |raw| Micros::parse(&as_str(raw)?);
                differ(time(one.1), time(other.1))
            }
            Kind::Id => !is_same_id(one, other, context),
            Kind::Number => differ(number(one.1), number(other.1)),
            Kind::Text => differ(text(one.1), text(other.1)),
            Kind::Etag => {
                let etag = |raw| text(raw).map(|text| field::bare_etag(text.into()).into_owned());
                differ(etag(one.1), etag(other.1))
            }
        }
    }
}

/// A number by value; `None` if it is none, or too large to be one of a column.
pub(super) fn number(raw: &str) -> Option<(Decimal, bool)> {
    raw.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        .then(|| Decimal::parse_telling(raw))?
}

/// A hash in a format that has no field for it has to be one all the same: a raw id under that name
/// would be stored as it is.
fn check_hash(field: &Field<'_>) -> Result<(), Rejection> {
    let is_hash = |text: &str| text.trim().is_empty() || identity::parse_pseudonym(text).is_some();
    if field.key.ends_with("_hash") && !as_str(field.raw).is_some_and(|text| is_hash(&text)) {
        return Err(subject::not_a_hash(field.key.clone().into_owned()));
    }
    Ok(())
}

/// Whether two ids, raw or hashed, have the same pseudonym; true if one of them is blank.
fn is_same_id(one: (&str, &str), other: (&str, &str), context: &Context<'_>) -> bool {
    let read = |(name, raw): (&str, &str)| -> [Option<Pseudonym>; 2] {
        let text = as_str(raw).unwrap_or(raw.into());
        // Some formats have a hash under the name of the raw id.
        let hash = identity::parse_pseudonym(&text);
        match name.ends_with("_hash") {
            true => [hash, None],
            false => [context.pseudonymizer.hash(&text), hash],
        }
    };
    let (one, other) = (read(one), read(other));
    let is_blank = |read: &[Option<Pseudonym>; 2]| read.iter().all(Option::is_none);
    is_blank(&one) || is_blank(&other) || one.iter().flatten().any(|id| other.contains(&Some(*id)))
}

#[cfg(test)]
mod tests;
