//! The openings of this directory, and the sequence from which on each could write.
//!
//! A copy of a spool has the same spool id and continues with the same sequences, but with
//! other records. So a watermark in the database only counts for records that the opening which
//! set it can have had.
//!
//! Invariant: an opening is on disk here before the database sees it. So an opening that is not
//! listed belongs to another copy, or is pruned.

use std::io;

use anyhow::{Context, bail, ensure};
use uuid::Uuid;

use crate::log::read::Proof;
use crate::log::spool::disk::{Disk, write_all};
use crate::log::spool::format::{Counts, STREAMS_MAX};

pub(crate) const FILE_NAME: &str = "openings";
const TEMPORARY_NAME: &str = "openings.new";
/// Of the version that is written.
const FIRST_LINE: &str = "recsys-ingest openings 2";
/// Of the version before, which is read as well: it counts at most 16 streams.
const FIRST_LINE_BEFORE: &str = "recsys-ingest openings 1";

/// Openings that are kept. A directory reaches this many only if it is started a thousand times
/// while its oldest segment stays. Records that a pruned opening has acked are looked up row by
/// row instead of being skipped.
const OPENINGS_MAX: usize = 1000;

/// A larger file is damaged, or is not this program's.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Stands for all openings of a directory without a record of them.
const UNRECORDED: Uuid = Uuid::nil();

/// The openings of a directory, the current one last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    spool_id: Uuid,
    lineage: Uuid,
    inherited: Counts,
    openings: Vec<Opening>,
}

/// One opening: from a start to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Opening {
    id: Uuid,
    /// No record that it wrote has a lower sequence.
    first: u64,
    /// Items of each stream that had been accepted when it began.
    accepted: Counts,
}

/// What a watermark in the database proves about the records in this directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vouched {
    /// All records up to the watermark are acked.
    UpToWatermark,
    /// All records up to `sequence` are acked. Later records share their sequences with those
    /// that another copy has acked.
    UpTo {
        /// The last record that is acked.
        sequence: u64,
        /// Items of each stream up to there.
        accepted: Counts,
    },
    /// Nothing: an opening of another copy has set the watermark.
    Nothing,
}

impl History {
    /// The openings of a directory without a record of them. `used`: it holds records.
    pub(crate) fn unrecorded(spool_id: Uuid, used: bool) -> Self {
        let before = Opening {
            id: UNRECORDED,
            first: 0,
            accepted: [0; STREAMS_MAX],
        };
        Self {
            spool_id,
            lineage: Uuid::nil(),
            inherited: [0; STREAMS_MAX],
            openings: used.then_some(before).into_iter().collect(),
        }
    }

    /// The same directory as another lineage. It accounts for all items except the `inherited`
    /// ones.
    pub(crate) fn fork(self, inherited: Counts) -> Self {
        Self {
            lineage: Uuid::new_v4(),
            inherited,
            ..self
        }
    }

    /// Begins an opening. Its records get sequences from the returned one on, which is `next`
    /// or higher. No record on disk has a sequence below `oldest`.
    pub(crate) fn begin(&mut self, next: u64, accepted: Counts, oldest: Option<u64>) -> u64 {
        let first = next.max(self.openings.last().map_or(0, |last| last.first));
        self.openings.push(Opening {
            id: Uuid::new_v4(),
            first,
            accepted,
        });
        let oldest = oldest.unwrap_or(first);
        let ended = |at: usize| {
            let next = self.openings.get(at + 1);
            next.is_some_and(|next| next.first <= oldest)
        };
        // The newest opening without records on disk stays: it may have set the watermark.
        let gone = (1..self.openings.len()).take_while(|&at| ended(at)).count();
        let surplus = self.openings.len().saturating_sub(OPENINGS_MAX);
        self.openings.drain(..gone.max(surplus));
        first
    }

    /// Identifies this directory and its copies, as opposed to directories that were forked.
    /// Nil unless this one was forked.
    pub fn lineage(&self) -> Uuid {
        self.lineage
    }

    /// The current opening.
    pub fn opening(&self) -> Uuid {
        self.openings.last().map_or(UNRECORDED, |last| last.id)
    }

    /// Whether `opening` is one of this directory's. `None`, an opening that was not recorded,
    /// counts as one.
    pub fn knows(&self, opening: Option<Uuid>) -> bool {
        opening.is_none_or(|id| self.openings.iter().any(|known| known.id == id))
    }

