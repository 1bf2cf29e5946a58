//! A real directory: the lock, the files, and the fixtures of the format.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::deliver::reader::LaneReader;
use super::super::recover::open;
use super::super::recover::open::Opened;
use super::super::recover::scan::report::Ending;
use super::super::settings::Settings;
use super::rig::{entry, ids, items, settings};
use crate::log::read::Next;
use crate::log::record::Delivered;

/// Set, to the directory, in the process that only holds the lock.
const HOLD: &str = "SPOOL_TEST_HOLDS";
/// Set to write the fixtures again; only for a new format version.
const WRITE: &str = "SPOOL_TEST_WRITES_FIXTURES";

fn open(directory: &Path) -> anyhow::Result<Opened<(), u64>> {
    open_with(directory, vec![0, 1])
}

fn open_with(directory: &Path, streams: Vec<u8>) -> anyhow::Result<Opened<(), u64>> {
    let (_, entries) = flume::bounded(1);
    let settings = Settings {
        streams,
        ..settings()
    };
    open::open(directory, settings, entries)
}

fn commit(opened: &mut Opened<(), u64>, frames: impl IntoIterator<Item = (u8, u64, usize)>) {
    for (stream, id, bytes) in frames {
        let (entry, mut answer) = entry(stream, id, bytes);
        opened.committer.commit(&mut vec![entry]);
        assert_eq!(answer.try_recv().unwrap(), Ok(()));
    }
}

fn take(reader: &mut LaneReader<(), u64>) -> Vec<Delivered<Option<()>, u64>> {
    let mut taken = Vec::new();
    loop {
        match reader.try_next() {
            Next::Record(frame) => taken.push(frame),
            Next::Fetch => taken.extend(reader.read_from_disk(1 << 20).unwrap()),
            Next::Empty | Next::Ended => return taken,
        }
    }
}

/// What the fixtures of a version hold: streams, ids and sizes.
fn fixture_frames(version: &str) -> Vec<(u8, u64, usize)> {
    (1..=9)
        .map(|id| {
            let bytes = if id == 5 { 2000 } else { 200 + 13 * id };
            let stream = match id % 3 {
                0 => 1,
                // The first stream that version 1 has not.
                1 if version == "v2" => 16,
                _ => 0,
            };
            (stream, id, usize::try_from(bytes).unwrap())
        })
        .collect()
}

fn fixtures(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/spool")
        .join(version)
}

#[test]
fn a_file_larger_than_any_segment_is_set_aside_like_others_that_are_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open(directory.path()).unwrap();
    commit(&mut opened, [(0, 1, 100), (1, 2, 100)]);
    drop(opened);
    let name = "00000000000000ff.seg";
    let strange = fs::File::create_new(directory.path().join(name)).unwrap();
    strange.set_len(1 << 40).unwrap();
    let mut opened = open(directory.path()).unwrap();
    assert_eq!(ids(&take(&mut opened.readers[0])), [1]);
    assert_eq!(ids(&take(&mut opened.readers[1])), [2]);
    commit(&mut opened, [(0, 3, 100)]);
    let aside = directory.path().join(format!("{name}.damaged"));
    assert_eq!(fs::metadata(aside).unwrap().len(), 1 << 40);
}

#[test]
fn a_spool_that_a_version_left_behind_can_be_read_for_ever() {
    let newest = fixtures("v2");
    if std::env::var_os(WRITE).is_some() {
        let frames = fixture_frames("v2");
        let mut opened = open_with(&newest, vec![0, 1, 16]).unwrap();
        commit(&mut opened, frames.iter().copied().take(6));
        drop(opened);
        let mut opened = open_with(&newest, vec![0, 1, 16]).unwrap();
        commit(&mut opened, frames.iter().copied().skip(6));
        drop(opened);
        fs::remove_file(newest.join("lock")).unwrap();
    }
    for version in ["v1", "v2"] {
        let directory = tempfile::tempdir().unwrap();
        for file in fs::read_dir(fixtures(version)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
        }
        // Streams with records left get a reader, whatever the settings say now.
        let mut opened = open_with(directory.path(), vec![1]).unwrap();
        assert!(!opened.report.is_damaged(), "{version}");
        let endings = opened.report.segments.iter().map(|found| &found.ending);
        assert!(
            endings.copied().all(|ending| ending == Ending::Clean),
            "{version}"
        );
        assert_eq!(opened.report.segments.len(), 4, "{version}");
        let fill = opened.spool.usage();
        let frames = fixture_frames(version);
        let mut found = 0;
        for reader in &mut opened.readers {
            let stream = usize::from(reader.stream());
            let of_stream = frames.iter().filter(|frame| usize::from(frame.0) == stream);
            let (ids_expected, sizes_expected): (Vec<u64>, Vec<usize>) =
                of_stream.map(|&(_, id, bytes)| (id, bytes)).unzip();
            let taken = take(reader);
            let sizes: Vec<usize> = taken.iter().map(|frame| frame.payload.len()).collect();
            assert_eq!((ids(&taken), sizes), (ids_expected.clone(), sizes_expected));
            let accepted: u64 = ids_expected.iter().map(|&id| u64::from(items(id))).sum();
            assert_eq!(fill.accepted[stream], accepted);
            found += taken.len();
        }
        assert_eq!(found, frames.len(), "{version}");
    }
}

