//! A change of the topology, from its draft to its writing.
//!
//! ```text
//!   read --> draft: text with version + 1, checked as a whole --> previewed, agreed to --> written, if nobody else wrote
//!     ^                                                                                        |
//!     +---- where nobody was asked, so that nobody saw what is now another document -----------+
//! ```

use anyhow::bail;
use geo::answer::Answer;
use serde_json::Value;

use super::entry::Entry;
use super::store::{Conflict, Held, Store};

/// Whether a previewed change is written.
pub enum Consent<'a> {
    /// No: it is previewed only.
    Never,
    /// Yes, at once.
    Given,
    /// If this agrees, which gets the preview.
    Asked(&'a mut dyn FnMut(&str) -> anyhow::Result<bool>),
}

/// Who makes a change, and why.
#[derive(Clone, Debug)]
pub struct Signature {
    author: String,
    reason: String,
}

impl Signature {
    /// Checked: both stand in one line of a history.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn new(author: &str, reason: &str) -> anyhow::Result<Self> {
        for (what, text, bytes_max) in [("author", author, AUTHOR_BYTES_MAX), ("reason", reason, REASON_BYTES_MAX)] {
            if text.len() > bytes_max || text.contains(char::is_control) {
                bail!("{what}: it is one line of at most {bytes_max} bytes");
            }
        }
        let author = if author.is_empty() { "unknown" } else { author };
        Ok(Self { author: author.to_owned(), reason: reason.to_owned() })
    }
}

/// A change that checks.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What is done, for the history.
    pub what: String,
    /// The whole document, changed.
    pub text: String,
    /// Its version.
    pub version: u64,
    /// What it does, for people.
    pub preview: String,
    /// And for programs.
    pub json: Value,
    /// What the steps of one change have in common, which are one entry of the history; none: it is no step.
    pub series: Option<String>,
}

/// Drafts a change of what is there, previews it and, with consent, writes it.
///
/// # Errors
///
/// What the draft says, that somebody else changed the document while the question was open, and what the disk or the
/// cluster says.
pub async fn make(
    store: &Store,
    by: &Signature,
    consent: Consent<'_>,
    draft: impl Fn(&Held) -> anyhow::Result<Draft>,
) -> anyhow::Result<Answer> {
    let (mut held, mut tries) = (store.read().await?, 1);
    let mut drafted = draft(&held)?;
    if drafted.is_what(&held) {
        return Ok(answer(&drafted, Outcome::Same));
    }
    let asked = match consent {
        Consent::Never => return Ok(answer(&drafted, Outcome::Previewed)),
        Consent::Given => false,
        Consent::Asked(ask) => {
            if !ask(&drafted.preview)? {
                return Ok(answer(&drafted, Outcome::Declined));
            }
            true
        }
    };
    while let Err(error) = store.write(&held, by.entry(&drafted)).await {
        if asked || tries == TRIES_MAX || !error.is::<Conflict>() {
            return Err(error);
        }
        tries += 1;
        held = store.read().await?;
        drafted = draft(&held)?;
        if drafted.is_what(&held) {
            return Ok(answer(&drafted, Outcome::Same));
        }
    }
    Ok(answer(&drafted, if asked { Outcome::Agreed } else { Outcome::Written }))
}

impl Draft {
    /// Whether it would change nothing.
    #[must_use]
    pub fn is_what(&self, held: &Held) -> bool {
        held.text.as_ref() == Some(&self.text)
    }
}

impl Signature {
    fn entry(&self, draft: &Draft) -> Entry {
        Entry {
            number: 0,
            version: draft.version,
            at: daemon::clock::unix_s(),
            author: self.author.clone(),
            reason: self.reason.clone(),
            change: draft.what.clone(),
            document: draft.text.clone(),
            series: draft.series.clone(),
        }
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    /// It is so already.
    Same,
    Previewed,
    /// Written without a question.
    Written,
    /// Written after a question, with which the preview was shown.
    Agreed,
    Declined,
}

fn answer(draft: &Draft, outcome: Outcome) -> Answer {
    let version = draft.version;
    let preview = match outcome {
        Outcome::Same | Outcome::Previewed | Outcome::Written => format!("{}\n", draft.preview),
        Outcome::Agreed | Outcome::Declined => String::new(),
    };
    let done = match outcome {
        Outcome::Previewed => format!("Nothing was written (--dry-run); it would be version {version}.\n"),
        Outcome::Same | Outcome::Declined => "Nothing was written.\n".to_owned(),
        Outcome::Agreed | Outcome::Written => {
            format!("Written as version {version}; every daemon sees it within a second.\n")
        }
    };
    let mut json = draft.json.clone();
    json["version"] = version.into();
    json["written"] = matches!(outcome, Outcome::Agreed | Outcome::Written).into();
    Answer::good(preview + &done, json)
}

/// A share for people, `16.7%`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

const AUTHOR_BYTES_MAX: usize = 100;
const REASON_BYTES_MAX: usize = 500;
/// Writers that nobody waits for, one after another.
const TRIES_MAX: u32 = 10;
