//! Promise: every command of the runbooks works as it stands.
//!
//! The blocks of a page run in a shell, one after the other, against a service and a database of
//! their own. What happens between them stands in comments of the page that start with `test:`,
//! which readers do not see:
//!
//! - `says WORDS`, `exits N`, `eventually`: of the next block
//! - `postgres stops|starts`, `service stops|starts`, `service with FLAGS`
//! - `sql STATEMENTS`, as the owner, all on one connection
//! - `post EVENT`, `post durable EVENT`: an interaction of now
//! - `env NAME OTHER`: NAME gets the value of OTHER
//! - `needs PROGRAM`: without it the rest of the page is skipped
//! - `pooler MODE`: `DATABASE_URL` leads through PgBouncer from here on

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::{JoinSet, block_in_place};

use crate::checks::pooler::PgBouncer;
use crate::harness::{Client, Cluster, Database, PEPPER, Process, SALT, SOON, Settings, key};
use crate::manners::with_program;

/// Pages at once.
const AT_ONCE: usize = 3;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> BTreeMap<String, String> {
    let folder = repository().join("docs/runbooks");
    let files = std::fs::read_dir(folder).unwrap();
    let page = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    files.map(page).collect()
}

/// The name of a page's database.
fn database_of(page: &str) -> String {
    format!("page_{}", page.to_lowercase().replace('-', "_"))
}

/// A part of a page that does something.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// What a comment says.
    Comment(String),
    /// A block of commands.
    Block(String),
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut block: Option<String> = None;
    for line in page.lines() {
        let ends = line == "```";
        match &mut block {
            Some(_) if ends => steps.extend(block.take().map(Step::Block)),
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line == "```sh" => block = Some(String::new()),
            None => {
                let comment = line.strip_prefix("<!-- test: ");
                let comment = comment.and_then(|text| text.strip_suffix(" -->"));
                steps.extend(comment.map(|text| Step::Comment(text.to_owned())));
            }
        }
    }
    assert_eq!(block, None, "a block has no end");
    steps
}

/// What is asked of the next block.
#[derive(Debug, Default)]
struct Asked {
    says: Vec<String>,
    exits: i32,
    eventually: bool,
}

/// A page's service and all that it needs.
struct World {
    name: String,
    cluster: Arc<Cluster>,
    /// A server that may be stopped.
    own_cluster: Option<Cluster>,
    settings: Settings,
    service: Option<Process>,
    client: Client,
    admin: tokio_postgres::Client,
    environment: BTreeMap<String, String>,
    pooler: Option<PgBouncer>,
    folder: TempDir,
    skipped: bool,
}

