//! `sunctl weight`, `drain`, `resume`: what share of a region's files each server keeps, and changing it.
//!
//! ```text
//!   topology file --lock--> text --edit--> text with the weight and version + 1
//!                                             |
//!                         checked as a whole, previewed, agreed to, written atomically
//! ```

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, bail};
use geo::answer::{Answer, Table};
use geo::topology::{Region, Server};
use geo::{RegionId, Topology, Weight, placement};
use serde_json::json;

use crate::edit::{Edit, edit};

/// `sunctl weight list`: every server with its weight and share.
#[must_use]
pub fn list(topology: &Topology) -> Answer {
    let mut table = Table::new(&["REGION", "SERVER", "WEIGHT", "SHARE", "NIC"]);
    let mut servers = Vec::new();
    for region in &topology.regions {
        for kind in [Kind::Sun, Kind::Cache] {
            for (server, (_, share)) in kind.servers(region).into_iter().zip(kind.shares(region)) {
                table.row([
                    region.id.to_string(),
                    server.name.clone(),
                    written(server),
                    percent(share),
                    format!("{} Gbit/s", server.nic_gbps),
                ]);
                servers.push(json!({
                    "region": region.id,
                    "server": server.name,
                    "weight": server.weight_wanted.get(),
                    "draining": server.draining(),
                    "share": share,
                    "nic_gbps": server.nic_gbps,
                }));
            }
        }
    }
    Answer::good(table.text(), json!({ "version": topology.version, "servers": servers }))
}

/// Whether a previewed change is written.
pub enum Consent<'a> {
    /// No: it is previewed only.
    Never,
    /// Yes, at once.
    Given,
    /// If this agrees, which gets the preview.
    Asked(&'a mut dyn FnMut(&str) -> anyhow::Result<bool>),
}

/// `sunctl weight set`, `drain`, `resume`: previews the change and, with consent, writes it.
///
/// # Errors
///
/// When the file cannot be read or written, the server is not in it, the changed document does not check, or
/// somebody changed it while the question was open.
pub fn set(file: &Path, server: &str, change: Edit, consent: Consent<'_>) -> anyhow::Result<Answer> {
    let mut agreed = None;
    match consent {
        Consent::Never => return Ok(Change::read(file, server, change)?.answer(Outcome::Previewed)),
        Consent::Given => {}
        Consent::Asked(ask) => {
            // Without the lock: others need not wait for a person.
            let change = Change::read(file, server, change)?;
            if !ask(&change.preview.text())? {
                return Ok(change.answer(Outcome::Declined));
            }
            agreed = Some(change.text);
        }
    }
    let lock = lock_folder_of(file)?;
    let change = Change::read(file, server, change)?;
    let outcome = if agreed.is_some() { Outcome::Agreed } else { Outcome::Written };
    if agreed.is_some_and(|agreed| agreed != change.text) {
        bail!("topology {}: somebody changed it meanwhile; nothing was written, look again", file.display());
    }
    geo::watch::write_atomically(file, &change.text).with_context(|| format!("topology {}", file.display()))?;
    drop(lock);
    Ok(change.answer(outcome))
}

/// A change that checks.
struct Change {
    /// The whole document, changed.
    text: String,
    version: u64,
    preview: Preview,
}

