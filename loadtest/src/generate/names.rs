//! The names that numbers stand for: UUIDs, items, hashes.
//!
//! Keeps one invariant: an id leads back to its slot, and an id that this run did
//! not make leads nowhere. So ten million events can be recognised in a table
//! without a list of them in memory.

use uuid::Uuid;

use super::random::Draws;

/// What ids name: an event.
pub const EVENT: u64 = 101;
/// A recommendation request.
pub const REQUEST: u64 = 102;

/// The id of `slot`: 90 bits of hash, then the slot itself, which makes the last
/// eight digits readable for those who debug.
pub fn of_slot(seed: u64, naming: u64, slot: u32) -> Uuid {
    let mut draws = Draws::new(seed, naming, slot);
    let high = draws.next();
    let low = (draws.next() << 32) | u64::from(slot);
    let bytes = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The slot that `id` names in this run.
pub fn slot_of(seed: u64, naming: u64, id: &Uuid) -> Option<u32> {
    let (_, low) = id.as_u64_pair();
    let slot = u32::try_from(low & u64::from(u32::MAX)).expect("32 bits are left");
    (of_slot(seed, naming, slot) == *id).then_some(slot)
}

/// Every 97th item has a name that needs escapes and more than ASCII.
const ODD_ITEM: u32 = 97;

/// The id of an item.
pub fn item(item: u32) -> String {
    match item % ODD_ITEM {
        96 => format!("item-{item}/größe \"XL\"\u{1}\n"),
        _ => format!("item-{item}"),
    }
}

/// A hash as a client sends it that hashes by itself; users and sessions differ by `purpose`.
pub fn hash(seed: u64, purpose: u64, number: u32) -> [u8; 32] {
    Draws::new(seed, purpose, number).bytes()
}
