//! What the server goes by, followed while it runs: its config, the files that it names, the topology.
//!
//! ```text
//!   config, lists, dumps, geoip --looked at each second, at once on SIGHUP--+
//!   topology ---------------------------------------------------------------+--changed? read all--> Loaded --> engine
//!                                                                                 refused --one WARN--> what runs stays
//! ```

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::config::Config;
use crate::engine::{Inputs, InputsError, Loaded};
use crate::file::{self, Followed, Look};
use crate::regions::Regions;
use crate::topology::Watched;

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
    /// What was said of the last look: that it failed, and why.
    said: Option<String>,
}

impl Sources {
    pub(super) fn of(file: Option<PathBuf>, config: Config, topology: Watched) -> Self {
        let regions = Regions::of(&topology.borrow());
        let file = file.map(|path| Followed::new(path, CONFIG_BYTES_MAX));
        let mut sources = Self { file, config, topology, regions, files: Vec::new(), dumps: Vec::new(), said: None };
        if let Some(file) = &mut sources.file {
            // It was read a moment ago; when it is away by now, the next look says so.
            drop(file.take());
        }
        sources.begin();
        sources
    }

    /// Reads everything as it is now.
    pub(super) fn read(&mut self) -> Result<Loaded, InputsError> {
        self.begin();
        self.load()
    }

    /// Reads everything again, if something changed and all of it can be used.
    pub(super) fn look(&mut self, now: SystemTime) -> Option<Loaded> {
        let regions = Regions::of(&self.topology.borrow());
        let mut changed = regions != self.regions;
        let mut problem = None;
        match self.file.as_mut().map(|file| (file.look(now), file.path().display().to_string())) {
            None | Some((Look::Same | Look::Unsettled | Look::Back, _)) => {}
            Some((Look::Unreadable(why), name)) => problem = Some(format!("{name}: {why}")),
            Some((Look::Changed(bytes), name)) => match parse(&bytes, &name) {
                Ok(config) => {
                    self.take_over(config);
                    changed = true;
                }
                Err(why) => problem = Some(why),
            },
        }
        for file in &mut self.files {
            match file.look(now) {
                Look::Same | Look::Unsettled => {}
                Look::Changed(_) | Look::Back => changed = true,
                Look::Unreadable(why) => problem = Some(format!("{}: {why}", file.path().display())),
            }
        }
        changed |= self.dumps.iter_mut().fold(false, |changed, dump| dump.look() | changed);
        let read = match problem {
            Some(why) => Err(why),
            None if changed => {
                self.regions = regions;
                self.load().map_err(|error| error.to_string())
            }
            None => return None,
        };
        self.told(read)
    }

    fn told(&mut self, read: Result<Loaded, String>) -> Option<Loaded> {
        match read {
            Ok(loaded) => {
                tracing::info!("what is known of addresses is read anew");
                self.said = None;
                Some(loaded)
            }
            Err(why) => {
                if self.said.as_ref() != Some(&why) {
                    tracing::warn!(%why, "what is known of addresses cannot be read anew; what runs stays");
                    self.said = Some(why);
                }
                None
            }
        }
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

    /// Whether what was changed last is refused.
    pub(super) const fn refused(&self) -> bool {
        self.said.is_some()
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
