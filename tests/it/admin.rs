//! Tenants and keys are administered by commands; each change is noted in `audit_log`.

use serde_json::{Value, json};

use crate::harness::{DEMO, Database, PEPPER, Service, click, eventually, one, texts};

/// Runs a command of the program. Returns its exit code, standard output and standard error.
fn cli(database: &Database, arguments: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(arguments)
        .env("DATABASE_URL", database.url())
        .env("API_KEY_HASH_SECRET", PEPPER)
        .env("INGEST_ACTOR", "the tests")
        .output()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Runs a command that has to succeed, and reads its JSON.
fn document(database: &Database, arguments: &[&str]) -> Value {
    let (code, out, err) = cli(database, &[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
}

/// Runs a command that has to be refused, by its words or when it is carried out, and returns what
/// is said.
fn refused(database: &Database, arguments: &[&str]) -> String {
    let (code, out, err) = cli(database, arguments);
    assert!([1, 2].contains(&code), "{code} {arguments:?}: {out}{err}");
    err
}

#[tokio::test]
async fn every_change_is_made_with_its_row_in_the_audit_log() {
    let database = Database::migrated().await;
    let run = |arguments: &[&str]| document(&database, arguments);

    let shop = run(&["tenants", "create", "shop", "--name", "The Shop"]);
    assert_eq!(
        (shop["external_id"].as_str(), shop["status"].as_str()),
        (Some("shop"), Some("active"))
    );
    assert_eq!(run(&["tenants", "suspend", "shop"])["changed"], true);
    assert_eq!(run(&["tenants", "suspend", "shop"])["changed"], false);
    assert_eq!(run(&["tenants", "activate", "shop"])["status"], "active");
    let set = run(&[
        "tenants", "set", "shop", "--events-per-second", "500", "--events-burst", "2000",
        "--origin", "https://*.shop.example", "--event-name", "Product Viewed=view", "--surface",
        "home", "--surface", "product",
    ]);
    let settings = json!({
        "limits": {"events_per_second": 500, "events_burst": 2000},
        "origins": ["https://*.shop.example"],
        "event_names": {"Product Viewed": "view"}, "surfaces": ["home", "product"],
    });
    assert_eq!(set["settings"], settings);
    assert_eq!(
        run(&[
            "tenants", "set", "shop", "--surface", "home", "--surface", "product"
        ])["changed"],
        false
    );
    assert_eq!(run(&["tenants", "show", "shop"])["settings"], settings);
    // What is said twice alike is said once.
    assert_eq!(
        run(&[
            "tenants", "set", "shop", "--event-name", "Product Viewed=view", "--event-name",
            "Product Viewed=view", "--surface", "home", "--surface", "product", "--surface",
            "home",
        ])["changed"],
        false
    );
    let cleared = run(&[
        "tenants", "set", "shop", "--no-limits", "--default-origins", "--no-event-names",
        "--any-surface",
    ]);
    assert_eq!(cleared["settings"], json!({}));

    let key = run(&[
        "keys", "create", "shop", "--role", "ingest", "--name", "backend", "--bytes-per-second",
        "1MiB", "--expires-in", "90d",
    ]);
    let id = key["id"].as_str().unwrap().to_owned();
    let secret = key["secret"].as_str().unwrap().to_owned();
    assert_eq!(
        run(&[
            "keys", "grant", &id, "--role", "viewer", "--events-per-second", "10"
        ])["changed"],
        true
    );
    assert_eq!(
        run(&["keys", "grant", &id, "--role", "viewer"])["changed"],
        false
    );
    let listed = run(&["keys", "list", "--tenant", "shop"]);
    assert_eq!(listed[0]["roles"], json!(["ingest", "viewer"]));
    assert_eq!(
        listed[0]["settings"],
        json!({"limits": {"events_per_second": 10, "bytes_per_second": 1_048_576}})
    );
    assert_eq!(listed[0]["state"], "active");
    assert_eq!(listed[0]["last_used_at"], Value::Null);
    let rotated = run(&["keys", "rotate", &secret[..8], "--grace", "0s"]);
    let new = rotated["id"].as_str().unwrap().to_owned();
    assert_eq!(run(&["keys", "revoke", &new])["changed"], true);
    assert_eq!(run(&["keys", "revoke", &new])["changed"], false);
    let listed = run(&["keys", "list"]);
    let states: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["expired", "revoked"]);
    assert_eq!(listed[1]["roles"], json!(["ingest", "viewer"]));
    assert_eq!(listed[1]["settings"], listed[0]["settings"]);
    assert_eq!(listed[1]["name"], "backend");

    let client = database.connect().await;
    let noted = texts(
        &client,
        "SELECT action || ' ' || entity_type || ' ' || actor_sub || ' ' || actor_type
           FROM audit_log ORDER BY id",
    )
    .await;
    let expected: Vec<String> = [
        "tenant.create tenant",
        "tenant.suspend tenant",
        "tenant.activate tenant",
        "tenant.settings.update tenant",
        "tenant.settings.update tenant",
        "api_key.create api_key",
        "api_key.grant api_key",
        "api_key.rotate api_key",
        "api_key.revoke api_key",
    ]
    .iter()
    .map(|what| format!("{what} the tests cli"))
    .collect();
    assert_eq!(noted, expected);
    let new_secret = rotated["secret"].as_str().unwrap();
    let leaks: i64 = one(
        &client,
        &format!(
            "SELECT count(*) FROM audit_log AS a
              WHERE a::text LIKE '%{secret}%' OR a::text LIKE '%{new_secret}%'
                 OR EXISTS (SELECT 1 FROM tenant_api_keys AS k
                             WHERE a::text LIKE '%' || k.key_hash || '%')"
        ),
    )
    .await;
    assert_eq!(leaks, 0);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_leaves_nothing() {
    let database = Database::migrated().await;
    let run = |arguments: &[&str]| document(&database, arguments);
    run(&["tenants", "create", "shop"]);
    let publish = run(&[
        "keys", "create", "shop", "--role", "publish", "--origin", "https://shop.example",
    ]);
    let publish = publish["id"].as_str().unwrap();
    let ingest = run(&["keys", "create", "shop", "--role", "ingest"]);
    let ingest = ingest["id"].as_str().unwrap();
    let client = database.connect().await;
    let noted: i64 = one(&client, "SELECT count(*) FROM audit_log").await;
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let blank_name = &*file("blank.json", r#"{"event_names": {" ": "view"}}"#);
    let padded_name = &*file("padded.json", r#"{"event_names": {" a": "view"}}"#);
    let slash = &*file("slash.json", r#"{"surfaces": ["home", "a/b"]}"#);
    let long = &*"x".repeat(513);
    let array = &*file("array.json", "[]");
    let two_types = r#"{"event_names": {"A": "click", "B": "view", "A": "view"}}"#;
    let two_types = &*file("two.json", two_types);
    for (arguments, words) in [
        (&["tenants", "create", "shop"][..], "exists already"),
        (&["tenants", "create", "a/b"], "slash"),
        (&["tenants", "suspend", "nobody"], "no tenant"),
        (
            &["tenants", "set", "shop", "--event-name", "a=watch"],
            "is one of",
        ),
        (
            &["tenants", "set", "shop", "--event-name", "  =view"],
            "it has to be a name",
        ),
        (
            &["tenants", "set", "shop", "--surface", ""],
            "a surface in the list is blank",
        ),
        (
            &[
                "tenants", "set", "shop", "--surface", "home", "--surface", " ",
            ],
            "a surface in the list is blank",
        ),
        (
            &["tenants", "set", "shop", "--surface", "a/b"],
            "no event can have the surface \"a/b\": it must not be '.' or '..'",
        ),
        (
            &["tenants", "set", "shop", "--surface", ".."],
            "no event can have the surface",
        ),
        (
            &["tenants", "set", "shop", "--surface", "a\tb"],
            "control characters",
        ),
        (
            &["tenants", "set", "shop", "--surface", long],
            "has 513 bytes, and the most that an event's has is 512",
        ),
        (
            &["tenants", "set", "shop", "--settings", slash],
            "no event can have the surface",
        ),
        (
            &["tenants", "set", "shop", "--settings", blank_name],
            "a blank name",
        ),
        (
            &["tenants", "set", "shop", "--settings", padded_name],
            "white space around it",
        ),
        (
            &["tenants", "create", "other", "--name", "two\nlines"],
            "a name is one line",
        ),
        (
            &[
                "keys", "create", "shop", "--role", "ingest", "--name", "a\tb",
            ],
            "a name is one line",
        ),
        (
            &["keys", "rotate", ingest, "--grace", "9000y"],
            "the year 9999",
        ),
        (
            &["tenants", "set", "shop", "--settings", array],
            "not a JSON object",
        ),
        (
            &["tenants", "set", "shop", "--settings", two_types],
            "'A' is mapped to 'click' and to 'view'",
        ),
        (
            &[
                "tenants", "set", "shop", "--event-name", "A=click", "--event-name", " A =view",
            ],
            "'A' is mapped to 'click' and to 'view'",
        ),
        (
            &[
                "tenants", "set", "shop", "--origin", "https://a.example", "--no-origins",
            ],
            "cannot be used with",
        ),
        (
            &[
                "keys", "grant", ingest, "--role", "viewer", "--without-role", "viewer",
            ],
            "--role viewer and --without-role viewer",
        ),
        (
            &["tenants", "set", "shop", "--events-burst", "5"],
            "events_per_second",
        ),
        (
            &["tenants", "set", "shop", "--events-per-second", "0"],
            "a whole number from 1 to 4294967295",
        ),
        (
            &["tenants", "set", "shop", "--events-per-second", "many"],
            "a whole number from 1 to 4294967295",
        ),
        (
            &["tenants", "set", "shop", "--bytes-per-second", "1.5"],
            "a size is like 64KiB",
        ),
        (
            &["tenants", "set", "shop", "--bytes-per-second", "4GiB"],
            "less than 4 GiB",
        ),
        (
            &[
                "keys", "create", "shop", "--role", "ingest", "--expires-at", "soon",
            ],
            "such as 2027-01-31T00:00:00Z",
        ),
        (
            &[
                "keys", "create", "shop", "--role", "ingest", "--expires-in", "soon",
            ],
            "a time is like",
        ),
        (
            &[
                "keys", "create", "shop", "--role", "ingest", "--expires-in", "9000y",
            ],
            "the year 9999",
        ),
        (
            &["tenants", "set", "shop", "--settings", "/nowhere/x.json"],
            "/nowhere/x.json",
        ),
        (
            &["keys", "create", "nobody", "--role", "ingest"],
            "no tenant",
        ),
        (
            &[
                "keys", "create", "shop", "--role", "publish", "--role", "ingest",
            ],
            "no other role",
        ),
        (
            &["keys", "grant", ingest, "--role", "publish"],
            "keys create --role publish",
        ),
        (
            &["keys", "grant", publish, "--role", "ingest"],
            "public hands",
        ),
        (&["keys", "revoke", "rik_zzzz"], "no API key"),
        (&["keys", "rotate", "rik_"], "no API key"),
    ] {
        let said = refused(&database, arguments);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let (code, _, said) = cli(
        &database,
        &[
            "keys", "create", "shop", "--role", "publish", "--origin", "shop.example",
        ],
    );
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("'shop.example' is not an origin"), "{said}");
    let still: i64 = one(&client, "SELECT count(*) FROM audit_log").await;
    assert_eq!(still, noted);
    let publish_keys: i64 = one(&client, "SELECT count(*) FROM ingest_publish_keys").await;
    assert_eq!(publish_keys, 1);

    // A change that cannot be noted is not made.
    client
        .batch_execute(
            "ALTER TABLE audit_log ADD CONSTRAINT none CHECK (actor_sub <> 'the tests') NOT VALID",
        )
        .await
        .unwrap();
    let said = refused(&database, &["keys", "revoke", ingest]);
    assert!(said.contains("audit_log"), "{said}");
    let revoked: i64 = one(
        &client,
        "SELECT count(*) FROM tenant_api_keys WHERE revoked_at IS NOT NULL",
    )
    .await;
    assert_eq!(revoked, 0);
}

#[tokio::test]
async fn a_running_service_follows_and_notes_when_keys_were_used() {
    let database = Database::migrated().await;
    let run = |arguments: &[&str]| document(&database, arguments);
    run(&["tenants", "create", "shop"]);
    let old = run(&["keys", "create", "shop", "--role", "ingest"]);
    let service = Service::on(&database, |settings| settings.with("--key-refresh", "1s")).await;
    let post = async |secret: &str| {
        let client = service.client().header("x-api-key", secret);
        client.post("/v1/interactions", &click("a")).await.status
    };
    let (first, id) = (old["secret"].as_str().unwrap(), old["id"].as_str().unwrap());
    assert_eq!(post(first).await, 200);
    eventually("the use is noted", async || {
        run(&["keys", "list"])[0]["last_used_at"].is_string()
    })
    .await;
    let new = run(&["keys", "rotate", id, "--grace", "1h"]);
    let second = new["secret"].as_str().unwrap();
    eventually("the new key works", async || post(second).await == 200).await;
    assert_eq!(post(first).await, 200, "the old key has its grace");
    run(&["keys", "revoke", id]);
    eventually("the old key is refused", async || post(first).await == 401).await;
    run(&["tenants", "suspend", "shop"]);
    eventually("the tenant is suspended", async || {
        post(second).await == 403
    })
    .await;
    run(&["tenants", "activate", "shop"]);
    eventually("the tenant is active", async || post(second).await == 200).await;
    // A key that the suite made has no role for this service until it is given one.
    let client = database.connect().await;
    let hash = recsys_ingest::tenants::key::ApiKeyHasher::new(PEPPER.as_bytes())
        .hash("made by the suite")
        .to_hex();
    client
        .execute(
            "INSERT INTO tenant_api_keys (tenant_id, key_hash, roles)
             SELECT id, $1, '{recommend}' FROM tenants",
            &[&hash],
        )
        .await
        .unwrap();
    eventually("the key is known", async || {
        post("made by the suite").await == 403
    })
    .await;
    let listed = run(&["keys", "list"]);
    let theirs = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["roles"] == json!(["recommend"]))
        .unwrap();
    run(&[
        "keys",
        "grant",
        theirs["id"].as_str().unwrap(),
        "--role",
        "ingest",
    ]);
    eventually("the key may post", async || {
        post("made by the suite").await == 200
    })
    .await;
}

#[tokio::test]
async fn a_key_that_an_operator_holds_locked_delays_no_refresh() {
    let database = Database::migrated().await;
    let run = |arguments: &[&str]| document(&database, arguments);
    run(&["tenants", "create", "shop"]);
    let held = run(&["keys", "create", "shop", "--role", "ingest"]);
    let service = Service::on(&database, |settings| settings.with("--key-refresh", "1s")).await;
    let post = async |key: &Value| {
        let secret = key["secret"].as_str().unwrap();
        let client = service.client().header("x-api-key", secret);
        client.post("/v1/interactions", &click("a")).await.status
    };
    let mut client = database.connect().await;
    let transaction = client.transaction().await.unwrap();
    let lock = "SELECT id FROM tenant_api_keys FOR UPDATE";
    assert_eq!(transaction.query(lock, &[]).await.unwrap().len(), 1);
    assert_eq!(post(&held).await, 200);
    // The use of the locked key is to be noted by now, and a revoked key still stops in time.
    for _ in 0..2 {
        let other = run(&["keys", "create", "shop", "--role", "ingest"]);
        assert_eq!(post(&other).await, 200);
        let started = std::time::Instant::now();
        run(&["keys", "revoke", other["id"].as_str().unwrap()]);
        eventually("the key is refused", async || post(&other).await == 401).await;
        assert!(started.elapsed() < std::time::Duration::from_secs(20));
    }
}

#[tokio::test]
async fn a_name_that_is_the_id_of_another_tenant_means_one_tenant_in_every_command() {
    let database = Database::with_tenants().await;
    let said = refused(&database, &["tenants", "create", &DEMO.to_uppercase()]);
    assert!(said.contains("is the id of tenant \"demo\""), "{said}");
    let (key, upper) = ("ab".repeat(32), DEMO.to_uppercase());
    let key = key.as_str();
    let look = [
        "users", "erase", "--dry-run", "--user-key", key, "--tenant", &upper,
    ];
    document(&database, &look);
    assert_eq!(
        document(&database, &["tenants", "show", &upper])["external_id"],
        "demo"
    );
    // Another program may have made one.
    database
        .execute(&format!(
            "INSERT INTO tenants (external_id, name) VALUES ('{DEMO}', 'confusing')"
        ))
        .await;
    let shown = document(&database, &["tenants", "show", DEMO]);
    assert_eq!(shown["external_id"], DEMO);
    let client = database.connect().await;
    document(
        &database,
        &["users", "erase", "--user-key", key, "--tenant", DEMO],
    );
    let erased =
        "SELECT t.name FROM ingest_erased_subjects AS s JOIN tenants AS t ON t.id = s.tenant_id";
    assert_eq!(texts(&client, erased).await, ["confusing"]);
}
