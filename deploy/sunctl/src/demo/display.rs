//! What the terminal shows each second: a block that is drawn over itself, or a line where standard output
//! is no terminal.
//!
//! ```text
//!    0:42   1,204 requests/s   86.3 MB/s   0 errors                       Ctrl-C ends it
//!   given by   RAM 71.2%   cache vault 18.3%   owner sun 6.0%   content server 4.5%
//!   cache4-1   52 files, 63 MB of 64 MB     cache5-1   49 files, 60 MB of 64 MB
//!   alive      sun4-2-1  sun4-2-2  sun4-2-3  cache4-1  sun5-1-1  cache5-1
//!
//!   region 4                               region 5
//!    312.4  pictures/104.png                280.1  pictures/017.png
//! ```
//!
//! Frames are made from two snapshots, without a clock or a terminal.

use std::fmt::Write;
use std::time::Duration;

use geo::answer::bytes;

/// What is known at one moment; counters since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Since the start.
    pub at: Duration,
    /// Answers to clients.
    pub requests: u64,
    /// Bytes sent to clients.
    pub sent_bytes: u64,
    /// Answers that are errors of ours, and what visitors did not get.
    pub errors: u64,
    /// What went wrong last, for a visitor.
    pub trouble: Option<String>,
    /// Answers by where their bytes were.
    pub tiers: Tiers,
    /// Requests that reached the content server.
    pub content_requests: u64,
    /// What each cache holds.
    pub caches: Vec<Fullness>,
    /// Names of the servers, and whether each is ready.
    pub servers: Vec<(&'static str, bool)>,
    /// Regions with their best files: rating and name.
    pub top: Vec<(u16, Vec<(f64, String)>)>,
}

/// Answers by where their bytes were.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tiers {
    /// In RAM of the server that answered.
    pub ram: u64,
    /// On disk of a regional cache.
    pub vault: u64,
    /// At the file's owner.
    pub owner: u64,
    /// At the content server.
    pub content: u64,
}

/// How full a cache is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fullness {
    /// Its name.
    pub name: &'static str,
    /// Files held.
    pub files: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes it may hold.
    pub bytes_max: u64,
}

/// One line about the time between two snapshots.
#[must_use]
pub fn line(before: &Snapshot, now: &Snapshot) -> String {
    let rates = Rates::between(before, now);
    let caches: Vec<String> =
        now.caches.iter().map(|cache| format!("{} {} files {}", cache.name, cache.files, bytes(cache.bytes))).collect();
    let first = |(region, files): &(u16, Vec<(f64, String)>)| {
        let (rating, name) = files.first()?;
        Some(format!("top of {region} {} {rating:.1}", short(name)))
    };
    let top: Vec<String> = now.top.iter().filter_map(first).collect();
    let alive = now.servers.iter().filter(|(_, ready)| *ready).count();
    let parts = [rates.text(), format!("alive {alive} of {}", now.servers.len()), caches.join(", "), top.join(", ")];
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    let trouble = match &now.trouble {
        Some(trouble) if rates.errors > 0 => format!(" | last error: {trouble}"),
        _ => String::new(),
    };
    format!("{} {}{trouble}", clock(now.at), parts.join(" | "))
}

