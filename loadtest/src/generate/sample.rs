//! Settings for tests.

use super::settings::{Caller, Encoding, Format, Framing, Order, Scope, Settings};

/// A thousand events in every format.
pub(crate) fn settings() -> Settings {
    Settings {
        seed: 42,
        events: 1_000,
        body_events: 1..=50,
        mix: (1, 1),
        formats: vec![
            Format::Native,
            Format::ServiceV1,
            Format::EvalV1,
            Format::PipelinesV1,
            Format::OutcomeV1,
        ],
        tenants: vec!["demo".to_owned()],
        callers: vec![Caller {
            key: None,
            scope: Scope::Tenant(0),
        }],
        until_us: 1_795_000_000_000_000,
        span_us: 3 * super::time::DAY_US,
        order: Order::Time,
        duplicates: 0.1,
        invalid: 0.1,
        items: 10_000,
        users: 1_000,
        framing: Framing::Ndjson,
        encoding: Encoding::None,
    }
}
