//! The settings of one key or one tenant: limits, origins, event names and surfaces.
//!
//! They are JSON documents in `ingest_` tables, see `docs/decisions/0014-callers.md`. Pure: knows
//! nothing of how they are stored or enforced.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::num::NonZeroU32;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// What a holder may send. An absent rate is limited by the next wider settings only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Events a second, in the long run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<NonZeroU32>,
    /// Events at once, after a pause; without it, those of one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_burst: Option<NonZeroU32>,
    /// Bytes of bodies a second, in the long run, after decompression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU32>,
    /// Bytes at once, after a pause; without it, those of one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_burst: Option<NonZeroU32>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The settings of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// What the key may send.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// The origins of web pages that may use the key; absent: as the tenant's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origins: Option<Origins>,
}

/// The settings of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantSettings {
    /// What all keys of the tenant may send together.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// The origins for keys that name none; absent: as the service's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origins: Option<Origins>,
    /// From the names that other collectors' clients send to event types.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "one_type_each"
    )]
    pub event_names: BTreeMap<String, String>,
    /// The surfaces that events may name; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surfaces: Option<Vec<String>>,
}

/// Reads a map of event names in which no name has two types: the library keeps the last of them.
fn one_type_each<'de, D>(from: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of event names with a type each")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut names = BTreeMap::new();
            while let Some((name, event_type)) = map.next_entry::<String, String>()? {
                match names.entry(name) {
                    Entry::Vacant(place) => {
                        place.insert(event_type);
                    }
                    Entry::Occupied(known) if *known.get() == event_type => {}
                    Entry::Occupied(known) => {
                        let two = two_types(known.key(), known.get(), &event_type);
                        return Err(A::Error::custom(two));
                    }
                }
            }
            Ok(names)
        }
    }

    from.deserialize_map(Names)
}

/// Says that an event name was given two types.
pub(crate) fn two_types(name: &str, one: &str, other: &str) -> String {
    format!("'{name}' is mapped to '{one}' and to '{other}'; an event name has one type")
}

/// A list of origins of web pages, as the `Origin` header names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Origins(Vec<Origin>);

/// One entry of a list of origins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// `*`.
    Any,
    /// One origin, or `null`, in lower case.
    One(String),
    /// `https://*.shop.example`: every subdomain, at any depth, and not the domain itself.
    Subdomains {
        /// `https://`.
        scheme: String,
        /// `.shop.example`, with a port if there is one.
        domain: String,
    },
}

/// Why a list of origins was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not an origin; one is a scheme, a host and a port where it is not the usual one, \
     such as https://shop.example, https://*.shop.example or http://localhost:3000, \
     and there are * (any) and null{hint}",
    hint = punycode_hint(.0)
)]
pub struct OriginError(String);

/// What is said of a name with letters beyond ASCII.
fn punycode_hint(entry: &str) -> &'static str {
    match entry.is_ascii() {
        true => "",
        false => {
            "; write the name as browsers send it, in punycode: https://xn--bcher-kva.example for https://bücher.example"
        }
    }
}

impl Origins {
    /// Parses a list.
    ///
    /// # Errors
    ///
    /// [`OriginError`], with the entry that is not an origin.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, OriginError> {
        let parsed: Result<_, _> = entries.into_iter().map(Origin::parse).collect();
        parsed.map(Self)
    }

    /// Whether a page of `origin`, the value of an `Origin` header, is in the list.
    #[must_use]
    pub fn allow(&self, origin: &str) -> bool {
        self.0.iter().any(|entry| entry.matches(origin))
    }

    /// Whether no page at all is in the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<String>> for Origins {
    type Error = OriginError;

    fn try_from(entries: Vec<String>) -> Result<Self, OriginError> {
        Self::parse(entries.iter().map(String::as_str))
    }
}

impl From<Origins> for Vec<String> {
    fn from(origins: Origins) -> Self {
        origins.0.iter().map(Origin::to_string).collect()
    }
}

