//! The settings of the spool.

use anyhow::ensure;

use super::format::{
    FRAME_HEADER_BYTES, FRAMES_START, PAYLOAD_BYTES_MAX, SEGMENT_BYTES_MAX, STREAMS_MAX,
};

/// The spool's limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The streams that records are appended to, each below [`STREAMS_MAX`]. Each has its lane.
    /// There may be gaps between their numbers, and a gap costs nothing.
    pub streams: Vec<u8>,
    /// Bytes of a segment file. A larger record gets a larger file.
    pub segment_bytes: u64,
    /// The largest payload that is accepted, at most [`PAYLOAD_BYTES_MAX`].
    pub frame_bytes_max: u32,
    /// The lowest `frame_bytes_max` that a smaller `bytes_max` can lead to.
    pub frame_bytes_least: u32,
    /// A group takes no more records once it has this many bytes.
    pub group_bytes_max: usize,
    /// Limit on the size of all segment files together.
    pub bytes_max: u64,
    /// Free space that the spool leaves on the file system.
    pub disk_reserve_bytes: u64,
    /// Records that a lane holds in memory. The next one is only on disk.
    pub lane_frames_max: usize,
    /// Payload bytes that a lane holds in memory. The next record is only on disk; an empty
    /// lane takes a record of any size.
    pub lane_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            streams: vec![0],
            // Space is freed by deleting whole files. 64 MiB drain soon, and files are created
            // too seldom for the cost to show.
            segment_bytes: 64 << 20,
            frame_bytes_max: PAYLOAD_BYTES_MAX,
            frame_bytes_least: PAYLOAD_BYTES_MAX,
            // 1 MiB takes about a millisecond, so the next group waits about 4.
            group_bytes_max: 4 << 20,
            bytes_max: 8 << 30,
            disk_reserve_bytes: 1 << 30,
            lane_frames_max: 4096,
            lane_bytes_max: 32 << 20,
        }
    }
}

impl Settings {
    /// Refuses settings with which the spool could block.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.streams.is_empty()
                && self
                    .streams
                    .iter()
                    .all(|&stream| usize::from(stream) < STREAMS_MAX),
            "a spool has streams with numbers below {STREAMS_MAX}, not {:?}",
            self.streams
        );
        ensure!(
            self.frame_bytes_max <= PAYLOAD_BYTES_MAX,
            "a record can have {PAYLOAD_BYTES_MAX} bytes at most, not {}",
            self.frame_bytes_max
        );
        ensure!(
            self.segment_bytes <= SEGMENT_BYTES_MAX,
            "a segment can have {SEGMENT_BYTES_MAX} bytes at most, not {}",
            self.segment_bytes
        );
        // The newest segment is only deleted once there is a newer one. With room for fewer
        // than two, a full one would keep the next from being created.
        let least = self.bytes_least();
        ensure!(
            self.bytes_max >= least,
            "the spool needs room for two segments, {least} bytes at least, not {}",
            self.bytes_max
        );
        ensure!(
            self.lane_frames_max > 0 && self.group_bytes_max > 0,
            "a lane and a group hold at least one record"
        );
        // A frame stores the distance to the start of its group in 32 bits.
        ensure!(
            self.group_bytes_max <= 1 << 30,
            "a group can have 1 GiB at most, not {} bytes",
            self.group_bytes_max
        );
        Ok(())
    }

    /// The lowest valid `bytes_max`.
    pub fn bytes_least(&self) -> u64 {
        2 * self.largest_segment()
    }

    /// The lowest `bytes_max` that the spool can work with, with smaller segments and records.
    pub(crate) fn least_cap(&self) -> u64 {
        2 * Self::segment_of(self.frame_bytes_least)
    }

    fn largest_segment(&self) -> u64 {
        let largest_frame = Self::segment_of(self.frame_bytes_max);
        self.segment_bytes.max(largest_frame)
    }

    fn segment_of(frame_bytes: u32) -> u64 {
        FRAMES_START + FRAME_HEADER_BYTES + u64::from(frame_bytes)
    }
}
