//! `geo diff BEFORE AFTER`: what moves between two tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde_json::json;

use crate::answer::{Answer, Table as Columns, share};
use crate::diff::{self, Count, Firsts, Moves, Named, Range};
use crate::table::{Found, Leaf, Table};
use crate::topology::RegionId;

/// Compares two tables.
pub(super) fn answer(before: &Arc<Table>, after: &Arc<Table>, default: Option<RegionId>) -> Answer {
    let family = |from: IpAddr, block_bits| diff::diff(ranges(before, from), ranges(after, from), block_bits, default);
    let v4 = family(Ipv4Addr::UNSPECIFIED.into(), 8);
    let v6 = family(Ipv6Addr::UNSPECIFIED.into(), 80);
    let mut text = format!("{}{}{}", columns(&v4, &v6), total("IPv4", "/24", &v4), total("IPv6", "/48", &v6));
    let unknown = |moves: &Moves| moves.moved.keys().any(|(from, to)| from.is_empty() || to.is_empty());
    if unknown(&v4) || unknown(&v6) {
        text += "\"-\": the table says nothing of these addresses: the topology's default region serves them\n";
        if default.is_none() {
            text += "With --topology FILE, what goes from there to the same region is not counted.\n";
        }
    }
    Answer::good(text, json!({ "ipv4": document(&v4), "ipv6": document(&v6) }))
}

/// A table's answers, a range each. Where prefixes leave nobody, geoip's ranges under them count.
fn ranges(table: &Table, from: IpAddr) -> impl Iterator<Item = Range> + '_ {
    let range = |first, last, firsts| Range { first: number(first), last: number(last), firsts };
    table.ranges(from).flat_map(move |(first, last, found)| match found.map(|found| firsts(table, first, found)) {
        None => vec![range(first, last, Vec::new())],
        Some(Ok(firsts)) => vec![range(first, last, firsts)],
        Some(Err(denied)) => {
            let under = table.base_ranges(first).take_while(|(start, _, _)| *start <= last);
            let best = |base: Option<Found>| base.map(|base| best(table.leaf(base), &denied)).unwrap_or_default();
            under.map(|(start, end, base)| range(start, end.min(last), best(base))).collect()
        }
    })
}

/// Who is first: the best of the most specific prefix that leaves anybody, as the resolver goes (without knowing who is
/// up, and without the hash that decides among equals). `found` is of this address.
///
/// # Errors
///
/// Whom the prefixes deny, when they leave nobody.
fn firsts(table: &Table, address: IpAddr, found: Found) -> Result<Firsts, Vec<RegionId>> {
    let mut denied: Vec<RegionId> = Vec::new();
    let mut next = Some(found);
    while let Some(found) = next {
        let leaf = table.leaf(found);
        denied.extend(&leaf.denied);
        let firsts = best(leaf, &denied);
        if !firsts.is_empty() {
            return Ok(firsts);
        }
        next = table.covering(address, found);
    }
    Err(denied)
}

