//! Feeds one target of `recsys_ingest::fuzz` to libFuzzer; `fuzz/run` builds it and runs all of them.
//!
//! `FUZZ_TARGET` names the target. Its seeds are written into `FUZZ_SEEDS`, a folder to name as a
//! corpus.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod target {
    use std::sync::LazyLock;
    use std::{env, fs, path::PathBuf};

    use recsys_ingest::fuzz::{TARGETS, Target};

    static TARGET: LazyLock<Target> = LazyLock::new(|| {
        let name = env::var("FUZZ_TARGET").unwrap_or_default();
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        let found = TARGETS.into_iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("FUZZ_TARGET is one of {}", names.join(" ")))
    });

    fn write_seeds() {
        let Some(folder) = env::var_os("FUZZ_SEEDS").map(PathBuf::from) else {
            return;
        };
        for (n, seed) in (TARGET.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{n:03}")), seed)
                .expect("the folder can be written");
        }
    }

    libfuzzer_sys::fuzz_target!(init: { write_seeds() }, |data: &[u8]| {
        (TARGET.run)(data);
    });
}

#[cfg(not(fuzzing))]
fn main() {
    println!("this was not built to fuzz: use fuzz/run");
}
