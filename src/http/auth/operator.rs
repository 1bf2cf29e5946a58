//! Who may look at what the service does: a key with a role of the suite's administration.

use axum::http::{HeaderMap, StatusCode};

use super::access::authenticated;
use crate::event::time::Micros;
use crate::http::problem::Problem;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::refresh::TenantCache;
use crate::tenants::role::Role;

/// The roles that may look. None of them may post.
const ALLOWED: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

/// Fails unless the request presents a valid key with one of the roles.
pub(crate) async fn check(
    headers: &HeaderMap,
    query_key: Option<&str>,
    tenants: &TenantCache,
    hasher: &ApiKeyHasher,
    now: Micros,
) -> Result<(), Problem> {
    let (caller, _) = authenticated(headers, query_key, tenants, hasher, now).await?;
    match caller.roles.contains_any(&ALLOWED) {
        true => Ok(()),
        false => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "role_not_allowed",
            format!(
                "the key has none of the roles that may look here: {}",
                ALLOWED.map(Role::name).join(", ")
            ),
        )),
    }
}
