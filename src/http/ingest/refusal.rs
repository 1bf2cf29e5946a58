//! Refusals of requests for which there is no room.

use axum::http::StatusCode;

use crate::accounts::status::Health;
use crate::admission::admit::Overload;
use crate::http::app::App;
use crate::http::problem::Problem;

/// The response to a request that there is no room for.
pub(super) fn full(app: &App, reason: Overload) -> Problem {
    let (code, more) = match reason {
        Overload::TooLarge => {
            return Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("{reason}; send the events in several requests"),
            );
        }
        Overload::Bytes | Overload::Share => (
            "overloaded",
            "; send the events again later, or fewer at a time",
        ),
        Overload::Records => (
            "overloaded",
            "; send the events again later, or more at a time",
        ),
        Overload::Spool | Overload::SpoolShare => ("spool_full", why_the_spool_fills(app)),
        Overload::Reserve => ("spool_full", "; send the events again once there is some"),
        Overload::Disk => ("disk_failed", "; send the events again later"),
        Overload::Gone => ("disk_failed", "; send the events elsewhere until it is"),
        Overload::Stalled => ("disk_stalled", "; send the events again later"),
        Overload::FencedOff => ("fenced_off", "; send the events elsewhere"),
        Overload::Away | Overload::GroupTooLarge => ("log_away", "; send the events again later"),
        Overload::NotHere => ("log_away", "; send the events to one that takes them"),
        Overload::Stopping => ("stopping", "; send the events again later, or elsewhere"),
    };
    let wait = app.admission.retry_after(reason);
    Problem::unavailable(code, format!("{reason}{more}"), wait)
}

/// Why the spool is at its cap, as far as the writers know.
fn why_the_spool_fills(app: &App) -> &'static str {
    match app.lanes.iter().map(|lane| lane.health()).max() {
        Some(Health::Fault) => {
            ": events cannot be stored until an operator mends something, see /readyz and the log; send the events again after that"
        }
        Some(Health::Away) => {
            ": Postgres is away or busy; send the events again later, there is room once it takes some"
        }
        Some(Health::Undecided) => {
            ": Postgres refuses rows, see /readyz and the log; send the events again later"
        }
        Some(Health::Good | Health::SettingAside) | None => {
            ": Postgres takes events, but slower than they come in; send the events again later"
        }
    }
}
