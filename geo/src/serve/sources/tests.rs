//! Files that change under a server.

use std::fs;
use std::sync::Arc;

use tokio::sync::watch;

use super::*;
use crate::engine::Engine;
use crate::topology::Topology;

#[test]
fn what_changes_is_read_anew_and_what_is_bad_is_not() {
    let place = Place::new();
    let mut sources = place.sources();
    assert_eq!(answer(sources.read().unwrap()), "4 prefix 192.0.2.0/24");
    assert!(settled(&mut sources).is_none(), "nothing changed");
    place.write("list", "192.0.2.0/24 5");
    assert_eq!(answer(settled(&mut sources).unwrap()), "5 prefix 192.0.2.0/24");
    place.write("list", "192.0.2.0/24 9");
    assert!(settled(&mut sources).is_none() && sources.is_refused());
    assert!(format!("{:?}", sources.standing).contains("list:1: region = 9: the topology has no such region"));
    // The region that was missing comes.
    place.topology.send_replace(Arc::new(topology(9)));
    assert_eq!(answer(settled(&mut sources).unwrap()), "9 prefix 192.0.2.0/24");
    assert!(!sources.is_refused());
}

#[test]
fn a_config_that_changes_is_taken_over_as_far_as_it_counts_at_once() {
    let place = Place::new();
    let mut sources = place.sources();
    let rule = "[[rule]]\naction = 'pin'\nregion = 5\nprefix = '192.0.2.0/25'\n";
    place.write("geo.toml", &format!("drain_s = 3\n{}{rule}", place.config()));
    assert_eq!(answer(settled(&mut sources).unwrap()), "5 rule 192.0.2.0/25");
    assert_eq!(sources.config().drain_s, Config::default().drain_s);
    for bad in ["drain_s = ", "frobnicate = 1", "drain_s = 100000"] {
        place.write("geo.toml", bad);
        assert!(settled(&mut sources).is_none() && sources.is_refused(), "{bad}");
    }
    place.write("geo.toml", &place.config());
    assert_eq!(answer(settled(&mut sources).unwrap()), "4 prefix 192.0.2.0/24");
    fs::remove_file(place.path("geo.toml")).unwrap();
    assert!(settled(&mut sources).is_none() && sources.is_refused());
}

#[test]
fn a_config_that_is_away_and_back_is_no_longer_refused() {
    let place = Place::new();
    let mut sources = place.sources();
    sources.read().unwrap();
    fs::rename(place.path("geo.toml"), place.path("away")).unwrap();
    assert!(settled(&mut sources).is_none() && sources.is_refused());
    // Meanwhile others count, by the config in use.
    place.write("list", "192.0.2.0/24 5");
    assert_eq!(answer(settled(&mut sources).unwrap()), "5 prefix 192.0.2.0/24");
    assert!(sources.is_refused());
    fs::rename(place.path("away"), place.path("geo.toml")).unwrap();
    assert!(settled(&mut sources).is_none() && !sources.is_refused());
}

#[test]
fn a_list_that_changes_does_not_hide_that_the_config_is_refused() {
    let place = Place::new();
    let mut sources = place.sources();
    sources.read().unwrap();
    place.write("geo.toml", "frobnicate = 1");
    assert!(settled(&mut sources).is_none() && sources.is_refused());
    place.write("list", "192.0.2.0/24 5");
    assert_eq!(answer(settled(&mut sources).unwrap()), "5 prefix 192.0.2.0/24");
    assert!(sources.is_refused());
}

#[test]
fn a_list_that_changes_while_another_file_is_away_is_read_when_that_is_back() {
    let place = Place::new();
    place.write("other", "192.0.2.128/25 5");
    let more = format!("{}[[list]]\nfile = '{}'\n", place.config(), place.path("other").display());
    let mut sources = place.sources();
    place.write("geo.toml", &more);
    settled(&mut sources).unwrap();
    fs::rename(place.path("other"), place.path("away")).unwrap();
    place.write("list", "192.0.2.0/24 5");
    assert!(settled(&mut sources).is_none() && sources.is_refused());
    fs::rename(place.path("away"), place.path("other")).unwrap();
    assert_eq!(answer(settled(&mut sources).unwrap()), "5 prefix 192.0.2.0/24");
    assert!(!sources.is_refused());
}

#[test]
fn another_list_is_followed_from_then_on() {
    let place = Place::new();
    let mut sources = place.sources();
    place.write("other", "192.0.2.0/24 5");
    place.write("geo.toml", &place.config().replace("list'", "other'"));
    assert_eq!(answer(settled(&mut sources).unwrap()), "5 prefix 192.0.2.0/24");
    place.write("list", "192.0.2.0/24 6");
    assert!(settled(&mut sources).is_none());
    place.write("other", "192.0.2.0/24 4");
    assert_eq!(answer(settled(&mut sources).unwrap()), "4 prefix 192.0.2.0/24");
}

