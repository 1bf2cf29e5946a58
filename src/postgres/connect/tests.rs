//! Parsing of connection strings, without a server.

use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

use super::{Target, tls::Mode};

fn target(text: &str) -> Target {
    Target::parse(text).unwrap()
}

fn refusal(text: &str) -> String {
    format!("{:#}", Target::parse(text).unwrap_err())
}

#[test]
fn libpq_tls_parameters_are_taken_from_both_forms() {
    for text in [
        "postgres://u:p@db.test/events?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&options=-c%20geqo%3Doff",
        "host=db.test user=u password=p dbname=events sslmode=verify-full sslrootcert=/etc/ca.pem options='-c geqo=off'",
    ] {
        let target = target(text);
        assert_eq!(target.tls.mode, Mode::VerifyFull);
        let config = &target.endpoints[0].config;
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
        assert_eq!(config.get_hosts(), [Host::Tcp("db.test".into())]);
        assert_eq!(config.get_password(), Some(&b"p"[..]));
        assert_eq!(config.get_dbname(), Some("events"));
        assert_eq!(config.get_options(), Some("-c geqo=off"));
    }
}

#[test]
fn limits_and_names_have_defaults_that_the_url_overrides() {
    let config = &target("postgres://u@db.test/events").endpoints[0].config;
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(5)));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_secs(10))
    );
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(30));
    assert_eq!(config.get_application_name(), Some("recsys-ingest"));

    let text = "postgres://u@db.test/events?connect_timeout=2&tcp_user_timeout=1500\
                &keepalives_idle=7200&keepalives_count=9&application_name=a%40b";
    let config = &target(text).endpoints[0].config;
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(2)));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_millis(1500))
    );
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(7200));
    assert_eq!(config.get_keepalives_retries(), Some(9));
    assert_eq!(config.get_application_name(), Some("a@b"));
}

#[test]
fn a_unix_socket_among_hosts_is_the_only_one_without_tls() {
    let target = target("host=/run/pg,db.test port=5433,5434 user=u sslmode=require");
    assert_eq!(
        target.endpoints.iter().map(|e| e.unix).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(target.endpoints[1].config.get_ports(), [5434]);
}

#[test]
fn weak_modes_are_refused_where_they_would_prove_nothing() {
    assert!(refusal("postgres://u@h/d?sslmode=require&sslrootcert=system").contains("verify-full"));
    assert!(refusal("postgres://u@h/d?sslmode=verify-ca").contains("sslrootcert"));
    assert!(refusal("postgres://u@h/d?sslcert=/x").contains("sslkey"));
    assert_eq!(
        target("postgres://u@h/d?sslrootcert=system").tls.mode,
        Mode::VerifyFull
    );
}

#[test]
fn the_password_is_never_shown() {
    let shown = target("postgres://u:hunter2@db.test:6000/events");
    assert_eq!(
        format!("{shown} {shown:?}"),
        "database \"events\" at db.test:6000 as user \"u\" (sslmode=prefer) \
         Target(database \"events\" at db.test:6000 as user \"u\" (sslmode=prefer))"
    );
    for broken in [
        "mysql://u:hunter2@h/d?x=1",
        "postgres://u:hunter2@h:port/d",
        "postgres://u:hunter2@h/d?sslmode=hunter2",
        "postgres://u:hunter2@h/d?Hunter2=hunter2",
        "postgres://u:hunter2@h/d?application_name=%zz",
        "postgres://u:hunter2@",
        "host=h password=correct hunter2",
        "host=h password=correct hunter2=battery",
        "host=h password='hunter2",
        "hunter2",
    ] {
        let text = refusal(broken);
        assert!(!text.to_lowercase().contains("hunter2"), "{broken}: {text}");
    }
}

#[test]
fn a_url_without_a_host_says_how_to_name_one() {
    assert!(refusal("postgres:///events").contains("names no host"));
}

#[test]
fn quotes_and_escapes_in_key_value_form_survive() {
    let config =
        &target(r"host = h  user='o\'neil' password=a\ b\\c dbname=''").endpoints[0].config;
    assert_eq!(config.get_user(), Some("o'neil"));
    assert_eq!(config.get_password(), Some(&br"a b\c"[..]));
}
