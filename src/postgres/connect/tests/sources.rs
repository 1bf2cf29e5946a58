//! What a connection string leaves out: variables, services, password files.

use std::time::Duration;

use super::super::role::ServerRole;
use super::super::tls::Mode;
use super::{refusal_in, target_in};

#[test]
fn what_a_connection_string_leaves_out_comes_from_libpqs_environment() {
    let all = [
        ("PGHOST", "db.test"),
        ("PGPORT", "6000"),
        ("PGDATABASE", "events"),
        ("PGUSER", "ada"),
        ("PGPASSWORD", " pass word "),
        ("PGAPPNAME", "named"),
        ("PGSSLMODE", "require"),
        ("PGCONNECT_TIMEOUT", "7"),
        ("PGOPTIONS", "-c geqo=off"),
        ("PGTARGETSESSIONATTRS", "primary"),
        ("PGKRBSRVNAME", "postgres"),
    ];
    for empty in ["postgres://", "POSTGRESQL://", "postgres:///", "dbname=''"] {
        let target = target_in(empty, &all);
        let endpoint = &target.endpoints[0];
        assert_eq!(
            endpoint.place, "database \"events\" at db.test:6000 as user \"ada\"",
            "{empty}"
        );
        let config = &endpoint.config;
        assert_eq!(config.get_password(), Some(&b" pass word "[..]));
        assert_eq!(config.get_application_name(), Some("named"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(config.get_options(), Some("-c geqo=off"));
        assert_eq!(target.tls.mode, Mode::Require);
        assert_eq!(target.role, ServerRole::Primary);
    }
    let given = "postgres://eve:other@h:7000/d?sslmode=disable&target_session_attrs=any";
    let target = target_in(given, &all);
    assert_eq!(
        target.to_string(),
        "database \"d\" at h:7000 as user \"eve\" (sslmode=disable)"
    );
    assert_eq!(target.role, ServerRole::Any);
    let blank = target_in("postgres://u@h/d", &[("PGSSLMODE", " "), ("PGPORT", "")]);
    assert_eq!(
        blank.to_string(),
        "database \"d\" at h:5432 as user \"u\" (sslmode=prefer)"
    );
    // What no variable is said to be, it is not taken for.
    assert!(refusal_in("postgres://", &[]).contains("set PGHOST"));
}

#[test]
fn a_bad_variable_is_named_with_its_value_unless_that_is_secret() {
    for (variable, value, why) in [
        (
            "PGSSLMODE",
            "on",
            "PGSSLMODE is 'on': it has to be one of disable, allow, prefer",
        ),
        (
            "PGCONNECT_TIMEOUT",
            "5s",
            "PGCONNECT_TIMEOUT is '5s': it has to be a whole number",
        ),
        (
            "PGPORT",
            "http",
            "PGPORT is 'http': it has to be a number from 1 to 65535",
        ),
        (
            "PGTARGETSESSIONATTRS",
            "standby",
            "PGTARGETSESSIONATTRS is 'standby': events are written",
        ),
        (
            "PGREQUIREAUTH",
            "md5",
            "PGREQUIREAUTH is 'md5': ways of authentication",
        ),
        ("PGSERVICE", "nowhere", "there is no service \"nowhere\""),
    ] {
        let refusal = refusal_in("postgres://u@h/d", &[(variable, value)]);
        assert!(refusal.contains(why), "{variable}: {refusal}");
    }
}

#[test]
fn a_service_gives_what_the_connection_string_leaves_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("services");
    std::fs::write(
        &file,
        "[events]\nhost=db.test\nport=6000\nuser=ada\npassword=hunter2\nsslmode=require\n\
         [nested]\nservice=events\n[odd]\nhosst=x\n[bad]\nsslmode=maybe\n",
    )
    .unwrap();
    let file = file.display().to_string();
    let variables = [
        ("PGSERVICEFILE", file.as_str()),
        ("PGUSER", "eve"),
        ("PGDATABASE", "d"),
    ];
    for text in [
        "service=events",
        "postgres:///?service=events",
        "postgres://?service=events",
    ] {
        let target = target_in(text, &variables);
        assert_eq!(
            target.to_string(),
            "database \"d\" at db.test:6000 as user \"ada\" (sslmode=require)"
        );
        assert_eq!(
            target.endpoints[0].config.get_password(),
            Some(&b"hunter2"[..])
        );
    }
    let named = [("PGSERVICE", "events"), ("PGSERVICEFILE", file.as_str())];
    assert_eq!(
        target_in("postgres://bob@h:7000/x", &named).to_string(),
        "database \"x\" at h:7000 as user \"bob\" (sslmode=require)"
    );
    for (service, why) in [
        ("nested", "names another service"),
        ("odd", "is not known here: hosst"),
        ("bad", "sslmode in the service \"bad\" of"),
        ("none", "there is no service \"none\" in"),
    ] {
        let refusal = refusal_in(&format!("service={service}"), &variables);
        assert!(
            refusal.contains(why) && refusal.contains(&file),
            "{refusal}"
        );
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[test]
fn a_password_is_given_or_else_looked_up_in_the_file_that_is_named() {
    let home = [("HOME", "/home/ada")];
    let file = |text: &str, variables: &[(&str, &str)]| {
        let target = target_in(text, variables);
        let file = target.password_file.as_ref();
        file.map(|file| format!("{file:?}").split('"').nth(1).unwrap().to_owned())
    };
    assert_eq!(
        file("postgres://u@h/d", &home).as_deref(),
        Some("/home/ada/.pgpass")
    );
    let named = [home[0], ("PGPASSFILE", "/x")];
    assert_eq!(file("postgres://u@h/d", &named).as_deref(), Some("/x"));
    assert_eq!(
        file("postgres://u@h/d?passfile=/y", &named).as_deref(),
        Some("/y")
    );
    assert_eq!(file("postgres://u:p@h/d", &named), None);
    assert_eq!(
        file("postgres://u@h/d", &[home[0], ("PGPASSWORD", "p")]),
        None
    );
    assert_eq!(file("postgres://u@h/d", &[]), None);
}
