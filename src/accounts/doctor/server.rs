//! Settings, sessions and WAL of the server, as far as they hurt.

use anyhow::Result;
use tokio_postgres::{Client, Row};

use super::diagnosis::{Diagnosis, Mend};
use super::probe::{note, rows, size};
use crate::finding::Severity;

/// A setting that should not have some value.
struct Bad {
    code: &'static str,
    severity: Severity,
    setting: &'static str,
    /// What it should be.
    good: &'static str,
    /// Whether the server has to be started again.
    restarts: bool,
    is_bad: fn(Value<'_>) -> bool,
    meaning: &'static str,
}

/// A setting's value in its unit, as text and as a number.
#[derive(Clone, Copy)]
struct Value<'v> {
    text: &'v str,
    /// 0 if it is none.
    number: i64,
}

fn is_off(value: Value<'_>) -> bool {
    value.text == "off"
}

/// The settings that are looked at. Numbers are in the units of `pg_settings`: MB for WAL, seconds,
/// pages of 8 kB.
const BAD: [Bad; 9] = [
    Bad {
        code: "fsync_off",
        severity: Severity::Degraded,
        setting: "fsync",
        good: "on",
        restarts: false,
        is_bad: is_off,
        meaning: "a crash of the machine can damage the database beyond repair, and what was answered \
                  as committed may be gone",
    },
    Bad {
        code: "full_page_writes_off",
        severity: Severity::Degraded,
        setting: "full_page_writes",
        good: "on",
        restarts: false,
        is_bad: is_off,
        meaning: "a crash of the machine can leave half-written pages, which nothing mends",
    },
    Bad {
        code: "synchronous_commit_off",
        severity: Severity::Note,
        setting: "synchronous_commit",
        good: "on",
        restarts: false,
        is_bad: is_off,
        meaning: "this service turns it on for its own sessions; what other programs commit in this \
                  database may be gone after a crash",
    },
    Bad {
        code: "autovacuum_off",
        severity: Severity::Degraded,
        setting: "autovacuum",
        good: "on",
        restarts: false,
        is_bad: is_off,
        meaning: "dead rows of the ledger and the keys stay, so that both grow and every batch takes \
                  longer; statistics grow stale; in the end PostgreSQL refuses all writes until it is \
                  vacuumed by hand (transaction ids run out)",
    },
    Bad {
        code: "track_counts_off",
        severity: Severity::Degraded,
        setting: "track_counts",
        good: "on",
        restarts: false,
        is_bad: is_off,
        meaning: "autovacuum does not know which tables have dead rows, and does nothing",
    },
    Bad {
        code: "max_wal_size_small",
        severity: Severity::Note,
        setting: "max_wal_size",
        good: "'4GB'",
        restarts: false,
        is_bad: |value| value.number < 1024,
        meaning: "checkpoints come by volume: after each one every page that is touched goes into the \
                  WAL in full; 256MB cost 5 to 15 % of the rate where it was measured",
    },
    Bad {
        code: "checkpoint_timeout_short",
        severity: Severity::Note,
        setting: "checkpoint_timeout",
        good: "'15min'",
        restarts: false,
        is_bad: |value| value.number < 300,
        meaning: "checkpoints come more often than they need to: after each one every page that is \
                  touched goes into the WAL in full",
    },
    Bad {
        code: "shared_buffers_small",
        severity: Severity::Note,
        setting: "shared_buffers",
        good: "'256MB'",
        restarts: true,
        is_bad: |value| value.number < 8192,
        meaning: "the right edge of each partition's key does not stay in memory; 32MB cost 7 % of the \
                  rate where it was measured",
    },
    Bad {
        code: "read_only",
        severity: Severity::Degraded,
        setting: "default_transaction_read_only",
        good: "off",
        restarts: false,
        is_bad: |value| value.text == "on",
        meaning: "commands of this program that change something are refused, and so are other programs",
    },
];

