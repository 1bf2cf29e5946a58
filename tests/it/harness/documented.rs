//! Whether the description knows an answer: each status that any test sees is one of those that the
//! document lists for its operation.

use std::sync::OnceLock;

use reqwest::Method;
use serde_json::Value;

/// Fails if the document has the operation and not the status.
pub fn assert_documented(method: &Method, path: &str, status: u16) {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    let document = DOCUMENT.get_or_init(recsys_ingest::http::description);
    let path = path.split('?').next().unwrap();
    let method = method.as_str().to_ascii_lowercase();
    let operation = document["paths"]
        .get(path)
        .and_then(|path| path.get(&method));
    if let Some(operation) = operation {
        assert!(
            operation["responses"].get(status.to_string()).is_some(),
            "the description of {method} {path} does not list the status {status}"
        );
    }
}
