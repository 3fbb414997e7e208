//! `sunctl topology`: the document that all daemons follow, and what it was before.
//!
//! ```text
//!   show, diff, history <-- Store: a file and its folder of history, or keys of an etcd cluster
//!   put, rollback, weight set, drain, resume --change--> Store
//! ```
//!
//! In reading order: [`change`] (a change from its draft to its writing), [`store`] (where it is read and written),
//! [`entry`] (what is kept of each change), [`lines`] (the difference of two texts).

pub mod change;
pub mod entry;
mod lines;
pub mod store;

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use geo::answer::{Answer, Table};
use geo::topology::Region;
use geo::{Source, Topology};
use serde_json::json;

use crate::edit::with_version;
use crate::weight::{Guard, weightless};
use change::{Consent, Draft, Signature, percent};
use entry::Entry;
use store::{Held, Store};

/// `sunctl topology show`: the text of the document, or of an earlier one.
///
/// # Errors
///
/// When it cannot be read, or there is no such change.
pub async fn show(source: &Source, number: Option<u64>) -> anyhow::Result<Answer> {
    let store = Store::open(source)?;
    let text = text_of(&store, number).await?;
    let error = match Topology::parse(&text) {
        Ok(topology) => {
            return Ok(Answer::good(text.clone(), json!({ "version": topology.version, "document": text })));
        }
        Err(error) => error,
    };
    // Beside the document, which may be on its way into a file in which it is mended.
    let refused = advice(&store, &text).await;
    eprintln!("sunctl: topology {store}: it does not check: {refused}\n{error}");
    let json = json!({ "version": null, "document": text, "problems": error.problems, "advice": refused });
    Ok(Answer { text, json, good: false })
}

/// What a document that does not check means for the daemons that follow it, and what puts a good one back.
///
/// # Errors
///
/// What is wrong with the settings of a cluster.
pub(crate) async fn refused(source: &Source, text: &str) -> anyhow::Result<String> {
    Ok(advice(&Store::open(source)?, text).await)
}

async fn advice(store: &Store, text: &str) -> String {
    let refused = "every daemon refuses it and stays with the version that it has; ";
    // The history may be what is broken.
    let entries = store.history(entry::HISTORY_MAX).await.unwrap_or_default();
    let good = entries.iter().find(|entry| entry.document != text && Topology::parse(&entry.document).is_ok());
    match good {
        Some(entry) => format!(
            "{refused}`sunctl topology rollback {}` puts back version {}, `sunctl topology put FILE` another one",
            entry.number, entry.version
        ),
        None => format!("{refused}`sunctl topology put FILE` replaces it"),
    }
}

/// `sunctl topology history`: the latest changes, who made them and why; and whether there are more.
///
/// # Errors
///
/// When it cannot be read.
pub async fn history(source: &Source, count_max: usize) -> anyhow::Result<Answer> {
    let mut entries = Store::open(source)?.history(count_max.saturating_add(1)).await?;
    let more = entries.len() > count_max;
    entries.truncate(count_max);
    if entries.is_empty() {
        return Ok(Answer::good("No change was made with sunctl yet.\n".to_owned(), json!({ "changes": [] })));
    }
    let mut table = Table::new(&["NUMBER", "VERSION", "TIME (UTC)", "AUTHOR", "CHANGE", "REASON"]);
    for entry in &entries {
        table.row([
            entry.number.to_string(),
            entry.version.to_string(),
            entry.time(),
            entry.author.clone(),
            entry.change.clone(),
            entry.reason.clone(),
        ]);
    }
    let told: Vec<_> = entries.iter().map(Entry::json).collect();
    let note = if more {
        format!("\nThese are the last {count_max}; --all shows the others that are kept.\n")
    } else {
        String::new()
    };
    Ok(Answer::good(table.text() + &note, json!({ "changes": told, "more": more })))
}

/// What two documents are compared.
#[derive(Clone, Debug)]
pub enum Compared<'a> {
    /// The last change: what it was made of, and what it made.
    Last,
    /// What a change left, and what a later one did; none: what there is now.
    Changes(u64, Option<u64>),
    /// What there is now, and a file.
    File(&'a Path),
}