/// The lines of a block about the time between two snapshots.
#[must_use]
pub fn block(before: &Snapshot, now: &Snapshot) -> Vec<String> {
    let rates = Rates::between(before, now);
    let mut lines = vec![
        String::new(),
        format!(
            "{BOLD}{:>7}   {:>7} requests/s   {:>9}/s{PLAIN}   {} errors",
            clock(now.at),
            grouped(rates.requests),
            bytes(rates.sent_bytes),
            grouped(now.errors)
        ),
        format!("  given by   {}", rates.tiers()),
    ];
    let cache = |cache: &Fullness| {
        let (bar, held) = (bar(cache.bytes, cache.bytes_max), bytes(cache.bytes));
        format!("  {:<10} {bar} {:>4} files, {held} of {}", cache.name, cache.files, bytes(cache.bytes_max))
    };
    lines.extend(now.caches.iter().map(cache));
    let server = |(name, ready): &(&str, bool)| match ready {
        true => format!("{GREEN}{name}{PLAIN}"),
        false => format!("{RED}{name} (not ready){PLAIN}"),
    };
    let servers: Vec<String> = now.servers.iter().map(server).collect();
    lines.push(format!("  servers    {}", servers.join("  ")));
    lines.push(String::new());
    lines.extend(columns(&now.top));
    lines.push(String::new());
    lines.extend(now.trouble.iter().map(|trouble| format!("  {RED}last error:{PLAIN} {trouble}")));
    lines.push("  Ctrl-C ends it.".to_owned());
    lines
}

/// What is said at the end.
#[must_use]
pub fn farewell(last: &Snapshot) -> String {
    let whole = Rates::between(&Snapshot::default(), last);
    let text = format!(
        "Ended after {}: {} requests, {}, {} errors; {} requests reached the content server; {}.\n",
        clock(last.at),
        grouped(last.requests),
        bytes(last.sent_bytes),
        grouped(last.errors),
        grouped(last.content_requests),
        whole.tiers()
    );
    match &last.trouble {
        Some(trouble) => format!("{text}Last error: {trouble}\n"),
        None => text,
    }
}

/// What draws `lines` over the `drawn` lines of the block before. Lines are cut at the terminal's edge
/// rather than wrapped, or the block would not be as high as it is counted.
#[must_use]
pub fn redraw(drawn: usize, lines: &[String]) -> String {
    let mut text = String::from("\x1b[?25l\x1b[?7l");
    if drawn > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, "\x1b[{drawn}A\r");
    }
    for line in lines {
        let _ = writeln!(text, "{line}\x1b[K");
    }
    text.push_str("\x1b[J\x1b[?7h\x1b[?25h");
    text
}

/// What happened between two snapshots, a second.
struct Rates {
    requests: u64,
    sent_bytes: u64,
    /// Since the snapshot before, not a second.
    errors: u64,
    /// Shares in percent, if there were answers: RAM, vault, owner, content server.
    shares: Option<[f64; 4]>,
}

impl Rates {
    fn between(before: &Snapshot, now: &Snapshot) -> Self {
        let seconds = now.at.saturating_sub(before.at).as_secs_f64().max(0.001);
        // A counter that began again at a restart counts from 0.
        let grown = |from: u64, to: u64| to.checked_sub(from).unwrap_or(to);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive and small")]
        let rate = |from, to| (grown(from, to) as f64 / seconds).round() as u64;
        let tiers = |snapshot: &Snapshot| {
            let tiers = snapshot.tiers;
            [tiers.ram, tiers.vault, tiers.owner, tiers.content]
        };
        let (from, to) = (tiers(before), tiers(now));
        let counts: [u64; 4] = std::array::from_fn(|tier| grown(from[tier], to[tier]));
        let all: u64 = counts.iter().sum();
        Self {
            requests: rate(before.requests, now.requests),
            sent_bytes: rate(before.sent_bytes, now.sent_bytes),
            errors: grown(before.errors, now.errors),
            shares: (all > 0).then(|| counts.map(|count| 100.0 * count as f64 / all as f64)),
        }
    }

    fn tiers(&self) -> String {
        let Some([ram, vault, owner, content]) = self.shares else { return "nobody asks".to_owned() };
        format!("RAM {ram:.1}%   cache vault {vault:.1}%   owner sun {owner:.1}%   content server {content:.1}%")
    }

    fn text(&self) -> String {
        let shares = self.shares.map_or_else(
            || "nobody asks".to_owned(),
            |[ram, vault, owner, content]| {
                format!("RAM {ram:.1}% vault {vault:.1}% owner {owner:.1}% content {content:.1}%")
            },
        );
        format!("{} requests/s {}/s errors {} | {shares}", self.requests, bytes(self.sent_bytes), self.errors)
    }
}

