//! What is dropped of the schema is told alike by every command, and the advice mends it.

use recsys_ingest::postgres::migrate::History;
use recsys_ingest::postgres::migrate::objects::{Kind, missing, objects};
use serde_json::Value;
use tokio_postgres::Client;

use super::words::adopted;
use crate::harness::{Database, texts};

/// Runs a command of the program. Returns its exit code, and what it said.
fn cli(database: &Database, arguments: &[&str]) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(arguments)
        .env_remove("INGEST_SPOOL_DIR")
        .env("DATABASE_URL", database.url())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// What `doctor` found with this code.
fn found(database: &Database, code: &str) -> Vec<Value> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(["doctor", "--json"])
        .env_remove("INGEST_SPOOL_DIR")
        .env("DATABASE_URL", database.url())
        .output()
        .unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = document["findings"].as_array().unwrap().iter();
    findings
        .filter(|one| one["code"] == code)
        .cloned()
        .collect()
}

/// The schema in words: views, functions, indexes, constraints, columns and tables.
async fn schema(client: &Client) -> Vec<String> {
    let mut all = texts(
        client,
        "SELECT 'view ' || relname || pg_get_viewdef(oid) || coalesce(obj_description(oid, 'pg_class'), '')
           FROM pg_class WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace
          UNION ALL
         SELECT pg_get_functiondef(oid) || coalesce(obj_description(oid, 'pg_proc'), '')
           FROM pg_proc WHERE pronamespace = 'public'::regnamespace
          UNION ALL
         SELECT pg_get_indexdef(i.indexrelid)
           FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
          WHERE c.relnamespace = 'public'::regnamespace
          UNION ALL
         SELECT conrelid::regclass::text || ' ' || conname || ' ' || pg_get_constraintdef(oid)
           FROM pg_constraint WHERE connamespace = 'public'::regnamespace
          UNION ALL
         SELECT concat_ws(' ', c.relname, c.relkind::text, c.reloptions::text, obj_description(c.oid, 'pg_class'),
                          a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                          a.attidentity::text, a.attcompression::text, pg_get_expr(d.adbin, d.adrelid),
                          col_description(c.oid, a.attnum))
           FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
          WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace",
    )
    .await;
    all.sort();
    all
}