/// `sunctl topology diff`.
///
/// # Errors
///
/// When one of the two cannot be read.
pub async fn diff(source: &Source, compared: Compared<'_>) -> anyhow::Result<Answer> {
    let store = Store::open(source)?;
    let (before, after) = match compared {
        Compared::Last => {
            let entries = store.history(2).await?;
            let [last, before] = &*entries else {
                bail!("there is no change to show; `sunctl topology history` lists them")
            };
            (before.document.clone(), last.document.clone())
        }
        Compared::Changes(from, to) => (text_of(&store, Some(from)).await?, text_of(&store, to).await?),
        Compared::File(file) => {
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            (text_of(&store, None).await?, text)
        }
    };
    let text = lines::diff(&before, &after);
    let same = text.is_empty();
    let moved = match (Topology::parse(&before), Topology::parse(&after)) {
        (Ok(before), Ok(after)) => moves(&before, &after),
        (_, Err(error)) => format!("\nIt would be refused:\n{error}\n"),
        (Err(_), _) => String::new(),
    };
    let told = if same { "There is no difference.\n".to_owned() } else { format!("{text}{moved}") };
    Ok(Answer::good(told, json!({ "same": same, "diff": text })))
}

/// `sunctl topology put`: a whole document in place of the one there is.
///
/// # Errors
///
/// When it is refused, takes the weight of a last sun, or its version is not above that of the document there is: then it was
/// made from another one.
pub async fn put(
    source: &Source,
    file: &Path,
    guard: Guard,
    by: &Signature,
    consent: Consent<'_>,
) -> anyhow::Result<Answer> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let after = Topology::parse(&text).with_context(|| file.display().to_string())?;
    let draft = |held: &Held| {
        if held.text.as_deref() == Some(text.as_str()) {
            return Ok(same(&text, &after, format!("{} is what is there already.", file.display())));
        }
        // One that does not check has no version that anybody goes by.
        if let Some(before) = held.sound().filter(|before| before.version >= after.version) {
            bail!(
                "version {} is there, and {} has version {}: somebody changed it since your copy was taken, or the version \
                 was not raised. `sunctl topology diff --file {}` shows the difference; take a copy with `sunctl topology \
                 show`, make the change in it, and raise `version`",
                before.version,
                file.display(),
                after.version,
                file.display(),
            );
        }
        let what = format!("put {}", file.file_name().unwrap_or_default().to_string_lossy());
        whole(held, text.clone(), what, guard)
    };
    change::make(&Store::open(source)?, by, consent, draft).await
}

/// `sunctl topology rollback`: what a change left becomes the document again, with a new version.
///
/// # Errors
///
/// When there is no such change, or what it left is refused today or takes the weight of a last sun.
pub async fn rollback(
    source: &Source,
    number: u64,
    guard: Guard,
    by: &Signature,
    consent: Consent<'_>,
) -> anyhow::Result<Answer> {
    let store = Store::open(source)?;
    let earlier = text_of(&store, Some(number)).await?;
    Topology::parse(&earlier).with_context(|| {
        format!("change {number} left a document that does not check, nothing was written; `sunctl topology history` lists others")
    })?;
    let history = store.history(entry::HISTORY_MAX).await?;
    // What is there may have been deleted, or be broken: versions go on rising all the same.
    let known = history.iter().map(|entry| entry.version).max().unwrap_or(0);
    let draft = |held: &Held| {
        let version = held.version().max(known).saturating_add(1);
        let text = with_version(&earlier, version)?;
        let there = held.text.as_deref().filter(|now| with_version(now, version).is_ok_and(|now| now == text));
        if let (Some(there), Some(now)) = (there, held.sound()) {
            return Ok(same(there, &now, format!("Change {number} left what is there now.")));
        }
        whole(held, text, format!("rollback {number}"), guard)
    };
    change::make(&store, by, consent, draft).await
}

