//! The service's own limits on events and bytes, for each tenant, key and client address.

use clap::Args;

use crate::tenants::settings::Limits;

/// Limits where the settings of a key or a tenant say nothing.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Rate limits")]
pub struct RateLimits {
    /// What all keys of a tenant may send together, where the tenant's settings do not say, as in events_per_second=500,events_burst=2000,bytes_per_second=1000000,bytes_burst=4000000; what is left out is not limited
    #[arg(long, env = "INGEST_LIMITS_TENANT", default_value = "", value_name = "LIMITS", value_parser = limits)]
    pub limits_tenant: Limits,

    /// What a key may send, where its settings do not say
    #[arg(long, env = "INGEST_LIMITS_KEY", default_value = "", value_name = "LIMITS", value_parser = limits)]
    pub limits_key: Limits,

    /// What a client address may send (an IPv6 address with its /64); behind --trusted-proxies the address that they saw
    #[arg(long, env = "INGEST_LIMITS_ADDRESS", default_value = "", value_name = "LIMITS", value_parser = limits)]
    pub limits_address: Limits,

    /// What a publish key may send, where its settings do not say
    #[arg(long, env = "INGEST_LIMITS_PUBLISH_KEY", default_value = "events_per_second=1000,events_burst=5000,bytes_per_second=1000000,bytes_burst=5000000", value_name = "LIMITS", value_parser = limits)]
    pub limits_publish_key: Limits,

    /// What a client address may send with publish keys
    #[arg(long, env = "INGEST_LIMITS_PUBLISH_ADDRESS", default_value = "events_per_second=50,events_burst=500,bytes_per_second=50000,bytes_burst=500000", value_name = "LIMITS", value_parser = limits)]
    pub limits_publish_address: Limits,
}

/// Parses limits in the words of the settings of keys and tenants. A blank text is no limit.
fn limits(text: &str) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for part in text.split(',').map(str::trim) {
        if part.is_empty() && text.trim().is_empty() {
            continue;
        }
        let (name, number) = part.split_once('=').unwrap_or((part, ""));
        let place = match name.trim() {
            "events_per_second" => &mut limits.events_per_second,
            "events_burst" => &mut limits.events_burst,
            "bytes_per_second" => &mut limits.bytes_per_second,
            "bytes_burst" => &mut limits.bytes_burst,
            name => {
                return Err(format!(
                    "'{name}' is no limit; there are events_per_second, events_burst, bytes_per_second and bytes_burst, each once and with a number, as in events_per_second=500,events_burst=2000"
                ));
            }
        };
        let number = number.trim().parse().map_err(|_| {
            format!(
                "'{part}' has no number from 1 to {} after its =; leave it out for no limit",
                u32::MAX
            )
        })?;
        if place.replace(number).is_some() {
            return Err(format!("{} stands twice", name.trim()));
        }
    }
    for (rate, burst, name) in [
        (limits.events_per_second, limits.events_burst, "events"),
        (limits.bytes_per_second, limits.bytes_burst, "bytes"),
    ] {
        if rate.is_none() && burst.is_some() {
            return Err(format!(
                "{name}_burst means nothing without {name}_per_second"
            ));
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn limits_are_read_and_what_is_wrong_is_named() {
        assert_eq!(limits(" "), Ok(Limits::default()));
        let read = limits("events_per_second=5, bytes_per_second=10,bytes_burst=20").unwrap();
        assert_eq!(read.events_per_second, NonZeroU32::new(5));
        assert_eq!(read.events_burst, None);
        assert_eq!(read.bytes_burst, NonZeroU32::new(20));
        for (text, words) in [
            ("500", "'500' is no limit"),
            ("events=5", "'events' is no limit"),
            ("events_per_second", "no number from 1"),
            ("events_per_second=0", "no number from 1"),
            ("events_per_second=5/s", "no number from 1"),
            ("events_per_second=5,", "'' is no limit"),
            ("events_per_second=5,events_per_second=6", "stands twice"),
            ("events_burst=5", "means nothing without events_per_second"),
        ] {
            let error = limits(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
