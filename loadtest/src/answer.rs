//! What the service says to a body, read strictly.
//!
//! Written from the contract. Keeps one invariant: an [`Answer`] accounts for
//! every event of its body, or it is not one.

use hyper::StatusCode;
use serde::Deserialize;

/// How far an event has got when it is answered.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Deserialize,
    serde::Serialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ack {
    /// In memory.
    Received,
    /// On disk.
    Durable,
    /// In Postgres.
    Committed,
}

impl Ack {
    /// The name in `?ack=`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Ack::Received => "received",
            Ack::Durable => "durable",
            Ack::Committed => "committed",
        }
    }
}

/// An answer with a verdict on every event.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Answer {
    /// The level that was reached; none where all events were rejected.
    #[serde(default)]
    pub(crate) ack: Option<Ack>,
    /// Events that will be stored.
    #[serde(default)]
    pub(crate) accepted: u32,
    /// Events that will not, by their place.
    #[serde(default)]
    pub(crate) rejected: Vec<Rejected>,
    /// Those that are only summed up; once read they are in `rejected`.
    #[serde(default)]
    pub(crate) rejected_more: Vec<More>,
    /// Of the accepted: stored.
    #[serde(default)]
    pub(crate) committed: Option<u32>,
    /// Of the accepted: there before.
    #[serde(default)]
    pub(crate) duplicates: Option<u32>,
    /// Of the accepted: refused by Postgres.
    #[serde(default)]
    pub(crate) quarantined: Vec<serde_json::Value>,
    /// Those that are only summed up; once read they are in `quarantined`.
    #[serde(default)]
    pub(crate) quarantined_more: Vec<More>,
}

/// Events with the same verdict.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct More {
    code: String,
    count: usize,
    /// Places, such as `3,7-9`.
    events: String,
}

impl More {
    /// The places; none if they are not what they should be.
    fn indexes(&self) -> Option<Vec<u32>> {
        let mut indexes = Vec::new();
        for part in self.events.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            let is_sane = first <= last
                && indexes.last().is_none_or(|before| *before < first)
                && usize::try_from(last - first).ok()? < self.count;
            if !is_sane {
                return None;
            }
            indexes.extend(first..=last);
        }
        (indexes.len() == self.count).then_some(indexes)
    }
}

impl Answer {
    /// Puts what is summed up with what is told one by one; false if that makes no sense.
    fn unfold(&mut self) -> bool {
        for more in std::mem::take(&mut self.rejected_more) {
            let Some(indexes) = more.indexes() else {
                return false;
            };
            self.rejected
                .extend(indexes.into_iter().map(|index| Rejected {
                    index,
                    code: more.code.clone(),
                }));
        }
        for more in std::mem::take(&mut self.quarantined_more) {
            let Some(indexes) = more.indexes() else {
                return false;
            };
            let one = |index| serde_json::json!({"index": index, "code": more.code});
            self.quarantined.extend(indexes.into_iter().map(one));
        }
        self.rejected.sort_by_key(|rejected| rejected.index);
        let indexes = self.rejected.iter().map(|rejected| rejected.index);
        indexes.is_sorted_by(|a, b| a < b)
    }
}

/// One event that was not accepted.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Rejected {
    /// Its place in the body.
    pub(crate) index: u32,
    /// Why.
    pub(crate) code: String,
}

/// What became of a body.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Every event has its verdict.
    Answered(Answer),
    /// Nothing was taken.
    Refused {
        status: StatusCode,
        /// The `code` of the problem document.
        code: String,
        retry_after_seconds: Option<u64>,
    },
    /// Nobody knows: the connection broke, or the answer made no sense.
    Unknown(String),
}

/// The parts of a problem document that we use.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
}

/// Reads an answer.
pub(crate) fn read(
    status: StatusCode,
    ack_header: Option<&str>,
    retry_after: Option<&str>,
    body: &[u8],
) -> Outcome {
    let parsed = match status.as_u16() {
        200 | 202 | 422 => serde_json::from_slice::<Answer>(body),
        _ => {
            return Outcome::Refused {
                status,
                code: serde_json::from_slice::<Problem>(body)
                    .unwrap_or_default()
                    .code,
                retry_after_seconds: retry_after.and_then(|text| text.trim().parse().ok()),
            };
        }
    };
    let answer = match parsed {
        Ok(mut answer) => {
            if !answer.unfold() {
                return Outcome::Unknown(format!(
                    "an answer {status} with sums that make no sense"
                ));
            }
            answer
        }
        Err(error) => {
            return Outcome::Unknown(format!("an answer {status} that is no answer: {error}"));
        }
    };
    match contradiction(status, ack_header, &answer) {
        Some(wrong) => Outcome::Unknown(format!(
            "an answer {status} that contradicts itself: {wrong}"
        )),
        None => Outcome::Answered(answer),
    }
}

