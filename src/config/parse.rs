//! Values of settings: numbers, sizes, times and words, in the spellings that other programs take.
//!
//! White space around a value never counts. Each refusal says what is accepted; the caller names
//! the setting and the value.

use std::ffi::OsStr;
use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{PathBufValueParser, PossibleValue, TypedValueParser};

use crate::tenants::settings::Origins;

pub(super) const KIB: u64 = 1024;
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Longest wait that a setting may name. None needs more than a day, and some centuries more would
/// overflow a clock.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest timeout for a client: within less than a round trip, nothing arrives.
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(10);

/// Parses a switch.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("it has to be true, yes, on or 1, or else false, no, off or 0".to_owned()),
    }
}

/// Parses a list of origins with commas between. A blank text is no origin.
pub(crate) fn origins(text: &str) -> Result<Origins, String> {
    let entries = text.split(',').filter(|_| !text.trim().is_empty());
    Origins::parse(entries).map_err(|error| error.to_string())
}

/// Parses a reason that is kept in the books, which may not be blank.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why, for who reads the books later".to_owned()),
        reason => Ok(reason.to_owned()),
    }
}

/// Parses a name for people. Lists of tenants and keys show it in a line, between tabs.
pub(crate) fn name(text: &str) -> Result<String, String> {
    match text.trim() {
        name if name.contains(char::is_control) => {
            Err("a name is one line, without tabs and other control characters".to_owned())
        }
        name => Ok(name.to_owned()),
    }
}

/// Parses a word of a closed list, in any case.
pub(crate) fn word<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    let word = text.trim().to_ascii_lowercase();
    word.parse().map_err(|error: T::Err| error.to_string())
}

/// Parses a word of a closed list, as [`word`] does; help and completions show the list.
pub(crate) fn one_of<T>(words: &'static [&'static str]) -> OneOf<T> {
    OneOf {
        words,
        value: PhantomData,
    }
}

/// A parser of the words of a closed list.
#[derive(Clone, Debug)]
pub(crate) struct OneOf<T> {
    words: &'static [&'static str],
    value: PhantomData<fn() -> T>,
}

impl<T> TypedValueParser for OneOf<T>
where
    T: FromStr<Err: Display> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        TypedValueParser::parse_ref(&word::<T>, command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.words.iter().copied().map(PossibleValue::new)))
    }
}

/// Parses any length of time.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    humantime::parse_duration(text).or_else(|error| {
        // Fractions, as Go writes them: 1.5h.
        let other = text.parse::<jiff::SignedDuration>().ok();
        let other = other.and_then(|time| Duration::try_from(time).ok());
        other.ok_or_else(|| format!("{error}; a time is like 5ms, 30s, 1h30m or 90d"))
    })
}

/// Parses a wait of at most a day.
pub(super) fn up_to_a_day(text: &str) -> Result<Duration, String> {
    time(Duration::ZERO, DAY)(text)
}

/// Parses a time between two bounds.
pub(super) fn time(
    least: Duration,
    most: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| match duration(text)? {
        time if time < least => Err(format!(
            "it has to be {} or longer",
            humantime::format_duration(least)
        )),
        time if time > most => Err(match most {
            DAY => "it is longer than a day".to_owned(),
            _ => format!("it is longer than {}", humantime::format_duration(most)),
        }),
        time => Ok(time),
    }
}

/// Parses a number between two bounds, of the type of the setting: name it, as the compiler does not
/// compare the two.
pub(crate) fn count<N>(
    least: N,
    most: N,
) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync + 'static
where
    N: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text| match text.trim().parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!(
            "it has to be a whole number from {least} to {most}"
        )),
    }
}

/// Parses a size.
pub(crate) fn size(text: &str) -> Result<ByteSize, String> {
    at_least(0)(text)
}

/// Parses a size of at least `least` bytes.
pub(super) fn at_least(
    least: u64,
) -> impl Fn(&str) -> Result<ByteSize, String> + Clone + Send + Sync + 'static {
    move |text| match text.trim().parse::<ByteSize>() {
        Ok(size) if size.as_u64() >= least => Ok(size),
        Ok(_) => Err(format!("it has to be {} or more", ByteSize(least))),
        // The library's reason names its parts of the text, not what is wrong with it.
        Err(_) => Err(
            "it has to be a whole number of bytes, or a number and its unit, less than 16 EiB; \
             a size is like 64KiB, 8MiB or 1GiB"
                .to_owned(),
        ),
    }
}

