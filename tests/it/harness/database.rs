//! Databases for tests: a fresh one each, copied from templates that are made once.

use std::sync::atomic::{AtomicU32, Ordering};

use recsys_ingest::postgres::migrate::migrate;
use recsys_ingest::tenants::admin;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;
use tokio_postgres::{Client, NoTls};

use super::cluster::{Cluster, cluster};
use super::settings::{ASLEEP, DEMO, OTHER, PEPPER, key};

/// A database of a test's own.
#[derive(Clone, Debug)]
pub struct Database {
    url: String,
}

impl Database {
    /// With nothing in it.
    pub async fn empty() -> Self {
        Self::copy_of("template0").await
    }

    /// With our schema, and nothing else.
    pub async fn migrated() -> Self {
        static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        MADE.get_or_init(|| async {
            let database = Self::create("migrated", "template0").await;
            database.migrate().await;
        })
        .await;
        Self::copy_of("migrated").await
    }

    /// With our schema, tenants, and a key for each role.
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

    /// With nothing in it, in another encoding than UTF-8.
    pub async fn in_encoding(encoding: &str) -> Self {
        let how = format!("template0 ENCODING '{encoding}' LOCALE 'C'");
        Self::copy_of(&how).await
    }

    /// The same database by another URL.
    pub fn by(url: String) -> Self {
        Self { url }
    }

    /// The first database of a server, as it is.
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            url: cluster.url("recsys"),
        }
    }

    /// On a server of the test's own, with our schema, tenants and keys.
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
        // Two at once disagree about who may read the template.
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
        // The session has to be over before anyone copies the database.
        driver.await.unwrap();
    }

    async fn make_tenants(&self) {
        let (client, driver) = connect_driven(&self.url).await;
        let hasher = ApiKeyHasher::new(PEPPER.as_bytes());
        for (name, id) in [("demo", DEMO), ("other", OTHER), ("asleep", ASLEEP)] {
            admin::tenants::create_tenant(&client, name, name)
                .await
                .unwrap();
            // A fixed id, so that expectations can be written down.
            let sql = format!("UPDATE tenants SET id = '{id}' WHERE external_id = '{name}'");
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

    /// How to connect.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection, open until dropped.
    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// How many rows a table has.
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

/// The first column of the one row that `sql` gives.
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
