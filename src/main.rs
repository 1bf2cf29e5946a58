//! The `recsys-ingest` program; everything is in the library.

fn main() {}
