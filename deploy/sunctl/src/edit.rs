//! A change of the topology's text: one server's weight, or whether it drains.
//!
//! The document stays the operator's: comments, order and layout survive, only the value and the version change. Pure.

use anyhow::{Context, bail};
use geo::Weight;
use toml_edit::{DocumentMut, Item, TableLike, Value};

/// What is changed of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Edit {
    /// Its weight, 0..=256.
    Weight(u16),
    /// It has no weight from now on, and keeps the number.
    Drain,
    /// It has the weight that it had before it was drained.
    Resume,
    /// Both, for one step of several.
    State(State),
}

/// What a document says of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State {
    /// Its weight, 0..=256; kept while it drains.
    pub weight: u16,
    /// Whether it drains: has no weight for now.
    pub draining: bool,
}

/// The document with the server changed and its version one higher; where it is so already, the text as it is.
///
/// # Errors
///
/// When there is no such server, the weight is none, or the text is no TOML with a version.
pub fn edit(text: &str, server: &str, edit: Edit) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse()?;
    let Some(entry) = find(document.as_table_mut(), server) else {
        bail!("there is no sun or cache {server:?}; `sunctl weight show` lists them all");
    };
    match edit {
        Edit::Weight(weight) if Weight::new(weight).is_none() => {
            bail!("weight {weight}: a weight is 0..={}, and 0 drains the server", Weight::MAX);
        }
        Edit::Weight(weight) if has(entry, weight) => return Ok(text.to_owned()),
        Edit::Weight(weight) => put(entry, "weight", i64::from(weight)),
        Edit::State(state) if has(entry, state.weight) && drains(entry) == state.draining => return Ok(text.to_owned()),
        Edit::State(State { weight, draining }) => {
            put(entry, "weight", i64::from(weight));
            if draining {
                put(entry, "draining", true);
            } else {
                entry.remove("draining");
            }
        }
        Edit::Drain if drains(entry) => return Ok(text.to_owned()),
        Edit::Drain => put(entry, "draining", true),
        Edit::Resume if !drains(entry) => return Ok(text.to_owned()),
        Edit::Resume => {
            entry.remove("draining");
        }
    }
    raise_version(&mut document)?;
    Ok(document.to_string())
}

/// The document with another version.
///
/// # Errors
///
/// When the text is no TOML.
pub fn with_version(text: &str, version: u64) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse()?;
    put(document.as_table_mut(), "version", i64::try_from(version).context("version: it is too large")?);
    Ok(document.to_string())
}

fn raise_version(document: &mut DocumentMut) -> anyhow::Result<()> {
    let version = document.get("version").and_then(Item::as_integer).context("version: is no number")?;
    put(document.as_table_mut(), "version", version.checked_add(1).context("version: it is too large")?);
    Ok(())
}

fn has(entry: &dyn TableLike, weight: u16) -> bool {
    entry.get("weight").and_then(Item::as_integer) == Some(i64::from(weight))
}

fn drains(entry: &dyn TableLike) -> bool {
    entry.get("draining").and_then(Item::as_bool) == Some(true)
}

