//! `recsys-ingest tap`: prints what becomes of each body that a service is sent, as it comes.
//!
//! The service keeps the verdicts on the last hundred bodies while they are asked for, so what came
//! before the first look is not told.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::config::tap::Tap;
use crate::logging;
use crate::ship::client::{Client, ClientSettings};

/// The pause between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// What an answer to a look is.
enum Look {
    /// Verdicts, the oldest first, and the number of the first one since the service was started.
    Bodies(Vec<Value>, u64),
    /// The service refuses: to look again is no use.
    Refused(anyhow::Error),
    /// It may answer later.
    Away(anyhow::Error),
}

pub(crate) async fn run(config: Tap) -> Result<()> {
    let client = Client::new(&ClientSettings {
        url: &config.url,
        // A blank key counts as none.
        key: config.key.0.as_ref().map_or("", |key| key.expose()),
        tenant: None,
        ca: config.tls_ca.as_deref(),
    })?;
    let mut after = 0;
    // Whether there was an answer, and whether the last look had none.
    let (mut was_there, mut is_away) = (false, false);
    loop {
        match look(&client, after).await {
            Look::Bodies(bodies, began) => {
                if !was_there || is_away {
                    logging::say(&format!("watching {}", config.url));
                }
                (was_there, is_away) = (true, false);
                for body in bodies {
                    let number = body["number"].as_u64().unwrap_or(0);
                    let between = number.saturating_sub(after.max(began - 1) + 1);
                    if after >= began && between > 0 {
                        logging::say(&format!("{between} more bodies came in between"));
                    }
                    after = number;
                    let line = match config.json {
                        true => body.to_string(),
                        false => line(&body),
                    };
                    match writeln!(io::stdout(), "{line}") {
                        // The reader has read enough.
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                        written => written.context("cannot write to standard output")?,
                    }
                }
            }
            Look::Refused(error) => return Err(error),
            Look::Away(error) if !was_there => return Err(error),
            Look::Away(error) => {
                if !std::mem::replace(&mut is_away, true) {
                    logging::say(&format!("{error:#}; asking again until it answers"));
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn look(client: &Client, after: u64) -> Look {
    let answer = match client
        .get(&format!("/live?only=bodies&after={after}"))
        .await
    {
        Ok(answer) => answer,
        Err(error) => return Look::Away(error),
    };
    match verdicts(answer.status, &answer.body) {
        Ok((bodies, began)) => Look::Bodies(bodies, began),
        // Too many connections, keys that cannot be read at the moment.
        Err(error) if answer.status >= 500 => Look::Away(error),
        Err(error) => Look::Refused(error),
    }
}

fn verdicts(status: u16, body: &[u8]) -> Result<(Vec<Value>, u64)> {
    let mut answer: Value = serde_json::from_slice(body).unwrap_or_default();
    match status {
        200 => {
            let began = answer["bodies_began"].as_u64();
            match (answer["bodies"].take(), began) {
                (Value::Array(bodies), Some(began)) => Ok((bodies, began.max(1))),
                _ => Err(anyhow!(
                    "--url does not lead to recsys-ingest: the answer has no verdicts"
                )),
            }
        }
        401 | 403 => bail!(
            "the service answers {status}: {}; give a key with the role viewer, operator or admin in --key or INGEST_ADMIN_KEY",
            detail(&answer)
        ),
        404 => bail!(
            "the service answers 404: {}; if it has a listener for operators, give the address of that one (--ops-listen) in --url",
            detail(&answer)
        ),
        _ => bail!("the service answers {status}: {}", detail(&answer)),
    }
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().unwrap_or("without a word")
}

/// A verdict in one line.
fn line(body: &Value) -> String {
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    let mut line = format!(
        "{} {} {} {}{}",
        text("at"),
        body["status"],
        text("endpoint"),
        text("ack"),
        text("code"),
    );
    for name in [
        "accepted", "rejected", "not_collected", "committed", "duplicates", "quarantined",
    ] {
        match &body[name] {
            Value::Number(count) if name == "accepted" || count.as_u64() != Some(0) => {
                push(&mut line, format_args!(" {name}={count}"));
            }
            _ => {}
        }
    }
    for reason in body["reasons"].as_array().into_iter().flatten() {
        let field = reason["field"]
            .as_str()
            .map(|field| format!("({field})"))
            .unwrap_or_default();
        let code = reason["code"].as_str().unwrap_or_default();
        push(
            &mut line,
            format_args!(" {code}{field}×{}", reason["count"]),
        );
    }
    for warning in body["warnings"].as_array().into_iter().flatten() {
        push(
            &mut line,
            format_args!(" warning:{}", warning.as_str().unwrap_or_default()),
        );
    }
    line
}

fn push(line: &mut String, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("a string takes any text");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_verdict_is_one_line() {
        for (body, expected) in [
            (
                json!({"number": 7, "at": "2026-05-24T10:00:00Z", "endpoint": "/v1/interactions", "status": 200, "ack": "committed",
                       "accepted": 2, "rejected": 3, "committed": 1, "duplicates": 1, "quarantined": 0,
                       "reasons": [{"code": "missing_field", "field": "item_id", "count": 2}, {"code": "too_deep", "count": 1}],
                       "warnings": ["unknown_field"]}),
                "2026-05-24T10:00:00Z 200 /v1/interactions committed accepted=2 rejected=3 committed=1 duplicates=1 \
                 missing_field(item_id)×2 too_deep×1 warning:unknown_field",
            ),
            (
                json!({"number": 9, "at": "2026-05-24T10:00:02Z", "endpoint": "/v1/batch", "status": 202, "ack": "durable",
                       "accepted": 1, "rejected": 0, "not_collected": 3}),
                "2026-05-24T10:00:02Z 202 /v1/batch durable accepted=1 not_collected=3",
            ),
            (
                json!({"number": 8, "at": "2026-05-24T10:00:01Z", "endpoint": "/v1/exposures", "status": 503, "code": "overloaded",
                       "accepted": 0, "rejected": 0}),
                "2026-05-24T10:00:01Z 503 /v1/exposures overloaded accepted=0",
            ),
        ] {
            assert_eq!(line(&body), expected);
        }
    }

    #[test]
    fn an_answer_that_is_none_says_what_to_do() {
        let problem = json!({"detail": "no"}).to_string();
        for (status, body, said) in [
            (200, "{}", "does not lead to recsys-ingest"),
            (200, "hello", "does not lead to recsys-ingest"),
            (401, &*problem, "401: no; give a key with the role viewer"),
            (403, &*problem, "INGEST_ADMIN_KEY"),
            (404, &*problem, "--ops-listen"),
            (503, &*problem, "503: no"),
            (500, "", "500: without a word"),
        ] {
            let error = verdicts(status, body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{status} {body}: {error}");
        }
    }
}
