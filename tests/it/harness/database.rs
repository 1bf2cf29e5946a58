//! Databases for tests: a fresh one for each test, copied from templates that are made once.

use std::sync::atomic::{AtomicU32, Ordering};

use recsys_ingest::postgres::migrate::migrate;
use recsys_ingest::tenants::admin;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;
use tokio_postgres::{Client, NoTls};

use super::cluster::{Cluster, cluster};
use super::settings::{ASLEEP, DEMO, OTHER, PEPPER, key};

/// A database.
#[derive(Clone, Debug)]
pub struct Database {
    url: String,
}

impl Database {
    /// An empty database.
    pub async fn empty() -> Self {
        Self::copy_of("template0").await
    }

    /// With the schema only.
    pub async fn migrated() -> Self {
        static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        MADE.get_or_init(|| async {
            let database = Self::create("migrated", "template0").await;
            database.migrate().await;
        })
        .await;
        Self::copy_of("migrated").await
    }

    /// With the schema, tenants, and a key for each role.
    pub async fn with_tenants() -> Self {
        static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        MADE.get_or_init(|| async {
            let database = Self::create("with_tenants", "template0").await;
            database.migrate().await;
            database.make_tenants().await;
        })
        .await;
        Self::copy_of("with_tenants").await
    }

    /// An empty database in another encoding than UTF-8.
    pub async fn in_encoding(encoding: &str) -> Self {
        let how = format!("template0 ENCODING '{encoding}' LOCALE 'C'");
        Self::copy_of(&how).await
    }

    /// The database behind `url`.
    pub fn by(url: String) -> Self {
        Self { url }
    }

    /// The first database of a server, unchanged.
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            url: cluster.url("recsys"),
        }
    }

    /// The first database of a server, with the schema, tenants and keys.
    pub async fn on(cluster: &Cluster) -> Self {
        let database = Self::of(cluster);
        database.migrate().await;
        database.make_tenants().await;
        database
    }

    async fn copy_of(template: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self::create(&name, template).await
    }

    async fn create(name: &str, template: &str) -> Self {
        // Concurrent CREATE DATABASE from one template can fail: one at a time.
        static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _guard = ONE_AT_A_TIME.lock().await;
        let admin = connect(&cluster().url("postgres")).await;
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await
            .unwrap();
        Self {
            url: cluster().url(name),
        }
    }

    async fn migrate(&self) {
        let (mut client, driver) = connect_driven(&self.url).await;
        migrate(&mut client).await.unwrap();
        drop(client);
        // A database with an open session cannot be a template: wait until the session has ended.
        driver.await.unwrap();
    }

    async fn make_tenants(&self) {
        let (client, driver) = connect_driven(&self.url).await;
        let hasher = ApiKeyHasher::new(PEPPER.as_bytes());
        for (name, id) in [("demo", DEMO), ("other", OTHER), ("asleep", ASLEEP)] {
            // A fixed id, so that tests can name it in expected values.
            let sql = format!(
                "INSERT INTO tenants (id, external_id, name) VALUES ('{id}', '{name}', '{name}')"
            );
            client.batch_execute(&sql).await.unwrap();
            for role in Role::ALL {
                let secret = key(name, role);
                admin::keys::insert_key(&client, &hasher, name, None, &[role], &secret)
                    .await
                    .unwrap();
            }
        }
        client
            .batch_execute("UPDATE tenants SET status = 'suspended' WHERE external_id = 'asleep'")
            .await
            .unwrap();
        drop(client);
        driver.await.unwrap();
    }

    /// The URL of the database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A new connection; it ends when the client is dropped.
    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// Number of rows in a table.
    pub async fn count(&self, table: &str) -> i64 {
        one(
            &self.connect().await,
            &format!("SELECT count(*) FROM {table}"),
        )
        .await
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        let client = self.connect().await;
        if let Err(error) = client.batch_execute(sql).await {
            panic!("{sql}: {error:?}");
        }
    }
}

async fn connect(url: &str) -> Client {
    connect_driven(url).await.0
}

async fn connect_driven(url: &str) -> (Client, tokio::task::JoinHandle<()>) {
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    config.application_name("integration test");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    let driver = tokio::spawn(async move { drop(connection.await) });
    (client, driver)
}

/// The first column of the only row.
pub async fn one<T>(client: &Client, sql: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    client
        .query_one(sql, &[])
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
        .get(0)
}

/// The first column of all rows.
pub async fn texts(client: &Client, sql: &str) -> Vec<String> {
    let rows = client
        .query(sql, &[])
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}
