//! What stands from a start until all routers have told what they have: the saved table, corrected by what is
//! configured today.
//!
//! ```text
//!   saved leaf:  candidates of routers, lists, rules  --+-- denied today: out --+--> candidates in the order of today's
//!   today:       lists, dumps, rules by prefix  --------+-- pinned today: in ---+    rules, then as they were saved
//! ```
//!
//! A leaf does not tell what each of its candidates was heard by, only what told the first. So this is less than a
//! choice, and what is known of it:
//!
//! - Rules by prefix that deny or pin count at once, also for prefixes inside; so do prefixes that only lists, dumps or
//!   rules have.
//! - Where a rule that is there no more had put a region first, or a list that names it no more, that region goes behind
//!   the others, since routers may hear it, too; if it was the only one, the prefix goes.
//! - Rules by AS and community speak of routes, which are not there: what such a rule did stays as long as there is
//!   one like it. Rules that prefer, and dumps' prefixes that are in them no more, wait for the routers, too.
//! - When nothing was configured otherwise, the table is as it was saved. So it is, to the last address, while a source
//!   cannot be read: what is known without it is less than what was saved.

use ipnet::IpNet;

use super::inputs::Loaded;
use super::routes::Routes;
use crate::rib::Rib;
use crate::rules::{Action, Verdict};
use crate::table::{CANDIDATES_MAX, Candidate, Content, DENIED_MAX, Leaf, Leaves, Source};
use crate::topology::RegionId;

/// What is published before routers are heard.
pub(super) fn provisional(saved: Option<&Content>, loaded: &Loaded) -> Content {
    if let (Some(saved), false) = (saved, loaded.missing.is_empty()) {
        return saved.clone();
    }
    let nobody = Rib::new(loaded.inputs.limits);
    let today = Routes { loaded, live: &nobody };
    saved.map_or_else(|| today.content(), |saved| corrected(saved, today))
}

fn corrected(saved: &Content, today: Routes<'_>) -> Content {
    let loaded = today.loaded;
    let v4 = saved.v4.iter().map(|&(net, leaf)| (IpNet::V4(net), leaf));
    let v6 = saved.v6.iter().map(|&(net, leaf)| (IpNet::V6(net), leaf));
    let new = today.prefixes().into_iter().map(|prefix| (prefix, u32::MAX));
    let mut all: Vec<(IpNet, u32)> = v4.chain(v6).chain(new).collect();
    all.sort_unstable();
    // Of a prefix that is in both, the saved one stays.
    all.dedup_by_key(|(prefix, _)| *prefix);

    let mut content = Content { base: loaded.base.clone(), ..Content::default() };
    let mut leaves = Leaves::default();
    today.with_chooser(|chooser| {
        let (mut heard, mut verdicts) = (Vec::new(), Vec::new());
        for (prefix, leaf) in all {
            today.evidence(&prefix, &mut heard);
            let chosen = chooser.choose(prefix, &heard);
            let Some(saved) = saved.leaves.get(leaf as usize) else {
                chosen.into_iter().for_each(|leaf| content.push(prefix, leaves.intern(leaf)));
                continue;
            };
            verdicts.clear();
            loaded.rules.judge(prefix, &[], &mut verdicts);
            let leaf = Correction { loaded, verdicts: &verdicts, saved, today: chosen }.leaf();
            leaf.into_iter().for_each(|leaf| content.push(prefix, leaves.intern(&leaf)));
        }
    });
    content.leaves = leaves.into_vec();
    content
}

/// One prefix that was saved.
struct Correction<'a> {
    loaded: &'a Loaded,
    /// Of today's rules by prefix.
    verdicts: &'a [Verdict],
    saved: &'a Leaf,
    /// What today's lists, dumps and rules say.
    today: Option<&'a Leaf>,
}

/// Where a candidate is: the strongest rule, then who told it, then its rank there.
type Place = (u16, u8, u8);