/// The best of a leaf that are not denied, ascending.
fn best(leaf: &Leaf, denied: &[RegionId]) -> Firsts {
    let allowed = || leaf.candidates.iter().filter(|candidate| !denied.contains(&candidate.region));
    let best = allowed().map(|candidate| candidate.rank).min();
    let mut firsts: Firsts = allowed().filter(|one| Some(one.rank) == best).map(|one| one.region).collect();
    firsts.sort_unstable();
    firsts
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

/// Whole while that is short, a power of ten for those of IPv6.
fn addresses(count: f64) -> String {
    if count < 1e12 { format!("{count:.0}") } else { format!("{count:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Base, Candidate, Content, NOTHING, Ranges, Source, Writer};

    #[test]
    fn what_moves_is_told_in_columns_and_json() {
        let before = table(&[("10.0.0.0/8", "4"), ("2001:db8::/32", "4=5")]);
        let after = table(&[("10.0.0.0/8", "4"), ("10.1.0.0/16", "5"), ("2001:db8::/32", "5")]);
        let Answer { text, json, .. } = answer(&before, &after, None);
        assert_eq!(
            text,
            "FAMILY  FROM  TO  BLOCKS   OF ALL  ADDRESSES   OF ALL\n\
             IPv4    4      5     256    0.39%      65536    0.39%\n\
             IPv6    4=5    5   65536  100.00%     7.9e28  100.00%\n\
             IPv4: 256 of 65536 /24 move (0.39%), 0.39% of all addresses that are known\n\
             IPv6: 65536 of 65536 /48 move (100.00%), 100.00% of all addresses that are known\n"
        );
        assert_eq!(json["ipv4"]["moved"], json!([{"from": [4], "to": [5], "addresses": 65536.0, "blocks": 256}]));
        let same = answer(&after, &after, None);
        assert!(same.text.starts_with("IPv4: 0 of 65536 /24 move (0%)"), "{}", same.text);
    }

    #[test]
    fn who_is_denied_is_not_first_and_the_covering_prefix_counts_then() {
        check(&[("10.0.0.0/8", "4"), ("10.1.0.0/16", "5!5")], "10.1.0.1", "4");
        check(&[("10.0.0.0/8", "4=6"), ("10.1.0.0/16", "!4")], "10.1.0.1", "6");
        check(&[("10.0.0.0/8", "4"), ("10.1.0.0/16", "!4")], "10.1.0.1", "-");
        check(&[("10.0.0.0/8", "4"), ("10.1.0.0/16", "6=5")], "10.1.0.1", "5=6");
    }

    #[test]
    fn under_prefixes_that_leave_nobody_geoip_counts() {
        // Geoip says 4 for 192.0.2.0/25, 5 for 192.0.2.128/25, and 4=6 for 198.51.100.0/24.
        check_ranges(&[], "192.0.2.0 4, 192.0.2.128 5, 198.51.100.0 4=6");
        check_ranges(&[("192.0.2.0/24", "!5")], "192.0.2.0 4, 198.51.100.0 4=6");
        check_ranges(&[("192.0.2.0/24", "!4")], "192.0.2.128 5, 198.51.100.0 4=6");
        check_ranges(&[("192.0.2.64/26", "!7")], "192.0.2.0 4, 192.0.2.64 4, 192.0.2.128 5, 198.51.100.0 4=6");
        check_ranges(&[("0.0.0.0/0", "!4")], "192.0.2.128 5, 198.51.100.0 6");
        check_ranges(&[("192.0.2.0/24", "7!4")], "192.0.2.0 7, 198.51.100.0 4=6");
        let told = |denied: &str| answer(&on_geoip(&[]), &on_geoip(&[("192.0.2.0/25", denied)]), None).text;
        assert!(told("!5").starts_with("IPv4: 0 of 2 /24 move"), "{}", told("!5"));
        assert!(told("!4").contains("IPv4       4   -       1"), "{}", told("!4"));
        assert!(told("!4").contains("\"-\": the table says nothing") && !told("!5").contains("\"-\""));
    }

    /// The ranges that somebody serves: their first addresses, and who.
    #[track_caller]
    fn check_ranges(prefixes: &[(&str, &str)], expected: &str) {
        let found: Vec<String> = ranges(&on_geoip(prefixes), Ipv4Addr::UNSPECIFIED.into())
            .filter(|range| !range.firsts.is_empty())
            .map(|range| format!("{} {}", Ipv4Addr::from(range.first as u32), Named(&range.firsts)))
            .collect();
        assert_eq!(found.join(", "), expected);
    }

    #[track_caller]
    fn check(prefixes: &[(&str, &str)], address: &str, expected: &str) {
        let table = table(prefixes);
        let address = address.parse().unwrap();
        let found = table.lookup(address).unwrap();
        assert_eq!(Named(&firsts(&table, address, found).unwrap_or_default()).to_string(), expected);
    }

    /// Leaves are `4`, `4=5` (equally good), `4!5` (not in 5).
    fn table(prefixes: &[(&str, &str)]) -> Arc<Table> {
        of(Content::default(), prefixes)
    }

    fn on_geoip(prefixes: &[(&str, &str)]) -> Arc<Table> {
        let start = |address: &str| address.parse::<Ipv4Addr>().unwrap().to_bits();
        let v4 = vec![
            (start("192.0.2.0"), 0),
            (start("192.0.2.128"), 1),
            (start("192.0.3.0"), NOTHING),
            (start("198.51.100.0"), 2),
            (start("198.51.101.0"), NOTHING),
        ];
        let base = Base::build(Ranges { v4, v6: Vec::new(), leaves: ["4", "5", "4=6"].map(leaf).to_vec() });
        of(Content { base, ..Content::default() }, prefixes)
    }

    fn of(content: Content, prefixes: &[(&str, &str)]) -> Arc<Table> {
        let mut writer = Writer::build(content);
        for (prefix, said) in prefixes {
            writer.set(prefix.parse().unwrap(), &leaf(said));
        }
        Arc::clone(writer.table())
    }

    fn leaf(said: &str) -> Leaf {
        let regions = |text: &str| -> Vec<RegionId> {
            text.split('=').filter(|text| !text.is_empty()).map(|text| RegionId(text.parse().unwrap())).collect()
        };
        let (candidates, denied) = said.split_once('!').unwrap_or((said, ""));
        let candidates = regions(candidates).into_iter().map(|region| Candidate { region, rank: 0 }).collect();
        Leaf { candidates, denied: regions(denied), source: Source::List }
    }
}
