//! The README's tables of settings and codes match the program.

use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use recsys_ingest::cli::Cli;
use recsys_ingest::config::secret;
use recsys_ingest::event::rejection::Code;

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

#[test]
fn the_readmes_tables_are_those_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let mut expected = readme.clone();
    for (name, table) in [("settings", settings()), ("rejections", rejections())] {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let from = expected.find(&begin).unwrap() + begin.len();
        let to = expected.find(&end).unwrap();
        expected.replace_range(from..to, &table);
    }
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &expected).unwrap();
    } else {
        // `assert_eq!` would print both texts in full and bury this advice.
        assert!(
            readme == expected,
            "README.md differs from the program: run {UPDATE}=1 cargo test --test it readme"
        );
    }
}
