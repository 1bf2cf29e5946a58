//! Promise: the command line explains itself, in as many words as fit, and its exit codes are true.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::{Database, Service, click};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"));
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

#[test]
fn help_is_short_for_h_whole_for_help_and_has_no_colours_in_a_pipe() {
    for (command, short_max) in [
        (&[][..], 45),
        (&["serve"], 60),
        (&["doctor"], 60),
        (&["keys", "create"], 60),
    ] {
        let short = run(&[command, &["-h"]].concat());
        let long = run(&[command, &["--help"]].concat());
        assert!(short.status.success() && long.status.success());
        let (short, long) = (text(&short.stdout), text(&long.stdout));
        assert!(short.lines().count() <= short_max, "{command:?}: {short}");
        assert!(long.len() >= short.len(), "{command:?}: {long}");
        for help in [&short, &long] {
            assert!(help.contains("Examples:"), "{command:?}: {help}");
            assert!(!help.contains('\x1b'), "{command:?}: {help}");
        }
    }
    let top = text(&run(&["-h"]).stdout);
    assert!(
        top.contains("Run it:\n  dev ") && top.contains("\n  doctor "),
        "{top}"
    );
    let refused = run(&["serve", "--index-profile", "none"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!text(&refused.stderr).contains('\x1b'));
}

#[test]
fn completions_are_scripts_of_their_shells_and_the_manual_has_a_page_for_each_command() {
    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef recsys-ingest"),
        ("fish", "complete -c recsys-ingest"),
    ] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        let script = text(&output.stdout);
        assert!(
            script.contains(word) && script.contains("quarantine"),
            "{shell}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("bash");
    std::fs::write(&script, run(&["completions", "bash"]).stdout).unwrap();
    let check = Command::new("bash").arg("-n").arg(&script).status();
    assert!(check.is_ok_and(|status| status.success()));
    let out = dir.path().join("man1");
    let made = run(&["man", "--out", &out.display().to_string()]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    for page in [
        "recsys-ingest.1",
        "recsys-ingest-serve.1",
        "recsys-ingest-quarantine-retry.1",
    ] {
        let page = std::fs::read_to_string(out.join(page)).unwrap();
        assert!(page.starts_with(".ie") && page.contains(".TH"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_quarantined_rows_succeeds_only_if_none_is_refused_any_more() {
    let service = Service::start().await;
    let database = &service.database;
    let constraint = "ALTER TABLE interaction_events ADD CONSTRAINT c CHECK (item_id <> 'bad')";
    let mut bad = click("bad");
    bad["item_id"] = "bad".into();
    assert_eq!(service.interactions(&click("good")).await.settled().0, 1);
    database.execute(constraint).await;
    assert_eq!(service.interactions(&bad).await.settled(), (0, 0, 1, 0));
    let retry = |database: &Database| {
        let url = format!("--database-url={}", database.url());
        let output = program()
            .args(["quarantine", "retry", "--all", &url])
            .output()
            .unwrap();
        (output.status.code().unwrap(), text(&output.stdout))
    };
    let (code, said) = retry(database);
    assert_eq!(
        (code, said.as_str()),
        (1, "0 stored, 0 were stored already, 1 still refused\n")
    );
    database
        .execute("ALTER TABLE interaction_events DROP CONSTRAINT c")
        .await;
    let (code, said) = retry(database);
    assert_eq!(
        (code, said.as_str()),
        (0, "1 stored, 0 were stored already, 0 still refused\n")
    );
    assert_eq!(retry(database).0, 0, "there is nothing left to refuse");
}

/// The lines of the greeting that a newcomer pastes.
pub fn pasted(greeting: &str) -> String {
    let lines = greeting.lines().filter(|line| line.starts_with("  "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Runs the lines in a shell, in a folder.
pub fn paste(lines: &str, folder: &Path) -> (i32, String) {
    let output = Command::new("sh")
        .args(["-eu", "-c", lines])
        .current_dir(folder)
        .env("PATH", with_program())
        .env("PAGER", "cat")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().unwrap_or(-1), said)
}

/// PATH with the program under test first.
#[expect(clippy::disallowed_methods, reason = "the tests' own PATH")]
pub fn with_program() -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_recsys-ingest"));
    let folder = program.parent().unwrap().display();
    format!("{folder}:{}", std::env::var("PATH").unwrap_or_default())
}
