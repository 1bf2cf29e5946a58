//! One Kafka broker, which is its own controller, on loopback. It ends with this process, even if
//! that is killed.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const POM: &str = include_str!("../pom.xml");
const SUMS: &str = include_str!("../jars.sha256");

/// Kills the broker once standard input ends.
const UNTIL_STDIN_ENDS: &str = "\"$@\" & pid=$!; read -r _; kill -9 $pid";

/// A broker.
pub struct Broker {
    shell: Child,
    address: String,
    dir: TempDir,
}

/// The broker that the tests share; `None`, with a sentence, where Java or Maven are missing.
pub fn broker() -> Option<&'static Broker> {
    static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
    SHARED.get_or_init(Broker::start).as_ref()
}

impl Broker {
    /// Starts a broker with an empty log.
    pub fn start() -> Option<Self> {
        for (program, argument) in [("java", "-version"), ("mvn", "-version")] {
            let ran = Command::new(program)
                .arg(argument)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if !ran.is_ok_and(|status| status.success()) {
                eprintln!("skipped: these tests need {program}, and it does not run here");
                return None;
            }
        }
        let jars = jars();
        let dir = tempfile::tempdir().unwrap();
        let (port, controller) = (free_port(), free_port());
        let properties = dir.path().join("server.properties");
        let data = dir.path().join("data");
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
        let classes = format!("{}/*", jars.display());
        let java = |main: &str| {
            vec![
                "java".to_owned(),
                "-Xmx256m".to_owned(),
                "-XX:+UseSerialGC".to_owned(),
                "-XX:TieredStopAtLevel=1".to_owned(),
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned(),
                "-cp".to_owned(),
                classes.clone(),
                main.to_owned(),
            ]
        };
        let tool = java("kafka.tools.StorageTool");
        let formatted = Command::new(&tool[0])
            .args(&tool[1..])
            .args([
                "format", "--cluster-id", "4L6g3nShT-eMCtK--X86sw", "--config",
            ])
            .arg(&properties)
            .output()
            .unwrap();
        assert!(formatted.status.success(), "{formatted:?}");
        let shell = Command::new("/bin/sh")
            .args(["-c", UNTIL_STDIN_ENDS, "sh"])
            .args(java("kafka.Kafka"))
            .arg(&properties)
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(dir.path().join("out")).unwrap())
            .stderr(std::fs::File::create(dir.path().join("err")).unwrap())
            .spawn()
            .unwrap();
        let broker = Self {
            shell,
            address: format!("127.0.0.1:{port}"),
            dir,
        };
        let started = Instant::now();
        while TcpStream::connect(&broker.address).is_err() {
            assert!(
                started.elapsed() < super::SOON,
                "the broker does not start: {}",
                broker.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(broker)
    }

    /// Its HOST:PORT.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        format!("{}{}", read("out"), read("err"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().ok();
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
