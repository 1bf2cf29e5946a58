//! The signals of lists, computed from the contract and not with SQL.

use std::collections::{BTreeMap, BTreeSet};

/// An exposure.
#[derive(Clone, Debug)]
pub struct List {
    pub tenant: &'static str,
    /// Its time, beginning with the UTC day.
    pub at: String,
    pub surface: &'static str,
    pub session: Option<String>,
    pub items: Vec<String>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub items: usize,
    pub neighbors: usize,
    pub sessions: u64,
    pub session_items: usize,
}

/// The rows that the suite's tables should have, as text, in order.
#[derive(Debug, Default)]
pub struct Expected {
    pub popularity: Vec<String>,
    pub covisitation: Vec<String>,
    /// Items in lists.
    pub shown: u64,
    pub sessions_left_out: u64,
}

/// Lists with their places.
type Lists<'l> = Vec<(usize, &'l List)>;

/// All signals of all days.
pub fn signals(lists: &[List], limits: Limits) -> Expected {
    let mut groups: BTreeMap<(String, String, String), Lists<'_>> = BTreeMap::new();
    for (n, list) in lists.iter().enumerate() {
        let surface = match list.surface.trim() {
            "" => "default",
            surface => surface,
        };
        let group = (
            list.tenant.to_owned(),
            list.at[..10].to_owned(),
            surface.to_owned(),
        );
        groups.entry(group).or_default().push((n, list));
    }
    let mut expected = Expected::default();
    for ((tenant, day, surface), lists) in groups {
        let group = format!("{tenant} | {day} | {surface}");
        for (item, count) in most_popular(&lists, limits, &mut expected.shown) {
            expected
                .popularity
                .push(format!("{group} | {item} | {count}"));
        }
        for (item, neighbor, count) in neighbors(&lists, limits, &mut expected.sessions_left_out) {
            expected
                .covisitation
                .push(format!("{group} | {item} | {neighbor} | {count}"));
        }
    }
    expected.popularity.sort();
    expected.covisitation.sort();
    expected
}

fn ids(list: &List) -> impl Iterator<Item = &str> {
    list.items
        .iter()
        .map(|item| item.trim())
        .filter(|item| !item.is_empty())
}

fn most_popular<'l>(
    lists: &[(usize, &'l List)],
    limits: Limits,
    shown: &mut u64,
) -> Vec<(&'l str, u64)> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, list) in lists {
        for item in ids(list) {
            *counts.entry(item).or_default() += 1;
            *shown += 1;
        }
    }
    first(counts, limits.items)
}

/// The pairs with the highest counts, of equal counts the first by name.
fn first(counts: BTreeMap<&str, u64>, at_most: usize) -> Vec<(&str, u64)> {
    let mut ranked: Vec<_> = counts.into_iter().collect();
    // Stable, and they are in the order of their names.
    ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    ranked.truncate(at_most);
    ranked
}

fn neighbors<'l>(
    lists: &[(usize, &'l List)],
    limits: Limits,
    left_out: &mut u64,
) -> Vec<(&'l str, &'l str, u64)> {
    let mut sessions: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (n, list) in lists {
        let session = match list.session.as_deref().map(str::trim) {
            None | Some("") => format!("the request of list {n}"),
            Some(session) => session.to_owned(),
        };
        sessions.entry(session).or_default().extend(ids(list));
    }
    let mut pairs: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for items in sessions.values() {
        if items.len() > limits.session_items {
            *left_out += 1;
            continue;
        }
        for a in items {
            for b in items {
                if a != b {
                    *pairs.entry(a).or_default().entry(b).or_default() += 1;
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (item, mut counts) in pairs.into_iter().take(limits.items) {
        counts.retain(|_, count| *count >= limits.sessions);
        for (neighbor, count) in first(counts, limits.neighbors) {
            rows.push((item, neighbor, count));
        }
    }
    rows
}
