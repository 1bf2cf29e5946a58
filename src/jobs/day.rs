//! Days in UTC, and a tenant's events of one.

use jiff::civil::Date;
use uuid::Uuid;

/// A UTC day of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantDay {
    /// The tenant's id.
    pub tenant: Uuid,
    /// The tenant's external id.
    pub name: String,
    /// The day.
    pub day: Date,
}

/// Days, with both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days {
    /// The first one.
    pub from: Date,
    /// The last one.
    pub to: Date,
}

impl TenantDay {
    /// The condition for rows of the day in an event table that is called `e`, as literals: the
    /// planner then prunes partitions, and its estimates are for this day.
    pub(super) fn condition(&self) -> String {
        let Self { tenant, day, .. } = self;
        format!(
            "e.tenant_id = '{tenant}'::uuid
             AND e.occurred_at >= timestamp '{day}' AT TIME ZONE 'UTC'
             AND e.occurred_at < (date '{day}' + 1)::timestamp AT TIME ZONE 'UTC'"
        )
    }
}
