//! The configurations of `docs/scale.md`, as they stand, where nginx or haproxy is installed.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use recsys_ingest::event::table::Table;
use tempfile::TempDir;
use tokio::task::block_in_place;

use super::words::{Instance, addresses, assert_all_verified, three};
use crate::harness::{Audit, Database, Plan, SOON, Stored, Traffic};

/// Between two faults.
const BODIES: u64 = 40;

/// A program that listens on `address` until it is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The block of `docs/scale.md` in this language, with the addresses of a test.
fn configuration(language: &str, listen: SocketAddr, instances: &[SocketAddr]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scale.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
    let (block, _) = rest.split_once("\n```").unwrap();
    let mut block = block
        .replace("listen 80;", &format!("listen {listen};"))
        .replace("bind :80", &format!("bind {listen}"));
    for (at, instance) in (1..).zip(instances) {
        let shown = format!("10.0.0.{at}:8080");
        assert!(block.contains(&shown), "{language} names {shown}");
        block = block.replace(&shown, &instance.to_string());
    }
    assert!(block.contains(&listen.to_string()), "{language} listens");
    block
}

fn is_installed(program: &str) -> bool {
    let asked = Command::new(program)
        .arg("-v")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok()
}

/// Starts nginx or haproxy.
fn start(program: &str, instances: &[SocketAddr]) -> Running {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let folder = tempfile::tempdir().unwrap();
    let block = configuration(program, address, instances);
    let file = folder.path().join("configuration");
    let mut command = Command::new(program);
    let place = folder.path().display();
    let whole = match program {
        "haproxy" => {
            command.arg("-f").arg(&file).arg("-db");
            block + "\n"
        }
        _ => {
            command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|of| format!("{of}_temp_path {place}/{of};"))
                .concat();
            format!(
                "daemon off; master_process off; pid {place}/pid; error_log {place}/errors;\n\
                 events {{}}\nhttp {{ access_log off; {temporary}\n{block}\n}}\n"
            )
        }
    };
    std::fs::write(&file, whole).unwrap();
    let errors = std::fs::File::create(folder.path().join("said")).unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(errors.try_clone().unwrap())
        .stderr(errors)
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        let ended = child.try_wait().unwrap();
        let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
        assert!(
            ended.is_none() && started.elapsed() < SOON,
            "{program}: {said}"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Running {
        child,
        address,
        _folder: folder,
    }
}

async fn senders_hardly_notice_that_an_instance_is_killed(program: &str) {
    if !is_installed(program) {
        return println!("skipped: there is no {program}");
    }
    let database = Database::with_tenants().await;
    let settings = three([database.url(); 3], |settings| {
        settings.with("--writers", 1)
    });
    let mut instances: Vec<Instance> =
        block_in_place(|| settings.into_iter().map(Instance::start).collect());
    let balancer = block_in_place(|| start(program, &addresses(&instances)));
    let plan = Plan {
        table: Table::Interactions,
        bodies: 20_000,
        senders: 4,
        bodies_per_second: 40,
        abandon_every: 0,
        ..Plan::default()
    };
    let traffic = Traffic::start(balancer.address, plan);
    block_in_place(|| {
        traffic.reach(BODIES);
        instances[0].process.kill();
        traffic.reach(traffic.acknowledged() + 2 * BODIES);
    });
    let sent = block_in_place(|| traffic.stop());
    // What a sender may see apart from 200 and 202 is the balancer's own: 502, 503 and 504.
    for strange in &sent.tally.strange {
        assert!(
            strange.starts_with("502") || strange.starts_with("504"),
            "{strange}"
        );
    }
    // What the killed one had taken is on its disk.
    let settings = instances[0].settings.clone();
    instances[0] = block_in_place(|| Instance::start(settings));
    assert_all_verified(&instances).await;
    let numbers = sent.plan.mix.numbers(sent.plan.bodies);
    let stored = Stored::read(&database, "interaction_events", numbers).await;
    let audit = Audit::of(&[&sent], &stored, None);
    assert!(
        audit.is_good() && audit.acknowledged > 0,
        "{program}: {audit:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn behind_nginx_as_documented() {
    senders_hardly_notice_that_an_instance_is_killed("nginx").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn behind_haproxy_as_documented() {
    senders_hardly_notice_that_an_instance_is_killed("haproxy").await;
}

#[test]
fn both_configurations_name_three_instances_and_a_place_to_listen() {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let instances = [address(1), address(2), address(3)];
    for language in ["nginx", "haproxy"] {
        let text = configuration(language, address(9), &instances);
        assert!(!text.contains("10.0.0."), "{text}");
    }
}
