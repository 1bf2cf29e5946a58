//! The spool id: a uuid that lives as long as the spool's counters.
//!
//! Sequences and counts continue from segment to segment. A directory without a readable
//! segment has lost them and gets a new id. So what the database knows of the old id's
//! sequences is never applied to new records.

use std::io;

use anyhow::{Context, bail};
use uuid::Uuid;

use super::disk::{Disk, read_full, write_all};

pub(crate) const FILE_NAME: &str = "instance";
const TEMPORARY_NAME: &str = "instance.new";

/// The file that marks a spool without a segment as one that never had any. Other directories with an
/// id and without a segment have lost them.
pub(crate) const UNUSED: &str = "unused";

/// Suffix of files that are not complete until they are renamed.
pub(crate) const LEFTOVER_SUFFIX: &str = ".new";

/// Whether `name` is a file that a crash left incomplete.
pub(crate) fn is_leftover(name: &str) -> bool {
    name.ends_with(LEFTOVER_SUFFIX)
}

/// The spool id in the directory; `None` if it has none.
pub(crate) fn read(disk: &dyn Disk) -> anyhow::Result<Option<Uuid>> {
    let file = match disk.open(FILE_NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot open the spool's instance file"),
    };
    let mut text = [0; 64];
    let read =
        read_full(file.as_ref(), &mut text, 0).context("cannot read the spool's instance file")?;
    match Uuid::try_parse_ascii(text[..read].trim_ascii()) {
        Ok(spool_id) => Ok(Some(spool_id)),
        // Each segment holds the spool id too, so removing the file loses nothing.
        Err(_) => bail!(
            "the spool's file {FILE_NAME} does not hold a uuid: remove the file, \
             it is written again from what the segments say"
        ),
    }
}

/// Stores the spool id in the directory, atomically.
pub(crate) fn write(disk: &dyn Disk, spool_id: Uuid) -> io::Result<()> {
    let file = disk.create(TEMPORARY_NAME, 0)?;
    write_all(file.as_ref(), format!("{spool_id}\n").as_bytes(), 0)?;
    file.sync_data()?;
    disk.rename(TEMPORARY_NAME, FILE_NAME)?;
    disk.sync_dir()
}

/// Marks the directory as one that no segment was begun in. Durable with what is synced next.
pub(crate) fn mark_unused(disk: &dyn Disk) -> io::Result<()> {
    disk.create(UNUSED, 0).map(drop)
}

/// Removes the mark, if there is one. Durable with what is synced next, as the first segment's name is.
pub(crate) fn mark_used(disk: &dyn Disk) -> io::Result<()> {
    match disk.remove(UNUSED) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
