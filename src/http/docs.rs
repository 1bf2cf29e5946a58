//! `/docs`: Swagger UI, which shows the description and tries it out.
//!
//! Its files come from the archive (a zip file) of a release, as the crate
//! `utoipa-swagger-ui-vendored` holds it. The crate `utoipa-swagger-ui`, which would serve them,
//! unpacks it while it is built, and compiles fifteen more crates for that.

use std::io::Read as _;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use flate2::read::DeflateDecoder;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

use super::app::App;
use super::problem::Problem;
use super::routes::DOCS;

/// The files that the page asks for, and their types.
const FILES: [(&str, &str); 7] = [
    ("index.html", "text/html; charset=utf-8"),
    ("index.css", "text/css; charset=utf-8"),
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    (
        "swagger-ui-standalone-preset.js",
        "text/javascript; charset=utf-8",
    ),
    ("favicon-16x16.png", "image/png"),
    ("favicon-32x32.png", "image/png"),
];

/// The script that says what to show; the archive's shows the description of a shop.
const INITIALIZER: &str = "swagger-initializer.js";

/// Without `validatorUrl` the page has a badge of another website, which is asked about the document.
const INITIALIZE: &str = r##"window.onload = () => {
  window.ui = SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    plugins: [SwaggerUIBundle.plugins.DownloadUrl],
    layout: "StandaloneLayout",
    validatorUrl: "none"
  });
};
"##;

/// The files, unpacked when the first of them is asked for (2 MiB), and then shared by all
/// responses: otherwise each unread one would hold a copy.
static UNPACKED: LazyLock<Vec<(&str, &str, Bytes)>> = LazyLock::new(|| {
    let unpack = |(name, kind)| Some((name, kind, Bytes::from(unpack(SWAGGER_UI_VENDORED, name)?)));
    FILES.into_iter().filter_map(unpack).collect()
});

/// The routes of the page and its files.
pub(super) fn routes() -> Router<Arc<App>> {
    let slash = format!("{DOCS}/");
    let file = format!("{DOCS}/{{*file}}");
    let redirect = Redirect::to(&slash);
    Router::new()
        .route(DOCS, get(move || async move { redirect.clone() }))
        .route(&slash, get(async || serve("index.html")))
        .route(
            &file,
            get(async |axum::extract::Path(file): axum::extract::Path<String>| serve(&file)),
        )
}

fn serve(file: &str) -> Response {
    if file == INITIALIZER {
        return (
            [(CONTENT_TYPE, "text/javascript; charset=utf-8")],
            INITIALIZE,
        )
            .into_response();
    }
    let found = UNPACKED.iter().find(|(name, ..)| *name == file);
    match found {
        Some((_, kind, bytes)) => ([(CONTENT_TYPE, *kind)], bytes.clone()).into_response(),
        None => Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "the description has no such file; see /docs",
        )
        .into_response(),
    }
}

/// The file `name` of the folder `dist` in an archive of one folder; `None` if there is no such
/// file, or none that can be read.
///
/// Reads what releases of Swagger UI have: files stored or deflated, below 4 GiB, not encrypted.
/// Source: APPNOTE.TXT, the description of ZIP, sections 4.3.7, 4.3.12 and 4.3.16.
fn unpack(archive: &[u8], name: &str) -> Option<Vec<u8>> {
    let end = archive
        .windows(4)
        .rposition(|bytes| bytes == b"PK\x05\x06")?;
    let mut at = number(archive, end + 16, 4)?;
    let path = format!("dist/{name}");
    while archive.get(at..at + 4)? == b"PK\x01\x02" {
        let long = |offset| number(archive, at + offset, 4);
        let short = |offset| number(archive, at + offset, 2);
        let (packed, unpacked, local) = (long(20)?, long(24)?, long(42)?);
        let name_ends = at + 46 + short(28)?;
        let stored = archive.get(at + 46..name_ends)?;
        if stored.splitn(2, |byte| *byte == b'/').nth(1) == Some(path.as_bytes()) {
            let from =
                local + 30 + number(archive, local + 26, 2)? + number(archive, local + 28, 2)?;
            let packed = archive.get(from..from + packed)?;
            let mut bytes = Vec::with_capacity(unpacked);
            match short(10)? {
                0 => bytes.extend_from_slice(packed),
                8 => {
                    DeflateDecoder::new(packed).read_to_end(&mut bytes).ok()?;
                }
                _ => return None,
            }
            return (bytes.len() == unpacked).then_some(bytes);
        }
        at = name_ends + short(30)? + short(32)?;
    }
    None
}

/// A number of `length` bytes, the lowest first.
fn number(archive: &[u8], at: usize, length: usize) -> Option<usize> {
    let bytes = archive.get(at..at + length)?;
    let number = bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | usize::from(*byte));
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_each_file_that_the_page_asks_for() {
        assert_eq!(UNPACKED.len(), FILES.len());
        let (.., page) = &UNPACKED[0];
        let page = std::str::from_utf8(page).unwrap();
        let asked: Vec<&str> = page
            .split('"')
            .filter(|word| {
                word.ends_with(".js") || word.ends_with(".css") || word.ends_with(".png")
            })
            .map(|word| word.trim_start_matches("./"))
            .collect();
        assert!(asked.len() > 5, "{page}");
        for file in asked {
            assert_eq!(serve(file).status(), 200, "{file}");
        }
        for missing in [
            "", "index", "swagger-ui.js", "../package.json", "dist/index.html",
        ] {
            assert_eq!(serve(missing).status(), 404, "{missing}");
        }
    }

    #[test]
    fn an_archive_that_ends_too_soon_has_no_file() {
        let whole = SWAGGER_UI_VENDORED;
        for (archive, what) in [
            (&whole[..whole.len() - 100], "without its end"),
            (&whole[whole.len() - 22..], "without its files"),
            (&whole[..0], "empty"),
        ] {
            assert_eq!(unpack(archive, "index.html"), None, "{what}");
        }
        assert_eq!(unpack(whole, "missing.html"), None);
    }
}
