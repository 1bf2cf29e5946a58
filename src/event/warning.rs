//! What decoding did to accepted events that their sender may not expect: kept a field that the
//! format does not know, cut digits off, took the time of arrival.
//!
//! Ordinary events leave nothing here, and then nothing is allocated.

use std::borrow::Cow;

/// Most warnings of one body that name their field; the others are summed up by code.
pub const NAMED_MAX: usize = 20;

/// Longest name of a field that is repeated, in characters.
const NAME_CHARS_MAX: usize = 64;

/// What was done. The names are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WarningCode {
    /// The format does not know the field; it is kept in `meta.extra`.
    UnknownField,
    /// A field that the format does not know stands twice in one object; the last one counts.
    DuplicateField,
    /// A member of the envelope means nothing; it was dropped.
    DroppedField,
    /// A field whose usual place is taken is kept in `meta.extra`.
    MovedField,
    /// A time has digits beyond the microsecond; they were cut off.
    TimeTruncated,
    /// A number has more than six decimals; it was rounded.
    ValueRounded,
    /// The event has an id and no time, so that a retry is not recognised: its time is that of its
    /// arrival.
    ArrivalTimeUsed,
}

impl WarningCode {
    /// All codes, in the order of the documentation.
    pub const ALL: [WarningCode; 7] = [
        WarningCode::UnknownField,
        WarningCode::DuplicateField,
        WarningCode::DroppedField,
        WarningCode::MovedField,
        WarningCode::TimeTruncated,
        WarningCode::ValueRounded,
        WarningCode::ArrivalTimeUsed,
    ];

    /// The code's name in responses.
    pub const fn as_str(self) -> &'static str {
        match self {
            WarningCode::UnknownField => "unknown_field",
            WarningCode::DuplicateField => "duplicate_field",
            WarningCode::DroppedField => "dropped_field",
            WarningCode::MovedField => "moved_field",
            WarningCode::TimeTruncated => "time_truncated",
            WarningCode::ValueRounded => "value_rounded",
            WarningCode::ArrivalTimeUsed => "arrival_time_used",
        }
    }

    /// What was done, for the documentation and the page of codes.
    pub const fn description(self) -> &'static str {
        match self {
            WarningCode::UnknownField => {
                "The format does not know the field; it is kept in `meta.extra`"
            }
            WarningCode::DuplicateField => {
                "A field that the format does not know stands twice in one object (the event, one item, the order); the last one is kept"
            }
            WarningCode::DroppedField => {
                "The envelope has a member beside `events` and `sent_at`, which belongs to no event; it was dropped"
            }
            WarningCode::MovedField => {
                "The field's place is taken (`meta.schema`, `context` beside `request.context`); it is kept in `meta.extra`"
            }
            WarningCode::TimeTruncated => {
                "A time has digits other than 0 beyond the microsecond; they were cut off"
            }
            WarningCode::ValueRounded => {
                "A value has more than six decimals; it was rounded, half away from zero"
            }
            WarningCode::ArrivalTimeUsed => {
                "The event has an id and no time that it tells: a retry is not recognised"
            }
        }
    }
}

/// Accepted events to which the same thing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What was done.
    pub code: WarningCode,
    /// The field that it was done to, or the beginning of a long name.
    pub field: String,
    /// How many events.
    pub count: usize,
}

/// The notes on the event that is being decoded.
#[derive(Debug, Default)]
pub(super) struct Notes<'a> {
    list: Vec<(WarningCode, Cow<'a, str>)>,
}

