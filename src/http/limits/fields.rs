//! The fields `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
//!
//! A policy's quota is the burst, and its window the time in which it comes back at the rate. `t`
//! is the time until all of it is there again.

use std::fmt::Write as _;
use std::time::Duration;

use axum::http::header::HeaderName;
use axum::http::{HeaderMap, HeaderValue};

use crate::admission::rate_limit::charge::{Reading, Unit};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The two fields of one answer.
#[derive(Clone, Debug)]
pub(crate) struct RateLimitFields {
    limits: HeaderValue,
    policies: HeaderValue,
}

impl RateLimitFields {
    pub(crate) fn of(readings: &[Reading]) -> Self {
        let (mut limits, mut policies) = (String::new(), String::new());
        for reading in readings {
            let comma = if limits.is_empty() { "" } else { ", " };
            let scope = reading.scope.as_str();
            let (name, unit) = match reading.unit {
                Unit::Events => ("", ""),
                Unit::Bytes => ("-bytes", ";qu=\"content-bytes\""),
            };
            let quota = u64::from(reading.rate.burst.get());
            let window = quota.div_ceil(u64::from(reading.rate.per_second.get()));
            let (left, full_in) = (reading.left, seconds(reading.full_in));
            write!(limits, "{comma}\"{scope}{name}\";r={left};t={full_in}")
                .expect("a String takes all");
            write!(
                policies,
                "{comma}\"{scope}{name}\";q={quota}{unit};w={window}"
            )
            .expect("a String takes all");
        }
        let value = |text| HeaderValue::try_from(text).expect("names and numbers are ASCII");
        Self {
            limits: value(limits),
            policies: value(policies),
        }
    }

    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT, self.limits.clone());
        headers.insert(RATE_LIMIT_POLICY, self.policies.clone());
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u128 {
    time.as_millis().div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::admission::rate_limit::charge::Scope;
    use crate::admission::rate_limit::gcra::Rate;

    #[test]
    fn the_fields_are_lists_of_structured_items() {
        let reading = |scope, unit, per_second, burst, left, full_ms| Reading {
            scope,
            unit,
            rate: Rate {
                per_second: NonZeroU32::new(per_second).unwrap(),
                burst: NonZeroU32::new(burst).unwrap(),
            },
            left,
            full_in: Duration::from_millis(full_ms),
        };
        let mut headers = HeaderMap::new();
        RateLimitFields::of(&[
            reading(Scope::Tenant, Unit::Events, 500, 500, 0, 3000),
            reading(Scope::Key, Unit::Bytes, 1000, 2500, 7, 2001),
        ])
        .put(&mut headers);
        assert_eq!(
            headers["ratelimit"],
            r#""tenant";r=0;t=3, "key-bytes";r=7;t=3"#
        );
        assert_eq!(
            headers["ratelimit-policy"],
            r#""tenant";q=500;w=1, "key-bytes";q=2500;qu="content-bytes";w=3"#
        );
    }
}
