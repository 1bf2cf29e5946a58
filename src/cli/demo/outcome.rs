//! What became of a shop: what the service said, and what Postgres holds.

use super::shop::Play;
use crate::jobs::join_quality::JoinQuality;
use crate::jobs::played::Numbers;

/// What the service said to the events of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Posted {
    pub(super) events: usize,
    pub(super) duplicates: u64,
    /// Whether they were in Postgres when the service answered: then duplicates were counted.
    pub(super) is_committed: bool,
}

/// What Postgres holds.
pub(super) struct Found {
    pub(super) numbers: Numbers,
    pub(super) join: Vec<JoinQuality>,
}

/// Whether Postgres holds what was played: no event less, none twice.
pub(super) fn is_as_played(play: &Play, found: &Found) -> bool {
    let sum = |of: fn(&JoinQuality) -> u64| found.join.iter().map(of).sum::<u64>();
    found.numbers == play.numbers
        && sum(|line| line.joined) == play.joined
        && sum(|line| line.without_token) == play.without_token
        && sum(|line| line.token_unknown) == play.token_unknown
}
