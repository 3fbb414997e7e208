//! `sunctl demo` as a newcomer runs it.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tests::poll;
use tests::process::binary;

/// A demo that runs; killed when dropped, with what it printed shown when the test fails.
#[derive(Debug)]
pub(crate) struct Demo {
    child: Child,
    output: PathBuf,
    folder: tempfile::TempDir,
}

impl Demo {
    /// Starts it on ports of its own and waits for the gallery's address.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("sun-test-").tempdir().expect("a temporary folder");
        let output = folder.path().join("output");
        let file = File::create(&output).expect("a file");
        let mut command = Command::new(binary("sunctl"));
        command.args(["demo", "--plain", "--port", &ports().to_string(), "--for", "170"]).args(arguments);
        // Its temporary folder is below ours, so that what it leaves behind is seen.
        command.env("TMPDIR", folder.path()).current_dir(folder.path());
        let errors = file.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn().expect("sunctl");
        let mut demo = Self { child, output, folder };
        demo.until("Gallery:").await;
        demo
    }

    /// Waits for a line that contains this, and returns it.
    pub(crate) async fn until(&mut self, part: &str) -> String {
        let (child, output) = (&mut self.child, &self.output);
        poll::until(&format!("the demo prints {part:?}"), || {
            let text = std::fs::read_to_string(output).expect("its output");
            let line = text.lines().find(|line| line.contains(part)).map(str::to_owned);
            if line.is_none()
                && let Some(status) = child.try_wait().expect("its status")
            {
                panic!("the demo ended before it printed {part:?}: {status}\n{text}");
            }
            async move { line }
        })
        .await
        .0
    }

    /// Everything it has printed.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// The last word of a line: an address or a path.
    pub(crate) async fn address(&mut self, part: &str) -> String {
        let line = self.until(part).await;
        line.split_whitespace().find(|word| word.contains('/')).expect("an address").to_owned()
    }

    /// What is in its folder for temporary files besides what it printed.
    fn left_behind(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).expect("its folder");
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| *path != self.output).collect()
    }

    /// Ctrl-C, and its end.
    async fn interrupt(&mut self) -> ExitStatus {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, Signal::INT).expect("it can be signalled");
        let child = &mut self.child;
        let ended = poll::until("the end of the demo", || {
            let status = child.try_wait().expect("its status");
            async move { status }
        });
        ended.await.0
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- what the demo printed ----\n{}", self.printed());
        }
    }
}

/// The first of 64 ports that nobody uses, below those that the kernel gives to clients.
fn ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % 250).expect("below 250");
    (0..250_u16)
        .map(|_| 12_000 + 64 * ((begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 250))
        .find(|&base| (base..base + 64).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()))
        .expect("64 free ports in a row")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_is_printed_works() {
    let mut demo = Demo::start(&[]).await;
    let printed = demo.printed();
    let commands: Vec<&str> = printed
        .lines()
        .zip(printed.lines().skip(1))
        .filter(|(title, _)| title.starts_with("# "))
        .map(|(_, command)| command)
        .collect();
    assert!(commands.len() >= 5, "{printed}");
    for command in commands {
        // --fail: an error status is an error, whatever is printed.
        let checked = command.replacen("curl ", "curl --fail --max-time 60 ", 1);
        let run = move || Command::new("bash").args(["-c", &checked]).stdin(Stdio::null()).output();
        let done = tokio::task::spawn_blocking(run).await.expect("no panic").expect("bash");
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{command}\n{said}");
    }
    assert!(demo.interrupt().await.success());
    assert_eq!(demo.left_behind(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn visitors_make_caches_fill_and_ctrl_c_leaves_nothing_behind() {
    let mut demo = Demo::start(&["--load", "20"]).await;
    let data = demo.address("Data folder:").await;
    assert!(Path::new(&data).is_dir(), "{data}");
    let held = |line: &str, cache: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == cache)?;
        words.get(at + 1)?.parse::<u64>().ok()
    };
    poll::until_true("both regions' caches hold files", || {
        let text = demo.printed();
        let last = text.lines().last().unwrap_or_default().to_owned();
        async move { ["cache4-1", "cache5-1"].iter().all(|cache| held(&last, cache).is_some_and(|files| files > 0)) }
    })
    .await;
    assert!(demo.interrupt().await.success());
    let farewell = demo.until("Ended after").await;
    assert!(farewell.contains(" 0 errors"), "{farewell}");
    assert!(!Path::new(&data).exists(), "{data} was left behind");
    assert_eq!(demo.left_behind(), Vec::<PathBuf>::new());
}
