//! Invalid settings.

use std::time::{Duration, Instant};

use crate::harness::{Database, Process, SOON, Settings};

/// Runs the program with an invalid setting; returns its log.
fn refusal(database: &Database, flag: &str, value: &str) -> String {
    let settings = Settings::new(database).with(flag, value);
    let mut process = Process::run(settings.arguments());
    let status = process.wait();
    // The last lines may still be in the pipe.
    let started = Instant::now();
    while process.log().is_empty() && started.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = process.log();
    assert!(!status.success(), "{flag} {value} was accepted:\n{said}");
    said
}

#[test]
fn a_negative_number_is_refused_by_the_name_of_its_setting() {
    for (arguments, words) in [
        (
            &["serve", "--batch-rows-max", "-1"][..],
            &["--batch-rows-max", "'-1'", "from 1 to"][..],
        ),
        (
            &["serve", "--body-bytes-max", "-1MiB"],
            &["--body-bytes-max", "'-1MiB'", "a size is like"],
        ),
        (
            &["serve", "--head-timeout", "-1s"],
            &["--head-timeout", "'-1s'", "a time is like"],
        ),
        (
            &["tenants", "set", "shop", "--events-per-second", "-1"],
            &["--events-per-second", "'-1'", "from 1 to"],
        ),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?}: {said}");
        }
    }
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_with_a_sentence() {
    let database = Database::with_tenants().await;
    for (flag, value, accepted) in [
        ("--connections-max", "0", "from 1 to"),
        ("--connections-max", "18446744073709551615", "from 1 to"),
        ("--batch-rows-max", "0", "from 1 to"),
        ("--batch-bytes-max", "0", "1.0 KiB or more"),
        ("--events-max", "0", "from 1 to"),
        ("--body-bytes-max", "0", "1.0 KiB or more"),
        ("--event-bytes-max", "0", "1.0 KiB or more"),
        ("--queue-bytes-max", "0", "1.0 KiB or more"),
        ("--queue-bytes-max", "1MiB", "--body-bytes-max"),
        ("--queue-bytes-max", "4GiB", "less than 4 GiB"),
        (
            "--spool-bytes-max", "99999999999999999999", "less than 16 EiB",
        ),
        ("--spool-disk-reserve", "1.5", "a whole number of bytes"),
        ("--body-bytes-max", "100GiB", "--queue-bytes-max"),
        ("--spool-bytes-max", "0", "1.0 KiB or more"),
        ("--spool-bytes-max", "1MiB", "--body-bytes-max"),
        ("--head-timeout", "0s", "10ms or longer"),
        ("--body-timeout", "0s", "10ms or longer"),
        ("--idle-timeout", "0s", "10ms or longer"),
        ("--write-timeout", "0s", "10ms or longer"),
        ("--commit-timeout", "0s", "10ms or longer"),
        ("--key-refresh", "0s", "1s or longer"),
        ("--horizon-past", "0s", "1s or longer"),
        ("--partitions-ahead", "4000000000", "1000"),
        ("--writers", "0", "from 1 to 8"),
        ("--log-level", "warning", "error, warn, info"),
        ("--log-level", "", "error, warn, info"),
        ("--log-level", "recsys_ingest::writer", "error, warn, info"),
        ("--exposure-hash-salt", "", "EXPOSURE_HASH_SALT is empty"),
    ] {
        let said = refusal(&database, flag, value);
        assert!(said.contains(accepted), "{flag} {value}: {said}");
        if !accepted.contains("is empty") {
            assert!(said.contains(flag), "{flag} {value}: {said}");
            let variable = flag[2..].replace('-', "_").to_ascii_uppercase();
            assert!(
                said.contains(&variable),
                "{flag} {value}: no variable in {said}"
            );
        }
    }
}
