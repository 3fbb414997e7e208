//! What the engine tells people, in columns.

use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use crate::answer::{Answer, Table, bytes, share};
use crate::diff::Named;
use crate::engine::{Audit, Examples, Explanation, IDLE, Link, Stats};
use crate::table::{Leaf, Source};
use crate::topology::RegionId;

/// Why an address is served from where it is.
pub(crate) fn explanation(told: &Explanation) -> Answer {
    let by = rule_of(told).map_or_else(|| told.evidence.clone(), ToString::to_string);
    let mut text = format!("{}: {}, by {by}\n", told.address, these(&told.regions));
    let mut table = Table::new(&["PREFIX", "REGION", "RANK", "CLASS", "AS PATH", "MED", "KM", "TOLD BY"]);
    let mut rows = 0;
    for link in &told.chain {
        for chosen in &link.chosen.candidates {
            let route = chosen.route.as_ref();
            let stale = |stale| if stale { " (lost)" } else { "" };
            let source = route.map(|route| format!("{}{}", route.source, stale(route.stale)));
            let rule = chosen.rule.as_ref().map(ToString::to_string);
            rows += 1;
            table.row([
                link.prefix.to_string(),
                chosen.region.to_string(),
                chosen.rank.to_string(),
                route.map_or(String::new(), |route| route.class.name().to_owned()),
                route.map_or(String::new(), |route| joined(&route.as_path)),
                route.and_then(|route| route.med).map_or(String::new(), |med| med.to_string()),
                chosen.km.map_or(String::new(), |km| km.to_string()),
                source.or(rule).unwrap_or_default(),
            ]);
        }
    }
    if rows > 0 {
        text += &format!("\n{}\n", table.text());
    }
    told.chain.iter().for_each(|link| reasons(link, told, &mut text));
    // Writing to a string cannot fail, here and below.
    let _ = match &told.geoip {
        None => writeln!(text, "geoip: nothing"),
        Some(place) => {
            let country = place.country.as_deref().unwrap_or("no country");
            let position = place.position.map_or("no position".to_owned(), |(n, e)| format!("{n:.2} N {e:.2} E"));
            let region = place.region.map_or("no region".to_owned(), |region| format!("region {region}"));
            writeln!(text, "geoip: {country}, {position}: {region}")
        }
    };
    let _ = writeln!(text, "default: region {}", told.default_region);
    good(text, told)
}

/// The rule that put the first region there, where the table says that one did.
fn rule_of(told: &Explanation) -> Option<&crate::rules::Told> {
    let first = told.regions.first()?;
    let of_rule = |link: &&Link| link.published.as_ref().is_some_and(|leaf| leaf.source == Source::Rule);
    let link = told.chain.iter().find(of_rule).filter(|_| told.evidence.starts_with("rule "))?;
    link.chosen.candidates.iter().find(|chosen| chosen.region == *first)?.rule.as_ref()
}

/// What put a prefix's regions in their order, and what does not count.
fn reasons(link: &Link, told: &Explanation, text: &mut String) {
    let prefix = link.prefix;
    // Of several candidates the steps tell it.
    if let [only] = &*link.chosen.candidates
        && let Some(rule) = &only.rule
    {
        let _ = writeln!(text, "{prefix}: region {} by {rule}", only.region);
    }
    for step in &link.chosen.why {
        let _ = writeln!(text, "{prefix}: {step}");
    }
    for left in &link.chosen.left_out {
        let source = left.source.as_deref().map_or(String::new(), |source| format!(", {source}"));
        let _ = writeln!(text, "{prefix}: region {} does not count{source}: {}", left.region, left.why);
    }
    if link.waits {
        let published = link.published.as_ref().map_or("nothing of it".to_owned(), leaf);
        let routers = || "all routers have told their routes, or were waited for (bmp.stale_s, bmp.gate_s)".to_owned();
        let until = match &*told.missing {
            _ if told.settled => "until this has been so for damping.stable_s without a break".to_owned(),
            [] => format!("until {}", routers()),
            missing => format!("until this can be used: {}", missing.join("; ")),
        };
        let _ = writeln!(text, "{prefix}: not in use yet: the table says {published} {until}");
    }
}

