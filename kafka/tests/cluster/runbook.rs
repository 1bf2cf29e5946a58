//! Every command of `docs/runbooks/kafka.md` works as it stands. What happens between them stands in its
//! comments that begin with `test:`, as on the other pages (`tests/it/runbooks.rs`).

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Database, Process, SOON, body, broker, cluster};

const PAGE: &str = include_str!("../../../docs/runbooks/kafka.md");

/// What is asked of the next block.
#[derive(Debug, Default)]
struct Asked {
    says: Option<String>,
    eventually: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_runbook_works() {
    let Some(mut broker) = broker().await else {
        return;
    };
    let database = Database::with_tenants().await;
    let serve = |brokers: &_, role: &str| {
        tokio::task::block_in_place(|| Process::serve(brokers, &database, "runbook", role))
    };
    let mut writer = Some(serve(&broker, "writer"));
    let intake = serve(&broker, "intake");
    let sent = intake.post(&body(0, 10), "committed").await;
    assert_eq!(sent.status, 200, "{:?}", sent.body);
    let folder = tempfile::tempdir().unwrap();
    let topics = folder.path().join("kafka-topics.sh");
    std::fs::write(&topics, broker.tool("org.apache.kafka.tools.TopicCommand")).unwrap();
    std::fs::set_permissions(&topics, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_recsys-ingest-kafka"));
    let path = format!(
        "{}:{}:{}:/usr/local/bin:/usr/bin:/bin",
        folder.path().display(),
        program.parent().unwrap().display(),
        cluster::cluster().bin_dir().display(),
    );
    let mut asked = Asked::default();
    let (mut block, mut blocks) = (None::<String>, 0);
    for line in PAGE.lines() {
        if line == "```sh" {
            block = Some(String::new());
        } else if line == "```" {
            let commands = block.take().expect("a block");
            let url = writer.as_ref().map(Process::address);
            let url = url.map_or(String::new(), |address| format!("http://{address}"));
            run(&commands, &std::mem::take(&mut asked), || {
                let mut shell = Command::new("sh");
                shell
                    .args(["-eu", "-c", &commands])
                    .env("PATH", &path)
                    .env("PAGER", "cat")
                    .env("DATABASE_URL", database.url())
                    .env("INGEST_KAFKA_BROKERS", broker.address())
                    .env("INGEST_URL", &url);
                shell
            });
            blocks += 1;
        } else if let Some(block) = &mut block {
            block.push_str(line);
            block.push('\n');
        } else if let Some(comment) = line.strip_prefix("<!-- test: ") {
            match comment.strip_suffix(" -->").unwrap() {
                "eventually" => asked.eventually = true,
                "writer stops" => writer.take().unwrap().kill(),
                "writer starts" => writer = Some(serve(&broker, "writer")),
                "broker stops" => broker.node(0).kill(),
                "broker starts" => tokio::task::block_in_place(|| broker.node(0).run()),
                "needs recsys-ingest-kafka" => {}
                other => {
                    let words = other.strip_prefix("says ").expect("a comment of these");
                    asked.says = Some(words.to_owned());
                }
            }
        }
    }
    assert_eq!(blocks, 6, "the page's blocks");
}

/// Runs a block until it does and says what is asked.
fn run(commands: &str, asked: &Asked, shell: impl Fn() -> Command) {
    let started = Instant::now();
    loop {
        let mut shell = shell();
        let output = tokio::task::block_in_place(|| shell.stdin(Stdio::null()).output().unwrap());
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let is_said = asked.says.as_ref().is_none_or(|words| said.contains(words));
        if output.status.success() && is_said {
            return;
        }
        assert!(
            asked.eventually && started.elapsed() < SOON,
            "{} of\n{commands}\n{said}\nasked: {asked:?}",
            output.status
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
