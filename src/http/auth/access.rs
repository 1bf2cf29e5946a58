//! Authentication and authorisation: an API key, its tenant, its roles.
//!
//! Reads the snapshot in memory; only a key or tenant that it does not have is looked up alone. A
//! key that is missing from a stale snapshot may exist in the database, so the response is 503 (the
//! service's error), not 401 (the caller's).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use uuid::Uuid;

use crate::event::context::Tenants;
use crate::event::rejection::Code;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::tenants::key::{ApiKeyHasher, KeyHash};
use crate::tenants::lookup::Wanted;
use crate::tenants::refresh::TenantCache;
use crate::tenants::role::Role;
use crate::tenants::settings::Limits;
use crate::tenants::settings::Origins;
use crate::tenants::snapshot::{Caller, KeyError, Snapshot, Tenant, TenantStatus};

use super::presented;
use crate::http::problem::Problem;

/// The header that names a tenant.
const ORG_ID: HeaderName = HeaderName::from_static("x-org-id");

/// A snapshot older than this may lack keys that exist.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(60);

/// Most unknown tenants of one body that are looked up.
const UNKNOWN_MAX: usize = 8;

/// Longest wait for them: for one to be looked up, and then for all tables to be read.
const UNKNOWN_WAIT: Duration = Duration::from_secs(4);

/// The caller of one request, and the tenant that it writes for.
#[derive(Debug)]
pub struct Access {
    caller: Caller,
    /// The tenant of events that name none.
    tenant: Arc<Tenant>,
    /// Whether `X-Org-Id` names it.
    is_named: bool,
    snapshot: Arc<Snapshot>,
    /// Tenants that events named and the snapshot does not have.
    unknown: Mutex<Vec<String>>,
}

