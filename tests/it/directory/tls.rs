//! TLS and its failures, against a PostgreSQL server with test certificates.

use std::time::{Duration, Instant};

use recsys_ingest::postgres::connect::error::ConnectError;
use recsys_ingest::postgres::connect::{Target, prepare_session};

use super::server::{Server, open};
use crate::harness::Database;

/// Whether the session is encrypted, or why the connection failed.
async fn session(target: &Target) -> Result<bool, ConnectError> {
    let client = open(target.connect().await?);
    let row = client
        .query_one(
            "SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)",
            &[],
        )
        .await
        .unwrap();
    Ok(row.get(0))
}

#[tokio::test]
async fn each_sslmode_checks_what_libpq_checks() {
    let Some(server) = Server::with_tls("server", "").await else {
        return;
    };
    let dir = server.dir.path().display();
    let right = "host=db.test hostaddr=127.0.0.1";
    let wrong = "host=elsewhere.test hostaddr=127.0.0.1";
    let ca = format!("sslrootcert={dir}/ca.crt");
    let other = format!("sslrootcert={dir}/other.crt");
    let outcome = async |parameters: String| session(&server.target_with(&parameters)).await;

    assert!(!outcome(format!("{right} sslmode=disable")).await.unwrap());
    for encrypted in [
        right.to_owned(),
        format!("{right} sslmode=require"),
        format!("{wrong} sslmode=require"),
        format!("{wrong} sslmode=require {ca}"),
        format!("{wrong} sslmode=verify-ca {ca}"),
        format!("{right} sslmode=verify-full {ca}"),
        format!("host=127.0.0.1 sslmode=verify-full {ca}"),
        format!("hostaddr=127.0.0.1 sslmode=verify-full {ca}"),
    ] {
        assert!(outcome(encrypted.clone()).await.unwrap(), "{encrypted}");
    }
    for (refused, why) in [
        (
            format!("{wrong} sslmode=verify-full {ca}"),
            "for other names: db.test, 127.0.0.1",
        ),
        (
            format!("{right} sslmode=verify-full {other}"),
            "not signed by a trusted CA",
        ),
        (
            format!("{right} sslmode=verify-ca {other}"),
            "not signed by a trusted CA",
        ),
        (
            format!("{right} sslmode=require {other}"),
            "not signed by a trusted CA",
        ),
        (
            format!("{right} sslmode=verify-full sslrootcert=system"),
            "not signed by a trusted CA",
        ),
        (
            format!("{right} sslmode=verify-full"),
            "not signed by a trusted CA",
        ),
        (
            format!("{right} sslmode=verify-ca sslrootcert=/no/such"),
            "cannot read sslrootcert",
        ),
    ] {
        let error = outcome(refused.clone()).await.unwrap_err();
        assert!(!error.is_away(), "{refused}: {error}");
        assert!(error.to_string().contains(why), "{refused}: {error}");
    }
    // `prefer` falls back to an unencrypted connection, as libpq does.
    assert!(
        !outcome(format!("{right} sslmode=prefer {other}"))
            .await
            .unwrap()
    );
    // A Unix socket never uses TLS, in any mode.
    assert!(
        !outcome(format!(
            "host={} sslmode=verify-full {ca}",
            server.socket.display()
        ))
        .await
        .unwrap()
    );
}