/// Settings that hurt, by the values that a new session has: this program's sessions set some for
/// themselves.
pub(super) async fn settings(client: &Client) -> Result<Vec<Diagnosis>> {
    let names: Vec<&str> = BAD.iter().map(|bad| bad.setting).collect();
    let found = rows(
        client,
        "SELECT s.name, coalesce(s.reset_val, s.setting), s.unit,
                (SELECT CASE WHEN d.setdatabase <> 0 AND d.setrole <> 0
                             THEN format('ALTER ROLE %s IN DATABASE %I RESET %s', d.setrole::regrole, current_database(), s.name)
                             WHEN d.setrole <> 0 THEN format('ALTER ROLE %s RESET %s', d.setrole::regrole, s.name)
                             ELSE format('ALTER DATABASE %I RESET %s', current_database(), s.name) END
                   FROM pg_db_role_setting AS d, unnest(d.setconfig) AS config
                  WHERE starts_with(config, s.name || '=')
                    AND d.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                    AND d.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
                  ORDER BY d.setdatabase <> 0 AND d.setrole <> 0 DESC, d.setrole <> 0 DESC
                  LIMIT 1)
           FROM pg_settings AS s WHERE s.name = ANY ($1)",
        &[&names],
    )
    .await?;
    let mut diagnoses = Vec::new();
    for bad in &BAD {
        let is_it = |row: &&Row| row.get::<_, &str>(0) == bad.setting;
        if let Some(row) = found.iter().find(is_it) {
            diagnoses.extend(judge(bad, row.get(1), row.get(2), row.get(3)));
        }
    }
    Ok(diagnoses)
}

fn judge(bad: &Bad, text: &str, unit: Option<&str>, reset: Option<&str>) -> Option<Diagnosis> {
    let value = Value {
        text,
        number: text.parse().unwrap_or(0),
    };
    if !(bad.is_bad)(value) {
        return None;
    }
    let Bad { setting, good, .. } = bad;
    let shown = match unit {
        Some("8kB") => format!("{text} pages of 8kB"),
        Some(unit) => format!("{text}{unit}"),
        None => text.to_owned(),
    };
    let (sql, remedy) = match reset {
        Some(reset) => (
            vec![format!("{reset};")],
            "it is set for this role or database: reset it there",
        ),
        None => (
            vec![
                format!("ALTER SYSTEM SET {setting} = {good};"),
                "SELECT pg_reload_conf();".to_owned(),
            ],
            match bad.restarts {
                true => "set it, and start the server again",
                false => "set it; no restart is needed",
            },
        ),
    };
    Some(note(
        bad.severity,
        bad.code,
        format!("{setting} is {shown}"),
        bad.meaning,
        remedy,
        Mend::Sql(sql),
    ))
}

