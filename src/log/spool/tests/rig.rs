//! A spool without a committer thread: the test calls each step itself.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::append::group_committer::GroupCommitter;
use super::super::deliver::reader::LaneReader;
use super::super::disk::faulty::FaultyDisk;
use super::super::format::FRAMES_START;
use super::super::recover::open::open_on;
use super::super::recover::scan::report::ScanReport;
use super::super::settings::Settings;
use super::super::shared::Spool;
use crate::log::read::Next;
use crate::log::record::Delivered;
use crate::log::record::{AppendError, Record, Turn};

pub(crate) type Answer = Result<(), AppendError>;

pub(crate) struct Rig {
    pub(crate) disk: FaultyDisk,
    pub(crate) spool: Spool,
    pub(crate) committer: GroupCommitter<(), u64>,
    pub(crate) readers: Vec<LaneReader<(), u64>>,
    pub(crate) report: ScanReport,
}

/// Small enough that a few records fill anything.
pub(crate) fn settings() -> Settings {
    Settings {
        streams: vec![0, 1],
        segment_bytes: FRAMES_START + 1500,
        frame_bytes_max: 3000,
        frame_bytes_least: 3000,
        group_bytes_max: 4096,
        bytes_max: 1 << 20,
        disk_reserve_bytes: 0,
        lane_frames_max: 3,
        lane_bytes_max: 1 << 20,
    }
}

/// A payload that depends on the id in every byte.
pub(crate) fn payload(id: u64, bytes: usize) -> Bytes {
    let mut payload = id.to_le_bytes().to_vec();
    let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while payload.len() < bytes.max(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        payload.push(state.to_le_bytes()[0]);
    }
    payload.into()
}

/// The id of a payload, which must be whole.
pub(crate) fn id_of(payload_found: &Bytes) -> u64 {
    let id = u64::from_le_bytes(payload_found[..8].try_into().unwrap());
    assert_eq!(
        *payload_found,
        payload(id, payload_found.len()),
        "a wrong payload"
    );
    id
}

pub(crate) fn entry(
    stream: u8,
    id: u64,
    bytes: usize,
) -> (Record<(), u64>, oneshot::Receiver<Answer>) {
    let (sender, receiver) = oneshot::channel();
    let entry = Record {
        stream,
        items: items(id),
        payload: payload(id, bytes),
        turn: Turn::default(),
        durable: Some(sender),
        memory: (),
        result: None,
    };
    (entry, receiver)
}

/// Items of the record with this id.
pub(crate) fn items(id: u64) -> u32 {
    u32::try_from(id % 7 + 1).unwrap()
}

impl Rig {
    pub(crate) fn open(disk: &FaultyDisk) -> anyhow::Result<Self> {
        Self::open_with(disk, settings())
    }

    pub(crate) fn open_with(disk: &FaultyDisk, settings: Settings) -> anyhow::Result<Self> {
        let (_, entries) = flume::bounded(1);
        let opened = open_on(Arc::new(disk.clone()), None, settings, entries)?;
        let mut committer = opened.committer;
        committer.log.retry_pause = std::time::Duration::ZERO;
        Ok(Self {
            disk: disk.clone(),
            spool: opened.spool,
            committer,
            readers: opened.readers,
            report: opened.report,
        })
    }

    /// Commits (stream, id, bytes) as one group.
    pub(crate) fn commit(&mut self, group: &[(u8, u64, usize)]) -> Vec<Answer> {
        let (mut entries, answers): (Vec<_>, Vec<_>) = group
            .iter()
            .map(|&(stream, id, bytes)| entry(stream, id, bytes))
            .unzip();
        self.committer.commit(&mut entries);
        answers
            .into_iter()
            .map(|mut answer| answer.try_recv().expect("everyone is answered"))
            .collect()
    }

    /// Takes records until there are `frames_max`, or the lane has no more for now.
    pub(crate) fn take(
        &mut self,
        stream: usize,
        frames_max: usize,
    ) -> Vec<Delivered<Option<()>, u64>> {
        let reader = &mut self.readers[stream];
        let mut taken = Vec::new();
        while taken.len() < frames_max {
            match reader.try_next() {
                Next::Record(frame) => taken.push(frame),
                Next::Fetch => taken.extend(reader.read_from_disk(1).unwrap()),
                Next::Empty | Next::Ended => break,
            }
        }
        taken
    }

    /// Takes all records of all streams, as ids.
    pub(crate) fn take_all(&mut self) -> Vec<Vec<u64>> {
        (0..self.readers.len())
            .map(|stream| ids(&self.take(stream, usize::MAX)))
            .collect()
    }

    /// Segment files, oldest first.
    pub(crate) fn segments(&self) -> Vec<String> {
        segments(&self.disk)
    }
}

pub(crate) fn segments(disk: &FaultyDisk) -> Vec<String> {
    disk.names()
        .into_iter()
        .filter(|name| name.ends_with(".seg"))
        .collect()
}

pub(crate) fn ids(frames: &[Delivered<Option<()>, u64>]) -> Vec<u64> {
    for frame in frames {
        assert_eq!(frame.items, items(id_of(&frame.payload)));
    }
    assert!(
        frames.is_sorted_by(|a, b| a.sequence < b.sequence),
        "out of order"
    );
    frames.iter().map(|frame| id_of(&frame.payload)).collect()
}
