//! Why entries of a batch of downloads are left out, and what their reporter is told of it.

use geo::RegionId;
use geo::topology::Topology;
use prometheus::IntCounterVec;

use crate::names::{self, BadName};
use crate::wire::{Download, REFUSALS_PER_ANSWER_MAX, RefusedEntry};

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum BadEntry {
    #[error("file: {0}")]
    Name(#[from] BadName),
    #[error("region: the topology has no region {0}")]
    Region(RegionId),
    #[error("downloads: {0} is not within 0..={DOWNLOADS_MAX}")]
    Downloads(f64),
    #[error("size: {0} is above {SIZE_MAX}")]
    Size(u64),
}

impl BadEntry {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Name(name) => name.reason(),
            Self::Region(_) => "region",
            Self::Downloads(_) => "downloads",
            Self::Size(_) => "size",
        }
    }
}

/// Whether an entry can be counted.
///
/// # Errors
///
/// [`BadEntry`].
pub(super) fn check(one: &Download, topology: &Topology) -> Result<(), BadEntry> {
    names::reported(topology, &one.file)?;
    if topology.region(one.region).is_none() {
        return Err(BadEntry::Region(one.region));
    }
    if !(0.0..=DOWNLOADS_MAX).contains(&one.downloads) {
        return Err(BadEntry::Downloads(one.downloads));
    }
    if one.size > SIZE_MAX {
        return Err(BadEntry::Size(one.size));
    }
    Ok(())
}

/// What is left out of one batch: how many, and the first few.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    pub(super) count: usize,
    pub(super) first: Vec<RefusedEntry>,
}

impl Refusals {
    /// Notes an entry, by its place in the batch.
    pub(super) fn note(&mut self, index: usize, one: &Download, why: &BadEntry, counted: &IntCounterVec) {
        self.count += 1;
        counted.with_label_values(&["downloads", why.reason()]).inc();
        tracing::debug!(index, file = one.file, %why, "an entry of a batch is left out");
        if self.first.len() < REFUSALS_PER_ANSWER_MAX {
            let file = one.file.chars().take(FILE_CHARS_MAX).collect();
            let why = why.to_string().chars().take(WHY_CHARS_MAX).collect();
            self.first.push(RefusedEntry { index, file, why });
        }
    }
}

/// Downloads of one entry; a second of a whole region's traffic is far below.
const DOWNLOADS_MAX: f64 = 1e9;
/// Bytes of a file: 1 PiB, as at the edge.
const SIZE_MAX: u64 = 1 << 50;
/// Of a name, and of what is said of it, as they are told.
const FILE_CHARS_MAX: usize = 200;
const WHY_CHARS_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn every_refusal_has_its_reason() {
        let good = Download { region: RegionId(4), file: "c5/a.jpg".to_owned(), size: 1, downloads: 1.0, bytes: 1 };
        let named = |file: &str| Download { file: file.to_owned(), ..good.clone() };
        assert_eq!(judged(&good), "");
        for (bad, expected) in [
            (named("c5/../secret"), "name file: the path has a segment that is . or .."),
            (named("c5//y"), "name file: the path has an empty segment"),
            (named("c5/q?a=1"), "name file: the path has a character that must be percent-encoded"),
            (named("c5/a%2fb"), "name file: the path has an encoded slash, backslash or control character"),
            (named("c5/"), "name file: the path has an empty segment"),
            (named("c5/%7Ex"), "spelling file: it is not canonical: that is c5/~x"),
            (named("c99/x"), "content_server file: the topology has no content server 99"),
            (Download { region: RegionId(77), ..good.clone() }, "region region: the topology has no region 77"),
            (Download { downloads: -1.0, ..good.clone() }, "downloads downloads: -1 is not within 0..=1000000000"),
            (Download { downloads: f64::NAN, ..good.clone() }, "downloads downloads: NaN is not within 0..=1000000000"),
            (Download { size: u64::MAX, ..good.clone() }, "size size: 18446744073709551615 is above 1125899906842624"),
        ] {
            assert_eq!(judged(&bad), expected, "{bad:?}");
        }
    }

    #[test]
    fn only_the_first_few_are_told_and_no_more_of_them_than_fits() {
        let counted = IntCounterVec::new(prometheus::Opts::new("refused", "."), &["call", "reason"]).unwrap();
        let mut refusals = Refusals::default();
        let long = Download {
            region: RegionId(4),
            file: format!("c5/{}", "\u{e4}".repeat(2000)),
            size: 1,
            downloads: 1.0,
            bytes: 1,
        };
        for index in 0..100 {
            refusals.note(index, &long, &BadEntry::Region(RegionId(4)), &counted);
        }
        assert_eq!((refusals.count, refusals.first.len()), (100, REFUSALS_PER_ANSWER_MAX));
        assert_eq!(refusals.first[1].file.chars().count(), FILE_CHARS_MAX);
        assert_eq!(counted.with_label_values(&["downloads", "region"]).get(), 100);
    }

    fn judged(one: &Download) -> String {
        match check(one, &testing::topology()) {
            Ok(()) => String::new(),
            Err(why) => format!("{} {why}", why.reason()),
        }
    }
}
