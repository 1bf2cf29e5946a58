//! Records that wait for a group, taken from their owners in turn.
//!
//! Deficit round robin: each round gives each owner the same number of bytes. So a record waits for
//! one round of the other owners at most, however many records they have waiting. Records of one
//! owner keep their order. Bounded by its caller.

use std::collections::VecDeque;

/// Bytes of each owner in each round: hundreds of single events, or part of a large body.
const ROUND_BYTES: usize = 64 << 10;

/// What waits, by owner.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    flows: Vec<Flow<T>>,
    /// The flow whose turn it is.
    turn: usize,
    /// The flow that was pushed to last: most often it is the next one, too.
    last: usize,
    len: usize,
}

#[derive(Debug)]
struct Flow<T> {
    owner: u128,
    /// Bytes that it may still send in this round, and what it did not use in earlier ones for a
    /// large record.
    credit: usize,
    /// What waits, with its bytes. Never empty.
    items: VecDeque<(usize, T)>,
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> Self {
        Self {
            flows: Vec::new(),
            turn: 0,
            last: 0,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, owner: u128, bytes: usize, item: T) {
        self.len += 1;
        let is_of = |flow: &Flow<T>| flow.owner == owner;
        if !self.flows.get(self.last).is_some_and(is_of) {
            self.last = match self.flows.iter().position(is_of) {
                Some(at) => at,
                None => {
                    self.flows.push(Flow {
                        owner,
                        credit: ROUND_BYTES,
                        items: VecDeque::new(),
                    });
                    self.flows.len() - 1
                }
            };
        }
        self.flows[self.last].items.push_back((bytes, item));
    }

    /// The next item, with its bytes.
    pub(super) fn pop(&mut self) -> Option<(usize, T)> {
        if self.flows.is_empty() {
            return None;
        }
        loop {
            if self.turn >= self.flows.len() {
                self.turn = 0;
            }
            let flow = &mut self.flows[self.turn];
            let bytes = flow.items.front().map_or(0, |(bytes, _)| *bytes);
            if bytes <= flow.credit {
                flow.credit -= bytes;
                let next = flow.items.pop_front();
                if flow.items.is_empty() {
                    self.flows.swap_remove(self.turn);
                }
                self.len -= 1;
                return next;
            }
            flow.credit += ROUND_BYTES;
            self.turn += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_record_waits_for_one_round_however_much_another_owner_sends() {
        let mut queue = FairQueue::new();
        for n in 0..4000 {
            queue.push(1, 8 << 10, n);
        }
        for n in 0..3 {
            queue.push(2, 8 << 20, 10_000 + n);
        }
        queue.push(3, 300, 99_999);
        let mut before = 0;
        while let Some((bytes, item)) = queue.pop() {
            if item == 99_999 {
                break;
            }
            before += bytes;
        }
        assert!(before <= 2 * ROUND_BYTES, "{before} bytes before it");
    }

    proptest! {
        #[test]
        fn all_come_out_and_those_of_one_owner_in_order(
            pushes in proptest::collection::vec((0..5_u128, 0..200_000_usize, any::<bool>()), 1..200),
        ) {
            let mut queue = FairQueue::new();
            let mut popped = Vec::new();
            for (n, (owner, bytes, pops)) in pushes.iter().enumerate() {
                queue.push(*owner, *bytes, (*owner, n));
                if *pops {
                    popped.extend(queue.pop());
                }
            }
            popped.extend(std::iter::from_fn(|| queue.pop()));
            prop_assert_eq!(queue.len(), 0);
            prop_assert_eq!(popped.len(), pushes.len());
            for owner in 0..5 {
                let of: Vec<_> = popped.iter().filter(|(_, (of, _))| *of == owner).collect();
                prop_assert!(of.is_sorted_by_key(|(_, (_, n))| *n));
            }
        }
    }
}
