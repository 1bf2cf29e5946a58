//! Limits on what a caller sends: of its tenant, its key and its address.
//!
//! The step between authentication and the handler. Before the body is read, a request is refused
//! if there is no room for the least that it can hold; once its events are counted, it is charged
//! or refused as a whole. See `docs/decisions/0017-limits.md`.

pub(crate) mod client;
pub(crate) mod fields;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use super::auth::access::Access;
use super::connection::proxies::TrustedProxies;
use super::ingest::body::read as body;
use super::problem::Problem;
use crate::admission::rate_limit::charge::{Charges, Cost, Exceeded, Rates, Scope, Unit};
use crate::admission::rate_limit::gcra::Rate;
use crate::admission::rate_limit::keyed::Keyed;
use crate::metrics::{ByLimit, Metrics};
use crate::tenants::settings::Limits;
use client::client_address;
use fields::RateLimitFields;

/// Most client addresses whose limits are kept; about 20 MB.
const ADDRESSES_MAX: usize = 100_000;

/// What applies where the settings of key and tenant say nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultLimits {
    /// For each tenant.
    pub tenant: Limits,
    /// For each key.
    pub key: Limits,
    /// For each client address.
    pub address: Limits,
    /// For each publish key.
    pub publish_key: Limits,
    /// For each client address that uses publish keys.
    pub publish_address: Limits,
}

/// The limits in force, and what was used of them.
#[derive(Debug)]
pub(crate) struct RateLimits {
    defaults: DefaultLimits,
    proxies: TrustedProxies,
    tenants: Keyed<Uuid>,
    keys: Keyed<Uuid>,
    /// By address, and whether the caller has a publish key, which has separate limits.
    addresses: Keyed<(IpAddr, bool)>,
    started: Instant,
    metrics: Arc<Metrics>,
}