/// The draft of a whole document.
fn whole(held: &Held, text: String, what: String, guard: Guard) -> anyhow::Result<Draft> {
    let after = Topology::parse(&text).context("nothing was written: the document does not check")?;
    if let Some(before) = held.sound() {
        guard.check_whole(&before, &after)?;
    }
    let warnings = warnings(&after);
    let moved = match held.topology() {
        Ok(before) => before.map_or_else(String::new, |before| moves(&before, &after)),
        Err(error) => format!("\n{error:#}\n"),
    };
    let difference = lines::diff(held.text.as_deref().unwrap_or_default(), &text);
    let json = json!({ "diff": difference, "warnings": warnings });
    let warned: String = warnings.iter().map(|warning| format!("\nwarning: {warning}")).collect();
    let preview = format!("{difference}{moved}{warned}{}", if warned.is_empty() { "" } else { "\n" });
    Ok(Draft { what, text, version: after.version, preview, json, series: None })
}

/// The draft that changes nothing: what is wished for is there.
fn same(text: &str, topology: &Topology, preview: String) -> Draft {
    let json = json!({ "diff": "", "warnings": warnings(topology) });
    Draft { what: String::new(), text: text.to_owned(), version: topology.version, preview, json, series: None }
}

/// What daemons take of a document, and its operator hardly means: a line each.
pub(crate) fn warnings(topology: &Topology) -> Vec<String> {
    let mut found = geo::anycast::conflicts(topology);
    found.extend(weightless(topology));
    let addresses = || {
        topology.regions.iter().flat_map(|region| {
            let suns = region.suns.iter().map(|sun| &sun.server);
            let servers = suns.chain(region.caches.iter().map(|cache| &cache.server));
            servers.flat_map(|server| server.addresses.iter().map(|address| (&server.name, address)))
        })
    };
    // A fleet for trying things out is on loopback as a whole.
    if addresses().any(|(_, address)| !address.is_loopback()) {
        let loopback = addresses().filter(|(_, address)| address.is_loopback());
        found.extend(loopback.map(|(name, address)| {
            format!("{name}: addresses = {address}: it is loopback, where no client reaches it, and others' are not")
        }));
    }
    found
}

