//! What the migrations make, and what of it is gone.
//!
//! Read from the migrations' own text, so that nothing they make is forgotten here. Of what stands in
//! the suite's tables, and of event tables, nothing but the table itself counts: an adopted table has
//! the indexes and triggers that the suite gave it.

use std::fmt;

use anyhow::Context as _;
use tokio_postgres::Client;

use super::{EVENT_TABLES, History, MIGRATIONS, Migration};
use crate::event::table::Table;

/// The names of this program's own tables begin with it.
const OWN: &str = "ingest_";

/// The beginnings of the statements that make, change or remove something.
const VERBS: [&str; 4] = ["CREATE ", "ALTER TABLE ", "DROP VIEW ", "COMMENT ON "];

/// Words between `CREATE` and what is made, or before its name.
const FILLING: [&str; 6] = ["OR", "REPLACE", "UNIQUE", "IF", "NOT", "EXISTS"];

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Table,
    View,
    Function,
    Index,
}

/// A table, view, function or index that a migration makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub kind: Kind,
    pub name: &'static str,
    /// The table of an index.
    table: Option<&'static str>,
    /// The migration that makes it first.
    migration: String,
    /// The statements that make it as it is after all migrations.
    statements: Vec<&'static str>,
}

impl Object {
    fn new(kind: Kind, name: &'static str, migration: &Migration, statement: &'static str) -> Self {
        Self {
            kind,
            name,
            table: None,
            migration: migration.to_string(),
            statements: vec![statement],
        }
    }

    /// Whether it can be made again as it was. A table cannot: its rows are gone.
    pub fn can_be_made(&self) -> bool {
        self.kind != Kind::Table
    }

    /// The SQL that makes it, a statement each, tables empty; none for a table of the suite that other
    /// tables refer to.
    pub fn sql(&self) -> Vec<&'static str> {
        let is_event_table = Table::OF_SUITE.iter().any(|of| of.as_str() == self.name);
        if is_event_table {
            // It makes the event tables that are not there.
            let mut migrations = MIGRATIONS.iter();
            let found = migrations.find(|migration| migration.version == EVENT_TABLES);
            return found.map(|migration| migration.sql).into_iter().collect();
        }
        match self.kind == Kind::Table && !self.name.starts_with(OWN) {
            true => Vec::new(),
            false => self.statements.clone(),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::View => "view",
            Self::Function => "function",
            Self::Index => "index",
        }
    }
}

/// All that the migrations make.
pub fn objects() -> Vec<Object> {
    let mut all = Vec::new();
    for migration in &MIGRATIONS {
        for statement in statements(migration.sql) {
            follow(&mut all, migration, statement);
        }
    }
    all
}

/// What is gone of that which the applied migrations have made. Indexes of a table that is gone are
/// not told of. Empty if it is not known which were applied.
///
/// # Errors
///
/// When the connection is lost.
pub async fn missing(client: &Client, history: &History) -> anyhow::Result<Vec<Object>> {
    let behind = match history {
        History::Current => &[][..],
        History::Behind(names) => names,
        History::Foreign | History::Unreadable => return Ok(Vec::new()),
    };
    let mut all = objects();
    all.retain(|object| !behind.contains(&object.migration));
    let kinds: Vec<&str> = all.iter().map(|object| object.kind.as_str()).collect();
    let names: Vec<&str> = all.iter().map(|object| object.name).collect();
    let rows = client
        .query(
            "SELECT wanted.name
               FROM unnest($1::text[], $2::text[]) AS wanted (kind, name)
              WHERE CASE wanted.kind
                    WHEN 'function'
                    THEN NOT EXISTS (SELECT FROM pg_proc AS p
                                      WHERE p.proname = wanted.name AND pg_function_is_visible(p.oid))
                    -- Elsewhere it is off the search_path, which is another matter.
                    WHEN 'table'
                    THEN NOT EXISTS (SELECT FROM pg_class AS c
                                      WHERE c.relname = wanted.name AND c.relkind NOT IN ('i', 'I', 'c', 't'))
                    ELSE to_regclass(wanted.name) IS NULL END",
            &[&kinds, &names],
        )
        .await
        .context("cannot look for what the migrations have made")?;
    let gone: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    all.retain(|object| {
        let has_table = object.table.is_none_or(|table| !gone.contains(&table));
        gone.contains(&object.name) && has_table
    });
    Ok(all)
}

