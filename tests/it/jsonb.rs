//! Promise: PostgreSQL's jsonb takes each text that the scanner accepts.

use proptest::prelude::*;
use recsys_ingest::event::json::scan::Scanner;

use crate::harness::{Database, generated, texts};

/// Whether the scanner finds exactly one value, and a storable one.
fn is_let_through(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.value(0).is_ok_and(|value| value.flaw.is_none()) && scanner.peek().is_none()
}

/// Pieces of JSON in random order.
fn soup() -> BoxedStrategy<String> {
    let piece = prop_oneof![
        proptest::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "\\u00", "\\u0000", "\\ud83d",
            "\\ude00", "\\udc00", "\\uD800", "null", "true", "false", "1", "0", "-", "+", ".", "e",
            "E+5", "e400", "e-400", "e401", " ", "\t", "\r\n", "\"a\"", "\"key\":", "12.5e3",
            "\u{e9}", "\u{1F600}", "\u{7f}", "\u{1}", "\u{FEFF}", "\u{FFFF}", "\\/", "\\b", "\\x",
            "NaN", "Infinity", "/*", "'",
        ])
        .prop_map(String::from),
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..16)
        .prop_map(|pieces| pieces.concat())
        .boxed()
}

/// The inside of a string, with all kinds of escapes.
fn inside() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<char>().prop_map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        }),
        2 => any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
        2 => (0xD800..0xDC00_u16, 0xDC00..0xE000_u16)
            .prop_map(|(high, low)| format!("\\u{high:04X}\\u{low:04x}")),
        1 => (0xD7F0..0xE010_u16).prop_map(|unit| format!("\\u{unit:04X}")),
        1 => proptest::sample::select(vec![
            "\\n", "\\t", "\\/", "\\b", "\\f", "\\r", "\\\\u0000", "\\u0000", "\\u0001",
        ])
        .prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?",
        "-?[1-9][0-9]{370,410}",
        "0\\.[0-9]{370,410}e-?[0-9]{1,3}",
        "[0-9.eE+-]{1,6}",
    ]
}

/// Mostly valid JSON, with hostile strings, numbers and depths.
fn nearly_json() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        inside().prop_map(|inside| format!("\"{inside}\"")),
        number(),
        Just("null".to_owned()),
    ];
    let tree = leaf.prop_recursive(6, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| format!("[ {}]", values.join(","))),
            proptest::collection::vec((inside(), inner), 0..4).prop_map(|members| {
                let members: Vec<_> = members
                    .into_iter()
                    .map(|(name, value)| format!("\"{name}\" :{value}"))
                    .collect();
                format!("{{{}}}", members.join(",\n"))
            }),
        ]
    });
    (tree, prop_oneof![9 => Just(0_usize), 1 => 50..70_usize])
        .prop_map(|(text, depth)| format!("{}{text}{}", "[".repeat(depth), "]".repeat(depth)))
        .boxed()
}

#[tokio::test]
async fn whatever_the_scanner_lets_through_casts_to_jsonb() {
    let mut all = generated(soup(), 20_000);
    all.extend(generated(nearly_json(), 12_000));
    all.extend((0..66).map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))));
    let (through, held): (Vec<_>, Vec<_>) = all.into_iter().partition(|text| is_let_through(text));
    // The test says nothing unless both groups are large.
    assert!(through.len() > 5_000, "{} let through", through.len());
    assert!(held.len() > 5_000, "{} held back", held.len());

    let database = Database::empty().await;
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE FUNCTION refused(texts text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
             DECLARE one text;
             BEGIN
                 FOREACH one IN ARRAY texts LOOP
                     BEGIN
                         PERFORM one::jsonb;
                     EXCEPTION WHEN others THEN
                         RETURN NEXT SQLSTATE || ' ' || one;
                     END;
                 END LOOP;
             END $$",
        )
        .await
        .unwrap();
    for portion in through.chunks(4_000) {
        let rows = client
            .query("SELECT * FROM refused($1)", &[&portion])
            .await
            .unwrap();
        let refused: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(refused, Vec::<String>::new());
    }
    // PostgreSQL does refuse what it should, so an empty result above is meaningful.
    let sql = r#"SELECT * FROM refused(ARRAY['"\u0000"', '1e131072', '{"a":1}', '["\ud800"]'])"#;
    assert_eq!(texts(&client, sql).await.len(), 3);
}
