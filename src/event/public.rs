//! What an event may not hold if its key is in public hands, as in a web page.
//!
//! A visitor can send anything with such a key. So fields that readers take for a server's word are
//! refused: pseudonyms, whose salt only servers have; what the service sets itself; and what the
//! exposure says of the recommendation, from which results of experiments are computed.

use super::body::RawEvent;
use super::format::Format;
use super::rejection::{Code, Rejection};

/// Fields that only a server's key may set, and what a page does instead.
const SERVER_ONLY: [(&str, &[&str]); 3] = [
    (
        "only servers have the salt of such hashes: send user_id, anonymous_id or session_id, which are hashed here",
        &[
            "user_id_hash", "anonymous_id_hash", "session_id_hash", "user_key", "subject",
            "subject_kind",
        ],
    ),
    (
        "it is set by the service: leave it out",
        &[
            "received_at", "source", "schema", "schema_version", "skew_ms",
        ],
    ),
    (
        "it is said by the exposure with the same request_id, which a server posts: leave it out",
        &[
            "algo_version", "config_version", "config_etag", "rules_version", "rules_etag",
            "experiment", "experiment_id", "experiment_variant", "request", "response",
        ],
    ),
];

/// Checks an event that came with a key in public hands.
///
/// # Errors
///
/// `unsupported_format` for the formats that servers write, and `field_not_allowed`.
pub(super) fn check(event: &RawEvent<'_, '_>, format: Format) -> Result<(), Rejection> {
    if format != Format::Native {
        return Err(Rejection::whole(
            Code::UnsupportedFormat,
            format!(
                "{format} is written by servers, and a publish key posts native interactions: send occurred_at instead of ts, or use a key with the role ingest"
            ),
        ));
    }
    // A null counts as absent, as in every field.
    let is_set = |name: &str| {
        let mut fields = event.fields.iter();
        fields.any(|field| field.key == name && field.raw != "null")
    };
    for (why, names) in SERVER_ONLY {
        if let Some(name) = names.iter().copied().find(|name| is_set(name)) {
            return Err(Rejection::of(
                Code::FieldNotAllowed,
                name,
                format!("may not be set with a publish key: {why}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::SERVER_ONLY;
    use crate::event::unknown;

    /// Raw ids alone may be sent where their hashes may not.
    #[test]
    fn what_only_a_server_may_say_is_refused_by_each_of_its_names() {
        let names = SERVER_ONLY.iter().flat_map(|(_, names)| names.iter());
        let refused: Vec<&str> = names.copied().collect();
        for name in &refused {
            for synonym in unknown::synonyms(name) {
                let is_raw_id = ["user_id", "anonymous_id", "session_id"].contains(synonym);
                let is_refused = refused.contains(synonym);
                assert!(is_raw_id || is_refused, "{synonym} means {name}");
            }
        }
    }
}
