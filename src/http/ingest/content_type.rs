//! What a body is, by its Content-Type.
//!
//! Taken are the names under which clients send JSON. What is refused says why, as the body may be
//! fine and only the label wrong.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};

use crate::event::body::framing::Framing;
use crate::http::problem::Problem;

/// What nearly all senders write. It means what the way through all spellings makes of it, and takes
/// no time.
const USUAL: [(&str, Framing); 3] = [
    ("application/json", Framing::Json),
    ("application/x-ndjson", Framing::Lines),
    ("text/plain;charset=UTF-8", Framing::Either),
];

/// Characters of a refused value that the message repeats.
const TOLD_CHARS_MAX: usize = 80;

/// The framing of the body.
///
/// Several headers, or several values in one, count as one if they mean the same: proxies add what
/// they believe to be missing.
pub(super) fn framing(headers: &HeaderMap) -> Result<Framing, Problem> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    if let (Some(one), None) = (values.next(), values.next())
        && let Some((_, framing)) = USUAL.iter().find(|(usual, _)| one == usual)
    {
        return Ok(*framing);
    }
    let mut found: Option<(Framing, String)> = None;
    for value in headers.get_all(CONTENT_TYPE) {
        let value = String::from_utf8_lossy(value.as_bytes());
        for one in unquoted_split(&value, ',').map(str::trim) {
            if one.is_empty() {
                continue;
            }
            let framing = framing_of(one)?;
            match &found {
                Some((first, other)) if *first != framing => {
                    return Err(unsupported(format!(
                        "the request has the Content-Types {} and {}, which differ; send one",
                        told(other),
                        told(one)
                    )));
                }
                Some(_) => {}
                None => found = Some((framing, one.to_owned())),
            }
        }
    }
    // A beacon of an ArrayBuffer has no Content-Type.
    Ok(found.map_or(Framing::Either, |(framing, _)| framing))
}

/// The framing by one value, with its parameters.
fn framing_of(value: &str) -> Result<Framing, Problem> {
    let mut parts = unquoted_split(value, ';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let framing = framing_of_type(&media_type)?;
    for parameter in parts {
        let (name, charset) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !name.trim().eq_ignore_ascii_case("charset") {
            continue;
        }
        let charset = charset.trim().trim_matches(['"', '\'']).trim();
        // ASCII is UTF-8.
        let known = ["", "utf-8", "utf8", "us-ascii", "ascii"];
        if !known.iter().any(|name| charset.eq_ignore_ascii_case(name)) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_charset",
                format!(
                    "the charset {} in Content-Type is not taken; send the body in UTF-8",
                    told(charset)
                ),
            ));
        }
    }
    Ok(framing)
}

fn framing_of_type(media_type: &str) -> Result<Framing, Problem> {
    match media_type {
        "" | "text/plain" => return Ok(Framing::Either),
        // Spring's name for JSON lines.
        "application/stream+json" => return Ok(Framing::Lines),
        "application/x-www-form-urlencoded" => return Ok(Framing::Form),
        "multipart/form-data" => {
            return Err(unsupported(
                "multipart/form-data, which FormData is sent as, is not taken; send JSON, with Content-Type: application/json or, from a beacon, as text".to_owned(),
            ));
        }
        _ => {}
    }
    let (of, name) = media_type.split_once('/').unwrap_or_default();
    let is_text = matches!(of, "application" | "text");
    let is_named = |names: &[&str]| {
        let name = name.rsplit_once('+').map_or(name, |(_, suffix)| suffix);
        names.contains(&name.strip_prefix("x-").unwrap_or(name))
    };
    if name.ends_with("+json") || (is_text && is_named(&["json"])) {
        Ok(Framing::Json)
    } else if is_text && is_named(&LINES) {
        Ok(Framing::Lines)
    } else {
        Err(unsupported(format!(
            "the Content-Type {} is not taken; send application/json, application/x-ndjson (one event a line) or text/plain",
            told(media_type)
        )))
    }
}

/// The names of JSON lines, without `x-`.
const LINES: [&str; 7] = [
    "ndjson", "nd-json", "jsonl", "jsonlines", "json-lines", "json-l", "ldjson",
];

fn unsupported(detail: String) -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        detail,
    )
}

/// A value in quotes, as a message repeats it.
fn told(value: &str) -> String {
    let value: String = value
        .chars()
        .filter(|c| !c.is_control())
        .take(TOLD_CHARS_MAX)
        .collect();
    format!("'{value}'")
}