impl World {
    async fn new(name: &str, page: &str, cluster: Arc<Cluster>) -> Self {
        let own_cluster = page
            .contains("test: postgres stops")
            .then(|| block_in_place(|| Cluster::durable(&[])));
        let database = match &own_cluster {
            Some(own) => Database::on(own).await,
            None => {
                let database = database_of(name);
                let admin = Database::by(cluster.url("postgres"));
                admin
                    .execute(&format!("CREATE DATABASE {database} TEMPLATE recsys"))
                    .await;
                Database::by(cluster.url(&database))
            }
        };
        let folder = tempfile::tempdir().unwrap();
        for part in ["deploy", "docs"] {
            let link = folder.path().join(part);
            std::os::unix::fs::symlink(repository().join(part), link).unwrap();
        }
        let spool = folder.path().join("spool").display().to_string();
        let settings = Settings::new(&database)
            .with("--spool-dir", &spool)
            .with("--shutdown-grace", "1s");
        let (service, client) = block_in_place(|| Process::serve(&settings));
        let of_database = |name: &str| {
            let (before, after) = database.url().rsplit_once('/').unwrap();
            let (_, query) = after.split_once('?').unwrap();
            format!("{before}/{name}?{query}")
        };
        let mut world = Self {
            name: name.to_owned(),
            admin: database.connect().await,
            environment: BTreeMap::from(
                [
                    ("DATABASE_URL", database.url().to_owned()),
                    ("RESTORED_URL", of_database("restored")),
                    (
                        "WRITER_URL",
                        database.url().replace("postgres@", "ingest_writer@"),
                    ),
                    ("API_KEY_HASH_SECRET", PEPPER.to_owned()),
                    ("EXPOSURE_HASH_SALT", SALT.to_owned()),
                    ("INGEST_SPOOL_DIR", spool),
                    ("INGEST_SPOOL_BYTES_MAX", "64MiB".to_owned()),
                    ("INGEST_SPOOL_DISK_RESERVE", "0B".to_owned()),
                    ("INGEST_API_KEY", key("demo", Role::Ingest)),
                    ("PAGER", "cat".to_owned()),
                ]
                .map(|(name, value)| (name.to_owned(), value)),
            ),
            cluster,
            own_cluster,
            settings,
            service: Some(service),
            client,
            pooler: None,
            folder,
            skipped: false,
        };
        world.note_address();
        let now = jiff::Timestamp::now().to_string();
        let shown = json!({"event_id": "shown", "occurred_at": now, "request_id": "r", "surface": "home",
                           "items": [{"item_id": "a"}]});
        let reply = world.client.post("/v1/exposures", &shown).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let clicked = json!({"event_id": "clicked", "request_id": "r", "event_type": "click", "item_id": "a"});
        world.post("committed", clicked).await;
        world
    }

    fn note_address(&mut self) {
        let url = format!("http://{}", self.client.address);
        self.environment.insert("INGEST_URL".to_owned(), url);
    }

    async fn post(&self, ack: &str, mut event: Value) {
        event["occurred_at"] = jiff::Timestamp::now().to_string().into();
        let client = self.client.query(&format!("ack={ack}"));
        let reply = client.post("/v1/interactions", &event).await;
        assert!(reply.status < 300, "{}: {}", self.name, reply.text);
    }

    /// Starts the service again, with the database that the environment has.
    fn serve(&mut self, flags: &[&str]) {
        self.stop();
        let mut settings = self
            .settings
            .clone()
            .with("--database-url", &self.environment["DATABASE_URL"]);
        for pair in flags.chunks(2) {
            let file = self.folder.path().join(pair[1]).display().to_string();
            settings = settings.with(pair[0], file);
        }
        let (service, client) = block_in_place(|| Process::listen(&settings));
        (self.service, self.client) = (Some(service), client);
        self.note_address();
    }

