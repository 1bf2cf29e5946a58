//! Settings of the logs.

use clap::builder::EnumValueParser;
use clap::{Args, ValueEnum};

use super::parse::Trimmed;

/// Settings of the logs, for every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub struct Log {
    /// What to log: error, warn, info, debug, or a filter such as info,recsys_ingest::writer=debug
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true, value_parser = log_filter)]
    pub log_level: String,

    /// How to log
    #[arg(long, env = "LOG_FORMAT", default_value = "pretty", global = true, ignore_case = true, value_parser = Trimmed(EnumValueParser::<LogFormat>::new()))]
    pub log_format: LogFormat,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Pretty,
    /// For programs, one object a line
    Json,
}

/// Checks a log filter. The library takes an unknown level for the name of a module, and then logs
/// nothing else.
fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = text.trim();
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for directive in text.split(',').map(str::trim) {
        let level = match directive.rsplit_once('=') {
            Some((_, level)) => level,
            None => directive,
        };
        // A filter of spans and fields ends in a bracket, or has its level behind one.
        if !is_level(level) && !directive.ends_with(']') {
            return Err(format!(
                "'{level}' is no level; one is {}, and a filter is like info,recsys_ingest::writer=debug",
                LEVELS.join(", ")
            ));
        }
    }
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_word_of_the_log_filter_is_a_level() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,recsys_ingest::writer=debug",
            "h2=off,error",
        ] {
            assert_eq!(log_filter(good).as_deref(), Ok(good));
        }
        for bad in [
            "warning", "", "info,", "recsys_ingest::store", "info,h2", "info,h2=loud", "verbose=1",
        ] {
            let refusal = log_filter(bad).unwrap_err();
            assert!(
                refusal.contains("is no level; one is off, error"),
                "{bad}: {refusal}"
            );
        }
    }
}
