//! Kafka brokers, which are their own controllers, on loopback, each behind a wire that can be cut. They
//! end with this process, even if that is killed.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::Wire;

const POM: &str = include_str!("../pom.xml");
const SUMS: &str = include_str!("../jars.sha256");

/// The id of the cluster, which the brokers' data is bound to.
const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";

/// Kills the broker once standard input ends.
const UNTIL_STDIN_ENDS: &str = "\"$@\" < /dev/null & pid=$!; read -r _; kill -9 $pid; wait $pid";

/// A cluster of brokers.
pub struct Brokers {
    jars: PathBuf,
    nodes: Vec<Broker>,
}

/// A broker.
pub struct Broker {
    shell: Option<Child>,
    /// The broker's program and arguments.
    command: Vec<String>,
    /// Where it listens.
    own: String,
    /// Where others reach it.
    wire: Wire,
    dir: PathBuf,
}

/// One broker, for one test at a time; `None`, with a sentence, where Java or Maven are missing.
pub async fn broker() -> Option<MutexGuard<'static, Brokers>> {
    static SHARED: OnceCell<Option<Mutex<Brokers>>> = OnceCell::const_new();
    let start = || Brokers::start("kafka-broker", 1).map(Mutex::new);
    let starting = || async { tokio::task::block_in_place(start) };
    Some(SHARED.get_or_init(starting).await.as_ref()?.lock().await)
}

impl Brokers {
    /// Starts brokers with empty logs, in directories of this name: one run at a time in a target
    /// directory. Two of three have to have what is acknowledged.
    pub fn start(name: &str, count: u16) -> Option<Self> {
        for program in ["java", "mvn"] {
            let ran = Command::new(program)
                .arg("-version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if !ran.is_ok_and(|status| status.success()) {
                eprintln!("skipped: these tests need {program}, and it does not run here");
                return None;
            }
        }
        let jars = jars()?;
        let controllers: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let voters = (1..).zip(&controllers);
        let voters = voters.map(|(id, port)| format!("{id}@127.0.0.1:{port}"));
        let voters = voters.collect::<Vec<_>>().join(",");
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::remove_dir_all(&dir).ok();
        let nodes = (1..).zip(&controllers);
        let nodes = nodes.map(|(id, port)| {
            let of_node = format!(
                "node.id={id}\n\
                 controller.quorum.voters={voters}\n\
                 default.replication.factor={count}\n\
                 offsets.topic.replication.factor={count}\n\
                 min.insync.replicas={}\n",
                count.div_ceil(2)
            );
            Broker::prepare(&jars, dir.join(id.to_string()), *port, &of_node)
        });
        let nodes = nodes.collect();
        let mut brokers = Self { jars, nodes };
        for broker in &mut brokers.nodes {
            broker.spawn();
        }
        for broker in &brokers.nodes {
            broker.wait_until_it_listens();
        }
        Some(brokers)
    }