impl Correction<'_> {
    fn leaf(&self) -> Option<Leaf> {
        let denied = self.denied();
        let mut placed = self.placed();
        placed.retain(|(_, region)| !denied.contains(region) && self.loaded.regions.contains(*region));
        placed.sort_unstable();
        let mut candidates: Vec<Candidate> = Vec::with_capacity(placed.len());
        let (mut rank, mut before) = (0, None);
        for &(place, region) in &placed {
            let known = candidates.iter().any(|candidate| candidate.region == region);
            if !known && candidates.len() < CANDIDATES_MAX {
                rank += u8::from(before.is_some_and(|before| before != place));
                before = Some(place);
                candidates.push(Candidate { region, rank });
            }
        }
        let source = match placed.first() {
            Some(((NO_RULE, SAVED, _), region)) if self.first() == Some(*region) => self.saved.source.clone(),
            Some(((NO_RULE, SAVED | LAST, _), _)) => Source::Bgp,
            Some(((NO_RULE, _, _), _)) => self.today.map_or(Source::Bgp, |leaf| leaf.source.clone()),
            Some(_) | None => Source::Rule,
        };
        (!candidates.is_empty() || !denied.is_empty()).then_some(Leaf { candidates, denied, source })
    }

    /// By today's rules.
    fn denied(&self) -> Vec<RegionId> {
        let by_prefix = self.verdicts.iter().filter(|verdict| verdict.action == Action::Deny);
        let by_route =
            self.saved.denied.iter().copied().filter(|region| {
                self.verdict(*region).is_none() && self.loose(*region, |action| action == Action::Deny)
            });
        let mut denied: Vec<RegionId> = by_prefix.map(|verdict| verdict.region).chain(by_route).collect();
        denied.sort_unstable();
        denied.truncate(DENIED_MAX);
        denied
    }

    /// All candidates, some of them perhaps twice.
    fn placed(&self) -> Vec<(Place, RegionId)> {
        let today = self.today.map_or(&[][..], |leaf| &leaf.candidates);
        let stays = self.first().is_none_or(|first| match self.saved.source {
            Source::Rule => {
                let is_first = |action| action != Action::Deny;
                self.verdict(first).is_some_and(|verdict| is_first(verdict.action)) || self.loose(first, is_first)
            }
            Source::List => today.iter().any(|candidate| candidate.region == first),
            Source::Bgp | Source::Geoip(_) | Source::Default => true,
        });
        let alone = self.saved.candidates.len() < 2;
        let (group_of_first, group_of_today) = if stays { (SAVED, BEHIND) } else { (LAST, BEFORE) };
        let place = |candidate: &Candidate, group| {
            let order = self.verdict(candidate.region).filter(|verdict| verdict.action != Action::Deny);
            ((order.map_or(NO_RULE, Verdict::order), group, candidate.rank), candidate.region)
        };
        let first = self.saved.candidates.iter().take(usize::from(stays || !alone));
        let first = first.map(|candidate| place(candidate, group_of_first));
        let saved = first.chain(self.saved.candidates.iter().skip(1).map(|candidate| place(candidate, SAVED)));
        let today = today.iter().map(|candidate| place(candidate, group_of_today));
        let pinned = self.verdicts.iter().filter(|verdict| verdict.action == Action::Pin);
        let pinned = pinned.map(|verdict| ((verdict.order(), BEHIND, u8::MAX), verdict.region));
        saved.chain(today).chain(pinned).collect()
    }

    fn first(&self) -> Option<RegionId> {
        self.saved.candidates.first().map(|candidate| candidate.region)
    }

    fn verdict(&self, region: RegionId) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.region == region)
    }

    /// Whether a rule by AS or community may say this of the region.
    fn loose(&self, region: RegionId, says: impl Fn(Action) -> bool) -> bool {
        let rules = &self.loaded.inputs.rules;
        rules.iter().any(|rule| rule.prefix.is_none() && rule.region == region && says(rule.action))
    }
}

/// Behind every rule.
const NO_RULE: u16 = u16::MAX;
/// Who told a candidate, in the order in which they count: today's lists where nobody says the saved first one any more,
/// what was saved, what else there is today, that first one.
const BEFORE: u8 = 0;
const SAVED: u8 = 1;
const BEHIND: u8 = 2;
const LAST: u8 = 3;
