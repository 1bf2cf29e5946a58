//! The page of codes: what each means, and what to do.

use axum::body::Bytes;

use super::codes::{PROBLEM_KINDS, QUARANTINE_KINDS};
use crate::event::rejection::Code;
use crate::event::warning::WarningCode;

/// The page, made once. Each code is the id of its line, so that a problem can link to it.
pub(crate) fn page() -> Bytes {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>recsys-ingest: codes</title></head>\n<body>\n\
         <h1>Codes</h1>\n\
         <p>A program goes by <code>code</code>. The <code>type</code> of a problem is \
         <code>https://errors.recsys.example/problem/</code> and its code with hyphens: a name, as in the rest of the \
         suite, and no address. Its <code>help</code> leads here.</p>\n\
         <h2>A request that fails as a whole</h2>\n\
         <table><tr><th>code</th><th>status</th><th>meaning</th><th>what to do</th></tr>\n",
    );
    for kind in &PROBLEM_KINDS {
        let row = [
            code(kind.code),
            kind.status.to_string(),
            escaped(kind.meaning),
            escaped(kind.remedy),
        ];
        push_row(&mut page, kind.code, &row);
    }
    page.push_str(
        "</table>\n<h2>An event that is rejected</h2>\n\
         <p>The other events of the body are not affected. Correct the event: sending it again as it is changes nothing.</p>\n\
         <table><tr><th>code</th><th>meaning</th></tr>\n",
    );
    for rejection in Code::ALL {
        let name = rejection.as_str();
        // A few names stand for a request and for an event, too.
        let id = format!("event-{name}");
        push_row(
            &mut page,
            &id,
            &[code(name), escaped(rejection.description())],
        );
    }
    page.push_str(
        "</table>\n<h2>A warning about accepted events</h2>\n\
         <p>The events are taken; the warning says what was done to them that their sender may not expect.</p>\n\
         <table><tr><th>code</th><th>meaning</th></tr>\n",
    );
    for warning in WarningCode::ALL {
        let name = warning.as_str();
        // Some names stand for a rejection, too.
        let id = format!("warning-{name}");
        push_row(
            &mut page,
            &id,
            &[code(name), escaped(warning.description())],
        );
    }
    page.push_str(
        "</table>\n<h2>An event in quarantine</h2>\n\
         <p>It is kept, and stored once an operator has mended the cause. Do not send it again.</p>\n\
         <table><tr><th>code</th><th>meaning</th></tr>\n",
    );
    for (name, meaning) in QUARANTINE_KINDS {
        push_row(&mut page, name, &[code(name), escaped(meaning)]);
    }
    page.push_str("</table>\n</body></html>\n");
    page.into()
}

fn push_row(page: &mut String, id: &str, cells: &[String]) {
    page.push_str(&format!(
        "<tr id=\"{id}\"><td>{}</td></tr>\n",
        cells.join("</td><td>")
    ));
}

fn code(name: &str) -> String {
    format!("<code>{name}</code>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
