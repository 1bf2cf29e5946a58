//! From the results of rows to those of events.

use super::response::{Answer, QuarantinedEvent, Room, Summary};
use crate::event::decode::Decoded;
use crate::event::result::{LEFT_OUT, PARTITION_BUDGET, QuarantinedRow, RecordResult, TOO_OLD};

/// Most bytes of a Postgres message that are passed on; `quarantine show` prints all of it.
const MESSAGE_BYTES_MAX: usize = 512;

/// Where the words come from that say why a row is in quarantine. Postgres's may name columns, constraints and values,
/// which only operators and their servers are to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Those of Postgres.
    OfPostgres,
    /// Those of this service.
    Ours,
}

impl Words {
    fn of(self, bad: &QuarantinedRow) -> String {
        if self == Self::OfPostgres {
            return beginning_of(&bad.message);
        }
        let seen = match bad.sqlstate.get(..2) {
            _ if bad.sqlstate == TOO_OLD => {
                return "the event is older than what is kept".to_owned();
            }
            _ if bad.sqlstate == PARTITION_BUDGET => "the event waits for a partition of its time",
            _ if bad.sqlstate == LEFT_OUT => "the database left the event out",
            Some("22") => "the database does not take a value of the event",
            Some("23") => "the event breaks a constraint of the database",
            _ => "the database refused the event",
        };
        format!("{seen}; it is kept, and an operator can see why and store it")
    }
}

/// The events of the body that each row holds: results come by row, the response reports events. A
/// row may hold several events, and an event several rows.
#[derive(Debug)]
pub struct RowIndex {
    /// Rows and their events, by row.
    rows: Vec<(u32, u32)>,
    events: usize,
}

impl RowIndex {
    /// Takes the row index out of a decoded body.
    pub fn of(decoded: &mut Decoded) -> Self {
        let mut row_index = std::mem::take(&mut decoded.row_index);
        row_index.sort_unstable();
        Self {
            rows: row_index,
            events: decoded.accepted,
        }
    }

    /// Number of accepted events.
    pub fn events(&self) -> usize {
        self.events
    }

    /// The events in a row.
    fn events_of(&self, row: u32) -> impl Iterator<Item = u32> {
        let from = self.rows.partition_point(|&(of, _)| of < row);
        self.rows[from..]
            .iter()
            .take_while(move |&&(of, _)| of == row)
            .map(|&(_, event)| event)
    }

    /// Completes a response with the result of its record: each event counts once, with the worst
    /// result of its rows.
    pub fn settle(
        &self,
        result: &RecordResult,
        words: Words,
        answer: &mut Answer,
        room: &mut Room,
    ) {
        let mut quarantined: Vec<_> = result
            .quarantined
            .iter()
            .flat_map(|bad| self.events_of(bad.row).map(move |index| (index, bad)))
            .collect();
        // Rows come back in the order of their keys. An event is told with its first one.
        quarantined.sort_unstable_by_key(|(index, bad)| (*index, bad.row));
        quarantined.dedup_by_key(|(index, _)| *index);
        let is_quarantined = |index: &u32| {
            let found = quarantined.binary_search_by_key(index, |(index, _)| *index);
            found.is_ok()
        };
        let mut duplicates: Vec<_> = result
            .duplicates
            .iter()
            .flat_map(|&row| self.events_of(row))
            .filter(|index| !is_quarantined(index))
            .collect();
        duplicates.sort_unstable();
        duplicates.dedup();
        let duplicates = duplicates.len();
        answer.committed = Some(self.events() - duplicates - quarantined.len());
        answer.duplicates = Some(duplicates);
        let mut results = quarantined
            .into_iter()
            .map(|(index, bad)| QuarantinedEvent {
                index,
                code: bad.sqlstate.clone(),
                message: words.of(bad),
            });
        let (told, cut_off) = room.take_first(&mut results);
        let mut summary = Summary::default();
        for result in cut_off.into_iter().chain(results) {
            summary.add(result.code.into(), result.index);
        }
        answer.quarantined = Some(told);
        answer.quarantined_more = summary.finish();
    }
}

/// The message, or its beginning if it is long.
fn beginning_of(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of committed and duplicate events, and each quarantined one with its code.
    fn settled(
        rows: &[(u32, u32)],
        duplicates: &[u32],
        quarantined: &[(u32, &str)],
    ) -> (usize, usize, Vec<(u32, String)>) {
        let mut events: Vec<_> = rows.iter().map(|(_, event)| *event).collect();
        events.sort_unstable();
        events.dedup();
        let row_index = RowIndex {
            rows: rows.to_vec(),
            events: events.len(),
        };
        let bad = |(row, code): &(u32, &str)| QuarantinedRow {
            row: *row,
            sqlstate: (*code).to_owned(),
            message: String::new(),
        };
        let result = RecordResult {
            duplicates: duplicates.to_vec(),
            quarantined: quarantined.iter().map(bad).collect(),
        };
        let mut answer = Answer::default();
        row_index.settle(
            &result,
            Words::OfPostgres,
            &mut answer,
            &mut Room::of(10_000, 10),
        );
        let told = answer.quarantined.unwrap().into_iter();
        (
            answer.committed.unwrap(),
            answer.duplicates.unwrap(),
            told.map(|one| (one.index, one.code)).collect(),
        )
    }

    #[test]
    fn an_event_counts_once_with_the_worst_of_its_rows() {
        // Event 0 has one row, event 2 has three, event 3 has two; event 1 was rejected.
        let several = [(0, 0), (1, 2), (2, 2), (3, 2), (4, 3), (5, 3)];
        // Two lists of lines, each in one row.
        let lines = [(0, 0), (0, 2), (0, 3), (1, 1), (1, 4)];
        let bad = |all: &[(u32, &str)]| -> Vec<(u32, String)> {
            all.iter()
                .map(|(index, code)| (*index, (*code).to_owned()))
                .collect()
        };
        for (rows, duplicates, quarantined, expected) in [
            (&several[..], &[][..], &[][..], (3, 0, bad(&[]))),
            (&several, &[2], &[], (2, 1, bad(&[]))),
            (&several, &[3, 1, 2, 0], &[], (1, 2, bad(&[]))),
            (&several, &[1, 3], &[(2, "a")], (2, 0, bad(&[(2, "a")]))),
            (
                &several,
                &[0, 5],
                &[(4, "c"), (3, "b"), (2, "a")],
                (0, 1, bad(&[(2, "a"), (3, "c")])),
            ),
            (&lines, &[0], &[], (2, 3, bad(&[]))),
            (
                &lines,
                &[0],
                &[(1, "a")],
                (0, 3, bad(&[(1, "a"), (4, "a")])),
            ),
        ] {
            let found = settled(rows, duplicates, quarantined);
            assert_eq!(found, expected, "{rows:?} {duplicates:?} {quarantined:?}");
        }
    }

    #[test]
    fn a_long_message_is_cut_between_two_characters() {
        let cut = beginning_of(&"é".repeat(600));
        assert_eq!(cut.chars().count(), 257);
        assert_eq!(beginning_of("short"), "short");
    }
}
