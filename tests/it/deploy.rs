//! What `deploy/` and the Dockerfile set are settings of the program, with values that it takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use clap::{CommandFactory as _, Parser as _};
use recsys_ingest::cli::Cli;

use crate::harness::Service;

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The variables that a line of a unit, compose file, manifest or Dockerfile sets.
fn variables(line: &str) -> Vec<(&str, &str)> {
    let line = line.trim();
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let pairs: Vec<_> = if let Some(pair) = line.strip_prefix("Environment=") {
        pair.split_once('=').into_iter().collect()
    } else if let Some(pairs) = line.strip_prefix("ENV ") {
        pairs
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .collect()
    } else if let Some(pair) = line.strip_prefix("- { name: ") {
        let pair = pair.trim_end_matches(" }").split_once(", value: ");
        pair.map(|(name, value)| (name, value.trim_matches('"')))
            .into_iter()
            .collect()
    } else {
        line.split_once(": ").into_iter().collect()
    };
    pairs
        .into_iter()
        .filter(|(name, _)| is_name(name))
        .collect()
}

#[test]
fn every_variable_that_a_deployment_sets_is_a_setting() {
    let cli = Cli::command();
    let flags: BTreeMap<_, _> = cli
        .find_subcommand("serve")
        .unwrap()
        .get_arguments()
        .chain(cli.get_arguments())
        .filter_map(|argument| {
            Some((
                argument.get_env()?.to_str()?.to_owned(),
                argument.get_long()?.to_owned(),
            ))
        })
        .collect();
    for file in [
        "Dockerfile",
        "deploy/recsys-ingest.service",
        "deploy/compose.yaml",
        "deploy/kubernetes.yaml",
    ] {
        let text = std::fs::read_to_string(path(file)).unwrap();
        let mut arguments = vec!["recsys-ingest".to_owned(), "serve".to_owned()];
        let mut set = 0;
        for (name, value) in text.lines().flat_map(variables) {
            if name.starts_with("POSTGRES_") {
                continue;
            }
            let flag = flags.get(name);
            let flag = flag.unwrap_or_else(|| panic!("{file}: {name} is no setting"));
            set += 1;
            if !value.starts_with("${") && flag != "database-url" {
                arguments.push(format!("--{flag}={value}"));
            }
        }
        assert!(set >= 2, "{file}: {set} variables were found");
        for secret in [
            "--database-url=postgres://h/d",
            "--api-key-hash-secret=s",
            "--exposure-hash-salt=s",
        ] {
            arguments.push(secret.to_owned());
        }
        if let Err(error) = Cli::try_parse_from(arguments) {
            panic!("{file}: {error}");
        }
    }
}

#[test]
fn systemd_finds_no_fault_in_the_unit() {
    let unit = path("deploy/recsys-ingest.service");
    let output = match Command::new("systemd-analyze")
        .arg("verify")
        .arg(unit)
        .output()
    {
        Ok(output) => output,
        Err(error) => return println!("skipped: there is no systemd-analyze: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stderr);
    // The program is not installed where tests run; of other units it may say anything.
    let faults: Vec<_> = text
        .lines()
        .filter(|line| {
            line.contains("recsys-ingest.service") && !line.contains("is not executable")
        })
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_of_the_image_tells_a_service_from_none() {
    let text = std::fs::read_to_string(path("Dockerfile")).unwrap();
    let check = text.lines().find(|line| line.starts_with("HEALTHCHECK"));
    let (_, command) = check.unwrap().split_once("CMD ").unwrap();
    let command: Vec<String> = serde_json::from_str(command).unwrap();
    let service = Service::start().await;
    for (port, is_healthy) in [(service.client().address.port(), true), (1, false)] {
        let mut check = Command::new(&command[0]);
        check
            .args(&command[1..])
            .env("INGEST_LISTEN", format!("0.0.0.0:{port}"));
        // The service answers on this runtime.
        let output = tokio::task::block_in_place(|| check.output()).unwrap();
        assert_eq!(output.status.success(), is_healthy, "{output:?}");
    }
}
