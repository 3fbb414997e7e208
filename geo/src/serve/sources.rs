//! What the server goes by, followed while it runs: its config, the files that it names, the topology.
//!
//! ```text
//!   config, lists, dumps, geoip --looked at each second, at once on SIGHUP--+
//!   topology ---------------------------------------------------------------+--changed? read all--> Loaded --> engine
//!                                                                                 refused --one WARN--> what runs stays
//! ```
//!
//! # Invariants
//!
//! - A file that changed while it was read is read again: half of it is nobody's word.
//! - A source that lost much of what it said is refused (`guard`), also by a start that has a saved table, until SIGHUP comes
//!   after that was said. Of the others what is new counts.

mod guard;
mod standing;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::config::Config;
use crate::engine::{Inputs, InputsError, Loaded};
use crate::file::{self, Followed, Look};
use crate::regions::Regions;
use crate::topology::{Topology, Watched};
use guard::{Lost, Sizes};
use standing::{News, Seen, Standing};

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
    /// How much each source says, as of the last load that was taken; a start has that of the run before.
    sizes: Sizes,
    /// Where they are kept for the next start.
    kept: Option<PathBuf>,
    /// What of it is lost in a load that was refused for that.
    lost: Lost,
    /// Whether there was a load of everything: what is refused later stays as it was there.
    whole: bool,
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
            sizes: Sizes::new(),
            kept: None,
            lost: Lost::new(),
            whole: false,
        };
        if let Some(file) = &mut sources.file {
            // It was read a moment ago; when it is away by now, the next look says so.
            drop(file.take());
        }
        sources
    }

    /// Keeps in a file how much each source says. `compares`: what it says now is measured by what it said in the run before;
    /// for a server that has a table to stand on meanwhile. What the config names itself is not: who starts with it means it.
    pub(super) fn remember(&mut self, file: PathBuf, compares: bool) {
        match file::read_bounded(&file, CONFIG_BYTES_MAX) {
            Ok(bytes) if compares => {
                let mut sizes: Sizes = serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                    tracing::warn!(file = %file.display(), %error, "how much the sources said before is not known");
                    Sizes::new()
                });
                sizes.retain(|name, _| Loaded::file_of(name).is_some());
                self.sizes = sizes;
            }
            Ok(_) | Err(_) => {}
        }
        self.kept = Some(file);
    }

    /// Reads everything as it is now, for a start.
    pub(super) fn read(&mut self) -> Result<Loaded, InputsError> {
        self.begin();
        let loaded = self.load()?;
        let sizes = loaded.sizes();
        self.lost = guard::lost(&self.sizes, &sizes, self.config.shrink_max);
        if !self.lost.is_empty() {
            return Err(InputsError(self.told_lost()));
        }
        self.take(sizes);
        Ok(loaded)
    }

    /// As [`Sources::read`], which failed for this, without what cannot be used; it is tried again from then on. What can be read by
    /// now is not whole, either: it may be half of a file.
    pub(super) fn read_partly(&mut self, why: &InputsError) -> Result<Loaded, InputsError> {
        let topology = self.topology.borrow().clone();
        let mut loaded = Loaded::read_partly(&self.config.inputs(), &topology)?;
        loaded.lacks(&why.0);
        self.standing.loaded(Err(loaded.missing().join("; ")));
        Ok(loaded)
    }

    /// Reads everything again, if something changed and all of it can be used. `asked`: by an operator, who knows by now
    /// what was refused because much of it is lost.
    pub(super) fn look(&mut self, now: SystemTime, asked: bool) -> Option<Loaded> {
        let mut seen = self.look_at_config(now);
        seen.changed |= asked && !self.lost.is_empty();
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
        let insists = asked && !self.lost.is_empty();
        let loaded = self.standing.seen(seen).then(|| self.guarded(asked)).and_then(|read| match read {
            Ok((loaded, but)) => {
                self.standing.taken(but);
                Some(loaded)
            }
            Err(why) => {
                self.standing.loaded(Err(why));
                None
            }
        });
        if loaded.is_some() {
            tracing::info!("what is known of addresses is read anew");
        }
        match self.standing.unsaid() {
            Some(News::Refused(why)) => {
                tracing::warn!(%why, "what is known of addresses cannot be read anew; what runs stays");
            }
            Some(News::NothingRefused) => tracing::info!("nothing of the config and the sources is refused any more"),
            None if insists && !self.lost.is_empty() => {
                tracing::warn!(
                    why = self.refusals().join("; "),
                    "SIGHUP takes nothing of what is lost while this is so"
                );
            }
            None => {}
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
        if !differs.is_empty() {
            tracing::warn!(keys = differs.join(", "), "the config has changes that count from the next start");
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
        let (topology, inputs) = (self.topology.borrow().clone(), self.config.inputs());
        // Not dumps: those that are appended to are never at rest, and `Glanced` sees them twice.
        let stamps = || self.files.iter().map(|file| stamp(file.path())).collect::<Vec<_>>();
        at_rest(stamps, || Loaded::read(&inputs, &topology))
    }

    /// Loads everything, but what shrank stays as it was, and why, unless an operator asked for it who was told that it did. When it
    /// is the config itself, or there is nothing to stay, all is refused.
    fn guarded(&mut self, asked: bool) -> Result<(Loaded, Option<String>), String> {
        let mut loaded = self.load().map_err(|error| error.to_string())?;
        let mut sizes = loaded.sizes();
        let lost = guard::lost(&self.sizes, &sizes, self.config.shrink_max);
        if lost.is_empty() || (asked && self.lost == lost) {
            self.lost = Lost::new();
            self.take(sizes);
            return Ok((loaded, None));
        }
        self.lost = lost;
        let files: Option<BTreeSet<String>> =
            self.lost.keys().map(|name| Loaded::file_of(name).map(str::to_owned)).collect();
        let Some(files) = files.filter(|_| self.whole) else { return Err(self.told_lost()) };
        for (name, size) in &self.sizes {
            if Loaded::file_of(name).is_some_and(|file| files.contains(file)) {
                sizes.insert(name.clone(), *size);
            }
        }
        loaded.keep(files);
        self.take(sizes);
        Ok((loaded, Some(self.told_lost())))
    }

    /// A load is in use that says so much.
    fn take(&mut self, sizes: Sizes) {
        (self.sizes, self.whole) = (sizes, true);
        let Some(file) = &self.kept else { return };
        let bytes = serde_json::to_vec(&self.sizes).unwrap_or_default();
        if let Err(error) = file::write_atomically(file, &bytes) {
            tracing::warn!(%error, "how much the sources say cannot be saved: a start would not see what they lost");
        }
    }

    fn told_lost(&self) -> String {
        let lost: Vec<&str> = self.lost.values().map(String::as_str).collect();
        format!("{}: more is lost than shrink_max = {} allows; {INSIST}", lost.join("; "), self.config.shrink_max)
    }

    /// Whether something that was changed is refused.
    pub(super) fn is_refused(&self) -> bool {
        self.standing.is_refused()
    }

    /// What is refused, and why.
    pub(super) fn refusals(&self) -> Vec<String> {
        self.standing.refusals().map(str::to_owned).collect()
    }

    /// The topology that is followed, as it is now.
    pub(super) fn topology(&self) -> Arc<Topology> {
        self.topology.borrow().clone()
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

/// Reads until nothing changed meanwhile: whoever rewrites a file in place leaves half of it for a moment.
fn at_rest<S: PartialEq, T>(
    stamps: impl Fn() -> S,
    mut read: impl FnMut() -> Result<T, InputsError>,
) -> Result<T, InputsError> {
    for _ in 0..READS_MAX {
        let before = stamps();
        let read = read();
        if stamps() == before {
            return read;
        }
    }
    let advice = "write them beside their place, then rename them";
    Err(InputsError(format!("files changed while they were read, {READS_MAX} times in a row: {advice}")))
}

/// How often it is tried to read files that change.
const READS_MAX: usize = 3;
const INSIST: &str = "if that is meant, send SIGHUP now";

/// Longest config, bytes: a hundred thousand rules.
const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Longest list or geoip file that is followed, bytes; what is longer is refused when it is read.
const FILE_BYTES_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests;