#[tokio::test]
async fn a_certificate_named_as_root_is_trusted_by_itself_and_version_1_is_enough_for_require() {
    let Some(alone) = Server::with_tls("alone", "").await else {
        return;
    };
    let dir = alone.dir.path().display();
    let full = format!("hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={dir}/alone.crt");
    assert!(
        session(&alone.target_with(&format!("host=db.test {full}")))
            .await
            .unwrap()
    );
    let error = session(&alone.target_with(&format!("host=a.test {full}")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("other names"), "{error}");
    drop(alone);

    let Some(version1) = Server::with_tls("version1", "").await else {
        return;
    };
    let dir = version1.dir.path().display();
    let host = "host=db.test hostaddr=127.0.0.1";
    assert!(
        session(&version1.target_with(&format!("{host} sslmode=require")))
            .await
            .unwrap()
    );
    let full = format!("{host} sslmode=verify-full sslrootcert={dir}/ca.crt");
    let error = session(&version1.target_with(&full)).await.unwrap_err();
    assert!(error.to_string().contains("version 3"), "{error}");
}

#[tokio::test]
async fn passwords_channel_binding_and_client_certificates_work_over_tls() {
    let Some(server) = Server::with_tls(
        "server",
        "hostssl all bob 127.0.0.1/32 scram-sha-256\n\
         hostssl all carol 127.0.0.1/32 cert\nhostnossl all plain 127.0.0.1/32 trust\n\
         hostssl all plain 127.0.0.1/32 reject",
    )
    .await
    else {
        return;
    };
    let client = open(server.target().connect().await.unwrap());
    client
        .batch_execute(
            "CREATE ROLE bob LOGIN PASSWORD 'hunter2'; CREATE ROLE carol LOGIN; CREATE ROLE plain LOGIN",
        )
        .await
        .unwrap();
    let dir = server.dir.path().display();
    let ca = format!("host=127.0.0.1 sslmode=verify-full sslrootcert={dir}/ca.crt");

    let bob = format!("{ca} user=bob password=hunter2 channel_binding=require");
    assert!(session(&server.target_with(&bob)).await.unwrap());
    for (password, why) in [("password=hunter3", "28P01"), ("", "password missing")] {
        let target = server.target_with(&format!("{ca} user=bob {password}"));
        let error = session(&target).await.unwrap_err();
        assert!(!error.is_away());
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.to_string().contains("hunter3"), "{error}");
    }
    let identity = format!("sslcert={dir}/client.crt sslkey={dir}/client.key");
    assert!(
        session(&server.target_with(&format!("{ca} user=carol {identity}")))
            .await
            .unwrap()
    );
    let mixed = format!("{ca} user=carol sslcert={dir}/server.crt sslkey={dir}/client.key");
    let error = session(&server.target_with(&mixed)).await.unwrap_err();
    assert!(
        error.to_string().contains("do not belong together"),
        "{error}"
    );
    let error = session(&server.target_with(&format!("{ca} user=carol")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("pg_hba.conf"), "{error}");
    // pg_hba.conf admits this user only without TLS: `prefer` falls back, `require` fails.
    let plain = "host=127.0.0.1 user=plain";
    assert!(!session(&server.target_with(plain)).await.unwrap());
    let error = session(&server.target_with(&format!("{plain} sslmode=require")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("28000"), "{error}");
}

#[tokio::test]
async fn a_running_statement_can_be_cancelled_over_tls_and_over_the_socket() {
    let Some(server) = Server::with_tls("server", "").await else {
        return;
    };
    for parameters in [
        "host=127.0.0.1 sslmode=require",
        &format!("host={}", server.socket.display()),
    ] {
        let target = server.target_with(parameters);
        let client = open(target.connect().await.unwrap());
        let token = client.cancel_token();
        let started = Instant::now();
        let (slept, cancelled) = tokio::join!(client.batch_execute("SELECT pg_sleep(30)"), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            target.cancel(&token).await
        });
        cancelled.unwrap();
        assert_eq!(
            slept.unwrap_err().code().unwrap().code(),
            "57014",
            "{parameters}"
        );
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn every_common_failure_says_what_happened_and_what_to_do() {
    let mut server = Server::plain().await;
    let dir = server.socket.display().to_string();
    let tcp = server.target_with("host=127.0.0.1 sslmode=require");
    let error = tcp.connect().await.unwrap_err();
    assert!(
        error.to_string().contains("does not support TLS"),
        "{error}"
    );
    assert!(!error.is_away());

    let missing = server.target_with(&format!("host={dir} dbname=nowhere"));
    let error = missing.connect().await.unwrap_err();
    assert!(!error.is_away());
    assert_eq!(
        error.to_string(),
        format!(
            "cannot connect to database \"nowhere\" at {dir}:{} as user \"postgres\": \
             database \"nowhere\" does not exist (SQLSTATE 3D000); \
             create the database (createdb) or correct its name in the database URL",
            server.port
        )
    );
    server.cluster().crash();
    let refused = server.target_with("host=127.0.0.1 password=hunter2");
    let error = refused.connect().await.unwrap_err();
    assert!(error.is_away());
    let text = error.to_string();
    assert!(
        text.contains("refused") && text.contains("start PostgreSQL there"),
        "{text}"
    );
    assert!(!text.contains("hunter2"));
    let error = server.target().connect().await.unwrap_err();
    assert!(error.is_away(), "{error}");
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let target = Target::parse(&format!(
        "postgres://u@127.0.0.1:{port}/d?connect_timeout=1"
    ))
    .unwrap();
    let started = Instant::now();
    let error = target.connect().await.unwrap_err();
    assert!(error.is_away());
    assert!(
        error.to_string().contains("no answer within 3 s"),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_prepared_session_has_our_settings() {
    let database = Database::empty().await;
    let target = Target::parse(database.url()).unwrap();
    let client = open(target.connect().await.unwrap());
    prepare_session(&client, Some(Duration::from_secs(20)))
        .await
        .unwrap();
    for (name, value) in [
        ("TimeZone", "UTC"),
        ("DateStyle", "ISO, MDY"),
        ("client_encoding", "UTF8"),
        ("statement_timeout", "20s"),
        ("application_name", "recsys-ingest"),
    ] {
        let row = client
            .query_one("SELECT current_setting($1)", &[&name])
            .await
            .unwrap();
        assert_eq!(row.get::<_, String>(0), value, "{name}");
    }
}