/// Splits at `separator` outside of quoted strings.
fn unquoted_split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match c {
            '"' if !was_escaped => is_quoted = !is_quoted,
            '\\' if is_quoted && !was_escaped => is_escaped = true,
            _ => {}
        }
        c == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(values: &[&str]) -> Result<Framing, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(CONTENT_TYPE, value);
        }
        framing(&headers).map_err(|problem| problem.detail().to_owned())
    }

    #[test]
    fn the_names_of_json_are_known() {
        use Framing::{Either, Form, Json, Lines};
        let cases: [(Framing, &[&str]); _] = [
            (Either, &["", " ", ",", ";charset=utf-8"]),
            (
                Either,
                &["text/plain", "text/plain;charset=UTF-8", "Text/Plain ; x=y"],
            ),
            (
                Json,
                &[
                    "application/json", "APPLICATION/JSON", " application/json\t;",
                ],
            ),
            (
                Json,
                &[
                    "application/json; charset=utf-8",
                    "application/json;charset=\"UTF-8\"",
                ],
            ),
            (
                Json,
                &["application/json; odata.metadata=minimal; charset=US-ASCII"],
            ),
            (
                Json,
                &["application/json; q=\"a,b;charset=latin1\\\";\"; charset=utf8"],
            ),
            (Json, &["text/json", "text/x-json", "application/x-json"]),
            (
                Json,
                &[
                    "application/vnd.api+json",
                    "application/ld+json; profile=x",
                    "model/x+json",
                ],
            ),
            (
                Lines,
                &[
                    "application/x-ndjson", "application/ndjson", "text/x-ndjson",
                ],
            ),
            (
                Lines,
                &["application/jsonl", "application/x-jsonl", "text/jsonl"],
            ),
            (
                Lines,
                &[
                    "application/jsonlines",
                    "application/x-jsonlines",
                    "text/x-jsonlines",
                ],
            ),
            (
                Lines,
                &[
                    "application/json-lines",
                    "application/x-json-lines",
                    "Text/JSON-Lines",
                ],
            ),
            (
                Lines,
                &[
                    "application/x-ldjson",
                    "application/vnd.x+jsonl",
                    "application/stream+json",
                ],
            ),
            (
                Form,
                &[
                    "application/x-www-form-urlencoded",
                    "application/x-www-form-urlencoded;charset=UTF-8",
                ],
            ),
        ];
        for (framing, values) in cases {
            for value in values {
                assert_eq!(read(&[value]), Ok(framing), "{value:?}");
            }
        }
        assert_eq!(read(&[]), Ok(Either));
    }

    #[test]
    fn the_usual_values_mean_what_they_mean_in_other_spellings() {
        for (usual, framing) in USUAL {
            assert_eq!(read(&[usual]), Ok(framing), "{usual}");
            assert_eq!(read(&[&format!(" {usual} ;")]), Ok(framing), "{usual}");
        }
    }

    #[test]
    fn several_headers_count_if_they_mean_the_same() {
        let json = "application/json";
        assert_eq!(read(&[json, json]), Ok(Framing::Json));
        assert_eq!(
            read(&["", "text/json; charset=utf-8, ", json]),
            Ok(Framing::Json)
        );
        let differs = read(&[json, "application/x-ndjson"]).unwrap_err();
        assert!(
            differs.contains("'application/json' and 'application/x-ndjson'"),
            "{differs}"
        );
        assert_eq!(
            read(&["application/json, text/plain"]).unwrap_err(),
            read(&[json, "text/plain"]).unwrap_err()
        );
    }

    #[test]
    fn what_is_refused_is_named() {
        for (value, named) in [
            ("text/html", "'text/html'"),
            ("application/jsonx", "'application/jsonx'"),
            ("application/json-seq", "'application/json-seq'"),
            ("image/json", "'image/json'"),
            ("json", "'json'"),
            ("*/*", "'*/*'"),
            ("application/jsön", "'application/jsön'"),
            ("application/json;charset=utf-16", "'utf-16'"),
            (
                "application/json; a=b; Charset = \"ISO-8859-1\"",
                "'ISO-8859-1'",
            ),
            ("text/plain;charset=windows-1252", "'windows-1252'"),
            ("multipart/form-data; boundary=x", "FormData"),
        ] {
            let detail = read(&[value]).unwrap_err();
            assert!(detail.contains(named), "{value}: {detail}");
        }
        let long = read(&[&"x".repeat(5000)]).unwrap_err();
        assert!(long.len() < 300, "{long}");
    }
}