impl<'a> Notes<'a> {
    pub(super) fn add(&mut self, code: WarningCode, field: impl Into<Cow<'a, str>>) {
        self.list.push((code, field.into()));
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets the notes on an event.
    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// Bytes of memory that the notes take, apart from unescaped names.
    pub(super) fn held_bytes(&self) -> usize {
        self.list.capacity() * size_of::<(WarningCode, Cow<'_, str>)>()
    }
}

/// The warnings of a body.
#[derive(Debug, Default)]
pub struct Warnings {
    /// The first [`NAMED_MAX`], in the order in which they came up.
    named: Vec<Tally>,
    /// The others by code, without a name.
    others: Vec<Tally>,
}

#[derive(Debug)]
struct Tally {
    warning: Warning,
    /// The last event that was counted, so that each counts once.
    last: u32,
}

impl Warnings {
    /// Counts the notes on the event at this place of the body, and forgets them.
    pub(super) fn count(&mut self, index: u32, notes: &mut Notes<'_>) {
        for (code, field) in notes.list.drain(..) {
            self.count_one(index, code, beginning_of(&field));
        }
    }

    /// Adds a warning that is counted already; without a name, or without room for it, to those that are
    /// summed up.
    pub(super) fn add(&mut self, code: WarningCode, field: &str, count: usize) {
        let mut known = self.named.iter_mut();
        if let Some(tally) = known.find(|tally| tally.is_of(code, field)) {
            tally.warning.count += count;
            return;
        }
        match !field.is_empty() && self.named.len() < NAMED_MAX {
            true => self.named.push(Tally::of(code, field, count)),
            false => match self.others.iter_mut().find(|tally| tally.is_of(code, "")) {
                Some(tally) => tally.warning.count += count,
                None => self.others.push(Tally::of(code, "", count)),
            },
        }
    }

    /// Counts one note.
    fn count_one(&mut self, index: u32, code: WarningCode, field: &str) {
        let mut known = self.named.iter_mut();
        if let Some(tally) = known.find(|tally| tally.is_of(code, field)) {
            tally.count(index);
            return;
        }
        if self.named.len() < NAMED_MAX {
            self.named.push(Tally::new(index, code, field));
            return;
        }
        match self.others.iter_mut().find(|tally| tally.is_of(code, "")) {
            Some(tally) => tally.warning.count += 1,
            None => self.others.push(Tally::new(index, code, "")),
        }
    }

    /// The warnings that name their field.
    pub fn named(&self) -> impl Iterator<Item = &Warning> {
        self.named.iter().map(|tally| &tally.warning)
    }

    /// The others, summed up by code: without a field, how many times.
    pub fn others(&self) -> impl Iterator<Item = &Warning> {
        self.others.iter().map(|tally| &tally.warning)
    }
}

impl Tally {
    /// A tally that is complete.
    fn of(code: WarningCode, field: &str, count: usize) -> Self {
        let mut tally = Self::new(0, code, field);
        tally.warning.count = count;
        tally
    }

    fn new(index: u32, code: WarningCode, field: &str) -> Self {
        Self {
            warning: Warning {
                code,
                field: field.to_owned(),
                count: 1,
            },
            last: index,
        }
    }

    fn is_of(&self, code: WarningCode, field: &str) -> bool {
        self.warning.code == code && self.warning.field == field
    }

    /// Counts an event, if it is not counted already.
    fn count(&mut self, index: u32) {
        self.warning.count += usize::from(self.last != index);
        self.last = index;
    }
}

/// The beginning of a field's name, for answers.
pub(super) fn beginning_of(name: &str) -> &str {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => &name[..end],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &[&[(WarningCode, &'static str)]]) -> Vec<(&'static str, String, usize)> {
        let mut warnings = Warnings::default();
        for (index, notes) in (0..).zip(events) {
            let mut list = Notes::default();
            for (code, field) in *notes {
                list.add(*code, *field);
            }
            warnings.count(index, &mut list);
        }
        let all = warnings.named().chain(warnings.others());
        all.map(|one| (one.code.as_str(), one.field.clone(), one.count))
            .collect()
    }

    #[test]
    fn a_warning_counts_each_event_once() {
        use WarningCode::{DuplicateField, TimeTruncated, UnknownField};
        let found = told(&[
            &[
                (UnknownField, "foo"),
                (UnknownField, "foo"),
                (DuplicateField, "foo"),
                (TimeTruncated, "ts"),
            ],
            &[(UnknownField, "bar")],
            &[(UnknownField, "foo")],
        ]);
        let expected = [
            ("unknown_field", "foo", 2),
            ("duplicate_field", "foo", 1),
            ("time_truncated", "ts", 1),
            ("unknown_field", "bar", 1),
        ];
        assert_eq!(
            found,
            expected.map(|(code, field, count)| (code, field.to_owned(), count))
        );
    }

    #[test]
    fn names_beyond_the_first_twenty_are_summed_up() {
        let names: Vec<&'static str> = "a b c d e f g h i j k l m n o p q r s t u v w"
            .split(' ')
            .collect();
        let all: Vec<_> = names
            .iter()
            .map(|name| (WarningCode::UnknownField, *name))
            .collect();
        let found = told(&[&all, &all[..21], &[(WarningCode::ValueRounded, "value")]]);
        assert_eq!(found.len(), NAMED_MAX + 2);
        assert!(found[..NAMED_MAX].iter().all(|(_, _, count)| *count == 2));
        assert_eq!(found[NAMED_MAX], ("unknown_field", String::new(), 4));
        assert_eq!(found[NAMED_MAX + 1], ("value_rounded", String::new(), 1));
    }

    #[test]
    fn a_long_name_is_cut_between_two_characters() {
        assert_eq!(beginning_of(&"é".repeat(100)).chars().count(), 64);
        assert_eq!(beginning_of("short"), "short");
    }
}
