//! Which items co-visitation keeps: the first ones by id that a session saw with another, each with
//! those that most sessions share with it.

use super::independent::{self, Limits, List};
use super::{database, signals, store, stored};
use crate::harness::DEMO;

/// Lists of a day: surface, session, and items with `|` between them.
const LISTS: [(&str, Option<&str>, &str); 16] = [
    // Alone in its session: it is in no pair, and takes no place among the items that are kept.
    ("home", Some("s1"), "0-alone"),
    // In a pair that too few sessions saw: both take a place and have no neighbor.
    ("home", Some("s2"), "1-rare|2-rare"),
    // The session saw too much and is left out, and so are items that no other session saw.
    (
        "home",
        Some("s3"),
        "3-crowd|4-crowd|5-crowd|6-crowd|7-crowd",
    ),
    ("home", Some("s4"), "a|b|c|d"),
    ("home", Some("s5"), "d|c|b"),
    // The same session, in another list.
    ("home", Some("s5"), "a"),
    ("home", Some("s6"), "b|e"),
    ("home", Some("s7"), "b|e"),
    ("home", Some("s8"), "b|e"),
    // Two sessions, of a list each.
    ("home", None, "a|c"),
    ("home", None, "a|c"),
    // Sessions of the same names see the same items on another surface, which keeps fewer than it may.
    ("product", Some("s4"), "a|z"),
    ("product", Some("s5"), "a|z"),
    // An id that is written in two ways is one item.
    ("product", Some("s6"), " a|a|y"),
    ("product", Some("s7"), "a |y"),
    ("product", Some("s8"), "a| a"),
];

fn lists() -> Vec<List> {
    let of = |&(surface, session, items): &(&'static str, Option<&str>, &str)| List {
        tenant: DEMO,
        at: "2026-03-10 08:00:00+00".to_owned(),
        surface,
        session: session.map(str::to_owned),
        items: items.split('|').map(str::to_owned).collect(),
    };
    LISTS.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_items_by_id_are_kept_with_the_neighbors_of_most_sessions() {
    let database = database().await;
    let client = database.connect().await;
    let lists = lists();
    store(&client, &lists).await;
    let limits = Limits {
        items: 4,
        neighbors: 2,
        sessions: 2,
        session_items: 4,
    };
    let flags =
        "--day 2026-03-10 --items-max 4 --neighbors-max 2 --sessions-min 2 --session-items-max 4";
    let done = signals(&database, &flags.split(' ').collect::<Vec<_>>());
    // Kept at home: 1-rare, 2-rare, a and b. Of equal scores the first by id is kept.
    let expected = [
        "home | a | b | 2", "home | a | c | 4", "home | b | a | 2", "home | b | e | 3",
        "product | a | y | 2", "product | a | z | 2", "product | y | a | 2", "product | z | a | 2",
    ]
    .map(|row| format!("{DEMO} | 2026-03-10 | {row}"));
    assert_eq!(stored(&client, "item_covisit_daily").await, expected);
    assert_eq!(independent::signals(&lists, limits).covisitation, expected);
    assert_eq!(done[0]["sessions_left_out"], 1);
    assert_eq!(done[0]["covisit"]["rows"], 8);

    for (items, neighbors, sessions, session_items) in [
        (1000, 50, 1, 200),
        (3, 1, 1, 5),
        (5, 3, 2, 2),
        (1, 50, 3, 200),
    ] {
        let limits = Limits {
            items,
            neighbors,
            sessions,
            session_items,
        };
        let flags = format!(
            "--day 2026-03-10 --items-max {items} --neighbors-max {neighbors} \
             --sessions-min {sessions} --session-items-max {session_items}"
        );
        signals(&database, &flags.split(' ').collect::<Vec<_>>());
        let expected = independent::signals(&lists, limits).covisitation;
        let rows = stored(&client, "item_covisit_daily").await;
        assert_eq!(rows, expected, "{flags}");
    }
}
