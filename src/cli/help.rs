//! How the command line explains itself: commands in groups, a short `-h` beside the whole of
//! `--help`, and examples that a test parses.

use clap::builder::StyledStr;
use clap::{Arg, Command};

/// The commands in the order in which one meets them. One that is in no group stands at the end.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Run it", &["dev", "serve"]),
    ("See it work", &["demo", "tap"]),
    ("Send files of events", &["import", "ship"]),
    (
        "Look after the database",
        &["migrate", "adopt", "partitions", "doctor"],
    ),
    ("Tenants, keys, users", &["tenants", "keys", "users"]),
    (
        "What became of events",
        &["verify", "quarantine", "spool", "signals", "report"],
    ),
    ("This program", &["completions", "man"]),
];

/// The heading of commands that are in no group.
const OTHERS: &str = "More";

/// The settings of `serve` that `-h` shows: those without which, or with which, most begin.
const SERVE: [&str; 9] = [
    "database-url", "api-key-hash-secret", "exposure-hash-salt", "listen", "ops-listen",
    "tls-cert", "tls-key", "spool-dir", "default-ack",
];

/// Examples by command.
const EXAMPLES: [(&str, &[&str]); 27] = [
    ("", &["recsys-ingest dev", "recsys-ingest doctor"]),
    (
        "dev",
        &[
            "recsys-ingest dev",
            "recsys-ingest dev --listen :8080 --data-dir ~/ingest",
        ],
    ),
    (
        "serve",
        &["recsys-ingest serve --listen 0.0.0.0:8080 --spool-dir /var/lib/recsys-ingest/spool"],
    ),
    (
        "import",
        &[
            "recsys-ingest import /backup/2026-05 clicks.jsonl.gz",
            "recsys-ingest import --beyond-horizon /backup/2019",
        ],
    ),
    (
        "ship",
        &["recsys-ingest ship --dir /var/log/recsys --state-dir /var/lib/ship"],
    ),
    ("demo", &["recsys-ingest demo --seed 7"]),
    (
        "tap",
        &["recsys-ingest tap --url http://localhost:8080 --json"],
    ),
    (
        "users",
        &[
            "recsys-ingest users export --tenant shop --user-id ada",
            "recsys-ingest users erase --tenant shop --user-id ada --dry-run",
        ],
    ),
    (
        "migrate",
        &[
            "recsys-ingest migrate --status",
            "recsys-ingest migrate --dry-run > next.sql",
            "recsys-ingest migrate",
        ],
    ),
    (
        "adopt",
        &["recsys-ingest adopt", "recsys-ingest adopt --lean --yes"],
    ),
    (
        "partitions",
        &[
            "recsys-ingest partitions list",
            "recsys-ingest partitions seal exposure_events_2026_05_24",
        ],
    ),
    (
        "doctor",
        &[
            "recsys-ingest doctor --spool-dir /var/lib/recsys-ingest/spool",
            "recsys-ingest doctor --fix",
            "recsys-ingest doctor --json --least degraded",
        ],
    ),
    (
        "tenants",
        &[
            "recsys-ingest tenants create shop --name 'The Shop'",
            "recsys-ingest tenants suspend shop",
        ],
    ),
    (
        "tenants create",
        &["recsys-ingest tenants create shop --name 'The Shop'"],
    ),
    (
        "tenants set",
        &[
            "recsys-ingest tenants set shop --events-per-second 5000 --origin 'https://*.shop.example'",
        ],
    ),
    (
        "keys",
        &[
            "recsys-ingest keys create shop --role ingest",
            "recsys-ingest keys list",
        ],
    ),
    (
        "keys create",
        &[
            "recsys-ingest keys create shop --role ingest --name backend --expires-in 365d",
            "recsys-ingest keys create shop --role publish --origin https://www.shop.example",
        ],
    ),
    (
        "keys rotate",
        &["recsys-ingest keys rotate rik_1a2b --grace 24h"],
    ),
    (
        "keys grant",
        &["recsys-ingest keys grant rik_1a2b --role viewer"],
    ),
    ("keys revoke", &["recsys-ingest keys revoke rik_1a2b"]),
    (
        "verify",
        &[
            "recsys-ingest verify --spool-dir /var/lib/recsys-ingest/spool",
            "recsys-ingest verify --skip-tables",
        ],
    ),
    (
        "quarantine",
        &[
            "recsys-ingest quarantine list",
            "recsys-ingest quarantine show 17",
            "recsys-ingest quarantine retry --code 23514",
        ],
    ),
    (
        "spool",
        &[
            "recsys-ingest spool replay /mnt/old-disk/spool",
            "recsys-ingest spool fork --spool-dir /var/lib/recsys-ingest/copy",
        ],
    ),
    (
        "signals",
        &[
            "recsys-ingest signals --day 2026-05-24",
            "recsys-ingest signals --changed",
        ],
    ),
    (
        "report",
        &[
            "recsys-ingest report join",
            "recsys-ingest report join --threshold 0.9",
        ],
    ),
    (
        "completions",
        &[
            "recsys-ingest completions bash > ~/.local/share/bash-completion/completions/recsys-ingest",
        ],
    ),
    (
        "man",
        &["recsys-ingest man --out /usr/local/share/man/man1"],
    ),
];

