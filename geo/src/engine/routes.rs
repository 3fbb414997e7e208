//! All routes to a prefix, whoever told them.

use ipnet::IpNet;

use super::inputs::Loaded;
use crate::choice::Chooser;
use crate::regions::Point;
use crate::rib::Rib;
use crate::route::Heard;
use crate::table::{Content, Leaf, Leaves};

/// Lists, dumps and routers together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routes<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) live: &'a Rib,
}

impl<'a> Routes<'a> {
    /// What is heard of exactly this prefix.
    pub(super) fn heard(self, prefix: &IpNet, out: &mut Vec<Heard<'a>>) {
        out.clear();
        self.live.heard(prefix, out);
        self.loaded.dumped.rib.heard(prefix, out);
        self.loaded.listed.heard(prefix, out);
    }

    /// What a prefix is chosen by: what is heard of it; of one that only rules name, what is heard of the next shorter
    /// prefix, so that rules that prefer have something to choose from.
    pub(super) fn evidence(self, prefix: &IpNet, out: &mut Vec<Heard<'a>>) {
        self.heard(prefix, out);
        let mut around = *prefix;
        while out.is_empty()
            && self.loaded.rules.has(*prefix)
            && let Some(wider) = around.supernet()
        {
            self.heard(&wider, out);
            if self.loaded.inputs.choice.is_default_route(wider) {
                out.retain(|route| route.listed);
            }
            around = wider;
        }
    }

    /// Whether a prefix is chosen by the same here and there.
    pub(super) fn say_the_same(self, other: Routes<'_>, prefix: &IpNet) -> bool {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        self.evidence(prefix, &mut ours);
        other.evidence(prefix, &mut theirs);
        let told = |route: &Heard<'a>| (route.region, route.class, route.attributes.clone(), route.listed);
        let other_told = |route: &Heard<'_>| (route.region, route.class, route.attributes.clone(), route.listed);
        ours.iter().map(told).eq(theirs.iter().map(other_told))
    }

    /// Every prefix that is heard or has a rule, in order.
    pub(super) fn prefixes(self) -> Vec<IpNet> {
        let loaded = self.loaded;
        let ruled = loaded.ruled.iter().copied();
        let mut all: Vec<IpNet> = self
            .live
            .prefixes()
            .chain(loaded.dumped.rib.prefixes())
            .chain(loaded.listed.prefixes())
            .chain(ruled)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The whole table as it is wanted now.
    pub(super) fn content(self) -> Content {
        let mut content = Content { base: self.loaded.base.clone(), ..Content::default() };
        let mut leaves = Leaves::default();
        self.with_chooser(|chooser| {
            let mut heard = Vec::new();
            for prefix in self.prefixes() {
                self.evidence(&prefix, &mut heard);
                if let Some(leaf) = chooser.choose(prefix, &heard) {
                    content.push(prefix, leaves.intern(leaf));
                }
            }
        });
        content.leaves = leaves.into_vec();
        content
    }

    /// Hands out a chooser of these rules, regions and positions.
    pub(super) fn with_chooser<T>(self, work: impl FnOnce(&mut Chooser<'_>) -> T) -> T {
        let loaded = self.loaded;
        let position = |prefix: IpNet| loaded.position(prefix.addr()).map(Point::from);
        work(&mut Chooser::new(&loaded.rules, &loaded.regions, loaded.inputs.choice, &position))
    }

    /// Prefixes that are chosen anew when the routes of `changed` change: themselves, and those inside that only
    /// rules name.
    pub(super) fn concerned(self, changed: Vec<IpNet>) -> Vec<IpNet> {
        let ruled = &self.loaded.ruled;
        if ruled.is_empty() {
            return changed;
        }
        let mut all = Vec::with_capacity(changed.len());
        for prefix in changed {
            all.push(prefix);
            let first = ruled.partition_point(|ruled| *ruled <= prefix);
            all.extend(ruled.iter().skip(first).take_while(|ruled| prefix.contains(*ruled)));
        }
        all
    }
}

/// Regions that are first for a leaf's clients.
pub(super) fn firsts(leaf: Option<&Leaf>) -> Vec<crate::topology::RegionId> {
    leaf.into_iter().flat_map(Leaf::firsts).collect()
}