#[test]
fn a_list_that_lost_much_is_refused_until_somebody_insists() {
    let place = Place::new();
    let lines = |count: u16| -> String { (0..count).map(|n| format!("192.0.{n}.0/24 4\n")).collect() };
    place.write("list", &lines(100));
    let mut sources = place.sources();
    assert_eq!(answer(sources.read().unwrap()), "4 prefix 192.0.2.0/24");
    place.write("list", "");
    assert!(settled(&mut sources).is_some() && sources.is_refused(), "all but the list");
    assert!(settled(&mut sources).is_none(), "once");
    let why = sources.refusals().join(" ");
    assert!(why.contains("list IPv4: it had 100 entries and has 0") && why.contains("SIGHUP"), "{why}");
    // It gets worse, or better: who asks did not know.
    place.write("list", &lines(20));
    assert!(settled(&mut sources).is_some() && sources.is_refused());
    assert!(sources.look(SystemTime::now(), true).is_some(), "20 are left, and that was told");
    assert!(!sources.is_refused());
    place.write("list", &lines(5));
    assert!(settled(&mut sources).is_some() && sources.is_refused());
    // As it was before the accident.
    place.write("list", &lines(20));
    assert!(settled(&mut sources).is_some() && !sources.is_refused());
    // A config that is emptied names no list any more.
    place.write("geo.toml", "");
    assert!(settled(&mut sources).is_none() && sources.is_refused());
    assert!(sources.refusals().join(" ").contains("the config: it had 1 entries"), "{:?}", sources.refusals());
}

#[test]
fn while_a_list_is_refused_it_counts_as_it_was_and_others_count() {
    let place = Place::new();
    place.write("list", "192.0.2.0/24 4\n2001:db8::/32 4\n");
    let mut sources = place.sources();
    let now = std::time::Instant::now();
    let mut engine = Engine::start(sources.read().unwrap(), None, 1, now);
    let told = |engine: &Engine, address: &str| {
        let resolution = engine.resolver().load().resolve(address.parse().unwrap());
        format!("{} {}", resolution.regions[0], resolution.evidence)
    };
    // All of one family is lost, though not half of the file's text.
    place.write("list", "192.0.2.0/24 4\n198.51.100.0/24 4\n");
    engine.install(settled(&mut sources).unwrap(), now);
    assert!(sources.refusals().join(" ").contains("list IPv6: it had 1 entries and has 0"));
    assert_eq!(told(&engine, "2001:db8::1"), "4 prefix 2001:db8::/32");
    assert_eq!(told(&engine, "198.51.100.1"), "5 default");
    let rule = "[[rule]]\naction = 'pin'\nregion = 5\nprefix = '192.0.2.0/25'\n";
    place.write("geo.toml", &format!("{}{rule}", place.config()));
    engine.install(settled(&mut sources).unwrap(), now);
    assert_eq!(told(&engine, "192.0.2.1"), "5 rule 192.0.2.0/25");
    assert_eq!(told(&engine, "192.0.2.200"), "4 prefix 192.0.2.0/24");
    assert_eq!(told(&engine, "2001:db8::1"), "4 prefix 2001:db8::/32");
    assert!(sources.is_refused());
    engine.install(sources.look(SystemTime::now(), true).unwrap(), now);
    assert_eq!(told(&engine, "2001:db8::1"), "5 default");
    assert_eq!(told(&engine, "198.51.100.1"), "4 prefix 198.51.100.0/24");
    assert!(!sources.is_refused());
}

#[test]
fn what_is_lost_between_two_runs_is_refused_by_the_start() {
    let place = Place::new();
    let start = |compares| {
        let mut sources = place.sources();
        sources.remember(place.path("sizes.json"), compares);
        let read = sources.read();
        (sources, read)
    };
    start(true).1.unwrap();
    place.write("list", "");
    let (mut sources, read) = start(true);
    let why = read.unwrap_err();
    assert!(why.0.contains("list IPv4: it had 1 entries and has 0"), "{why}");
    assert_eq!(sources.read_partly(&why).unwrap().missing(), [why.0]);
    // There is nothing that could stay.
    place.write("geo.toml", &format!("{}\n", place.config()));
    assert!(settled(&mut sources).is_none() && sources.is_refused());
    assert!(sources.look(SystemTime::now(), true).is_some() && !sources.is_refused());
    start(true).1.unwrap();
    // Without a table to stand on, what there is counts.
    place.write("list", "192.0.2.0/24 4");
    start(true).1.unwrap();
    place.write("list", "");
    start(false).1.unwrap();
}

