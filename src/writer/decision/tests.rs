//! Simulated histories: several copies of a spool and one database, with every disconnect, copy,
//! restore and crash that the code handles.

#![expect(
    clippy::cast_possible_wrap,
    reason = "a history has a few dozen events"
)]

mod database;
mod world;

use super::*;
use world::World;

/// Histories in each run of the tests.
const HISTORIES: u64 = 100_000;
/// Steps in a history.
const STEPS: usize = 48;
#[test]
fn no_history_of_copies_cuts_and_restores_loses_an_event_or_tells_a_lie() {
    let lives = |seed: u64| {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.end();
    };
    let halves = [0..HISTORIES / 2, HISTORIES / 2..HISTORIES];
    std::thread::scope(|scope| {
        for half in halves {
            scope.spawn(move || {
                for seed in half {
                    let lived = std::panic::catch_unwind(|| lives(seed));
                    assert!(lived.is_ok(), "in history {seed}");
                }
            });
        }
    });
}

const ME: Opening = Opening {
    id: Uuid::from_u128(1),
    epoch: 5,
};

fn mark(watermark: u64, opening: u128, epoch: u64) -> Option<Mark> {
    Some(Mark {
        watermark,
        opening: Some(Uuid::from_u128(opening)),
        epoch,
    })
}

#[test]
fn a_batch_is_settled_only_by_a_commit_of_this_opening_that_the_row_still_shows() {
    let store = |seen| Decision::Store { seen };
    for (row, sent, expected) in [
        (mark(10, 1, 5), true, Decision::Committed),
        // No COMMIT was sent, so no watermark counts as an answer.
        (mark(10, 1, 5), false, store(10)),
        (mark(99, 1, 5), false, store(99)),
        (mark(7, 1, 5), true, store(7)),
        (mark(99, 1, 5), true, store(99)),
        // The opening's own row, at any epoch: a restored database repeats epochs.
        (mark(10, 1, 3), true, Decision::Committed),
        (mark(10, 1, 9), false, store(10)),
        // A later opening's row.
        (mark(10, 2, 6), true, Decision::Fenced),
        (mark(99, 2, 6), false, Decision::Fenced),
        (mark(10, 2, 5), true, Decision::Fenced),
        // A row older than this opening.
        (mark(10, 2, 4), true, Decision::TakeOver),
        (None, true, Decision::TakeOver),
    ] {
        assert_eq!(decide(row, ME, 10, sent), expected, "{row:?} {sent}");
    }
}