/// Sessions that hold others up.
pub(super) async fn sessions(client: &Client) -> Result<Vec<Diagnosis>> {
    let old = rows(
        client,
        "SELECT pid, coalesce(usename::text, '?'), coalesce(application_name, ''), coalesce(state, '?'),
                date_trunc('minute', now() - xact_start)::text
           FROM pg_stat_activity
          WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND backend_type = 'client backend' AND xact_start < now() - interval '1 hour'
          ORDER BY xact_start",
        &[],
    )
    .await?;
    let prepared = rows(
        client,
        "SELECT gid FROM pg_prepared_xacts
          WHERE database = current_database() AND prepared < now() - interval '1 hour'",
        &[],
    )
    .await?;
    let meaning = "dead rows cannot be removed as long as it is open, and partitions cannot be made, \
                   sealed or detached if it holds their locks";
    let session = |row: &Row| {
        let (pid, user, name): (i32, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let (state, age): (&str, &str) = (row.get(3), row.get(4));
        note(
            Severity::Note,
            "old_transaction",
            format!(
                "session {pid} of {user} ({name}, {state}) has had a transaction open for {age}"
            ),
            meaning,
            "find out what it is for, then end it",
            Mend::Sql(vec![format!("SELECT pg_terminate_backend({pid});")]),
        )
    };
    let transaction = |row: &Row| {
        let gid: &str = row.get(0);
        note(
            Severity::Note,
            "prepared_transaction",
            format!("the prepared transaction {gid} has been open for more than an hour"),
            meaning,
            "ask its transaction manager; if it is forgotten, roll it back",
            Mend::Sql(vec![format!(
                "ROLLBACK PREPARED '{}';",
                gid.replace('\'', "''")
            )]),
        )
    };
    let old = old.iter().map(session);
    Ok(old.chain(prepared.iter().map(transaction)).collect())
}

/// Slots that keep WAL and are not read, checkpoints by volume, and the age of transaction ids.
pub(super) async fn wal(client: &Client) -> Result<Vec<Diagnosis>> {
    let mut found = Vec::new();
    let slots = rows(
        client,
        "SELECT slot_name::text, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
           FROM pg_replication_slots
          WHERE NOT active AND NOT pg_is_in_recovery()
            AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 1073741824",
        &[],
    )
    .await?;
    for row in &slots {
        let (name, kept): (&str, i64) = (row.get(0), row.get(1));
        found.push(note(
            Severity::Degraded,
            "slot_inactive",
            format!(
                "the replication slot {name} is not in use and keeps {} of WAL",
                size(kept)
            ),
            "PostgreSQL removes none of it, until its disk is full and it stops",
            "start what reads from the slot, or drop it",
            Mend::Sql(vec![format!(
                "SELECT pg_drop_replication_slot('{}');",
                name.replace('\'', "''")
            )]),
        ));
    }
    let version = rows(
        client,
        "SELECT current_setting('server_version_num')::int",
        &[],
    )
    .await?;
    // The counts moved in version 17.
    let counts = match version[0].get::<_, i32>(0) {
        170_000.. => "SELECT num_timed, num_requested FROM pg_stat_checkpointer",
        _ => "SELECT checkpoints_timed, checkpoints_req FROM pg_stat_bgwriter",
    };
    let counts = rows(client, counts, &[]).await?;
    found.extend(checkpoints(counts[0].get(0), counts[0].get(1)));
    let age = rows(
        client,
        "SELECT age(datfrozenxid)::bigint FROM pg_database WHERE datname = current_database()",
        &[],
    )
    .await?;
    found.extend(frozen(age[0].get(0)));
    Ok(found)
}

/// Requested checkpoints that say nothing: new servers, backups and new databases ask for some.
const REQUESTED_FEW: i64 = 50;

fn checkpoints(timed: i64, requested: i64) -> Option<Diagnosis> {
    (requested > timed && requested > REQUESTED_FEW).then(|| {
        note(
            Severity::Note,
            "checkpoints_by_volume",
            format!("{requested} checkpoints were asked for, most of them by the volume of WAL, and {timed} came by time"),
            "after each one every page that is touched goes into the WAL in full, which costs CPU and disk",
            "raise max_wal_size; docs/postgres.md says what was measured",
            Mend::Sql(vec![
                "ALTER SYSTEM SET max_wal_size = '4GB';".to_owned(),
                "SELECT pg_reload_conf();".to_owned(),
            ]),
        )
    })
}

/// Half of the way to the end of transaction ids.
const AGE_MAX: i64 = 1_000_000_000;

fn frozen(age: i64) -> Option<Diagnosis> {
    (age > AGE_MAX).then(|| {
        note(
            Severity::Degraded,
            "freeze_due",
            format!("the oldest transaction id of the database is {age} transactions old"),
            "at 2,000,000,000 PostgreSQL refuses every write; autovacuum should have prevented it, so \
             something keeps it from its work",
            "end old transactions and unused replication slots, then vacuum the whole database",
            Mend::Sql(vec!["VACUUM (FREEZE);".to_owned()]),
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_bad_below_what_a_server_comes_with_and_is_mended_where_it_was_set() {
        let bad = |setting: &str| BAD.iter().find(|bad| bad.setting == setting).unwrap();
        for (setting, text, unit, is_bad) in [
            ("fsync", "off", None, true),
            ("fsync", "on", None, false),
            ("synchronous_commit", "off", None, true),
            ("synchronous_commit", "remote_apply", None, false),
            ("autovacuum", "off", None, true),
            ("max_wal_size", "1024", Some("MB"), false),
            ("max_wal_size", "256", Some("MB"), true),
            ("checkpoint_timeout", "300", Some("s"), false),
            ("checkpoint_timeout", "30", Some("s"), true),
            ("shared_buffers", "16384", Some("8kB"), false),
            ("shared_buffers", "4096", Some("8kB"), true),
            ("default_transaction_read_only", "on", None, true),
        ] {
            let found = judge(bad(setting), text, unit, None);
            assert_eq!(found.is_some(), is_bad, "{setting} = {text}");
        }
        let here = judge(bad("fsync"), "off", None, None).unwrap();
        assert_eq!(here.mend.sql()[0], "ALTER SYSTEM SET fsync = on;");
        let there = judge(
            bad("autovacuum"),
            "off",
            None,
            Some("ALTER ROLE r RESET autovacuum"),
        );
        assert_eq!(
            there.unwrap().mend.sql(),
            ["ALTER ROLE r RESET autovacuum;"]
        );
    }

    #[test]
    fn checkpoints_by_volume_count_only_where_there_are_many() {
        assert!(checkpoints(3, 40).is_none() && checkpoints(500, 400).is_none());
        assert!(checkpoints(100, 400).is_some());
        assert!(frozen(AGE_MAX).is_none() && frozen(AGE_MAX + 1).is_some());
    }
}
