//! From settings to what is removed because of its age.

use crate::accounts::retention::policy::Policy;
use crate::config::retention::Retention;

/// What these settings say.
pub(crate) fn policy(settings: &Retention) -> Policy {
    Policy {
        tables: [
            settings.retain_exposures,
            settings.retain_interactions,
            settings.retain_assignments,
        ],
        quarantine: settings.retain_quarantine,
        accounts: settings.retain_accounts,
        keeps_detached: settings.retain_keep,
    }
}
