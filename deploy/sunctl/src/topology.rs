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
/// When it is refused, or its version is not above that of the document there is: then it was made from another one.
pub async fn put(source: &Source, file: &Path, by: &Signature, consent: Consent<'_>) -> anyhow::Result<Answer> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let after = Topology::parse(&text).with_context(|| file.display().to_string())?;
    let draft = |held: &Held| {
        if held.text.as_deref() == Some(text.as_str()) {
            bail!("it is what is there already");
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
        whole(held, text.clone(), what)
    };
    change::make(&Store::open(source)?, by, consent, draft).await
}

/// `sunctl topology rollback`: what a change left becomes the document again, with a new version.
///
/// # Errors
///
/// When there is no such change, or what it left is refused today.
pub async fn rollback(source: &Source, number: u64, by: &Signature, consent: Consent<'_>) -> anyhow::Result<Answer> {
    let store = Store::open(source)?;
    let earlier = text_of(&store, Some(number)).await?;
    let history = store.history(entry::HISTORY_MAX).await?;
    // What is there may have been deleted, or be broken: versions go on rising all the same.
    let known = history.iter().map(|entry| entry.version).max().unwrap_or(0);
    let draft = |held: &Held| {
        let version = held.version().max(known).saturating_add(1);
        let text = with_version(&earlier, version)?;
        if held.text.as_deref().is_some_and(|now| with_version(now, version).is_ok_and(|now| now == text)) {
            bail!("change {number} left what is there now: there is nothing to roll back");
        }
        whole(held, text, format!("rollback {number}"))
    };
    change::make(&store, by, consent, draft).await
}

/// The draft of a whole document.
fn whole(held: &Held, text: String, what: String) -> anyhow::Result<Draft> {
    let after = Topology::parse(&text).context("nothing was written: the document does not check")?;
    let moved = match held.topology() {
        Ok(before) => before.map_or_else(String::new, |before| moves(&before, &after)),
        Err(error) => format!("\n{error:#}\n"),
    };
    let difference = lines::diff(held.text.as_deref().unwrap_or_default(), &text);
    let json = json!({ "diff": difference });
    Ok(Draft { what, text, version: after.version, preview: format!("{difference}{moved}"), json, series: None })
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
        put(&source, &next, &by, Consent::Given).await.unwrap();
        for broken in [GOOD.replace("= 7", "= 11").replace("100", "999"), "version = [".to_owned()] {
            fs::write(&file, &broken).unwrap();
            rollback(&source, 1, &by, Consent::Given).await.unwrap();
            let now = Topology::parse(&fs::read_to_string(&file).unwrap()).unwrap();
            assert!(now.version > 8, "{}", now.version);
            fs::write(&file, &broken).unwrap();
            put(&source, &next, &by, Consent::Given).await.unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), fs::read_to_string(&next).unwrap());
        }
    }
}