impl Access {
    /// Authenticates the caller of a request and checks its role for `table`'s endpoint.
    pub(crate) async fn of(
        headers: &HeaderMap,
        query_key: Option<&str>,
        table: Table,
        tenants: &TenantCache,
        hasher: &ApiKeyHasher,
        now: Micros,
    ) -> Result<Self, Problem> {
        let (caller, snapshot) = authenticated(headers, query_key, tenants, hasher, now).await?;
        let allowed: &[Role] = match table {
            Table::Exposures | Table::Assignments => &[Role::Ingest, Role::Service],
            Table::Interactions => &[Role::Ingest, Role::Service, Role::Publish],
        };
        if !caller.roles.contains_any(allowed) {
            let names: Vec<_> = allowed.iter().map(|role| role.name()).collect();
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "role_not_allowed",
                format!(
                    "the key has none of the roles that may post here: {}",
                    names.join(", ")
                ),
            ));
        }
        let tenant = Arc::clone(&caller.tenant);
        let mut access = Self {
            caller,
            tenant,
            is_named: false,
            snapshot,
            unknown: Mutex::default(),
        };
        // A blank one is what a template writes whose variable is unset. Where the header may name any
        // tenant, events would go to a wrong one, so there it is refused.
        let may_be_blank = !access.caller.roles.contains(Role::Service);
        let is_none = |named: &HeaderValue| named.as_bytes().trim_ascii().is_empty();
        let mut all_named = headers.get_all(ORG_ID).iter();
        let named = all_named.next();
        if all_named.any(|other| Some(other) != named) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "tenant_mismatch",
                "the request has several X-Org-Id headers, which name different tenants; send one",
            ));
        }
        if let Some(named) = named.filter(|named| !(may_be_blank && is_none(named))) {
            let named = named.to_str().unwrap_or_default();
            if access.named(named) == Err(Code::UnknownTenant)
                && tenants.find(Wanted::Tenant(named.to_owned())).await
            {
                access.snapshot = tenants.snapshot();
            }
            access.tenant = access.tenant_of_header(named)?;
            access.is_named = true;
        }
        Ok(access)
    }

    /// The id of the key that was presented.
    pub(crate) fn key_id(&self) -> Uuid {
        self.caller.key_id
    }

    /// The key's own limits.
    pub(crate) fn key_limits(&self) -> Option<&Limits> {
        self.caller
            .settings
            .as_ref()
            .map(|settings| &settings.limits)
    }

    /// The limits of the tenant that the request writes for.
    pub(crate) fn tenant_limits(&self) -> Option<&Limits> {
        Some(&self.tenant.settings.limits)
    }

    /// Whether events named tenants that the snapshot does not have.
    pub(crate) fn has_unknown(&self) -> bool {
        !self.unknown().is_empty()
    }

    /// Looks up the tenants that events named and the snapshot does not have. Returns whether one is
    /// known now.
    pub(crate) async fn find_unknown(&mut self, tenants: &TenantCache) -> bool {
        let unknown = std::mem::take(&mut *self.unknown());
        let mark = tenants.mark();
        let looking = async {
            for named in unknown {
                tenants.find(Wanted::Tenant(named)).await;
                if tenants.has_read_since(mark) {
                    return;
                }
            }
        };
        // Those that were not looked up in time are unknown to this request.
        drop(tokio::time::timeout(UNKNOWN_WAIT, looking).await);
        let snapshot = tenants.snapshot();
        let is_newer = !Arc::ptr_eq(&snapshot, &self.snapshot);
        self.snapshot = snapshot;
        is_newer
    }

    fn unknown(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The origins of pages that may use the key: its own, or else its tenant's; `None` if neither
    /// has a list.
    pub(crate) fn origins(&self) -> Option<&Origins> {
        let own = self.caller.settings.as_ref();
        own.and_then(|settings| settings.origins.as_ref()).or(self
            .caller
            .tenant
            .settings
            .origins
            .as_ref())
    }

    /// Whether the key is in public hands: it is shipped in web pages or apps, and its holders are not
    /// told Postgres's own words.
    pub(crate) fn is_public(&self) -> bool {
        self.caller.roles.contains(Role::Publish)
    }

    /// Whether the key may write for any tenant.
    pub(crate) fn is_service(&self) -> bool {
        self.caller.roles.contains(Role::Service)
    }

    /// The tenant of events that name none, with its settings.
    pub(crate) fn tenant_settings(&self) -> Arc<Tenant> {
        Arc::clone(&self.tenant)
    }

    /// The same caller, for another part of its request.
    pub(crate) fn share(&self) -> Self {
        Self {
            caller: self.caller.clone(),
            tenant: Arc::clone(&self.tenant),
            is_named: self.is_named,
            snapshot: Arc::clone(&self.snapshot),
            unknown: Mutex::default(),
        }
    }

    /// The tenant of events that name none.
    pub(crate) fn tenant(&self) -> Uuid {
        self.tenant.id
    }

    /// The caller's role, for `meta.source`.
    pub(crate) fn source(&self) -> &'static str {
        [Role::Service, Role::Ingest, Role::Publish]
            .into_iter()
            .find(|role| self.caller.roles.contains(*role))
            .map_or("unknown", Role::name)
    }

    fn tenant_of_header(&self, named: &str) -> Result<Arc<Tenant>, Problem> {
        self.named(named).cloned().map_err(|code| match code {
            Code::TenantNotActive => suspended(),
            Code::UnknownTenant => Problem::new(
                StatusCode::FORBIDDEN,
                "unknown_tenant",
                "there is no tenant as X-Org-Id names it; see recsys-ingest tenants list",
            ),
            _ => Problem::new(
                StatusCode::FORBIDDEN,
                "tenant_mismatch",
                "the key may not write for the tenant in X-Org-Id",
            ),
        })
    }

    fn named(&self, named: &str) -> Result<&Arc<Tenant>, Code> {
        let own = &self.caller.tenant;
        if own.external_id == named || Uuid::try_parse(named).is_ok_and(|id| id == own.id) {
            return Ok(own);
        }
        if !self.caller.roles.contains(Role::Service) {
            return Err(Code::TenantMismatch);
        }
        let tenant = self.snapshot.tenant(named).ok_or(Code::UnknownTenant)?;
        match tenant.status {
            TenantStatus::Active => Ok(tenant),
            _ => Err(Code::TenantNotActive),
        }
    }
}

/// Whether a request that needs no key presents one that is shipped to the public.
pub(crate) fn is_public_key(
    headers: &HeaderMap,
    query_key: Option<&str>,
    tenants: &TenantCache,
    hasher: &ApiKeyHasher,
    now: Micros,
) -> bool {
    let snapshot = tenants.snapshot();
    let mut callers = presented::keys(headers, query_key).filter_map(|key| {
        let key = key.ok()?;
        let mut hashes = hasher.hashes(&key);
        hashes.find_map(|hash| snapshot.lookup(hash, now.0).ok())
    });
    callers
        .next()
        .is_some_and(|caller| caller.roles.contains(Role::Publish))
}

