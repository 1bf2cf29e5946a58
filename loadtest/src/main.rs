//! The load tester's program; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadtest::main()
}
