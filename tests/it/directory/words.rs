//! libpq's words, files and variables, against real servers.

use std::os::unix::fs::PermissionsExt;

use recsys_ingest::postgres::connect::Target;
use recsys_ingest::postgres::connect::environment::LibpqEnvironment;

use super::server::{Server, open};
use crate::harness::{Cluster, Database, one};

fn target(text: &str, variables: &[(&str, &str)]) -> Target {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    let environment = LibpqEnvironment::new(variables.iter().map(owned));
    Target::parse_with(text, &environment).unwrap()
}

#[tokio::test]
async fn passwords_are_found_where_libpq_finds_them() {
    let hba = "host all bob 127.0.0.1/32 scram-sha-256";
    let Some(server) = Server::with_tls("server", hba).await else {
        return;
    };
    let client = open(server.target().connect().await.unwrap());
    client
        .batch_execute("CREATE ROLE bob LOGIN PASSWORD 'p:ss\\word'")
        .await
        .unwrap();
    let port = server.port.to_string();
    let dir = server.dir.path();
    let file = dir.join("pgpass");
    let line = format!("127.0.0.1:{port}:postgres:bob:p\\:ss\\\\word\n");
    std::fs::write(&file, format!("# for tests\nelsewhere:*:*:*:wrong\n{line}")).unwrap();
    let set = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    set(0o600);
    let services = dir.join("services");
    let service = format!("[events]\nhost=127.0.0.1\nport={port}\nuser=bob\ndbname=postgres\n");
    std::fs::write(&services, service).unwrap();
    let (file, services) = (file.display().to_string(), services.display().to_string());
    let given = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", port.as_str()),
        ("PGUSER", "bob"),
        ("PGDATABASE", "postgres"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&given[..], more].concat();
    let from_file = [&given[..], &[("PGPASSFILE", file.as_str())]].concat();
    let service = [
        ("PGSERVICEFILE", services.as_str()),
        ("PGPASSFILE", file.as_str()),
    ];
    for (text, variables) in [
        ("postgres://", with(&[("PGPASSWORD", r"p:ss\word")])),
        ("postgres://", from_file.clone()),
        ("service=events", service.to_vec()),
        (
            &format!("postgres://bob@127.0.0.1:{port}/postgres?passfile={file}"),
            vec![],
        ),
    ] {
        let connection = target(text, &variables).connect().await.unwrap();
        let user: String = one(&open(connection), "SELECT current_user::text").await;
        assert_eq!(user, "bob", "{text}");
    }
    let failure = async |text: &str, variables: &[(&str, &str)]| {
        let error = target(text, variables).connect().await.unwrap_err();
        assert!(!error.is_away(), "{error}");
        error.to_string()
    };
    set(0o644);
    let said = failure("postgres://", &from_file).await;
    assert!(
        said.contains("password missing") && said.contains(&file),
        "{said}"
    );
    assert!(said.contains("run chmod 600 on it"), "{said}");
    set(0o600);
    std::fs::write(&file, "*:*:*:bob:wrong\n").unwrap();
    let said = failure("postgres://", &from_file).await;
    assert!(
        said.contains("28P01") && said.contains(&format!("correct the password in {file}")),
        "{said}"
    );
    let said = failure("postgres://", &with(&[("PGPASSWORD", "wrong")])).await;
    assert!(
        said.contains("correct user and password in PGPASSWORD"),
        "{said}"
    );
    let said = failure("postgres://", &given).await;
    assert!(
        said.contains("give it in the database URL, in PGPASSWORD"),
        "{said}"
    );
}

#[tokio::test]
async fn of_several_hosts_the_one_that_takes_writes_is_used() {
    let primary = Server::plain().await;
    let mut standby = Cluster::start(&[("wal_level", "replica"), ("hot_standby", "on")]);
    let data: String = one(
        &Database::of(&standby).connect().await,
        "SHOW data_directory",
    )
    .await;
    standby.crash();
    std::fs::write(std::path::Path::new(&data).join("standby.signal"), "").unwrap();
    standby.restart();
    let client = Database::of(&standby).connect().await;
    assert!(one::<bool>(&client, "SELECT pg_is_in_recovery()").await);
    let socket: String = one(&client, "SHOW unix_socket_directories").await;
    let port: String = one(&client, "SHOW port").await;

    let both = format!(
        "host={socket},127.0.0.1 port={port},{} user=postgres dbname=postgres",
        primary.port
    );
    let database: String = one(&client, "SELECT current_user::text").await;
    assert_eq!(database, "postgres");
    for attributes in ["primary", "read-write"] {
        let text = format!("{both} target_session_attrs={attributes}");
        let client = open(target(&text, &[]).connect().await.unwrap());
        assert!(!one::<bool>(&client, "SELECT pg_is_in_recovery()").await);
        let alone = format!(
            "host={socket} port={port} user=postgres dbname=postgres target_session_attrs={attributes}"
        );
        let error = target(&alone, &[]).connect().await.unwrap_err();
        assert!(error.is_away(), "{error}");
        assert!(
            error.to_string().contains("the server is a standby"),
            "{error}"
        );
    }
    let client = open(target(&both, &[]).connect().await.unwrap());
    assert!(one::<bool>(&client, "SELECT pg_is_in_recovery()").await);

    let read_only = primary.target_with("host=127.0.0.1 target_session_attrs=read-write options='-c default_transaction_read_only=on'");
    let error = read_only.connect().await.unwrap_err();
    assert!(
        error.to_string().contains("default_transaction_read_only"),
        "{error}"
    );
    let as_primary = primary.target_with(
        "host=127.0.0.1 target_session_attrs=primary options='-c default_transaction_read_only=on'",
    );
    drop(as_primary.connect().await.unwrap());
}

#[tokio::test]
async fn allow_uses_tls_only_where_the_server_insists() {
    let hba = "hostssl all secret 127.0.0.1/32 trust\nhostnossl all secret 127.0.0.1/32 reject";
    let Some(server) = Server::with_tls("server", hba).await else {
        return;
    };
    let client = open(server.target().connect().await.unwrap());
    client
        .batch_execute("CREATE ROLE secret LOGIN")
        .await
        .unwrap();
    for (user, is_encrypted) in [("postgres", false), ("secret", true)] {
        let target = server.target_with(&format!("host=127.0.0.1 user={user} sslmode=allow"));
        let client = open(target.connect().await.unwrap());
        let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert_eq!(one::<bool>(&client, ssl).await, is_encrypted, "{user}");
    }
}
