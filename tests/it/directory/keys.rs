//! Tenants and keys, from the commands to the snapshot.

use std::time::{Duration, Instant};

use recsys_ingest::tenants::admin;
use recsys_ingest::tenants::admin::keys::KeyDraft;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::refresh::TenantCache;
use recsys_ingest::tenants::role::Role;
use recsys_ingest::tenants::snapshot::KeyError;
use uuid::Uuid;

use crate::harness::Database;

const NOW_US: i64 = 1_790_000_000_000_000;

fn hasher() -> ApiKeyHasher {
    ApiKeyHasher::new(b"pepper")
}

#[tokio::test]
async fn a_created_key_lets_its_holder_in_until_it_is_revoked() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let directory = TenantCache::new();
    assert_eq!(directory.age(), None);
    let tenant = admin::tenants::create_tenant(&mut client, "demo", "")
        .await
        .unwrap();
    let draft = KeyDraft {
        tenant: "demo",
        name: Some("web"),
        roles: &[Role::Ingest, Role::Ingest, Role::Viewer],
        ..KeyDraft::default()
    };
    let key = admin::keys::create_key(&mut client, &hasher(), &draft)
        .await
        .unwrap();
    assert!(key.secret.starts_with("rik_"));

    let changed = directory.refresh(&mut client).await.unwrap();
    assert!(changed.anything);
    assert_eq!(
        (changed.tenants, changed.keys, changed.skipped_keys),
        (1, 1, 0)
    );
    assert!(directory.age().unwrap() < Duration::from_secs(5));
    let caller = directory
        .snapshot()
        .lookup(hasher().hash(&key.secret), NOW_US)
        .unwrap();
    assert_eq!((caller.key_id, caller.tenant.id), (key.id, tenant.id));
    assert!(caller.roles.contains(Role::Viewer) && !caller.roles.contains(Role::Admin));
    assert!(!directory.refresh(&mut client).await.unwrap().anything);

    let listed = admin::keys::list_keys(&client, Some(&tenant.id.to_string()))
        .await
        .unwrap();
    assert_eq!(listed[0].roles, ["ingest", "viewer"]);
    assert_eq!(listed[0].key_prefix.as_deref(), Some(&key.secret[..8]));
    assert_eq!(
        admin::tenants::list_tenants(&client).await.unwrap()[0].keys,
        1
    );

    assert_eq!(
        admin::key_changes::revoke_key(&mut client, &key.secret[..8])
            .await
            .unwrap(),
        (key.id, true)
    );
    let first = admin::keys::list_keys(&client, None).await.unwrap()[0].revoked_at;
    assert!(first.is_some());
    assert_eq!(
        admin::key_changes::revoke_key(&mut client, &key.id.to_string())
            .await
            .unwrap(),
        (key.id, false)
    );
    assert_eq!(
        admin::keys::list_keys(&client, None).await.unwrap()[0].revoked_at,
        first
    );
    assert!(directory.refresh(&mut client).await.unwrap().anything);
    let refused = directory
        .snapshot()
        .lookup(hasher().hash(&key.secret), NOW_US);
    assert_eq!(refused, Err(KeyError::Revoked));
}

#[tokio::test]
async fn odd_rows_neither_stop_a_refresh_nor_let_anyone_in() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let hash = |raw: &str| hasher().hash(raw).to_hex();
    admin::tenants::create_tenant(&mut client, "demo", "Demo")
        .await
        .unwrap();
    for (hash, roles, expires_at) in [
        ("no hash".to_owned(), "{ingest}", "infinity"),
        (hash("for ever"), "{NULL,wizard,PUBLISH,INGEST}", "infinity"),
        (hash("never"), "{}", "-infinity"),
        (hash("far"), "{ingest}", "200000-01-01"),
    ] {
        client
            .execute(
                "INSERT INTO tenant_api_keys (tenant_id, key_hash, roles, expires_at) \
                 SELECT id, $1, $2::text::text[], $3::text::timestamptz FROM tenants",
                &[&hash, &roles, &expires_at],
            )
            .await
            .unwrap();
    }
    let directory = TenantCache::new();
    let changed = directory.refresh(&mut client).await.unwrap();
    assert_eq!((changed.keys, changed.skipped_keys), (3, 1));
    let snapshot = directory.snapshot();
    let look = |raw: &str| snapshot.lookup(hasher().hash(raw), NOW_US);
    assert_eq!(
        look("for ever").unwrap().roles.iter().collect::<Vec<_>>(),
        [Role::Ingest],
        "a key of the suite's table is never a publish key"
    );
    assert_eq!(look("never"), Err(KeyError::Expired));
    assert!(look("far").is_ok());
    assert_eq!(
        admin::keys::list_keys(&client, None).await.unwrap().len(),
        4
    );
}

