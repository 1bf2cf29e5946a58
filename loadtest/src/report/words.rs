//! Numbers and lines as reports show them.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// A line, with its label in a column.
pub fn line(out: &mut String, label: &str, text: &str) {
    writeln!(out, "{label:<26} {text}").expect("a String takes all");
}

/// A count in groups of three digits.
pub fn count(n: u64) -> String {
    grouped(float(n))
}

/// A number that is not negative, rounded, in groups of three digits.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

pub fn milliseconds(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    float(histogram.value_at_percentile(percentile)) / 1e3
}

/// A count for arithmetic and display.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a run stay far below 2^53"
)]
pub fn float(count: u64) -> f64 {
    count as f64
}

pub fn time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| format!("{us} µs"), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (n, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (1_000.0, "1,000"),
            (12_345_678.0, "12,345,678"),
        ] {
            assert_eq!(grouped(n), text);
        }
    }
}
