//! Native events that are made from messages.

/// Native events of one table, made from messages.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// A JSON array.
    pub(crate) json: String,
    /// For each event, the place of its message. Ascending.
    pub(crate) places: Vec<u32>,
}

impl Events {
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The text, of which the places are left; empty if there is no event.
    pub(crate) fn take_json(&mut self) -> String {
        std::mem::take(&mut self.json)
    }

    /// Begins the text of another event.
    pub(super) fn next(&mut self) -> &mut String {
        self.json.push(if self.json.is_empty() { '[' } else { ',' });
        &mut self.json
    }

    pub(super) fn end(&mut self) {
        if !self.json.is_empty() {
            self.json.push(']');
        }
    }
}
