//! The libraries, and a program for each that posts with it.
//!
//! A program says that it is ready, and waits for a line. Then it tracks half of the events at once,
//! waits for another line, and tracks the others over two seconds. It ends with an error if the library
//! gives an event up.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A library and a program that posts with it.
#[derive(Clone, Copy, Debug)]
pub struct Library {
    pub package: &'static str,
    /// What installs it: `npm` or `pip`.
    installer: &'static str,
    pub interpreter: &'static str,
    pub program: &'static str,
    source: &'static str,
}

pub const NODE: [Library; 2] = [
    Library {
        package: "@segment/analytics-node@3.1.0",
        installer: "npm",
        interpreter: "node",
        program: "segment.mjs",
        source: r#"
import { Analytics } from '@segment/analytics-node';
const { INGEST_KEY, INGEST_URL } = process.env, EVENTS = Number(process.env.EVENTS);
const analytics = new Analytics({ writeKey: INGEST_KEY, host: INGEST_URL, flushAt: 20 });
analytics.on('error', error => { console.error(error); process.exitCode = 1; });
const track = n => analytics.track({ userId: `user-${n % 7}`, event: 'Product Clicked',
  properties: { product_id: `item-${n}`, position: n % 5, request_id: `r-${n}`, surface: 'home' } });
const line = () => new Promise(done => process.stdin.once('data', done));
console.log('ready');
await line();
for (let n = 0; n < EVENTS / 2; n++) track(n);
await line();
for (let n = EVENTS / 2; n < EVENTS; n++) {
  track(n);
  if (n % (EVENTS / 40) === 0) await new Promise(done => setTimeout(done, 100));
}
analytics.identify({ userId: 'user-1', traits: { email: 'ada@shop.example' } });
await analytics.closeAndFlush();
process.exit();
"#,
    },
    Library {
        package: "@rudderstack/rudder-sdk-node@3.0.13",
        installer: "npm",
        interpreter: "node",
        program: "rudder.cjs",
        source: r#"
const Client = require('@rudderstack/rudder-sdk-node');
const { INGEST_KEY, INGEST_URL } = process.env, EVENTS = Number(process.env.EVENTS);
const client = new Client(INGEST_KEY, { dataPlaneUrl: INGEST_URL, flushInterval: 200, retryCount: 10 });
let left = EVENTS;
const done = error => {
  if (error) { console.error(error); process.exitCode = 1; }
  if (--left === 0) process.exit();
};
const track = n => client.track({ userId: `user-${n % 7}`, event: 'Product Clicked',
  properties: { product_id: `item-${n}`, position: n % 5, request_id: `r-${n}`, surface: 'home' } }, done);
const line = () => new Promise(done => process.stdin.once('data', done));
(async () => {
  console.log('ready');
  await line();
  for (let n = 0; n < EVENTS / 2; n++) track(n);
  await line();
  for (let n = EVENTS / 2; n < EVENTS; n++) {
    track(n);
    if (n % (EVENTS / 40) === 0) await new Promise(done => setTimeout(done, 100));
  }
})();
"#,
    },
];

pub const PYTHON: [Library; 2] = [
    Library {
        package: "segment-analytics-python==2.4.0",
        installer: "pip",
        interpreter: "python3",
        program: "segment_client.py",
        source: r"
import os, sys, time, segment.analytics as analytics
analytics.write_key, analytics.host, analytics.gzip = os.environ['INGEST_KEY'], os.environ['INGEST_URL'], True
analytics.on_error = lambda error, items: (print(error, file=sys.stderr, flush=True), os._exit(1))
EVENTS = int(os.environ['EVENTS'])
def track(n):
    analytics.track(f'user-{n % 7}', 'Product Clicked', {'product_id': f'item-{n}', 'position': n % 5, 'request_id': f'r-{n}', 'surface': 'home'})
print('ready', flush=True)
sys.stdin.readline()
for n in range(EVENTS // 2):
    track(n)
sys.stdin.readline()
for n in range(EVENTS // 2, EVENTS):
    track(n)
    if n % (EVENTS // 40) == 0:
        time.sleep(0.1)
analytics.shutdown()
",
    },
    Library {
        package: "rudder-sdk-python==2.1.9",
        installer: "pip",
        interpreter: "python3",
        program: "rudder_client.py",
        source: r"
import os, sys, time, rudderstack.analytics as analytics
analytics.write_key, analytics.dataPlaneUrl = os.environ['INGEST_KEY'], os.environ['INGEST_URL']
analytics.on_error = lambda error, items: (print(error, file=sys.stderr, flush=True), os._exit(1))
EVENTS = int(os.environ['EVENTS'])
def track(n):
    analytics.track(f'user-{n % 7}', 'Product Clicked', {'product_id': f'item-{n}', 'position': n % 5, 'request_id': f'r-{n}', 'surface': 'home'})
print('ready', flush=True)
sys.stdin.readline()
for n in range(EVENTS // 2):
    track(n)
sys.stdin.readline()
for n in range(EVENTS // 2, EVENTS):
    track(n)
    if n % (EVENTS // 40) == 0:
        time.sleep(0.1)
analytics.shutdown()
",
    },
];

/// Segment's library for pages, of which its package has a bundle.
pub const PAGE: Library = Library {
    package: "@segment/analytics-next@1.84.3",
    installer: "npm",
    interpreter: "",
    program: "",
    source: "",
};

impl Library {
    /// Installs it once, into its own folder. `None` without the installer or the registry: then the
    /// reason is printed.
    pub fn install(&self) -> Option<PathBuf> {
        let installed = self.try_install();
        if let Err(error) = &installed {
            println!("skipped: {} cannot be installed: {error}", self.package);
        }
        installed.ok()
    }

    fn try_install(&self) -> Result<PathBuf, String> {
        let name = self.package.replace(['@', '/', '='], "-");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stock{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        if !self.program.is_empty() {
            std::fs::write(folder.join(self.program), self.source).unwrap();
        }
        let done = folder.join("installed");
        if done.exists() {
            return Ok(folder);
        }
        let mut install = match self.installer {
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
        let output = install.arg(self.package).current_dir(&folder).output();
        let output = output.map_err(|error| format!("there is no {}: {error}", self.installer))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        std::fs::write(done, "").unwrap();
        Ok(folder)
    }
}
