//! A moment of each target: its seeds, and changes of them that are the same every time.

use super::TARGETS;

/// Changed inputs of each target: the same on every machine, however slow. The rest is `fuzz/run`'s.
const CHANGED: u64 = 2000;

/// Longest input.
const BYTES_MAX: usize = 2048;

/// Pieces that matter to one reader or another.
const PIECES: [&[u8]; 24] = [
    b"\0", b"\n", b"\r\n", b"\"", b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b",",
    b":", b"null", b"1e400", b"-0", b"\xef\xbb\xbf", b"\xff", b"0", b"999999999999", b"=", b"%",
    b"@", b" ",
];

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let next = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(next).unwrap() % limit.max(1)
    }

    /// A change of one of the seeds.
    fn changed(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(16)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.drain(at..end)),
                2 => bytes.truncate(at),
                3 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                4 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len() + 1);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
                _ => {
                    let piece = PIECES[self.below(PIECES.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }
}

#[test]
fn what_the_targets_assert_holds_of_their_seeds_and_of_changes_of_them() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        let mut random = Random(0x5EED);
        let run = |bytes: &[u8]| {
            let outcome = std::panic::catch_unwind(|| (target.run)(bytes));
            assert!(
                outcome.is_ok(),
                "{}: {:?}",
                target.name,
                bytes.escape_ascii().to_string()
            );
        };
        run(b"");
        for seed in &seeds {
            run(seed);
        }
        for _ in 0..CHANGED {
            run(&random.changed(&seeds));
        }
    }
}