/// The best files of the regions, side by side.
fn columns(top: &[(u16, Vec<(f64, String)>)]) -> Vec<String> {
    let cell = |text: &str| format!("{text:<COLUMN_CHARACTERS$.COLUMN_CHARACTERS$}");
    let row = |cells: Vec<String>| format!("  {}", cells.concat()).trim_end().to_owned();
    let mut lines = vec![row(top.iter().map(|(region, _)| cell(&format!("top of region {region}"))).collect())];
    lines.extend((0..TOP_FILES).map(|place| {
        let file = |(_, files): &(u16, Vec<(f64, String)>)| {
            cell(&files.get(place).map_or_else(String::new, |(rating, name)| format!("{rating:>8.1}  {}", short(name))))
        };
        row(top.iter().map(file).collect())
    }));
    lines
}

/// A file's name without its content server.
fn short(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, path)| path)
}

fn bar(part: u64, whole: u64) -> String {
    let filled = usize::try_from(part.saturating_mul(BAR_CHARACTERS as u64) / whole.max(1)).unwrap_or(BAR_CHARACTERS);
    let filled = filled.min(BAR_CHARACTERS);
    format!("[{}{}]", "#".repeat(filled), ".".repeat(BAR_CHARACTERS - filled))
}

fn clock(at: Duration) -> String {
    format!("{}:{:02}", at.as_secs() / 60, at.as_secs() % 60)
}

/// 1204 as 1,204.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Files shown of each region.
pub const TOP_FILES: usize = 5;
const COLUMN_CHARACTERS: usize = 38;
const BAR_CHARACTERS: usize = 20;
const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_happened_since_the_last() {
        assert_eq!(
            line(&Snapshot::default(), &snapshot()),
            "1:05 20 requests/s 2.0 MB/s errors 3 | RAM 50.0% vault 25.0% owner 15.0% content 10.0% | alive 1 of 2 | \
             cache4-1 52 files 32 MB | top of 4 pictures/104.png 312.4"
        );
    }

    #[test]
    fn without_requests_there_are_no_shares() {
        let now = Snapshot { at: Duration::from_secs(66), ..snapshot() };
        assert!(line(&snapshot(), &now).contains("0 requests/s 0 B/s errors 0 | nobody asks"));
    }

    #[test]
    fn a_counter_that_began_again_counts_from_zero() {
        let restarted = Snapshot { at: Duration::from_secs(75), requests: 100, ..snapshot() };
        assert!(line(&snapshot(), &restarted).contains(" 10 requests/s"));
    }

    #[test]
    fn a_block_is_drawn_over_the_one_before() {
        let lines = block(&Snapshot::default(), &snapshot());
        let text = redraw(lines.len(), &lines);
        assert_eq!(text.matches('\n').count(), lines.len());
        assert!(text.contains(&format!("\x1b[{}A", lines.len())));
        assert!(
            lines.iter().any(|line| line.contains("[##########..........]   52 files, 32 MB of 64 MB")),
            "{lines:#?}"
        );
        assert!(lines.iter().any(|line| line.starts_with("     312.4  pictures/104.png")), "{lines:#?}");
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1204), "1,204");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            at: Duration::from_secs(65),
            requests: 1300,
            sent_bytes: 130_000_000,
            errors: 3,
            trouble: None,
            content_requests: 12,
            tiers: Tiers { ram: 50, vault: 25, owner: 15, content: 10 },
            caches: vec![Fullness { name: "cache4-1", files: 52, bytes: 32_000_000, bytes_max: 64_000_000 }],
            servers: vec![("sun4-2-1", true), ("cache4-1", false)],
            top: vec![(4, vec![(312.4, "c100500/pictures/104.png".to_owned())]), (5, Vec::new())],
        }
    }
}