    /// Items of a stream that were accepted before this lineage began. Another lineage accounts
    /// for them.
    pub fn inherited(&self, stream: u8) -> u64 {
        let count = self.inherited.get(usize::from(stream));
        count.copied().unwrap_or(0)
    }

    /// Items of a stream that had been accepted when the current opening began.
    pub(crate) fn accepted(&self, stream: u8) -> u64 {
        let last = self.openings.last();
        let count = last.and_then(|last| last.accepted.get(usize::from(stream)));
        count.copied().unwrap_or(0)
    }

    /// What a watermark proves that the opening `by` has set; `None` stands for an opening that
    /// was not recorded.
    pub fn vouched(&self, by: Option<Uuid>, watermark: u64) -> Vouched {
        // A ledger row without a watermark contradicts nothing.
        if watermark == 0 && by.is_none() {
            return Vouched::UpToWatermark;
        }
        let by = by.unwrap_or(UNRECORDED);
        let Some(at) = self.openings.iter().position(|opening| opening.id == by) else {
            return Vouched::Nothing;
        };
        match self.openings.get(at + 1) {
            Some(next) if watermark >= next.first => match by {
                // No record tells whether that was a copy.
                UNRECORDED => Vouched::Nothing,
                _ => Vouched::UpTo {
                    sequence: next.first.saturating_sub(1),
                    accepted: next.accepted,
                },
            },
            _ => Vouched::UpToWatermark,
        }
    }

    /// [`vouched`](Self::vouched) for one stream.
    pub(crate) fn proof(&self, stream: u16, by: Option<Uuid>, watermark: u64) -> Proof {
        match self.vouched(by, watermark) {
            Vouched::UpToWatermark => Proof::UpToWatermark,
            Vouched::UpTo { sequence, accepted } => Proof::UpTo {
                sequence,
                accepted: accepted.get(usize::from(stream)).copied(),
            },
            Vouched::Nothing => Proof::Nothing,
        }
    }

    pub(crate) fn encode(&self) -> String {
        let Self {
            spool_id,
            lineage,
            inherited,
            openings,
        } = self;
        let mut text = format!(
            "{FIRST_LINE}\ninstance {spool_id}\nlineage {lineage}\ninherited{}\n",
            numbers(inherited)
        );
        for Opening {
            id,
            first,
            accepted,
        } in openings
        {
            text.push_str(&format!("opening {id} {first}{}\n", numbers(accepted)));
        }
        let crc = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("crc {crc:08x}\n"));
        text
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let (body, crc) = text.strip_suffix('\n')?.rsplit_once("\ncrc ")?;
        let body = format!("{body}\n");
        if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
            return None;
        }
        let mut lines = body.lines().skip(1);
        let spool_id = lines.next()?.strip_prefix("instance ")?.parse().ok()?;
        let lineage = lines.next()?.strip_prefix("lineage ")?.parse().ok()?;
        let inherited = counts(lines.next()?.strip_prefix("inherited")?)?;
        let openings = lines
            .map(|line| {
                let mut words = line.strip_prefix("opening ")?.splitn(3, ' ');
                Some(Opening {
                    id: words.next()?.parse().ok()?,
                    first: words.next()?.parse().ok()?,
                    accepted: counts(words.next().unwrap_or_default())?,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            spool_id,
            lineage,
            inherited,
            openings,
        })
    }
}

/// Counts as decimal text, each after a space, without the trailing zeros.
fn numbers(counts: &Counts) -> String {
    let used = counts.iter().rposition(|&count| count > 0);
    let used = &counts[..used.map_or(0, |last| last + 1)];
    used.iter().map(|count| format!(" {count}")).collect()
}

fn counts(text: &str) -> Option<Counts> {
    let mut counts = [0; STREAMS_MAX];
    for (at, word) in text.split_whitespace().enumerate() {
        *counts.get_mut(at)? = word.parse().ok()?;
    }
    Some(counts)
}