    /// Their HOST:PORT, with commas between.
    pub fn address(&self) -> String {
        let nodes = self.nodes.iter();
        let all = nodes.map(|broker| broker.wire.address.to_string());
        all.collect::<Vec<_>>().join(",")
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// One of them.
    pub fn node(&mut self, at: usize) -> &mut Broker {
        let count = self.count();
        &mut self.nodes[at % count]
    }

    /// A script for sh that runs a tool of Kafka's, by its class.
    pub fn tool(&self, class: &str) -> String {
        let classes = self.jars.display();
        format!("#!/bin/sh\nexec java -Xmx128m -cp '{classes}/*' {class} \"$@\"\n")
    }

    /// Their processes.
    pub fn pids(&self) -> Vec<Pid> {
        self.nodes.iter().filter_map(Broker::pid).collect()
    }
}

impl Broker {
    fn prepare(jars: &Path, dir: PathBuf, controller: u16, of_node: &str) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let port = free_port();
        let own = format!("127.0.0.1:{port}");
        let wire = Wire::to(&own);
        let properties = dir.join("server.properties");
        let data = dir.join("data");
        std::fs::write(
            &properties,
            format!(
                "process.roles=broker,controller\n\
                 controller.listener.names=CONTROLLER\n\
                 listeners=PLAINTEXT://{own},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://{}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                 log.dirs={}\n\
                 offsets.topic.num.partitions=1\n\
                 auto.create.topics.enable=false\n\
                 num.network.threads=1\n\
                 num.io.threads=2\n\
                 log.cleaner.enable=false\n\
                 {of_node}",
                wire.address,
                data.display()
            ),
        )
        .unwrap();
        let java = |main: &str, arguments: &[&str]| {
            let classes = format!("{}/*", jars.display());
            let options = [
                "java",
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp",
                &classes,
                main,
            ];
            let all = options.iter().chain(arguments);
            all.map(|&word| word.to_owned()).collect::<Vec<String>>()
        };
        let properties = properties.display().to_string();
        let format = ["format", "--cluster-id", CLUSTER, "--config", &properties];
        let format = java("kafka.tools.StorageTool", &format);
        let formatted = Command::new(&format[0]).args(&format[1..]).output();
        let formatted = formatted.unwrap();
        assert!(formatted.status.success(), "{formatted:?}");
        Self {
            shell: None,
            command: java("kafka.Kafka", &[&properties]),
            own,
            wire,
            dir,
        }
    }

    /// Starts it on what it has, and waits until it listens.
    pub fn run(&mut self) {
        self.spawn();
        self.wait_until_it_listens();
    }

    fn spawn(&mut self) {
        let output = |name| {
            let mut options = OpenOptions::new();
            let file = options.create(true).append(true);
            file.open(self.dir.join(name)).unwrap()
        };
        let shell = Command::new("/bin/sh")
            .args(["-c", UNTIL_STDIN_ENDS, "sh"])
            .args(&self.command)
            .stdin(Stdio::piped())
            .stdout(output("out"))
            .stderr(output("err"))
            .spawn()
            .unwrap();
        self.shell = Some(shell);
    }

    fn wait_until_it_listens(&self) {
        let started = Instant::now();
        while TcpStream::connect(&self.own).is_err() {
            assert!(
                started.elapsed() < super::SOON,
                "the broker does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }

    /// Stops or continues its process.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid().expect("a broker that runs"), signal).unwrap();
    }

    /// Holds back all that others send to it and it to them, or no more.
    pub fn cut(&self, is_cut: bool) {
        self.wire.cut(is_cut);
    }

    /// Java's process, a child of the shell.
    fn pid(&self) -> Option<Pid> {
        let shell = self.shell.as_ref()?.id();
        let path = format!("/proc/{shell}/task/{shell}/children");
        let children = std::fs::read_to_string(path).unwrap();
        Pid::from_raw(children.split_whitespace().next()?.parse().unwrap())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        format!("{}{}", read("out"), read("err"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder with the broker's jars, fetched if they are not there as `jars.sha256` names them;
/// `None`, with a sentence, where Maven cannot fetch them.
fn jars() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka-jars");
    if !is_sound(&folder) {
        std::fs::create_dir_all(&folder).unwrap();
        let pom = folder.join("pom.xml");
        std::fs::write(&pom, POM).unwrap();
        let fetched = Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(&pom)
            .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", folder.display()))
            .output()
            .unwrap();
        if !fetched.status.success() {
            let said = String::from_utf8_lossy(&fetched.stdout);
            eprintln!(
                "skipped: these tests need Kafka's jars, and Maven cannot fetch them: {said}"
            );
            return None;
        }
        assert!(
            is_sound(&folder),
            "Kafka's jars are not those of jars.sha256"
        );
    }
    Some(folder)
}

/// Whether the folder has the jars with their checksums.
fn is_sound(folder: &Path) -> bool {
    let sums = folder.join("jars.sha256");
    if !folder.is_dir() || std::fs::write(&sums, SUMS).is_err() {
        return false;
    }
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "jars.sha256"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    checked.is_ok_and(|status| status.success())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