/// The command with groups, examples, and a short help that fits a screen.
#[must_use]
pub fn explained(command: Command) -> Command {
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{}\n\nOptions:\n{{options}}{{after-help}}",
        groups(&command)
    );
    below(command, "").help_template(template)
}

/// The commands of the program, in groups.
fn groups(command: &Command) -> String {
    let grouped: Vec<&str> = GROUPS
        .iter()
        .flat_map(|(_, names)| *names)
        .copied()
        .collect();
    let known = |name: &str| command.get_subcommands().find(|one| one.get_name() == name);
    let mut text = String::new();
    let mut group = |heading: &str, commands: Vec<&Command>| {
        if !commands.is_empty() {
            text += &format!("\n{heading}:");
        }
        for one in commands {
            let about = one.get_about().map(StyledStr::to_string);
            text += &format!("\n  {:<12} {}", one.get_name(), about.unwrap_or_default());
        }
    };
    for (heading, names) in GROUPS {
        group(
            heading,
            names.iter().filter_map(|name| known(name)).collect(),
        );
    }
    let is_other = |one: &&Command| !one.is_hide_set() && !grouped.contains(&one.get_name());
    group(OTHERS, command.get_subcommands().filter(is_other).collect());
    text.replace('{', "(").replace('}', ")")
}

/// A command and those below it; `path` names it without the program.
fn below(command: Command, path: &str) -> Command {
    let is_serve = path == "serve";
    let mut command = command.mut_args(|argument| {
        let is_rare = is_serve
            && argument
                .get_long()
                .is_none_or(|flag| !SERVE.contains(&flag));
        let argument = match is_rare || argument.get_long() == Some("log-format") {
            true => argument.hide_short_help(true),
            false => argument,
        };
        in_short(argument)
    });
    if let Some((_, examples)) = EXAMPLES.iter().find(|(of, _)| *of == path) {
        let lines: Vec<String> = examples.iter().map(|line| format!("  {line}")).collect();
        let more = match is_serve {
            true => "\n\n-h shows the settings to begin with, --help all of them.",
            false => "",
        };
        command = command.after_help(format!("Examples:\n{}{more}", lines.join("\n")));
    }
    command.mut_subcommands(|inside| {
        let name = inside.get_name().to_owned();
        below(inside, format!("{path} {name}").trim_start())
    })
}

/// The first clause of a help that has several is what `-h` shows.
fn in_short(argument: Arg) -> Arg {
    let whole = argument.get_help().map(StyledStr::to_string);
    match whole.as_deref().and_then(|text| text.split_once("; ")) {
        Some((first, _)) if argument.get_long_help().is_none() => {
            let (first, whole) = (first.to_owned(), whole.clone().unwrap_or_default());
            argument.help(first).long_help(whole)
        }
        _ => argument,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn find<'c>(command: &'c Command, path: &str) -> &'c Command {
        path.split_whitespace().fold(command, |inside, name| {
            let found = inside.find_subcommand(name);
            found.unwrap_or_else(|| panic!("there is no command {path}"))
        })
    }

    #[test]
    fn every_example_is_a_command_line_that_is_taken() {
        let command = explained(Cli::command());
        for (path, examples) in EXAMPLES {
            find(&command, path);
            for example in examples {
                let line = example.split(" > ").next().unwrap();
                assert!(
                    line.starts_with(&format!("recsys-ingest {path}")),
                    "{example}"
                );
                let mut arguments: Vec<String> = Vec::new();
                for (at, part) in line.split('\'').enumerate() {
                    match at % 2 {
                        0 => arguments.extend(part.split_whitespace().map(str::to_owned)),
                        _ => arguments.push(part.to_owned()),
                    }
                }
                // What has to be given is checked by its own code, from flags or variables.
                let taken = command.clone().try_get_matches_from(&arguments);
                assert!(taken.is_ok(), "{example}: {}", taken.unwrap_err());
            }
        }
    }

    #[test]
    fn the_commands_stand_in_groups_and_none_is_missing_or_too_long_for_a_screen() {
        let command = Cli::command();
        let text = groups(&command);
        for one in command.get_subcommands() {
            assert!(text.contains(&format!("\n  {} ", one.get_name())), "{text}");
        }
        for (_, names) in GROUPS {
            for name in names {
                find(&command, name);
            }
        }
        let long = text.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None);
    }

    #[test]
    fn the_short_help_of_serve_is_a_screen_and_the_long_one_is_whole() {
        let command = explained(Cli::command()).term_width(100);
        let mut serve = find(&command, "serve").clone().term_width(100);
        let (short, long) = (
            serve.render_help().to_string(),
            serve.render_long_help().to_string(),
        );
        assert!(short.lines().count() < 50, "{short}");
        assert!(
            short.contains("--spool-dir") && !short.contains("--batch-rows-max"),
            "{short}"
        );
        for part in [
            "--batch-rows-max",
            "PostgreSQL:",
            "Intake:",
            "Storing:",
            "possible values: day, week, month",
            "Examples:",
        ] {
            assert!(long.contains(part), "{part}: {long}");
        }
    }
}
