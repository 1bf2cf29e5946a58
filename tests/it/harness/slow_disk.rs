//! A disk that hangs in `fdatasync` on demand.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// Replaces the C library's `fdatasync` by LD_PRELOAD: it waits while the file in SLOW_DISK
/// exists.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void wait_for_release(void) {
    const char *path = getenv("SLOW_DISK");
    while (path && access(path, F_OK) == 0) usleep(10000);
}
int fdatasync(int fd) {
    int (*next)(int) = dlsym(RTLD_NEXT, "fdatasync");
    wait_for_release();
    return next(fd);
}
"#;

/// Slows down processes that run with its environment.
pub struct SlowDisk {
    dir: TempDir,
}

impl SlowDisk {
    /// `None`, with a message, if there is no C compiler.
    pub fn make() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("slow.c");
        std::fs::write(&source, SOURCE).unwrap();
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(dir.path().join("slow.so"))
            .arg(&source)
            .arg("-ldl")
            .status();
        if made.is_ok_and(|status| status.success()) {
            Some(Self { dir })
        } else {
            eprintln!("left out: a disk that hangs takes a C compiler");
            None
        }
    }

    /// The environment variables for a process on this disk.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.dir.path().join("slow.so").into()),
            ("SLOW_DISK", self.flag().into()),
        ]
    }

    /// From now on `fdatasync` does not return.
    pub fn hang(&self) {
        std::fs::write(self.flag(), "").unwrap();
    }

    /// Lets all waiting calls return.
    pub fn release(&self) {
        std::fs::remove_file(self.flag()).unwrap();
    }

    fn flag(&self) -> PathBuf {
        self.dir.path().join("hangs")
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        drop(std::fs::remove_file(self.flag()));
    }
}
