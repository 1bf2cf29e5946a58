//! Promise: settings take the spellings of other programs, and one that is refused is named with
//! its flag, its variable, its value and what is accepted.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use recsys_ingest::tenants::role::Role;

use crate::harness::{Client, DEMO, Database, PEPPER, Process, SALT, Settings, click, key};

/// Runs the program to its end in an environment of these variables alone; returns its exit code,
/// its standard output and its log.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

const SECRETS: [(&str, &str); 3] = [
    ("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d"),
    ("API_KEY_HASH_SECRET", "pepper"),
    ("EXPOSURE_HASH_SALT", "salt"),
];

#[test]
fn a_refused_value_is_named_with_its_variable_and_its_flag() {
    for (variable, flag, value, accepted) in [
        ("INGEST_LISTEN", "--listen", "::1:8080", "write [::1]:8080"),
        ("INGEST_LISTEN", "--listen", "8080", "write :8080"),
        (
            "INGEST_LISTEN", "--listen", "127.0.0.1:http", "from 0 to 65535",
        ),
        ("INGEST_SEAL", "--seal", "maybe", "true, yes, on or 1"),
        (
            "MIGRATE_ON_START", "--migrate-on-start", "2", "false, no, off or 0",
        ),
        (
            "INGEST_DEFAULT_ACK",
            "--default-ack",
            "stored",
            "received, durable, committed",
        ),
        ("INGEST_WRITERS", "--writers", "9", "from 1 to 8"),
        ("INGEST_EVENTS_MAX", "--events-max", "many", "from 1 to"),
        (
            "INGEST_BODY_BYTES_MAX", "--body-bytes-max", "much", "a size is like",
        ),
        (
            "INGEST_SPOOL_DISK_RESERVE",
            "--spool-disk-reserve",
            "some",
            "a size is like",
        ),
        (
            "INGEST_HEAD_TIMEOUT", "--head-timeout", "soon", "a time is like",
        ),
        ("INGEST_SEAL_AFTER", "--seal-after", "-1h", "a time is like"),
        (
            "INGEST_PARTITION_INTERVAL",
            "--partition-interval",
            "year",
            "day, week or month",
        ),
        (
            "INGEST_INDEX_PROFILE", "--index-profile", "none", "deferred or full",
        ),
        (
            "INGEST_TRUSTED_PROXIES", "--trusted-proxies", "proxy", "10.0.0.0/8",
        ),
        ("LOG_LEVEL", "--log-level", "loud", "error, warn, info"),
        ("LOG_FORMAT", "--log-format", "xml", "pretty, json"),
    ] {
        let mut variables = SECRETS.to_vec();
        variables.push((variable, value));
        let (code, _, by_variable) = run(&["serve"], &variables);
        assert_eq!(code, 2, "{variable}: {by_variable}");
        let named = format!("the environment variable {variable} (flag {flag}) is '{value}'");
        assert!(by_variable.contains(&named), "{by_variable}");
        let given = format!("{flag}={value}");
        let (code, _, by_flag) = run(&["serve", &given], &SECRETS);
        assert_eq!(code, 2, "{flag}: {by_flag}");
        let named = format!("the flag {flag} (environment variable {variable}) is '{value}'");
        assert!(by_flag.contains(&named), "{by_flag}");
        for said in [by_variable, by_flag] {
            assert!(said.contains(accepted), "{variable}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[test]
fn secrets_that_are_missing_are_all_named_and_empty_ones_are_missing() {
    let empty = SECRETS.map(|(name, _)| (name, " "));
    for variables in [&[][..], &empty[..]] {
        let (code, _, said) = run(&["serve"], variables);
        assert_eq!(code, 2);
        for name in ["DATABASE_URL", "API_KEY_HASH_SECRET", "EXPOSURE_HASH_SALT"] {
            let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
            for named in [name, &format!("{name}_FILE"), &flag] {
                assert!(said.contains(named), "{said}");
            }
        }
    }
    let (code, _, said) = run(&["tenants", "list"], &[]);
    assert_eq!(code, 2);
    assert!(
        said.contains("DATABASE_URL") && !said.contains("SALT"),
        "{said}"
    );
}

#[test]
fn a_secret_in_a_file_is_refused_with_the_names_of_setting_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("secret"), "hunter2\n").unwrap();
    std::fs::write(path("empty"), " \n").unwrap();
    for (id, flag) in [
        ("DATABASE_URL", "--database-url"),
        ("API_KEY_HASH_SECRET", "--api-key-hash-secret"),
        (
            "API_KEY_HASH_SECRET_PREVIOUS",
            "--api-key-hash-secret-previous",
        ),
        ("EXPOSURE_HASH_SALT", "--exposure-hash-salt"),
    ] {
        let variable = format!("{id}_FILE");
        for (file, why) in [("none", "cannot be read"), ("empty", "this file is empty")] {
            let mut variables = SECRETS.to_vec();
            variables.retain(|(name, _)| *name != id);
            let file = path(file);
            variables.push((&variable, &file));
            let (code, _, said) = run(&["serve"], &variables);
            assert_eq!(code, 2, "{said}");
            let named = format!("{variable} ({flag}-file) is '{file}'");
            assert!(said.contains(&named) && said.contains(why), "{said}");
        }
        let file = path("secret");
        let mut both = SECRETS.to_vec();
        both.retain(|(name, _)| *name != id);
        both.extend([(id, "hunter3"), (variable.as_str(), file.as_str())]);
        let (code, _, said) = run(&["serve"], &both);
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains(&format!("both {id} and {variable} are given")),
            "{said}"
        );
        assert!(!said.contains("hunter"), "{said}");
    }
}

#[test]
fn a_database_url_that_is_refused_shows_no_password() {
    for (url, why) in [
        ("postgres://u:hunter@2@h/d", "write @ as %40"),
        (
            "postgres://u:hunter2@h/d?target_session_attrs=standby",
            "a standby takes no writes",
        ),
        (
            "postgres://u:hunter2@h/d?sslcrl=/x",
            "sslcrl in the database URL",
        ),
        (
            "postgres://u:hunter2@h/d?ssl_mode=require",
            "did you mean sslmode?",
        ),
    ] {
        let (code, _, said) = run(&["migrate"], &[("DATABASE_URL", url)]);
        assert_eq!(code, 1);
        assert!(said.contains(why), "{url}: {said}");
        assert!(!said.contains("hunter"), "{url}: {said}");
    }
    let service = [("DATABASE_URL", "postgres://"), ("PGSERVICE", "nowhere")];
    let (code, _, said) = run(&["migrate"], &service);
    assert_eq!(code, 1);
    assert!(said.contains("there is no service \"nowhere\""), "{said}");
}

#[test]
fn a_variable_that_is_no_setting_is_reported_and_an_empty_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().display().to_string();
    let variables = [
        ("INGEST_LISTN", ":8080"),
        ("INGEST_SPOOL_DIRECTORY", "x"),
        ("INGEST_SEAL_BEFORE", ""),
        ("INGEST_URL", "http://127.0.0.1:8080"),
        ("INGEST_SERVICE_HOST", "10.0.0.1"),
    ];
    let (_, _, said) = run(&["spool", "fork", "--spool-dir", &dir], &variables);
    for (name, near) in [
        ("INGEST_LISTN", "INGEST_LISTEN"),
        ("INGEST_SPOOL_DIRECTORY", "INGEST_SPOOL_DIR"),
    ] {
        let warning = format!("{name} is not a setting and has no effect; did you mean {near}?");
        assert!(said.contains(&warning), "{said}");
    }
    for quiet in ["INGEST_SEAL_BEFORE", "INGEST_URL", "INGEST_SERVICE_HOST"] {
        assert!(!said.contains(quiet), "{said}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (flag, text) in [
        ("--help", "Run the service"),
        ("--version", "recsys-ingest"),
    ] {
        let (code, answer, said) = run(&[flag], &[]);
        assert_eq!((code, said.as_str()), (0, ""));
        assert!(answer.contains(text), "{answer}");
    }
    let (code, answer, _) = run(&["serve", "--help"], &[("INGEST_LISTEN", "")]);
    assert_eq!(code, 0);
    assert!(answer.contains("--database-url-file"), "{answer}");
}

#[test]
fn an_address_that_cannot_be_listened_on_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (address, why) in [
        (taken.as_str(), "another program listens there"),
        ("192.0.2.1:80", "this machine has no such address"),
        ("no-such-host.invalid:80", "the name is not known here"),
    ] {
        let mut variables = SECRETS.to_vec();
        variables.push(("INGEST_LISTEN", address));
        let (code, _, said) = run(&["serve"], &variables);
        assert_eq!(code, 1, "{said}");
        let named = format!("cannot listen on {address} (--listen, INGEST_LISTEN): {why}");
        assert!(said.contains(&named), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_runs_on_variables_and_files_alone_and_listens_on_several_addresses() {
    let database = Database::with_tenants().await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &str| -> OsString {
        let path = dir.path().join(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path.into()
    };
    let environment: Vec<(&'static str, OsString)> = vec![
        (
            "DATABASE_URL_FILE",
            file("url", &format!("{}\n", database.url())),
        ),
        ("API_KEY_HASH_SECRET", format!(" {PEPPER}\n").into()),
        (
            "EXPOSURE_HASH_SALT_FILE",
            file("salt", &format!("{SALT} \r\n")),
        ),
        ("INGEST_LISTEN", "127.0.0.1:0, 127.0.0.2:0".into()),
        (
            "INGEST_SPOOL_DIR",
            format!(" {} ", dir.path().join("spool").display()).into(),
        ),
        ("INGEST_SPOOL_DISK_RESERVE", "0B".into()),
        ("INGEST_SPOOL_BYTES_MAX", " 64MiB ".into()),
        ("INGEST_DEFAULT_ACK", "Committed".into()),
        ("INGEST_HORIZON_PAST", "20000d".into()),
        ("INGEST_COMMIT_TIMEOUT", "0.5m".into()),
        ("INGEST_SEAL", "OFF".into()),
        ("MIGRATE_ON_START", "Yes".into()),
        ("INGEST_WRITERS", "".into()),
        ("INGEST_TRUSTED_PROXIES", "".into()),
        ("LOG_LEVEL", " ".into()),
    ];
    let mut process = Process::run_with([OsString::from("serve")], environment);
    process.message("ready");
    let listening = process.message("listening");
    let addresses: Vec<SocketAddr> = listening["address"]
        .as_str()
        .unwrap()
        .split(", ")
        .map(|address| address.parse().unwrap())
        .collect();
    assert_eq!(addresses.len(), 2, "{listening}");
    for address in addresses {
        let client = Client::new(address).header("x-api-key", &key("demo", Role::Ingest));
        let id = format!("click at {}", address.ip());
        let reply = client.post("/v1/interactions", &click(&id)).await;
        assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
    }
    let log = process.log();
    assert!(
        log.contains("EXPOSURE_HASH_SALT begins or ends with white space"),
        "{log}"
    );
    assert!(process.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_previous_secret_work_while_it_is_named() {
    let database = Database::with_tenants().await;
    let create = ["keys", "create", DEMO, "--role", "ingest"];
    let variables = [
        ("DATABASE_URL", database.url()),
        ("API_KEY_HASH_SECRET", "rotated"),
    ];
    let (code, made, said) = run(&create, &variables);
    assert_eq!(code, 0, "{said}");
    let (old, new) = (key("demo", Role::Ingest), made.trim().to_owned());
    let settings = Settings::new(&database).with("--api-key-hash-secret", "rotated");
    let statuses = async |settings: &Settings| {
        let (mut process, client) = Process::serve(settings);
        let mut statuses = Vec::new();
        for key in [&old, &new] {
            let client = client.clone().header("x-api-key", key);
            statuses.push(client.post("/v1/interactions", &click("a")).await.status);
        }
        process.stop();
        statuses
    };
    assert_eq!(statuses(&settings).await, [401, 200]);
    let both = settings.with("--api-key-hash-secret-previous", PEPPER);
    assert_eq!(statuses(&both).await, [200, 200]);
}