impl Origin {
    fn parse(entry: &str) -> Result<Self, OriginError> {
        let refused = || OriginError(entry.to_owned());
        let text = entry.trim().to_ascii_lowercase();
        match &*text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::One(text)),
            _ => {}
        }
        let (scheme, host) = text.split_once("://").ok_or_else(refused)?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let wild = host.strip_prefix("*.");
        // A browser leaves out the port that is usual for the scheme.
        let usual = match scheme {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        let rest = wild.unwrap_or(host);
        let rest = match usual {
            "" => rest,
            usual => rest.strip_suffix(usual).unwrap_or(rest),
        };
        if !is_scheme || !is_host_and_port(rest) {
            return Err(refused());
        }
        let scheme = format!("{scheme}://");
        Ok(match wild {
            Some(_) => Self::Subdomains {
                scheme,
                domain: format!(".{rest}"),
            },
            None => Self::One(format!("{scheme}{rest}")),
        })
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one.eq_ignore_ascii_case(origin),
            Self::Subdomains { scheme, domain } => {
                let origin = origin.to_ascii_lowercase();
                origin
                    .strip_prefix(scheme.as_str())
                    .and_then(|host| host.strip_suffix(domain.as_str()))
                    .is_some_and(|labels| !labels.is_empty() && is_host_and_port(labels))
            }
        }
    }
}

/// Whether `text` is a host with an optional port, and no path, user or wildcard.
fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_ip6 = host.starts_with('[')
        && host.ends_with(']')
        && host[1..host.len() - 1]
            .parse::<std::net::Ipv6Addr>()
            .is_ok();
    let is_name = !host.is_empty()
        && host
            .split('.')
            .all(|label| !label.is_empty() && label.chars().all(is_host_char));
    (is_ip6 || is_name) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_host_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::One(one) => f.write_str(one),
            Self::Subdomains { scheme, domain } => write!(f, "{scheme}*{domain}"),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        let list = Origins::parse([
            "https://Shop.example", "https://*.shop.example", "http://localhost:3000",
            "https://a.example:443", "capacitor://localhost", "http://[::1]:8000",
        ])
        .unwrap();
        for origin in [
            "https://shop.example",
            "https://SHOP.example",
            "https://www.shop.example",
            "https://a.b.shop.example",
            "http://localhost:3000",
            "https://a.example",
            "capacitor://localhost",
            "http://[::1]:8000",
        ] {
            assert!(list.allow(origin), "{origin}");
        }
        for origin in [
            "http://shop.example",
            "https://shop.example:8443",
            "https://evilshop.example",
            "https://shop.example.evil.example",
            "https://evil.example/.shop.example",
            "https://evil.example#.shop.example",
            "https://.shop.example",
            "http://localhost",
            "null",
            "",
        ] {
            assert!(!list.allow(origin), "{origin}");
        }
        assert!(Origins::parse(["null"]).unwrap().allow("null"));
        assert!(Origins::parse(["*"]).unwrap().allow("null"));
        assert!(!Origins::parse([]).unwrap().allow("https://shop.example"));
    }

    #[test]
    fn what_is_not_an_origin_is_refused_by_name() {
        for entry in [
            "shop.example",
            "https://shop.example/",
            "https://shop.example/path",
            "https://",
            "https://*",
            "https://*.",
            "https://a.*.example",
            "https://user@shop.example",
            "https://shop.example:0",
            "https://shop.example:99999",
            "https://shop example",
            "",
        ] {
            let refused = Origins::parse([entry]).unwrap_err().to_string();
            assert!(refused.contains(&format!("'{entry}'")), "{refused}");
            assert!(!refused.contains("punycode"), "{refused}");
        }
        for entry in ["https://bücher.example", "https://*.läden.example"] {
            let refused = Origins::parse([entry]).unwrap_err().to_string();
            assert!(refused.contains("in punycode: https://xn--"), "{refused}");
        }
        assert!(Origins::parse(["https://xn--bcher-kva.example"]).is_ok());
    }

    #[test]
    fn a_document_is_read_and_written_alike_and_unknown_members_are_refused() {
        let text = r#"{"limits":{"events_per_second":500,"events_burst":2000},"origins":["https://*.shop.example","*"],"event_names":{"Product Viewed":"view"},"surfaces":["home"]}"#;
        let read: TenantSettings = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(
            serde_json::to_string(&TenantSettings::default()).unwrap(),
            "{}"
        );
        for text in [
            r#"{"limit":{}}"#,
            r#"{"limits":{"events_per_second":0}}"#,
            r#"{"limits":{"per_second":1}}"#,
            r#"{"origins":["shop"]}"#,
        ] {
            assert!(serde_json::from_str::<KeySettings>(text).is_err(), "{text}");
        }
    }
}