impl RateLimits {
    pub(crate) fn new(
        defaults: DefaultLimits,
        proxies: TrustedProxies,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            defaults,
            proxies,
            // Bounded by the tables of tenants and keys.
            tenants: Keyed::new(usize::MAX),
            keys: Keyed::new(usize::MAX),
            addresses: Keyed::new(ADDRESSES_MAX),
            started: Instant::now(),
            metrics,
        }
    }

    /// The limits that a request is under, once there is room for the least that it can hold.
    pub(crate) fn begin(
        &self,
        access: &Access,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Result<Charges, Problem> {
        let charges = self.charges(access, peer, headers);
        if charges.is_empty() {
            return Ok(charges);
        }
        let length = body::announced_bytes(headers);
        // What a compressed body inflates to is not known yet.
        let is_plain = headers.get(CONTENT_ENCODING).is_none_or(is_identity);
        let bytes = length.filter(|_| is_plain);
        match charges.look(length, bytes, self.now()) {
            Ok(()) => Ok(charges),
            Err(exceeded) => Err(self.refusal(&charges, exceeded, None)),
        }
    }

    /// The limits of an address whose request names its key in the body, once there is room for the
    /// least that it can hold: those of publish keys, which are meant for addresses.
    pub(crate) fn begin_unknown(
        &self,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Result<Charges, Problem> {
        let mut charges = Charges::default();
        self.add_address(&mut charges, true, peer, headers);
        let length = body::announced_bytes(headers);
        match charges.look(length, None, self.now()) {
            Ok(()) => Ok(charges),
            Err(exceeded) => Err(self.refusal(&charges, exceeded, None)),
        }
    }

    /// Charges a request, or refuses it and charges nothing.
    pub(crate) fn charge(
        &self,
        charges: &Charges,
        cost: Cost,
        announced: Option<u64>,
    ) -> Result<Option<RateLimitFields>, Problem> {
        if charges.is_empty() {
            return Ok(None);
        }
        let now = self.now();
        match charges.take(cost, announced, now) {
            Ok(readings) => Ok(Some(RateLimitFields::of(&readings))),
            Err(exceeded) => Err(self.refusal(charges, exceeded, Some(cost))),
        }
    }

    /// Gives back what a request was charged that was refused for lack of room.
    pub(crate) fn give_back(&self, charges: &Charges, cost: Cost) {
        charges.give_back(cost, self.now());
    }

    fn charges(&self, access: &Access, peer: Option<IpAddr>, headers: &HeaderMap) -> Charges {
        let mut charges = Charges::default();
        let defaults = &self.defaults;
        let is_publish = access.is_public();
        let tenant = rates(access.tenant_limits(), &defaults.tenant);
        if !tenant.is_empty() {
            let buckets = self.tenants.of(access.tenant(), self.now());
            charges.add(Scope::Tenant, tenant, buckets);
        }
        let key = match is_publish {
            true => &defaults.publish_key,
            false => &defaults.key,
        };
        let key = rates(access.key_limits(), key);
        if !key.is_empty() {
            let buckets = self.keys.of(access.key_id(), self.now());
            charges.add(Scope::Key, key, buckets);
        }
        self.add_address(&mut charges, is_publish, peer, headers);
        charges
    }

    /// The address that a request counts for; `None` for a trusted proxy that names no client.
    pub(crate) fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        client_address(peer?, headers, &self.proxies)
    }

    fn add_address(
        &self,
        charges: &mut Charges,
        is_publish: bool,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) {
        let defaults = &self.defaults;
        let address = match is_publish {
            true => rates(Some(&defaults.publish_address), &defaults.address),
            false => rates(None, &defaults.address),
        };
        if !address.is_empty()
            && let Some(client) = self.client(peer, headers)
        {
            let buckets = self.addresses.of((client, is_publish), self.now());
            charges.add(Scope::Address, address, buckets);
        }
    }

    fn refusal(&self, charges: &Charges, exceeded: Exceeded, cost: Option<Cost>) -> Problem {
        let Exceeded {
            scope,
            unit,
            rate,
            units,
            ..
        } = exceeded;
        let limited = &self.metrics.limited_requests;
        let label = ByLimit {
            scope: scope.as_str(),
            unit: unit.as_str(),
        };
        limited.get_or_create(&label).inc();
        if let Some(cost) = cost {
            self.metrics
                .limited_events
                .get_or_create(&label)
                .inc_by(cost.events);
        }
        let of = match scope {
            Scope::Tenant => "the tenant",
            Scope::Key => "the API key",
            Scope::Address => "the client's address",
        };
        let when = match cost {
            Some(_) => {
                "send it again after the time in Retry-After, or fewer events at a time".to_owned()
            }
            // `units` are a guess.
            None => format!(
                "it was not read, and by its length it has about {}, for which there is room after the time in Retry-After: send it again then, or fewer events at a time",
                counted(units, unit)
            ),
        };
        let detail = format!(
            "{of} may send {} a second, and {} at once; nothing of this body was stored: {when}",
            counted(rate.per_second.get().into(), unit),
            rate.burst,
        );
        Problem::rate_limited(
            detail,
            exceeded.wait,
            RateLimitFields::of(&charges.readings(self.now())),
        )
    }

    /// The time since the start in ns, as buckets count it.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A number with its unit, as in a sentence.
fn counted(number: u64, unit: Unit) -> String {
    let unit = unit.as_str();
    match number {
        1 => format!("1 {}", unit.trim_end_matches('s')),
        _ => format!("{number} {unit}"),
    }
}

fn is_identity(encoding: &HeaderValue) -> bool {
    encoding.as_bytes().eq_ignore_ascii_case(b"identity")
}

/// The rates of a document; what it leaves out comes from the wider one.
fn rates(own: Option<&Limits>, wider: &Limits) -> Rates {
    let own = own.copied().unwrap_or_default();
    Rates {
        events: rate(
            (own.events_per_second, own.events_burst),
            (wider.events_per_second, wider.events_burst),
        ),
        bytes: rate(
            (own.bytes_per_second, own.bytes_burst),
            (wider.bytes_per_second, wider.bytes_burst),
        ),
    }
}

type Pair = (Option<NonZeroU32>, Option<NonZeroU32>);

fn rate(own: Pair, wider: Pair) -> Option<Rate> {
    let (per_second, burst) = match own {
        (Some(per_second), burst) => (per_second, burst),
        (None, burst) => (wider.0?, burst.or(wider.1)),
    };
    Some(Rate {
        per_second,
        burst: burst.unwrap_or(per_second),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_leaves_out_comes_from_the_wider_one() {
        let n = NonZeroU32::new;
        for (own, wider, expected) in [
            ((0, 0), (0, 0), None),
            ((0, 9), (0, 0), None),
            ((5, 0), (0, 0), Some((5, 5))),
            ((5, 9), (7, 20), Some((5, 9))),
            ((5, 0), (7, 20), Some((5, 5))),
            ((0, 0), (7, 20), Some((7, 20))),
            ((0, 9), (7, 20), Some((7, 9))),
            ((0, 0), (7, 0), Some((7, 7))),
        ] {
            let found = rate((n(own.0), n(own.1)), (n(wider.0), n(wider.1)));
            let found = found.map(|rate| (rate.per_second.get(), rate.burst.get()));
            assert_eq!(found, expected, "{own:?} in {wider:?}");
        }
    }
}
