//! Who and which: event ids, request ids, pseudonyms.
//!
//! The rules are those of the suite (contract §3), so that rows written here
//! join with what its other components write.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// Replaces raw user, anonymous and session ids by keyed hashes.
///
/// HMAC-SHA256 with the suite's salt over the trimmed id: the same person has
/// the same pseudonym in every component that knows the salt.
#[derive(Clone)]
pub struct Pseudonymizer {
    prepared: Hmac<Sha256>,
}

impl std::fmt::Debug for Pseudonymizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonymizer(..)")
    }
}

/// The hash of a raw id, as stored in `user_key`.
pub type Pseudonym = [u8; 32];

impl Pseudonymizer {
    /// Prepares the salt once; hashing then costs 0.1 µs an id.
    pub fn new(salt: &[u8]) -> Self {
        Self {
            prepared: Hmac::new_from_slice(salt).expect("HMAC takes keys of any length"),
        }
    }

    /// The pseudonym of a raw id; `None` for one that is blank.
    pub fn hash(&self, raw: &str) -> Option<Pseudonym> {
        let trimmed = raw.trim();
        if trimmed.is_empty() {
            return None;
        }
        let mut mac = self.prepared.clone();
        mac.update(trimmed.as_bytes());
        Some(mac.finalize().into_bytes().into())
    }
}

/// A pseudonym written as 64 hex digits, upper or lower case.
pub fn parse_pseudonym(text: &str) -> Option<Pseudonym> {
    let mut pseudonym = [0; 32];
    hex::decode_to_slice(text, &mut pseudonym).ok()?;
    Some(pseudonym)
}

/// The id of an event as its sender named it: a UUID is kept, any other string
/// becomes a UUIDv5 in the tenant's namespace.
pub fn event_id(tenant: &Uuid, named: &str) -> Uuid {
    Uuid::try_parse(named).unwrap_or_else(|_| Uuid::new_v5(tenant, named.as_bytes()))
}

/// The id of an event in a format that has no field for one.
///
/// Made from the event's own text, so that posting a log file twice stores it
/// once. The NUL keeps these names apart from all that [`event_id`] is given:
/// no accepted string contains one.
pub fn event_id_of_text<'a>(
    tenant: &Uuid,
    format: &str,
    texts: impl IntoIterator<Item = &'a str>,
) -> Uuid {
    let mut name = Vec::from(format.as_bytes());
    for text in texts {
        name.push(0);
        name.extend_from_slice(text.as_bytes());
    }
    Uuid::new_v5(tenant, &name)
}

/// A recommendation request's id, which joins exposures with interactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId<'a> {
    /// The column's value.
    pub uuid: Uuid,
    /// As the sender wrote it.
    pub text: Cow<'a, str>,
    /// Whether `text` says more than `uuid` does.
    pub derived: bool,
}

impl<'a> RequestId<'a> {
    /// A UUID is kept; other strings become a UUIDv5 in the OID namespace,
    /// which is the suite's own convention.
    pub fn parse(text: Cow<'a, str>) -> Self {
        match Uuid::try_parse(&text) {
            Ok(uuid) => Self {
                uuid,
                text,
                derived: false,
            },
            Err(_) => Self {
                uuid: Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()),
                text,
                derived: true,
            },
        }
    }

    /// The raw string, where the column cannot hold it.
    pub fn raw(&self) -> Option<&str> {
        self.derived.then_some(&*self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonyms_match_the_suites_vector() {
        let salted = Pseudonymizer::new(b"salt");
        let expected = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";
        assert_eq!(hex::encode(salted.hash("user").unwrap()), expected);
        assert_eq!(hex::encode(salted.hash("  user\n").unwrap()), expected);
        assert_eq!(salted.hash("  "), None);
    }

    #[test]
    fn request_ids_match_the_suites_vectors() {
        for (text, uuid) in [
            ("r1", "d01a42ab-5bfd-532a-a2bb-240ba2e5bc12"),
            ("req-1", "212368a7-0138-518e-aa15-c4ccfd6834b6"),
        ] {
            let id = RequestId::parse(text.into());
            assert_eq!(id.uuid.to_string(), uuid);
            assert_eq!(id.raw(), Some(text));
        }
        let kept = RequestId::parse("d01a42ab-5bfd-532a-a2bb-240ba2e5bc12".into());
        assert_eq!(kept.raw(), None);
    }

    #[test]
    fn an_event_id_is_scoped_to_its_tenant_unless_it_is_a_uuid() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_ne!(event_id(&a, "e-1"), event_id(&b, "e-1"));
        let uuid = "0190163d-8694-739b-aea5-966c26f8ad91";
        assert_eq!(event_id(&a, uuid), event_id(&b, uuid));
    }
}