/// A path without the white space around it.
pub(crate) fn path() -> Trimmed<PathBufValueParser> {
    Trimmed(PathBufValueParser::new())
}

/// A parser that does not see the white space around a value.
#[derive(Clone, Debug)]
pub(crate) struct Trimmed<P>(pub(super) P);

impl<P: TypedValueParser> TypedValueParser for Trimmed<P> {
    type Value = P::Value;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<P::Value, clap::Error> {
        let value = value.to_str().map_or(value, |text| OsStr::new(text.trim()));
        self.0.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_are_such_that_a_clock_can_add_them() {
        assert_eq!(up_to_a_day("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(up_to_a_day("0s"), Ok(Duration::ZERO));
        assert!(up_to_a_day("24h 1ms").unwrap_err().contains("a day"));
        assert!(up_to_a_day("500000000000y").is_err());
        assert!(up_to_a_day("soon").is_err());
    }

    #[test]
    fn switches_take_the_usual_words_in_any_case() {
        for (words, value) in [
            (["1", "true", "TRUE", "Yes", "on", " ON\n"], true),
            (["0", "false", "False", "NO", "off", "\toff "], false),
        ] {
            for word in words {
                assert_eq!(boolean(word), Ok(value), "{word}");
            }
        }
        for bad in ["", "2", "y", "enabled", "tru", "yes no"] {
            let refusal = boolean(bad).unwrap_err();
            assert!(refusal.contains("true, yes, on or 1"), "{bad}: {refusal}");
        }
    }

    #[test]
    fn times_are_taken_as_people_and_as_go_write_them() {
        for (text, ms) in [
            ("5ms", 5),
            (" 30s\n", 30_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("2.5s", 2_500),
            ("90d", 90 * 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["-5s", "soon", "5", "5 parsecs", "1.5"] {
            let refusal = duration(bad).unwrap_err();
            assert!(refusal.contains("a time is like"), "{bad}: {refusal}");
        }
    }

    #[test]
    fn numbers_sizes_and_times_say_what_is_accepted() {
        assert_eq!(count(1, 9)("9"), Ok(9));
        assert_eq!(count(1, 9)(" 9 "), Ok(9));
        for bad in ["0", "10", "-1", "many"] {
            let refusal = count(1, 9)(bad).unwrap_err();
            assert_eq!(refusal, "it has to be a whole number from 1 to 9");
        }
        assert_eq!(at_least(1024)("1KiB"), Ok(ByteSize::kib(1)));
        assert_eq!(at_least(1024)(" 1KiB\n"), Ok(ByteSize::kib(1)));
        assert_eq!(
            at_least(1024)("0").unwrap_err(),
            "it has to be 1.0 KiB or more"
        );
        for bad in [
            "",
            "much",
            "-1",
            "1.5",
            "1e3",
            "10%",
            "99999999999999999999999",
        ] {
            assert_eq!(
                at_least(1024)(bad).unwrap_err(),
                "it has to be a whole number of bytes, or a number and its unit, less than 16 EiB; a size is like 64KiB, 8MiB or 1GiB",
                "{bad}"
            );
        }
        assert_eq!(
            time(SECOND, DAY)("0s").unwrap_err(),
            "it has to be 1s or longer"
        );
    }

    #[test]
    fn origins_stand_with_commas_between() {
        assert!(origins("").unwrap().is_empty());
        assert!(origins(" ").unwrap().is_empty());
        let two = origins("https://a.example, http://localhost:3000").unwrap();
        assert!(two.allow("https://a.example") && two.allow("http://localhost:3000"));
        for (bad, entry) in [("https://a.example,", "''"), ("a.example", "'a.example'")] {
            let refusal = origins(bad).unwrap_err();
            assert!(
                refusal.contains(&format!("{entry} is not an origin")),
                "{refusal}"
            );
        }
    }
}