/// The entry of `[[sun]]` or `[[cache]]` with this name.
fn find<'a>(document: &'a mut dyn TableLike, server: &str) -> Option<&'a mut dyn TableLike> {
    let named = |entry: &dyn TableLike| entry.get("name").and_then(Item::as_str) == Some(server);
    let lists = document.iter_mut().filter(|(key, _)| *key == "sun" || *key == "cache");
    for (_, list) in lists {
        let found = match list {
            Item::ArrayOfTables(tables) => {
                tables.iter_mut().map(|table| table as &mut dyn TableLike).find(|entry| named(*entry))
            }
            Item::Value(Value::Array(array)) => array
                .iter_mut()
                .filter_map(Value::as_inline_table_mut)
                .map(|table| table as &mut dyn TableLike)
                .find(|entry| named(*entry)),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Replaces a value and keeps what stands around it: alignment and a comment behind it.
fn put(table: &mut dyn TableLike, key: &str, value: impl Into<Value>) {
    if let Some(Item::Value(old)) = table.get_mut(key) {
        let decor = old.decor().clone();
        *old = value.into();
        *old.decor_mut() = decor;
    } else {
        table.insert(key, toml_edit::value(value));
    }
}

/// The version that a document names, whatever else is in it; none where it cannot be read as TOML.
#[must_use]
pub fn version_of(text: &str) -> Option<u64> {
    let version = text.parse::<DocumentMut>().ok()?.get("version")?.as_integer()?;
    u64::try_from(version).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPOLOGY: &str = r#"# The whole fleet.
version = 7 # rises with every change

[[sun]]
name = "sun4-2-1"
weight   = 100   # the old machine

[[sun]]
name = "sun4-2-2"
weight = 100

[[cache]]
name = "cache4-1"
weight = 100
draining = false # it did
"#;

    #[test]
    fn only_the_weight_and_the_version_change() {
        let expected =
            TOPOLOGY.replace("version = 7 #", "version = 8 #").replace("weight   = 100   #", "weight   = 50   #");
        assert_eq!(edit(TOPOLOGY, "sun4-2-1", Edit::Weight(50)).unwrap(), expected);
    }

    #[test]
    fn a_drained_server_keeps_its_weight_and_resumes_as_it_was() {
        let drained = edit(TOPOLOGY, "sun4-2-1", Edit::Drain).unwrap();
        let line = "weight   = 100   # the old machine\n";
        let expected =
            TOPOLOGY.replace("version = 7 #", "version = 8 #").replace(line, &format!("{line}draining = true\n"));
        assert_eq!(drained, expected);
        let resumed = edit(&drained, "sun4-2-1", Edit::Resume).unwrap();
        assert_eq!(resumed, TOPOLOGY.replace("version = 7 #", "version = 9 #"));
        let cache = edit(TOPOLOGY, "cache4-1", Edit::Drain).unwrap();
        assert!(cache.ends_with("draining = true # it did\n"), "{cache}");
    }

    #[test]
    fn servers_of_an_inline_list_are_found_too() {
        let text = "version = 1\ncache = [{ name = \"cache4-1\", weight = 1 }]\n";
        let expected = "version = 2\ncache = [{ name = \"cache4-1\", weight = 2 }]\n";
        assert_eq!(edit(text, "cache4-1", Edit::Weight(2)).unwrap(), expected);
        let drained = edit(text, "cache4-1", Edit::Drain).unwrap();
        assert_eq!(edit(&drained, "cache4-1", Edit::Resume).unwrap(), text.replace("version = 1", "version = 3"));
    }

    #[test]
    fn a_change_that_makes_no_sense_says_what_to_do() {
        let none = "there is no sun or cache \"sun4-2-9\"; `sunctl weight show` lists them all";
        check_refused("sun4-2-9", Edit::Weight(1), none);
        check_refused("sun4-2-1", Edit::Weight(257), "weight 257: a weight is 0..=256, and 0 drains the server");
    }

    #[test]
    fn what_is_so_already_leaves_the_text_alone() {
        let same =
            |server: &str, change: Edit| assert_eq!(edit(TOPOLOGY, server, change).unwrap(), TOPOLOGY, "{change:?}");
        same("sun4-2-1", Edit::Weight(100));
        same("sun4-2-1", Edit::State(State { weight: 100, draining: false }));
        same("cache4-1", Edit::State(State { weight: 100, draining: false }));
        same("sun4-2-1", Edit::Resume);
        same("cache4-1", Edit::Resume);
        let step = edit(TOPOLOGY, "sun4-2-1", Edit::State(State { weight: 0, draining: false })).unwrap();
        let last = edit(&step, "sun4-2-1", Edit::State(State { weight: 100, draining: true })).unwrap();
        let drained = edit(TOPOLOGY, "sun4-2-1", Edit::Drain).unwrap();
        assert_eq!(edit(&drained, "sun4-2-1", Edit::Drain).unwrap(), drained);
        assert_eq!(last, drained.replace("version = 8", "version = 9"));
    }

    #[test]
    fn a_version_is_replaced() {
        assert_eq!(with_version(TOPOLOGY, 12).unwrap(), TOPOLOGY.replace("version = 7 #", "version = 12 #"));
    }

    #[track_caller]
    fn check_refused(server: &str, change: Edit, expected: &str) {
        assert_eq!(edit(TOPOLOGY, server, change).unwrap_err().to_string(), expected);
    }
}
