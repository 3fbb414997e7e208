//! What the server goes by, followed while it runs: its config, the files that it names, the topology.
//!
//! ```text
//!   config, lists, dumps, geoip --looked at each second, at once on SIGHUP--+
//!   topology ---------------------------------------------------------------+--changed? read all--> Loaded --> engine
//!                                                                                 refused --one WARN--> what runs stays
//! ```

mod standing;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::config::Config;
use crate::engine::{Inputs, InputsError, Loaded};
use crate::file::{self, Followed, Look};
use crate::regions::Regions;
use crate::topology::Watched;
use standing::{Seen, Standing};

/// Everything that is followed.
#[derive(Debug)]
pub(super) struct Sources {
    /// The config's own file; none where it has none.
    file: Option<Followed>,
    config: Config,
    topology: Watched,
    /// What the last read, good or bad, was for.
    regions: Regions,
    files: Vec<Followed>,
    dumps: Vec<Glanced>,
    standing: Standing,
}

impl Sources {
    /// Of a config, and the file that it was read from. To be [read](Self::read) next.
    pub(super) fn of(file: Option<PathBuf>, config: Config, topology: Watched) -> Self {
        let regions = Regions::of(&topology.borrow());
        let file = file.map(|path| Followed::new(path, CONFIG_BYTES_MAX));
        let mut sources = Self {
            file,
            config,
            topology,
            regions,
            files: Vec::new(),
            dumps: Vec::new(),
            standing: Standing::default(),
        };
        if let Some(file) = &mut sources.file {
            // It was read a moment ago; when it is away by now, the next look says so.
            drop(file.take());
        }
        sources
    }

    /// Reads everything as it is now.
    pub(super) fn read(&mut self) -> Result<Loaded, InputsError> {
        self.begin();
        self.load()
    }

    /// Reads everything again, if something changed and all of it can be used.
    pub(super) fn look(&mut self, now: SystemTime) -> Option<Loaded> {
        let mut seen = self.look_at_config(now);
        let regions = Regions::of(&self.topology.borrow());
        seen.changed |= regions != self.regions;
        // Also of a load that fails: it is tried again when they change once more.
        self.regions = regions;
        for file in &mut self.files {
            match file.look(now) {
                Look::Same | Look::Unsettled => {}
                Look::Changed(_) | Look::Back => seen.changed = true,
                Look::Unreadable(why) => seen.unreadable = Some(format!("{}: {why}", file.path().display())),
            }
        }
        seen.changed |= self.dumps.iter_mut().fold(false, |changed, dump| dump.look() | changed);
        let loaded = self.standing.seen(seen).then(|| self.load()).and_then(|read| {
            let read = read.map_err(|error| error.to_string());
            self.standing.loaded(read.as_ref().map(|_| ()).map_err(String::clone));
            read.ok()
        });
        if loaded.is_some() {
            tracing::info!("what is known of addresses is read anew");
        }
        if let Some(why) = self.standing.to_say() {
            tracing::warn!(%why, "what is known of addresses cannot be read anew; what runs stays");
        }
        loaded
    }

    /// Looks at the config, and takes over one that can be used.
    fn look_at_config(&mut self, now: SystemTime) -> Seen {
        let mut seen = Seen::default();
        let Some((look, name)) = self.file.as_mut().map(|file| (file.look(now), file.path().display().to_string()))
        else {
            return seen;
        };
        match look {
            Look::Same | Look::Unsettled | Look::Back => {}
            Look::Unreadable(why) => seen.config_unreadable = Some(format!("{name}: {why}")),
            Look::Changed(bytes) => {
                seen.config = Some(parse(&bytes, &name).map(|config| self.take_over(config)));
            }
        }
        seen
    }

    fn take_over(&mut self, config: Config) {
        let (config, differs) = config.taken_over(&self.config);
        if differs {
            tracing::warn!(
                "the config says more than can be changed while the server runs: that counts from the next start"
            );
        }
        self.config = config;
        self.begin();
    }

    /// Follows the files that the config names, from what they are now.
    fn begin(&mut self) {
        let Inputs { lists, dumps, geoip, .. } = self.config.inputs();
        let paths = lists.into_iter().map(|list| list.file).chain(geoip);
        self.files = paths.map(|path| Followed::new(path, FILE_BYTES_MAX)).collect();
        for file in &mut self.files {
            // What cannot be read is an error of the load, which names it.
            drop(file.take());
        }
        self.dumps = dumps.into_iter().map(|dump| Glanced::of(dump.file)).collect();
    }