    fn stop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let status = block_in_place(|| service.stop());
            assert!(status.success(), "{}: {}", self.name, service.log());
        }
    }

    /// Does what a comment says; asks the next block for the rest.
    async fn comment(&mut self, text: &str, asked: &mut Asked) {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (word, rest) {
            ("says", words) => asked.says.push(words.to_owned()),
            ("exits", code) => asked.exits = code.parse().unwrap(),
            ("eventually", "") => asked.eventually = true,
            ("postgres", "stops") => block_in_place(|| self.own_cluster.as_mut().unwrap().crash()),
            ("postgres", "starts") => {
                block_in_place(|| self.own_cluster.as_mut().unwrap().restart())
            }
            ("service", "stops") => self.stop(),
            ("service", "starts" | "with") => self.serve(&[]),
            ("service", flags) => {
                let flags: Vec<&str> = flags.strip_prefix("with ").unwrap().split(' ').collect();
                self.serve(&flags);
            }
            ("sql", sql) => self.admin.batch_execute(sql).await.unwrap(),
            ("post", event) => {
                let (ack, event) = match event.strip_prefix("durable ") {
                    Some(event) => ("durable", event),
                    None => ("committed", event),
                };
                self.post(ack, serde_json::from_str(event).unwrap()).await;
            }
            ("env", names) => {
                let (name, other) = names.split_once(' ').unwrap();
                let value = self.environment[other].clone();
                self.environment.insert(name.to_owned(), value);
            }
            ("needs", program) => {
                let found = Command::new(program)
                    .arg("--version")
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
                self.skipped = found.is_err();
            }
            ("pooler", mode) => {
                let database = Database::by(self.cluster.url(&database_of(&self.name)));
                let pooler = block_in_place(|| PgBouncer::start(&database, mode)).unwrap();
                let behind = pooler.database(&database).url().to_owned();
                self.environment.insert("DATABASE_URL".to_owned(), behind);
                self.pooler = Some(pooler);
            }
            _ => panic!("{}: nobody knows what 'test: {text}' is", self.name),
        }
    }

    /// Runs a block in a shell.
    fn run(&self, block: &str) -> (i32, String) {
        let programs = self.cluster.bin_dir().display();
        let output = Command::new("sh")
            .args(["-eu", "-c", block])
            .current_dir(self.folder.path())
            .envs(&self.environment)
            // The server's own come first: an older pg_dump refuses a newer server.
            .env("PATH", format!("{programs}:{}", with_program()))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.code().unwrap_or(-1), said)
    }

    fn block(&self, block: &str, asked: &Asked) {
        let started = Instant::now();
        loop {
            let (code, said) = block_in_place(|| self.run(block));
            let lacking = asked.says.iter().find(|words| !said.contains(*words));
            if code == asked.exits && lacking.is_none() {
                return;
            }
            assert!(
                asked.eventually && started.elapsed() < SOON,
                "{}: exit code {code}, expected {asked:?} of\n{block}\n{said}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

async fn run(name: String, page: String, cluster: Arc<Cluster>) {
    let mut world = World::new(&name, &page, cluster).await;
    let mut asked = Asked::default();
    for step in steps(&page) {
        match step {
            Step::Comment(text) => world.comment(&text, &mut asked).await,
            Step::Block(block) => world.block(&block, &std::mem::take(&mut asked)),
        }
        if world.skipped {
            println!("skipped: {name}, from a block on that needs a program which is not there");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn every_command_of_every_page_works() {
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: there is no curl");
    }
    let cluster = Arc::new(block_in_place(|| Cluster::durable(&[])));
    drop(Database::on(&cluster).await);
    let mut running = JoinSet::new();
    for (name, page) in pages() {
        if running.len() == AT_ONCE {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(run(name, page, Arc::clone(&cluster)));
    }
    while let Some(page) = running.join_next().await {
        page.unwrap();
    }
}

#[test]
fn the_pages_are_short_have_commands_are_listed_and_their_links_lead_somewhere() {
    let pages = pages();
    let list = &pages["README"];
    assert!(pages.len() >= 14, "{:?}", pages.keys());
    for (name, page) in &pages {
        let blocks = steps(page);
        assert!(
            blocks.iter().any(|step| matches!(step, Step::Block(_))),
            "{name} has no command"
        );
        assert!(page.lines().count() <= 110, "{name} is longer than a page");
        assert!(
            name == "README" || list.contains(&format!("({name}.md)")),
            "{name} is not listed"
        );
        for link in page.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            let target = repository().join("docs/runbooks").join(link);
            assert!(
                link.starts_with("https://") || target.exists(),
                "{name}: {link}"
            );
        }
        // A block in another shell's name would not run.
        for fence in page.lines().filter(|line| line.starts_with("```")) {
            assert!(
                ["```", "```sh", "```ini", "```nginx"].contains(&fence),
                "{name}: {fence}"
            );
        }
    }
}

#[test]
fn every_alert_leads_to_a_page() {
    let alerts = std::fs::read_to_string(repository().join("observability/alerts.yaml")).unwrap();
    let rules: Vec<&str> = alerts.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 10);
    for rule in rules {
        let name = rule.lines().next().unwrap();
        let page = rule
            .lines()
            .find_map(|line| line.trim().strip_prefix("runbook: "));
        let page = page.unwrap_or_else(|| panic!("{name} has no runbook"));
        let path: PathBuf = repository().join(page.trim_matches('"'));
        assert!(path.exists(), "{name}: {page}");
    }
}
