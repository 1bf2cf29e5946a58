//! Members of an envelope other than `events` and `sent_at`. They belong to no event, so nothing is done
//! with them, and the sender is told.

use crate::event::warning::{NAMED_MAX, WarningCode, Warnings, beginning_of};

/// What an envelope holds, apart from `events` and `sent_at`.
#[derive(Debug, Default)]
pub struct Strays {
    names: Vec<String>,
    /// How many have no name here.
    more: usize,
}

impl Strays {
    /// Adds a member, if it is one.
    pub(super) fn add(&mut self, name: &str) {
        let name = beginning_of(name);
        if matches!(name, "events" | "sent_at") || self.names.iter().any(|known| known == name) {
            return;
        }
        match self.names.len() < NAMED_MAX {
            true => self.names.push(name.to_owned()),
            false => self.more = self.more.saturating_add(1),
        }
    }

    /// The beginning of the first one's name.
    pub fn first(&self) -> Option<&str> {
        self.names.first().map(String::as_str)
    }

    /// Adds to the warnings of a body of which `events` were accepted.
    pub(in crate::event) fn tell(&self, events: usize, warnings: &mut Warnings) {
        if events == 0 {
            return;
        }
        for name in &self.names {
            warnings.add(WarningCode::DroppedField, name, events);
        }
        if self.more > 0 {
            warnings.add(WarningCode::DroppedField, "", self.more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_envelope_holds_beside_its_events_is_told() {
        let told = |strays: &Strays| -> Vec<(String, usize)> {
            let mut warnings = Warnings::default();
            strays.tell(7, &mut warnings);
            let all = warnings.named().chain(warnings.others());
            all.map(|one| (one.field.clone(), one.count)).collect()
        };
        let mut strays = Strays::default();
        for name in ["batch", "events", "sent_at", "batch", "tenant"] {
            strays.add(name);
        }
        assert_eq!(told(&strays), [("batch".into(), 7), ("tenant".into(), 7)]);
        for n in 0..30 {
            strays.add(&n.to_string());
        }
        let all = told(&strays);
        assert_eq!(all.len(), NAMED_MAX + 1);
        assert_eq!(all[NAMED_MAX], (String::new(), 12));
    }
}
