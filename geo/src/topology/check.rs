//! A document becomes a topology, or a list of everything that is wrong with it.
//!
//! Each part is checked whether or not others have problems; what is missing because of a problem is
//! left out, and nothing that was left out leaves this file: with one problem there is no topology.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::document::{self, Document};
use super::problems::{Problems, Row};
use super::servers::Servers;
use super::{Group, Policy, Region, RegionId, Topology, classes, origin, signing, sites};

/// The topology, or its problems.
pub(super) fn check(document: &Document) -> Result<Topology, Vec<String>> {
    let mut problems = Problems::default();
    let version = u64::try_from(document.version);
    if version.is_err() {
        problems.add("", "version", document.version, "a version is 0 or more");
    }
    origin::domain(&document.domain, &mut problems);
    let content_servers = origin::content_servers(&document.content_servers, &mut problems);

    let ids: BTreeSet<i64> = document.region.iter().map(|region| region.id).collect();
    let mut regions = regions(&document.region, &ids, &mut problems);
    if !ids.contains(&document.default_region) {
        problems.add("", "default_region", document.default_region, "there is no such region");
    }
    let group_names: BTreeSet<&str> = document.group.iter().map(|group| group.name.as_str()).collect();
    let groups = groups(&document.group, &ids, &mut problems);
    let mut servers = Servers::new(&document.domain);
    let suns = servers.suns(&document.sun, &group_names, &mut problems);
    let caches = servers.caches(&document.cache, &ids, &mut problems);
    for region in &mut regions {
        region.groups = groups.iter().filter(|(id, _)| *id == region.id).map(|(_, group)| group.clone()).collect();
        region.suns = suns.iter().filter(|sun| sun.server.region == region.id).cloned().collect();
        region.caches = caches.iter().filter(|cache| cache.server.region == region.id).cloned().collect();
        finish(region, &mut problems);
    }
    let classes = classes::of_names(&document.class, &mut problems);
    let sites = sites::sites(document, &content_servers, &classes, &mut problems);
    let signing = signing::signing(document.signing.as_ref(), &mut problems);
    if let Some(class) = classes.iter().find(|class| class.signed.is_some() && signing.is_none()) {
        problems.push(format!("class {}: signed = true: there is no [signing] with a key", class.name));
    }

    problems.finish()?;
    Ok(Topology {
        version: version.unwrap_or_default(),
        domain: document.domain.clone(),
        default_region: RegionId(u16::try_from(document.default_region).unwrap_or_default()),
        content_servers,
        signing,
        regions,
        classes,
        sites,
        default_class: classes::default_class(Policy::Immutable),
    })
}

/// The regions by id, without their servers.
fn regions(raw: &[document::Region], ids: &BTreeSet<i64>, problems: &mut Problems) -> Vec<Region> {
    if raw.is_empty() || raw.len() > REGIONS_MAX {
        problems.push(format!("region: there are {}: 1..={REGIONS_MAX}", raw.len()));
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut regions = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let mut row = Row::new(problems, "region", index, &raw.name);
        if !seen.insert(raw.id) {
            row.refuse("id", raw.id, "another region has this id");
        }
        regions.extend(region(raw, ids, &mut row));
    }
    regions.sort_by_key(|region| region.id);
    regions
}

fn region(raw: &document::Region, ids: &BTreeSet<i64>, row: &mut Row<'_>) -> Option<Region> {
    let id = row.integer("id", raw.id, 0..=u16::MAX, "an id is 0..=65535");
    if !(1..=64).contains(&raw.name.len()) || raw.name.contains(char::is_control) {
        row.refuse("name", &raw.name, "a region's name has 1..=64 bytes, none of them a control character");
    }
    let latitude = row.float("latitude", raw.latitude, (-90.0, 90.0), "a latitude is -90..=90 degrees north");
    let longitude = row.float("longitude", raw.longitude, (-180.0, 180.0), "a longitude is -180..=180 degrees east");
    let mut neighbours = Vec::new();
    for &neighbour in &raw.neighbours {
        let known = u16::try_from(neighbour).ok().filter(|_| ids.contains(&neighbour)).map(RegionId);
        match known {
            None => row.refuse("neighbours", neighbour, "there is no such region"),
            Some(_) if neighbour == raw.id => row.refuse("neighbours", neighbour, "a region is not its own neighbour"),
            Some(known) if neighbours.contains(&known) => row.refuse("neighbours", neighbour, "it is there twice"),
            Some(known) => neighbours.push(known),
        }
    }
    Some(Region {
        id: RegionId(id?),
        name: raw.name.clone(),
        latitude: latitude?,
        longitude: longitude?,
        neighbours,
        groups: Vec::new(),
        suns: Vec::new(),
        caches: Vec::new(),
        sun_candidates: Vec::new(),
        cache_candidates: Vec::new(),
    })
}

