//! From an API key to its hash in the database.
//!
//! The suite's convention: HMAC-SHA256 of the trimmed key under a pepper, or plain SHA-256 if the
//! pepper is empty. Keys are compared as bytes; hex exists only in SQL. No key is stored here.

use std::fmt;
use std::io;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// The hash that identifies an API key.
///
/// It is looked up in an ordinary map. With a pepper a caller cannot choose a key by its hash, so
/// the time of a lookup reveals nothing useful.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// Hashes API keys under one pepper, and looks them up under the one before it as well.
#[derive(Clone)]
pub struct ApiKeyHasher {
    current: Pepper,
    /// The pepper that is being replaced.
    previous: Option<Pepper>,
}

/// A pepper, ready to hash.
#[derive(Clone)]
struct Pepper {
    /// The HMAC with its key absorbed; cloning it copies two hash states.
    keyed: Option<Hmac<Sha256>>,
}

/// A checksum of what is written to it, see [`ApiKeyHasher::seal`].
pub(crate) enum Seal {
    /// Under a pepper.
    Keyed(Hmac<Sha256>),
    /// Without one.
    Plain(Sha256),
}

impl ApiKeyHasher {
    /// Prepares hashing under `pepper`; an empty one means plain SHA-256.
    #[must_use]
    pub fn new(pepper: &[u8]) -> Self {
        Self {
            current: Pepper::new(pepper),
            previous: None,
        }
    }

    /// Lets keys that were stored under an earlier pepper be found.
    #[must_use]
    pub fn with_previous(self, pepper: &[u8]) -> Self {
        Self {
            previous: Some(Pepper::new(pepper)),
            ..self
        }
    }

    /// The hash under which a key is stored, as the client sent it; surrounding white space is
    /// ignored.
    #[must_use]
    pub fn hash(&self, raw: &str) -> KeyHash {
        self.current.hash(raw)
    }

    /// All hashes under which a key may be stored, the current one first.
    pub fn hashes(&self, raw: &str) -> impl Iterator<Item = KeyHash> {
        let peppers = std::iter::once(&self.current).chain(&self.previous);
        peppers.map(move |pepper| pepper.hash(raw))
    }

    /// A checksum of the bytes that will be written to it. With a pepper it also proves that the
    /// writer had the same pepper.
    pub(crate) fn seal(&self) -> Seal {
        self.current.seal()
    }

    /// Whether `seal` is the checksum of `bytes` under the pepper or the one before it.
    pub(crate) fn has_sealed(&self, bytes: &[u8], seal: &str) -> bool {
        let mut peppers = std::iter::once(&self.current).chain(&self.previous);
        peppers.any(|pepper| pepper.seal().over(bytes).into_hex() == seal)
    }
}

impl Pepper {
    fn new(pepper: &[u8]) -> Self {
        let keyed = (!pepper.is_empty())
            .then(|| Hmac::new_from_slice(pepper).expect("HMAC takes keys of any length"));
        Self { keyed }
    }

    fn hash(&self, raw: &str) -> KeyHash {
        KeyHash(self.seal().over(raw.trim().as_bytes()).finish())
    }

    fn seal(&self) -> Seal {
        match &self.keyed {
            Some(keyed) => Seal::Keyed(keyed.clone()),
            None => Seal::Plain(Sha256::new()),
        }
    }
}

impl Seal {
    /// Adds bytes.
    pub(crate) fn over(mut self, bytes: &[u8]) -> Self {
        self.add(bytes);
        self
    }

    fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Keyed(hash) => hash.update(bytes),
            Self::Plain(hash) => hash.update(bytes),
        }
    }

    /// The checksum in lower case hex.
    pub(crate) fn into_hex(self) -> String {
        hex::encode(self.finish())
    }

    fn finish(self) -> [u8; 32] {
        match self {
            Self::Keyed(hash) => hash.finalize().into_bytes().into(),
            Self::Plain(hash) => hash.finalize().into(),
        }
    }
}

impl io::Write for Seal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for ApiKeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.current.keyed.is_some() {
            "hmac-sha256"
        } else {
            "sha256"
        };
        write!(f, "ApiKeyHasher({kind})")
    }
}

impl KeyHash {
    /// Reads the `key_hash` column; `None` unless it is 64 hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .ok()
            .map(|()| Self(bytes))
    }

    /// The `key_hash` column: lower case hex.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Debug for KeyHash {
    /// Shows four bytes, enough to tell hashes apart in a log. The rest is omitted: with an empty
    /// pepper a weak key could be guessed from its hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({}…)", hex::encode(&self.0[..4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_suite() {
        let peppered = ApiKeyHasher::new(b"pepper");
        assert_eq!(
            peppered.hash("secret").to_hex(),
            "804e6d854739162fdea0d455b3aafe67f40d2919406186a27be601596ac6d306"
        );
        assert_eq!(peppered.hash(" secret\n"), peppered.hash("secret"));
        assert_eq!(
            ApiKeyHasher::new(b"").hash("secret").to_hex(),
            "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
        );
    }

    #[test]
    fn a_key_is_looked_up_under_the_previous_pepper_too_and_stored_under_the_current_one() {
        let (old, new) = (ApiKeyHasher::new(b"old"), ApiKeyHasher::new(b"new"));
        let both = new.clone().with_previous(b"old");
        assert_eq!(both.hash("secret"), new.hash("secret"));
        let hashes: Vec<_> = both.hashes("secret").collect();
        assert_eq!(hashes, [new.hash("secret"), old.hash("secret")]);
        assert_eq!(new.hashes("secret").count(), 1);
        let sealed = |by: &ApiKeyHasher| by.seal().over(b"by").over(b"tes").into_hex();
        assert!(both.has_sealed(b"bytes", &sealed(&old)));
        assert!(both.has_sealed(b"bytes", &sealed(&both)));
        assert!(!new.has_sealed(b"bytes", &sealed(&old)));
    }

    #[test]
    fn only_64_hex_digits_are_a_hash() {
        let hash = ApiKeyHasher::new(b"pepper").hash("secret");
        assert_eq!(KeyHash::from_hex(&hash.to_hex()), Some(hash));
        assert_eq!(KeyHash::from_hex(&hash.to_hex().to_uppercase()), Some(hash));
        assert_eq!(KeyHash::from_hex(&hash.to_hex()[1..]), None);
        assert_eq!(KeyHash::from_hex("not a hash"), None);
    }

    #[test]
    fn neither_pepper_nor_hash_is_shown() {
        let hasher = ApiKeyHasher::new(b"pepper");
        assert_eq!(format!("{hasher:?}"), "ApiKeyHasher(hmac-sha256)");
        assert_eq!(format!("{:?}", hasher.hash("secret")), "KeyHash(804e6d85…)");
    }
}
