//! Decimal numbers, from JSON text to `numeric(18,6)` without a float in between.

/// Digits after the point.
const SCALE: i32 = 6;

/// The smallest positive number that does not fit `numeric(18,6)`, in millionths.
const LIMIT_MICROS: u64 = 1_000_000_000_000_000_000;

/// A decimal in millionths, as `numeric(18,6)` holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// Whether it is below zero; false for zero.
    negative: bool,
    /// The absolute value in millionths, below 10^18.
    micros: u64,
}

impl Decimal {
    /// Parses the text of a JSON number, rounding half away from zero to six places as Postgres
    /// does; `None` if it does not fit `numeric(18,6)`.
    ///
    /// `text` is a number that the scanner has accepted: well formed, short, with a small exponent.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        // Digits before the rounding place, after the exponent has moved the point.
        let whole_len = i32::try_from(whole.len()).ok()?;
        let kept = whole_len.checked_add(exponent)?.checked_add(SCALE)?;
        let mut micros: u64 = 0;
        let mut round_up = false;
        let mut place = 0;
        for digit in whole.bytes().chain(fraction.bytes()).map(|b| b - b'0') {
            if place < kept {
                micros = micros.checked_mul(10)?.checked_add(u64::from(digit))?;
            } else if place == kept {
                round_up = digit >= 5;
            }
            place += 1;
        }
        while place < kept && micros != 0 {
            micros = micros.checked_mul(10)?;
            place += 1;
        }
        if round_up {
            micros = micros.checked_add(1)?;
        }
        (micros < LIMIT_MICROS).then_some(Self {
            negative: negative && micros != 0,
            micros,
        })
    }

    /// Appends the binary form: digit count, weight, sign, scale, then the
    /// base-10000 digits, big endian (`numeric_send` in PostgreSQL's source).
    pub fn encode(self, out: &mut Vec<u8>) {
        // 10^18 millionths: three base-10000 digits of whole part, two of
        // fraction (the last one holds two decimal places, times 100).
        let whole = self.micros / 1_000_000;
        let fraction = self.micros % 1_000_000;
        let digits = [
            base10000(whole / 100_000_000),
            base10000(whole / 10_000),
            base10000(whole),
            base10000(fraction / 100),
            base10000(fraction % 100 * 100),
        ];
        let first = digits.iter().position(|&d| d != 0).unwrap_or(digits.len());
        let last = digits
            .iter()
            .rposition(|&d| d != 0)
            .map_or(first, |at| at + 1);
        let used = &digits[first..last];
        let small = |n: usize| i16::try_from(n).expect("there are five digits");
        let weight = if used.is_empty() { 0 } else { 2 - small(first) };
        let sign: u16 = if self.negative { 0x4000 } else { 0 };
        out.extend_from_slice(&small(used.len()).to_be_bytes());
        out.extend_from_slice(&weight.to_be_bytes());
        out.extend_from_slice(&sign.to_be_bytes());
        out.extend_from_slice(&6_i16.to_be_bytes());
        for digit in used {
            out.extend_from_slice(&digit.to_be_bytes());
        }
    }

    /// Reads the binary form that [`Decimal::encode`] writes, as text.
    pub fn decode_to_text(bytes: &[u8]) -> Option<String> {
        let mut words = bytes
            .chunks_exact(2)
            .map(|word| i16::from_be_bytes([word[0], word[1]]));
        let (count, weight, sign, _scale) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        let mut micros: u64 = 0;
        for place in 0..5 {
            // Places 2, 1, 0 hold the whole part, −1 and −2 the fraction.
            let digit = match i16::try_from(place).ok()? - (2 - weight) {
                at if (0..count).contains(&at) => words.next()?,
                _ => 0,
            };
            let digit = u64::try_from(digit).ok()?;
            micros = if place == 4 {
                micros * 100 + digit / 100
            } else {
                micros * 10_000 + digit
            };
        }
        let sign = if sign == 0 { "" } else { "-" };
        Some(format!(
            "{sign}{}.{:06}",
            micros / 1_000_000,
            micros % 1_000_000
        ))
    }
}

/// The lowest base-10000 digit.
fn base10000(value: u64) -> u16 {
    u16::try_from(value % 10_000).expect("a remainder of 10,000 fits 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> Option<i64> {
        Decimal::parse(text).map(|d| {
            let micros = i64::try_from(d.micros).unwrap();
            if d.negative { -micros } else { micros }
        })
    }

    #[test]
    fn decimals_keep_every_digit_and_round_half_away_from_zero() {
        for (text, expected) in [
            ("0", 0),
            ("-0.0", 0),
            ("0.1", 100_000),
            ("12.345678", 12_345_678),
            ("12.3456785", 12_345_679),
            ("-12.3456785", -12_345_679),
            ("12.34567849999999", 12_345_678),
            ("1e3", 1_000_000_000),
            ("1.5E-6", 2),
            ("4e-7", 0),
            ("5e-7", 1),
            ("-4e-7", 0),
            ("1e-300", 0),
            ("123456789012.123456", 123_456_789_012_123_456),
            ("0.000000000000000000000000000001e30", 1_000_000),
            ("0e300", 0),
        ] {
            assert_eq!(micros(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_binary_form_reads_back_as_the_same_text() {
        for (text, expected) in [
            ("0", "0.000000"),
            ("-12.3", "-12.300000"),
            ("999999999999.999999", "999999999999.999999"),
            ("0.000001", "0.000001"),
            ("10000", "10000.000000"),
            ("100000000.5", "100000000.500000"),
        ] {
            let mut bytes = Vec::new();
            Decimal::parse(text).unwrap().encode(&mut bytes);
            assert_eq!(Decimal::decode_to_text(&bytes).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for text in [
            "1e12",
            "-1e12",
            "999999999999.9999995",
            "1e300",
            "99999999999999999999999",
        ] {
            assert_eq!(micros(text), None, "{text}");
        }
        assert_eq!(
            micros("999999999999.9999994"),
            Some(999_999_999_999_999_999)
        );
    }
}
