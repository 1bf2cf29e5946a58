//! Fuzz targets: every decoder, body reader and frame reader, with seeds.
//!
//! A target takes any bytes, never panics, and asserts what has to hold of them: what was decoded
//! encodes to the same again, rows keep their contract, memory is linear in the bytes. `fuzz/`
//! drives the targets by coverage, for as long as is asked; the tests here run each for a moment.
//!
//! Compiled for these two only.

mod bodies;
mod callers;
mod events;
mod files;
mod input;
mod settings;
mod texts;

/// Something to feed bytes to.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line of `fuzz/`.
    pub name: &'static str,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics if something does not hold of these bytes.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, seeds: fn() -> Vec<Vec<u8>>, run: fn(&[u8])) -> Target {
    Target { name, seeds, run }
}

/// All targets.
pub const TARGETS: [Target; 23] = [
    target("framing", bodies::framing_seeds, bodies::framing),
    target(
        "compression",
        bodies::compression_seeds,
        bodies::compression,
    ),
    target("compressed_framing", bodies::both_seeds, bodies::both),
    target("native", events::native_seeds, events::native),
    target("suite", events::suite_seeds, events::suite),
    target("items", events::items_seeds, events::items),
    target("messages", events::message_seeds, events::messages),
    target("json", texts::json_seeds, texts::json),
    target("numbers", texts::number_seeds, texts::numbers),
    target("times", texts::time_seeds, texts::times),
    target("ids", texts::id_seeds, texts::ids),
    target("rows", files::row_seeds, files::rows),
    target("segment_header", files::header_seeds, files::segment_header),
    target("segment", files::segment_seeds, files::segment),
    target("openings", files::opening_seeds, files::openings),
    target("key_cache", files::cache_seeds, files::key_cache),
    target("values", settings::value_seeds, settings::values),
    target("dsn", settings::dsn_seeds, settings::dsn),
    target("traceparent", callers::trace_seeds, callers::traceparent),
    target("origins", callers::origin_seeds, callers::origins),
    target("forwarded", callers::forwarded_seeds, callers::forwarded),
    target("keys", callers::key_seeds, callers::keys),
    target("heads", callers::head_seeds, callers::heads),
];

#[cfg(test)]
mod tests;
