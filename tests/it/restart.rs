//! Promise: after a restart while PostgreSQL is away, events are accepted with all keys of the
//! key cache file, up to a maximum age, and never with a damaged file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use recsys_ingest::tenants::role::Role;

use crate::harness::{Client, Process, Reply, Rig, click, eventually, key};

/// The path of the key cache file.
fn copy(rig: &Rig) -> PathBuf {
    rig.settings.spool.path().join("keys")
}

async fn written(rig: &Rig) -> Vec<u8> {
    eventually("the copy of the keys", async || copy(rig).exists()).await;
    std::fs::read(copy(rig)).unwrap()
}

/// Posts one event with `ack=durable`.
async fn post(client: &Client, name: &str) -> Reply {
    let durable = client.query("ack=durable");
    durable.post("/v1/interactions", &click(name)).await
}

/// Status and code of a refusal.
fn problem(reply: &Reply) -> (u16, &str) {
    (
        reply.status,
        reply.json["code"].as_str().unwrap_or_default(),
    )
}

/// Starts the service without waiting until it is ready.
fn serve_unready(rig: &mut Rig) {
    rig.process = Process::run(rig.settings.arguments());
    rig.client = Client::new(rig.process.listening());
}

async fn assert_unready(rig: &Rig) {
    assert_eq!(rig.ready().await, (503, "unready".to_owned()));
    let reply = post(&rig.client, "refused").await;
    assert_eq!(problem(&reply), (503, "keys_unavailable"));
}

async fn ready_again(rig: &Rig) {
    eventually("the service to be ready", async || {
        rig.ready().await == (200, "ready".to_owned())
    })
    .await;
}

