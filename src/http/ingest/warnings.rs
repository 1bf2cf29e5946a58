//! What a sender learns of what was done to its events.

use serde::Serialize;
use utoipa::ToSchema;

use crate::event::warning::Warnings;

/// Accepted events to which the same thing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Warning {
    /// What was done, for programs.
    #[schema(example = "unknown_field")]
    pub code: &'static str,
    /// The field, or its first 64 characters. A member of an item is `items.` and its name.
    #[schema(example = "campaign")]
    pub field: String,
    /// How many events.
    #[schema(example = 98)]
    pub count: usize,
}

/// Warnings with the same code, beyond those that name their field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MoreWarnings {
    /// What was done.
    #[schema(example = "unknown_field")]
    pub code: &'static str,
    /// How many times.
    #[schema(example = 12)]
    pub count: usize,
}

/// The warnings about a body: named while there is room, the others summed up by code.
pub fn warnings(
    all: &Warnings,
    mut has_room: impl FnMut(&Warning) -> bool,
) -> (Vec<Warning>, Vec<MoreWarnings>) {
    let mut told = Vec::new();
    let mut more: Vec<MoreWarnings> = Vec::new();
    let named = all.named().map(|one| (one, true));
    for (one, is_named) in named.chain(all.others().map(|one| (one, false))) {
        let (code, count) = (one.code.as_str(), one.count);
        let warning = Warning {
            code,
            field: one.field.clone(),
            count,
        };
        if is_named && has_room(&warning) {
            told.push(warning);
            continue;
        }
        match more.iter_mut().find(|sum| sum.code == code) {
            Some(sum) => sum.count += count,
            None => more.push(MoreWarnings { code, count }),
        }
    }
    (told, more)
}
