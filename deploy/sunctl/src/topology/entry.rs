//! What is kept of each change, beside the document: who, when, why, what, and the document that it left.
//!
//! ```text
//!   etcd    /sun/topology.history/00000000000000000007      file    topology.toml.history/00000000000000000007.json
//!
//!   {"number": 7, "version": 8, "at": 1790000000, "author": "ann", "reason": "new disks", "change": "drain sun4-2-1",
//!    "document": "H4sI..."}                                 the text, in gzip and base64
//! ```
//!
//! A change that is written in steps (`weight set --over`) is one entry, which each step replaces: `series` tells that two
//! writes are steps of one change.
//!
//! Where the document was changed by something else, what it left is kept as a change of "-" before the next one of ours.

use std::io::{Read, Write};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use geo::topology::DOCUMENT_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Rises by one with each.
    pub number: u64,
    /// Of the document that it left.
    pub version: u64,
    /// Unix time, seconds.
    pub at: u64,
    /// Who made it; "-": something else than `sunctl`.
    pub author: String,
    /// Why, in the author's words; empty when nothing was said.
    pub reason: String,
    /// What was done, `weight set sun4-2-1 50`.
    pub change: String,
    /// The document that it left.
    pub document: String,
    /// What the steps of one change have in common; none: it is no step.
    pub series: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Written {
    number: u64,
    version: u64,
    at: u64,
    author: String,
    reason: String,
    change: String,
    document: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    series: Option<String>,
}

impl Entry {
    /// As it is stored.
    ///
    /// # Errors
    ///
    /// Never in practice: packing in RAM does not fail.
    pub fn encode(&self) -> anyhow::Result<Vec<u8>> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(self.document.as_bytes())?;
        let Self { number, version, at, .. } = *self;
        let (author, reason, change) = (self.author.clone(), self.reason.clone(), self.change.clone());
        let (document, series) = (STANDARD.encode(packer.finish()?), self.series.clone());
        Ok(serde_json::to_vec(&Written { number, version, at, author, reason, change, document, series })?)
    }

    /// From what is stored.
    ///
    /// # Errors
    ///
    /// When it is none, or longer than a document may be.
    pub fn decode(bytes: &[u8]) -> anyhow::Result<Self> {
        let written: Written = serde_json::from_slice(bytes)?;
        let packed = STANDARD.decode(&written.document).context("document")?;
        let mut document = String::new();
        let bound = DOCUMENT_BYTES_MAX as u64 + 1;
        GzDecoder::new(&*packed).take(bound).read_to_string(&mut document).context("document")?;
        if document.len() > DOCUMENT_BYTES_MAX {
            bail!("document: it has more than {DOCUMENT_BYTES_MAX} bytes");
        }
        let Written { number, version, at, author, reason, change, series, .. } = written;
        Ok(Self { number, version, at, author, reason, change, document, series })
    }

    /// Without the document.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let Self { number, version, at, author, reason, change, .. } = self;
        serde_json::json!({
            "number": number, "version": version, "at": at, "author": author, "reason": reason, "change": change,
        })
    }

    /// When it was, for people: `2026-11-21 23:59:07`.
    #[must_use]
    pub fn time(&self) -> String {
        let (days, second) = (self.at / 86_400, self.at % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

/// The Gregorian date of a day since 1970, by counting from a first of March so that leap days are last.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + (month <= 2) as u64, month, day)
}

/// Changes that are kept; older ones are dropped.
pub const HISTORY_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_as_it_was_written() {
        let entry = entry(1_790_000_000);
        let step = Entry { series: Some("a".into()), ..entry.clone() };
        for entry in [&entry, &step] {
            assert_eq!(Entry::decode(&entry.encode().unwrap()).unwrap(), *entry);
        }
        let text = String::from_utf8(entry.encode().unwrap()).unwrap();
        assert!(text.starts_with(r#"{"number":7,"version":8,"at":1790000000,"author":"ann","reason":"#), "{text}");
        for bad in ["", "{}", &text.replace("H4s", "!!!"), &text.replace("\"number\":7", "\"number\":-7")] {
            assert!(Entry::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_is_told_as_people_write_it() {
        for (at, expected) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_790_000_000, "2026-09-21 14:13:20"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(entry(at).time(), expected);
        }
    }

    fn entry(at: u64) -> Entry {
        Entry {
            number: 7,
            version: 8,
            at,
            author: "ann".into(),
            reason: "new disks".into(),
            change: "drain sun4-2-1".into(),
            document: "version = 8\n".into(),
            series: None,
        }
    }
}
