//! `sunctl weight`, `drain`, `resume`: what share of a region's files each server keeps, and changing it.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use geo::answer::{Answer, Table, bytes};
use geo::topology::{Region, Server};
use geo::{RegionId, Source, Topology, Weight, placement};
use popularity_api::Client;
use popularity_api::wire::ServerNow;
use serde_json::json;

use crate::edit::{Edit, State, edit};
use crate::topology::change::{self, Consent, Draft, Signature, percent};
use crate::topology::store::{Held, Store};

/// `sunctl weight list`: every server with its weight and share.
///
/// The share is what the document gives; with what servers tell, also what a server that rests takes, and what it holds.
#[must_use]
pub fn list(topology: &Topology, told: &Told) -> Answer {
    let mut table = Table::new(&["REGION", "SERVER", "WEIGHT", "SHARE", "NIC", "NOW", "HOLDS"]);
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
                    told.now(&server.name),
                    told.held(&server.name).map_or_else(String::new, bytes),
                ]);
                servers.push(json!({
                    "region": region.id,
                    "server": server.name,
                    "weight": server.weight_wanted.get(),
                    "draining": server.draining(),
                    "share": share,
                    "nic_gbps": server.nic_gbps,
                    "rest": told.rest(&server.name),
                    "held_bytes": told.held(&server.name),
                }));
            }
        }
    }
    let note = told.silence.as_ref().map_or_else(String::new, |why| format!("\n{why}\n"));
    Answer::good(table.text() + &note, json!({ "version": topology.version, "servers": servers }))
}

/// What servers tell of themselves, by the popularity API; empty where none is asked.
#[derive(Clone, Debug, Default)]
pub struct Told {
    servers: BTreeMap<String, ServerNow>,
    /// Why there is nothing, where something was to be.
    silence: Option<String>,
}

impl Told {
    /// Asks an API for some regions; that it does not answer is told beside what is known without.
    pub async fn ask(client: &Client, regions: impl Iterator<Item = RegionId>) -> Self {
        let mut told = Self::default();
        for region in regions {
            match client.servers(region).await {
                Ok(answer) => told.servers.extend(answer.servers.into_iter().map(|now| (now.state.name.clone(), now))),
                Err(error) => {
                    told.silence = Some(format!("What servers hold and who rests is not known: {error}"));
                    break;
                }
            }
        }
        told
    }

    /// Bytes in the tier that is there for good: the store or the vault, or else RAM.
    fn held(&self, server: &str) -> Option<u64> {
        let tiers = &self.servers.get(server)?.tiers;
        let of = |name: &str| tiers.iter().find(|tier| tier.name == name).map(|tier| tier.bytes);
        of("store").or_else(|| of("vault")).or_else(|| of("ram"))
    }

    fn rest(&self, server: &str) -> Option<f64> {
        self.servers.get(server)?.state.rest
    }

    fn now(&self, server: &str) -> String {
        match self.servers.get(server) {
            None if self.servers.is_empty() => String::new(),
            None => "silent".to_owned(),
            Some(now) => match now.state.rest {
                Some(share) => format!("rests, takes {}", percent(share)),
                None if now.state.healthy => "serves".to_owned(),
                None => "ill or leaving".to_owned(),
            },
        }
    }
}

/// What is wished for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Name of a sun or cache.
    pub server: &'a str,
    /// What becomes of it.
    pub edit: Edit,
    /// Whether anybody is asked about the last sun.
    pub guard: Guard,
}

/// What becomes of a change after which no sun of a group, or of a region, has weight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// It is refused.
    Last,
    /// It is made.
    Nobody,
}

impl Guard {
    /// `--force` switches it off.
    #[must_use]
    pub const fn unless(force: bool) -> Self {
        if force { Self::Nobody } else { Self::Last }
    }

