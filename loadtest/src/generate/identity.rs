//! UUIDs that say which event of which run they belong to.
//!
//! Keeps one invariant: an id leads back to its slot, and an id that this run
//! did not make leads nowhere. So ten million events can be recognised in a
//! table without a list of them in memory.

use uuid::Uuid;

use super::random::Draws;

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// An event.
    Event,
    /// A recommendation request.
    Request,
}

impl Naming {
    const fn purpose(self) -> u64 {
        match self {
            Naming::Event => 101,
            Naming::Request => 102,
        }
    }
}

/// The id of `slot`: 90 bits of hash, then the slot itself, which makes the last
/// eight digits readable for those who debug.
pub(crate) fn of_slot(seed: u64, naming: Naming, slot: u32) -> Uuid {
    let mut draws = Draws::new(seed, naming.purpose(), u64::from(slot));
    let high = draws.next();
    let low = (draws.next() << 32) | u64::from(slot);
    uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
        .into_uuid()
}

/// The slot that `id` names in this run.
pub(crate) fn slot_of(seed: u64, naming: Naming, id: &Uuid) -> Option<u32> {
    let (_, low) = id.as_u64_pair();
    let slot = u32::try_from(low & u64::from(u32::MAX)).expect("32 bits are left");
    (of_slot(seed, naming, slot) == *id).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_back_to_its_slot_in_its_own_run_only() {
        for slot in [0, 1, 77, u32::MAX] {
            let id = of_slot(5, Naming::Event, slot);
            assert_eq!(id.get_version_num(), 4);
            assert_eq!(slot_of(5, Naming::Event, &id), Some(slot));
            assert_eq!(slot_of(6, Naming::Event, &id), None);
            assert_eq!(slot_of(5, Naming::Request, &id), None);
        }
    }
}
