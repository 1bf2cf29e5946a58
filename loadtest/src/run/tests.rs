#![expect(
    clippy::disallowed_methods,
    reason = "a test's connections end with its runtime"
)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use indicatif::ProgressBar;
use tokio::net::TcpListener;

use super::{Job, Schedule};
use crate::generate::{Settings, test_settings};
use crate::report::Tally;
use crate::service::{Ack, Format};

/// What the service does with the next request.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answers,
    AnswersAfter(Duration),
    Refuses(u16),
    HangsUp,
}

/// A service that follows a script, and then answers.
async fn service(script: impl IntoIterator<Item = Does>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let script: Arc<Mutex<VecDeque<Does>>> = Arc::new(Mutex::new(script.into_iter().collect()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = Arc::clone(&script);
            let serve = service_fn(move |request: Request<hyper::body::Incoming>| {
                let next = script.lock().unwrap().pop_front().unwrap_or(Does::Answers);
                respond(request, next)
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(
                async move { drop(http.serve_connection(TokioIo::new(stream), serve).await) },
            );
        }
    });
    url
}

async fn respond(
    request: Request<hyper::body::Incoming>,
    does: Does,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    assert_eq!(request.headers()["content-type"], "application/x-ndjson");
    let body = request.into_body().collect().await?.to_bytes();
    let events = body
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .count();
    match does {
        Does::HangsUp => return Err("hanging up".into()),
        Does::Refuses(status) => {
            let problem = r#"{"code":"overloaded","request_id":"r"}"#;
            return Ok(Response::builder()
                .status(status)
                .header("retry-after", "0")
                .body(Full::from(problem))?);
        }
        Does::AnswersAfter(delay) => tokio::time::sleep(delay).await,
        Does::Answers => {}
    }
    let answer = format!(
        r#"{{"ack":"committed","accepted":{events},"rejected":[],"committed":{events},"duplicates":0,"quarantined":[]}}"#
    );
    Ok(Response::builder()
        .header("x-ingest-ack", "committed")
        .body(Full::from(answer))?)
}

/// Posts a thousand events in a hundred bodies.
async fn run(url: &str, schedule: Schedule) -> Tally {
    let settings = Settings {
        body_events: 10..=10,
        formats: vec![Format::Native],
        invalid: 0.0,
        ..test_settings()
    };
    let job = Arc::new(Job::new(settings, url, Ack::Committed, schedule, 10 << 20).unwrap());
    let made = job.make().await;
    job.post(made, &ProgressBar::hidden()).await.unwrap()
}

fn schedule() -> Schedule {
    Schedule {
        connections: 4,
        rate: None,
        retry: false,
        time_limit: Duration::from_secs(30),
    }
}

#[tokio::test]
async fn every_body_is_posted_once_and_entered_as_accepted() {
    let url = service([]).await;
    let pass = run(&url, schedule()).await;
    assert!(pass.finished);
    assert_eq!(pass.total().accepted, 1_000);
    assert_eq!(pass.bodies, 100);
    assert_eq!(pass.latency.len(), 100);
    assert_eq!(pass.accepted.len(), 100);
}

#[tokio::test]
async fn what_is_refused_or_lost_is_counted_and_not_taken_for_accepted() {
    let url = service([Does::Refuses(503), Does::Refuses(413), Does::HangsUp]).await;
    let pass = run(&url, schedule()).await;
    let total = pass.total();
    let counts = (total.accepted, total.refused, total.unknown);
    assert_eq!(counts, (970, 20, 10));
    assert_eq!(pass.reconnects, 1);
    assert_eq!(pass.accepted.len(), 97);
}

#[tokio::test]
async fn with_retries_what_is_refused_for_now_or_lost_is_posted_again() {
    let url = service([Does::Refuses(503), Does::HangsUp, Does::Refuses(429)]).await;
    let schedule = Schedule {
        retry: true,
        ..schedule()
    };
    let pass = run(&url, schedule).await;
    assert_eq!(pass.total().accepted, 1_000);
    assert_eq!(pass.retries, 3);
    assert_eq!(pass.refusals.len(), 2);
}

#[tokio::test]
async fn in_an_open_loop_a_stall_counts_for_all_that_were_due_during_it() {
    let stall = Duration::from_millis(400);
    let url = service([Does::AnswersAfter(stall)]).await;
    // One connection: bodies of ten events are due every 5 ms, 80 of them within the stall.
    let schedule = Schedule {
        connections: 1,
        rate: Some(2_000.0),
        ..schedule()
    };
    let pass = run(&url, schedule).await;
    assert!(pass.took >= Duration::from_millis(490), "{:?}", pass.took);
    let median = pass.latency.value_at_quantile(0.5);
    assert!(median > 50_000, "the median is {median} µs");
}

#[tokio::test]
async fn a_run_ends_at_its_time_limit() {
    let url = service([]).await;
    let schedule = Schedule {
        rate: Some(100.0),
        time_limit: Duration::from_millis(300),
        ..schedule()
    };
    let pass = run(&url, schedule).await;
    assert!(!pass.finished);
    assert!(pass.took < Duration::from_secs(3), "{:?}", pass.took);
}
