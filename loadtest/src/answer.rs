//! What the service says to a body, read strictly.
//!
//! Written from the contract. Keeps one invariant: an [`Answer`] accounts for
//! every event of its body, or it is not one.

use clap::ValueEnum as _;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::generate::Body;
use crate::service::Ack;

/// An answer with a result for every event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The level that was reached; none where all events were rejected.
    #[serde(deserialize_with = "read_ack")]
    pub ack: Option<Ack>,
    /// Events that will be stored.
    pub accepted: u32,
    /// Events that will not, by their place.
    pub rejected: Vec<Told>,
    /// Those that are only summed up; once read they are in `rejected`.
    pub rejected_more: Vec<More>,
    /// Of the accepted: stored.
    pub committed: Option<u32>,
    /// Of the accepted: there before.
    pub duplicates: Option<u32>,
    /// Of the accepted: refused by Postgres.
    pub quarantined: Vec<Told>,
    /// Those that are only summed up; once read they are in `quarantined`.
    pub quarantined_more: Vec<More>,
}

/// One event that was not accepted, or not stored.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    pub index: u32,
    pub code: String,
    /// The same for people.
    #[serde(default)]
    pub message: String,
}

/// Events with the same result.
#[derive(Debug, Deserialize)]
pub struct More {
    code: String,
    count: usize,
    /// Places, such as `3,7-9`.
    events: String,
}

#[derive(Debug)]
pub enum Reply {
    Answered(Answer),
    Refused {
        status: StatusCode,
        /// The `code` of the problem document.
        code: String,
        retry_after_seconds: Option<u64>,
    },
    /// The connection broke, or the answer made no sense.
    Unknown(String),
}

fn read_ack<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Ack>, D::Error> {
    let name = Option::<String>::deserialize(from)?;
    let ack = name.map(|name| Ack::from_str(&name, false)).transpose();
    ack.map_err(D::Error::custom)
}

impl More {
    /// The places; none if they are not what they should be.
    fn indexes(&self) -> Option<Vec<u32>> {
        let mut indexes = Vec::new();
        for part in self.events.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            // A range that is longer than all together must not fill the memory.
            let length = usize::try_from(last.checked_sub(first)?).ok()?;
            indexes.extend((length < self.count).then_some(first..=last)?);
        }
        (indexes.len() == self.count).then_some(indexes)
    }
}

/// Puts what is summed up with what is told one by one; `None` if that makes no sense.
fn unfold(told: &mut Vec<Told>, more: Vec<More>) -> Option<()> {
    for more in more {
        told.extend(more.indexes()?.into_iter().map(|index| Told {
            index,
            code: more.code.clone(),
            message: String::new(),
        }));
    }
    told.sort_by_key(|told| told.index);
    told.is_sorted_by(|a, b| a.index < b.index).then_some(())
}

pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Reply {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if !matches!(status.as_u16(), 200 | 202 | 422) {
        let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        return Reply::Refused {
            status,
            code: problem["code"].as_str().unwrap_or_default().to_owned(),
            retry_after_seconds: header("retry-after").and_then(|text| text.trim().parse().ok()),
        };
    }
    let mut answer: Answer = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => {
            return Reply::Unknown(format!("an answer {status} that is no answer: {error}"));
        }
    };
    let (rejected, quarantined) = (&mut answer.rejected, &mut answer.quarantined);
    let unfolded = unfold(rejected, std::mem::take(&mut answer.rejected_more))
        .and_then(|()| unfold(quarantined, std::mem::take(&mut answer.quarantined_more)));
    if unfolded.is_none() {
        return Reply::Unknown(format!("an answer {status} with sums that make no sense"));
    }
    match contradiction(status, header("x-ingest-ack"), &answer) {
        Some(wrong) => Reply::Unknown(format!(
            "an answer {status} that contradicts itself: {wrong}"
        )),
        None => Reply::Answered(answer),
    }
}

impl Answer {
    /// What is wrong with it, given the body that it answers.
    pub fn complaint(&self, body: &Body) -> Option<String> {
        for at in 0..body.rejects.len().max(self.rejected.len()) {
            let due = body.rejects.get(at).copied();
            let told = self.rejected.get(at).map(|told| (told.index, &*told.code));
            let words = |event: Option<(u32, &str)>| {
                event.map_or("none".to_owned(), |(index, code)| {
                    format!("event {index} with {code}")
                })
            };
            if due != told {
                let (due, told) = (words(due), words(told));
                return Some(format!("the next to be rejected is {due}, and {told} was"));
            }
        }
        let valid = body.events - u32::try_from(body.rejects.len()).expect("fewer than events");
        let accepted = self.accepted;
        if accepted != valid {
            let wrong = format!("{accepted} events were accepted of {valid} valid ones");
            return Some(wrong);
        }
        let first = self.quarantined.first()?;
        Some(format!(
            "{} events were quarantined; the first is event {} with {}: {}",
            self.quarantined.len(),
            first.index,
            first.code,
            first.message
        ))
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
        return Some(format!("X-Ingest-Ack {ack_header:?} with ack {said:?}"));
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

    fn of(status: u16, ack: &'static str, body: &str) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert("x-ingest-ack", ack.parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        read(status, &headers, body.as_bytes())
    }

    #[test]
    fn an_answer_is_read_with_all_its_counts_and_with_results_that_are_summed_up() {
        let committed = r#"{"ack":"committed","accepted":3,"rejected":[{"index":1,"event_id":"x","code":"c","field":"item_id","message":"…"}],"committed":2,"duplicates":1,"quarantined":[]}"#;
        let summed = r#"{"ack":"durable","accepted":3,"rejected":[{"index":0,"code":"a"}],"rejected_more":[{"code":"a","count":3,"events":"1,4-5"},{"code":"b","count":1,"events":"3"}]}"#;
        let five = [(0, "a"), (1, "a"), (3, "b"), (4, "a"), (5, "a")];
        let cases: [(_, _, _, _, &[(u32, &str)]); 2] = [
            (200, "committed", committed, Some(2), &[(1, "c")]),
            (202, "durable", summed, None, &five),
        ];
        for (status, ack, body, committed, rejected) in cases {
            let Reply::Answered(answer) = of(status, ack, body) else {
                panic!("{body} is an answer");
            };
            assert_eq!(answer.ack.map(Ack::as_str), Some(ack));
            assert_eq!((answer.accepted, answer.committed), (3, committed));
            let told = answer.rejected.iter();
            let told: Vec<_> = told.map(|told| (told.index, told.code.as_str())).collect();
            assert_eq!(told, rejected);
        }
        for wrong in ["1,4-6", "5-4", "4,4,4", "0-2", "x", ""] {
            let reply = of(202, "durable", &summed.replace("1,4-5", wrong));
            assert!(matches!(reply, Reply::Unknown(_)), "{wrong}");
        }
    }

    #[test]
    fn counts_levels_and_headers_that_contradict_each_other_are_noticed() {
        let short = r#"{"ack":"committed","accepted":3,"rejected":[],"committed":2,"duplicates":0,"quarantined":[]}"#;
        let durable = r#"{"ack":"durable","accepted":3,"rejected":[]}"#;
        let uncounted = r#"{"ack":"committed","accepted":3,"rejected":[]}"#;
        for (status, header, body) in [
            (200, "committed", short),
            (200, "durable", durable),
            (202, "committed", durable),
            (202, "durable", "accepted"),
            (200, "committed", uncounted),
        ] {
            let reply = of(status, header, body);
            assert!(matches!(reply, Reply::Unknown(_)), "{body}");
        }
    }
}
