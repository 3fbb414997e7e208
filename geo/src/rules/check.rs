//! The config's rules become [`Rules`], or every problem at once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::{Prefix, PrefixMap};

use super::{Action, Loose, Origin, Rule, Rules, RulesError, Told, Verdict};
use crate::lists;
use crate::regions::Regions;
use crate::route::Community;
use crate::table::DENIED_MAX;
use crate::topology::RegionId;

/// What a rule matches. Ordered so that less specific prefixes come before those inside them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Condition {
    Prefix(IpNet),
    Origin(u32),
    Via(u32),
    Community(Community),
}

/// As a config says it.
impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Self::Origin(origin) => write!(f, "as {origin}"),
            Self::Via(hop) => write!(f, "via {hop}"),
            Self::Community(community) => write!(f, "community {community}"),
        }
    }
}

/// See [`Rules::check`].
pub(super) fn check(rules: &[Rule], origins: &[Origin], regions: &Regions) -> Result<Rules, RulesError> {
    let mut problems = Vec::new();
    if rules.len() > RULES_MAX {
        problems.push(format!("there are {} rules: at most {RULES_MAX}", rules.len()));
    }
    let mut made = Rules { origins: check_origins(origins, regions, &mut problems), ..Rules::default() };
    let mut known: BTreeMap<(Condition, RegionId), Verdict> = BTreeMap::new();
    for (index, rule) in (0..).zip(rules.iter().take(RULES_MAX)) {
        let condition = condition(rule).and_then(|condition| regions.known(rule.region).map(|()| condition));
        match condition {
            Ok(condition) => {
                made.told.push(told(rule, condition));
                if let Err(why) = add(&mut known, condition, index, rule) {
                    problems.push(format!("rule[{index}]: {why}"));
                }
            }
            Err(why) => {
                made.told.push(Told { rule: rule.action.name().to_owned(), note: String::new() });
                problems.push(format!("rule[{index}]: {why}"));
            }
        }
    }
    index(&mut made, &known);
    check_denied(&made, &known, &mut problems);
    check_somebody_is_left(&made, &known, regions, &mut problems);
    finish(made, problems)
}

fn finish(made: Rules, mut problems: Vec<String>) -> Result<Rules, RulesError> {
    if problems.is_empty() {
        return Ok(made);
    }
    let untold = problems.len().saturating_sub(PROBLEMS_MAX);
    problems.truncate(PROBLEMS_MAX);
    if untold > 0 {
        problems.push(format!("and {untold} more problems"));
    }
    Err(RulesError(problems.join("\n")))
}

fn check_origins(origins: &[Origin], regions: &Regions, problems: &mut Vec<String>) -> HashMap<u32, RegionId> {
    let mut known = HashMap::new();
    for (index, origin) in origins.iter().enumerate() {
        let place = format!("origin[{index}]: as = {}", origin.origin_as);
        if let Err(why) = regions.known(origin.region) {
            problems.push(format!("{place}: {why}"));
        }
        if let Some(before) = known.insert(origin.origin_as, origin.region) {
            problems.extend(lists::one_region(&place, origin.region, before).err());
        }
    }
    known
}

/// The one condition of a rule.
fn condition(rule: &Rule) -> Result<Condition, String> {
    let prefix = rule.prefix.as_ref().map(|text| lists::prefix(text).map(Condition::Prefix));
    let origin = rule.origin_as.map(|number| Ok(Condition::Origin(number)));
    let via = rule.via.map(|number| Ok(Condition::Via(number)));
    let community = rule.community.as_ref().map(|text| community(text).map(Condition::Community));
    let mut given = [prefix, origin, via, community].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(condition), None) => condition,
        (None, _) => Err("it has no condition: give one of prefix, as, via and community".to_owned()),
        (Some(_), Some(_)) => Err("it has several conditions: keep one of prefix, as, via and community".to_owned()),
    }
}

/// Two numbers of 16 bits (RFC 1997) or three of 32 (RFC 8092, section 4), in decimal.
fn community(text: &str) -> Result<Community, String> {
    let standard = |a: &str, b: &str| Some(Community::Standard(a.parse().ok()?, b.parse().ok()?));
    let large = |a: &str, b: &str, c: &str| Some(Community::Large(a.parse().ok()?, b.parse().ok()?, c.parse().ok()?));
    let mut parts = text.splitn(4, ':');
    let parsed = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(a), Some(b), None, None) => standard(a, b),
        (Some(a), Some(b), Some(c), None) => large(a, b, c),
        _ => None,
    };
    let form = "a community is 64500:20, two numbers up to 65535, or 64500:1:20, three up to 4294967295";
    parsed.ok_or_else(|| format!("community = {}: {form}", lists::quoted(text)))
}

fn told(rule: &Rule, condition: Condition) -> Told {
    let note = rule.note.chars().take(NOTE_CHARS_MAX).collect();
    Told { rule: format!("{} region {} {condition}", rule.action.name(), rule.region), note }
}

