//! Instants in microseconds, and their RFC 3339 text in the forms that clients write.

use super::text::push_padded;

/// Microseconds of a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;

/// How an instant is written; they all mean the same microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `…T10:00:00.123456Z`
    Micros,
    /// `…T10:00:00.123456789Z`, as Go writes it; the digits behind the microsecond are cut by the service.
    Nanos(u16),
    /// `…T12:00:00.123456+02:00`
    Offset,
}

/// Appends `at_us` (microseconds since 1970) as RFC 3339.
pub(crate) fn push_rfc3339(out: &mut Vec<u8>, at_us: i64, style: Style) {
    let shift = match style {
        Style::Offset => 2 * 3_600_000_000,
        _ => 0,
    };
    let local = at_us + shift;
    let (days, in_day) = (local.div_euclid(DAY_US), local.rem_euclid(DAY_US));
    let (year, month, day) = civil(days);
    let in_day = unsigned(in_day);
    let seconds = in_day / 1_000_000;
    push_padded(out, unsigned(year), 4);
    for (mark, part) in [
        (b'-', unsigned(month)),
        (b'-', unsigned(day)),
        (b'T', seconds / 3600),
        (b':', seconds / 60 % 60),
        (b':', seconds % 60),
    ] {
        out.push(mark);
        push_padded(out, part, 2);
    }
    out.push(b'.');
    push_padded(out, in_day % 1_000_000, 6);
    match style {
        Style::Micros => out.push(b'Z'),
        Style::Nanos(nanos) => {
            push_padded(out, u64::from(nanos), 3);
            out.push(b'Z');
        }
        Style::Offset => out.extend_from_slice(b"+02:00"),
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic
/// Gregorian calendar. Years are taken to begin in March, which puts the leap
/// day last and makes the lengths of the months before it a linear formula.
fn civil(days: i64) -> (i64, i64, i64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01; 400 years have 146,097.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let in_era = shifted.rem_euclid(146_097);
    let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).expect("dates of a run lie after the year 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_reads_back_as_the_same_microsecond() {
        // Leap days, the turns of years and centuries, and the last microsecond of a day.
        for at in [
            0, 951_782_400_000_000, 951_868_799_999_999, 1_709_164_800_000_000,
            4_107_542_399_999_999, 1_795_000_000_123_456,
        ] {
            for style in [Style::Micros, Style::Nanos(999), Style::Offset] {
                let mut out = Vec::new();
                push_rfc3339(&mut out, at, style);
                let text = String::from_utf8(out).unwrap();
                let parsed: jiff::Timestamp = text.parse().unwrap();
                assert_eq!(parsed.as_microsecond(), at, "{text}");
            }
        }
    }
}
