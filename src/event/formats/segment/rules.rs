//! What decides on a message apart from its text: its route, its type, its tenant's settings.

use std::collections::BTreeMap;

/// What is posted to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Several messages, each with its type.
    Batch,
    /// One message of this type.
    One(Type),
}

/// The types of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Track,
    Identify,
    Page,
    Screen,
    Group,
    Alias,
    /// Types that there may be one day.
    Other,
}

impl Type {
    /// All types that have a route.
    const ALL: [Self; 6] = [
        Self::Track,
        Self::Identify,
        Self::Page,
        Self::Screen,
        Self::Group,
        Self::Alias,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Identify => "identify",
            Self::Page => "page",
            Self::Screen => "screen",
            Self::Group => "group",
            Self::Alias => "alias",
            Self::Other => "other",
        }
    }

    pub(super) fn named(name: &str) -> Self {
        let found = Self::ALL
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(name.trim()));
        found.unwrap_or(Self::Other)
    }
}

/// What decides on a message apart from its text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'r> {
    /// Whether the key is in public hands: then a list that was viewed is the word of a page, and no
    /// exposure.
    pub(crate) is_public: bool,
    /// Whether the key may write for any tenant, and the request names none: messages have no place for
    /// one.
    pub(crate) is_tenant_a_guess: bool,
    /// Further names of events, and their types.
    pub(crate) event_names: &'r BTreeMap<String, String>,
    /// Most messages of one body.
    pub(crate) messages_max: usize,
}
