//! Parsing of connection strings, without a server.

use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

use super::environment::LibpqEnvironment;
use super::{Target, tls::Mode};

mod sources;

fn target(text: &str) -> Target {
    Target::parse(text).unwrap()
}

fn environment(variables: &[(&str, &str)]) -> LibpqEnvironment {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    LibpqEnvironment::new(variables.iter().map(owned))
}

fn target_in(text: &str, variables: &[(&str, &str)]) -> Target {
    Target::parse_with(text, &environment(variables)).unwrap()
}

fn refusal_in(text: &str, variables: &[(&str, &str)]) -> String {
    let refused = Target::parse_with(text, &environment(variables));
    format!("{:#}", refused.unwrap_err())
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
        "host=h password='correct'hunter=2 hunter2=x",
        "u:hunter2@h/d?sslmode=require",
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

#[test]
fn every_word_of_libpq_is_taken_or_refused_with_a_reason() {
    for harmless in [
        "gssencmode=disable",
        "gssencmode=prefer",
        "krbsrvname=postgres",
        "gsslib=gssapi",
        "gssdelegation=0",
        "fallback_application_name=x",
        "client_encoding=utf8",
        "client_encoding=UTF-8",
        "client_encoding=auto",
        "sslcompression=1",
        "sslsni=0",
        "sslcertmode=allow",
        "sslcertmode=disable",
        "keepalives=0",
        "keepalives_count=3",
        "keepalives_idle=0",
        "keepalives_interval=9",
        "tcp_user_timeout=0",
        "channel_binding=require",
        "load_balance_hosts=random",
        "sslnegotiation=postgres",
        "replication=false",
        "min_protocol_version=3.0",
        "max_protocol_version=latest",
        "ssl_min_protocol_version=TLSv1.2",
        "ssl_max_protocol_version=TLSv1.3",
        "target_session_attrs=any",
        "target_session_attrs=primary",
        "target_session_attrs=read-write",
        "sslmode=disable",
        "sslmode=allow",
        "sslmode=prefer",
        "sslmode=require",
        "sslmode=verify-full",
        "connect_timeout=0",
        "ssl=true",
        "passfile=/no",
        "requiressl=1",
        "authtype=x",
        "tty=x",
        "options=",
        "sslmode=",
    ] {
        let target = target(&format!("postgres://u@h/d?{harmless}"));
        assert_eq!(
            target.endpoints[0].config.get_application_name(),
            Some("recsys-ingest")
        );
        let (name, value) = harmless.split_once('=').unwrap();
        Target::parse(&format!("host=h user=u {name}='{value}'")).unwrap();
    }
    for (refused, why) in [
        ("target_session_attrs=standby", "a standby takes no writes"),
        (
            "target_session_attrs=prefer-standby",
            "a standby takes no writes",
        ),
        (
            "target_session_attrs=read-only",
            "a standby takes no writes",
        ),
        (
            "target_session_attrs=master",
            "one of any, primary, read-write",
        ),
        ("client_encoding=latin1", "one of UTF8"),
        ("gssencmode=require", "use TLS"),
        ("sslcertmode=require", "use allow"),
        ("sslpassword=x", "decrypt the file"),
        ("sslcrl=/x", "revoked"),
        ("sslcrldir=/x", "revoked"),
        ("requirepeer=postgres", "Unix socket"),
        ("require_auth=scram-sha-256", "channel_binding=require"),
        ("replication=database", "takes no rows"),
        ("min_protocol_version=3.2", "3.0"),
        ("ssl_max_protocol_version=TLSv1.1", "TLS before 1.2"),
        (
            "ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "is above",
        ),
        ("oauth_issuer=x", "OAuth"),
        ("scram_client_key=x", "give the password"),
        ("ssl=false", "sslmode=disable"),
        ("connect_timeout=soon", "a whole number"),
        (
            "sslmode=on",
            "one of disable, allow, prefer, require, verify-ca, verify-full",
        ),
        ("ssl_mode=require", "did you mean sslmode?"),
        ("search_path=x", "options=-c%20search_path"),
    ] {
        let refusal = refusal(&format!("postgres://u@h/d?{refused}"));
        assert!(refusal.contains(why), "{refused}: {refusal}");
    }
    // A name is no secret, unless it may be a piece of a password.
    for (refused, why) in [
        ("user=u foo=bar", "not known here: foo"),
        (
            "user=u ssl_mode=require",
            "not known here: ssl_mode; did you mean sslmode?",
        ),
        (
            "user=u search_path=x",
            "write options='-c search_path=NAME'",
        ),
        ("foo=bar password=x", "not known here: foo"),
        ("password=x foo=bar", "behind its password"),
        ("password=a b c", "put values with spaces in '…'"),
        ("password=a b c=d", "put values with spaces in '…'"),
        ("password=a b=c", "password='two words'"),
    ] {
        let refusal = refusal(&format!("host=h {refused}"));
        assert!(refusal.contains(why), "{refused}: {refusal}");
    }
    assert_eq!(target("postgres://u@h/d?ssl=true").tls.mode, Mode::Require);
    // As in libpq, what stands later counts, and a parameter counts before a variable.
    let late = target_in(
        "postgres://u@h/d?sslmode=disable&ssl=true",
        &[("PGSSLMODE", "disable")],
    );
    assert_eq!(late.tls.mode, Mode::Require);
}

#[test]
fn hosts_are_read_as_libpq_reads_them() {
    for (text, places) in [
        ("postgres://a,b:6000/d", &["a:5432", "b:6000"][..]),
        ("postgres://a:1,b:2,c/d", &["a:1", "b:2", "c:5432"]),
        (
            "postgres://[::1]:6000,[fd00::5]/d",
            &["::1:6000", "fd00::5:5432"],
        ),
        ("host=a,b port=6000 dbname=d", &["a:6000", "b:6000"]),
        ("host=a,b port=,6000 dbname=d", &["a:5432", "b:6000"]),
        (
            "hostaddr=10.0.0.1,10.0.0.2 dbname=d",
            &["10.0.0.1:5432", "10.0.0.2:5432"],
        ),
        ("postgres://%2Frun%2Fpg/d", &["/run/pg:5432"]),
        ("postgres:///d?host=/run/pg&port=6000", &["/run/pg:6000"]),
        // A parameter replaces the host in front, and not its port.
        ("postgres://a:6000/d?host=b", &["b:6000"]),
        ("Postgres://a/d", &["a:5432"]),
    ] {
        let shown = |place: &&str| format!("database \"d\" at {place} as user");
        let found = target(text);
        assert_eq!(found.endpoints.len(), places.len(), "{text}");
        for (endpoint, place) in found.endpoints.iter().zip(places) {
            assert!(
                endpoint.place.starts_with(&shown(place)),
                "{text}: {}",
                endpoint.place
            );
        }
    }
    for (text, why) in [
        ("host=a,b port=1,2,3", "2 hosts but 3 ports"),
        ("host=a,b hostaddr=10.0.0.1", "2 host but 1 hostaddr"),
        ("host=a,", "host 2 of the database URL is empty"),
        ("postgres://a,/d", "host 2 of the database URL is empty"),
        ("host=@abstract", "abstract"),
        ("hostaddr=db.test", "an IP address"),
        ("postgres://h:0/d", "1 to 65535"),
        ("postgres://[::1/d", "stands in [ ]"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(why), "{text}: {refusal}");
    }
}

#[test]
fn signs_of_a_password_that_are_not_escaped_are_taken_as_libpq_does_or_get_a_hint() {
    for (text, password) in [
        ("postgres://u:p%40ss@h/d", "p@ss"),
        ("postgres://u:p:ss@h/d", "p:ss"),
        ("postgres://u:p#ss@h/d", "p#ss"),
        ("postgres://u:p?ss@h/d", "p?ss"),
        ("postgres://u:%2F%3A%25@h/d", "/:%"),
    ] {
        let config = &target(text).endpoints[0].config;
        assert_eq!(config.get_password(), Some(password.as_bytes()), "{text}");
    }
    for text in [
        "postgres://u:hunter@2@h/d",
        "postgres://u:hunter/2@h/d",
        "postgres://u:12/hunter2@h/d",
        "postgres://u:hunter#/2@h/d",
        "postgres://u:hunter?/2@h/d",
        "postgres://u:12?hunter/2@h/d",
        "postgres://u:100%hunter@h/d",
        "postgres://u:hunter%@h/d",
        "postgres://u:hunter%00@h/d",
        "postgres://u@corp:hunter@h/d",
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains("write @ as %40"), "{text}: {refusal}");
        assert!(!refusal.contains("hunter"), "{text}: {refusal}");
    }
    for (text, why) in [
        ("jdbc:postgresql://h/d", "remove jdbc:"),
        ("postgresql+asyncpg://h/d", "names a driver"),
        ("\"postgres://u@h/d\"", "remove them"),
        ("mysql://h/d", "does not begin with postgres://"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(why), "{text}: {refusal}");
    }
}
