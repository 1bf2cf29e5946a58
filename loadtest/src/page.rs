//! A report as one HTML file to look at: its JSON, and a script that draws it.
//!
//! Keeps one invariant: nothing is fetched from elsewhere, and no text of a report can
//! end the element that it stands in.

use serde_json::Value;

/// The page of a report; its `kind` says which one it is.
pub fn page(report: &Value) -> String {
    let json = report.to_string().replace('<', "\\u003c");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <style>\n{}</style>\n<main></main>\n<noscript>The figures are drawn by a script, which is in this file.</noscript>\n\
         <script type=\"application/json\" id=\"report\">{json}</script>\n<script>\n{}</script>\n</html>\n",
        include_str!("page/page.css"),
        include_str!("page/page.js")
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_page_draws_all_charts_needs_nothing_from_elsewhere_and_names_cannot_break_it() {
        let samples: Vec<Value> = serde_json::from_str(include_str!("page/samples.json")).unwrap();
        // Targets twice, rates twice, latency, CPU twice, WAL; the tries twice; the latency.
        let expected = [
            (8, "&lt;/script&gt;&lt;b&gt;&amp;"),
            (2, "not held: slow"),
            (1, "a &lt; b"),
        ];
        for (report, (charts, words)) in samples.iter().zip(expected) {
            let page = page(report);
            for foreign in ["//cdn", "src=", "href=", "@import", "url(", "</script><b>"] {
                assert!(!page.contains(foreign), "{foreign}");
            }
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("page.html");
            std::fs::write(&file, page).unwrap();
            let mut chromium = Command::new("chromium");
            chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]);
            let Ok(drawn) = chromium.arg(file).output() else {
                return println!("skipped: there is no Chromium");
            };
            let drawn = String::from_utf8(drawn.stdout).unwrap();
            let main = drawn.split("</main>").next().unwrap();
            assert_eq!(main.matches("<svg").count(), charts, "{main}");
            assert!(main.contains(words) && !main.contains("NaN"), "{main}");
        }
    }
}
