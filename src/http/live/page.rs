//! The files of the live page. They hold no data, so they need no key.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use crate::http::app::App;
use crate::http::routes::PAGE;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// uPlot 1.6.32, as its package on npm has it, with its licence, which has to be in all copies.
static UPLOT: LazyLock<Bytes> = LazyLock::new(|| {
    let (licence, script) = (include_str!("uplot.LICENSE"), include_str!("uplot.min.js"));
    format!("/*!\n{licence}*/\n{script}").into()
});

/// The routes of the page and its files.
pub(crate) fn routes() -> Router<Arc<App>> {
    let page = Bytes::from_static(include_bytes!("page.html"));
    let style = Bytes::from_static(include_bytes!("page.css"));
    let script = Bytes::from_static(include_bytes!("page.js"));
    let charts = Bytes::from_static(include_bytes!("uplot.min.css"));
    let fixed = |kind: &'static str, file: Bytes| {
        get(move || async move { ([(CONTENT_TYPE, kind)], file.clone()) })
    };
    Router::new()
        .route(PAGE, fixed(HTML, page))
        .route("/live/page.css", fixed(CSS, style))
        .route("/live/page.js", fixed(SCRIPT, script))
        .route("/live/uplot.css", fixed(CSS, charts))
        .route("/live/uplot.js", fixed(SCRIPT, UPLOT.clone()))
}