#[tokio::test]
async fn all_that_a_fresh_schema_has_is_known_and_of_an_adopted_one_nothing_is_missed() {
    let database = Database::migrated().await;
    let client = database.connect().await;
    let mut there = texts(
        &client,
        "SELECT CASE relkind WHEN 'v' THEN 'view ' ELSE 'table ' END || relname
           FROM pg_class
          WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
            AND relname <> 'ingest_schema_history'
          UNION ALL
         SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
          UNION ALL
         SELECT 'index ' || x.relname
           FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_class AS t ON t.oid = i.indrelid
          WHERE t.relnamespace = 'public'::regnamespace AND starts_with(t.relname, 'ingest_')
            AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = x.oid)",
    )
    .await;
    there.sort();
    let mut known: Vec<String> = objects().iter().map(ToString::to_string).collect();
    known.sort();
    assert_eq!(known, there);
    for database in [database, adopted().await.0] {
        let client = database.connect().await;
        let gone = missing(&client, &History::Current).await.unwrap();
        assert!(gone.is_empty(), "{gone:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_functions_and_indexes_that_were_dropped_are_made_again() {
    let database = Database::migrated().await;
    let client = database.connect().await;
    let whole = schema(&client).await;
    let mut dropped = Vec::new();
    for object in objects() {
        let drop = match object.kind {
            Kind::View | Kind::Index => format!("DROP {object} CASCADE"),
            // Columns and triggers of the suite's tables hang on the others.
            Kind::Function
                if ["ingest_join_quality_of", "ingest_ensure_monthly_partitions"]
                    .contains(&object.name) =>
            {
                format!("DROP {object} CASCADE")
            }
            Kind::Function | Kind::Table => continue,
        };
        // Some went with those before.
        let drop = drop.replacen(object.name, &format!("IF EXISTS {}", object.name), 1);
        client.batch_execute(&drop).await.unwrap();
        dropped.push(object.to_string());
    }
    assert!(dropped.len() > 10, "{dropped:?}");
    let (code, status) = cli(&database, &["migrate", "--status"]);
    assert_eq!(code, Some(1), "{status}");
    let (_, shown) = cli(&database, &["migrate", "--dry-run"]);
    let findings = found(&database, "object_missing");
    assert_eq!(findings.len(), dropped.len(), "{findings:#?}");
    for object in &dropped {
        assert!(status.contains(&format!("{object}\tgone\n")), "{status}");
        assert!(shown.contains(&format!("-- {object}\n")), "{shown}");
        let words = format!("no {object},");
        let mut all = findings.iter();
        let told = all.find(|one| one["seen"].as_str().unwrap().contains(&words));
        let told = told.unwrap_or_else(|| panic!("{object}: {findings:#?}"));
        assert_eq!(told["command"], "recsys-ingest migrate");
    }
    let (code, said) = cli(&database, &["migrate"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("made again: ") && said.contains("recsys_exposures"),
        "{said}"
    );
    assert_eq!(schema(&client).await, whole);
    let (code, said) = cli(&database, &["migrate", "--status"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nothing to do"), "{said}");
    assert!(found(&database, "object_missing").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_is_named_and_made_empty_by_the_sql_that_is_shown() {
    let database = Database::migrated().await;
    let client = database.connect().await;
    let whole = schema(&client).await;
    let is_ours = |name: &str| {
        name.starts_with("ingest_")
            || name.ends_with("_events") && name != "cache_invalidation_events"
    };
    let all = objects();
    let ours = all
        .iter()
        .filter(|one| one.kind == Kind::Table && is_ours(one.name));
    let ours: Vec<&str> = ours.map(|table| table.name).collect();
    assert!(ours.len() > 15, "{ours:?}");
    // One of the service's own: the other commands say the same as doctor.
    client
        .batch_execute("DROP TABLE ingest_removed_rows")
        .await
        .unwrap();
    for arguments in [&["migrate"][..], &["migrate", "--status"]] {
        let (code, said) = cli(&database, arguments);
        assert_eq!(code, Some(1), "{said}");
        for words in ["table ingest_removed_rows", "backup", "doctor"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(!said.contains("nothing to do"), "{said}");
    }
    for table in &ours {
        let drop = format!("DROP TABLE IF EXISTS {table} CASCADE");
        client.batch_execute(&drop).await.unwrap();
    }
    let (code, said) = cli(&database, &["migrate"]);
    assert_eq!(code, Some(1), "{said}");
    let findings = found(&database, "table_missing");
    assert_eq!(findings.len(), ours.len(), "{findings:#?}");
    for finding in &findings {
        assert!(
            finding["remedy"].to_string().contains("backup"),
            "{finding}"
        );
        let sql = finding["sql"].as_array().unwrap();
        assert!(!sql.is_empty(), "{finding}");
        for statement in sql {
            let statement = statement.as_str().unwrap();
            let made = client.batch_execute(statement).await;
            // A server without lz4 has another compression, here as after the migration.
            assert!(
                made.is_ok() || statement.contains("SET COMPRESSION"),
                "{statement}: {made:?}"
            );
        }
    }
    let (code, said) = cli(&database, &["migrate"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(schema(&client).await, whole);
    // Other tables refer to one of the suite's: there is no SQL that brings all of it back.
    client
        .batch_execute("DROP TABLE tenants CASCADE")
        .await
        .unwrap();
    let findings = found(&database, "table_missing");
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0]["sql"], Value::Array(Vec::new()));
    assert!(findings[0]["remedy"].to_string().contains("backup"));
}
