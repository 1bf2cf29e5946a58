//! The members of a line's object that say what it is, found in one pass.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The names that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    EventId,
    OccurredAt,
    EventType,
    Items,
    Ts,
    Timestamp,
    SchemaVersion,
    V,
    ExperimentId,
    Variant,
    Tenant,
    TenantId,
    Surface,
    SessionId,
    UserId,
    RequestId,
}

const NAMES: [(&str, Name); 16] = [
    ("event_id", Name::EventId),
    ("occurred_at", Name::OccurredAt),
    ("event_type", Name::EventType),
    ("items", Name::Items),
    ("ts", Name::Ts),
    ("timestamp", Name::Timestamp),
    ("schema_version", Name::SchemaVersion),
    ("v", Name::V),
    ("experiment_id", Name::ExperimentId),
    ("variant", Name::Variant),
    ("tenant", Name::Tenant),
    ("tenant_id", Name::TenantId),
    ("surface", Name::Surface),
    ("session_id", Name::SessionId),
    ("user_id", Name::UserId),
    ("request_id", Name::RequestId),
];

/// What makes a list of recsys-pipelines.
const LIST: [Name; 6] = [
    Name::Tenant,
    Name::TenantId,
    Name::Surface,
    Name::SessionId,
    Name::UserId,
    Name::RequestId,
];

/// The values of those names, as JSON text; the last one where a name stands twice.
#[derive(Debug, Default)]
pub(super) struct Fields<'l> {
    pub(super) count: usize,
    values: [Option<&'l str>; NAMES.len()],
}

impl<'l> Fields<'l> {
    pub(super) fn raw(&self, name: Name) -> Option<&'l str> {
        self.values[name as usize]
    }

    /// A null counts as absent.
    pub(super) fn get(&self, name: Name) -> Option<&'l str> {
        self.raw(name).filter(|raw| *raw != "null")
    }

    /// What makes the list that a line of recsys-pipelines is of, hashed.
    pub(super) fn list(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for name in LIST {
            self.get(name).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl<'de: 'l, 'l> Deserialize<'de> for Fields<'l> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(Key(name)) = map.next_key::<Key>()? {
                    let value: &RawValue = map.next_value()?;
                    fields.count += 1;
                    if let Some(name) = name {
                        fields.values[name as usize] = Some(value.get());
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

struct Key(Option<Name>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, text: &str) -> Result<Key, E> {
                let known = NAMES.iter().find(|(name, _)| *name == text);
                Ok(Key(known.map(|(_, name)| *name)))
            }
        }

        deserializer.deserialize_str(Text)
    }
}
