//! Tenants and secrets of the tests.

use recsys_ingest::tenants::role::Role;

pub const DEMO: &str = "00000000-0000-4000-8000-000000000001";
pub const OTHER: &str = "00000000-0000-4000-8000-000000000002";
pub const ASLEEP: &str = "00000000-0000-4000-8000-000000000003";
pub const PEPPER: &str = "pepper";

/// The API key of a tenant with a role.
pub fn key(tenant: &str, role: Role) -> String {
    format!("{tenant}-{}-key", role.name())
}
