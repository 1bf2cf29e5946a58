//! The tables as they lie on the disk: dead rows, tables that autovacuum passes over; what waits in
//! quarantine, and which erasures reach into the future.

use anyhow::Result;
use tokio_postgres::{Client, Row};

use super::diagnosis::{Diagnosis, Mend};
use super::probe::{note, rows, size};
use crate::event::table::Table;
use crate::finding::Severity;

/// Tables that the service changes all the time, apart from the event tables.
const OWN: [&str; 11] = [
    "ingest_ledger", "ingest_holders", "ingest_changed_days", "ingest_quarantine",
    "ingest_partition_log", "ingest_removed_rows", "ingest_erased_subjects", "tenants",
    "tenant_api_keys", "ingest_publish_keys", "audit_log",
];

/// Fewer dead rows than this cost nothing that could be measured.
const DEAD_MIN: i64 = 10_000;

/// Tables with many dead rows, those that autovacuum leaves alone, and those that a crash empties.
pub(super) async fn dead_rows(client: &Client) -> Result<Vec<Diagnosis>> {
    let tables = Table::ALL.map(Table::as_str);
    let (tables, own): (&[&str], &[&str]) = (&tables, &OWN);
    let found = rows(
        client,
        "SELECT c.oid::regclass::text, coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0),
                coalesce(pg_total_relation_size(c.oid), 0),
                coalesce(to_char(greatest(s.last_vacuum, s.last_autovacuum), 'YYYY-MM-DD'), 'never'),
                c.reloptions @> ARRAY['autovacuum_enabled=false']
                    OR c.reloptions @> ARRAY['autovacuum_enabled=off'],
                c.relpersistence = 'u'
           FROM (SELECT t.relid::oid
                   FROM unnest($1::text[]) AS wanted (name)
                  CROSS JOIN LATERAL pg_partition_tree(to_regclass(wanted.name)) AS t
                  WHERE t.isleaf
                  UNION SELECT to_regclass(name)::oid FROM unnest($2::text[]) AS name) AS ours (oid)
           JOIN pg_class AS c ON c.oid = ours.oid AND c.relkind = 'r'
           LEFT JOIN pg_stat_user_tables AS s ON s.relid = c.oid
          ORDER BY 1",
        &[&tables, &own],
    )
    .await?;
    Ok(found.iter().flat_map(judge).collect())
}

fn judge(row: &Row) -> Vec<Diagnosis> {
    let (name, live, dead): (&str, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let (bytes, vacuumed): (i64, &str) = (row.get(3), row.get(4));
    let is_left_out = row.get::<_, Option<bool>>(5).unwrap_or(false);
    let mut found = Vec::new();
    if is_bloated(live, dead) {
        found.push(note(
            Severity::Note,
            "dead_rows",
            format!(
                "{name} has {dead} dead rows beside {live} live ones, in {}; it was last vacuumed: {vacuumed}",
                size(bytes)
            ),
            "every scan of it reads them, and its indexes point to them",
            "vacuum it; if they come back, look for an old transaction, and at the settings of autovacuum",
            Mend::SafeSql(format!("VACUUM (ANALYZE) {name};")),
        ));
    }
    if is_left_out {
        found.push(note(
            Severity::Note,
            "autovacuum_off_for_table",
            format!("autovacuum is switched off for {name}"),
            "its dead rows stay and its statistics grow stale, until it is vacuumed by hand",
            "let autovacuum at it again",
            Mend::Sql(vec![format!(
                "ALTER TABLE {name} RESET (autovacuum_enabled);"
            )]),
        ));
    }
    if row.get(6) {
        found.push(note(
            Severity::Degraded,
            "table_unlogged",
            format!("{name} is UNLOGGED"),
            "PostgreSQL empties it after a crash, and a standby has none of its rows: what was answered \
             as committed is gone then, without a word",
            "make it an ordinary table, which writes all of it once more and waits for those who use it",
            Mend::Sql(vec![format!("ALTER TABLE {name} SET LOGGED;")]),
        ));
    }
    found
}

/// Whether there are many dead rows, and a fifth as many as live ones: where autovacuum acts.
fn is_bloated(live: i64, dead: i64) -> bool {
    dead > DEAD_MIN && dead.saturating_mul(5) > live
}

/// What waits in quarantine, by its code.
pub(super) async fn quarantine(client: &Client) -> Result<Vec<Diagnosis>> {
    let found = rows(
        client,
        "SELECT coalesce(table_name, '?'), coalesce(sqlstate, '?'), count(*),
                to_char(min(quarantined_at), 'YYYY-MM-DD HH24:MI'),
                (array_agg(message ORDER BY id DESC))[1]
           FROM ingest_quarantine GROUP BY 1, 2 ORDER BY 3 DESC",
        &[],
    )
    .await?;
    let told = |row: &Row| {
        let (table, code): (&str, &str) = (row.get(0), row.get(1));
        let (count, since): (i64, &str) = (row.get(2), row.get(3));
        let message = row.get::<_, Option<&str>>(4).unwrap_or_default();
        note(
            Severity::Note,
            "quarantine",
            format!(
                "{count} rows of {table} are in quarantine with {code} since {since} UTC: {message}"
            ),
            "they are kept, and in no table that queries read",
            "mend what refuses them, then `recsys-ingest quarantine retry`",
            Mend::Command(format!("recsys-ingest quarantine retry --code {code}")),
        )
    };
    Ok(found.iter().map(told).collect())
}

/// Users whose erasure reaches into the future: what they do until then is left out.
pub(super) async fn erased_ahead(client: &Client) -> Result<Vec<Diagnosis>> {
    let found = rows(
        client,
        "SELECT count(*), coalesce(max(before)::text, '')
           FROM ingest_erased_subjects WHERE before > now() HAVING count(*) > 0",
        &[],
    )
    .await?;
    let told = |row: &Row| {
        let (count, until): (i64, &str) = (row.get(0), row.get(1));
        note(
            Severity::Degraded,
            "erasure_ahead",
            format!("{count} users are erased up to a time that is yet to come, the latest {until}"),
            "what they do until then is answered as stored and is not; it is booked in ingest_removed_rows, \
             and only its sender can send it again",
            "let each erasure end at the time at which it was run; for one user, `recsys-ingest users erase` \
             up to now does that as well",
            // Writers read the list again once the number in their rows has grown.
            Mend::Sql(vec![
                "WITH mended AS (UPDATE ingest_erased_subjects SET before = least(erased_at, now()) WHERE before > now()) \
                 UPDATE ingest_ledger SET erasures = erasures + 1;"
                    .to_owned(),
            ]),
        )
    };
    Ok(found.iter().map(told).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_rows_count_where_they_are_many_and_a_share() {
        for (live, dead, expected) in [
            (0, 10_000, false),
            (0, 10_001, true),
            (100_000, 15_000, false),
            (100_000, 20_001, true),
        ] {
            assert_eq!(is_bloated(live, dead), expected, "{live}, {dead}");
        }
    }
}
