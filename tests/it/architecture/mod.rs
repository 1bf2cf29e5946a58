//! The source tree keeps the rules of ARCHITECTURE.md.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// The folders and files of `src` that a room may use, beside itself. An entry with a
/// slash names one file of a folder, for its values.
const ALLOWED: [(&str, &[&str]); 25] = [
    ("main.rs", &["cli", "logging.rs"]),
    ("cli", &["*"]),
    ("service", &["*"]),
    (
        "http",
        &[
            "event", "admission", "tenants", "accounts", "metrics.rs", "logging.rs", "clock.rs",
            "finding.rs",
        ],
    ),
    ("admission", &["log", "event", "drain_rate.rs"]),
    (
        "writer",
        &[
            "partitions", "postgres", "log", "event", "accounts",
            // The record's type, which the log carries and admission names.
            "admission/record.rs", "metrics.rs", "drain_rate.rs",
        ],
    ),
    (
        "accounts",
        &[
            "postgres", "partitions", "event", "metrics.rs", "finding.rs",
        ],
    ),
    ("jobs", &["postgres", "event"]),
    ("partitions", &["postgres", "event", "metrics.rs"]),
    (
        "tenants",
        // The checks are repeated with each reading of the keys.
        &["postgres", "event", "accounts/board.rs"],
    ),
    ("postgres", &["event", "finding.rs"]),
    (
        "config",
        &[
            "config",
            "http/ingest/ack.rs",
            "http/connection/proxies.rs",
            "partitions/range.rs",
            "partitions/indexes.rs",
            "postgres/connect.rs",
            "postgres/connect/environment.rs",
            "tenants/settings.rs",
        ],
    ),
    ("config", &["tenants/settings.rs"]),
    ("log", &[]),
    ("ship", &[]),
    ("event", &[]),
    ("backoff.rs", &[]),
    ("clock.rs", &["event/time.rs"]),
    ("drain_rate.rs", &[]),
    ("exposition.rs", &[]),
    ("finding.rs", &["event/table.rs"]),
    ("logging.rs", &[]),
    ("metrics.rs", &["event/table.rs"]),
    // Targets for every decoder; compiled for tests and fuzzing alone.
    ("fuzz", &["*"]),
    ("lib.rs", &["*"]),
];

/// What every room may use.
const LEAVES: [&str; 2] = ["backoff.rs", "exposition.rs"];

/// Edges that are not allowed and stand all the same: none.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// The crates whose files are held to the rules.
const ROOTS: [&str; 2] = ["src/lib.rs", "crates/private-postgres/src/lib.rs"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn edges(root: &str) -> BTreeSet<(PathBuf, PathBuf)> {
    Source::read(&repository().join(root)).edges()
}

/// The first part of a path.
fn room(file: &Path) -> &str {
    file.iter().next().and_then(|part| part.to_str()).unwrap()
}

fn is_allowed(from: &Path, to: &Path) -> bool {
    let (user, used) = (room(from), room(to));
    let allowed = ALLOWED.iter().find(|(name, _)| *name == user);
    let (_, allowed) = allowed.unwrap_or_else(|| panic!("{user} is in no rule: add one"));
    user == used
        || LEAVES.contains(&used)
        || allowed
            .iter()
            .any(|name| *name == "*" || *name == used || Path::new(name) == to)
        || EXCEPTIONS
            .iter()
            .any(|(a, b)| Path::new(a) == from && Path::new(b) == to)
}

#[test]
fn rooms_use_each_other_one_way() {
    let forbidden: Vec<_> = edges("src/lib.rs")
        .into_iter()
        .filter(|(from, to)| !is_allowed(from, to))
        .map(|(from, to)| format!("{} uses {}", from.display(), to.display()))
        .collect();
    assert!(forbidden.is_empty(), "{}", forbidden.join("\n"));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    for root in ROOTS {
        let mut uses: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        for (from, to) in edges(root) {
            uses.entry(from).or_default().insert(to);
        }
        // A file that uses nothing which is left is in no circle.
        loop {
            let left: BTreeSet<_> = uses.keys().cloned().collect();
            for used in uses.values_mut() {
                used.retain(|file| left.contains(file));
            }
            uses.retain(|_, used| !used.is_empty());
            if uses.len() == left.len() {
                break;
            }
        }
        assert!(
            uses.is_empty(),
            "a circle is among these files of {root}: {uses:#?}"
        );
    }
}

#[test]
fn every_dependency_is_used() {
    for package in [".", "crates/private-postgres", "loadtest"] {
        let folder = repository().join(package);
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let sources = |folders: &[&str]| -> String {
            let folders = folders.iter().map(|name| folder.join(name));
            folders.flat_map(|folder| texts(&folder)).collect()
        };
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let folders: &[&str] = match section {
                "[dependencies]" => &["src"],
                "[dev-dependencies]" => &["src", "tests", "benches"],
                _ => continue,
            };
            let Some((name, _)) = line.split_once([' ', '.', '=']) else {
                continue;
            };
            let name = name.replace('-', "_");
            let text = sources(folders);
            let is_used = text.match_indices(&name).any(|(at, _)| {
                let before = text[..at].chars().next_back().unwrap_or(' ');
                let after = &text[at + name.len()..];
                // Not the end of another name, nor the middle of a path.
                !(before.is_alphanumeric() || matches!(before, '_' | ':'))
                    && ["::", ";", " as "]
                        .iter()
                        .any(|next| after.starts_with(next))
            });
            assert!(
                is_used,
                "nothing in {package} uses {name}: remove it from Cargo.toml"
            );
        }
    }
}

#[test]
fn the_map_names_every_folder() {
    let map = fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let mut missing = Vec::new();
    for root in [
        "src", "crates", "loadtest", "tests", "benches", "migrations", "fuzz",
    ] {
        let below = match root {
            "src" => folders(&repository().join(root)),
            "crates" => children(&repository().join(root)),
            _ => vec![repository().join(root)],
        };
        for folder in below {
            let path = folder.strip_prefix(repository()).unwrap();
            let name = folder.file_name().unwrap();
            // Tests beside what they test need no line.
            let is_named = [path.display().to_string(), name.display().to_string()]
                .iter()
                .any(|name| map.contains(&format!("`{name}/`")))
                || name == "tests";
            if !is_named {
                missing.push(path.to_owned());
            }
        }
    }
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md's table does not name {missing:?}"
    );
}

/// The folders directly below a folder.
fn children(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    all.sort();
    all
}

/// All folders below a folder that hold more than tests.
fn folders(root: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for folder in children(root) {
        let mut files = fs::read_dir(&folder).unwrap();
        let holds_code = files.any(|file| {
            let path = file.unwrap().path();
            path.is_file() && path.file_stem().unwrap() != "tests"
        });
        if holds_code {
            all.push(folder.clone());
        }
        all.extend(folders(&folder));
    }
    all
}

/// The lines of every Rust file below a folder that are not comments.
fn texts(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(texts(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            all.extend(code.map(|line| format!("{line}\n")));
        }
    }
    all
}
