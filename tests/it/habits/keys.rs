//! Where a key stands, and how it is written.

use base64::Engine as _;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;

use super::{Habits, Post};
use crate::harness::{Database, PEPPER, Service, key, texts};

const MISSING: (u16, &str) = (401, "missing_api_key");
const INVALID: (u16, &str) = (401, "invalid_api_key");

/// Header, value, answer, and a part of the reason.
type Case<'c> = (&'static str, &'c [u8], (u16, &'static str), &'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Absent,
    Blank,
    Wrong,
    Good,
}

use Given::{Absent, Blank, Good, Wrong};

const ALL: [Given; 4] = [Absent, Blank, Wrong, Good];

impl Given {
    fn key(self) -> String {
        match self {
            Absent => unreachable!("nothing is sent"),
            Blank => String::new(),
            Wrong => "wrong".to_owned(),
            Good => key("demo", Role::Ingest),
        }
    }
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test]
async fn a_key_that_is_blank_or_wrong_hides_no_good_one() {
    let mut habits = Habits::start().await;
    for own in ALL {
        for (scheme, authorization) in [("Bearer", Absent)].into_iter().chain(
            [Blank, Wrong, Good]
                .into_iter()
                .flat_map(|given| [("Bearer", given), ("Basic", given)]),
        ) {
            for query in ALL {
                let what =
                    format!("X-API-Key {own:?}, {scheme} {authorization:?}, ?key= {query:?}");
                let mut post = Post::of(&what).without("x-api-key");
                if own != Absent {
                    post = post.header("x-api-key", own.key());
                }
                if authorization != Absent {
                    let key = authorization.key();
                    post = post.header(
                        "authorization",
                        match scheme {
                            "Basic" => format!("Basic {}", base64(&format!("{key}:"))),
                            _ => format!("Bearer {key}"),
                        },
                    );
                }
                if query != Absent {
                    post = post.query(&format!("key={}", query.key()));
                }
                let given = [own, authorization, query];
                if given.contains(&Good) {
                    habits.takes(post, 1).await;
                    continue;
                }
                let answer = match given.contains(&Wrong) {
                    true => INVALID,
                    false => MISSING,
                };
                let reply = habits.refuses(post, answer).await;
                // A browser opens a dialog for this header.
                let is_basic = scheme == "Basic" && own != Wrong && query != Wrong;
                let challenge = reply.header("www-authenticate");
                assert_eq!(
                    challenge.starts_with("Basic realm="),
                    is_basic,
                    "{what}: {challenge}"
                );
                assert_eq!(challenge.is_empty(), !is_basic, "{what}: {challenge}");
            }
        }
    }
}

#[tokio::test]
async fn of_two_keys_that_exist_the_first_in_the_documented_order_counts() {
    let mut habits = Habits::start().await;
    let (demo, other) = (key("demo", Role::Ingest), key("other", Role::Ingest));
    let bearer = |key: &str| format!("Bearer {key}");
    for (what, post) in [
        (
            "header before bearer",
            Post::of("a").header("authorization", bearer(&other)),
        ),
        (
            "header before query",
            Post::of("b").query(&format!("key={other}")),
        ),
        (
            "bearer before query",
            Post::of("c")
                .without("x-api-key")
                .query(&format!("key={other}"))
                .header("authorization", bearer(&demo)),
        ),
    ] {
        habits.takes(post, 1).await;
        let client = habits.service.database.connect().await;
        let tenants =
            "SELECT DISTINCT external_id FROM tenants JOIN interaction_events ON tenant_id = id";
        assert_eq!(texts(&client, tenants).await, ["demo"], "{what}");
    }
}

#[tokio::test]
async fn a_key_is_taken_however_it_is_written() {
    // A key is any text.
    let database = Database::with_tenants().await;
    let hasher = ApiKeyHasher::new(PEPPER.as_bytes());
    for odd in ["a+b~?>/:é", "a+b c", "~?>"] {
        let hash = hasher.hash(odd).to_hex();
        database
            .execute(&format!(
                "INSERT INTO tenant_api_keys (tenant_id, key_hash, roles)
                 SELECT id, '{hash}', '{{ingest}}' FROM tenants WHERE external_id = 'demo'"
            ))
            .await;
    }
    let mut habits = Habits::on(Service::on(&database, |s| s).await);
    let good = key("demo", Role::Ingest);
    let basic = base64(&format!("{good}:"));
    let authorizations = [
        format!("Bearer {good}"),
        format!("bearer   {good}  "),
        format!("BEARER\t{good}"),
        format!("Basic {basic}"),
        format!("basic  {basic}"),
        format!("BASIC {}", basic.trim_end_matches('=')),
        format!("Basic {}", base64(&good)),
        format!("Basic {}", base64(&format!("{good}:password:more"))),
        // "~?>:" has signs that differ in the URL-safe alphabet.
        "Basic fj8+Og==".to_owned(),
        "Basic fj8-Og==".to_owned(),
        "bAsIc fj8-Og".to_owned(),
    ];
    for value in authorizations {
        let post = Post::of(&value)
            .without("x-api-key")
            .header("authorization", &value);
        habits.takes(post, 1).await;
    }
    for query in [
        format!("key={good}"),
        format!("key=%20{good}%20"),
        format!("key={}", good.replace('-', "%2D")),
        format!("key={}", good.replace('-', "%2d")),
        "key=a%2Bb~?%3E/:%C3%A9".to_owned(),
        "key=a+b~?%3E/:%c3%a9".to_owned(),
        "key=a%2Bb+c".to_owned(),
        "key=a%2Bb%20c".to_owned(),
        format!("ack=committed&key={good}"),
    ] {
        let post = Post::of(&query).without("x-api-key").query(&query);
        habits.takes(post, 1).await;
    }
}

#[tokio::test]
async fn what_is_not_a_key_is_refused_with_its_reason() {
    let mut habits = Habits::start().await;
    let long = "x".repeat(513);
    let cases: [Case<'_>; _] = [
        (
            "authorization", b"Digest username=\"x\"", MISSING, "Authorization: Bearer",
        ),
        ("authorization", b"Bearer", MISSING, "Authorization: Bearer"),
        ("authorization", b"", MISSING, "Authorization: Bearer"),
        ("authorization", b"Basic %%%", INVALID, "base64"),
        ("authorization", b"Basic /////w==", INVALID, "base64"),
        ("authorization", b"Bearer \xff", INVALID, "bytes"),
        ("x-api-key", b"k\xe9y", INVALID, "bytes"),
        ("x-api-key", long.as_bytes(), INVALID, "too long"),
        ("x-api-key", b"nobody's", INVALID, "no such API key"),
    ];
    for (n, (name, value, answer, reason)) in cases.into_iter().enumerate() {
        let what = format!("case {n}, {name}");
        let post = Post::of(&what).without("x-api-key").header(name, value);
        let reply = habits.refuses(post, answer).await;
        assert!(reply.text.contains(reason), "{what}: {}", reply.text);
        // None of them hides a good key.
        let post = Post::of(&what).without("x-api-key").header(name, value);
        let post = post.query(&format!("key={}", key("demo", Role::Ingest)));
        habits.takes(post, 1).await;
    }
    // A blank tenant header is none.
    for blank in ["", "  "] {
        habits
            .takes(
                Post::of(format!("tenant {blank:?}")).header("x-org-id", blank),
                1,
            )
            .await;
    }
}