/// The openings recorded for `spool_id`; `None` if this directory has no record of them.
pub(crate) fn read(disk: &dyn Disk, spool_id: Uuid) -> anyhow::Result<Option<History>> {
    let file = match disk.open(FILE_NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot open the spool's record of openings"),
    };
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match file.read_at(&mut piece, bytes.len() as u64) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read the spool's record of openings"),
        }
        ensure!(
            bytes.len() <= FILE_BYTES_MAX,
            "the file {FILE_NAME} in the spool has more than {FILE_BYTES_MAX} bytes: it is none of this program's"
        );
    }
    let text = String::from_utf8_lossy(&bytes);
    let first = text.lines().next().unwrap_or_default();
    let is_known = [FIRST_LINE, FIRST_LINE_BEFORE].contains(&first);
    if !is_known && first.starts_with("recsys-ingest openings ") {
        bail!(
            "the file {FILE_NAME} in the spool is of another version ('{first}'): start the \
             version that wrote it"
        );
    }
    let Some(history) = History::decode(&text) else {
        bail!(
            "the file {FILE_NAME} in the spool is damaged: remove it. Nothing is lost: what is in \
             the spool is then looked up row by row. If `spool fork` was run on this directory, \
             run it again"
        );
    };
    Ok((history.spool_id == spool_id).then_some(history))
}

/// Stores `history` in the directory, atomically.
pub(crate) fn write(disk: &dyn Disk, history: &History) -> io::Result<()> {
    let file = disk.create(TEMPORARY_NAME, 0)?;
    write_all(file.as_ref(), history.encode().as_bytes(), 0)?;
    file.sync_data()?;
    disk.rename(TEMPORARY_NAME, FILE_NAME)?;
    disk.sync_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Counts = [0; STREAMS_MAX];

    fn counting(items: u64) -> Counts {
        let mut counts = NONE;
        counts[1] = items;
        counts
    }

    fn used(starts: &[u64]) -> History {
        let mut history = History::unrecorded(Uuid::new_v4(), true);
        for &start in starts {
            assert_eq!(history.begin(start, counting(start * 2), Some(1)), start);
        }
        history
    }

    fn ids(history: &History) -> Vec<Uuid> {
        history.openings.iter().map(|opening| opening.id).collect()
    }

    #[test]
    fn a_record_reads_as_it_was_written_and_damage_is_noticed() {
        let history = used(&[3, 5, 5, 900]).fork(counting(7));
        let text = history.encode();
        assert_eq!(History::decode(&text), Some(history));
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            let damaged = String::from_utf8_lossy(&damaged).into_owned();
            assert_eq!(History::decode(&damaged), None, "byte {at}");
            assert_eq!(History::decode(&text[..at]), None, "cut at byte {at}");
        }
    }

    #[test]
    fn a_watermark_counts_for_frames_that_its_opening_can_have_had() {
        let history = used(&[10, 20, 20]);
        let [_, first, second, third] = ids(&history)[..] else {
            panic!("{history:?}");
        };
        let up_to = |sequence| Vouched::UpTo {
            sequence,
            accepted: counting(40),
        };
        for (by, watermark, expected) in [
            (Some(first), 9, Vouched::UpToWatermark),
            (Some(first), 19, Vouched::UpToWatermark),
            (Some(first), 20, up_to(19)),
            (Some(first), 500, up_to(19)),
            // It wrote nothing here, and acked what it found.
            (Some(second), 19, Vouched::UpToWatermark),
            (Some(second), 20, up_to(19)),
            (Some(third), 500, Vouched::UpToWatermark),
            // An opening that was not recorded.
            (None, 9, Vouched::UpToWatermark),
            (None, 10, Vouched::Nothing),
            (Some(Uuid::new_v4()), 5, Vouched::Nothing),
            // The watermark is another copy's, even though nothing is acked.
            (Some(Uuid::new_v4()), 0, Vouched::Nothing),
            (None, 0, Vouched::UpToWatermark),
        ] {
            assert_eq!(history.vouched(by, watermark), expected, "{watermark}");
        }
    }

    #[test]
    fn openings_are_forgotten_once_their_frames_are_gone_but_for_the_last_of_these() {
        let mut history = used(&[10, 20, 30]);
        let before = ids(&history);
        history.begin(40, NONE, Some(20));
        // Those before 10 and before 20 have no records any more.
        assert_eq!(ids(&history)[..3], before[1..]);
        history.begin(40, NONE, Some(19));
        assert_eq!(ids(&history)[..3], before[1..]);
        for _ in 0..2 * OPENINGS_MAX {
            history.begin(40, NONE, Some(19));
        }
        assert_eq!(history.openings.len(), OPENINGS_MAX);
    }

    #[test]
    fn a_record_that_is_newer_than_the_segments_beside_it_moves_sequences_on() {
        let mut history = used(&[10, 90]);
        assert_eq!(history.begin(50, NONE, Some(1)), 90);
    }
}
