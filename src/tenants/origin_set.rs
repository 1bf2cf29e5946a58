//! All origins that some key or tenant lists, for preflights: these carry no key.
//!
//! Built once for each snapshot. A lookup takes one step for each label of the origin's host,
//! however many keys there are.

use std::collections::HashMap;

use super::settings::Origins;

/// Origins of many lists, with the time until which they are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OriginSet {
    /// By the entry's text: `*`, `https://shop.example` or `https://*.shop.example`.
    entries: HashMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// A list of this entry alone.
    list: Origins,
    /// The end of the last key that lists it, in µs since 1970.
    until_us: i64,
}

impl OriginSet {
    /// Adds a list that holds until `until_us`, in µs since 1970.
    pub(super) fn add(&mut self, origins: &Origins, until_us: i64) {
        for text in Vec::<String>::from(origins.clone()) {
            if let Some(entry) = self.entries.get_mut(&text) {
                entry.until_us = entry.until_us.max(until_us);
            } else if let Ok(list) = Origins::parse([&*text]) {
                self.entries.insert(text, Entry { list, until_us });
            }
        }
    }

    /// Whether some list has `origin` at `now_us`.
    pub(super) fn allow(&self, origin: &str, now_us: i64) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let has = |text: &str| {
            let entry = self.entries.get(text);
            entry.is_some_and(|entry| entry.until_us >= now_us && entry.list.allow(origin))
        };
        let text = origin.to_ascii_lowercase();
        if has("*") || has(&text) {
            return true;
        }
        let Some((scheme, host)) = text.split_once("://") else {
            return false;
        };
        host.match_indices('.')
            .any(|(dot, _)| has(&format!("{scheme}://*{}", &host[dot..])))
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
mod tests {
    use super::*;

    fn of(lists: &[(&[&str], i64)]) -> OriginSet {
        let mut set = OriginSet::default();
        for (list, until_us) in lists {
            let origins = Origins::parse(list.iter().copied()).unwrap();
            set.add(&origins, *until_us);
        }
        set
    }

    #[test]
    fn a_set_allows_what_one_of_its_lists_allows() {
        let lists: [&[&str]; 3] = [
            &["https://shop.example", "https://*.shop.example:8443"],
            &[],
            &["null", "HTTP://Localhost:3000", "https://*.a.b.example"],
        ];
        let set = of(&lists.map(|list| (list, i64::MAX)));
        for origin in [
            "https://shop.example",
            "https://SHOP.example",
            "https://www.shop.example",
            "https://www.shop.example:8443",
            "https://a.b.shop.example:8443",
            "https://shop.example:8443",
            "https://x.a.b.example",
            "https://a.b.example",
            "http://localhost:3000",
            "http://localhost",
            "https://.shop.example:8443",
            "https://evil.example#.shop.example:8443",
            "https://evil.example/.a.b.example",
            "null",
            "NULL",
            "*",
            "https://*.shop.example:8443",
            "",
            "://",
            ".",
        ] {
            let any = lists
                .iter()
                .any(|list| Origins::parse(list.iter().copied()).unwrap().allow(origin));
            assert_eq!(set.allow(origin, 0), any, "{origin}");
        }
        assert!(of(&[(&["*"], i64::MAX)]).allow("https://any.example", 0));
        assert!(!of(&[]).allow("null", 0));
    }

    #[test]
    fn an_entry_holds_as_long_as_the_last_key_that_lists_it() {
        let set = of(&[
            (&["https://a.example", "https://b.example"], 10),
            (&["https://a.example"], 5),
            (&["https://b.example"], 20),
        ]);
        for (origin, now_us, allowed) in [
            ("https://a.example", 10, true),
            ("https://a.example", 11, false),
            ("https://b.example", 20, true),
            ("https://b.example", 21, false),
        ] {
            assert_eq!(set.allow(origin, now_us), allowed, "{origin} {now_us}");
        }
    }
}
