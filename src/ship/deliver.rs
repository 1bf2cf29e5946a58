//! Delivers the lines of a part until each has its verdict.
//!
//! Invariant: it ends with a verdict for every line, or with an error and none. What the service
//! refuses as a whole because of its bytes is halved until the line at fault stands alone.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Reply, Verdicts};
use super::batch::Part;
use super::client::{Client, Coding};
use super::line::Endpoint;
use super::rejects::Reason;
use super::status::{Status, Work, add};
use crate::backoff::Backoff;

/// Pauses between attempts, where the service does not say.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A Retry-After beyond it is taken for this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Time for an exchange to end once told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Most lines of a body for which the service tells the reason in full.
const TOLD_IN_FULL: usize = 100;

/// What a delivery ends for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Interrupted {
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
    /// Nothing helps until a person has changed something.
    #[error("{0}")]
    Fault(String),
}

/// Who delivers.
#[derive(Debug)]
pub(crate) struct Courier {
    pub(crate) client: Client,
    pub(crate) status: Arc<Status>,
    /// The query of a post.
    pub(crate) query: &'static str,
    pub(crate) coding: Coding,
    /// Whether a fault is waited out, or ends the delivery.
    pub(crate) is_patient: bool,
    pub(crate) stop: CancellationToken,
}

impl Courier {
    /// Delivers all lines; returns the numbers of those that are rejected, and why.
    pub(crate) async fn deliver(&self, part: &Part) -> Result<Vec<(usize, Reason)>, Interrupted> {
        let mut rejected = Vec::new();
        let mut work: Vec<Vec<usize>> = vec![(0..part.lines.len()).collect()];
        while let Some(lines) = work.pop() {
            let path = format!("{}?{}", part.endpoint.path(), self.query);
            match self.verdicts(part, &path, &lines).await? {
                Outcome::Told(verdicts) => {
                    add(&self.status.accepted, verdicts.accepted);
                    add(&self.status.duplicates, verdicts.duplicates);
                    add(&self.status.quarantined, verdicts.quarantined);
                    let told = verdicts.rejected.into_iter();
                    rejected.extend(told.map(|(number, reason)| (lines[number], reason)));
                    let summed_up = verdicts.summed_up.iter();
                    let summed_up: Vec<_> = summed_up
                        .map(|(number, code)| (lines[*number], code.clone()))
                        .collect();
                    for some in summed_up.chunks(TOLD_IN_FULL) {
                        let valid = self.ask_for_reasons(part, some, &mut rejected).await?;
                        if !valid.is_empty() {
                            work.push(valid);
                        }
                    }
                }
                Outcome::Split(fit, reason) => match *lines {
                    [line] => rejected.push((line, reason)),
                    _ => {
                        let at = fit.filter(|fit| (1..lines.len()).contains(fit));
                        let (first, second) = lines.split_at(at.unwrap_or(lines.len() / 2));
                        work.push(second.to_vec());
                        work.push(first.to_vec());
                    }
                },
                Outcome::NotTaken(reason) => {
                    rejected.extend(lines.iter().map(|line| (*line, reason.clone())));
                }
            }
        }
        rejected.sort_unstable_by_key(|(line, _)| *line);
        Ok(rejected)
    }

    /// Asks why lines are rejected of which only the code is known. Returns those that are valid by
    /// now.
    async fn ask_for_reasons(
        &self,
        part: &Part,
        summed_up: &[(usize, String)],
        rejected: &mut Vec<(usize, Reason)>,
    ) -> Result<Vec<usize>, Interrupted> {
        let lines: Vec<usize> = summed_up.iter().map(|(line, _)| *line).collect();
        let path = format!("{}?validate=true", part.endpoint.path());
        let Outcome::Told(verdicts) = self.verdicts(part, &path, &lines).await? else {
            let codes = summed_up.iter().cloned();
            rejected.extend(codes.map(|(line, code)| (line, by_code(&code))));
            return Ok(Vec::new());
        };
        let mut valid = vec![true; lines.len()];
        let told = verdicts.rejected.into_iter();
        let codes = verdicts.summed_up.iter();
        for (number, reason) in told.chain(codes.map(|(number, code)| (*number, by_code(code)))) {
            valid[number] = false;
            rejected.push((lines[number], reason));
        }
        let all = lines.iter().zip(valid);
        Ok(all
            .filter_map(|(line, valid)| valid.then_some(*line))
            .collect())
    }