impl Change {
    fn read(file: &Path, server: &str, change: Edit) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("topology {}", file.display()))?;
        let before = parse(&text, file)?;
        let text = edit(&text, server, change).with_context(|| format!("topology {}", file.display()))?;
        let after = parse(&text, file).context("nothing was written: the changed document does not check")?;
        Ok(Self { text, version: after.version, preview: Preview::new(&before, &after, server)? })
    }

    fn answer(&self, outcome: Outcome) -> Answer {
        let version = self.version;
        let preview = match outcome {
            Outcome::Previewed | Outcome::Written => format!("{}\n", self.preview.text()),
            Outcome::Agreed | Outcome::Declined => String::new(),
        };
        let done = match outcome {
            Outcome::Previewed => format!("Nothing was written (--dry-run); it would be version {version}.\n"),
            Outcome::Declined => "Nothing was written.\n".to_owned(),
            Outcome::Agreed | Outcome::Written => {
                format!("Written as version {version}; every daemon sees it within a second.\n")
            }
        };
        let mut json = self.preview.json();
        json["version"] = version.into();
        json["written"] = matches!(outcome, Outcome::Agreed | Outcome::Written).into();
        Answer::good(preview + &done, json)
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Previewed,
    /// Written without a question.
    Written,
    /// Written after a question, with which the preview was shown.
    Agreed,
    Declined,
}

/// Two changes at once would lose one of them. The lock is on the folder, since the file itself is replaced.
fn lock_folder_of(file: &Path) -> anyhow::Result<File> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let lock = File::open(folder).with_context(|| format!("folder {}", folder.display()))?;
    lock.lock().with_context(|| format!("locking folder {}", folder.display()))?;
    Ok(lock)
}

fn parse(text: &str, file: &Path) -> anyhow::Result<Topology> {
    Topology::parse(text).with_context(|| format!("topology {}", file.display()))
}

/// Suns and caches are placed apart from each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Sun,
    Cache,
}

impl Kind {
    fn servers(self, region: &Region) -> Vec<&Server> {
        match self {
            Self::Sun => region.suns.iter().map(|sun| &sun.server).collect(),
            Self::Cache => region.caches.iter().map(|cache| &cache.server).collect(),
        }
    }

    /// Name and share of each server of the region; all shares are 0 when nobody has weight.
    fn shares(self, region: &Region) -> Vec<(&str, f64)> {
        let servers = self.servers(region);
        let weights: Vec<Weight> = servers.iter().map(|server| server.weight).collect();
        servers.iter().map(|server| server.name.as_str()).zip(placement::shares(&weights)).collect()
    }

    /// The share of the region's files that another server keeps in `after`.
    fn moved(self, before: &Region, after: &Region) -> f64 {
        match self {
            Self::Sun => before.suns_moved(after),
            Self::Cache => before.caches_moved(after),
        }
    }
}

/// What a change will do.
#[derive(Clone, Debug)]
struct Preview {
    region: RegionId,
    server: String,
    /// As they are written, for people.
    written: (String, String),
    /// As they count.
    weights: (u16, u16),
    /// Share of the region's files that change their server: the least that any placement could move.
    moved: f64,
    /// Name, and share of the files before and after.
    shares: Vec<(String, f64, f64)>,
}

impl Preview {
    fn new(before: &Topology, after: &Topology, server: &str) -> anyhow::Result<Self> {
        let (old, new) = before.server(server).zip(after.server(server)).context("the server is gone")?;
        let kind = if before.sun(server).is_some() { Kind::Sun } else { Kind::Cache };
        let (from, to) = before.region(old.region).zip(after.region(old.region)).context("the region is gone")?;
        let shares = kind.shares(from).into_iter().zip(kind.shares(to));
        Ok(Self {
            region: old.region,
            server: server.to_owned(),
            written: (written(old), written(new)),
            weights: (old.weight.get(), new.weight.get()),
            moved: kind.moved(from, to),
            shares: shares.map(|((name, was), (_, is))| (name.to_owned(), was, is)).collect(),
        })
    }

