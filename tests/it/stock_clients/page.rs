//! Segment's library for pages, as its package has it, on a page of another origin in Chromium.

use std::path::Path;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use recsys_ingest::tenants::role::Role;
use serde_json::json;
use tokio::net::TcpListener;

use super::libraries::PAGE;
use super::trial::{Ordeal, Trial};
use crate::browser::chromium;
use crate::browser::devtools::Page;

/// The bundle in the package, which needs no others.
const BUNDLE: &str = "node_modules/@segment/analytics-next/dist/umd/index.js";

/// Serves a page with the library, and the library; returns its origin.
async fn site(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let bundle = std::fs::read_to_string(folder.join(BUNDLE)).unwrap();
    let script = async move || ([("content-type", "text/javascript")], bundle.clone());
    let html = "<!doctype html><title>shop</title><script src=analytics.js></script>";
    let site = Router::new()
        .route("/", get(async move || Html(html)))
        .route("/analytics.js", get(script));
    tokio::spawn(async move { drop(axum::serve(listener, site).await) });
    origin
}

/// Posts with the library to a service, in one of its ways: event by event, or in batches.
pub async fn post(trial: Trial, strategy: &str) {
    let Some(chromium) = chromium::find() else {
        return;
    };
    let Some(folder) = crate::harness::blocking(|| PAGE.install()) else {
        return;
    };
    let origin = site(&folder).await;
    let mut ordeal = Ordeal::begin(trial, Role::Publish, json!([origin])).await;
    let host = ordeal.url().replace("http://", "");
    let segment = json!({
        "apiKey": ordeal.secret, "apiHost": format!("{host}/v1"), "protocol": "http",
        "deliveryStrategy": {"strategy": strategy, "config": {"timeout": 500}},
    });
    let settings = json!({
        "writeKey": ordeal.secret,
        "cdnSettings": {"integrations": {"Segment.io": segment}, "metrics": {"sampleRate": 0}},
    });
    let mut page = Page::open(&chromium, &origin).await;
    let events = trial.events;
    page.eval(&format!(
        "window.analytics = AnalyticsNext.AnalyticsBrowser.load({settings});
         window.lost = [];
         analytics.on('error', error => lost.push(String(error.reason ?? error)));
         window.track = n => analytics.track('Product Clicked', {{
           product_id: `item-${{n}}`, position: n % 5, request_id: `r-${{n}}`, surface: 'home',
         }});
         analytics.ready().then(() => 0)"
    ))
    .await;
    ordeal.refuse().await;
    page.eval(&format!(
        "for (let n = 0; n < {events} / 2; n++) track(n);
         0"
    ))
    .await;
    ordeal.half().await;
    page.eval(&format!(
        "(async () => {{
           for (let n = {events} / 2; n < {events}; n++) {{
             track(n);
             if (n % ({events} / 40) === 0) await new Promise(done => setTimeout(done, 100));
           }}
         }})();
         0"
    ))
    .await;
    ordeal.restart().await;
    ordeal.end().await;
    assert_eq!(page.eval("lost").await, json!([]), "{strategy}");
    let forbidden: Vec<_> = page.complaints().to_vec();
    assert!(forbidden.is_empty(), "{strategy}: {forbidden:#?}");
}
