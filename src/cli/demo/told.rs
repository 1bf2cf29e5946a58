//! What `demo` says: for people, and as JSON.

use anyhow::Result;
use serde_json::{Value, json};

use super::outcome::{Found, Posted, is_as_played};
use super::shop::{Play, Shop};
use crate::cli::terminal::print;
use crate::jobs::join_quality::JoinQuality;
use crate::jobs::played::{Numbers, Scope};

/// What is told, for people and as JSON.
pub(super) struct Told {
    text: String,
    json: Value,
}

impl Told {
    pub(super) fn begin(url: &str, shop: &Shop, posted: &[Posted; 3]) -> Self {
        let mut told = Self {
            text: format!(
                "A small shop (seed {}, opened {}), played against {}:\n\n",
                shop.seed, shop.opens, url
            ),
            json: json!({"surface": shop.surface(), "seed": shop.seed, "opened": shop.opens.to_string()}),
        };
        told.line(format!(
            "{:<22}{:>8}{:>8}  stored before",
            "posted", "events", "new"
        ));
        let kinds = ["exposures", "assignments", "interactions"];
        for (kind, posted) in kinds.into_iter().zip(posted) {
            let new = (posted.events as u64).saturating_sub(posted.duplicates);
            told.line(match posted.is_committed {
                true => format!(
                    "  {kind:<20}{:>8}{new:>8}  {}",
                    posted.events, posted.duplicates
                ),
                false => format!(
                    "  {kind:<20}{:>8}       on the service's disk, and stored later",
                    posted.events
                ),
            });
            told.json["posted"][kind] = json!({
                "events": posted.events, "duplicates": posted.is_committed.then_some(posted.duplicates),
            });
        }
        told
    }

    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    pub(super) fn without_database(&mut self, scope: &Scope) {
        self.line("\nThe numbers are read where DATABASE_URL or --database-url names the service's Postgres. There, these are its events:\n");
        self.statements(scope);
    }

    fn statements(&mut self, scope: &Scope) {
        for sql in [
            scope.lists(),
            scope.variants(),
            scope.interactions(),
            scope.revenue(),
            scope.orders(),
            scope.popular(),
        ] {
            self.line(format!("  {sql};"));
        }
    }

    pub(super) fn found(&mut self, play: &Play, found: &Found, scope: &Scope) {
        let (numbers, expected) = (&found.numbers, &play.numbers);
        self.line(format!(
            "\n{:<22}{:>12}{:>12}",
            "stored", "in Postgres", "played"
        ));
        let mut compare =
            |what: &str, found: &dyn std::fmt::Display, played: &dyn std::fmt::Display| {
                let (found, played) = (found.to_string(), played.to_string());
                let mark = if found == played { "" } else { "  DIFFERS" };
                self.line(format!("  {what:<20}{found:>12}{played:>12}{mark}"));
            };
        compare("lists served", &numbers.lists, &expected.lists);
        compare("items in them", &numbers.items, &expected.items);
        let of = |all: &[(String, u64)], name: &str| {
            let found = all.iter().find(|(known, _)| known == name);
            found.map_or(0, |(_, count)| *count)
        };
        for (variant, requests) in &expected.variants {
            let found = of(&numbers.variants, variant);
            compare(&format!("assigned to {variant}"), &found, requests);
        }
        for (kind, rows) in &expected.interactions {
            compare(
                &format!("{kind} rows"),
                &of(&numbers.interactions, kind),
                rows,
            );
        }
        compare("orders", &numbers.orders, &expected.orders);
        compare("revenue, EUR", &numbers.revenue, &expected.revenue);
        compare("as the orders say", &numbers.ordered, &expected.ordered);
        let sum = |of: fn(&JoinQuality) -> u64| found.join.iter().map(of).sum::<u64>();
        let interactions = sum(|line| line.interactions);
        compare("joined", &sum(|line| line.joined), &play.joined);
        compare(
            "without_token",
            &sum(|line| line.without_token),
            &play.without_token,
        );
        compare(
            "token_unknown",
            &sum(|line| line.token_unknown),
            &play.token_unknown,
        );
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let share = sum(|line| line.joined) as f64 / interactions.max(1) as f64;
        self.line(format!(
            "\nOf {interactions} interactions {share:.4} find their list (recsys-ingest report join --day {}); {} of a listed item are at another position.",
            &scope.from.to_string()[..10],
            sum(|line| line.position_differs),
        ));
        let popular: Vec<String> = numbers
            .popular
            .iter()
            .map(|(item, score)| format!("{item} {score}"))
            .collect();
        self.line(format!(
            "Most popular, as `signals` counts: {}.",
            popular.join(", ")
        ));
        self.line("\nThe same in SQL:\n");
        self.statements(scope);
        let document = |numbers: &Numbers| {
            json!({
                "lists": numbers.lists, "items": numbers.items, "variants": pairs(&numbers.variants),
                "interactions": pairs(&numbers.interactions), "revenue": numbers.revenue,
                "orders": numbers.orders, "ordered": numbers.ordered, "popular": numbers.popular,
            })
        };
        self.json["played"] = document(expected);
        self.json["stored"] = document(numbers);
        self.json["join"] = json!({
            "interactions": interactions,
            "joined": sum(|line| line.joined),
            "share": share,
            "without_token": sum(|line| line.without_token),
            "token_unknown": sum(|line| line.token_unknown),
            "item_not_listed": sum(|line| line.item_not_listed),
            "position_differs": sum(|line| line.position_differs),
            "late": sum(|line| line.late),
        });
        self.json["is_as_played"] = is_as_played(play, found).into();
    }

    pub(super) fn evaluated(&mut self, report: &Value, path: &str) {
        self.line(format!(
            "\nrecsys-eval's report is in {path}. Its summary:\n"
        ));
        let summary = serde_json::to_string_pretty(&report["summary"]).unwrap_or_default();
        self.line(summary);
        self.json["evaluation"] = json!({"report": path, "summary": report["summary"]});
    }

    pub(super) fn print(self, json: bool) -> Result<()> {
        match json {
            true => print(&self.json.to_string()),
            false => print(self.text.trim_end()),
        }
    }
}

fn pairs(all: &[(String, u64)]) -> Value {
    all.iter()
        .map(|(name, count)| (name.clone(), Value::from(*count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
