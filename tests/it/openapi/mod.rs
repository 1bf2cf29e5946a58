//! Promise: the description says what the service does: its codes, statuses and bodies.

mod clients;
mod values;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use recsys_ingest::event::rejection::Code;
use recsys_ingest::event::warning::WarningCode;
use recsys_ingest::http::description;
use serde_json::{Value, json};

use crate::harness::{Service, blocking, click};

const EVENTS: [&str; 3] = ["/v1/exposures", "/v1/interactions", "/v1/assignments"];

/// The texts of a string array.
fn texts(array: &Value) -> BTreeSet<String> {
    let array = array
        .as_array()
        .unwrap_or_else(|| panic!("no array: {array}"));
    array
        .iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// Literals in the place of a code that are none.
const NO_CODES: [&str; 22] = [
    "copy", "database", "degraded", "false", "format", "key", "no", "nowhere", "off", "on",
    "other", "parent_id", "partial", "ready", "request", "strict", "trace_id", "true", "unknown",
    "unready", "validate", "yes",
];

/// The codes that a source file gives to problems: the literals like `not_found` that are an
/// argument before another one, or alone on their line before a comma.
fn codes_in(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap();
    let mut found = BTreeSet::new();
    let parts: Vec<&str> = code.split('"').collect();
    for n in (1..parts.len().saturating_sub(1)).step_by(2) {
        let (before, text, after) = (parts[n - 1], parts[n], parts[n + 1]);
        let begins = before.trim_end().ends_with(['(', ',']);
        let goes_on = after.trim_start().starts_with(',');
        let is_name = text.len() > 1
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if begins && goes_on && is_name && !NO_CODES.contains(&text) {
            found.insert(text.to_owned());
        }
    }
    found
}

fn sources(folder: &Path, skip: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            found.extend(sources(&path, skip));
        } else if name.ends_with(".rs") && !skip.contains(&name) {
            found.extend(codes_in(&fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

#[test]
fn a_code_is_found_wherever_it_stands_in_a_call() {
    let source = r#"new(S, "one_code", "words"); x("two_code",
        d) => ("three_code", w) Problem::new(
            S,
            "four_code",
            "x_y z"); header("no_code") a => "no_label", #[cfg(test)] f("no_test", 1)"#;
    let found: Vec<_> = codes_in(source).into_iter().collect();
    assert_eq!(found, ["four_code", "one_code", "three_code", "two_code"]);
}

#[tokio::test]
async fn every_code_of_the_source_stands_in_the_document_and_on_the_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let given = sources(
        &folder,
        &["codes.rs", "operations.rs", "openapi.rs", "reload.rs"],
    );
    assert!(given.len() > 30, "{given:?}");
    let document = description();
    let schemas = &document["components"]["schemas"];
    let told = texts(&schemas["ProblemBody"]["properties"]["code"]["enum"]);
    assert_eq!(given, told, "src/http/codes.rs lists the codes of src/http");
    let rejections: BTreeSet<_> = Code::ALL
        .iter()
        .map(|code| code.as_str().to_owned())
        .collect();
    let told = texts(&schemas["RejectedEvent"]["properties"]["code"]["enum"]);
    assert_eq!(rejections, told);

    let service = Service::start().await;
    let page = service.client().get("/problems").await;
    assert!(page.header("content-type").starts_with("text/html"));
    for code in &given {
        assert!(page.text.contains(&format!("<tr id=\"{code}\">")), "{code}");
    }
    for code in rejections
        .iter()
        .map(String::as_str)
        .chain(["IN001", "IN002", "IN003"])
    {
        assert!(
            page.text.contains(&format!("<code>{code}</code>")),
            "{code}"
        );
    }
    for code in WarningCode::ALL.map(WarningCode::as_str) {
        let line = format!("<tr id=\"warning-{code}\"><td><code>{code}</code>");
        assert!(page.text.contains(&line), "{code}");
    }
    // A problem leads to its line.
    let wrong = service.client().header("x-api-key", "wrong");
    let reply = wrong.post("/v1/interactions", &click("a")).await;
    assert_eq!(reply.json["help"], "/problems#invalid_api_key");
    let kind = "https://errors.recsys.example/problem/invalid-api-key";
    assert_eq!(reply.json["type"], kind, "the contract's form");
    let (path, anchor) = reply.json["help"]
        .as_str()
        .unwrap()
        .split_once('#')
        .unwrap();
    let page = service.client().get(path).await;
    assert!(page.text.contains(&format!("id=\"{anchor}\"")));
    // The document that is served is the one that is tested.
    assert_eq!(service.client().get("/openapi.json").await.json, document);
}

#[tokio::test]
async fn every_example_of_the_document_is_taken_on() {
    let service = Service::start().await;
    let document = description();
    let mut tried = 0;
    for path in EVENTS {
        let content = &document["paths"][path]["post"]["requestBody"]["content"];
        for (kind, content) in content.as_object().unwrap() {
            for (name, example) in content["examples"].as_object().unwrap() {
                let body = match &example["value"] {
                    Value::String(text) => text.clone(),
                    json => json.to_string(),
                };
                let client = service.client().header("content-type", kind);
                let reply = client.post_bytes(path, body).await;
                let (committed, ..) = reply.settled();
                assert!(committed > 0, "{path} {kind} {name}: {}", reply.text);
                assert_eq!(reply.json["rejected"], serde_json::json!([]), "{name}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_description_works_in_a_browser_under_its_own_policy() {
    let service = Service::start().await;
    let profile = tempfile::tempdir().unwrap();
    let output = blocking(|| {
        std::process::Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--enable-logging=stderr",
            ])
            .args(["--virtual-time-budget=20000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("http://{}/docs/", service.client().address))
            .output()
    });
    let Ok(output) = output else {
        println!("skipped: there is no chromium");
        return;
    };
    let page = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    for path in EVENTS {
        assert!(
            page.contains("opblock-summary-path") && page.contains(path),
            "{page}\n{log}"
        );
    }
    assert!(!log.contains("Content Security Policy"), "{log}");
}

#[test]
fn the_question_of_a_browser_is_described_wherever_events_are_posted() {
    let document = description();
    let mut found = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        assert_eq!(
            methods.get("options").is_some(),
            methods.get("post").is_some(),
            "{path}"
        );
        let Some(options) = methods.get("options") else {
            continue;
        };
        found += 1;
        assert_eq!(options["security"], json!([]), "{path}: it carries no key");
        let responses = &options["responses"];
        let allowed = &responses["204"]["headers"]["Access-Control-Allow-Origin"];
        assert!(allowed.is_object(), "{path}: {responses}");
        for (status, code) in [("403", "origin_not_allowed"), ("503", "keys_unavailable")] {
            let told = responses[status]["description"].as_str().unwrap();
            assert!(told.contains(code), "{path}: {told}");
        }
    }
    assert_eq!(found, 11);
    for path in EVENTS {
        let body = &document["paths"][path]["post"]["requestBody"];
        let told = body["description"].as_str().unwrap();
        assert!(told.contains("application/x-www-form-urlencoded"), "{told}");
        // There, generated clients would encode events as a form.
        let kinds: Vec<_> = body["content"].as_object().unwrap().keys().collect();
        assert_eq!(kinds.len(), 3, "{kinds:?}");
    }
}

#[test]
fn every_way_to_send_a_key_is_enough_wherever_a_key_is_asked_for() {
    let document = description();
    let schemes = document["components"]["securitySchemes"]
        .as_object()
        .unwrap();
    let schemes: BTreeSet<&str> = schemes.keys().map(String::as_str).collect();
    let expected = BTreeSet::from(["api_key", "basic", "bearer", "query_key"]);
    assert_eq!(schemes, expected);
    for security in [
        &document["security"],
        &document["paths"]["/live"]["get"]["security"],
    ] {
        let ways = security.as_array().unwrap().iter();
        let named = ways.flat_map(|way| way.as_object().unwrap().keys());
        let named: BTreeSet<&str> = named.map(String::as_str).collect();
        assert_eq!(named, schemes);
    }
}

#[test]
fn the_document_names_framings_choices_times_and_security_once() {
    let document = description();
    let schemas = &document["components"]["schemas"];
    for (path, event) in [(EVENTS[0], "Exposure"), (EVENTS[1], "Interaction")] {
        let post = &document["paths"][path]["post"];
        assert_eq!(post.get("security"), None, "it stands at the top");
        let body = &post["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(body, &format!("#/components/schemas/{event}Body"));
        let json = &schemas[format!("{event}Body")]["oneOf"];
        let names: Vec<_> = json
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["$ref"].as_str().unwrap())
            .collect();
        let named = |suffix| format!("#/components/schemas/{event}{suffix}");
        assert_eq!(names, [named(""), named("List"), named("Batch")]);
        let event = &schemas[event]["properties"];
        assert_eq!(event["occurred_at"]["format"], "date-time");
        assert_eq!(event["event_id"]["maxLength"], 200);
        for hash in ["user_id_hash", "anonymous_id_hash", "session_id_hash"] {
            assert_eq!(event[hash]["pattern"], "^[0-9a-fA-F]{64}$", "{hash}");
            // A raw id may stand beside its hash: src/event/unknown/tests.rs.
            let description = event[hash]["description"].as_str().unwrap();
            assert!(!description.contains("Not together"), "{description}");
        }
        let parameter = |name: &str| {
            let all = post["parameters"].as_array().unwrap();
            let found: Vec<_> = all.iter().filter(|one| one["name"] == name).collect();
            assert_eq!(found.len(), 1, "{name} stands once");
            found[0].clone()
        };
        let acks = texts(&parameter("ack")["schema"]["enum"]);
        assert_eq!(acks.len(), 3);
        assert!(texts(&parameter("format")["schema"]["enum"]).contains("native"));
        for name in ["X-Request-Id", "X-Org-Id", "Content-Encoding"] {
            assert_eq!(parameter(name)["in"], "header");
        }
        for status in [
            "200", "202", "400", "401", "403", "404", "405", "408", "413", "415", "422", "431",
            "500", "501", "503",
        ] {
            assert!(
                post["responses"][status]["description"].is_string(),
                "{status}"
            );
        }
        assert!(post["responses"]["503"]["headers"]["Retry-After"].is_object());
        assert!(post["responses"]["202"]["headers"]["X-Ingest-Ack"].is_object());
        for name in ["Retry-After", "RateLimit", "RateLimit-Policy"] {
            let headers = &post["responses"]["429"]["headers"];
            assert!(headers[name].is_object(), "{name}: {headers}");
        }
    }
    // What ?validate=true answers is described, too.
    for enum_ in [
        &schemas["Answer"]["properties"]["ack"]["enum"],
        &document["components"]["headers"]["X-Ingest-Ack"]["schema"]["enum"],
    ] {
        assert!(texts(enum_).contains("none"), "{enum_}");
    }
    let types = texts(&schemas["Interaction"]["properties"]["event_type"]["enum"]);
    assert!(types.contains("purchase") && types.contains("conversion"));
    // Nothing refers to what is not there.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}
