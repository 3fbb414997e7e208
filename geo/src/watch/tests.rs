//! The source of the topology on a real file system, look by look, and once with its task.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::time::{Duration, SystemTime};

use super::file::{look, take};
use super::running::Taken;
use super::*;

#[test]
fn an_accepted_change_runs_and_is_kept() {
    let place = Place::new();
    let mut source = place.start().unwrap();
    assert_eq!(fs::read_to_string(place.copy()).unwrap(), document(1, 100));
    place.write(&document(2, 50));
    assert_eq!(accepted(&mut source), Some(2));
    assert_eq!(source.running.topology().sun("sun1-1-1").unwrap().server.weight.get(), 50);
    assert_eq!(fs::read_to_string(place.copy()).unwrap(), document(2, 50));
    assert_eq!(accepted(&mut source), None);
}

#[test]
fn a_refused_document_leaves_the_running_one_and_is_told_once() {
    let place = Place::new();
    let mut source = place.start().unwrap();
    place.write(&document(2, 300));
    check_warnings(1, || (0..9).for_each(|_| assert_eq!(accepted(&mut source), None)));
    assert_eq!(source.running.topology().version, 1);
    place.write("version = ");
    check_warnings(1, || (0..9).for_each(|_| assert_eq!(accepted(&mut source), None)));
    assert_eq!(fs::read_to_string(place.copy()).unwrap(), document(1, 100));
    place.write(&document(1, 100));
    check_warnings(0, || assert_eq!(accepted(&mut source), None));
    place.write(&document(2, 200));
    check_warnings(0, || assert_eq!(accepted(&mut source), Some(2)));
}

#[test]
fn a_file_that_is_away_leaves_the_running_one_and_is_told_once() {
    let place = Place::new();
    let mut source = place.start().unwrap();
    for _ in 0..2 {
        fs::remove_file(place.file()).unwrap();
        check_warnings(1, || (0..9).for_each(|_| assert_eq!(accepted(&mut source), None)));
        place.write(&document(1, 100));
        check_warnings(0, || assert_eq!(accepted(&mut source), None));
    }
    fs::remove_file(place.file()).unwrap();
    check_warnings(1, || assert_eq!(accepted(&mut source), None));
    place.write(&document(2, 100));
    check_warnings(0, || assert_eq!(accepted(&mut source), Some(2)));
}

#[test]
fn a_version_that_does_not_rise_is_accepted_with_a_warning() {
    let place = Place::new();
    let mut source = place.start().unwrap();
    place.write(&document(1, 50));
    check_warnings(1, || assert_eq!(accepted(&mut source), Some(1)));
    place.write(&document(0, 100));
    check_warnings(1, || assert_eq!(accepted(&mut source), Some(0)));
    place.write(&document(1, 100));
    check_warnings(0, || assert_eq!(accepted(&mut source), Some(1)));
}

#[test]
fn a_start_falls_back_to_the_last_good_copy() {
    for away in [true, false] {
        let place = Place::new();
        drop(place.start().unwrap());
        if away {
            fs::remove_file(place.file()).unwrap();
        } else {
            place.write(&document(2, 300));
        }
        let mut source = None;
        check_warnings(1, || source = Some(place.start().unwrap()));
        let mut source = source.unwrap();
        assert_eq!(source.running.topology().version, 1);
        check_warnings(0, || assert_eq!(accepted(&mut source), None));
        place.write(&document(3, 100));
        check_warnings(0, || assert_eq!(accepted(&mut source), Some(3)));
    }
}

#[test]
fn a_source_that_comes_back_as_the_copy_has_it_changes_nothing_more() {
    let place = Place::new();
    drop(place.start().unwrap());
    fs::remove_file(place.file()).unwrap();
    let mut source = place.start().unwrap();
    place.write(&document(1, 100));
    check_warnings(0, || assert_eq!(accepted(&mut source), None));
}

#[test]
fn without_a_usable_document_there_is_no_start() {
    let place = Place::new();
    fs::remove_file(place.file()).unwrap();
    let why = place.start().unwrap_err();
    assert!(why.starts_with("No such file"), "{why}");
    assert!(why.contains(&format!("; and its last good copy {}: No such file", place.copy().display())), "{why}");
    place.write(&document(1, 300));
    fs::create_dir_all(place.copy().parent().unwrap()).unwrap();
    fs::write(place.copy(), [0xff]).unwrap();
    let why = place.start().unwrap_err();
    assert!(why.contains("weight = 300: a weight is 0..=256"), "{why}");
    assert!(why.contains("it is not UTF-8"), "{why}");
    assert!(Looked::start(place.file(), None).unwrap_err().contains("weight = 300"));
}

#[test]
fn a_copy_that_cannot_be_kept_is_told_and_costs_nothing_else() {
    let place = Place::new();
    fs::write(place.copy().parent().unwrap(), "in the way").unwrap();
    check_warnings(1, || assert_eq!(place.start().unwrap().running.topology().version, 1));
}

