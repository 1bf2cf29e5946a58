//! What targets make of their bytes, and seeds of texts.

/// The first byte, as a choice, and the rest.
pub(super) fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first()
        .map_or((0, data), |(first, rest)| (*first, rest))
}

/// The longest start of `data` that is text.
pub(super) fn text(data: &[u8]) -> &str {
    match str::from_utf8(data) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&data[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// One seed for each text, behind each of the choices.
pub(super) fn seeds<T: AsRef<[u8]>>(choices: &[u8], texts: &[T]) -> Vec<Vec<u8>> {
    let one = |choice: &u8| {
        texts
            .iter()
            .map(|text| [&[*choice], text.as_ref()].concat())
            .collect()
    };
    choices.iter().flat_map::<Vec<_>, _>(one).collect()
}
