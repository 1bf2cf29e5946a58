//! All tenants and keys at one moment, indexed for lookup.
//!
//! Immutable once built, and pure: the time is passed in. A key that cannot be used safely (its
//! hash is unreadable, its tenant is missing) is left out and counted. Knows nothing of how it was
//! read.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::key::KeyHash;
use super::last_use::LastUse;
use super::origin_set::OriginSet;
use super::role::Roles;
use super::settings::{KeySettings, TenantSettings};

/// A customer, with events that are kept apart from those of other tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The tenant id in every event row.
    pub id: Uuid,
    /// The name that people and other services use.
    pub external_id: String,
    /// Whether its keys work.
    pub status: TenantStatus,
    /// Its limits, origins, event names and surfaces.
    pub settings: TenantSettings,
}

/// Whether a tenant's keys work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantStatus {
    /// In use.
    Active,
    /// Refused for now; its data stays.
    Suspended,
    /// Removed; its data may still exist.
    Deleted,
}

/// The holder of a valid key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The id of the key.
    pub key_id: Uuid,
    /// The tenant of the key.
    pub tenant: Arc<Tenant>,
    /// What the key may be used for.
    pub roles: Roles,
    /// The key's own limits and origins, where it has any.
    pub settings: Option<Arc<KeySettings>>,
}

/// Why a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No such key in this snapshot. It may be newer, see
    /// [`TenantCache::wake`](super::refresh::TenantCache::wake).
    #[error("the API key is not known")]
    Unknown,
    /// An operator revoked it.
    #[error("the API key has been revoked")]
    Revoked,
    /// It has expired.
    #[error("the API key has expired")]
    Expired,
    /// The key is valid, but its tenant is suspended.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// The key is valid, but its tenant is deleted.
    #[error("the tenant has been deleted")]
    TenantDeleted,
}

/// All tenants and keys at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    keys: HashMap<KeyHash, Key>,
    by_external_id: HashMap<String, Arc<Tenant>>,
    by_id: HashMap<Uuid, Arc<Tenant>>,
    origins: OriginSet,
    skipped_keys: usize,
    fingerprint: Fingerprint,
}

/// What the tables held that a snapshot was read from, in few bytes; none where it holds more than
/// one reading, or was not read from them.
#[derive(Clone, Debug, Default)]
struct Fingerprint(Option<String>);

/// Two snapshots with the same keys are equal, however they were read.
impl PartialEq for Fingerprint {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Fingerprint {}

/// What is known of a key. Its hash is what the map finds it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) id: Uuid,
    pub(super) tenant: Arc<Tenant>,
    pub(super) roles: Roles,
    pub(super) expires_at_us: Option<i64>,
    pub(super) revoked: bool,
    pub(super) settings: Option<Arc<KeySettings>>,
    last_use: LastUse,
}

/// What is known of a key of either table.
#[derive(Clone, Debug)]
pub(crate) struct KeyRow<'a> {
    pub(crate) id: Uuid,
    pub(crate) tenant_id: Uuid,
    pub(crate) key_hash: &'a str,
    pub(crate) roles: Roles,
    pub(crate) expires_at_us: Option<i64>,
    pub(crate) revoked: bool,
    pub(crate) settings: Option<Arc<KeySettings>>,
}

impl TenantStatus {
    /// An unknown status suspends the tenant: it was set for a reason.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "active" => Self::Active,
            "deleted" => Self::Deleted,
            _ => Self::Suspended,
        }
    }

    /// The label in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
        }
    }
}

impl Snapshot {
    /// A snapshot with these tenants and no keys yet.
    pub(crate) fn new(tenants: impl IntoIterator<Item = Tenant>) -> Self {
        let mut snapshot = Self::default();
        for tenant in tenants {
            snapshot.add_tenant(tenant);
        }
        snapshot
    }

    /// Says that this is all that the tables held while their fingerprint was this.
    pub(super) fn set_fingerprint(&mut self, fingerprint: String) {
        self.fingerprint = Fingerprint(Some(fingerprint));
    }