fn leaf(leaf: &Leaf) -> String {
    let regions: Vec<RegionId> = leaf.candidates.iter().map(|candidate| candidate.region).collect();
    let denied = if leaf.denied.is_empty() { String::new() } else { format!(", never {}", joined(&leaf.denied)) };
    format!("{}{denied}", these(&regions))
}

/// What an operator should look at.
pub(crate) fn audit(told: &Audit) -> Answer {
    let mut text = format!(
        "{}{}\n",
        shares("IPv4", [told.v4.prefixes, told.v4.geoip, told.v4.nothing]),
        shares("IPv6", [told.v6.prefixes, told.v6.geoip, told.v6.nothing])
    );
    let mut regions = Table::new(&["REGION", "FIRST FOR", "ONLY FOR", "NEIGHBOURS", "NOTE"]);
    for region in &told.regions {
        let without = region.without_alternative.then_some("without an alternative");
        let notes: Vec<&str> = without.into_iter().chain(region.idle.then_some(IDLE)).collect();
        regions.row([
            region.region.to_string(),
            region.first.to_string(),
            region.only.to_string(),
            joined(&region.neighbours),
            notes.join("; "),
        ]);
    }
    text += &regions.text();
    let mut several = Table::new(&["PREFIX", "REGIONS"]);
    told.several.examples.iter().for_each(|one| several.row([one.prefix.to_string(), joined(&one.regions)]));
    section(&mut text, "Prefixes heard in several regions", &told.several, &several);
    let mut moved = Table::new(&["PREFIX", "FROM", "TO", "AGO"]);
    for one in &told.moved.examples {
        let (from, to) = (Named(&one.from).to_string(), Named(&one.to).to_string());
        moved.row([one.prefix.to_string(), from, to, format!("{} s", one.ago_s)]);
    }
    section(&mut text, "Prefixes moved during the last day", &told.moved, &moved);
    for (family, evidence) in [("IPv4", &told.v4), ("IPv6", &told.v6)] {
        let mut ranges = Table::new(&["FIRST", "LAST", "REGIONS"]);
        for range in &evidence.geoip_only.examples {
            ranges.row([range.first.to_string(), range.last.to_string(), joined(&range.regions)]);
        }
        let what = format!("Ranges of {family} that geoip alone knows");
        section(&mut text, &what, &evidence.geoip_only, &ranges);
    }
    good(text, told)
}

/// Of addresses by prefixes, by geoip alone, and unknown.
fn shares(family: &str, counts: [f64; 3]) -> String {
    let all: f64 = counts.iter().sum();
    let [prefixes, geoip, nothing] = counts.map(|part| share(part, all));
    format!("{family}: {prefixes} of all addresses by prefixes, {geoip} by geoip alone, {nothing} not at all\n")
}

fn section<T>(text: &mut String, what: &str, Examples { count, examples }: &Examples<T>, rows: &Table) {
    let shown = examples.len();
    let some = if shown < *count { format!(", {shown} of them here") } else { String::new() };
    let _ = writeln!(text, "\n{what}: {count}{some}");
    if *count > 0 {
        text.push_str(&rows.text());
    }
}

