//! Pages in a real, headless Chromium, and the site that serves them.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::{get, post};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// If this variable is set, a machine without Chromium fails the tests.
const REQUIRE: &str = "REQUIRE_CHROMIUM";

/// A browser takes a while to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The path of a Chromium. Without one, `None`, and the reason is printed.
pub fn find() -> Option<String> {
    let names = [
        "chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
    ];
    let runs = |name: &str| {
        let mut command = Command::new(name);
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let found = names.into_iter().find(|name| runs(name)).map(str::to_owned);
    if found.is_none() {
        assert!(
            std::env::var_os(REQUIRE).is_none(),
            "{REQUIRE} is set, and there is no Chromium"
        );
        println!("skipped: there is no Chromium to test pages with (Debian's package is chromium)");
    }
    found
}

/// A website with one page, at a new origin.
pub struct Site {
    pub origin: String,
    results: mpsc::Receiver<Value>,
    page: Arc<std::sync::Mutex<String>>,
}

impl Site {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let (sender, results) = mpsc::channel(1);
        let page = Arc::new(std::sync::Mutex::new(String::new()));
        let shown = Arc::clone(&page);
        let site = Router::new()
            .route("/", get(async move || Html(shown.lock().unwrap().clone())))
            .route(
                "/results",
                post(async move |results: String| {
                    drop(sender.send(serde_json::from_str(&results).unwrap()).await);
                }),
            );
        tokio::spawn(async move { drop(axum::serve(listener, site).await) });
        Self {
            origin,
            results,
            page,
        }
    }

    /// Opens the page with a script that fills `results`. Returns what it found, and the browser
    /// that still shows the page.
    pub async fn visit(&mut self, chromium: &str, script: &str) -> (Value, Browser) {
        *self.page.lock().unwrap() = format!(
            "<!doctype html><title>test</title><script>(async () => {{
               const results = {{}};
               try {{ {script} }} catch (error) {{ results.script = String(error); }}
               await fetch('/results', {{method: 'POST', body: JSON.stringify(results)}});
             }})()</script>"
        );
        let browser = Browser::open(chromium, &self.origin);
        let results = tokio::time::timeout(PATIENCE, self.results.recv()).await;
        (results.expect("the page says nothing").unwrap(), browser)
    }
}

/// A running Chromium; dropping it ends it with all of its processes.
pub struct Browser {
    child: Child,
    _profile: TempDir,
}

impl Browser {
    fn open(chromium: &str, url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new(chromium)
            // A container has no sandbox to offer, and the pages are these tests'.
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--no-proxy-server",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            child,
            _profile: profile,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
        drop(self.child.wait());
    }
}