#[test]
fn what_could_not_be_read_at_rest_is_not_whole_when_it_can_be_read_at_last() {
    let place = Place::new();
    let mut sources = place.sources();
    let restless = InputsError("files changed while they were read".to_owned());
    let partly = sources.read_partly(&restless).unwrap();
    assert_eq!(partly.missing(), std::slice::from_ref(&restless.0));
    assert_eq!(sources.refusals(), [restless.0]);
}

#[test]
fn an_operator_who_asks_before_it_was_told_gets_nothing_lost() {
    let place = Place::new();
    let mut sources = place.sources();
    sources.read().unwrap();
    place.write("list", "");
    assert!(sources.look(SystemTime::now(), true).is_none(), "seen once");
    assert!(sources.look(SystemTime::now(), true).is_some() && sources.is_refused(), "refused now");
    assert!(sources.look(SystemTime::now(), true).is_some() && !sources.is_refused());
}

#[test]
fn what_changes_while_it_is_read_is_read_again() {
    let (looks, reads) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    // Two looks for each read: they differ for as many reads.
    let tried = |restless: usize| {
        looks.set(0);
        reads.set(0);
        let stamps = || {
            looks.set(looks.get() + 1);
            if looks.get() <= 2 * restless { looks.get() } else { 0 }
        };
        let read = || {
            reads.set(reads.get() + 1);
            Ok(reads.get())
        };
        at_rest(stamps, read).map_err(|error| error.to_string())
    };
    assert_eq!(tried(0), Ok(1));
    assert_eq!(tried(2), Ok(3));
    assert!(tried(3).unwrap_err().contains("then rename"));
}

#[test]
fn a_start_without_a_file_reads_the_rest_and_the_file_when_it_comes() {
    let place = Place::new();
    fs::remove_file(place.path("list")).unwrap();
    let mut sources = place.sources();
    let why = sources.read().unwrap_err();
    assert!(why.to_string().contains("list: No such file"));
    let partly = sources.read_partly(&why).unwrap();
    assert_eq!(partly.missing().len(), 1);
    assert!(sources.is_refused() && settled(&mut sources).is_none());
    place.write("list", "192.0.2.0/24 5");
    let loaded = settled(&mut sources).unwrap();
    assert!(loaded.missing().is_empty() && !sources.is_refused());
    assert_eq!(answer(loaded), "5 prefix 192.0.2.0/24");
}

#[test]
fn a_dump_is_told_by_its_metadata_seen_twice() {
    let place = Place::new();
    let mut dump = Glanced::of(place.path("dump"));
    assert!(!dump.look());
    place.write("dump", "a");
    assert!(!dump.look(), "perhaps it is being written");
    assert!(dump.look());
    assert!(!dump.look());
    fs::remove_file(place.path("dump")).unwrap();
    assert!(!dump.look() && !dump.look(), "what is away is as it was");
    place.write("dump", "ab");
    assert!(!dump.look() && dump.look());
}

struct Place {
    folder: tempfile::TempDir,
    topology: watch::Sender<Arc<Topology>>,
}

impl Place {
    fn new() -> Self {
        let (topology, _) = watch::channel(Arc::new(topology(4)));
        let place = Self { folder: tempfile::tempdir().unwrap(), topology };
        place.write("list", "192.0.2.0/24 4");
        place.write("geo.toml", &place.config());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn config(&self) -> String {
        format!("[[list]]\nfile = '{}'\n", self.path("list").display())
    }

    fn sources(&self) -> Sources {
        let config = daemon::config::parse(&self.config(), "geo.toml").unwrap();
        Sources::of(Some(self.path("geo.toml")), config, self.topology.subscribe())
    }
}

/// Looks until nothing is left to settle; what was read last.
fn settled(sources: &mut Sources) -> Option<Loaded> {
    let looks: Vec<_> = (0..3).map(|_| sources.look(SystemTime::now(), false)).collect();
    looks.into_iter().flatten().last()
}

/// The first region of an address, and what told it.
fn answer(loaded: Loaded) -> String {
    let engine = Engine::start(loaded, None, 1, std::time::Instant::now());
    let resolution = engine.resolver().load().resolve([192, 0, 2, 1].into());
    format!("{} {}", resolution.regions[0], resolution.evidence)
}

/// Regions 5 and `region`.
fn topology(region: u16) -> Topology {
    let document = format!(
        "version = 1\ndomain = 'example.org'\ndefault_region = 5\n\
         content_servers = {{ url = 'http://cs{{number}}', numbers = ['1'] }}\n\
         region = [{{ id = 5, name = 'a', latitude = 1, longitude = 1 }}, {{ id = {region}, name = 'b', latitude = 2, longitude = 2 }}]\n\
         group = [{{ name = 'sun5-1', subnet = '192.0.2.0/24' }}]\n\
         sun = [{{ name = 'sun5-1-1', addresses = ['192.0.2.1'], internal = '10.0.0.1:81', weight = 1 }}]\n"
    );
    Topology::parse(&document).unwrap()
}
