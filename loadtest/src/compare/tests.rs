//! Every method without the service, against a real Postgres.

use jiff::Timestamp;
use tempfile::TempDir;

use super::environment::Environment;
use super::load::{Load, day_of};
use super::method::{Method, load_by_copy};
use super::options::CompareOptions;
use super::rows::{Rows, digest};
use crate::generate::defaults;
use crate::service::{Micros, TABLES};

const EVENTS: u32 = 12_345;

/// An environment for one test, in a directory that is empty otherwise.
pub async fn test_environment() -> (Environment, TempDir) {
    // Postgres runs as another user where the tests run as root.
    let mut dir = tempfile::Builder::new();
    let dir = dir.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
    let dir = dir.tempdir().unwrap();
    // The program is looked for and not started.
    let service = std::env::current_exe().unwrap();
    let options = CompareOptions {
        dir: dir.path().to_owned(),
        ..defaults::<CompareOptions>()
    };
    let now = Micros(Timestamp::now().as_microsecond());
    let environment = Environment::new(&options, Some(&service), now)
        .await
        .unwrap();
    (environment, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_copy_loads_the_same_rows_and_the_suites_own_tables_take_them() {
    let now = Timestamp::now();
    let (environment, dir) = test_environment().await;
    environment.make_suite().await.unwrap();
    for table in TABLES {
        let mut load = Load::new(&defaults::<CompareOptions>(), table, 1000, day_of(now));
        load.settings.events = EVENTS;
        let received_at = Micros(now.as_microsecond());
        let rows = Rows::make(&environment, &load, received_at).await.unwrap();
        assert_eq!((rows.count, rows.blocks.len()), (EVENTS.into(), 2));
        let expected = digest(&environment, table).await.unwrap();
        assert!(expected.starts_with("12345 rows"), "{expected}");
        for method in [
            Method::Text,
            Method::Binary(1),
            Method::Binary(2),
            Method::SuiteText,
        ] {
            let sample = load_by_copy(&environment, &rows, method).await.unwrap();
            assert_eq!(sample.rows, rows.count);
            assert!(sample.wal_bytes > Some(100.0 * f64::from(EVENTS)));
            assert!(sample.postgres_cpu > Some(0.0));
            // Those of the suite's table were counted.
            assert_eq!(digest(&environment, table).await.unwrap(), expected);
        }
    }
    environment.delete().await.unwrap();
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}
