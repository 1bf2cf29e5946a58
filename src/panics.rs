//! What is said of a panic: where it was, and never what a client sent.
//!
//! The standard hook prints the panic's message, and messages that are made at run
//! time may quote what was being worked on: a slice of text names the text.

use std::any::Any;
use std::io::Write as _;
use std::panic;

/// Has every panic say where it was on standard error.
pub fn install() {
    panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        let place = info.location().map(ToString::to_string);
        let place = place.unwrap_or_else(|| "an unknown place".to_owned());
        let words = words(info.payload());
        // Not by way of the log, which may be what panicked; and a standard error
        // that is closed must not end anything.
        drop(writeln!(
            std::io::stderr(),
            "recsys-ingest: thread '{name}' panicked at {place}: {words}"
        ));
    }));
}

/// A message that was written in the program; others may quote a client.
fn words(payload: &(dyn Any + Send)) -> &'static str {
    match payload.downcast_ref::<&'static str>() {
        Some(words) => words,
        None => "(its message is withheld, as it may hold data)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_that_the_program_holds_are_repeated() {
        let fixed = panic::catch_unwind(|| panic!("an invariant is broken")).unwrap_err();
        assert_eq!(words(&*fixed), "an invariant is broken");
        let text = "ada@example.com é".to_owned();
        let made = panic::catch_unwind(|| text[..17].len()).unwrap_err();
        assert!(!words(&*made).contains("ada"));
        let made = panic::catch_unwind(|| panic!("{text}")).unwrap_err();
        assert!(!words(&*made).contains("ada"));
    }
}
