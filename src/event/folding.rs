//! Names that readers of the suite take for one another.
//!
//! They decode with Go's `encoding/json`, which takes a member for a field whose name is equal to it
//! by simple case folding, lets the last one win, and gives up on the whole document if the value
//! has another type (`docs/decisions/0020`).

/// The members of an item that readers of the suite decode.
const DECODED: [&str; 6] = [
    "item_id", "rank", "score", "propensity", "logging_propensity", "target_propensity",
];

/// The decoded member that those readers take `key` for, if it is not spelled as that one is.
pub(super) fn mistaken_for(key: &str) -> Option<&'static str> {
    let mut names = DECODED.into_iter();
    names.find(|name| *name != key && is_equal_folded(key, name))
}

/// Whether `key` is equal to `name`, which is ASCII without capitals, by simple case folding.
fn is_equal_folded(key: &str, name: &str) -> bool {
    let folded = key.chars().map(|c| match c {
        // The only characters beyond ASCII that fold to a letter in it.
        '\u{212A}' => 'k',
        '\u{17F}' => 's',
        c => c.to_ascii_lowercase(),
    });
    folded.eq(name.chars())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::table::Table;
    use crate::event::testing::{NOW, Told, decode};

    /// An exposure of each format that has items, with this text as its second one.
    fn told(item: &str) -> [Told; 3] {
        [
            r#""occurred_at":"NOW","surface":"s""#,
            r#""schema_version":"v1","timestamp":"NOW","surface":"s""#,
            r#""ts":"NOW","context":{"surface":"s"}"#,
        ]
        .map(|fields| {
            let fields = fields.replace("NOW", NOW);
            let items = format!(r#"[{{"item_id":"a"}},{item}]"#);
            let event = format!(r#"{{"request_id":"r",{fields},"items":{items}}}"#);
            decode(Table::Exposures, &event)
        })
    }

    #[test]
    fn an_item_that_such_a_reader_would_misread_is_rejected_by_name() {
        for (item, code, field) in [
            (r#""Rank":"x","rank":1"#, "duplicate_field", "Rank"),
            (r#""rank":1,"Rank":1"#, "duplicate_field", "Rank"),
            (r#""Rank":1"#, "duplicate_field", "Rank"),
            (r#""Rank":null"#, "duplicate_field", "Rank"),
            (r#""ITEM_ID":7,"rank":1"#, "duplicate_field", "ITEM_ID"),
            (r#""ran\u212a":2"#, "duplicate_field", "ran\u{212A}"),
            ("\"ran\u{212A}\":2", "duplicate_field", "ran\u{212A}"),
            (r#""R\u0061nk":2"#, "duplicate_field", "Rank"),
            (r#""\u017fcore":2"#, "duplicate_field", "\u{17F}core"),
            (r#""Propensity":"high""#, "duplicate_field", "Propensity"),
            (r#""rank":1,"ran\u006b":1"#, "duplicate_field", "rank"),
            (r#""item_\u0069d":"b""#, "duplicate_field", "item_id"),
            (r#""rank":1.0"#, "invalid_type", "rank"),
            (r#""rank":1e0"#, "invalid_type", "rank"),
            (r#""rank":"1""#, "invalid_type", "rank"),
            (r#""rank":true"#, "invalid_type", "rank"),
            (r#""rank":-0"#, "number_out_of_range", "rank"),
            (
                r#""rank":9223372036854775808"#,
                "number_out_of_range",
                "rank",
            ),
            (r#""score":"1""#, "invalid_type", "score"),
            (r#""score":[1]"#, "invalid_type", "score"),
            (r#""score":1e309"#, "number_out_of_range", "score"),
            (
                r#""propensity":-1.8e308"#,
                "number_out_of_range",
                "propensity",
            ),
            (
                r#""propensity":18e307"#, "number_out_of_range", "propensity",
            ),
        ] {
            let item = format!(r#"{{"item_id":"a",{item}}}"#);
            for told in told(&item) {
                let field = format!("items[1].{field}");
                assert_eq!(told.rejection(), Some((code, &*field)), "{item}");
            }
        }
        for item in [
            r#""rank":null"#,
            r#""rank":2147483647,"score":1.7976931348623157e308"#,
            r#""score":-1e-400,"propensity":0.1e309"#,
            r#""ranks":1,"Item":1,"itemId":7,"UNKNOWN":1,"unknown":2"#,
            r#""more":{"Rank":"x","rank":1}"#,
        ] {
            let item = format!(r#"{{"item_id":"a",{item}}}"#);
            for told in told(&item) {
                assert_eq!(told.rejection(), None, "{item}");
            }
        }
    }

    #[test]
    fn a_latency_beyond_a_double_is_rejected() {
        let digits = "9".repeat(309);
        for (number, is_good) in [
            ("12.5", true),
            ("1e308", true),
            ("1e309", false),
            (digits.as_str(), false),
        ] {
            let native = format!(
                r#"{{"request_id":"r","surface":"s","items":[],"occurred_at":"{NOW}","meta":{{"latency_ms":{number}}}}}"#
            );
            let eval = format!(
                r#"{{"request_id":"r","ts":"{NOW}","context":{{"surface":"s"}},"items":[],"latency_ms":{number}}}"#
            );
            for (event, field) in [(native, "meta.latency_ms"), (eval, "latency_ms")] {
                let told = decode(Table::Exposures, &event);
                let expected = (!is_good).then_some(("number_out_of_range", field));
                assert_eq!(told.rejection(), expected, "{event}");
            }
        }
    }

    #[test]
    fn names_are_folded_as_go_folds_them() {
        for (key, name) in [
            ("Rank", Some("rank")),
            ("RANK", Some("rank")),
            ("ran\u{212A}", Some("rank")),
            ("\u{17F}core", Some("score")),
            ("ITEM_ID", Some("item_id")),
            ("Item_id", Some("item_id")),
            ("PropenSity", Some("propensity")),
            ("propen\u{17F}ity", Some("propensity")),
            ("Logging_Propensity", Some("logging_propensity")),
            ("TARGET_PROPENSITY", Some("target_propensity")),
            ("rank", None),
            ("item_id", None),
            ("itemId", None),
            ("item-id", None),
            ("rank ", None),
            ("ranks", None),
            ("ran", None),
            ("", None),
            // Full folding and other scripts do not count.
            ("\u{131}tem_id", None),
            ("\u{130}tem_id", None),
            ("r\u{430}nk", None),
            ("\u{FF32}ank", None),
            ("ran\u{3BA}", None),
            ("\u{DF}core", None),
        ] {
            assert_eq!(mistaken_for(key), name, "{key}");
        }
    }
}
