//! What an answer of the service means for the lines of a body.
//!
//! Pure: the caller waits, splits and tries again.

use std::time::Duration;

use serde::Deserialize;

use super::rejects::Reason;

/// What to do after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Each line has its verdict.
    Verdicts(Verdicts),
    /// These bytes are refused together: some of them alone may be taken. `fit` says how many
    /// lines, if that is known.
    Split { fit: Option<usize>, reason: Reason },
    /// The compressed body was not taken: send it as it is.
    SendPlain(Reason),
    /// Later.
    Retry {
        after: Option<Duration>,
        why: String,
    },
    /// Nothing helps until a person has changed something.
    Fault(String),
}

/// What became of the lines of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdicts {
    pub(crate) accepted: u64,
    pub(crate) duplicates: u64,
    pub(crate) quarantined: u64,
    /// Number in the body, and why.
    pub(crate) rejected: Vec<(usize, Reason)>,
    /// Rejected lines of which the answer has the code alone.
    pub(crate) summed_up: Vec<(usize, String)>,
}

#[derive(Debug, Deserialize)]
struct Taken {
    ack: String,
    accepted: u64,
    #[serde(default)]
    valid: u64,
    #[serde(default)]
    rejected: Vec<Told>,
    #[serde(default)]
    rejected_more: Vec<More>,
    #[serde(default)]
    duplicates: u64,
    #[serde(default)]
    quarantined: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    quarantined_more: Vec<More>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    rejected: Vec<Told>,
    #[serde(default)]
    rejected_more: Vec<More>,
    events_that_fit: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Told {
    index: usize,
    code: String,
    field: Option<String>,
    message: String,
}

#[derive(Debug, Deserialize)]
struct More {
    code: String,
    count: u64,
    events: String,
}

/// Codes of refusals that are about the bytes of a body.
const ABOUT_BYTES: [&str; 7] = [
    "malformed_body", "no_events", "duplicate_field", "invalid_sent_at", "body_too_large",
    "too_many_events", "unsupported_charset",
];

/// Reads the answer to a body of `lines` lines.
pub(crate) fn read(status: u16, after: Option<Duration>, body: &[u8], lines: usize) -> Reply {
    let in_words = |what: &str| match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => format!("{status} {}: {}", problem.code, problem.detail),
        Err(_) => format!("{status} {what}"),
    };
    match status {
        200 | 202 => match serde_json::from_slice::<Taken>(body) {
            Ok(taken) => of_taken(taken, lines),
            Err(error) => Reply::Fault(format!(
                "the answer {status} is not one of recsys-ingest ({error}): is the URL right?"
            )),
        },
        408 | 425 | 429 | 500 | 502..=599 => Reply::Retry {
            after,
            why: in_words("without a reason"),
        },
        _ => match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => of_problem(status, problem, lines),
            // A proxy's own limit.
            Err(_) if status == 413 => Reply::Split {
                fit: None,
                reason: Reason::new("body_too_large", "a proxy answers 413 to this line alone"),
            },
            Err(_) => Reply::Fault(in_words(
                "without a code of recsys-ingest: is the URL right, and what stands before the service?",
            )),
        },
    }
}

fn of_taken(taken: Taken, lines: usize) -> Reply {
    if !matches!(&*taken.ack, "durable" | "committed" | "none") {
        return Reply::Fault(format!(
            "the service answers with ack '{}', which a crash may undo",
            taken.ack
        ));
    }
    let summed_up: u64 = taken.quarantined_more.iter().map(|more| more.count).sum();
    let verdicts = Verdicts {
        accepted: taken.accepted + taken.valid,
        duplicates: taken.duplicates,
        quarantined: taken.quarantined.len() as u64 + summed_up,
        ..Verdicts::default()
    };
    with_rejected(verdicts, taken.rejected, &taken.rejected_more, lines)
}

fn of_problem(status: u16, problem: Problem, lines: usize) -> Reply {
    let reason = Reason::new(&problem.code, problem.detail.clone());
    match &*problem.code {
        "all_events_rejected" | "some_events_rejected" => with_rejected(
            Verdicts::default(),
            problem.rejected,
            &problem.rejected_more,
            lines,
        ),
        "invalid_compression" => Reply::SendPlain(reason),
        "body_incomplete" => Reply::Retry {
            after: None,
            why: problem.detail,
        },
        code if ABOUT_BYTES.contains(&code) => Reply::Split {
            fit: problem.events_that_fit,
            reason,
        },
        code => Reply::Fault(format!("{status} {code}: {}", problem.detail)),
    }
}

