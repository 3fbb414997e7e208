//! Prefixes that lists name, as routes.
//!
//! A list is a source like a router: its prefixes are heard in its regions, over a session of the list's class, with
//! an empty path. They are kept in one sorted list, 32 bytes each, since they never change but all at once.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use crate::lists::{self, Config, Entry, ListError};
use crate::regions::Regions;
use crate::route::{Attributes, Heard, SessionClass};
use crate::rules::Rules;
use crate::topology::RegionId;

/// All lists.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Sorted by prefix, then file.
    routes: Vec<Route>,
    /// By origin AS, each once.
    attributes: Vec<Attributes>,
    pub(super) files: Vec<File>,
}

/// A list, for people.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct File {
    /// Its path.
    pub file: String,
    /// Prefixes in it that count.
    pub prefixes: usize,
    /// Prefixes that are in it again, with the same region.
    pub again: u64,
    /// Prefixes that were left out because no origin rule has their AS.
    pub without_region: u64,
    /// The first of those, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_without: Option<String>,
}

impl File {
    /// What of it does not count.
    pub(crate) fn left_out(&self) -> Option<String> {
        let again = (self.again > 0).then(|| format!("{} listed twice", self.again));
        let told: Vec<String> = self.first_without.clone().into_iter().chain(again).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

#[derive(Clone, Copy, Debug)]
struct Route {
    prefix: IpNet,
    region: RegionId,
    class: SessionClass,
    file: u16,
    attributes: u32,
}

impl Listed {
    /// Reads the lists. With `agree`, a prefix that two of them have with two regions is an error. Those that cannot be used
    /// are left out, and told.
    pub(super) fn read(
        configs: &[Config],
        agree: bool,
        rules: &Rules,
        regions: &Regions,
        missing: &mut Vec<String>,
    ) -> Self {
        let mut listed = Self::default();
        let mut known: HashMap<IpNet, RegionId> = HashMap::new();
        let mut of_origin: HashMap<Option<u32>, u32> = HashMap::new();
        for (config, file) in configs.iter().zip(0..=u16::MAX) {
            if !agree {
                known.clear();
            }
            let (before, mut again) = (listed.routes.len(), 0);
            let Self { routes, attributes, .. } = &mut listed;
            let mut take = |entry: Entry| {
                if routes.len() >= lists::PREFIXES_MAX {
                    return Err(format!("more than {} prefixes", lists::PREFIXES_MAX));
                }
                if let Some(&before) = known.get(&entry.prefix) {
                    again += 1;
                    return lists::one_region(&entry.prefix, entry.region, before);
                }
                known.insert(entry.prefix, entry.region);
                let Entry { prefix, region, origin_as } = entry;
                let attributes = *of_origin.entry(origin_as).or_insert_with(|| {
                    attributes.push(of(origin_as));
                    u32::try_from(attributes.len() - 1).expect("there are fewer AS than 2^32")
                });
                routes.push(Route { prefix, region, class: config.class, file, attributes });
                Ok(())
            };
            let origin = |origin| rules.origin(origin);
            let read = lists::read_bytes(&config.file)
                .and_then(|bytes| lists::each(&config.file, &bytes, config.values, &origin, regions, &mut take));
            let unplaced = read.unwrap_or_else(|ListError(why)| {
                missing.push(why);
                listed.routes.truncate(before);
                lists::Unplaced::default()
            });
            listed.files.push(File {
                file: config.file.display().to_string(),
                prefixes: listed.routes.len() - before,
                again,
                without_region: unplaced.count,
                first_without: unplaced.told(),
            });
        }
        if configs.len() > listed.files.len() {
            missing.push(format!("list: there are {}: at most {}", configs.len(), listed.files.len()));
        }
        listed.routes.sort_unstable_by_key(|route| (route.prefix, route.file));
        listed
    }

    /// Takes these files as they were, but for regions that are no more.
    pub(super) fn keep(&mut self, before: &Self, kept: &BTreeSet<String>, regions: &Regions) {
        let Self { routes, attributes, files } = self;
        let mut of_origin: HashMap<Option<u32>, u32> = attributes.iter().map(|of| of.origin_as).zip(0..).collect();
        for (file, number) in files.iter_mut().zip(0..=u16::MAX).filter(|(file, _)| kept.contains(&file.file)) {
            let Some((old, old_number)) = before.files.iter().zip(0..=u16::MAX).find(|(old, _)| old.file == file.file)
            else {
                continue;
            };
            *file = old.clone();
            routes.retain(|route| route.file != number);
            for route in before.routes.iter().filter(|of| of.file == old_number && regions.contains(of.region)) {
                let origin_as = before.attributes.get(route.attributes as usize).and_then(|of| of.origin_as);
                let attributes = *of_origin.entry(origin_as).or_insert_with(|| {
                    attributes.push(of(origin_as));
                    u32::try_from(attributes.len() - 1).expect("there are fewer AS than 2^32")
                });
                routes.push(Route { file: number, attributes, ..*route });
            }
        }
        routes.sort_unstable_by_key(|route| (route.prefix, route.file));
    }

    /// Prefixes that count of each file, IPv4 and IPv6.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&str, [u64; 2])> {
        let mut sizes = vec![[0; 2]; self.files.len()];
        for route in &self.routes {
            if let Some([v4, v6]) = sizes.get_mut(usize::from(route.file)) {
                *(if route.prefix.addr().is_ipv4() { v4 } else { v6 }) += 1;
            }
        }
        self.files.iter().map(|file| &*file.file).zip(sizes)
    }

    /// Adds what lists say of exactly this prefix.
    pub(super) fn heard<'a>(&'a self, prefix: &IpNet, out: &mut Vec<Heard<'a>>) {
        let first = self.routes.partition_point(|route| route.prefix < *prefix);
        let same = self.routes.iter().skip(first).take_while(|route| route.prefix == *prefix);
        out.extend(same.filter_map(|route| {
            Some(Heard {
                region: route.region,
                class: route.class,
                attributes: self.attributes.get(route.attributes as usize)?,
                stale: false,
                listed: true,
                source: &self.files.get(usize::from(route.file))?.file,
            })
        }));
    }

    /// Every listed prefix in order; one is there as often as lists have it.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.routes.iter().map(|route| route.prefix)
    }
}

/// What is known of a listed prefix beside its region.
fn of(origin_as: Option<u32>) -> Attributes {
    Attributes { as_path: origin_as.into_iter().collect(), origin_as, ..Attributes::default() }
}
