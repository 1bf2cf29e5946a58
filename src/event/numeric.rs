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
        Self::parse_telling(text).map(|(value, _)| value)
    }

    /// As [`parse`](Self::parse); also returns whether it was rounded.
    pub fn parse_telling(text: &str) -> Option<(Self, bool)> {
        let Number {
            negative,
            whole,
            fraction,
            exponent,
        } = Number::split(text)?;
        // Digits before the rounding place, after the exponent has moved the point.
        let whole_len = i32::try_from(whole.len()).ok()?;
        let kept = whole_len.checked_add(exponent)?.checked_add(SCALE)?;
        let mut micros: u64 = 0;
        let mut round_up = false;
        let mut is_rounded = false;
        let mut place = 0;
        for digit in whole.bytes().chain(fraction.bytes()).map(|b| b - b'0') {
            if place < kept {
                micros = micros.checked_mul(10)?.checked_add(u64::from(digit))?;
            } else {
                round_up |= place == kept && digit >= 5;
                is_rounded |= digit != 0;
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
        let value = Self {
            negative: negative && micros != 0,
            micros,
        };
        (micros < LIMIT_MICROS).then_some((value, is_rounded))
    }

    /// The product of two JSON numbers, multiplied exactly and rounded once; also returns whether
    /// it was rounded. `None` if it does not fit.
    pub fn product(one: &str, other: &str) -> Option<(Self, bool)> {
        let (one, other) = (Number::split(one)?, Number::split(other)?);
        let places = |number: &Number<'_>| i32::try_from(number.fraction.len()).ok();
        let exponent = one
            .exponent
            .checked_add(other.exponent)?
            .checked_sub(places(&one)?)?
            .checked_sub(places(&other)?)?;
        let sign = if one.negative == other.negative {
            ""
        } else {
            "-"
        };
        let digits = times(&one.limbs(), &other.limbs());
        Self::parse_telling(&format!("{sign}{digits}e{exponent}"))
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

    /// Reads the binary form that [`Decimal::encode`] writes, as text. `None` for bytes that it
    /// never writes, as a broken disk may have them.
    pub fn decode_to_text(bytes: &[u8]) -> Option<String> {
        let mut words = bytes
            .chunks_exact(2)
            .map(|word| i16::from_be_bytes([word[0], word[1]]));
        let (count, weight, sign, _scale) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        let mut micros: u64 = 0;
        for place in 0..5 {
            // Places 2, 1, 0 hold the whole part, −1 and −2 the fraction.
            let digit = match place - (2 - i32::from(weight)) {
                at if (0..i32::from(count)).contains(&at) => words.next()?,
                _ => 0,
            };
            let digit = u64::try_from(digit).ok().filter(|digit| *digit < 10_000)?;
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

/// The parts of a JSON number.
struct Number<'t> {
    negative: bool,
    whole: &'t str,
    fraction: &'t str,
    exponent: i32,
}

impl<'t> Number<'t> {
    fn split(text: &'t str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        Some(Self {
            negative,
            whole,
            fraction,
            exponent,
        })
    }

    /// All digits as one whole number in base 10^9, the lowest limb first.
    fn limbs(&self) -> Vec<u64> {
        let digits = self.whole.bytes().rev();
        let digits: Vec<_> = self.fraction.bytes().rev().chain(digits).collect();
        let limb = |nine: &[u8]| {
            nine.iter()
                .rev()
                .fold(0, |limb, digit| limb * 10 + u64::from(digit - b'0'))
        };
        digits.chunks(9).map(limb).collect()
    }
}

/// The digits of the product of two whole numbers in base 10^9. A number has at most 400 digits, so
/// these are at most 45 times 45 steps.
fn times(one: &[u64], other: &[u64]) -> String {
    const BASE: u64 = 1_000_000_000;
    let mut product = vec![0; one.len() + other.len()];
    for (at, left) in one.iter().enumerate() {
        let mut carry = 0;
        for (place, right) in product[at..].iter_mut().zip(other.iter().chain(&[0])) {
            // Below 2^63: a product of two limbs and two numbers of a limb's size.
            let sum = *place + left * right + carry;
            *place = sum % BASE;
            carry = sum / BASE;
        }
    }
    let digits: String = product
        .iter()
        .rev()
        .map(|limb| format!("{limb:09}"))
        .collect();
    match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
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
    fn bytes_that_are_no_decimal_are_no_text() {
        let bytes = |words: [i16; 5]| words.map(i16::to_be_bytes).concat();
        let read = |words| Decimal::decode_to_text(&bytes(words));
        assert_eq!(read([1, 0, 0, 6, 7]).as_deref(), Some("7.000000"));
        for weight in [i16::MIN, i16::MAX] {
            assert_eq!(read([1, weight, 0, 6, 7]).as_deref(), Some("0.000000"));
        }
        for digit in [-1, 10_000, i16::MAX] {
            assert_eq!(read([1, 2, 0, 6, digit]), None, "{digit}");
        }
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
    fn rounding_is_told() {
        for (text, is_rounded) in [
            ("12.345678", false),
            ("12.3456780000", false),
            ("12.3456784", true),
            ("12.3456785", true),
            ("1e-7", true),
            ("1e-400", true),
            ("0e-400", false),
            ("120e-7", false),
            ("19.900000000000002", true),
        ] {
            let told = Decimal::parse_telling(text).map(|(_, told)| told);
            assert_eq!(told, Some(is_rounded), "{text}");
        }
    }

    #[test]
    fn a_product_is_exact_and_rounded_once() {
        for (price, quantity, expected, is_rounded) in [
            ("19.99", "3", "59.970000", false),
            ("0.1", "3", "0.300000", false),
            ("0", "7", "0.000000", false),
            ("-0.5", "3", "-1.500000", false),
            ("-0.5", "-3", "1.500000", false),
            ("-0.0", "3", "0.000000", false),
            // Rounding the price first would give 0.000002 and 0.999999.
            ("0.0000005", "2", "0.000001", false),
            ("0.333333333", "3", "1.000000", true),
            ("1.0000005", "1", "1.000001", true),
            ("-1.0000005", "1", "-1.000001", true),
            ("1.00000049999999999999999999999999", "1", "1.000000", true),
            ("1e3", "1e-3", "1.000000", false),
            ("1e300", "1e-300", "1.000000", false),
            ("2.5E2", "0.4", "100.000000", false),
            ("999999999999.999999", "1", "999999999999.999999", false),
            (
                "999999.999999", "999999.999999", "999999999998.000000", true,
            ),
            (
                "0.1000000000000000055511151231257827021181583404541015625",
                "10",
                "1.000000",
                true,
            ),
            (
                "123456789.123456789123456789123456789",
                "8.1e-9",
                "1.000000",
                true,
            ),
        ] {
            let (value, told) = Decimal::product(price, quantity).unwrap();
            let mut bytes = Vec::new();
            value.encode(&mut bytes);
            let text = Decimal::decode_to_text(&bytes).unwrap();
            assert_eq!(
                (&*text, told),
                (expected, is_rounded),
                "{price} * {quantity}"
            );
        }
        for (price, quantity) in [
            ("1e6", "1e6"),
            ("1e12", "1"),
            ("-1e11", "10"),
            ("999999999999.9999995", "1"),
            ("1e400", "1e400"),
        ] {
            assert_eq!(
                Decimal::product(price, quantity),
                None,
                "{price} * {quantity}"
            );
        }
        let long = "9".repeat(399);
        assert_eq!(
            Decimal::product(&format!("0.{long}"), "1").map(|(value, _)| value),
            Decimal::parse("1")
        );
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
