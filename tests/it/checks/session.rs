//! Settings of a database that change how statements and answers read.

use super::{is_ready, readiness};
use crate::harness::{Database, Process, Settings, click};

#[tokio::test]
async fn settings_of_a_database_that_change_how_sql_reads_keep_nothing_from_being_stored() {
    let database = Database::with_tenants().await;
    let client = database.connect().await;
    let name: String = client
        .query_one("SELECT quote_ident(current_database())", &[])
        .await
        .unwrap()
        .get(0);
    for (n, setting) in [
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "DateStyle = 'SQL, DMY'",
        "TimeZone = 'Asia/Tokyo'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "client_encoding = 'LATIN1'",
        "default_transaction_isolation = 'serializable'",
    ]
    .into_iter()
    .enumerate()
    {
        let set = format!("ALTER DATABASE {name} RESET ALL; ALTER DATABASE {name} SET {setting}");
        client.batch_execute(&set).await.unwrap();
        let (process, service) = Process::serve(&Settings::new(&database));
        is_ready(&process, &service).await;
        let reply = service
            .query("ack=committed")
            .post("/v1/interactions", &click(&n.to_string()))
            .await;
        assert_eq!(reply.settled(), (1, 0, 0, 0), "{setting}: {}", reply.text);
        assert_eq!(readiness(&service).await.0, "ready", "{setting}");
    }
}

#[tokio::test]
async fn a_connection_that_waits_for_work_is_not_ended_by_the_server() {
    let database = Database::with_tenants().await;
    let client = database.connect().await;
    let set = "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET idle_session_timeout = 700',
               current_database()); END$$";
    client.batch_execute(set).await.unwrap();
    let (process, service) = Process::serve(&Settings::new(&database));
    is_ready(&process, &service).await;
    // Longer than the pauses between the looks at an idle connection.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let log = process.log();
    assert!(!log.contains("cannot reach Postgres"), "{log}");
    assert_eq!(readiness(&service).await.0, "ready");
}
