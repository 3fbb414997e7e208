//! The systemd units that are shipped: systemd understands them, they leave little open, and they say what they must and must not
//! say. A systemd runs them in [`crate::booted`].

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tests::poll;

const UNITS: [&str; 6] = [
    "sun.service",
    "sun-check.service",
    "sun-addresses.service",
    "popularity-api.service",
    "cache-daemon.service",
    "geo.service",
];

#[test]
fn systemd_understands_the_units_and_finds_them_hardened() {
    let root = tempfile::tempdir().unwrap();
    let shipped = shipped();
    let units = root.path().join("etc/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    let mut found: Vec<String> = std::fs::read_dir(&shipped)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".service"))
        .collect();
    found.sort();
    let mut expected = UNITS.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(found, expected);
    for unit in UNITS {
        std::fs::copy(shipped.join(unit), units.join(unit)).unwrap();
    }
    let more = "sun-check.service.d";
    std::fs::create_dir(units.join(more)).unwrap();
    std::fs::copy(shipped.join(more).join("bird.conf"), units.join(more).join("bird.conf")).unwrap();
    // What they start has to be there.
    std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    for program in ["sun", "sun-check", "popularity-api", "cache-daemon", "geo", "systemctl"] {
        std::fs::copy("/bin/true", root.path().join("usr/bin").join(program)).unwrap();
    }
    std::fs::create_dir_all(root.path().join("bin")).unwrap();
    for program in ["sh", "kill"] {
        std::fs::copy("/bin/true", root.path().join("bin").join(program)).unwrap();
    }
    let root = format!("--root={}", root.path().display());
    let (good, said) = analyze(&[&["verify", &root, "--man=no", "--recursive-errors=no"], &UNITS[..]].concat());
    assert!(good && said.is_empty(), "{said}");
    for unit in UNITS {
        // Tenths of systemd's exposure: 0 is sealed, 100 is open.
        let (good, said) = analyze(&["security", &root, "--offline=yes", "--no-pager", "--threshold=25", unit]);
        assert!(good, "{said}");
    }
}

#[test]
fn a_sun_that_crashes_leaves_its_self_check_alone_and_one_that_is_stopped_stops_it_first() {
    let sun = settings("sun.service");
    let check = settings("sun-check.service");
    // systemd propagates its own restarts through each of these.
    for key in ["PartOf=", "BindsTo=", "StopPropagatedFrom="] {
        assert!(!check.iter().any(|line| line.starts_with(key)), "{key}: {check:?}");
    }
    assert!(!check.iter().any(|line| line.starts_with("Requires=") && line.contains("sun.service")), "{check:?}");
    assert!(sun.contains(&"ExecStop=+-/usr/bin/systemctl stop sun-check.service".to_owned()), "{sun:?}");
    let start = "ExecStartPost=+-/usr/bin/systemctl start --no-block sun-check.service";
    assert!(sun.contains(&start.to_owned()), "the self-check is ordered after the sun, which must not wait: {sun:?}");
    assert!(check.contains(&"Requires=sun-addresses.service".to_owned()), "{check:?}");
    let addresses = settings("sun-addresses.service");
    assert!(addresses.contains(&start.to_owned()), "systemd goes by Wants= at each failure as well: {addresses:?}");
    // One that hangs leaves BIRD announcing what nobody watches. It answers when it is killed as when it crashes.
    assert!(check.contains(&"WatchdogSec=10".to_owned()) && check.contains(&"Restart=always".to_owned()), "{check:?}");
    assert!(check.contains(&"Type=notify".to_owned()), "{check:?}");
    // A group that only BIRD's package makes.
    assert!(!check.iter().any(|line| line.starts_with("SupplementaryGroups=")), "{check:?}");
}

#[tokio::test]
async fn a_sun_whose_self_check_crashed_is_the_last_choice_and_what_was_withdrawn_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let bird = Bird::start(folder.path());
    poll::until_true("BIRD answers", || async { bird.ask(&["show", "status"]).contains("Daemon is up") }).await;
    for result in ["signal", "exit-code", "watchdog"] {
        bird.ends(result);
        assert_eq!(bird.up(), [false, false], "{result}: nothing was announced");
    }
    bird.ask(&["enable", "\"sun_up_*\""]);
    bird.ends("success");
    assert_eq!(bird.up(), [true, false], "it was stopped, and did itself what it was to do");
    bird.ends("signal");
    assert_eq!(bird.up(), [false, true]);
    bird.ends("exit-code");
    assert_eq!(bird.up(), [false, true], "it cannot be started");
}

/// BIRD with a route as `sunctl render bird` has it, and without a session.
struct Bird {
    control: PathBuf,
    child: Child,
}

impl Bird {
    fn start(folder: &Path) -> Self {
        let (config, control) = (folder.join("bird.conf"), folder.join("bird.ctl"));
        let text = "router id 192.0.2.1;\nprotocol device {}\n\
                    protocol static sun_up_1 { disabled; ipv4; route 192.0.2.1/32 blackhole; }\n\
                    protocol static sun_drain_1 { disabled; ipv4; route 192.0.2.1/32 blackhole; }\n";
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("/usr/sbin/bird");
        command.arg("-f").arg("-c").arg(config).arg("-s").arg(&control).arg("-P").arg(folder.join("bird.pid"));
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("tests/setup installs BIRD");
        Self { control, child }
    }

    fn ask(&self, command: &[&str]) -> String {
        let output = Command::new("/usr/sbin/birdc").arg("-s").arg(&self.control).args(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What systemd does when the self-check ended with this result.
    #[track_caller]
    fn ends(&self, result: &str) {
        let mut command = Command::new("sh");
        command.arg(shipped().join("unwatched")).env("BIRD_SOCKET", &self.control).env("SERVICE_RESULT", result);
        let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Whether the route is announced as best, as the last choice.
    fn up(&self) -> [bool; 2] {
        let told = self.ask(&["show", "protocols"]);
        ["sun_up_1", "sun_drain_1"].map(|name| {
            let row = told.lines().find(|row| row.starts_with(name)).unwrap();
            row.split_whitespace().nth(3) == Some("up")
        })
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd")
}

/// A unit's lines, without comments.
fn settings(unit: &str) -> Vec<String> {
    let text = std::fs::read_to_string(shipped().join(unit)).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn analyze(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("systemd-analyze: {error}; tests/setup installs it"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}