#[test]
fn frames_come_back_from_a_real_directory_in_another_life() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not/there/yet");
    let mut opened = open(&path).unwrap();
    let spool_id = opened.spool.id();
    commit(&mut opened, (1..=30).map(|id| (0, id, 300)));
    assert_eq!(take(&mut opened.readers[0]).len(), 30);
    opened.spool.ack(0, 20);
    opened.committer.tick();
    let accepted = opened.spool.usage().accepted;
    drop(opened);
    let mut opened = open(&path).unwrap();
    assert_eq!(opened.spool.id(), spool_id);
    assert!(opened.readers[0].skip_to(20));
    assert_eq!(
        ids(&take(&mut opened.readers[0])),
        (21..=30).collect::<Vec<_>>()
    );
    opened.spool.ack(0, u64::MAX);
    commit(&mut opened, [(1, 31, 300)]);
    opened.committer.tick();
    let fill = opened.spool.usage();
    assert_eq!(fill.segments, 1);
    assert_eq!(fill.accepted[0], accepted[0]);
    // An inspection sees the content and changes nothing.
    let report = open::inspect(&path).unwrap();
    assert_eq!((report.spool_id, report.frames()), (Some(spool_id), 1));
}

#[test]
fn a_second_spool_in_one_directory_is_refused_with_the_directory_and_the_pid() {
    if let Some(directory) = std::env::var_os(HOLD) {
        let opened = open(Path::new(&directory)).unwrap();
        println!("held");
        // Until the parent closes stdin, or kills this process.
        std::io::read_to_string(std::io::stdin()).unwrap();
        drop(opened);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let this_test = "log::spool::tests::directory::a_second_spool_in_one_directory_is_refused_with_the_directory_and_the_pid";
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this_test, "--nocapture"])
        .env(HOLD, directory.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(holder.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(output);
    assert!(lines.any(|line| line.unwrap().ends_with("held")));
    let error = open(directory.path()).err().unwrap();
    let text = format!("{error:#}");
    assert!(
        text.contains(&directory.path().display().to_string()),
        "{text}"
    );
    assert!(text.contains(&format!("process {}", holder.id())), "{text}");
    // The lock ends with the process, even when it is killed.
    holder.kill().unwrap();
    holder.wait().unwrap();
    open(directory.path()).unwrap();
}

#[test]
fn a_segment_has_its_size_from_the_start_and_reads_as_zeros() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open(directory.path()).unwrap();
    commit(&mut opened, [(0, 1, 100)]);
    let segment = directory.path().join("0000000000000001.seg");
    let bytes = fs::read(segment).unwrap();
    assert_eq!(bytes.len() as u64, settings().segment_bytes);
    assert!(bytes[8192 + 144..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_real_disk_reserve_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let (_, entries) = flume::bounded(1);
    let settings = Settings {
        disk_reserve_bytes: u64::MAX,
        ..settings()
    };
    let mut opened = open::open::<(), u64>(directory.path(), settings, entries).unwrap();
    let (entry, mut answer) = entry(0, 1, 10);
    opened.committer.commit(&mut vec![entry]);
    assert_eq!(
        answer.try_recv().unwrap(),
        Err(crate::log::record::AppendError::NoSpace)
    );
}
