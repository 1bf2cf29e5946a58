//! Instants as Postgres stores them: microseconds, without a zone. Nothing here reads a clock.

use uuid::{Uuid, Variant};

/// Microseconds from the UNIX epoch to Postgres's, 2000-01-01 UTC.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Microseconds since the UNIX epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// Parses RFC 3339, truncating to the microsecond as Postgres stores it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_telling(text).ok().map(|(at, _)| at)
    }

    /// As [`parse`](Self::parse); also returns whether digits other than 0 were cut off.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, in words that follow its name.
    pub fn parse_telling(text: &str) -> Result<(Self, bool), NotATime> {
        let read = Read::rfc3339(text.as_bytes()).ok_or(NotATime::Form)?;
        read.instant()
    }

    /// The time in a version 7 UUID, in whole milliseconds.
    ///
    /// The version counts only in UUIDs of the variant of RFC 9562: in others, the same bits mean
    /// something else.
    pub fn of_uuid_v7(id: &Uuid) -> Option<Self> {
        if id.get_variant() != Variant::RFC4122 || id.get_version_num() != 7 {
            return None;
        }
        let (seconds, nanos) = id.get_timestamp()?.to_unix();
        let seconds = i64::try_from(seconds).ok()?;
        seconds
            .checked_mul(1_000_000)?
            .checked_add(i64::from(nanos / 1000))
            .map(Self)
    }

    /// The value in binary COPY: microseconds since 2000-01-01 UTC.
    pub const fn to_postgres(self) -> i64 {
        self.0 - POSTGRES_EPOCH_US
    }

    /// Reads the value of binary COPY.
    pub const fn from_postgres(us: i64) -> Self {
        Self(us.saturating_add(POSTGRES_EPOCH_US))
    }
}

/// Why a text is no instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATime {
    /// It is not written as RFC 3339 has it.
    #[error("must be RFC 3339 with an offset, such as 2026-05-24T10:00:00.123Z")]
    Form,
    /// Its month has fewer days.
    #[error("names a day that its month does not have")]
    NoSuchDay,
    /// Its second is 60, elsewhere than before a January or a July.
    #[error(
        "has second 60, a leap second, where there can be none: they are at 23:59:60 UTC of the last day of June and December"
    )]
    NoLeapSecond,
}

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not as a jiff::Timestamp: the last one is a day before the end of the year 9999.
        let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
        match epoch.checked_add(jiff::SignedDuration::from_micros(self.0)) {
            Ok(time) => write!(f, "{time}Z"),
            Err(_) => write!(f, "{} us", self.0),
        }
    }
}

/// What a text says that is written as a time.
#[derive(Clone, Copy, Debug)]
struct Read {
    year: i64,
    month: i64,
    day: i64,
    /// Of the day, with a leap second's 60.
    seconds: i64,
    is_leap_second: bool,
    micros: i64,
    /// Whether digits other than 0 beyond the microsecond were cut off.
    is_cut: bool,
    offset_seconds: i64,
}

impl Read {
    /// Reads a `date-time` of RFC 3339, with `T` between date and time, and nothing looser: no other
    /// separator, no zone in brackets (RFC 9557), no form that only ISO 8601 has.
    #[inline]
    fn rfc3339(text: &[u8]) -> Option<Self> {
        let (clock, rest) = text.split_first_chunk::<19>()?;
        let separators = [
            clock[4],
            clock[7],
            clock[10].to_ascii_uppercase(),
            clock[13],
            clock[16],
        ];
        if separators != *b"--T::" {
            return None;
        }
        let two = |at: usize| Some(digit(clock[at])? * 10 + digit(clock[at + 1])?);
        let (year, month, day) = (two(0)? * 100 + two(2)?, two(5)?, two(8)?);
        let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
        let is_day = (1..=12).contains(&month) && (1..=31).contains(&day);
        if !is_day || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let mut micros = 0;
        let mut is_cut = false;
        let zone = match rest {
            [b'.', rest @ ..] => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if digits == 0 {
                    return None;
                }
                let (digits, zone) = rest.split_at(digits);
                for (place, &byte) in digits.iter().enumerate() {
                    if place < 6 {
                        micros = micros * 10 + digit(byte)?;
                    } else {
                        is_cut |= byte != b'0';
                    }
                }
                for _ in digits.len()..6 {
                    micros *= 10;
                }
                zone
            }
            zone => zone,
        };
        Some(Self {
            year,
            month,
            day,
            seconds: (hour * 60 + minute) * 60 + second,
            is_leap_second: second == 60,
            micros,
            is_cut,
            offset_seconds: offset_seconds(zone)?,
        })
    }

    /// The instant, and whether digits were cut off.
    #[inline]
    fn instant(self) -> Result<(Micros, bool), NotATime> {
        let Self {
            year, month, day, ..
        } = self;
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            4 | 6 | 9 | 11 => 30,
            2 => 28 + i64::from(is_leap),
            _ => 31,
        };
        if day > days {
            return Err(NotATime::NoSuchDay);
        }
        let seconds = days_to(year, month, day) * 86_400 + self.seconds - self.offset_seconds;
        if self.is_leap_second && !follows_leap_second(year, seconds) {
            return Err(NotATime::NoLeapSecond);
        }
        Ok((Micros(seconds * 1_000_000 + self.micros), self.is_cut))
    }
}

/// The offset from UTC that ends a time.
fn offset_seconds(zone: &[u8]) -> Option<i64> {
    match *zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digit(h1)? * 10 + digit(h2)?, digit(m1)? * 10 + digit(m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = (hours * 60 + minutes) * 60;
            Some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Whether `seconds` since the epoch is the start of a January or a July in UTC: leap seconds stand
/// before these alone. Like Postgres, we count such a second as the first of the new month.
fn follows_leap_second(local_year: i64, seconds: i64) -> bool {
    // The local year is the one before where the offset is positive.
    let starts = [local_year, local_year + 1]
        .into_iter()
        .flat_map(|year| [days_to(year, 1, 1), days_to(year, 7, 1)]);
    seconds % 86_400 == 0 && starts.into_iter().any(|days| days == seconds / 86_400)
}

/// The days from the epoch to a day.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is their last day.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and the epoch.
    year * 365 + leap_days + day_of_year - 719_468
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

#[cfg(test)]
mod tests;
