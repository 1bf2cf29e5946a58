//! One Kafka broker, which is its own controller, on loopback. It ends with this process, even if
//! that is killed.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard, OnceCell};

const POM: &str = include_str!("../pom.xml");
const SUMS: &str = include_str!("../jars.sha256");

/// The id of the cluster, which the broker's data is bound to.
const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";

/// Kills the broker once standard input ends.
const UNTIL_STDIN_ENDS: &str = "\"$@\" < /dev/null & pid=$!; read -r _; kill -9 $pid; wait $pid";

/// A broker.
pub struct Broker {
    shell: Option<Child>,
    /// The broker's program and arguments.
    command: Vec<String>,
    address: String,
    dir: PathBuf,
}

/// The broker, for one test at a time; `None`, with a sentence, where Java or Maven are missing.
pub async fn broker() -> Option<MutexGuard<'static, Broker>> {
    static SHARED: OnceCell<Option<Mutex<Broker>>> = OnceCell::const_new();
    let starting = || async { tokio::task::block_in_place(Broker::start).map(Mutex::new) };
    Some(SHARED.get_or_init(starting).await.as_ref()?.lock().await)
}

impl Broker {
    /// Starts a broker with an empty log.
    fn start() -> Option<Self> {
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
        let jars = jars();
        // One at a time in a target directory; what the last run left is removed.
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka-broker");
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).unwrap();
        let (port, controller) = (free_port(), free_port());
        let properties = dir.join("server.properties");
        let data = dir.join("data");
        std::fs::write(
            &properties,
            format!(
                "process.roles=broker,controller\n\
                 node.id=1\n\
                 controller.quorum.voters=1@127.0.0.1:{controller}\n\
                 controller.listener.names=CONTROLLER\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                 log.dirs={}\n\
                 offsets.topic.replication.factor=1\n\
                 offsets.topic.num.partitions=1\n\
                 default.replication.factor=1\n\
                 auto.create.topics.enable=false\n\
                 num.network.threads=1\n\
                 num.io.threads=2\n\
                 log.cleaner.enable=false\n",
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
        let mut broker = Self {
            shell: None,
            command: java("kafka.Kafka", &[&properties]),
            address: format!("127.0.0.1:{port}"),
            dir,
        };
        broker.run();
        Some(broker)
    }

    /// Starts it on what it has, and waits until it listens.
    pub fn run(&mut self) {
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
        let started = Instant::now();
        while TcpStream::connect(&self.address).is_err() {
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

    /// Its HOST:PORT.
    pub fn address(&self) -> &str {
        &self.address
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

/// The folder with the broker's jars, fetched if they are not there as `jars.sha256` names them.
fn jars() -> PathBuf {
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
        let said = String::from_utf8_lossy(&fetched.stdout);
        assert!(fetched.status.success(), "Maven cannot fetch Kafka: {said}");
        assert!(
            is_sound(&folder),
            "Kafka's jars are not those of jars.sha256"
        );
    }
    folder
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