impl Tenants for Access {
    fn resolve(&self, named: &str) -> Result<Uuid, Code> {
        let found = self.named(named).map(|tenant| tenant.id);
        if found == Err(Code::UnknownTenant) {
            let mut unknown = self.unknown();
            if unknown.len() < UNKNOWN_MAX && !unknown.iter().any(|known| known == named) {
                unknown.push(named.to_owned());
            }
        }
        found
    }

    fn is_own_a_guess(&self) -> bool {
        !self.is_named && self.caller.roles.contains(Role::Service)
    }

    fn surfaces(&self, tenant: &Uuid) -> Option<&[String]> {
        // The tenant of the request is that of most events.
        let tenant = match self.tenant.id == *tenant {
            true => &self.tenant,
            false => self.snapshot.tenant_of(*tenant)?,
        };
        tenant.settings.surfaces.as_deref()
    }
}

/// The caller of a request, and the snapshot that has it. A key that the snapshot does not have is
/// looked up alone.
pub(super) async fn authenticated(
    headers: &HeaderMap,
    query_key: Option<&str>,
    tenants: &TenantCache,
    hasher: &ApiKeyHasher,
    now: Micros,
) -> Result<(Caller, Arc<Snapshot>), Problem> {
    let mut snapshot = tenants.snapshot();
    let mut unknown = Vec::new();
    let found = caller_of(
        headers, query_key, &snapshot, tenants, hasher, now, &mut unknown,
    );
    let caller = match found {
        Err(problem) if !unknown.is_empty() => {
            let mut found = Err(problem);
            let mark = tenants.mark();
            for hash in std::mem::take(&mut unknown) {
                // Once all tables were read, they decide on all keys of the request.
                if tenants.find(Wanted::Key(hash)).await || tenants.has_read_since(mark) {
                    snapshot = tenants.snapshot();
                    found = caller_of(
                        headers, query_key, &snapshot, tenants, hasher, now, &mut unknown,
                    );
                    break;
                }
            }
            found?
        }
        found => found?,
    };
    Ok((caller, snapshot))
}

/// The caller, by the first of the presented keys that exists.
///
/// A key that does not exist hides no other one: `Authorization` may be meant for a proxy that passes
/// it on.
fn caller_of(
    headers: &HeaderMap,
    query_key: Option<&str>,
    snapshot: &Snapshot,
    tenants: &TenantCache,
    hasher: &ApiKeyHasher,
    now: Micros,
    unknown: &mut Vec<KeyHash>,
) -> Result<Caller, Problem> {
    let unauthorized = |code, detail| {
        let challenges = presented::uses_basic_alone(headers, query_key);
        Err(Problem::unauthorized(code, detail, challenges))
    };
    let mut why_none = None;
    for key in presented::keys(headers, query_key) {
        let key = match key {
            Ok(key) => key,
            Err(reason) => {
                why_none.get_or_insert(reason);
                continue;
            }
        };
        let found = hasher
            .hashes(&key)
            .map(|hash| snapshot.lookup(hash, now.0))
            .find(|found| !matches!(found, Err(KeyError::Unknown)))
            .unwrap_or(Err(KeyError::Unknown));
        return match found {
            Ok(caller) => Ok(caller),
            Err(KeyError::Unknown) => {
                why_none.get_or_insert("there is no such API key");
                unknown.extend(hasher.hashes(&key));
                continue;
            }
            Err(KeyError::Revoked) => unauthorized("invalid_api_key", "the API key was revoked"),
            Err(KeyError::Expired) => unauthorized("invalid_api_key", "the API key has expired"),
            Err(KeyError::TenantSuspended | KeyError::TenantDeleted) => Err(suspended()),
        };
    }
    if !unknown.is_empty() && tenants.age().is_none_or(|age| age > STALE_AFTER) {
        return Err(Problem::unavailable(
            "keys_unavailable",
            "the API keys cannot be read from the database at the moment, so this one may exist; send the request again later",
            Duration::from_secs(2),
        ));
    }
    match why_none {
        Some(reason) => unauthorized("invalid_api_key", reason),
        None => unauthorized(
            "missing_api_key",
            "send an API key in X-API-Key, as Authorization: Bearer, as the user of Basic authentication, or as ?key=",
        ),
    }
}

fn suspended() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "tenant_not_active",
        "the tenant is suspended or deleted",
    )
}
