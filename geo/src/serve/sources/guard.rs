//! A source that shrinks much is more often an accident than a wish: an export that failed, a disk that was full, a file that
//! is being written. What it no longer names would move clients at once, so it is refused, until somebody insists.
//!
//! ```text
//!   before: 1,000 prefixes    now: 400    lost 600 > 0.5 * 1,000 --> refused
//!   before: 6                 now: 2      lost 4 < 10            --> taken: small ones are edited by hand
//!   before: 3                 now: 0      nothing is left        --> refused
//! ```

use std::collections::BTreeMap;

/// How much each source says, by its name.
pub(super) type Sizes = BTreeMap<String, u64>;

/// What is lost, by the source's name.
pub(super) type Lost = BTreeMap<String, String>;

/// What each source lost that lost more than this share of what it said. A source that is not named any more lost nothing: the
/// config says so.
pub(super) fn lost(before: &Sizes, now: &Sizes, share_max: f64) -> Lost {
    let lost = before.iter().filter_map(|(name, &before)| {
        let now = *now.get(name)?;
        let told = || (name.clone(), format!("{name}: it had {before} entries and has {now}"));
        is_shrunk(before, now, share_max).then(told)
    });
    lost.collect()
}

#[expect(clippy::cast_precision_loss, reason = "a share of millions")]
fn is_shrunk(before: u64, now: u64, share_max: f64) -> bool {
    let lost = before.saturating_sub(now);
    let matters = now == 0 || lost >= LOST_MIN;
    lost > 0 && matters && lost as f64 > share_max * before as f64
}

/// Fewer are not minded while something is left.
const LOST_MIN: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_loses_much_at_once_is_told() {
        check("a=1000", "a=500", 0.5, "");
        check("a=1000", "a=499", 0.5, "a: it had 1000 entries and has 499");
        check("a=1000", "a=2000", 0.5, "");
        check("a=1000 b=40", "a=1000 b=0", 0.5, "b: it had 40 entries and has 0");
        // Few are edited by hand, but not down to nothing.
        check("a=6", "a=1", 0.5, "");
        check("a=1", "a=0", 0.5, "a: it had 1 entries and has 0");
        check("a=0", "a=0", 0.5, "");
        // Another file is another source.
        check("a=1000", "b=1", 0.5, "");
        // 1 turns it off, 0 minds every ten.
        check("a=1000", "a=0", 1.0, "");
        check("a=1000", "a=990", 0.0, "a: it had 1000 entries and has 990");
        check("a=1000", "a=991", 0.0, "");
    }

    #[track_caller]
    fn check(before: &str, now: &str, share_max: f64, expected: &str) {
        let sizes = |text: &str| -> Sizes {
            let pair = |pair: &str| pair.split_once('=').map(|(name, size)| (name.to_owned(), size.parse().unwrap()));
            text.split(' ').filter_map(pair).collect()
        };
        let told: Vec<String> = lost(&sizes(before), &sizes(now), share_max).into_values().collect();
        assert_eq!(told.join("; "), expected, "{before} -> {now}");
    }
}