/// What is wrong with an answer, taken by itself.
fn contradiction(status: StatusCode, ack_header: Option<&str>, answer: &Answer) -> Option<String> {
    let said = answer.ack.map(Ack::as_str);
    match (status.as_u16(), answer.ack) {
        (200, Some(Ack::Committed)) | (202, Some(Ack::Received | Ack::Durable)) => {}
        (422, _) if answer.accepted == 0 && !answer.rejected.is_empty() => return None,
        (_, ack) => return Some(format!("ack {ack:?} with {} accepted", answer.accepted)),
    }
    if ack_header != said {
        return Some(format!("X-Ingest-Ack {ack_header:?} beside ack {said:?}"));
    }
    if answer.ack == Some(Ack::Committed) {
        let (Some(committed), Some(duplicates)) = (answer.committed, answer.duplicates) else {
            return Some("committed without counts".to_owned());
        };
        let quarantined = u32::try_from(answer.quarantined.len()).unwrap_or(u32::MAX);
        if committed + duplicates + quarantined != answer.accepted {
            return Some(format!(
                "{} accepted, but {committed} committed, {duplicates} duplicates and {quarantined} quarantined",
                answer.accepted
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, header: Option<&str>, body: &str) -> Outcome {
        read(
            StatusCode::from_u16(status).unwrap(),
            header,
            Some("3"),
            body.as_bytes(),
        )
    }

    #[test]
    fn an_answer_is_read_with_all_its_counts() {
        let body = r#"{"ack":"committed","accepted":3,"rejected":[{"index":1,"event_id":"x","code":"missing_field","field":"item_id","message":"…"}],"committed":2,"duplicates":1,"quarantined":[]}"#;
        let Outcome::Answered(answer) = of(200, Some("committed"), body) else {
            panic!("it is one");
        };
        assert_eq!(answer.ack, Some(Ack::Committed));
        assert_eq!(
            (answer.accepted, answer.committed, answer.duplicates),
            (3, Some(2), Some(1))
        );
        assert_eq!(answer.rejected[0].index, 1);
        assert_eq!(answer.rejected[0].code, "missing_field");
    }

    #[test]
    fn verdicts_that_are_summed_up_are_read_as_if_they_were_told() {
        let body = r#"{"ack":"durable","accepted":1,"rejected":[{"index":0,"code":"a"}],"rejected_more":[{"code":"a","count":3,"events":"1,4-5"},{"code":"b","count":1,"events":"3"}]}"#;
        let Outcome::Answered(answer) = of(202, Some("durable"), body) else {
            panic!("it is one");
        };
        let told: Vec<_> = answer
            .rejected
            .iter()
            .map(|r| (r.index, r.code.as_str()))
            .collect();
        assert_eq!(told, [(0, "a"), (1, "a"), (3, "b"), (4, "a"), (5, "a")]);
        for wrong in ["1,4-6", "5-4", "4,4,4", "0-2", "x", ""] {
            let body = body.replace("1,4-5", wrong);
            let read = of(202, Some("durable"), &body);
            assert!(matches!(read, Outcome::Unknown(_)), "{wrong}");
        }
    }

    #[test]
    fn counts_levels_and_headers_that_contradict_each_other_are_noticed() {
        for (status, header, body) in [
            (
                200,
                "committed",
                r#"{"ack":"committed","accepted":3,"rejected":[],"committed":2,"duplicates":0,"quarantined":[]}"#,
            ),
            (
                200,
                "durable",
                r#"{"ack":"durable","accepted":3,"rejected":[]}"#,
            ),
            (
                202,
                "committed",
                r#"{"ack":"durable","accepted":3,"rejected":[]}"#,
            ),
            (202, "durable", "accepted"),
            (
                200,
                "committed",
                r#"{"ack":"committed","accepted":3,"rejected":[]}"#,
            ),
        ] {
            assert!(
                matches!(of(status, Some(header), body), Outcome::Unknown(_)),
                "{body}"
            );
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_again() {
        let refused = of(503, None, r#"{"code":"overloaded","request_id":"r"}"#);
        let Outcome::Refused {
            status,
            code,
            retry_after_seconds,
        } = refused
        else {
            panic!("it is one");
        };
        assert_eq!(
            (status.as_u16(), &*code, retry_after_seconds),
            (503, "overloaded", Some(3))
        );
    }
}
