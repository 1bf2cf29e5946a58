//! What an operator can choose about the spool.

use anyhow::ensure;

use super::format::{
    FRAME_HEADER_BYTES, FRAMES_START, PAYLOAD_BYTES_MAX, SEGMENT_BYTES_MAX, STREAMS_MAX,
};

/// The spool's limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Streams, at most [`STREAMS_MAX`]; each has its lane.
    pub streams: u8,
    /// Bytes of a segment file. A frame that is larger gets a larger file.
    pub segment_bytes: u64,
    /// The largest payload that is taken, at most [`PAYLOAD_BYTES_MAX`].
    pub frame_bytes_max: u32,
    /// What that could be reduced to under a smaller cap.
    pub frame_bytes_least: u32,
    /// A group is written once it has so many bytes, whoever else waits.
    pub group_bytes_max: usize,
    /// All segment files together, by the size of the files.
    pub bytes_max: u64,
    /// Space that is left to others on the file system.
    pub disk_reserve_bytes: u64,
    /// Frames in memory that a lane holds before it falls behind.
    pub lane_frames_max: usize,
    /// Payload bytes in memory that a lane holds before it falls behind; one
    /// frame always fits.
    pub lane_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            streams: 1,
            // Deleting whole files is how space comes back; 64 MiB is soon
            // drained, and making a file is rare enough not to show.
            segment_bytes: 64 << 20,
            frame_bytes_max: PAYLOAD_BYTES_MAX,
            frame_bytes_least: PAYLOAD_BYTES_MAX,
            // A MiB takes about a millisecond: nobody waits long for the group before.
            group_bytes_max: 4 << 20,
            bytes_max: 8 << 30,
            disk_reserve_bytes: 1 << 30,
            lane_frames_max: 4096,
            lane_bytes_max: 32 << 20,
        }
    }
}

impl Settings {
    /// Refuses settings with which the spool could not go on.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=STREAMS_MAX).contains(&usize::from(self.streams)),
            "a spool has 1 to {STREAMS_MAX} streams, not {}",
            self.streams
        );
        ensure!(
            self.frame_bytes_max <= PAYLOAD_BYTES_MAX,
            "a frame can have {PAYLOAD_BYTES_MAX} bytes at most, not {}",
            self.frame_bytes_max
        );
        ensure!(
            self.segment_bytes <= SEGMENT_BYTES_MAX,
            "a segment can have {SEGMENT_BYTES_MAX} bytes at most, not {}",
            self.segment_bytes
        );
        // The newest segment stays until there is a newer one: with room for
        // fewer than two, a full one would block its own succession.
        let least = self.bytes_least();
        ensure!(
            self.bytes_max >= least,
            "the spool needs room for two segments, {least} bytes at least, not {}",
            self.bytes_max
        );
        ensure!(
            self.lane_frames_max > 0 && self.group_bytes_max > 0,
            "a lane and a group hold at least one frame"
        );
        // A frame tells how far back its group began in 32 bits.
        ensure!(
            self.group_bytes_max <= 1 << 30,
            "a group can have 1 GiB at most, not {} bytes",
            self.group_bytes_max
        );
        Ok(())
    }

    /// The least that `bytes_max` may be.
    pub fn bytes_least(&self) -> u64 {
        2 * self.largest_segment()
    }

    /// The least cap that the spool can do with: segments and frames are smaller.
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
