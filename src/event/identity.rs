//! Event ids, request ids and pseudonyms.
//!
//! The rules are those of the suite (contract §3), so that rows written here join with what its
//! other components write.

use std::borrow::Cow;

use hmac::{Hmac, KeyInit, Mac};
use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Replaces raw user, anonymous and session ids by keyed hashes.
///
/// HMAC-SHA256 with the suite's salt over the trimmed id: a person has the same pseudonym in every
/// component that knows the salt.
#[derive(Clone)]
pub struct Pseudonymizer {
    short: ShortHmac,
    any: Hmac<Sha256>,
}

impl std::fmt::Debug for Pseudonymizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonymizer(..)")
    }
}

/// The hash of a raw id, as stored in `user_key`.
pub type Pseudonym = [u8; 32];

impl Pseudonymizer {
    /// Prepares the salt once; hashing an id then takes 0.1 µs.
    pub fn new(salt: &[u8]) -> Self {
        Self {
            short: ShortHmac::new(salt),
            any: Hmac::new_from_slice(salt).expect("HMAC takes keys of any length"),
        }
    }

    /// The pseudonym of a raw id; `None` if it is blank.
    pub fn hash(&self, raw: &str) -> Option<Pseudonym> {
        let trimmed = trimmed(raw);
        if trimmed.is_empty() {
            return None;
        }
        let short = self.short.hash(trimmed.as_bytes());
        Some(short.unwrap_or_else(|| {
            let mut mac = self.any.clone();
            mac.update(trimmed.as_bytes());
            mac.finalize().into_bytes().into()
        }))
    }
}

/// HMAC-SHA256 of messages that fit one block, as nearly all ids do.
///
/// Copying the general type's buffers and padding through them costs as much as the hash itself, so
/// both blocks are laid out here. RFC 2104: the inner hash covers a block of the key and the
/// message; the outer one covers another block of the key and the inner hash.
#[derive(Clone)]
struct ShortHmac {
    /// SHA-256's state after the inner block of the key.
    inner: [u32; 8],
    /// SHA-256's state after the outer block of the key.
    outer: [u32; 8],
}

/// Bytes of a SHA-256 block.
const BLOCK: usize = 64;

/// SHA-256's initial state (FIPS 180-4, 5.3.3).
const SHA256_START: [u32; 8] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab,
    0x5be0_cd19,
];

impl ShortHmac {
    /// Longest message that leaves room for its padding: one byte, and a length of eight.
    const BYTES_MAX: usize = BLOCK - 9;

    fn new(key: &[u8]) -> Self {
        let mut block = [0; BLOCK];
        match block.get_mut(..key.len()) {
            Some(whole) => whole.copy_from_slice(key),
            None => block[..32].copy_from_slice(&Sha256::digest(key)),
        }
        let state_behind = |pad: u8| {
            let mut state = SHA256_START;
            compress256(&mut state, &[block.map(|byte| byte ^ pad)]);
            state
        };
        Self {
            inner: state_behind(0x36),
            outer: state_behind(0x5c),
        }
    }

    fn hash(&self, message: &[u8]) -> Option<Pseudonym> {
        let length = message.len();
        if length > Self::BYTES_MAX {
            return None;
        }
        let mut block = [0; BLOCK];
        block[..length].copy_from_slice(message);
        let inner = bytes_of(last_block(self.inner, block, length));
        let mut block = [0; BLOCK];
        block[..32].copy_from_slice(&inner);
        Some(bytes_of(last_block(self.outer, block, 32)))
    }
}

/// The state after a second and last block, which holds `length` bytes of message.
fn last_block(mut state: [u32; 8], mut block: [u8; BLOCK], length: usize) -> [u32; 8] {
    block[length] = 0x80;
    let bits = (BLOCK + length) as u64 * 8;
    block[BLOCK - 8..].copy_from_slice(&bits.to_be_bytes());
    compress256(&mut state, &[block]);
    state
}

fn bytes_of(state: [u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (four, word) in bytes.chunks_exact_mut(4).zip(state) {
        four.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// A text without surrounding white space.
fn trimmed(text: &str) -> &str {
    // A text that begins and ends with a visible ASCII character needs no Unicode check.
    match text.as_bytes() {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => text,
        _ => text.trim(),
    }
}

/// Parses a pseudonym of 64 hex digits, in upper or lower case.
pub fn parse_pseudonym(text: &str) -> Option<Pseudonym> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    // Without an early exit for a bad digit, so that the compiler can use vectors.
    let nibbles = digits.map(|digit| {
        let decimal = digit.wrapping_sub(b'0');
        let letter = (digit | 0x20).wrapping_sub(b'a');
        match (decimal < 10, letter < 6) {
            (true, _) => decimal,
            (_, true) => letter + 10,
            _ => 0x10,
        }
    });
    let are_digits = nibbles.iter().fold(0, |all, nibble| all | nibble) < 0x10;
    are_digits.then(|| std::array::from_fn(|at| nibbles[2 * at] << 4 | nibbles[2 * at + 1]))
}

/// The id of an event that its sender named: a UUID is kept, any other string becomes a UUIDv5 in
/// the tenant's namespace.
pub fn event_id(tenant: &Uuid, named: &str) -> Uuid {
    Uuid::try_parse(named).unwrap_or_else(|_| Uuid::new_v5(tenant, named.as_bytes()))
}

/// The id of an event that has none, from the parts that name it.
///
/// A NUL stands between the parts, so no two lists of them make one name, and none of these names is
/// one that [`event_id`] is given: no accepted string contains a NUL.
pub fn event_id_of_parts<'a>(
    tenant: &Uuid,
    format: &str,
    parts: impl IntoIterator<Item = &'a str>,
) -> Uuid {
    let mut name = Vec::with_capacity(256);
    name.extend_from_slice(format.as_bytes());
    for part in parts {
        name.push(0);
        name.extend_from_slice(part.as_bytes());
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
    /// Whether `text` is not a UUID, so that `uuid` is derived from it.
    pub derived: bool,
}

impl<'a> RequestId<'a> {
    /// Keeps a UUID. Other strings become a UUIDv5 in the OID namespace, as in the rest of the
    /// suite.
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

    /// The sender's string, if the column cannot hold it.
    pub fn raw(&self) -> Option<&str> {
        self.derived.then_some(&*self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        /// The general type defines what HMAC is.
        #[test]
        fn short_ids_hash_as_long_ones_do(
            salt in proptest::collection::vec(any::<u8>(), 0..200),
            id in "[!-~é]{1,70}",
        ) {
            let mut mac = Hmac::<Sha256>::new_from_slice(&salt).unwrap();
            mac.update(id.as_bytes());
            let expected: Pseudonym = mac.finalize().into_bytes().into();
            prop_assert_eq!(Pseudonymizer::new(&salt).hash(&id), Some(expected));
        }

        #[test]
        fn white_space_around_an_id_is_no_part_of_it(text in "[\\s\u{1c}a\u{85}é]{0,6}") {
            prop_assert_eq!(trimmed(&text), text.trim());
        }
    }
}
