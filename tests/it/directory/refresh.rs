//! The snapshot follows the tables: read again when they changed, when woken, and after an outage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use recsys_ingest::accounts::board::Board;
use recsys_ingest::clock;
use recsys_ingest::postgres::connect::Target;
use recsys_ingest::tenants::admin;
use recsys_ingest::tenants::admin::keys::KeyDraft;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::lookup::Wanted;
use recsys_ingest::tenants::refresh::TenantCache;
use recsys_ingest::tenants::role::Role;
use recsys_ingest::tenants::snapshot::KeyError;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::harness::{Cluster, Database, eventually};

const NOW_US: i64 = 1_790_000_000_000_000;

fn target(database: &Database) -> Target {
    Target::parse(database.url()).unwrap()
}

fn checks() -> Arc<Board> {
    Arc::new(Board::new(Arc::default(), clock::now, 7))
}

fn hasher() -> ApiKeyHasher {
    ApiKeyHasher::new(b"pepper")
}

/// A cache that has read the tables once, and is to read them again only when woken; with what stops
/// its loop.
async fn running(database: &Database) -> (TenantCache, watch::Sender<bool>, JoinHandle<()>) {
    let directory = TenantCache::new();
    let (stop, stopped) = watch::channel(false);
    let hour = Duration::from_secs(3600);
    let cache = directory.clone();
    let running = tokio::spawn(cache.run(target(database), hour, checks(), stopped));
    eventually("the first reading", async || directory.age().is_some()).await;
    (directory, stop, running)
}

#[tokio::test]
async fn the_loop_notices_a_wake_survives_an_outage_and_stops_when_told() {
    let mut cluster = Cluster::start(&[]);
    let database = Database::on(&cluster).await;
    let client = database.connect().await;
    let (directory, stop, running) = running(&database).await;

    let insert = async |client: &Client, secret| {
        admin::keys::insert_key(client, &hasher(), "demo", None, &[Role::Ingest], secret)
            .await
            .unwrap();
    };
    let known = |secret| {
        directory
            .snapshot()
            .lookup(hasher().hash(secret), NOW_US)
            .is_ok()
    };
    insert(&client, "first-secret").await;
    for _ in 0..1000 {
        directory.wake();
    }
    eventually("the new key", async || known("first-secret")).await;

    cluster.crash();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(known("first-secret"), "the last snapshot stays in force");
    cluster.restart();
    let client = database.connect().await;
    insert(&client, "second-secret").await;
    eventually("the key made after the outage", async || {
        directory.wake();
        known("second-secret")
    })
    .await;

    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), running)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn however_often_it_is_woken_the_tables_are_read_once_a_second() {
    let database = Database::migrated().await;
    let client = database.connect().await;
    let (directory, stop, running) = running(&database).await;
    // Each reading resets the age, so an age that is smaller than the last one counts as a
    // reading.
    let (mut readings, mut last) = (0, Duration::ZERO);
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(2500) {
        directory.wake();
        let age = directory.age().unwrap();
        readings += u32::from(age < last);
        last = age;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!((1..=3).contains(&readings), "{readings} readings");
    // Dropping the sender stops the loop too.
    drop(stop);
    tokio::time::timeout(Duration::from_secs(5), running)
        .await
        .unwrap()
        .unwrap();
    drop(client);
}

#[tokio::test]
async fn tables_are_read_again_when_something_in_them_changed() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    for tenant in ["demo", "other"] {
        admin::tenants::create_tenant(&mut client, tenant, "")
            .await
            .unwrap();
    }
    for roles in [&[Role::Ingest], &[Role::Publish]] {
        let draft = KeyDraft {
            tenant: "demo",
            roles,
            ..KeyDraft::default()
        };
        admin::keys::create_key(&mut client, &hasher(), &draft)
            .await
            .unwrap();
    }
    let directory = TenantCache::new();
    directory.refresh(&mut client).await.unwrap();
    let mut changes = async |sql: &str| {
        let before = directory.snapshot();
        client.batch_execute(sql).await.unwrap();
        let said = directory.refresh(&mut client).await.unwrap().anything;
        let is_another = !Arc::ptr_eq(&before, &directory.snapshot());
        assert_eq!(said, is_another, "{sql}");
        said
    };
    for nothing in [
        "",
        "UPDATE tenant_api_keys SET last_used_at = now()",
        "UPDATE ingest_publish_keys SET last_used_at = now()",
        "UPDATE tenants SET external_id = external_id",
    ] {
        assert!(!changes(nothing).await, "{nothing}");
    }
    for something in [
        "UPDATE tenants SET status = 'suspended' WHERE external_id = 'other'",
        "UPDATE tenants SET external_id = 'another' WHERE external_id = 'other'",
        "INSERT INTO ingest_tenant_settings (tenant_id, settings)
         SELECT id, '{\"surfaces\": [\"home\"]}' FROM tenants WHERE external_id = 'demo'",
        "UPDATE ingest_tenant_settings SET settings = '{\"surfaces\": [\"search\"]}'",
        "DELETE FROM ingest_tenant_settings",
        "UPDATE tenant_api_keys SET roles = '{viewer}'",
        "UPDATE tenant_api_keys SET expires_at = now()",
        "UPDATE tenant_api_keys SET revoked_at = now()",
        "UPDATE ingest_publish_keys SET expires_at = now()",
        "INSERT INTO ingest_key_settings (key_id, settings)
         SELECT id, '{\"origins\": [\"https://shop.example\"]}' FROM ingest_publish_keys",
        "UPDATE tenant_api_keys SET key_hash = repeat('0', 64)",
        "UPDATE tenant_api_keys SET tenant_id = (SELECT id FROM tenants WHERE external_id = 'another')",
        "DELETE FROM ingest_publish_keys",
        "DELETE FROM tenant_api_keys",
    ] {
        assert!(changes(something).await, "{something}");
    }
}

#[tokio::test]
async fn a_key_that_was_looked_up_and_then_deleted_is_out_of_force() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    admin::tenants::create_tenant(&mut client, "demo", "")
        .await
        .unwrap();
    let (directory, stop, running) = running(&database).await;
    let draft = KeyDraft {
        tenant: "demo",
        roles: &[Role::Ingest],
        ..KeyDraft::default()
    };
    let key = admin::keys::create_key(&mut client, &hasher(), &draft)
        .await
        .unwrap();
    let hash = hasher().hash(&key.secret);
    assert!(directory.find(Wanted::Key(hash)).await);
    client
        .batch_execute("DELETE FROM tenant_api_keys")
        .await
        .unwrap();
    eventually("the key to be unknown", async || {
        directory.wake();
        directory.snapshot().lookup(hash, NOW_US) == Err(KeyError::Unknown)
    })
    .await;
    stop.send(true).unwrap();
    running.await.unwrap();
}
