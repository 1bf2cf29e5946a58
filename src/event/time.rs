//! Instants as Postgres keeps them: microseconds, no zone, no clock of our own.

use uuid::Uuid;

/// Microseconds from the UNIX epoch to Postgres's, 2000-01-01 UTC.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Microseconds since the UNIX epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// Parses RFC 3339, truncating to the microsecond as Postgres stores it.
    pub fn parse(text: &str) -> Option<Self> {
        let nanos = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
        i64::try_from(nanos.div_euclid(1000)).ok().map(Self)
    }

    /// The time inside a version 7 UUID (whole milliseconds).
    pub fn of_uuid_v7(id: &Uuid) -> Option<Self> {
        if id.get_version_num() != 7 {
            return None;
        }
        let (seconds, nanos) = id.get_timestamp()?.to_unix();
        let seconds = i64::try_from(seconds).ok()?;
        seconds
            .checked_mul(1_000_000)?
            .checked_add(i64::from(nanos / 1000))
            .map(Self)
    }

    /// As binary COPY carries it: microseconds since 2000-01-01 UTC.
    pub const fn to_postgres(self) -> i64 {
        self.0 - POSTGRES_EPOCH_US
    }

    /// From binary COPY.
    pub const fn from_postgres(us: i64) -> Self {
        Self(us.saturating_add(POSTGRES_EPOCH_US))
    }
}

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{} us", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_are_truncated_downwards_on_both_sides_of_the_epoch() {
        let us = |text| Micros::parse(text).unwrap().0;
        assert_eq!(us("1970-01-01T00:00:00.000001999Z"), 1);
        assert_eq!(us("1969-12-31T23:59:59.999999999Z"), -1);
        assert_eq!(
            us("2026-05-24T12:00:00.123456789+02:00"),
            us("2026-05-24T10:00:00.123456Z")
        );
    }

    #[test]
    fn a_version_7_uuid_tells_its_millisecond() {
        let at = uuid::Timestamp::from_unix(uuid::NoContext, 1_770_000_000, 123_456_789);
        let id = Uuid::new_v7(at);
        assert_eq!(Micros::of_uuid_v7(&id), Some(Micros(1_770_000_000_123_000)));
        assert_eq!(Micros::of_uuid_v7(&Uuid::nil()), None);
    }

    #[test]
    fn text_without_an_offset_is_not_an_instant() {
        for text in [
            "", "2026-05-24", "2026-05-24T10:00:00", "yesterday", "1770000000",
        ] {
            assert_eq!(Micros::parse(text), None, "{text}");
        }
    }
}