    /// Refuses a change that takes the weight of the last sun that has any.
    fn check(self, before: &Topology, after: &Topology, server: &str) -> anyhow::Result<()> {
        let (Self::Last, Some(sun)) = (self, before.sun(server)) else { return Ok(()) };
        let others = |topology: &Topology, group: Option<u16>| {
            topology.region(sun.server.region).is_some_and(|region| weighs(region, group))
        };
        let emptied = |group| others(before, group) && !others(after, group);
        let (region, group) = (sun.server.region, sun.group);
        ensure!(
            !emptied(None),
            "{server} is the last sun of region {region} that has weight: its neighbours would get all of its clients. \
             Give another one weight first, or say --force"
        );
        ensure!(
            !emptied(Some(group)),
            "{server} is the last sun of group sun{region}-{group} that has weight: nobody is left to take over the \
             group's addresses. Give another one weight first, or say --force"
        );
        Ok(())
    }

    /// Refuses a whole document that leaves a region or group which had weight without any. One that it does not have at
    /// all any more is meant to go.
    pub(crate) fn check_whole(self, before: &Topology, after: &Topology) -> anyhow::Result<()> {
        if self == Self::Nobody {
            return Ok(());
        }
        for region in &before.regions {
            let Some(then) = after.region(region.id) else { continue };
            ensure!(
                !weighs(region, None) || weighs(then, None),
                "no sun of region {} would have weight: its neighbours would get all of its clients. Give one weight, or say \
                 --force",
                region.id
            );
            for group in region.groups.iter().filter(|group| then.groups.iter().any(|left| left.name == group.name)) {
                ensure!(
                    !weighs(region, Some(group.number)) || weighs(then, Some(group.number)),
                    "no sun of group {} would have weight: nobody is left to take over the group's addresses. Give one \
                     weight, or say --force",
                    group.name
                );
            }
        }
        Ok(())
    }
}

/// Whether a sun of the region, or of one of its groups, has weight.
fn weighs(region: &Region, group: Option<u16>) -> bool {
    let suns = region.suns.iter().filter(|sun| group.is_none_or(|group| sun.group == group));
    suns.into_iter().any(|sun| sun.server.weight.get() > 0)
}

/// Regions and groups whose suns all have no weight, a line each.
pub(crate) fn weightless(topology: &Topology) -> Vec<String> {
    let mut found = Vec::new();
    for region in topology.regions.iter().filter(|region| !region.suns.is_empty()) {
        if !weighs(region, None) {
            found.push(format!("no sun of region {} has weight: its clients go to other regions", region.id));
            continue;
        }
        let has_suns = |number| region.suns.iter().any(|sun| sun.group == number);
        for group in region.groups.iter().filter(|group| has_suns(group.number) && !weighs(region, Some(group.number)))
        {
            found.push(format!("no sun of group {} has weight: nobody takes over its addresses", group.name));
        }
    }
    found
}

/// `sunctl weight set`, `drain`, `resume`: previews the change and, with consent, writes it.
///
/// # Errors
///
/// When the topology cannot be read or written, the server is not in it or is the last one, the changed document does not
/// check, or somebody changed it while the question was open.
pub async fn set(
    source: &Source,
    wish: Wish<'_>,
    by: &Signature,
    consent: Consent<'_>,
    told: &Told,
) -> anyhow::Result<Answer> {
    change::make(&Store::open(source)?, by, consent, |held| draft(held, wish, told)).await
}

/// The draft of one server's change.
pub(crate) fn draft(held: &Held, wish: Wish<'_>, told: &Told) -> anyhow::Result<Draft> {
    let Wish { server, edit: change, guard } = wish;
    let before = held.topology()?.context("there is no topology yet; `sunctl topology put FILE` writes the first")?;
    let text = edit(held.text.as_deref().unwrap_or_default(), server, change)?;
    let after = Topology::parse(&text).context("nothing was written: the changed document does not check")?;
    guard.check(&before, &after, server)?;
    let preview = Preview::new(&before, &after, server, told)?;
    let said = if after.version == before.version { preview.same() } else { preview.text() };
    Ok(Draft {
        what: named(server, change),
        text,
        version: after.version,
        preview: said,
        json: preview.json(),
        series: None,
    })
}

/// The command that makes a change.
pub(crate) fn named(server: &str, change: Edit) -> String {
    match change {
        Edit::Weight(weight) | Edit::State(State { weight, draining: false }) => {
            format!("weight set {server} {weight}")
        }
        Edit::Drain | Edit::State(State { draining: true, .. }) => format!("drain {server}"),
        Edit::Resume => format!("resume {server}"),
    }
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
    /// What those who lose files hold of them; none: they did not tell.
    moved_bytes: Option<u64>,
    /// Why they did not.
    silence: Option<String>,
    /// Name, and share of the files before and after.
    shares: Vec<(String, f64, f64)>,
}

