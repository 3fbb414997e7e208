//! `geo diff BEFORE AFTER`: what moves between two tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde_json::json;

use crate::answer::{Answer, Table as Columns};
use crate::diff::{self, Count, Firsts, Moves, Named, Range};
use crate::table::{Found, Table};
use crate::topology::RegionId;

/// Compares two tables.
pub(super) fn answer(before: &Arc<Table>, after: &Arc<Table>) -> Answer {
    let family = |from: IpAddr, block_bits| diff::diff(ranges(before, from), ranges(after, from), block_bits);
    let v4 = family(Ipv4Addr::UNSPECIFIED.into(), 8);
    let v6 = family(Ipv6Addr::UNSPECIFIED.into(), 80);
    let text = format!("{}{}{}", columns(&v4, &v6), total("IPv4", "/24", &v4), total("IPv6", "/48", &v6));
    Answer::good(text, json!({ "ipv4": document(&v4), "ipv6": document(&v6) }))
}

/// A table's answers, a range each.
fn ranges(table: &Table, from: IpAddr) -> impl Iterator<Item = Range> + '_ {
    table.ranges(from).map(|(first, last, found)| Range {
        first: number(first),
        last: number(last),
        firsts: found.map(|found| firsts(table, found)).unwrap_or_default(),
    })
}

/// Who is first: the best of the most specific prefix that leaves anybody, as the resolver goes (without knowing who is
/// up, and without the hash that decides among equals).
fn firsts(table: &Table, found: Found) -> Firsts {
    let mut denied: Vec<RegionId> = Vec::new();
    let mut next = Some(found);
    while let Some(found) = next {
        let leaf = table.leaf(found);
        denied.extend(&leaf.denied);
        let allowed = || leaf.candidates.iter().filter(|candidate| !denied.contains(&candidate.region));
        if let Some(best) = allowed().map(|candidate| candidate.rank).min() {
            let mut firsts: Firsts = allowed().filter(|one| one.rank == best).map(|one| one.region).collect();
            firsts.sort_unstable();
            return firsts;
        }
        next = table.covering(found);
    }
    Vec::new()
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn columns(v4: &Moves, v6: &Moves) -> String {
    let mut columns = Columns::new(&["FAMILY", "FROM", "TO", "BLOCKS", "OF ALL", "ADDRESSES", "OF ALL"]);
    for (family, moves) in [("IPv4", v4), ("IPv6", v6)] {
        let mut rows: Vec<_> = moves.moved.iter().collect();
        rows.sort_by(|a, b| b.1.addresses.total_cmp(&a.1.addresses).then(a.0.cmp(b.0)));
        for ((from, to), count) in rows {
            columns.row([
                family.to_owned(),
                Named(from).to_string(),
                Named(to).to_string(),
                count.blocks.to_string(),
                share(count.blocks as f64, moves.known.blocks as f64),
                addresses(count.addresses),
                share(count.addresses, moves.known.addresses),
            ]);
        }
    }
    if v4.moved.is_empty() && v6.moved.is_empty() { String::new() } else { columns.text() }
}

fn total(family: &str, block: &str, moves: &Moves) -> String {
    let (moved, known) = (moves.total(), moves.known);
    format!(
        "{family}: {} of {} {block} move ({}), {} of all addresses that are known\n",
        moved.blocks,
        known.blocks,
        share(moved.blocks as f64, known.blocks as f64),
        share(moved.addresses, known.addresses)
    )
}

fn document(moves: &Moves) -> serde_json::Value {
    let count = |count: &Count| json!({ "addresses": count.addresses, "blocks": count.blocks });
    let moved = moves.moved.iter().map(
        |((from, to), many)| json!({ "from": from, "to": to, "addresses": many.addresses, "blocks": many.blocks }),
    );
    json!({ "known": count(&moves.known), "moved_in_all": count(&moves.total()), "moved": moved.collect::<Vec<_>>() })
}

fn share(part: f64, all: f64) -> String {
    if all == 0.0 { "0%".to_owned() } else { format!("{:.2}%", 100.0 * part / all) }
}

/// Whole while that is short, a power of ten for those of IPv6.
fn addresses(count: f64) -> String {
    if count < 1e12 { format!("{count:.0}") } else { format!("{count:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Candidate, Content, Leaf, Source, Writer};

    #[test]
    fn what_moves_is_told_in_columns_and_json() {
        let before = table(&[("10.0.0.0/8", "4"), ("2001:db8::/32", "4=5")]);
        let after = table(&[("10.0.0.0/8", "4"), ("10.1.0.0/16", "5"), ("2001:db8::/32", "5")]);
        let Answer { text, json, .. } = answer(&before, &after);
        assert_eq!(
            text,
            "FAMILY  FROM  TO  BLOCKS   OF ALL  ADDRESSES   OF ALL\n\
             IPv4    4      5     256    0.39%      65536    0.39%\n\
             IPv6    4=5    5   65536  100.00%     7.9e28  100.00%\n\
             IPv4: 256 of 65536 /24 move (0.39%), 0.39% of all addresses that are known\n\
             IPv6: 65536 of 65536 /48 move (100.00%), 100.00% of all addresses that are known\n"
        );
        assert_eq!(json["ipv4"]["moved"], json!([{"from": [4], "to": [5], "addresses": 65536.0, "blocks": 256}]));
        let same = answer(&after, &after);
        assert!(same.text.starts_with("IPv4: 0 of 65536 /24 move (0.00%)"), "{}", same.text);
    }

    #[test]
    fn who_is_denied_is_not_first_and_the_covering_prefix_counts_then() {
        check(&[("10.0.0.0/8", "4"), ("10.1.0.0/16", "5!5")], "10.1.0.1", "4");
        check(&[("10.0.0.0/8", "4=6"), ("10.1.0.0/16", "!4")], "10.1.0.1", "6");
        check(&[("10.0.0.0/8", "4"), ("10.1.0.0/16", "!4")], "10.1.0.1", "-");
        check(&[("10.0.0.0/8", "4"), ("10.1.0.0/16", "6=5")], "10.1.0.1", "5=6");
    }

    #[track_caller]
    fn check(prefixes: &[(&str, &str)], address: &str, expected: &str) {
        let table = table(prefixes);
        let found = table.lookup(address.parse().unwrap()).unwrap();
        assert_eq!(Named(&firsts(&table, found)).to_string(), expected);
    }

    /// Leaves are `4`, `4=5` (equally good), `4!5` (not in 5).
    fn table(prefixes: &[(&str, &str)]) -> Arc<Table> {
        let mut writer = Writer::build(Content::default());
        let regions = |text: &str| -> Vec<RegionId> {
            text.split('=').filter(|text| !text.is_empty()).map(|text| RegionId(text.parse().unwrap())).collect()
        };
        for (prefix, leaf) in prefixes {
            let (candidates, denied) = leaf.split_once('!').unwrap_or((leaf, ""));
            let candidates = regions(candidates).into_iter().map(|region| Candidate { region, rank: 0 }).collect();
            let leaf = Leaf { candidates, denied: regions(denied), source: Source::List };
            writer.set(prefix.parse().unwrap(), &leaf);
        }
        Arc::clone(writer.table())
    }
}