    /// Posts until there is an answer that is about the lines.
    async fn verdicts(
        &self,
        part: &Part,
        path: &str,
        lines: &[usize],
    ) -> Result<Outcome, Interrupted> {
        let plain = part.body(lines);
        let mut coding = self.coding;
        let mut body = encoded(&plain, coding).await?;
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            add(&self.status.posts, 1);
            add(&self.status.sent_bytes, body.len() as u64);
            let stopping = async {
                self.stop.cancelled().await;
                tokio::time::sleep(STOP_GRACE).await;
            };
            let answer = tokio::select! {
                answer = self.client.post(path, coding, body.clone()) => answer,
                () = stopping => return Err(Interrupted::Stopped),
            };
            let reply = match answer {
                Ok(answer) if is_not_taken(part.endpoint, answer.status) => {
                    self.status.works(Work::Sending);
                    let message = "this version of the service does not take assignments; import the line again with one that does";
                    return Ok(Outcome::NotTaken(Reason::new("not_found", message)));
                }
                Ok(answer) => {
                    answer::read(answer.status, answer.retry_after, &answer.body, lines.len())
                }
                Err(error) => Reply::Retry {
                    after: None,
                    why: format!("{error:#}"),
                },
            };
            let (after, why, is_fault) = match reply {
                Reply::Verdicts(verdicts) => {
                    self.status.works(Work::Sending);
                    return Ok(Outcome::Told(verdicts));
                }
                Reply::Split { fit, reason } => {
                    self.status.works(Work::Sending);
                    return Ok(Outcome::Split(fit, reason));
                }
                Reply::SendPlain(reason) => {
                    if coding == Coding::Identity {
                        return Ok(Outcome::Split(None, reason));
                    }
                    coding = Coding::Identity;
                    body = plain.clone();
                    continue;
                }
                Reply::Retry { after, why } => (after, why, false),
                Reply::Fault(why) if self.is_patient => (None, why, true),
                Reply::Fault(why) => return Err(Interrupted::Fault(why)),
            };
            add(&self.status.retries, 1);
            self.status.fails(Work::Sending, &why, is_fault);
            let pause = backoff.pause();
            let pause = match after {
                // Spread, so that those who were told together do not come back together.
                Some(after) => after.min(RETRY_AFTER_MAX) + pause.min(after / 4),
                None => pause,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return Err(Interrupted::Stopped),
            }
        }
    }
}

/// What is known of lines after a post.
enum Outcome {
    Told(Verdicts),
    Split(Option<usize>, Reason),
    /// The service has no such endpoint.
    NotTaken(Reason),
}

/// Whether an older service is asked for what it does not have. The other endpoints are in every
/// version: there the URL is wrong.
fn is_not_taken(endpoint: Endpoint, status: u16) -> bool {
    endpoint == Endpoint::Assignments && matches!(status, 404 | 405)
}

fn by_code(code: &str) -> Reason {
    Reason::new(code, "the service gives the code alone")
}

async fn encoded(plain: &Bytes, coding: Coding) -> Result<Bytes, Interrupted> {
    if coding == Coding::Identity {
        return Ok(plain.clone());
    }
    let plain = plain.clone();
    let encoding = tokio::task::spawn_blocking(move || encode(&plain, coding));
    let encoded = encoding
        .await
        .context("compressing was interrupted")
        .flatten();
    encoded.map_err(|error| Interrupted::Fault(format!("{error:#}")))
}

fn encode(plain: &[u8], coding: Coding) -> Result<Bytes> {
    let encode = || match coding {
        Coding::Identity => Ok(plain.to_vec()),
        Coding::Zstd => zstd::bulk::compress(plain, 1),
        Coding::Gzip => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(plain)?;
            encoder.finish()
        }
    };
    encode().map(Bytes::from).context("cannot compress a body")
}