/// What share of each region's files changes its server, where any does.
fn moves(before: &Topology, after: &Topology) -> String {
    let mut text = String::new();
    for region in &before.regions {
        let Some(then) = after.region(region.id) else {
            text += &format!("region {} is gone\n", region.id);
            continue;
        };
        let mut tell = |what: &str, moved: f64| {
            if moved > 0.0 {
                text += &format!("{} of region {}'s files change their {what}\n", percent(moved), region.id);
            }
        };
        tell("sun", Region::suns_moved(region, then));
        tell("cache", Region::caches_moved(region, then));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

async fn text_of(store: &Store, number: Option<u64>) -> anyhow::Result<String> {
    let Some(number) = number else {
        let held = store.read().await?;
        return held.text.with_context(|| {
            format!("topology {store}: there is no document yet; `sunctl topology put FILE` writes the first")
        });
    };
    let entries = store.history(entry::HISTORY_MAX).await?;
    let entry = entries.into_iter().find(|entry| entry.number == number);
    let entry = entry.with_context(|| format!("there is no change {number}; `sunctl topology history` lists them"))?;
    Ok(entry.document)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"version = 7
domain = "example.org"
default_region = 4
content_servers = { url = "http://cs{number}.example.org", numbers = ["1-9"] }
[[region]]
id = 4
name = "north"
latitude = 60.0
longitude = 30.0
[[group]]
name = "sun4-1"
subnet = "192.0.2.0/26"
[[sun]]
name = "sun4-1-1"
internal = "10.0.0.1:8081"
addresses = ["192.0.2.1"]
weight = 100
"#;

    #[tokio::test]
    async fn a_document_that_does_not_check_is_replaced_and_versions_rise() {
        let place = tempfile::tempdir().unwrap();
        let (file, next) = (place.path().join("topology.toml"), place.path().join("next.toml"));
        let source = Source::File(file.clone());
        let by = Signature::new("ann", "").unwrap();
        fs::write(&file, GOOD).unwrap();
        fs::write(&next, GOOD.replace("= 7", "= 8").replace("100", "50")).unwrap();
        put(&source, &next, Guard::Last, &by, Consent::Given).await.unwrap();
        for broken in [GOOD.replace("= 7", "= 11").replace("100", "999"), "version = [".to_owned()] {
            fs::write(&file, &broken).unwrap();
            rollback(&source, 1, Guard::Last, &by, Consent::Given).await.unwrap();
            let now = Topology::parse(&fs::read_to_string(&file).unwrap()).unwrap();
            assert!(now.version > 8, "{}", now.version);
            fs::write(&file, &broken).unwrap();
            put(&source, &next, Guard::Last, &by, Consent::Given).await.unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), fs::read_to_string(&next).unwrap());
        }
        // The first change that was found broken.
        let broken = Store::open(&source).unwrap().history(99).await.unwrap();
        let broken =
            broken.iter().find(|entry| entry.author == "-" && Topology::parse(&entry.document).is_err()).unwrap();
        let error = rollback(&source, broken.number, Guard::Last, &by, Consent::Given).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("change {} left a document that does not check", broken.number)), "{error}");
    }

    #[tokio::test]
    async fn what_is_there_already_is_put_and_rolled_back_without_a_write_and_all_is_well() {
        let place = tempfile::tempdir().unwrap();
        let (file, next) = (place.path().join("topology.toml"), place.path().join("next.toml"));
        let source = Source::File(file.clone());
        let by = Signature::new("ann", "").unwrap();
        fs::write(&file, GOOD).unwrap();
        fs::write(&next, GOOD.replace("= 7", "= 8").replace("100", "50")).unwrap();
        put(&source, &next, Guard::Last, &by, Consent::Given).await.unwrap();
        let again = put(&source, &next, Guard::Last, &by, Consent::Given).await.unwrap();
        let back = rollback(&source, 2, Guard::Last, &by, Consent::Given).await.unwrap();
        for (answer, says) in [(again, "is what is there already."), (back, "Change 2 left what is there now.")] {
            assert!(
                answer.good && answer.text.ends_with(&format!("{says}\nNothing was written.\n")),
                "{}",
                answer.text
            );
            assert_eq!((&answer.json["written"], &answer.json["version"]), (&false.into(), &8.into()));
        }
        assert_eq!(Store::open(&source).unwrap().history(9).await.unwrap().len(), 2, "it, and what was found");
    }

    #[tokio::test]
    async fn a_whole_document_is_guarded_as_one_change_is_and_tells_what_check_warns_of() {
        let place = tempfile::tempdir().unwrap();
        let (file, next) = (place.path().join("topology.toml"), place.path().join("next.toml"));
        let source = Source::File(file.clone());
        let by = Signature::new("ann", "").unwrap();
        let drained = GOOD.replace("weight = 100", "weight = 100\ndraining = true");
        fs::write(&file, GOOD).unwrap();
        fs::write(&next, drained.replace("= 7", "= 8")).unwrap();
        let error = put(&source, &next, Guard::Last, &by, Consent::Given).await.unwrap_err().to_string();
        assert!(error.contains("no sun of region 4 would have weight") && error.contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), GOOD);
        let answer = put(&source, &next, Guard::Nobody, &by, Consent::Given).await.unwrap();
        assert!(answer.text.contains("warning: no sun of region 4 has weight"), "{}", answer.text);
        fs::write(&next, GOOD.replace("= 7", "= 9").replace("10.0.0.1", "192.0.2.9")).unwrap();
        let answer = put(&source, &next, Guard::Last, &by, Consent::Given).await.unwrap();
        assert!(
            answer.text.contains("warning: sun4-1-1: internal = 192.0.2.9:8081: it is in 192.0.2.0/26"),
            "{}",
            answer.text
        );
        let error = rollback(&source, 2, Guard::Last, &by, Consent::Given).await.unwrap_err().to_string();
        assert!(error.contains("no sun of region 4 would have weight"), "{error}");
        rollback(&source, 2, Guard::Nobody, &by, Consent::Given).await.unwrap();
    }

    #[test]
    fn loopback_among_addresses_of_a_network_is_warned_of() {
        let parse = |text: &str| Topology::parse(text).unwrap();
        let loopback = GOOD.replace("192.0.2.1\"]", "192.0.2.1\", \"127.0.0.1\"]");
        let said = "sun4-1-1: addresses = 127.0.0.1: it is loopback, where no client reaches it, and others' are not";
        assert_eq!(warnings(&parse(&loopback)), [said]);
        assert_eq!(warnings(&parse(&GOOD.replace("\"192.0.2.1\"", "\"127.0.0.1\""))), [""; 0]);
        assert_eq!(warnings(&parse(GOOD)), [""; 0]);
    }
}