    fn text(&self) -> String {
        let (old, new) = &self.written;
        let mut text = format!(
            "{}: weight {old} -> {new}. {} of region {}'s files change their server, the fewest possible.\n\n",
            self.server,
            percent(self.moved),
            self.region,
        );
        let mut table = Table::new(&["SERVER", "SHARE BEFORE", "AFTER"]);
        for (name, was, is) in &self.shares {
            table.row([name.clone(), percent(*was), percent(*is)]);
        }
        text.push_str(&table.text());
        if self.shares.iter().all(|(_, _, is)| *is == 0.0) {
            text.push_str("\nNobody of its kind in the region has weight then: its neighbours take over.\n");
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let shares: Vec<_> =
            self.shares.iter().map(|(name, was, is)| json!({ "server": name, "before": was, "after": is })).collect();
        json!({
            "server": self.server,
            "region": self.region,
            "weight_before": self.weights.0,
            "weight": self.weights.1,
            "moved": self.moved,
            "shares": shares,
        })
    }
}

/// The weight as the operator wrote it, and whether it counts.
fn written(server: &Server) -> String {
    let weight = server.weight_wanted.get();
    if server.draining() { format!("{weight} draining") } else { weight.to_string() }
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPOLOGY: &str = r#"# The whole fleet.
version = 7 # rises with every change
domain = "example.org"
default_region = 4

[content_servers]
url = "http://cs{number}.storage.example.org"
numbers = ["1-199"]

[[region]]
id = 4
name = "Moscow"
latitude = 55.75
longitude = 37.6

[[group]]
name = "sun4-2"
subnet = "192.0.2.0/26"

[[sun]]
name = "sun4-2-1"
addresses = ["192.0.2.1"]
internal = "10.4.2.1:8081"
weight   = 100   # the old machine

[[sun]]
name = "sun4-2-2"
addresses = ["192.0.2.2"]
internal = "10.4.2.2:8081"
weight = 100
"#;

    #[test]
    fn a_preview_tells_how_many_files_move() {
        let before = Topology::parse(TOPOLOGY).unwrap();
        let after = Topology::parse(&edit(TOPOLOGY, "sun4-2-1", Edit::Weight(50)).unwrap()).unwrap();
        let preview = Preview::new(&before, &after, "sun4-2-1").unwrap();
        // Half becomes a third: a sixth moves.
        assert!((preview.moved - 1.0 / 6.0).abs() < 1e-9, "{}", preview.moved);
        assert!((preview.shares[0].2 - 1.0 / 3.0).abs() < 1e-9, "{:?}", preview.shares);
    }

    #[test]
    fn a_change_is_written_only_with_consent() {
        check_set(Consent::Never, false, "100 -> 50");
        check_set(Consent::Given, true, "100 -> 50");
        check_set(Consent::Asked(&mut |_| Ok(false)), false, "Nothing was written.");
        check_set(Consent::Asked(&mut |_| Ok(true)), true, "Written as version 8");
        let mut shown = String::new();
        let mut ask = |preview: &str| {
            shown.push_str(preview);
            Ok(true)
        };
        check_set(Consent::Asked(&mut ask), true, "Written");
        assert!(shown.contains("16.7% of region 4's files"), "{shown}");
    }

    #[test]
    fn who_agreed_to_another_document_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        fs::write(&file, TOPOLOGY).unwrap();
        let others = TOPOLOGY.replace("version = 7", "version = 9");
        let mut ask = |_: &str| fs::write(&file, &others).map(|()| true).map_err(anyhow::Error::from);
        let error = set(&file, "sun4-2-1", Edit::Weight(50), Consent::Asked(&mut ask)).unwrap_err().to_string();
        assert!(error.contains("somebody changed it meanwhile"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), others);
    }

    #[track_caller]
    fn check_set(consent: Consent<'_>, written: bool, says: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        fs::write(&file, TOPOLOGY).unwrap();
        let answer = set(&file, "sun4-2-1", Edit::Weight(50), consent).unwrap();
        assert_eq!(answer.json["version"], 8);
        assert_eq!(answer.json["written"], written);
        assert!(answer.text.contains(says), "{}", answer.text);
        let after = fs::read_to_string(&file).unwrap();
        assert_eq!(
            after,
            if written { edit(TOPOLOGY, "sun4-2-1", Edit::Weight(50)).unwrap() } else { TOPOLOGY.to_owned() }
        );
    }
}