/// Sorts what a region has and prepares its placement.
fn finish(region: &mut Region, problems: &mut Problems) {
    if region.suns.len() > SERVERS_MAX || region.caches.len() > SERVERS_MAX {
        let (suns, caches) = (region.suns.len(), region.caches.len());
        problems.push(format!("region {}: {suns} suns, {caches} caches: at most {SERVERS_MAX} of each", region.id));
    }
    region.groups.sort_by_key(|group| group.number);
    region.suns.sort_by(|a, b| a.server.name.cmp(&b.server.name));
    region.caches.sort_by(|a, b| a.server.name.cmp(&b.server.name));
    region.prepare();
}

fn groups(raw: &[document::Group], ids: &BTreeSet<i64>, problems: &mut Problems) -> Vec<(RegionId, Group)> {
    if raw.len() > GROUPS_MAX {
        problems.push(format!("group: there are {}: at most {GROUPS_MAX}", raw.len()));
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut groups: Vec<(RegionId, Group)> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let mut row = Row::new(problems, "group", index, &raw.name);
        if !names.insert(&raw.name) {
            row.refuse("name", &raw.name, "another group has this name");
        }
        let numbers = name_numbers::<2>(&raw.name, "sun");
        match numbers {
            Some([region, _]) if !ids.contains(&i64::from(region)) => {
                row.refuse("name", &raw.name, format!("there is no region {region}"));
            }
            Some(_) => {}
            None => row.refuse("name", &raw.name, "a group is sun4-2: region and group, each 0..=65535"),
        }
        let Some(subnet) = subnet(&raw.subnet, &mut row) else { continue };
        for (_, other) in &groups {
            if other.subnet.contains(&subnet) || subnet.contains(&other.subnet) {
                row.refuse("subnet", subnet, format!("it overlaps {}, which is {}'s", other.subnet, other.name));
            }
        }
        if let Some([region, number]) = numbers {
            groups.push((RegionId(region), Group { name: raw.name.clone(), number, subnet }));
        }
    }
    groups
}

fn subnet(text: &str, row: &mut Row<'_>) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(subnet) if subnet == subnet.trunc() => Some(subnet),
        Ok(subnet) => {
            row.refuse("subnet", text, format!("it has bits behind its length; write {}", subnet.trunc()));
            None
        }
        Err(_) => {
            row.refuse("subnet", text, "a subnet is 192.0.2.0/26 or 2001:db8::/64");
            None
        }
    }
}

/// The numbers of `sun4-2-1`: what follows the prefix, between dashes, exactly so many.
pub(super) fn name_numbers<const COUNT: usize>(name: &str, prefix: &str) -> Option<[u16; COUNT]> {
    let numbers: Option<Vec<u16>> = name.strip_prefix(prefix)?.splitn(COUNT + 1, '-').map(plain_number).collect();
    numbers?.try_into().ok()
}

/// Digits alone, without a sign or leading zeros, so that a number has one spelling.
pub(super) fn plain_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let one_spelling = text == "0" || !text.starts_with('0');
    if plain && one_spelling { text.parse().ok() } else { None }
}

const REGIONS_MAX: usize = 1024;
/// Each is compared with every other one.
const GROUPS_MAX: usize = 4096;
/// Placement looks at every server of a region for each file.
const SERVERS_MAX: usize = 512;
