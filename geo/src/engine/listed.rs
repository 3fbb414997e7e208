//! Prefixes that lists name, as routes.
//!
//! A list is a source like a router: its prefixes are heard in its regions, over a session of the list's class, with
//! an empty path. They are kept in one sorted list, 32 bytes each, since they never change but all at once.

use std::collections::HashMap;

use ipnet::IpNet;

use super::inputs::InputsError;
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
    /// Prefixes in it.
    pub prefixes: usize,
    /// Prefixes that were left out because no origin rule has their AS.
    pub without_region: u64,
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
    /// Reads the lists. With `agree`, a prefix that two of them have with two regions is an error.
    pub(super) fn read(configs: &[Config], agree: bool, rules: &Rules, regions: &Regions) -> Result<Self, InputsError> {
        let mut listed = Self::default();
        let mut known: HashMap<IpNet, RegionId> = HashMap::new();
        let mut of_origin: HashMap<Option<u32>, u32> = HashMap::new();
        for config in configs {
            if !agree {
                known.clear();
            }
            let refuse = |ListError(why)| InputsError(why);
            let bytes = lists::read_bytes(&config.file).map_err(refuse)?;
            let file = u16::try_from(listed.files.len()).map_err(|_| InputsError("too many lists".to_owned()))?;
            let before = listed.routes.len();
            let Self { routes, attributes, .. } = &mut listed;
            let mut take = |entry: Entry| {
                if routes.len() >= lists::PREFIXES_MAX {
                    return Err(format!("more than {} prefixes", lists::PREFIXES_MAX));
                }
                if let Some(&before) = known.get(&entry.prefix) {
                    return lists::one_region(&entry, before);
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
            let without_region =
                lists::each(&config.file, &bytes, config.values, &|origin| rules.origin(origin), regions, &mut take)
                    .map_err(refuse)?;
            let prefixes = listed.routes.len() - before;
            listed.files.push(File { file: config.file.display().to_string(), prefixes, without_region });
        }
        listed.routes.sort_unstable_by_key(|route| (route.prefix, route.file));
        Ok(listed)
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
