//! Clients are generated from the live document, in TypeScript and in Go. A batch of events that is
//! written against the types compiles and is taken on; one with a wrong field does not compile.
//!
//! Needs `npm` or `go`, and their registries once; what cannot be fetched is skipped, with the reason.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use recsys_ingest::tenants::role::Role;

use crate::harness::{Service, blocking, key};

/// A folder for a generator, kept between runs.
struct Folder {
    path: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self {
            path,
            environment: Vec::new(),
        }
    }

    fn has(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path.join(file), text).unwrap();
    }

    /// Runs a command; the error is what it printed.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let own = self.path.join(program);
        let program = if own.exists() { own } else { program.into() };
        let output = Command::new(&program)
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .current_dir(&self.path)
            .output()
            .map_err(|error| format!("there is no {}: {error}", program.display()))?;
        let text = [output.stdout, output.stderr].concat();
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&text).into_owned()),
        }
    }

    /// Takes the document of a running service, and tells clients where it is.
    async fn of(mut self, service: &Service) -> Self {
        let client = service.client();
        let document = client.get("/openapi.json").await.text;
        self.write("openapi.json", &document);
        let url = format!("http://{}", client.address);
        self.environment.push(("INGEST_URL", url.into()));
        self.environment
            .push(("INGEST_KEY", key("demo", Role::Ingest).into()));
        self
    }
}

const TYPESCRIPT: &str = r#"
import type { components, paths } from "./types";
type Body = paths["/v1/interactions"]["post"]["requestBody"]["content"]["application/json"];
type Event = components["schemas"]["Interaction"];
type Answer = components["schemas"]["Answer"];
type Problem = components["schemas"]["ProblemBody"];
declare const process: { env: Record<string, string> };
const click: Event = { event_type: "click", item_id: "lamp", request_id: "r", position: 2, meta: { any: [1] } };
const batch: Body = [click, { event_type: "purchase", item_id: "lamp", value: 19.9 }];
const envelope: Body = { events: [click], sent_at: new Date().toISOString() };
async function post(body: Body): Promise<Answer> {
  const headers = { "Content-Type": "application/json", "X-API-Key": process.env.INGEST_KEY };
  const url = process.env.INGEST_URL + "/v1/interactions?ack=committed";
  const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  if (answer.status === 200) return await answer.json();
  const problem: Problem = await answer.json();
  throw new Error(problem.code === "overloaded" ? "later" : problem.detail);
}
async function all() {
  for (const body of [click, batch, envelope]) await post(body);
}
void all();
"#;

/// Each has one thing that the types do not allow.
const WRONG: [&str; 3] = [
    r#"const x: Event = { event_type: "stare", item_id: "lamp" };"#,
    r#"const x: Event = { item_id: "lamp" };"#,
    r#"const x: Problem["code"] = "no_such_code";"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_posted_through_typescript_types_from_the_document() {
    let service = Service::start().await;
    let folder = Folder::new("openapi-typescript").of(&service).await;
    let tools = ["openapi-typescript@7.13.0", "typescript@5.9.3"];
    if !folder.has("node_modules/.bin/tsc") {
        let mut install = vec!["install", "--prefix", ".", "--no-audit", "--no-fund"];
        install.extend(tools);
        if let Err(error) = blocking(|| folder.run("npm", &install)) {
            println!("skipped: npm cannot install {tools:?}: {error}");
            return;
        }
    }
    let generate = ["openapi.json", "-o", "types.ts"];
    blocking(|| folder.run("node_modules/.bin/openapi-typescript", &generate)).unwrap();
    let compiles = |source: &str| {
        folder.write("post.ts", source);
        let options = [
            "--strict", "--noEmitOnError", "--lib", "es2022,dom", "--target", "es2022", "post.ts",
        ];
        blocking(|| folder.run("node_modules/.bin/tsc", &options))
    };
    for wrong in WRONG {
        let error = compiles(&format!("{TYPESCRIPT}\n{wrong}")).unwrap_err();
        assert!(error.contains("post.ts"), "{wrong}: {error}");
    }
    compiles(TYPESCRIPT).unwrap();
    blocking(|| folder.run("node", &["post.js"])).unwrap();
    assert_eq!(service.database.count("interaction_events").await, 4);
}

const GO: &str = r#"
package main

import (
	"context"
	"net/http"
	"os"
	"time"
)

func main() {
	client, err := NewClientWithResponses(os.Getenv("INGEST_URL"), WithRequestEditorFn(
		func(_ context.Context, request *http.Request) error {
			request.Header.Set("X-API-Key", os.Getenv("INGEST_KEY"))
			return nil
		}))
	if err != nil {
		panic(err)
	}
	item, position, now, ack := "lamp", int32(2), time.Now(), InteractionsParamsAck("committed")
	click := Interaction{EventType: "click", ItemId: &item, Position: &position, OccurredAt: &now}
	view := Interaction{EventType: "view", ItemId: &item}
	var list, envelope InteractionBody
	if err := list.FromInteractionList([]Interaction{click, view}); err != nil {
		panic(err)
	}
	if err := envelope.FromInteractionBatch(InteractionBatch{Events: []Interaction{view}, SentAt: &now}); err != nil {
		panic(err)
	}
	for _, body := range []InteractionBody{list, envelope} {
		answer, err := client.InteractionsWithResponse(context.Background(), &InteractionsParams{Ack: &ack}, body)
		if err != nil {
			panic(err)
		}
		if answer.JSON200 == nil || answer.JSON200.Ack != "committed" {
			panic(string(answer.Body))
		}
	}
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_posted_through_a_go_client_from_the_document() {
    let service = Service::start().await;
    let mut folder = Folder::new("openapi-go").of(&service).await;
    let bin = folder.path.join("bin").into_os_string();
    folder.environment.push(("GOBIN", bin));
    folder.environment.push(("GOFLAGS", "-mod=mod".into()));
    let tool = "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2";
    if !folder.has("bin/oapi-codegen")
        && let Err(error) = blocking(|| folder.run("go", &["install", tool]))
    {
        println!("skipped: go cannot install {tool}: {error}");
        return;
    }
    folder.write("go.mod", "module client\n\ngo 1.24\n");
    folder.write("main.go", GO);
    let generate = [
        "-generate", "types,client", "-package", "main", "-o", "types.go", "openapi.json",
    ];
    blocking(|| folder.run("bin/oapi-codegen", &generate)).unwrap();
    let runtime = ["get", "github.com/oapi-codegen/runtime@v1.9.0"];
    if let Err(error) = blocking(|| folder.run("go", &runtime)) {
        println!("skipped: {runtime:?} fails: {error}");
        return;
    }
    blocking(|| folder.run("go", &["run", "."])).unwrap();
    assert_eq!(service.database.count("interaction_events").await, 3);
}