    /// The fingerprint of the tables that this is all of.
    pub(super) fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.0.as_deref()
    }

    /// Adds a tenant.
    pub(crate) fn add_tenant(&mut self, tenant: Tenant) {
        self.fingerprint = Fingerprint::default();
        let tenant = Arc::new(tenant);
        if let Some(origins) = &tenant.settings.origins
            && tenant.status != TenantStatus::Deleted
        {
            self.origins.add(origins, i64::MAX);
        }
        self.by_external_id
            .insert(tenant.external_id.clone(), Arc::clone(&tenant));
        self.by_id.insert(tenant.id, tenant);
    }

    /// Whether there is a key with this hash.
    pub(crate) fn has_key(&self, hash: KeyHash) -> bool {
        self.keys.contains_key(&hash)
    }

    /// The tenant with this id, with any status.
    #[must_use]
    pub fn tenant_of(&self, id: Uuid) -> Option<&Arc<Tenant>> {
        self.by_id.get(&id)
    }

    /// Whether there is a tenant with this id.
    pub(crate) fn has_tenant(&self, id: Uuid) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Adds a key. A key with the same hash as an earlier one takes its place.
    pub(crate) fn add_key(&mut self, row: &KeyRow<'_>) {
        self.fingerprint = Fingerprint::default();
        match (
            KeyHash::from_hex(row.key_hash),
            self.by_id.get(&row.tenant_id),
        ) {
            (Some(hash), Some(tenant)) => {
                if let Some(origins) = row.settings.as_ref().and_then(|own| own.origins.as_ref())
                    && tenant.status != TenantStatus::Deleted
                    && !row.revoked
                {
                    let until_us = row.expires_at_us.unwrap_or(i64::MAX);
                    self.origins.add(origins, until_us);
                }
                let key = Key {
                    id: row.id,
                    tenant: Arc::clone(tenant),
                    roles: row.roles,
                    expires_at_us: row.expires_at_us,
                    revoked: row.revoked,
                    settings: row.settings.clone(),
                    last_use: LastUse::default(),
                };
                self.keys.insert(hash, key);
            }
            _ => self.skip_key(),
        }
    }

    /// Counts a key that cannot be used.
    pub(crate) fn skip_key(&mut self) {
        self.skipped_keys += 1;
    }

    /// The caller with this key, at `now_us` (microseconds since 1970).
    ///
    /// # Errors
    ///
    /// [`KeyError`], with the reason. `Unknown` may also mean that the snapshot is old: see
    /// [`TenantCache::age`](super::refresh::TenantCache::age).
    pub fn lookup(&self, key: KeyHash, now_us: i64) -> Result<Caller, KeyError> {
        let key = self.keys.get(&key).ok_or(KeyError::Unknown)?;
        if key.revoked {
            return Err(KeyError::Revoked);
        }
        if key
            .expires_at_us
            .is_some_and(|expires_at_us| expires_at_us < now_us)
        {
            return Err(KeyError::Expired);
        }
        match key.tenant.status {
            TenantStatus::Active => {
                key.last_use.mark(now_us);
                Ok(Caller {
                    key_id: key.id,
                    tenant: Arc::clone(&key.tenant),
                    roles: key.roles,
                    settings: key.settings.clone(),
                })
            }
            TenantStatus::Suspended => Err(KeyError::TenantSuspended),
            TenantStatus::Deleted => Err(KeyError::TenantDeleted),
        }
    }

    /// The tenant of that name, with any status: `external_id = named OR id::text = named`. The
    /// external id wins if both exist.
    #[must_use]
    pub fn tenant(&self, named: &str) -> Option<&Arc<Tenant>> {
        self.by_external_id.get(named).or_else(|| {
            let id = Uuid::try_parse(named).ok()?;
            // Only the form that Postgres writes is an id; other spellings of a UUID are other
            // names.
            let mut text = Uuid::encode_buffer();
            let canonical = id.hyphenated().encode_lower(&mut text) == named;
            self.by_id.get(&id).filter(|_| canonical)
        })
    }

    /// Takes over when keys were last used, from the snapshot that this one replaces.
    pub(crate) fn keep_last_uses(&mut self, older: &Self) {
        for (hash, key) in &mut self.keys {
            if let Some(older) = older.keys.get(hash) {
                key.last_use = older.last_use.clone();
            }
        }
    }

    /// When each key was last used, in no order.
    pub(super) fn each_last_use(&self) -> impl Iterator<Item = (Uuid, &LastUse)> {
        self.keys.values().map(|key| (key.id, &key.last_use))
    }

    /// Whether a tenant, or a key that is neither revoked nor expired, lists the origin of a web
    /// page: what a preflight asks, which carries no key.
    ///
    /// Those of suspended tenants count, so that their pages can read why they are refused.
    #[must_use]
    pub fn lists_origin(&self, origin: &str, now_us: i64) -> bool {
        self.origins.allow(origin, now_us)
    }

    /// All tenants, in no order.
    pub(crate) fn each_tenant(&self) -> impl Iterator<Item = &Tenant> {
        self.by_id.values().map(|tenant| &**tenant)
    }

    /// All keys by their id, in order.
    pub(super) fn keys_by_id(&self) -> Vec<(KeyHash, &Key)> {
        let mut keys: Vec<_> = self.keys.iter().map(|(hash, key)| (*hash, key)).collect();
        keys.sort_unstable_by_key(|(_, key)| key.id);
        keys
    }

    /// The number of tenants.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.by_id.len()
    }

    /// The number of keys, with revoked and expired ones.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The number of keys left out because their hash is not 64 hex digits, their tenant is missing
    /// or their settings cannot be read.
    #[must_use]
    pub fn skipped_keys(&self) -> usize {
        self.skipped_keys
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
mod tests {
    use super::super::key::ApiKeyHasher;
    use super::super::role::Role;
    use super::*;

    const NOW_US: i64 = 1_790_000_000_000_000;

    fn tenant(n: u128, external_id: &str, status: TenantStatus) -> Tenant {
        Tenant {
            id: Uuid::from_u128(n),
            external_id: external_id.to_owned(),
            status,
            settings: TenantSettings::default(),
        }
    }

    fn hash(raw: &str) -> KeyHash {
        ApiKeyHasher::new(b"pepper").hash(raw)
    }

    fn with_key(tenant: Tenant, change: impl FnOnce(&mut KeyRow<'_>)) -> Snapshot {
        let key_hash = hash("raw").to_hex();
        let mut row = KeyRow {
            id: Uuid::from_u128(99),
            tenant_id: tenant.id,
            key_hash: &key_hash,
            roles: Roles::from_names(["ingest"]),
            expires_at_us: None,
            revoked: false,
            settings: None,
        };
        change(&mut row);
        let mut snapshot = Snapshot::new([tenant]);
        snapshot.add_key(&row);
        snapshot
    }

    fn outcome(status: TenantStatus, change: impl FnOnce(&mut KeyRow<'_>)) -> Option<KeyError> {
        with_key(tenant(1, "demo", status), change)
            .lookup(hash("raw"), NOW_US)
            .err()
    }

    #[test]
    fn a_good_key_names_its_tenant_and_roles() {
        let snapshot = with_key(tenant(1, "demo", TenantStatus::Active), |_| {});
        let caller = snapshot.lookup(hash(" raw "), NOW_US).unwrap();
        assert_eq!(caller.key_id, Uuid::from_u128(99));
        assert_eq!(caller.tenant.external_id, "demo");
        assert!(caller.roles.contains(Role::Ingest));
        assert_eq!(
            snapshot.lookup(hash("other"), NOW_US),
            Err(KeyError::Unknown)
        );
    }

    #[test]
    fn each_reason_to_refuse_has_its_name_and_revoked_comes_first() {
        use TenantStatus::{Active, Deleted, Suspended};
        assert_eq!(outcome(Active, |_| {}), None);
        assert_eq!(
            outcome(Active, |key| key.revoked = true),
            Some(KeyError::Revoked)
        );
        assert_eq!(outcome(Suspended, |_| {}), Some(KeyError::TenantSuspended));
        assert_eq!(outcome(Deleted, |_| {}), Some(KeyError::TenantDeleted));
        let both = |key: &mut KeyRow<'_>| {
            key.revoked = true;
            key.expires_at_us = Some(0);
        };
        assert_eq!(outcome(Deleted, both), Some(KeyError::Revoked));
    }

    #[test]
    fn a_key_is_good_up_to_and_including_the_moment_it_expires() {
        let at = |us| {
            outcome(TenantStatus::Active, move |key| {
                key.expires_at_us = Some(us)
            })
        };
        assert_eq!(at(NOW_US + 1), None);
        assert_eq!(at(NOW_US), None);
        assert_eq!(at(NOW_US - 1), Some(KeyError::Expired));
    }

    #[test]
    fn a_key_with_an_unreadable_hash_or_no_tenant_is_left_out_and_counted() {
        let snapshot = with_key(tenant(1, "demo", TenantStatus::Active), |key| {
            key.key_hash = "x"
        });
        assert_eq!((snapshot.keys(), snapshot.skipped_keys()), (0, 1));
        let orphan = with_key(tenant(1, "demo", TenantStatus::Active), |key| {
            key.tenant_id = Uuid::from_u128(2);
        });
        assert_eq!((orphan.keys(), orphan.skipped_keys()), (0, 1));
    }

    #[test]
    fn a_tenant_goes_by_external_id_or_by_the_text_of_its_uuid() {
        let id = Uuid::from_u128(0xabc);
        let shadow = Uuid::from_u128(2).to_string();
        let snapshot = Snapshot::new([
            tenant(0xabc, "demo", TenantStatus::Suspended),
            tenant(2, "second", TenantStatus::Active),
            tenant(3, &shadow, TenantStatus::Active),
        ]);
        assert_eq!(snapshot.tenant("demo").unwrap().id, id);
        assert_eq!(snapshot.tenant(&id.to_string()).unwrap().id, id);
        assert_eq!(snapshot.tenant(&id.to_string().to_uppercase()), None);
        assert_eq!(snapshot.tenant(&id.simple().to_string()), None);
        assert_eq!(snapshot.tenant("nobody"), None);
        assert_eq!(snapshot.tenant(&shadow).unwrap().id, Uuid::from_u128(3));
    }

    #[test]
    fn origins_are_those_of_tenants_and_of_keys_that_may_be_used() {
        use super::super::settings::Origins;
        use TenantStatus::{Active, Deleted, Suspended};
        let listed = |status, change: &dyn Fn(&mut KeyRow<'_>)| {
            let mut owner = tenant(1, "demo", status);
            owner.settings.origins = Some(Origins::parse(["https://tenant.example"]).unwrap());
            let own = KeySettings {
                origins: Some(Origins::parse(["https://key.example"]).unwrap()),
                ..KeySettings::default()
            };
            let snapshot = with_key(owner, |key| {
                key.settings = Some(Arc::new(own));
                change(key);
            });
            ["https://tenant.example", "https://key.example"]
                .map(|origin| snapshot.lists_origin(origin, NOW_US))
        };
        assert_eq!(listed(Active, &|_| {}), [true, true]);
        assert_eq!(listed(Suspended, &|_| {}), [true, true]);
        assert_eq!(listed(Deleted, &|_| {}), [false, false]);
        assert_eq!(listed(Active, &|key| key.revoked = true), [true, false]);
        let expires = |us| move |key: &mut KeyRow<'_>| key.expires_at_us = Some(us);
        assert_eq!(listed(Active, &expires(NOW_US)), [true, true]);
        assert_eq!(listed(Active, &expires(NOW_US - 1)), [true, false]);
    }

    #[test]
    fn a_status_that_nobody_knows_shuts_the_tenant_out() {
        assert_eq!(TenantStatus::from_name("frozen"), TenantStatus::Suspended);
    }
}