#[tokio::test]
async fn a_change_reaches_every_receiver_however_it_is_written() {
    let place = Place::new();
    let mut first = follow(&place.file().into(), Some(place.copy()), Metrics::default()).await.unwrap();
    let mut second = first.clone();
    assert_eq!(first.borrow_and_update().version, 1);
    place.write(&document(2, 50));
    assert_eq!(next_version(&mut first).await, 2);
    assert_eq!(next_version(&mut second).await, 2);
    write_atomically(&place.file(), &document(3, 50)).unwrap();
    assert_eq!(next_version(&mut first).await, 3);
    // Same length, same modification time.
    let modified = fs::metadata(place.file()).unwrap().modified().unwrap();
    place.write(&document(4, 50));
    let times = fs::FileTimes::new().set_modified(modified);
    fs::File::options().write(true).open(place.file()).unwrap().set_times(times).unwrap();
    assert_eq!(next_version(&mut first).await, 4);
}

#[test]
fn what_is_wrong_with_the_source_is_told_until_it_is_mended() {
    let place = Place::new();
    let mut source = place.start().unwrap();
    let registry = prometheus::Registry::new();
    let readiness = daemon::admin::Readiness::default();
    let metrics = Metrics::register(&registry, &readiness).unwrap();
    let mut check = |text: Option<&str>, refused: f64, version: f64, note: &str| {
        match text {
            Some(text) => place.write(text),
            None => fs::remove_file(place.file()).unwrap(),
        }
        accepted(&mut source);
        metrics.runs(&source.running);
        let gauge = |name: &str| {
            let family = registry.gather().into_iter().find(|family| family.name() == name).unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert_eq!((gauge("topology_refused"), gauge("topology_version_in_force")), (refused, version), "{text:?}");
        let notes = readiness.notes().concat();
        assert!(notes.contains(note) && notes.is_empty() == note.is_empty() && !notes.contains('\n'), "{notes}");
    };
    check(Some(&document(2, 100)), 0.0, 2.0, "");
    check(Some(&document(3, 300)), 1.0, 2.0, "is refused, version 2 stays in force: sun[0] sun1-1-1: weight = 300");
    check(None, 1.0, 2.0, "cannot be read, version 2 stays in force: No such file");
    check(Some("version = "), 1.0, 2.0, "is refused, version 2");
    check(Some(&document(2, 100)), 0.0, 2.0, "");
    check(Some(&document(3, 100)), 0.0, 3.0, "");
}

#[tokio::test]
async fn the_task_ends_when_nobody_listens() {
    let place = Place::new();
    let source = place.start().unwrap();
    let (sender, receiver) = watch::channel(source.running.topology());
    let task = tokio::spawn(run(FileFollowed::new(place.file()), source.running, sender, Metrics::default()));
    drop(receiver);
    tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_error_names_the_file() {
    let error = follow(&Source::File("/nonexistent/topology.toml".into()), None, Metrics::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("topology /nonexistent/topology.toml: No such file"), "{error}");
}

async fn next_version(receiver: &mut Watched) -> u64 {
    tokio::time::timeout(DEADLINE, receiver.changed()).await.expect("a change in time").unwrap();
    receiver.borrow_and_update().version
}

/// Looks until the source is settled; the version that was accepted meanwhile.
fn accepted(source: &mut Looked) -> Option<u64> {
    let news = loop {
        if let Some(news) = look(&mut source.file, SystemTime::now()) {
            break news;
        }
    };
    match source.running.take(news) {
        Taken::Accepted(topology) => Some(topology.version),
        Taken::Nothing | Taken::Refused => None,
    }
}

/// A file and what runs of it, without the task.
#[derive(Debug)]
struct Looked {
    file: disk::Followed,
    running: Running,
}

impl Looked {
    fn start(path: PathBuf, last_good: Option<PathBuf>) -> Result<Self, String> {
        let name = path.display().to_string();
        let mut file = disk::Followed::new(path, crate::topology::DOCUMENT_BYTES_MAX as u64);
        let first = take(&mut file);
        Ok(Self { file, running: Running::start(name, first, last_good)? })
    }
}

/// A folder with a document and room for its copy.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write(&document(1, 100));
        place
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("topology.toml")
    }

    fn copy(&self) -> PathBuf {
        self.0.path().join("data/topology.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    fn start(&self) -> Result<Looked, String> {
        Looked::start(self.file(), Some(self.copy()))
    }
}

fn document(version: u64, weight: u16) -> String {
    format!(
        r#"
version = {version}
domain = "example.org"
default_region = 1
content_servers = {{ url = "http://cs{{number}}", numbers = ["1"] }}
region = [{{ id = 1, name = "one", latitude = 0, longitude = 0 }}]
group = [{{ name = "sun1-1", subnet = "192.0.2.0/24" }}]
sun = [{{ name = "sun1-1-1", addresses = ["192.0.2.1"], internal = "10.0.0.1:81", weight = {weight} }}]
"#
    )
}

/// Runs something and counts its warnings.
#[track_caller]
fn check_warnings(expected: usize, run: impl FnOnce()) {
    let counter = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(CountWarnings(counter.clone()), run);
    assert_eq!(counter.load(Ordering::Relaxed), expected, "warnings");
}

struct CountWarnings(Arc<AtomicUsize>);

impl tracing::Subscriber for CountWarnings {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &tracing::Event<'_>) {
        if *event.metadata().level() == tracing::Level::WARN {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Far above the 250 ms that a change takes, for machines that are busy.
const DEADLINE: Duration = Duration::from_secs(30);