/// How much there is.
pub(crate) fn stats(told: &Stats) -> Answer {
    let (counts, routes) = (&told.table, &told.routes);
    let mut table = Table::new(&["WHAT", "HOW MUCH"]);
    let mut row = |what: &str, many: String| table.row([what.to_owned(), many]);
    row("position", told.position.to_string());
    row("settled", told.settled.to_string());
    told.waits_for.iter().for_each(|router| row("waits for", router.to_string()));
    row("topology", told.topology_version.to_string());
    row("prefixes", format!("{} IPv4, {} IPv6", counts.prefixes_v4, counts.prefixes_v6));
    row("ranges of geoip", format!("{} IPv4, {} IPv6", counts.ranges_v4, counts.ranges_v6));
    row("table", size(counts.bytes));
    row("changes kept", told.changes_kept.to_string());
    row("prefixes that wait", told.pending.to_string());
    row("prefixes moved early", told.moved_early.to_string());
    told.missing.iter().for_each(|why| row("missing: the saved table stands", why.clone()));
    told.refused.iter().for_each(|why| row("refused: what was there counts", why.clone()));
    row(
        "routes of routers",
        format!("{}, {} different attributes, {}", routes.routes, routes.attributes, bytes(routes.bytes)),
    );
    let mut text = table.text();
    let mut sources = Table::new(&["SOURCE", "PREFIXES", "ROUTES", "DOES NOT COUNT"]);
    for list in &told.lists {
        let (count, left_out) = (list.prefixes.to_string(), list.left_out().unwrap_or_default());
        sources.row([list.file.clone(), count, String::new(), left_out]);
    }
    for dump in &told.dumps {
        let (count, left_out) = (dump.taken().to_string(), dump.left_out().unwrap_or_default());
        sources.row([dump.file.clone(), String::new(), count, left_out]);
    }
    for geoip in &told.geoip {
        let ranges = format!("{} IPv4 and {} IPv6 ranges", geoip.ranges_ipv4, geoip.ranges_ipv6);
        sources.row([geoip.file.clone(), ranges, String::new(), String::new()]);
    }
    if !(told.lists.is_empty() && told.dumps.is_empty() && told.geoip.is_empty()) {
        text += &format!("\n{}", sources.text());
    }
    let mut peers =
        Table::new(&["ROUTER", "REGION", "PEER", "AS", "CLASS", "IS", "FOR", "IPV4", "IPV6", "STALE", "REFUSED"]);
    for feed in &told.feeds {
        let connected = if feed.connected { "connected" } else { "away" };
        let router = [feed.name.clone(), feed.region.to_string(), "-".to_owned(), String::new(), String::new()];
        peers.row(router.into_iter().chain([connected.to_owned(), format!("{} s", feed.since_s)]));
        for peer in &feed.peers {
            peers.row([
                feed.name.clone(),
                feed.region.to_string(),
                peer.address.to_string(),
                peer.asn.to_string(),
                peer.class.name().to_owned(),
                format!("{:?}", peer.standing).to_lowercase(),
                format!("{} s", peer.since_s),
                peer.v4.routes.to_string(),
                peer.v6.routes.to_string(),
                (u64::from(peer.v4.stale) + u64::from(peer.v6.stale)).to_string(),
                peer.refused.to_string(),
            ]);
        }
    }
    if !told.feeds.is_empty() {
        text += &format!("\n{}", peers.text());
    }
    good(text, told)
}

fn size(count: usize) -> String {
    bytes(u64::try_from(count).unwrap_or(u64::MAX))
}

/// "regions 4 5"
fn these(regions: &[RegionId]) -> String {
    match regions {
        [] => "no region".to_owned(),
        [one] => format!("region {one}"),
        several => format!("regions {}", joined(several)),
    }
}

fn joined<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn good(text: String, told: &impl Serialize) -> Answer {
    Answer::good(text, serde_json::to_value(told).unwrap_or_default())
}

/// Which regions serve each address.
pub(crate) fn resolved(answers: &[crate::wire::Resolved]) -> Answer {
    let mut table = Table::new(&["ADDRESS", "REGIONS", "EVIDENCE"]);
    for answer in answers {
        let address: IpAddr = answer.address;
        table.row([address.to_string(), joined(&answer.regions), answer.evidence.clone()]);
    }
    good(table.text(), &answers)
}
