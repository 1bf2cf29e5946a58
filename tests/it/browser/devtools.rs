//! A page in Chromium that a test drives: it runs scripts in it, presses keys, and takes pictures.
//!
//! Speaks the DevTools protocol over the browser's pipe: JSON, with a zero byte behind each message.
//! Unlike a debugging port, a pipe is open to this process alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::harness::SOON;

/// A page, and the browser that shows it; dropping it ends the browser with all of its processes.
pub struct Page {
    child: Child,
    commands: ChildStdin,
    messages: mpsc::Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Page {
    /// Opens a URL.
    pub async fn open(chromium: &str, url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The browser reads commands from 3 and writes to 4: these are the child's input and output.
        let script = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
        let mut child = Command::new("/bin/sh")
            .args(["-c", script, "sh", chromium])
            // A container has no sandbox to offer, and the pages are these tests'.
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--no-proxy-server"])
            .args(["--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let (sender, messages) = mpsc::channel(10_000);
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap();
                if sender.blocking_send(message).is_err() {
                    return;
                }
            }
        });
        let mut page = Self {
            commands: child.stdin.take().unwrap(),
            child,
            messages,
            session: None,
            last_id: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = page
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = page.call("Target.attachToTarget", attach).await;
        page.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page.call("Page.navigate", json!({"url": url})).await;
        let is_there = "location.href !== 'about:blank' && document.readyState === 'complete'";
        page.until("the page to be there", is_there).await;
        page
    }

    /// Calls a method of the protocol; returns its result.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.ask(method, parameters).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    async fn ask(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = session.clone().into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        let answered = async {
            loop {
                let mut message = self.messages.recv().await.expect("the browser ended");
                if message["id"] == id {
                    return match message["error"].take() {
                        Value::Null => Ok(message["result"].take()),
                        error => Err(error),
                    };
                }
                self.complaints.extend(complaint(&message));
            }
        };
        let answer = tokio::time::timeout(SOON, answered).await;
        answer.unwrap_or_else(|_| panic!("no answer to {method}"))
    }

    /// The value of an expression in the page.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        // An error of the protocol: the page has just been left for another one.
        let Ok(mut result) = self.ask("Runtime.evaluate", parameters).await else {
            return Value::Null;
        };
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result:#}"
        );
        result["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, what: &str, expression: &str) {
        let started = Instant::now();
        while self.eval(&format!("!!({expression})")).await != true {
            if started.elapsed() > SOON {
                let text = self.eval("document.body.innerText").await;
                panic!("waited in vain for {what} ({expression}):\n{text:#}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presses a key, which types `text`.
    pub async fn press(&mut self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Makes the window this wide, for people who prefer `scheme`: `light` or `dark`.
    pub async fn show_as(&mut self, width: u32, scheme: &str) {
        let metrics = json!({
            "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media).await;
    }

    /// Writes a picture of the page from its top, `height` pixels of it, or all if it is shorter.
    pub async fn picture(&mut self, path: &Path, height: u32) {
        let size = self.call("Page.getLayoutMetrics", json!({})).await;
        let size = &size["cssContentSize"];
        let height = size["height"].as_f64().unwrap().min(f64::from(height));
        let clip = json!({"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1});
        let parameters = json!({"format": "png", "clip": clip, "captureBeyondViewport": true});
        let taken = self.call("Page.captureScreenshot", parameters).await;
        let png = STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        std::fs::write(path, png).unwrap();
    }

    /// What the browser has complained of: exceptions, and what the page's policy forbids.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

/// The text of a message that is a complaint. That a server does not answer is none: tests stop it.
fn complaint(message: &Value) -> Option<String> {
    let text = match message["method"].as_str()? {
        "Runtime.exceptionThrown" => message["params"].to_string(),
        "Log.entryAdded" if message["params"]["entry"]["source"] != "network" => {
            message["params"]["entry"].to_string()
        }
        _ => return None,
    };
    Some(text)
}

impl Drop for Page {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
        drop(self.child.wait());
    }
}