impl Preview {
    fn new(before: &Topology, after: &Topology, server: &str, told: &Told) -> anyhow::Result<Self> {
        let (old, new) = before.server(server).zip(after.server(server)).context("the server is gone")?;
        let kind = if before.sun(server).is_some() { Kind::Sun } else { Kind::Cache };
        let (from, to) = before.region(old.region).zip(after.region(old.region)).context("the region is gone")?;
        let shares = kind.shares(from).into_iter().zip(kind.shares(to));
        let shares: Vec<_> = shares.map(|((name, was), (_, is))| (name.to_owned(), was, is)).collect();
        Ok(Self {
            moved_bytes: moved_bytes(&shares, told),
            silence: told.silence.clone(),
            region: old.region,
            server: server.to_owned(),
            written: (written(old), written(new)),
            weights: (old.weight.get(), new.weight.get()),
            moved: kind.moved(from, to),
            shares,
        })
    }

    /// Of a change that is none.
    fn same(&self) -> String {
        let (weight, server) = (&self.written.1, &self.server);
        match weight.strip_suffix(DRAINING) {
            Some(weight) => format!("{server} drains already, and keeps weight {weight}."),
            None => format!("{server} has weight {weight} already."),
        }
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
        match (self.moved_bytes, &self.silence) {
            (Some(moved), _) => {
                text += &format!("\nAbout {} that servers hold now are fetched anew by others.\n", bytes(moved));
            }
            (None, Some(why)) => text += &format!("\n{why}\n"),
            (None, None) => {}
        }
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
            "moved_bytes": self.moved_bytes,
            "shares": shares,
        })
    }
}

