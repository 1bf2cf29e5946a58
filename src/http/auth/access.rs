//! Authentication and authorisation: an API key, its tenant, its roles.
//!
//! Reads only the snapshot in memory. A key that is missing from a stale snapshot may exist in the
//! database, so the response is 503 (the service's error), not 401 (the caller's).

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use crate::event::context::Tenants;
use crate::event::rejection::Code;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::refresh::TenantCache;
use crate::tenants::role::Role;
use crate::tenants::snapshot::{Caller, KeyError, Snapshot, Tenant, TenantStatus};

use crate::clock;
use crate::http::app::App;
use crate::http::problem::Problem;

/// Longest key that is looked up; issued keys have 68 characters.
const KEY_BYTES_MAX: usize = 512;

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
        let key = presented_key(headers, query_key)?;
        let snapshot = tenants.snapshot();
        let caller = snapshot
            .lookup(hasher.hash(&key), now.0)
            .map_err(|refused| {
                if refused == KeyError::Unknown {
                    tenants.wake();
                }
                refusal(refused, tenants)
            })?;
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
        if let Some(named) = headers.get("x-org-id") {
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

    /// Whether the key is shipped to the public, which is not told Postgres's own words.
    pub(crate) fn is_public(&self) -> bool {
        self.caller.roles.is_only(Role::Publish)
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
pub(crate) fn is_public_key(headers: &HeaderMap, query_key: Option<&str>, app: &App) -> bool {
    let Ok(key) = presented_key(headers, query_key) else {
        return false;
    };
    let hash = app.key_hasher.hash(&key);
    let caller = app.tenants.snapshot().lookup(hash, clock::now().0);
    caller.is_ok_and(|caller| caller.roles.is_only(Role::Publish))
}

impl Tenants for Access {
    fn resolve(&self, named: &str) -> Result<Uuid, Code> {
        self.named(named).map(|tenant| tenant.id)
    }
}

/// The key from the `X-API-Key` header, from Basic's user name, or from the query, in this order.
fn presented_key(headers: &HeaderMap, query_key: Option<&str>) -> Result<String, Problem> {
    let header = match headers.get("x-api-key").map(HeaderValue::to_str) {
        Some(Err(_)) => {
            return Err(unauthorized(
                "invalid_api_key",
                "X-API-Key holds bytes that no API key has",
            ));
        }
        header => header.and_then(Result::ok),
    };
    let key = header
        .map(str::to_owned)
        .or_else(|| basic_user(headers))
        .or_else(|| query_key.map(str::to_owned))
        .filter(|key| !key.trim().is_empty());
    match key {
        Some(key) if key.len() <= KEY_BYTES_MAX => Ok(key),
        Some(_) => Err(unauthorized(
            "invalid_api_key",
            "the API key is too long to be one",
        )),
        None => Err(unauthorized(
            "missing_api_key",
            "send an API key in X-API-Key, as the user of Basic authentication, or as ?key=",
        )),
    }
}

fn basic_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("authorization")?.to_str().ok()?;
    let encoded = value.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let user = decoded.split_once(':').map_or(&*decoded, |(user, _)| user);
    Some(user.to_owned())
}

fn refusal(refused: KeyError, tenants: &TenantCache) -> Problem {
    match refused {
        KeyError::Unknown if tenants.age().is_none_or(|age| age > STALE_AFTER) => {
            Problem::unavailable(
                "keys_unavailable",
                "the API keys cannot be read from the database at the moment, so this one may exist; send the request again later",
                Duration::from_secs(2),
            )
        }
        KeyError::Unknown => unauthorized("invalid_api_key", "there is no such API key"),
        KeyError::Revoked => unauthorized("invalid_api_key", "the API key was revoked"),
        KeyError::Expired => unauthorized("invalid_api_key", "the API key has expired"),
        KeyError::TenantSuspended | KeyError::TenantDeleted => suspended(),
    }
}

fn suspended() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "tenant_not_active",
        "the tenant is suspended or deleted",
    )
}

fn unauthorized(code: &'static str, detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, code, detail)
}
