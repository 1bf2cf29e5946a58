//! What `dev` says once it is ready.

use std::path::Path;

use crate::config::address::ListenAddress;
use crate::event::time::Micros;

/// What to try first. Fits 80 columns and 24 lines. Its events have ids and times, so that one that
/// is posted again is the same event.
pub(super) fn greeting(
    url: &str,
    operators: Option<&ListenAddress>,
    dev_env: &Path,
    now: Micros,
) -> String {
    let page = operators.map_or_else(|| url.to_owned(), |address| format!("http://{address}"));
    let second = Micros(now.0 - now.0.rem_euclid(1_000_000));
    // A shell looks a name without a slash up in PATH.
    let env = match dev_env.components().count() {
        1 => Path::new(".").join(dev_env),
        _ => dev_env.to_owned(),
    };
    let place = match env.is_relative() {
        true => ", in this folder",
        false => "",
    };
    let env = env.display().to_string();
    let env = match env.contains(char::is_whitespace) {
        true => format!("'{env}'"),
        false => env,
    };
    format!(
        r#"
recsys-ingest is ready on {url}.
Open {page}/ in a browser to see events arrive (the API: /docs).
In another terminal{place}:

  . {env}

  curl -sS "$INGEST_URL/v1/exposures?ack=committed" \
    -H "X-API-Key: $INGEST_API_KEY" -d '{{
    "event_id": "shown-1", "occurred_at": "{second}",
    "request_id": "r1", "surface": "home", "user_id": "u1",
    "items": [{{"item_id": "a"}}, {{"item_id": "b"}}]}}'

  curl -sS "$INGEST_URL/v1/interactions?ack=committed" \
    -H "X-API-Key: $INGEST_API_KEY" -d '{{
    "event_id": "click-1", "occurred_at": "{second}",
    "request_id": "r1", "user_id": "u1", "event_type": "click", "item_id": "a"}}'

  "$INGEST_PSQL" "$DATABASE_URL" -c 'SELECT * FROM interaction_events'

An event with the same id and time is the same one: pasted twice, the answer
says duplicate. Another event_id makes it new. Ctrl-C stops all; data stays."#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_fits_a_small_screen() {
        let now = Micros(1_779_616_800_123_456);
        let env = Path::new(".recsys-ingest/dev.env");
        let text = greeting("http://127.0.0.1:8080", None, env, now);
        // A line for what the shell had there, and one for the cursor.
        assert!(text.lines().count() <= 23, "{}", text.lines().count());
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(
            text.contains("\"occurred_at\": \"2026-05-24T10:00:00Z\""),
            "{text}"
        );
        assert!(text.contains("committed\" \\\n    -H"), "{text}");
        let text = greeting("http://127.0.0.1:8080", None, Path::new("dev.env"), now);
        assert!(text.contains("\n  . ./dev.env\n"), "{text}");
    }
}