/// Of what servers hold, what they lose with their share.
fn moved_bytes(shares: &[(String, f64, f64)], told: &Told) -> Option<u64> {
    let losing = shares.iter().filter(|(_, was, is)| is < was);
    let lost = losing.map(|(name, was, is)| {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        told.held(name).map(|held| held as f64 * (1.0 - is / was))
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a figure for people")]
    lost.sum::<Option<f64>>().filter(|_| !told.servers.is_empty()).map(|bytes| bytes as u64)
}

/// The weight as the operator wrote it, and whether it counts.
fn written(server: &Server) -> String {
    let weight = server.weight_wanted.get();
    if server.draining() { format!("{weight}{DRAINING}") } else { weight.to_string() }
}

const DRAINING: &str = " draining";

#[cfg(test)]
mod tests {
    use std::fs;

    use popularity_api::wire::{Load, ServerState, Tier};

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
        let preview = Preview::new(&before, &after, "sun4-2-1", &told()).unwrap();
        // Half becomes a third: a sixth moves.
        assert!((preview.moved - 1.0 / 6.0).abs() < 1e-9, "{}", preview.moved);
        assert!((preview.shares[0].2 - 1.0 / 3.0).abs() < 1e-9, "{:?}", preview.shares);
        // A third of what it holds.
        assert_eq!(preview.moved_bytes, Some(3_000_000_000));
        assert!(preview.text().contains("About 3.0 GB"), "{}", preview.text());
    }

    #[tokio::test]
    async fn a_change_is_written_only_with_consent() {
        check_set(Consent::Never, false, "100 -> 50").await;
        check_set(Consent::Given, true, "100 -> 50").await;
        check_set(Consent::Asked(&mut |_| Ok(false)), false, "Nothing was written.").await;
        check_set(Consent::Asked(&mut |_| Ok(true)), true, "Written as version 8").await;
        let mut shown = String::new();
        let mut ask = |preview: &str| {
            shown.push_str(preview);
            Ok(true)
        };
        check_set(Consent::Asked(&mut ask), true, "Written").await;
        assert!(shown.contains("16.7% of region 4's files"), "{shown}");
    }

    #[tokio::test]
    async fn who_agreed_to_another_document_is_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        fs::write(&file, TOPOLOGY).unwrap();
        let others = TOPOLOGY.replace("version = 7", "version = 9");
        let mut ask = |_: &str| fs::write(&file, &others).map(|()| true).map_err(anyhow::Error::from);
        let source = file.clone().into();
        let set = set(&source, wish(Edit::Weight(50)), &ann(), Consent::Asked(&mut ask), &Told::default()).await;
        let error = format!("{:#}", set.unwrap_err());
        assert!(error.contains("somebody changed it meanwhile"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), others);
    }

    #[tokio::test]
    async fn a_weight_that_is_so_already_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        fs::write(&file, TOPOLOGY).unwrap();
        let source: Source = file.clone().into();
        let mut ask = |_: &str| -> anyhow::Result<bool> { panic!("there is nothing to agree to") };
        let asked = Consent::Asked(&mut ask);
        let answer = set(&source, wish(Edit::Weight(100)), &ann(), asked, &Told::default()).await.unwrap();
        assert_eq!(answer.text, "sun4-2-1 has weight 100 already.\nNothing was written.\n");
        assert_eq!((answer.good, &answer.json["written"]), (true, &false.into()));
        assert_eq!(fs::read_to_string(&file).unwrap(), TOPOLOGY);
        assert_eq!(Store::open(&source).unwrap().history(9).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_server_that_drains_or_serves_already_is_left_alone_and_all_is_well() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        let drained = edit(TOPOLOGY, "sun4-2-1", Edit::Drain).unwrap();
        for (text, change, says) in [
            (&*drained, Edit::Drain, "sun4-2-1 drains already, and keeps weight 100.\nNothing was written.\n"),
            (TOPOLOGY, Edit::Resume, "sun4-2-1 has weight 100 already.\nNothing was written.\n"),
        ] {
            fs::write(&file, text).unwrap();
            let source = file.clone().into();
            let answer = set(&source, wish(change), &ann(), Consent::Given, &Told::default()).await.unwrap();
            assert_eq!((&*answer.text, answer.good, &answer.json["written"]), (says, true, &false.into()));
            let (minute, ann, told) = (std::time::Duration::from_secs(60), ann(), Told::default());
            let ramped = crate::ramp::set(&source, wish(change), minute, &ann, Consent::Given, &told);
            let answer = ramped.await.unwrap();
            assert_eq!((&*answer.text, answer.good, &answer.json["written"]), (says, true, &false.into()));
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[test]
    fn a_whole_document_keeps_weight_in_every_group_and_region_that_it_has() {
        let other_group = "\n[[group]]\nname = \"sun4-3\"\nsubnet = \"192.0.2.64/26\"\n\n[[sun]]\nname = \"sun4-3-1\"\n\
                           addresses = [\"192.0.2.65\"]\ninternal = \"10.4.3.1:8081\"\nweight = 10\n";
        let both = format!("{TOPOLOGY}{other_group}");
        let parse = |text: &str| Topology::parse(text).unwrap();
        let check = |after: &str, expected: &str| {
            let guarded = Guard::Last.check_whole(&parse(&both), &parse(after)).map_err(|error| error.to_string());
            match guarded {
                Ok(()) => assert_eq!(expected, "", "{after}"),
                Err(said) => {
                    assert!(!expected.is_empty() && said.contains(expected) && said.contains("--force"), "{said}");
                }
            }
            Guard::Nobody.check_whole(&parse(&both), &parse(after)).unwrap();
        };
        let drained = |text: &str, server: &str| edit(text, server, Edit::Drain).unwrap();
        check(&both, "");
        check(TOPOLOGY, "");
        check(&drained(&both, "sun4-2-1"), "");
        let group = drained(&drained(&both, "sun4-2-1"), "sun4-2-2");
        check(&group, "no sun of group sun4-2 would have weight");
        let all = drained(&group, "sun4-3-1");
        check(&all, "no sun of region 4 would have weight");
        // What has none already loses none.
        Guard::Last.check_whole(&parse(&all), &parse(&all)).unwrap();
        assert_eq!(weightless(&parse(&both)), [""; 0]);
        assert_eq!(weightless(&parse(&group)), ["no sun of group sun4-2 has weight: nobody takes over its addresses"]);
        assert_eq!(weightless(&parse(&all)), ["no sun of region 4 has weight: its clients go to other regions"]);
    }

    #[test]
    fn the_last_sun_of_a_group_or_a_region_keeps_its_weight_unless_somebody_insists() {
        let other_group = "\n[[group]]\nname = \"sun4-3\"\nsubnet = \"192.0.2.64/26\"\n\n[[sun]]\nname = \"sun4-3-1\"\n\
                           addresses = [\"192.0.2.65\"]\ninternal = \"10.4.3.1:8081\"\nweight = 10\n";
        let alone = edit(TOPOLOGY, "sun4-2-2", Edit::Drain).unwrap();
        let beside = format!("{alone}{other_group}");
        check_guard(TOPOLOGY, "sun4-2-1", Edit::Drain, "");
        for last in [Edit::Drain, Edit::Weight(0), Edit::State(State { weight: 0, draining: false })] {
            check_guard(&alone, "sun4-2-1", last, "sun4-2-1 is the last sun of region 4 that has weight");
            check_guard(&beside, "sun4-2-1", last, "sun4-2-1 is the last sun of group sun4-2 that has weight");
        }
        check_guard(&beside, "sun4-3-1", Edit::Weight(0), "is the last sun of group sun4-3");
        check_guard(&alone, "sun4-2-1", Edit::Weight(1), "");
        // It has no weight to lose.
        let none = edit(&alone, "sun4-2-1", Edit::Weight(0)).unwrap();
        check_guard(&none, "sun4-2-1", Edit::Drain, "");
    }

    #[track_caller]
    fn check_guard(text: &str, server: &str, change: Edit, expected: &str) {
        let held = Held::of(text);
        let wish = |guard| Wish { server, edit: change, guard };
        let guarded = draft(&held, wish(Guard::Last), &Told::default()).map_err(|error| error.to_string());
        match guarded {
            Ok(_) => assert_eq!(expected, "", "{change:?}"),
            Err(said) => assert!(!expected.is_empty() && said.contains(expected) && said.contains("--force"), "{said}"),
        }
        draft(&held, wish(Guard::Nobody), &Told::default()).unwrap();
    }

    fn wish(edit: Edit) -> Wish<'static> {
        Wish { server: "sun4-2-1", edit, guard: Guard::Last }
    }

    async fn check_set(consent: Consent<'_>, written: bool, says: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology.toml");
        fs::write(&file, TOPOLOGY).unwrap();
        let answer =
            set(&file.clone().into(), wish(Edit::Weight(50)), &ann(), consent, &Told::default()).await.unwrap();
        assert_eq!(answer.json["version"], 8);
        assert_eq!(answer.json["written"], written);
        assert!(answer.text.contains(says), "{}", answer.text);
        let after = fs::read_to_string(&file).unwrap();
        assert_eq!(
            after,
            if written { edit(TOPOLOGY, "sun4-2-1", Edit::Weight(50)).unwrap() } else { TOPOLOGY.to_owned() }
        );
    }

    /// The first sun holds 9 GB in its store.
    fn told() -> Told {
        let tier = |name: &str, bytes| Tier { name: name.into(), bytes, bytes_max: 10_000_000_000, hits: 0 };
        let load = Load::default();
        let state = ServerState { name: "sun4-2-1".into(), healthy: true, load, busy: 1.0, rest: Some(0.5) };
        let tiers = vec![tier("ram", 1000), tier("store", 9_000_000_000)];
        let now = ServerNow { state, tiers, topology_version: 7 };
        Told { servers: BTreeMap::from([("sun4-2-1".to_owned(), now)]), silence: None }
    }

    #[test]
    fn who_rests_and_what_servers_hold_is_listed() {
        let listed = list(&Topology::parse(TOPOLOGY).unwrap(), &told());
        let line = |server: &str| listed.text.lines().find(|line| line.contains(server)).unwrap().to_owned();
        assert!(
            line("sun4-2-1").contains("rests, takes 50.0%") && line("sun4-2-1").contains("9.0 GB"),
            "{}",
            listed.text
        );
        assert!(line("sun4-2-2").contains("silent"), "{}", listed.text);
    }

    fn ann() -> Signature {
        Signature::new("ann", "").unwrap()
    }
}