#[tokio::test]
async fn mistakes_at_the_command_line_are_named() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let mut others = database.connect().await;
    let hasher = hasher();
    admin::tenants::create_tenant(&mut client, "demo", "Demo")
        .await
        .unwrap();
    admin::tenants::create_tenant(&mut client, "gone", "Gone")
        .await
        .unwrap();
    client
        .batch_execute("UPDATE tenants SET status = 'deleted' WHERE external_id = 'gone'")
        .await
        .unwrap();
    let past = jiff::Timestamp::from_second(1).unwrap();
    let mut key = async |tenant, roles: &[Role], expires_at| {
        let draft = KeyDraft {
            tenant,
            roles,
            expires_at,
            ..KeyDraft::default()
        };
        let made = admin::keys::create_key(&mut others, &hasher, &draft).await;
        made.unwrap_err().to_string()
    };

    let twice = admin::tenants::create_tenant(&mut client, "demo", "")
        .await
        .unwrap_err();
    assert!(twice.to_string().contains("exists already"));
    assert!(
        key("nobody", &[Role::Ingest], None)
            .await
            .contains("there is no tenant")
    );
    assert!(
        key("gone", &[Role::Ingest], None)
            .await
            .contains("is deleted")
    );
    assert!(key("demo", &[], None).await.contains("no role"));
    assert!(
        key("demo", &[Role::Publish, Role::Ingest], None)
            .await
            .contains("no other role")
    );
    assert!(
        key("demo", &[Role::Ingest], Some(past))
            .await
            .contains("expired already")
    );
    assert!(
        admin::keys::list_keys(&client, Some("nobody"))
            .await
            .is_err()
    );
    for nothing in ["", "  ", "rik_zzzz", &Uuid::nil().to_string()] {
        let error = admin::key_changes::revoke_key(&mut client, nothing)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("no API key"), "{error}");
    }
    for secret in ["dev-secret-number-1", "dev-secret-number-2"] {
        admin::keys::insert_key(&client, &hasher, "demo", None, &[Role::Ingest], secret)
            .await
            .unwrap();
    }
    let error = admin::key_changes::revoke_key(&mut client, "dev-secr")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than one"), "{error}");
}

#[tokio::test]
async fn a_given_secret_is_the_same_key_every_time() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    for tenant in ["demo", "other"] {
        admin::tenants::create_tenant(&mut client, tenant, "")
            .await
            .unwrap();
    }
    let mut another = database.connect().await;
    let insert = async |tenant, roles: &[Role]| {
        admin::keys::insert_key(
            &client,
            &hasher(),
            tenant,
            Some("dev"),
            roles,
            "dev-ingest-key",
        )
        .await
    };
    let first = insert("demo", &[Role::Ingest]).await.unwrap();
    assert_eq!(
        insert("demo", &[Role::Ingest, Role::Service])
            .await
            .unwrap(),
        first
    );
    let keys = admin::keys::list_keys(&client, None).await.unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].roles, ["ingest", "service"]);
    assert!(insert("other", &[Role::Ingest]).await.is_err());
    admin::key_changes::revoke_key(&mut another, &first.to_string())
        .await
        .unwrap();
    let error = insert("demo", &[Role::Ingest])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("revoked"), "{error}");
}

#[tokio::test]
async fn ten_thousand_tenants_are_read_and_looked_up_quickly() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "INSERT INTO tenants (external_id, name) SELECT 't' || n, 'T' FROM generate_series(1, 10000) n;
             INSERT INTO tenant_api_keys (tenant_id, key_hash, roles)
             SELECT id, encode(sha256(external_id::bytea), 'hex'), '{ingest}' FROM tenants",
        )
        .await
        .unwrap();
    let directory = TenantCache::new();
    let started = Instant::now();
    assert_eq!(directory.refresh(&mut client).await.unwrap().keys, 10_000);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    println!("10,000 tenants and keys read in {:?}", started.elapsed());
    let plain = ApiKeyHasher::new(b"");
    let snapshot = directory.snapshot();
    for n in 1..=10_000 {
        let name = format!("t{n}");
        let caller = snapshot.lookup(plain.hash(&name), NOW_US).unwrap();
        assert_eq!(Some(&caller.tenant), snapshot.tenant(&name));
    }
}
