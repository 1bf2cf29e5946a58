//! Copies that `copytruncate` makes: a new file begins as a followed one does, which becomes shorter
//! soon after.

use std::fs::File;
use std::io;
use std::time::Instant;

use super::{COPY_WAIT, Follower};
use crate::ship::files::{self, Found};
use crate::ship::line::head_of;
use crate::ship::pipeline::Handed;
use crate::ship::positions::Position;

impl Follower {
    /// Whether a new file begins as a followed one does, and the other may soon be truncated.
    pub(super) fn may_be_a_copy(&mut self, found: &Found, now: Instant) -> bool {
        let id = (found.device, found.inode);
        let is_alike = || {
            let head = files::head_at(&File::open(&found.path)?)?;
            let mut others = self.files.iter().filter(|file| file.is_there);
            io::Result::Ok(others.any(|file| {
                file.has_head && file.position.offset > 0 && head == Some(file.position.head)
            }))
        };
        let is_alike = is_alike().unwrap_or(false);
        let since = *self.suspects.entry(id).or_insert(now);
        let waits = is_alike && now.duration_since(since) < COPY_WAIT;
        if !waits {
            self.suspects.remove(&id);
        }
        waits
    }

    /// If the content of a file that became shorter stands in a new one, that one goes on with it.
    pub(super) fn hand_to_a_copy(&mut self, at: usize, fresh: &mut Vec<Found>) {
        let file = &self.files[at];
        if !file.has_head || file.position.offset == 0 {
            return;
        }
        let known = file.position.clone();
        let is_copy = |found: &Found| {
            let same = || {
                let copy = File::open(&found.path)?;
                let tail = files::tail_at(&copy, known.offset)?;
                let head = files::head_at(&copy)?;
                io::Result::Ok(head == Some(known.head) && head_of(&tail) == known.tail)
            };
            found.size >= known.offset && same().unwrap_or(false)
        };
        let Some(copy) = fresh.iter().position(is_copy) else {
            return;
        };
        let copy = fresh.remove(copy);
        self.add(&copy, Instant::now());
        let Some(taken_over) = self.files.last_mut() else {
            return;
        };
        taken_over.position = Position {
            path: copy.path,
            device: copy.device,
            inode: copy.inode,
            born_us: copy.born_us,
            lines: 0,
            rejected: 0,
            ..known
        };
        taken_over.has_head = true;
        let handed = Handed::TakeOver(taken_over.key, Box::new(taken_over.position.clone()));
        self.outbox.push_back(handed);
    }
}