fn add(
    known: &mut BTreeMap<(Condition, RegionId), Verdict>,
    condition: Condition,
    rule: u32,
    given: &Rule,
) -> Result<(), String> {
    let length = match condition {
        Condition::Prefix(prefix) => Some(prefix.prefix_len()),
        _ => None,
    };
    let (action, region) = (given.action, given.region);
    match known.entry((condition, region)) {
        Entry::Vacant(entry) => {
            entry.insert(Verdict { region, action, length, rule });
            Ok(())
        }
        Entry::Occupied(entry) if entry.get().action == action => Ok(()),
        Entry::Occupied(entry) => Err(format!(
            "{condition}, region {region}: {} here and {} in rule[{}]; keep one",
            action.name(),
            entry.get().action.name(),
            entry.get().rule,
        )),
    }
}

/// Puts the verdicts where they are found. Conditions come in order, so a prefix finds what it inherits.
fn index(made: &mut Rules, known: &BTreeMap<(Condition, RegionId), Verdict>) {
    let mut of_condition: BTreeMap<Condition, Vec<Verdict>> = BTreeMap::new();
    for ((condition, _), verdict) in known {
        of_condition.entry(*condition).or_default().push(*verdict);
    }
    for (condition, verdicts) in of_condition {
        match condition {
            Condition::Prefix(IpNet::V4(prefix)) => insert::<Ipv4Net>(&mut made.v4, prefix, verdicts),
            Condition::Prefix(IpNet::V6(prefix)) => insert::<Ipv6Net>(&mut made.v6, prefix, verdicts),
            Condition::Origin(origin) => insert_loose(&mut made.origin, origin, verdicts),
            Condition::Via(hop) => insert_loose(&mut made.via, hop, verdicts),
            Condition::Community(community) => insert_loose(&mut made.community, super::packed(&community), verdicts),
        }
    }
}

/// Adds a prefix's verdicts with those of the prefixes around it that say nothing it does not say itself.
fn insert<P: Prefix>(table: &mut PrefixMap<P, Box<[Verdict]>>, prefix: P, mut verdicts: Vec<Verdict>) {
    let inherited = table.get_lpm(&prefix).map_or(&[][..], |(_, verdicts)| verdicts);
    let own: BTreeSet<RegionId> = verdicts.iter().map(|verdict| verdict.region).collect();
    verdicts.extend(inherited.iter().filter(|verdict| !own.contains(&verdict.region)));
    table.insert(prefix, verdicts.into());
}

fn insert_loose<K: Eq + Hash>(table: &mut Loose<K>, key: K, verdicts: Vec<Verdict>) {
    table.insert(key, verdicts.into());
}

/// No prefix may have more denied regions than a leaf holds, even if every rule by AS and community matched it.
fn check_denied(made: &Rules, known: &BTreeMap<(Condition, RegionId), Verdict>, problems: &mut Vec<String>) {
    let denied = |verdict: &&Verdict| verdict.action == Action::Deny;
    let loose = known.values().filter(|verdict| verdict.length.is_none());
    let loose: BTreeSet<RegionId> = loose.filter(denied).map(|verdict| verdict.region).collect();
    if loose.len() > DENIED_MAX {
        problems.push(format!("rules by AS and community deny {} regions: at most {DENIED_MAX}", loose.len()));
        return;
    }
    for prefix in made.prefixes() {
        let own = made.covering(prefix).iter().filter(denied).map(|verdict| verdict.region);
        let count = own.chain(loose.iter().copied()).collect::<BTreeSet<_>>().len();
        if count > DENIED_MAX {
            problems.push(format!("up to {count} regions are denied for {prefix}: at most {DENIED_MAX}"));
        }
    }
}

/// Who is denied everywhere would be served from the default region all the same.
fn check_somebody_is_left(
    made: &Rules,
    known: &BTreeMap<(Condition, RegionId), Verdict>,
    regions: &Regions,
    problems: &mut Vec<String>,
) {
    let mut loose: BTreeMap<Condition, Vec<Verdict>> = BTreeMap::new();
    for ((condition, _), verdict) in known.iter().filter(|(_, verdict)| verdict.length.is_none()) {
        loose.entry(*condition).or_default().push(*verdict);
    }
    let by_prefix = made.prefixes().map(|prefix| (Condition::Prefix(prefix), made.covering(prefix).to_vec()));
    for (condition, verdicts) in by_prefix.chain(loose) {
        let denies = |region| verdicts.iter().any(|known| known.region == region && known.action == Action::Deny);
        if !verdicts.is_empty() && regions.iter().all(denies) {
            problems.push(format!("{condition}: every region is denied: leave one that serves these clients"));
        }
    }
}

/// More than operators keep by hand. What each costs is its place in the trie or map, under 200 bytes.
const RULES_MAX: usize = 100_000;
const PROBLEMS_MAX: usize = 100;
const NOTE_CHARS_MAX: usize = 200;
