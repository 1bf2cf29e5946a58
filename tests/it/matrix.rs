//! Which role may do what, for its own tenant and for another: every combination.

use axum::http::Method;
use recsys_ingest::tenants::role::Role;
use serde_json::Value;

use crate::harness::{Client, OTHER, Service, click, one, shown};

/// Makes an event with that id.
type Event = fn(&str) -> Value;

/// How a request names a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Nobody,
    OwnInHeader,
    OtherInHeader,
    AsleepInHeader,
    OwnInEvent,
    OtherInEvent,
    AsleepInEvent,
}

const NAMES: [Names; 7] = [
    Names::Nobody,
    Names::OwnInHeader,
    Names::OtherInHeader,
    Names::AsleepInHeader,
    Names::OwnInEvent,
    Names::OtherInEvent,
    Names::AsleepInEvent,
];

/// The roles, and a request without a key, and one with a key that nobody has.
fn callers() -> Vec<(String, Option<Role>, Option<&'static str>)> {
    let roles = Role::ALL.into_iter();
    let mut callers: Vec<_> = roles
        .map(|role| (role.name().to_owned(), Some(role), None))
        .collect();
    callers.push(("no key".to_owned(), None, None));
    callers.push(("unknown key".to_owned(), None, Some("nobody's")));
    callers
}

/// The status and code that a post has to be answered with; 200 stores one event.
fn expected(path: &str, role: Option<Role>, names: Names) -> (u16, &'static str) {
    let may_post = match role {
        None => return (401, ""),
        Some(Role::Ingest | Role::Service) => true,
        Some(Role::Publish) => path == "/v1/interactions",
        Some(Role::Viewer | Role::Operator | Role::Admin) => false,
    };
    if !may_post {
        return (403, "role_not_allowed");
    }
    match (names, role == Some(Role::Service)) {
        (Names::Nobody | Names::OwnInHeader | Names::OwnInEvent, _) => (200, ""),
        (Names::OtherInHeader | Names::OtherInEvent, true) => (200, ""),
        (Names::AsleepInHeader, true) => (403, "tenant_not_active"),
        (Names::AsleepInEvent, true) => (422, "tenant_not_active"),
        (Names::OtherInHeader | Names::AsleepInHeader, false) => (403, "tenant_mismatch"),
        (Names::OtherInEvent | Names::AsleepInEvent, false) => (422, "tenant_mismatch"),
    }
}

#[tokio::test]
async fn every_role_may_do_what_it_is_for_and_nothing_else() {
    let service = Service::start().await;
    let plain = service.client().without("x-api-key");
    let events: [(&str, Event, &str); 2] = [
        ("/v1/interactions", click, "interaction_events"),
        ("/v1/exposures", shown, "exposure_events"),
    ];
    let client = service.database.connect().await;
    let mut n = 0;
    for (path, event, table) in events {
        let mut stored = [0_i64; 2];
        for (caller, role, key) in callers() {
            for names in NAMES {
                n += 1;
                let mut sender: Client = match (role, key) {
                    (Some(role), _) => plain.role("demo", role),
                    (None, Some(key)) => plain.header("x-api-key", key),
                    (None, None) => plain.clone(),
                };
                let mut event = event(&format!("e{n}"));
                match names {
                    Names::Nobody => {}
                    Names::OwnInHeader => sender = sender.header("x-org-id", "demo"),
                    Names::OtherInHeader => sender = sender.header("x-org-id", "other"),
                    Names::AsleepInHeader => sender = sender.header("x-org-id", "asleep"),
                    Names::OwnInEvent => event["tenant_id"] = "demo".into(),
                    Names::OtherInEvent => event["tenant_id"] = OTHER.to_string().into(),
                    Names::AsleepInEvent => event["tenant_id"] = "asleep".into(),
                }
                let reply = sender.post(path, &event).await;
                let (status, code) = expected(path, role, names);
                assert_eq!(
                    reply.status, status,
                    "{caller} {path} {names:?}: {}",
                    reply.text
                );
                assert!(
                    reply.text.contains(code),
                    "{caller} {path} {names:?}: {}",
                    reply.text
                );
                if status == 200 {
                    let is_other = matches!(names, Names::OtherInHeader | Names::OtherInEvent);
                    stored[usize::from(is_other)] += 1;
                }
            }
        }
        for (of_other, sign) in [(0, "<>"), (1, "=")] {
            let sql = format!("SELECT count(*) FROM {table} WHERE tenant_id {sign} '{OTHER}'");
            assert_eq!(one::<i64>(&client, &sql).await, stored[of_other], "{sql}");
        }
    }
    // What is for operators and probes asks for no key, and no key changes what it says.
    for (caller, role, key) in callers() {
        let sender = match (role, key) {
            (Some(role), _) => plain.role("demo", role),
            (None, Some(key)) => plain.header("x-api-key", key),
            (None, None) => plain.clone(),
        };
        for path in [
            "/healthz", "/readyz", "/readyz?verbose", "/metrics", "/openapi.json", "/docs/",
            "/problems", "/", "/live/page.css", "/live/page.js", "/live/uplot.css",
            "/live/uplot.js",
        ] {
            assert_eq!(sender.get(path).await.status, 200, "{caller} {path}");
            for method in [Method::POST, Method::PUT, Method::DELETE] {
                let status = sender.send(method.clone(), path, Vec::new()).await.status;
                assert!(
                    (404..=405).contains(&status),
                    "{caller} {method} {path}: {status}"
                );
            }
        }
        // What the service does now is for the roles of the suite's administration.
        let looks = match role {
            None => 401,
            Some(Role::Viewer | Role::Operator | Role::Admin) => 200,
            Some(Role::Ingest | Role::Service | Role::Publish) => 403,
        };
        for path in ["/live", "/live/", "/live?after=7", "/live?only=bodies"] {
            let reply = sender.get(path).await;
            assert_eq!(reply.status, looks, "{caller} {path}: {}", reply.text);
            assert_eq!(reply.json.get("bodies").is_some(), looks == 200);
        }
        assert_eq!(sender.post("/live", &Value::Null).await.status, 405);
        for path in [
            "/v1/tenants",
            "/v1/keys",
            "/v1/admin/tenants/demo/config",
            "/admin",
        ] {
            assert_eq!(sender.get(path).await.status, 404, "{caller} {path}");
        }
        for path in ["/v1/interactions", "/v1/exposures"] {
            for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
                let status = sender.send(method.clone(), path, Vec::new()).await.status;
                assert_eq!(status, 405, "{caller} {method} {path}");
            }
        }
    }
}
