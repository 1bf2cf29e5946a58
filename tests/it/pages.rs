//! Promise: what a page of the documentation tells people to paste works, and says what the page
//! shows.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use recsys_ingest::tenants::role::Role;

use crate::harness::{Service, blocking, key, psql};

/// What separates the output of two blocks.
const NEXT: &str = "=== next block ===";

/// A block of commands, and what it prints if the page says so.
#[derive(Debug, Default)]
struct Block {
    commands: String,
    expected: Option<String>,
}

/// The `sh` blocks of a page, each with the `text` or `json` block behind it.
fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    // Prose and blocks take turns.
    let mut parts = page.split("\n```").skip(1);
    let mut is_behind = false;
    while let Some(block) = parts.next() {
        let (kind, text) = block.split_once('\n').unwrap();
        match kind {
            "sh" => found.push(Block {
                commands: text.to_owned(),
                expected: None,
            }),
            "text" | "json" if is_behind => {
                found.last_mut().unwrap().expected = Some(text.to_owned());
            }
            _ => {}
        }
        let prose = parts.next().unwrap_or_default();
        // Only a block that follows at once is an answer.
        is_behind = kind == "sh" && prose.trim().is_empty();
    }
    found
}

/// Whether a line is the one that the page shows; `…` stands for any text.
fn is_like(line: &str, shown: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap()) else {
        return false;
    };
    let mut last = "";
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        last = part;
    }
    rest.is_empty() || (last.is_empty() && shown.ends_with('…'))
}

/// Fails unless the lines that the page shows stand in the output, in their order.
fn assert_shown(output: &str, shown: &str, commands: &str) {
    let mut lines = output.lines();
    for line in shown.lines().filter(|line| !line.is_empty()) {
        assert!(
            lines.any(|found| is_like(found, line)),
            "no line like\n{line}\nin the output\n{output}\nof\n{commands}"
        );
    }
}

/// Runs all commands of a page, or of one of its sections, in one shell, in a folder where a real
/// service runs as `dev` runs it.
async fn assert_page(page: &str, section: &str) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join(".recsys-ingest");
    std::fs::create_dir(&data).unwrap();
    let spool = data.join("spool").display().to_string();
    let service = Service::with(|settings| settings.with("--spool-dir", &spool)).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let text = match section {
        "" => &*text,
        heading => {
            let from = text.find(heading).unwrap();
            let to = text[from + 1..]
                .find("\n## ")
                .map_or(text.len(), |at| from + 1 + at);
            &text[from..to]
        }
    };
    let blocks = blocks(text);
    assert!(!blocks.is_empty(), "{page} has no commands");
    let programs = folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    symlink(
        env!("CARGO_BIN_EXE_recsys-ingest"),
        programs.join("recsys-ingest"),
    )
    .unwrap();
    let mut script = "set -eu\n".to_owned();
    for block in &blocks {
        script.push_str(&format!("{}\necho '{NEXT}'\n", block.commands));
    }
    let variables = [
        ("INGEST_URL", format!("http://{}", service.client().address)),
        ("INGEST_API_KEY", key("demo", Role::Ingest)),
        ("INGEST_PUBLISH_KEY", key("demo", Role::Publish)),
        ("DATABASE_URL", service.database.url().to_owned()),
        ("INGEST_PSQL", psql().display().to_string()),
        ("INGEST_SPOOL_DIR", spool),
    ];
    let lines = variables.map(|(name, value)| format!("{name}='{value}'\n"));
    std::fs::write(data.join("dev.env"), lines.concat()).unwrap();
    // As a person has set them who read the file.
    let read = "set -a; . .recsys-ingest/dev.env; set +a";
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", &format!("{read}\n{script}")])
        .current_dir(folder.path())
        .env("PATH", with_programs(&programs));
    let output = blocking(move || shell.output().unwrap());
    let out = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{page}: {}\n{out}\n{err}",
        output.status
    );
    let outputs: Vec<_> = out.split(NEXT).collect();
    assert_eq!(outputs.len(), blocks.len() + 1, "{out}");
    for (block, output) in blocks.iter().zip(outputs) {
        if let Some(expected) = &block.expected {
            assert_shown(output, expected, &block.commands);
        }
    }
}

fn with_programs(programs: &Path) -> std::ffi::OsString {
    let others = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&others));
    std::env::join_paths(all).unwrap()
}

fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        println!("skipped: there is no curl, with which the pages post");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_works_as_it_is_pasted() {
    if has_curl() {
        assert_page("README.md", "## A tour").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_the_suite_works_as_it_is_pasted() {
    if has_curl() {
        assert_page("docs/suite.md", "").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_clients_works_as_it_is_pasted() {
    if has_curl() {
        assert_page("docs/clients.md", "").await;
    }
}

#[test]
fn blocks_and_what_they_print_are_found() {
    let page = "a\n\n```sh\nx\n```\n\n```text\n1\n```\nb\n```text\nno\n```\nc\n```sh\ny\n```\nwords\n```json\nno\n```\n";
    let found: Vec<_> = blocks(page)
        .into_iter()
        .map(|block| (block.commands, block.expected))
        .collect();
    assert_eq!(
        found,
        [
            ("x".to_owned(), Some("1".to_owned())),
            ("y".to_owned(), None)
        ]
    );
    for (line, shown, expected) in [
        ("abc", "abc", true),
        ("abc", "a…c", true),
        ("abcd", "a…c", false),
        ("abc", "a…", true),
        ("xbc", "…bc", true),
        ("abc", "ab", false),
    ] {
        assert_eq!(is_like(line, shown), expected, "{line} {shown}");
    }
}