/// A client with the key that the test revokes later.
fn revoked(rig: &Rig) -> Client {
    rig.client.role("demo", Role::Service)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_postgres_knows_the_keys_that_it_knew() {
    let mut rig = Rig::start(|settings| settings).await;
    let text = String::from_utf8(written(&rig).await).unwrap();
    for secret in [key("demo", Role::Ingest), "pepper".to_owned()] {
        assert!(!text.contains(&secret), "{secret} in {text}");
    }
    let mode = std::fs::metadata(copy(&rig)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The service does not notice before the crash: in tests it reads the keys once an hour.
    let revoke = "UPDATE tenant_api_keys SET revoked_at = now() WHERE 'service' = ANY(roles)";
    rig.database.execute(revoke).await;
    rig.cluster.crash();
    rig.process.kill();

    rig.serve();
    assert_eq!(rig.ready().await, (200, "degraded".to_owned()));
    let verbose = rig.client.get("/readyz?verbose").await.json;
    assert_eq!(verbose["keys"]["from"], "copy", "{verbose}");
    assert!(verbose["keys"]["age_seconds"].as_u64().unwrap() < 60);
    let log = rig.process.log();
    assert!(log.contains("taken from the copy"), "{log}");
    let reply = post(&rig.client, "one").await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    assert_eq!(reply.json["ack"], "durable");
    // A key that was revoked since then still works; an unknown key gets 503, since it may be a
    // new one.
    assert_eq!(post(&revoked(&rig), "two").await.status, 202);
    let unknown = rig.client.header("x-api-key", "nobody's");
    let reply = post(&unknown, "three").await;
    assert_eq!(problem(&reply), (503, "keys_unavailable"));
    let asleep = rig.client.role("asleep", Role::Ingest);
    assert_eq!(post(&asleep, "four").await.status, 403);

    rig.cluster.restart();
    ready_again(&rig).await;
    rig.settle().await;
    assert_eq!(rig.database.count("interaction_events").await, 2);
    assert_eq!(post(&revoked(&rig), "five").await.status, 401);
    assert_eq!(post(&unknown, "six").await.status, 401);
    let verbose = rig.client.get("/readyz?verbose").await.json;
    assert_eq!(verbose["keys"]["from"], "database", "{verbose}");
    // The key cache file is replaced as well.
    eventually("a new copy", async || {
        written(&rig).await != text.as_bytes()
    })
    .await;
    rig.cluster.crash();
    rig.process.kill();
    rig.serve();
    assert_eq!(post(&revoked(&rig), "seven").await.status, 401);
    assert_eq!(post(&rig.client, "eight").await.status, 202);
    rig.cluster.restart();
    rig.settle().await;
    assert_eq!(rig.database.count("interaction_events").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_beside_a_frozen_postgres_knows_the_keys_too() {
    let mut rig = Rig::start(|settings| settings).await;
    written(&rig).await;
    rig.cluster.suspend();
    rig.process.kill();
    rig.serve();
    assert_eq!(post(&rig.client, "one").await.status, 202);
    assert_eq!(rig.ready().await, (200, "degraded".to_owned()));
    rig.cluster.resume();
    ready_again(&rig).await;
    rig.settle().await;
    assert_eq!(rig.database.count("interaction_events").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_damaged_or_of_another_version_is_ignored_and_replaced() {
    let mut rig = Rig::start(|settings| settings).await;
    let sound = written(&rig).await;
    let mut damaged = sound.clone();
    let last = damaged.len() - 20;
    damaged[last] ^= 1;
    let newer = String::from_utf8(sound.clone()).unwrap();
    let newer = newer.replacen("keys 1 ", "keys 2 ", 1).into_bytes();
    rig.cluster.crash();
    for (bytes, words) in [
        (damaged, "is damaged"),
        (sound[..sound.len() / 2].to_vec(), "is damaged"),
        (Vec::new(), "is not a copy of API keys"),
        (newer, "has version 2"),
    ] {
        rig.process.kill();
        std::fs::write(copy(&rig), &bytes).unwrap();
        serve_unready(&mut rig);
        eventually("the warning", async || rig.process.log().contains(words)).await;
        assert_unready(&rig).await;
    }
    rig.cluster.restart();
    ready_again(&rig).await;
    assert_eq!(post(&rig.client, "one").await.status, 202);
    rig.cluster.crash();
    // A complete file, and not the one of version 2 that the test has written.
    eventually("a sound copy", async || {
        let copy = written(&rig).await;
        copy.len() == sound.len() && copy.starts_with(b"recsys-ingest keys 1 ")
    })
    .await;
    rig.process.kill();
    rig.serve();
    assert_eq!(post(&rig.client, "two").await.status, 202);
    // Drains the spool, so that the rows can be counted.
    rig.cluster.restart();
    rig.settle().await;
    assert_eq!(rig.database.count("interaction_events").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_not_trusted_beyond_its_age() {
    let mut rig = Rig::start(|settings| settings.with("--key-copy-max-age", "12s")).await;
    written(&rig).await;
    rig.cluster.crash();
    rig.process.kill();
    rig.serve();
    assert_eq!(post(&rig.client, "one").await.status, 202);
    eventually("the copy to go out of force", async || {
        rig.ready().await == (503, "unready".to_owned())
    })
    .await;
    assert_unready(&rig).await;
    rig.process.kill();
    serve_unready(&mut rig);
    let words = "last confirmed";
    eventually("the warning", async || rig.process.log().contains(words)).await;
    assert_unready(&rig).await;
    rig.cluster.restart();
    ready_again(&rig).await;
    rig.settle().await;
    assert_eq!(rig.database.count("interaction_events").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_copy_is_kept_where_none_is_wanted() {
    let mut rig = Rig::start(|settings| settings).await;
    written(&rig).await;
    rig.settings = rig.settings.clone().with("--key-copy-max-age", "0s");
    rig.process.kill();
    rig.serve();
    eventually("the copy to go", async || !copy(&rig).exists()).await;
    rig.cluster.crash();
    rig.process.kill();
    serve_unready(&mut rig);
    // Longer than it takes to load a key cache file.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_unready(&rig).await;
    assert!(!copy(&rig).exists());
}
