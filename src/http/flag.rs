//! Switches in a query, such as `?partial=false`.

/// The meaning of a switch's value; `None` if it has none.
pub(crate) fn parse(value: &str) -> Option<bool> {
    const WORDS: [(&str, bool); 8] = [
        ("true", true),
        ("1", true),
        ("yes", true),
        ("on", true),
        ("false", false),
        ("0", false),
        ("no", false),
        ("off", false),
    ];
    let value = value.trim();
    let found = WORDS
        .iter()
        .find(|(word, _)| value.eq_ignore_ascii_case(word));
    found.map(|&(_, meaning)| meaning)
}

/// Whether `query` has `name` without a value and without `=`.
///
/// A name alone switches on. `name=` does not: it is what a template writes whose variable is unset.
pub(crate) fn stands_alone(name: &str, query: &str) -> bool {
    query.split('&').any(|pair| pair == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_takes_the_usual_words() {
        for word in ["true", "TRUE", "1", "yes", "Yes", "on", " on "] {
            assert_eq!(parse(word), Some(true), "{word}");
        }
        for word in ["false", "False", "0", "no", "off", "OFF"] {
            assert_eq!(parse(word), Some(false), "{word}");
        }
        for word in ["", "2", "truee", "y", "null", "none"] {
            assert_eq!(parse(word), None, "{word}");
        }
        assert!(stands_alone("partial", "ack=durable&partial"));
        assert!(!stands_alone("partial", "partial=&impartial"));
    }
}
