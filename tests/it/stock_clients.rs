//! Promise: stock client libraries, unmodified, from their registries, lose nothing and store nothing
//! twice.
//!
//! Needs npm or pip, and their registries once; what cannot be fetched is skipped, with the reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use recsys_ingest::tenants::role::Role;
use serde_json::json;

use crate::cors;
use crate::harness::{Database, Service, blocking, eventually, key, one};

const EVENTS: i64 = 200;

/// A library and a program that posts with it.
struct Stock {
    package: &'static str,
    program: &'static str,
    source: &'static str,
    /// Whether it waits for as long as a 429 says, however often.
    is_patient: bool,
}

const NODE: [Stock; 2] = [
    Stock {
        package: "@segment/analytics-node@3.1.0",
        program: "segment.mjs",
        source: r#"
import { Analytics } from '@segment/analytics-node';
const { INGEST_KEY, INGEST_URL, EVENTS } = process.env;
const analytics = new Analytics({ writeKey: INGEST_KEY, host: INGEST_URL, flushAt: 20 });
analytics.on('error', error => { console.error(error); process.exitCode = 1; });
for (let n = 0; n < Number(EVENTS); n++)
  analytics.track({ userId: `user-${n % 7}`, event: 'Product Clicked',
    properties: { product_id: `item-${n}`, position: n % 5, request_id: `r-${n}`, surface: 'home' } });
analytics.identify({ userId: 'user-1', traits: { email: 'ada@shop.example' } });
await analytics.closeAndFlush();
"#,
        is_patient: true,
    },
    Stock {
        package: "@rudderstack/rudder-sdk-node@3.0.13",
        program: "rudder.cjs",
        source: r#"
const Client = require('@rudderstack/rudder-sdk-node');
const { INGEST_KEY, INGEST_URL, EVENTS } = process.env;
const client = new Client(INGEST_KEY, { dataPlaneUrl: INGEST_URL, flushAt: 20, flushInterval: 200 });
let left = Number(EVENTS);
const done = error => {
  if (error) { console.error(error); process.exitCode = 1; }
  if (--left === 0) process.exit();
};
for (let n = 0; n < Number(EVENTS); n++)
  client.track({ userId: `user-${n % 7}`, event: 'Product Clicked',
    properties: { product_id: `item-${n}`, position: n % 5, request_id: `r-${n}`, surface: 'home' } }, done);
"#,
        is_patient: false,
    },
];

const PYTHON: [Stock; 2] = [
    Stock {
        package: "segment-analytics-python==2.4.0",
        program: "segment_client.py",
        source: r"
import os, segment.analytics as analytics
analytics.write_key, analytics.host, analytics.gzip = os.environ['INGEST_KEY'], os.environ['INGEST_URL'], True
analytics.on_error = lambda error, items: os._exit(1)
for n in range(int(os.environ['EVENTS'])):
    analytics.track(f'user-{n % 7}', 'Product Clicked', {'product_id': f'item-{n}', 'position': n % 5, 'request_id': f'r-{n}', 'surface': 'home'})
analytics.shutdown()
",
        is_patient: true,
    },
    Stock {
        package: "rudder-sdk-python==2.1.9",
        program: "rudder_client.py",
        source: r"
import os, rudderstack.analytics as analytics
analytics.write_key, analytics.dataPlaneUrl = os.environ['INGEST_KEY'], os.environ['INGEST_URL']
analytics.on_error = lambda error, items: os._exit(1)
for n in range(int(os.environ['EVENTS'])):
    analytics.track(f'user-{n % 7}', 'Product Clicked', {'product_id': f'item-{n}', 'position': n % 5, 'request_id': f'r-{n}', 'surface': 'home'})
analytics.shutdown()
",
        is_patient: false,
    },
];

/// Installs a library into a separate folder, once; the error is why it cannot.
fn install(stock: &Stock, with: &str) -> Result<PathBuf, String> {
    let name = stock.package.replace(['@', '/', '='], "-");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stock{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(stock.program), stock.source).unwrap();
    let done = folder.join("installed");
    if done.exists() {
        return Ok(folder);
    }
    let mut install = match with {
        "npm" => {
            let mut npm = Command::new("npm");
            npm.args(["install", "--prefix", ".", "--no-audit", "--no-fund"]);
            npm
        }
        _ => {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--target", "packages"]);
            pip
        }
    };
    let output = install.arg(stock.package).current_dir(&folder).output();
    let output = output.map_err(|error| format!("there is no {with}: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    std::fs::write(done, "").unwrap();
    Ok(folder)
}

/// Posts with a library to a real service, and counts.
async fn post(stock: &Stock, with: &'static str, interpreter: &'static str) {
    let folder = match blocking(|| install(stock, with)) {
        Ok(folder) => folder,
        Err(error) => {
            println!("skipped: {} cannot be installed: {error}", stock.package);
            return;
        }
    };
    let database = Database::with_tenants().await;
    let secret = key("demo", Role::Ingest);
    if stock.is_patient {
        // The library meets several 429 before all of its events are taken.
        let limits = json!({"limits": {"events_per_second": 40, "events_burst": 20}});
        cors::set_key(&database, &secret, &limits).await;
    }
    let service = Service::on(&database, |settings| {
        settings.with("--default-ack", "durable")
    })
    .await;
    let mut run = Command::new(interpreter);
    run.arg(stock.program)
        .current_dir(&folder)
        .env("INGEST_KEY", secret)
        .env("INGEST_URL", format!("http://{}", service.client().address))
        .env("EVENTS", EVENTS.to_string())
        .env("PYTHONPATH", folder.join("packages"));
    let output = blocking(move || run.output());
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: there is no {interpreter}: {error}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", stock.package);
    eventually("all events", async || {
        database.count("interaction_events").await >= EVENTS
    })
    .await;
    let client = database.connect().await;
    let distinct: i64 = one(
        &client,
        "SELECT count(DISTINCT item_id) FROM interaction_events WHERE event_type = 'click' AND surface = 'home' AND user_key IS NOT NULL",
    )
    .await;
    let rows = database.count("interaction_events").await;
    assert_eq!((distinct, rows), (EVENTS, EVENTS), "{}", stock.package);
    let refused = service.metric("recsys_ingest_refused_requests_total{reason=\"rate_limited\"}");
    assert_eq!(refused.await > 0.0, stock.is_patient, "{}", stock.package);
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_for_node_lose_nothing_and_store_nothing_twice() {
    for stock in &NODE {
        post(stock, "npm", "node").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_for_python_lose_nothing_and_store_nothing_twice() {
    for stock in &PYTHON {
        post(stock, "pip", "python3").await;
    }
}