fn with_rejected(mut verdicts: Verdicts, told: Vec<Told>, more: &[More], lines: usize) -> Reply {
    let told = told.into_iter().map(|told| {
        let reason = Reason {
            code: told.code,
            field: told.field,
            message: told.message,
        };
        (told.index, reason)
    });
    verdicts.rejected = told.collect();
    for more in more {
        for number in places(&more.events, lines) {
            verdicts.summed_up.push((number, more.code.clone()));
        }
    }
    let rejected = verdicts.rejected.len() + verdicts.summed_up.len();
    let numbers = verdicts.rejected.iter().map(|(number, _)| *number);
    let in_range = numbers
        .chain(verdicts.summed_up.iter().map(|(number, _)| *number))
        .all(|number| number < lines);
    if !in_range || verdicts.accepted + rejected as u64 != lines as u64 {
        return Reply::Fault(format!(
            "the answer speaks of {} accepted and {rejected} rejected events, and {lines} were sent: is the URL right?",
            verdicts.accepted
        ));
    }
    Reply::Verdicts(verdicts)
}

/// The numbers in `100-199,203`; those beyond `most` are cut off.
fn places(text: &str, most: usize) -> Vec<usize> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) {
            all.extend(from..=to.min(most));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str, lines: usize) -> Reply {
        read(status, None, body.as_bytes(), lines)
    }

    #[test]
    fn every_line_has_its_verdict() {
        let body = r#"{"ack":"durable","accepted":2,"rejected":[{"index":1,"code":"missing_field","field":"item_id","message":"is required"}],"rejected_more":[{"code":"too_long","count":3,"events":"3-4,5"}],"warnings":[]}"#;
        let Reply::Verdicts(verdicts) = of(202, body, 6) else {
            panic!("{:?}", of(202, body, 6));
        };
        assert_eq!(verdicts.accepted, 2);
        let (number, reason) = &verdicts.rejected[0];
        assert_eq!((*number, reason.field.as_deref()), (1, Some("item_id")));
        let numbers: Vec<_> = verdicts.summed_up.iter().map(|(at, _)| *at).collect();
        assert_eq!(numbers, [3, 4, 5]);
    }

    #[test]
    fn an_answer_that_does_not_add_up_moves_no_position() {
        for (status, body, lines) in [
            (202, r#"{"ack":"durable","accepted":2,"rejected":[]}"#, 3),
            (202, r#"{"ack":"received","accepted":3,"rejected":[]}"#, 3),
            (200, "<html>", 3),
            (200, "{}", 1),
            (
                422,
                r#"{"code":"all_events_rejected","rejected":[{"index":7,"code":"c","message":"m"}]}"#,
                1,
            ),
            (401, r#"{"code":"invalid_api_key","detail":"d"}"#, 1),
            (403, r#"{"code":"tenant_not_active","detail":"d"}"#, 1),
            (404, "nginx", 1),
            (301, "", 1),
            (400, r#"{"code":"invalid_query","detail":"d"}"#, 1),
        ] {
            let reply = of(status, body, lines);
            assert!(
                matches!(reply, Reply::Fault(_)),
                "{status} {body}: {reply:?}"
            );
        }
    }

    #[test]
    fn what_is_about_bytes_is_split_and_what_is_about_time_is_tried_again() {
        for code in ABOUT_BYTES {
            let body = format!(r#"{{"code":"{code}","detail":"d","events_that_fit":3}}"#);
            let reply = of(400, &body, 9);
            let reason = Reason::new(code, "d");
            assert_eq!(
                reply,
                Reply::Split {
                    fit: Some(3),
                    reason
                }
            );
        }
        assert!(matches!(of(413, "<html>", 2), Reply::Split { .. }));
        let after = Some(Duration::from_secs(7));
        for status in [408, 429, 500, 502, 503, 504] {
            let reply = read(status, after, br#"{"code":"c","detail":"d"}"#, 1);
            let why = format!("{status} c: d");
            assert_eq!(reply, Reply::Retry { after, why });
        }
    }
}