    fn load(&self) -> Result<Loaded, InputsError> {
        let topology = self.topology.borrow().clone();
        Loaded::read(&self.config.inputs(), &topology)
    }

    /// Whether something that was changed is refused.
    pub(super) fn refused(&self) -> bool {
        self.standing.is_refused()
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }
}

/// A config that is as good as one that a start would take.
fn parse(bytes: &[u8], name: &str) -> Result<Config, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("{name}: {error}"))?;
    let config: Config = daemon::config::parse(text, name).map_err(|error| error.to_string())?;
    let problems = config.problems();
    if problems.is_empty() { Ok(config) } else { Err(format!("{name}: {}", problems.join("; "))) }
}

/// A file that is too large to be read over and over: told by its metadata. Dumps are replaced, not rewritten.
#[derive(Debug)]
struct Glanced {
    path: PathBuf,
    taken: Option<file::Stamp>,
    /// Of the last look: something new counts when it was seen twice.
    seen: Option<file::Stamp>,
}

impl Glanced {
    fn of(path: PathBuf) -> Self {
        let stamp = stamp(&path);
        Self { path, taken: stamp, seen: stamp }
    }

    /// Whether it is another one than was taken. A dump that is away is as it was.
    fn look(&mut self) -> bool {
        let now = stamp(&self.path);
        let settled = now == std::mem::replace(&mut self.seen, now);
        let changed = settled && now.is_some() && now != self.taken;
        if changed {
            self.taken = now;
        }
        changed
    }
}

fn stamp(path: &Path) -> Option<file::Stamp> {
    std::fs::metadata(path).ok().map(|metadata| file::Stamp::of(&metadata))
}

/// Longest config, bytes: a hundred thousand rules.
const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Longest list or geoip file that is followed, bytes; what is longer is refused when it is read.
const FILE_BYTES_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
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
        assert!(settled(&mut sources).is_none() && sources.refused());
        assert!(format!("{:?}", sources.standing).contains("list:1: region = 9: the topology has no such region"));
        // The region that was missing comes.
        place.topology.send_replace(Arc::new(topology(9)));
        assert_eq!(answer(settled(&mut sources).unwrap()), "9 prefix 192.0.2.0/24");
        assert!(!sources.refused());
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
            assert!(settled(&mut sources).is_none() && sources.refused(), "{bad}");
        }
        place.write("geo.toml", &place.config());
        assert_eq!(answer(settled(&mut sources).unwrap()), "4 prefix 192.0.2.0/24");
        fs::remove_file(place.path("geo.toml")).unwrap();
        assert!(settled(&mut sources).is_none() && sources.refused());
    }

    #[test]
    fn a_config_that_is_away_and_back_is_no_longer_refused() {
        let place = Place::new();
        let mut sources = place.sources();
        sources.read().unwrap();
        fs::rename(place.path("geo.toml"), place.path("away")).unwrap();
        assert!(settled(&mut sources).is_none() && sources.refused());
        // Meanwhile others count, by the config in use.
        place.write("list", "192.0.2.0/24 5");
        assert_eq!(answer(settled(&mut sources).unwrap()), "5 prefix 192.0.2.0/24");
        assert!(sources.refused());
        fs::rename(place.path("away"), place.path("geo.toml")).unwrap();
        assert!(settled(&mut sources).is_none() && !sources.refused());
    }

    #[test]
    fn a_list_that_changes_does_not_hide_that_the_config_is_refused() {
        let place = Place::new();
        let mut sources = place.sources();
        sources.read().unwrap();
        place.write("geo.toml", "frobnicate = 1");
        assert!(settled(&mut sources).is_none() && sources.refused());
        place.write("list", "192.0.2.0/24 5");
        assert_eq!(answer(settled(&mut sources).unwrap()), "5 prefix 192.0.2.0/24");
        assert!(sources.refused());
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
        assert!(settled(&mut sources).is_none() && sources.refused());
        fs::rename(place.path("away"), place.path("other")).unwrap();
        assert_eq!(answer(settled(&mut sources).unwrap()), "5 prefix 192.0.2.0/24");
        assert!(!sources.refused());
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
        let looks: Vec<_> = (0..3).map(|_| sources.look(SystemTime::now())).collect();
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
}
