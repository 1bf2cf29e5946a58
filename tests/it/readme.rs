//! The documentation's tables of settings and codes match the program, and its links lead somewhere.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use recsys_ingest::cli::Cli;
use recsys_ingest::config::secret;
use recsys_ingest::event::rejection::Code;
use recsys_ingest::event::warning::WarningCode;

/// If this variable is set, the tables are written instead of compared.
const UPDATE: &str = "UPDATE_README";

fn settings() -> String {
    let mut table = String::from("| flag | environment | default | |\n|---|---|---|---|\n");
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").unwrap();
    for argument in serve.get_arguments().chain(cli.get_arguments()) {
        let (Some(flag), Some(env)) = (argument.get_long(), argument.get_env()) else {
            continue;
        };
        let default: Vec<_> = argument
            .get_default_values()
            .iter()
            .map(|value| format!("`{}`", value.to_string_lossy()))
            .collect();
        let is_required =
            argument.is_required_set() || secret::is_required(argument.get_id().as_str());
        let default = if is_required && argument.is_required_set() {
            "required".to_owned()
        } else if default.is_empty() || default == ["``"] {
            "none".to_owned()
        } else {
            default.concat()
        };
        let help = argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        writeln!(
            table,
            "| `--{flag}` | `{}` | {default} | {help} |",
            env.to_string_lossy()
        )
        .unwrap();
    }
    table
}

fn rejections() -> String {
    let mut table = String::from("| code | |\n|---|---|\n");
    for code in Code::ALL {
        writeln!(table, "| `{}` | {} |", code.as_str(), code.description()).unwrap();
    }
    table
}

fn warnings() -> String {
    let mut table = String::from("| warning | |\n|---|---|\n");
    for code in WarningCode::ALL {
        writeln!(table, "| `{}` | {} |", code.as_str(), code.description()).unwrap();
    }
    table
}

/// README and the pages in docs/.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = docs
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .collect();
    pages.sort();
    pages.push(root.join("README.md"));
    pages
}

#[test]
fn the_tables_of_the_documentation_are_those_of_the_program() {
    let tables = [
        ("settings", settings()),
        ("rejections", rejections()),
        ("warnings", warnings()),
    ];
    let mut found = Vec::new();
    for path in pages() {
        let page = std::fs::read_to_string(&path).unwrap();
        let mut expected = page.clone();
        for (name, table) in &tables {
            let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
            let Some(from) = expected.find(&begin) else {
                continue;
            };
            let from = from + begin.len();
            let to = expected.find(&end).unwrap();
            expected.replace_range(from..to, table);
            found.push(*name);
        }
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(&path, &expected).unwrap();
        } else {
            // `assert_eq!` would print both texts in full and bury this advice.
            assert!(
                page == expected,
                "{} differs from the program: run {UPDATE}=1 cargo test --test it readme",
                path.display()
            );
        }
    }
    found.sort_unstable();
    let names = ["rejections", "settings", "warnings"];
    assert_eq!(found, names, "each table stands once");
}

/// The name that a link gives to a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    for path in pages() {
        let page = std::fs::read_to_string(&path).unwrap();
        for link in page.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link}", path.display());
            if !wanted.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|heading| anchor(heading) == wanted),
                    "{}: {link}",
                    path.display()
                );
            }
        }
    }
}
