//! Reports a disk that has no room for the spool, with what to do.

use std::fmt;

use bytesize::ByteSize;

use crate::log::spool::settings::Settings;

/// A disk on which no new segment fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    free: u64,
    reserve: u64,
    segment: u64,
    /// The lowest `bytes_max` that the spool can work with.
    least_cap: u64,
}

const MIB: u64 = 1 << 20;

impl Shortage {
    pub(crate) fn new(free: u64, settings: &Settings) -> Self {
        Self {
            free,
            reserve: settings.disk_reserve_bytes,
            segment: settings.segment_bytes,
            least_cap: settings.least_cap(),
        }
    }

    /// A `bytes_max` in MiB with which the spool would work now, because its segments are
    /// smaller.
    fn cap_that_fits(&self) -> Option<u64> {
        let usable = self.free.saturating_sub(self.reserve) / MIB;
        (usable * MIB >= self.least_cap && usable * MIB / 8 < self.segment).then_some(usable)
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [free, reserve, segment] = [self.free, self.reserve, self.segment].map(ByteSize::b);
        write!(
            f,
            "the spool's disk has {free} free; a segment takes {segment}, and {reserve} are left \
             to others (--spool-disk-reserve): free some space"
        )?;
        match self.cap_that_fits() {
            Some(mib) => write!(
                f,
                ", or set --spool-bytes-max to {mib}MiB, which makes segments smaller, or a lower --spool-disk-reserve"
            ),
            None => write!(f, ", or set a lower --spool-disk-reserve"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(free_mib: u64, reserve_mib: u64) -> String {
        let settings = Settings {
            disk_reserve_bytes: reserve_mib * MIB,
            frame_bytes_max: 32 << 20,
            frame_bytes_least: 16 << 20,
            ..Settings::default()
        };
        Shortage::new(free_mib * MIB, &settings).to_string()
    }

    #[test]
    fn a_shortage_is_told_with_its_numbers_and_what_to_set() {
        let small = words(900, 1024);
        assert!(
            small.contains("has 900.0 MiB free; a segment takes 64.0 MiB, and 1.0 GiB"),
            "{small}"
        );
        assert!(
            small.ends_with("or set a lower --spool-disk-reserve"),
            "{small}"
        );
        assert!(words(51, 1).contains("--spool-bytes-max to 50MiB"));
        // Below this the largest record does not fit.
        assert!(!words(30, 1).contains("--spool-bytes-max"));
    }
}
