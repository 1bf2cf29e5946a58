use std::num::NonZeroU32;

use super::*;

fn rates(events: u32, bytes: u32) -> Rates {
    let rate = |number| {
        let number = NonZeroU32::new(number)?;
        Some(Rate {
            per_second: number,
            burst: number,
        })
    };
    Rates {
        events: rate(events),
        bytes: rate(bytes),
    }
}

fn cost(events: u64, bytes: u64) -> Cost {
    Cost { events, bytes }
}

#[test]
fn a_refused_request_takes_nothing_from_any_bucket() {
    let (tenant, key) = (Arc::<Buckets>::default(), Arc::<Buckets>::default());
    let mut charges = Charges::default();
    charges.add(Scope::Tenant, rates(100, 0), Arc::clone(&tenant));
    charges.add(Scope::Key, rates(10, 1000), Arc::clone(&key));
    let left = |charges: &Charges| -> Vec<u64> {
        charges.readings(0).iter().map(|one| one.left).collect()
    };
    let taken = charges.take(cost(8, 100), None, 0).unwrap();
    assert_eq!(taken, charges.readings(0));
    assert_eq!(left(&charges), [92, 2, 900]);
    let refused = charges.take(cost(5, 100), None, 0).unwrap_err();
    assert_eq!((refused.scope, refused.unit), (Scope::Key, Unit::Events));
    assert_eq!(refused.wait, Duration::from_millis(300));
    let refused = charges.take(cost(1, 950), None, 0).unwrap_err();
    assert_eq!((refused.scope, refused.unit), (Scope::Key, Unit::Bytes));
    assert_eq!(left(&charges), [92, 2, 900]);
    charges.give_back(cost(8, 100), 0);
    assert_eq!(left(&charges), [100, 10, 1000]);
}

#[test]
fn what_was_refused_once_is_refused_by_its_head_and_smaller_bodies_are_not() {
    let mut charges = Charges::default();
    charges.add(Scope::Tenant, rates(10, 0), Arc::default());
    charges.take(cost(5, 100), Some(100), 0).unwrap();
    let look = |bytes, now| charges.look(Some(bytes), Some(bytes), now);
    look(1000, 0).unwrap();
    charges.take(cost(10, 1000), Some(1000), 0).unwrap_err();
    look(1000, 0).unwrap_err();
    look(300, 0).unwrap();
    look(1000, 500_000_000).unwrap();
}

#[test]
fn a_body_that_is_not_read_is_told_to_wait_for_what_it_probably_holds() {
    let slow = Rate {
        per_second: NonZeroU32::new(1).unwrap(),
        burst: NonZeroU32::new(10).unwrap(),
    };
    let slow = Rates {
        events: Some(slow),
        bytes: None,
    };
    let mut charges = Charges::default();
    charges.add(Scope::Tenant, slow, Arc::default());
    charges.add(Scope::Key, rates(5, 0), Arc::default());
    charges.take(cost(5, 750), Some(750), 0).unwrap();
    let refused = |length| {
        let refused = charges.look(length, length, 0).unwrap_err();
        (refused.scope, refused.units, refused.wait.as_millis())
    };
    // The tenant has five left; the key has none, and gets five in a second.
    assert_eq!(refused(Some(150)), (Scope::Key, 1, 200));
    assert_eq!(refused(Some(160)), (Scope::Key, 2, 400));
    assert_eq!(refused(Some(900)), (Scope::Tenant, 6, 1000));
    // More than a burst passes once the bucket is full.
    assert_eq!(refused(Some(1500)), (Scope::Tenant, 10, 5000));
    assert_eq!(refused(Some(15_000)), (Scope::Tenant, 100, 5000));
    // Without a length it is taken for one like the last.
    assert_eq!(refused(None), (Scope::Key, 5, 1000));
    // After the wait the body passes.
    let after = Duration::from_millis(5000).as_nanos();
    let after = u64::try_from(after).unwrap();
    charges.take(cost(10, 1500), Some(1500), after).unwrap();
}

#[test]
fn a_compressed_body_is_told_to_wait_for_what_it_probably_inflates_to() {
    let mut charges = Charges::default();
    charges.add(Scope::Key, rates(0, 1000), Arc::default());
    charges.take(cost(5, 1000), Some(100), 0).unwrap();
    let refused = charges.look(Some(50), None, 0).unwrap_err();
    assert_eq!((refused.unit, refused.units), (Unit::Bytes, 500));
    assert_eq!(refused.wait, Duration::from_millis(500));
}