/// Notes what a statement makes, changes or removes.
fn follow(all: &mut Vec<Object>, migration: &Migration, statement: &'static str) {
    let words = statement.split_ascii_whitespace();
    let mut words = words.filter(|word| !FILLING.contains(word));
    let verb = words.next();
    let mut what = words.next();
    if what == Some("ON") {
        what = words.next();
    }
    let Some(name) = words.next().map(bare) else {
        return;
    };
    let kind = match what {
        Some("TABLE" | "COLUMN") => Kind::Table,
        Some("VIEW") => Kind::View,
        Some("FUNCTION") => Kind::Function,
        Some("INDEX") => Kind::Index,
        _ => return,
    };
    let known = all
        .iter()
        .position(|one| one.kind == kind && one.name == name);
    match (verb, kind, known) {
        (Some("CREATE"), Kind::Index, _) => {
            // After ON.
            let Some(table) = words.nth(1).map(bare).filter(|name| name.starts_with(OWN)) else {
                return;
            };
            let mut tables = all.iter_mut();
            if let Some(of) = tables.find(|one| one.kind == Kind::Table && one.name == table) {
                of.statements.push(statement);
            }
            all.push(Object {
                table: Some(table),
                ..Object::new(kind, name, migration, statement)
            });
        }
        (Some("CREATE"), _, Some(at)) => all[at].statements = vec![statement],
        (Some("CREATE"), _, None) => all.push(Object::new(kind, name, migration, statement)),
        (Some("DROP"), _, Some(at)) => drop(all.remove(at)),
        (_, _, Some(at)) => all[at].statements.push(statement),
        (_, _, None) => {}
    }
}

/// A name without what follows it: a list in parentheses, or a column.
fn bare(word: &'static str) -> &'static str {
    word.split(['(', '.', ';']).next().unwrap_or(word)
}

/// The statements of a migration that begin a line, also those within blocks.
fn statements(sql: &'static str) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < sql.len() {
        let next_line = past(sql, at, "\n");
        let line = &sql[at..next_line];
        let from = at + line.len() - line.trim_start().len();
        at = next_line;
        if VERBS.iter().any(|verb| sql[from..].starts_with(verb)) {
            at = from + end_of(&sql[from..]);
            found.push(&sql[from..at]);
        }
    }
    found
}

/// Where the statement ends with which a text begins: behind its semicolon.
fn end_of(text: &str) -> usize {
    let mut at = 0;
    while let Some(sign) = text[at..].chars().next() {
        at = match sign {
            ';' => return at + 1,
            '\'' => past(text, at + 1, "'"),
            '-' if text[at..].starts_with("--") => past(text, at, "\n"),
            '$' => match dollar_tag(&text[at..]) {
                Some(tag) => past(text, at + tag.len(), tag),
                None => at + 1,
            },
            other => at + other.len_utf8(),
        };
    }
    text.len()
}

/// The tag that opens a text in dollars, if one stands here.
fn dollar_tag(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('$')?;
    let end = inner.find('$')?;
    let is_name = |sign: char| sign.is_ascii_alphabetic() || sign == '_';
    inner[..end].chars().all(is_name).then(|| &text[..end + 2])
}

/// The place behind the next `end`, from `from` on; the end of the text if there is none.
fn past(text: &str, from: usize, end: &str) -> usize {
    text[from..]
        .find(end)
        .map_or(text.len(), |at| from + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_at_its_semicolon_and_begins_a_line() {
        let sql = "-- CREATE TABLE no;\nDO $$\nBEGIN\n    CREATE VIEW v AS SELECT ';' -- it's; no\n  , 'it''s;';\n    x CREATE TABLE no;\nEND\n$$;\n\
                   CREATE FUNCTION f() AS $body$ a; $1 b; $body$;\n\nCREATE UNIQUE INDEX i\n    ON ingest_t (a);";
        assert_eq!(
            statements(sql),
            [
                "CREATE VIEW v AS SELECT ';' -- it's; no\n  , 'it''s;';",
                "CREATE FUNCTION f() AS $body$ a; $1 b; $body$;",
                "CREATE UNIQUE INDEX i\n    ON ingest_t (a);",
            ]
        );
    }

    #[test]
    fn a_view_is_as_the_last_migration_makes_it_and_helpers_are_none() {
        let all = objects();
        let of = |name: &str| {
            all.iter()
                .filter(|one| one.name == name)
                .collect::<Vec<_>>()
        };
        let exposures = of("recsys_exposures");
        assert_eq!(exposures.len(), 1);
        assert!(exposures[0].sql()[0].contains("counted from 0"));
        assert!(of("ingest_v9_exposures").is_empty());
        let ledger = of("ingest_ledger");
        let made = ledger[0].sql().join("\n");
        for words in ["fillfactor", "ADD COLUMN erasures", "ingest_ledger.opening"] {
            assert!(made.contains(words), "{made}");
        }
        assert!(of("tenants")[0].sql().is_empty());
    }
}
