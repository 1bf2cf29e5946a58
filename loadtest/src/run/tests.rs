//! Passes against a service that follows a script.

#![expect(
    clippy::disallowed_methods,
    reason = "a test's service ends with its runtime"
)]

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use indicatif::ProgressBar;
use tokio::net::TcpListener;

use super::{Job, Schedule, Stop};
use crate::generate::{Settings, test_settings};
use crate::report::Tally;
use crate::service::{Ack, Format};

/// What the service does with the next request.
#[derive(Clone, Copy, Debug)]
enum Does {
    AnswersAfter(Duration),
    Refuses(u16),
    HangsUp,
}

/// Answers, or does what the script says.
async fn respond(headers: HeaderMap, body: Bytes, does: Option<Does>) -> Response {
    assert_eq!(headers["content-type"], "application/x-ndjson");
    match does {
        Some(Does::HangsUp) => {
            let broken = stream::iter([Err::<Bytes, _>("hanging up")]);
            return Response::new(Body::from_stream(broken));
        }
        Some(Does::Refuses(status)) => {
            let problem = r#"{"code":"overloaded","request_id":"r"}"#;
            let response = Response::builder()
                .status(status)
                .header("retry-after", "0");
            return response.body(problem.into()).unwrap();
        }
        Some(Does::AnswersAfter(delay)) => tokio::time::sleep(delay).await,
        None => {}
    }
    let events = body.iter().filter(|&&byte| byte == b'\n').count();
    let answer = format!(
        r#"{{"ack":"committed","accepted":{events},"rejected":[],"committed":{events},"duplicates":0,"quarantined":[]}}"#
    );
    let response = Response::builder().header("x-ingest-ack", "committed");
    response.body(answer.into()).unwrap()
}

/// Posts a thousand events in a hundred bodies.
async fn run(script: &[Does], change: impl FnOnce(&mut Schedule)) -> Tally {
    let script = Arc::new(Mutex::new(VecDeque::from(script.to_vec())));
    let router = Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
        respond(headers, body, script.lock().unwrap().pop_front())
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = Settings {
        body_events: 10..=10,
        formats: vec![Format::Native],
        invalid: 0.0,
        ..test_settings()
    };
    let mut schedule = Schedule {
        connections: 4,
        rate: None,
        retry: false,
        duration: None,
        stop: Stop::default(),
        time_limit: Duration::from_secs(30),
        ack: Ack::Committed,
        prepare_bytes: 10 << 20,
    };
    change(&mut schedule);
    let job = Arc::new(Job::new(settings, &url, schedule).unwrap());
    let progress = ProgressBar::hidden();
    job.post(job.make().await, &progress).await.unwrap()
}

#[tokio::test]
async fn every_body_is_counted_once_as_what_became_of_it_and_retried_if_that_was_asked_for() {
    let script = [Does::Refuses(503), Does::Refuses(413), Does::HangsUp];
    let passing = [Does::Refuses(503), Does::Refuses(429), Does::HangsUp];
    let cases: [(&[Does], bool, _, _, _); 3] = [
        (&[], false, [1_000, 0, 0], 0, 0),
        (&script, false, [970, 20, 10], 0, 1),
        (&passing, true, [1_000, 0, 0], 3, 1),
    ];
    for (script, retry, due, retries, reconnects) in cases {
        let pass = run(script, |schedule| schedule.retry = retry).await;
        let total = pass.total();
        assert_eq!([total.accepted, total.refused, total.unknown], due);
        assert_eq!((pass.retries, pass.reconnects), (retries, reconnects));
        assert_eq!(pass.accepted.len() as u64 * 10, total.accepted);
        assert_eq!((pass.unfinished, pass.bodies), (false, 100));
        assert_eq!(pass.latency.0.len() * 10, total.accepted);
    }
}

#[tokio::test]
async fn in_an_open_loop_a_stall_counts_for_all_that_were_due_during_it() {
    let stall = Duration::from_millis(400);
    // One connection: bodies of ten events are due every 5 ms, 80 of them within the stall.
    let open_loop = |schedule: &mut Schedule| {
        (schedule.connections, schedule.rate) = (1, Some(2_000.0));
    };
    let pass = run(&[Does::AnswersAfter(stall)], open_loop).await;
    assert!(pass.took >= Duration::from_millis(490), "{:?}", pass.took);
    let median = pass.latency.0.value_at_quantile(0.5);
    assert!(median > 50_000, "the median is {median} µs");
}

#[tokio::test]
async fn a_run_ends_at_its_time_limit_at_its_duration_and_when_it_is_told_to() {
    let short = Duration::from_millis(300);
    type Change = fn(&mut Schedule, Duration);
    let cases: [(Change, bool); 3] = [
        (|schedule, short| schedule.time_limit = short, true),
        (|schedule, short| schedule.duration = Some(short), false),
        (|schedule, _| schedule.stop.store(true, Relaxed), true),
    ];
    for (change, unfinished) in cases {
        let pass = run(&[], |schedule| {
            schedule.rate = Some(100.0);
            change(schedule, short);
        });
        let pass = pass.await;
        assert_eq!(pass.unfinished, unfinished);
        assert!(pass.bodies < 20, "{} bodies", pass.bodies);
    }
}
