//! Authentication and authorisation: an API key, its tenant, its roles.
//!
//! Reads only the snapshot in memory. A key that is missing from a stale snapshot may exist in the
//! database, so the response is 503 (the service's error), not 401 (the caller's).

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use uuid::Uuid;

use crate::event::context::Tenants;
use crate::event::rejection::Code;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::refresh::TenantCache;
use crate::tenants::role::Role;
use crate::tenants::snapshot::{Caller, KeyError, Snapshot, Tenant, TenantStatus};

use super::presented;
use crate::http::problem::Problem;

/// A snapshot older than this may lack keys that exist.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// The caller of one request, and the tenant that it writes for.
#[derive(Debug)]
pub struct Access {
    caller: Caller,
    /// The tenant of events that name none.
    tenant: Arc<Tenant>,
    snapshot: Arc<Snapshot>,
}

impl Access {
    /// Authenticates the caller of a request and checks its role for `table`'s endpoint.
    pub(crate) fn of(
        headers: &HeaderMap,
        query_key: Option<&str>,
        table: Table,
        tenants: &TenantCache,
        hasher: &ApiKeyHasher,
        now: Micros,
    ) -> Result<Self, Problem> {
        let snapshot = tenants.snapshot();
        let caller = caller_of(headers, query_key, &snapshot, tenants, hasher, now)?;
        let allowed: &[Role] = match table {
            Table::Exposures => &[Role::Ingest, Role::Service],
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
            snapshot,
        };
        // A blank one is what a template writes whose variable is unset.
        let named = headers.get("x-org-id");
        if let Some(named) = named.filter(|named| !named.as_bytes().trim_ascii().is_empty()) {
            access.tenant = access.tenant_of_header(named.to_str().unwrap_or_default())?;
        }
        Ok(access)
    }

    /// The id of the key that was presented.
    pub(crate) fn key_id(&self) -> Uuid {
        self.caller.key_id
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

impl Tenants for Access {
    fn resolve(&self, named: &str) -> Result<Uuid, Code> {
        self.named(named).map(|tenant| tenant.id)
    }
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
) -> Result<Caller, Problem> {
    let unauthorized = |code, detail| {
        let challenges = presented::uses_basic_alone(headers, query_key);
        Err(Problem::unauthorized(code, detail, challenges))
    };
    let mut why_none = None;
    let mut is_unknown = false;
    for key in presented::keys(headers, query_key) {
        let found = match key {
            Ok(key) => hasher
                .hashes(&key)
                .map(|hash| snapshot.lookup(hash, now.0))
                .find(|found| !matches!(found, Err(KeyError::Unknown)))
                .unwrap_or(Err(KeyError::Unknown)),
            Err(reason) => {
                why_none.get_or_insert(reason);
                continue;
            }
        };
        return match found {
            Ok(caller) => Ok(caller),
            Err(KeyError::Unknown) => {
                why_none.get_or_insert("there is no such API key");
                is_unknown = true;
                continue;
            }
            Err(KeyError::Revoked) => unauthorized("invalid_api_key", "the API key was revoked"),
            Err(KeyError::Expired) => unauthorized("invalid_api_key", "the API key has expired"),
            Err(KeyError::TenantSuspended | KeyError::TenantDeleted) => Err(suspended()),
        };
    }
    if is_unknown {
        tenants.wake();
        if tenants.age().is_none_or(|age| age > STALE_AFTER) {
            return Err(Problem::unavailable(
                "keys_unavailable",
                "the API keys cannot be read from the database at the moment, so this one may exist; send the request again later",
                Duration::from_secs(2),
            ));
        }
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
