//! The choice as `geo explain` tells it: the same order, with what separated each region from the next.

use std::fmt;

use ipnet::IpNet;
use serde::Serialize;

use super::{CANDIDATES_MAX, Chooser, Entrant, KM_STEP, Key, Med};
use crate::regions::Point;
use crate::route::{Heard, SessionClass};
use crate::rules::{Action, Told};
use crate::table::Leaf;
use crate::topology::RegionId;

/// What is chosen for a prefix, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// What the table says of it; nothing when nobody serves it and nobody is denied.
    pub leaf: Option<Leaf>,
    /// The leaf's candidates, best first.
    pub candidates: Vec<Chosen>,
    /// What put each candidate before the next one: one less than there are candidates.
    pub why: Vec<Step>,
    /// What does not count.
    pub left_out: Vec<LeftOut>,
}

/// A candidate and what speaks for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chosen {
    /// The region.
    pub region: RegionId,
    /// As in the leaf: 0 is best, equal ones are as good as each other.
    pub rank: u8,
    /// The rule that pins or prefers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Told>,
    /// Its best route; none if it is pinned and hears nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteTold>,
    /// Kilometres from the clients' position to the region, if geoip knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub km: Option<u32>,
}

/// A route, for people.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RouteTold {
    /// Who told it.
    pub source: String,
    /// The session it came over.
    pub class: SessionClass,
    /// From the neighbour to the origin.
    pub as_path: Vec<u32>,
    /// As it is compared: a set is one.
    pub path_length: u16,
    /// If it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Whether its feed is lost.
    pub stale: bool,
    /// Whether a list said it.
    pub listed: bool,
}

impl RouteTold {
    fn of(route: &Heard<'_>) -> Self {
        let attributes = route.attributes;
        Self {
            source: route.source.to_owned(),
            class: route.class,
            as_path: attributes.as_path.to_vec(),
            path_length: attributes.path_length,
            med: attributes.med,
            stale: route.stale,
            listed: route.listed,
        }
    }
}

/// What put one candidate before the next.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Step {
    /// The better one.
    pub before: RegionId,
    /// The next.
    pub after: RegionId,
    /// The first difference.
    #[serde(flatten)]
    pub by: By,
}

/// `region 4 before region 5 by session class: private, transit`
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            By::Nothing => write!(f, "region {} beside region {}: {}", self.before, self.after, self.by),
            _ => write!(f, "region {} before region {} by {}", self.before, self.after, self.by),
        }
    }
}

/// What two candidates differ in, in the order in which it is looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum By {
    /// A rule of the operator.
    Rule {
        /// The better one's; it always has one.
        better: Option<Told>,
        /// The other's, if it has one.
        worse: Option<Told>,
    },
    /// Both are pinned, and the worse one does not hear the prefix.
    Heard,
    /// The kind of session.
    SessionClass {
        /// Of the better one's route.
        better: SessionClass,
        /// Of the other's.
        worse: SessionClass,
    },
    /// ASes on the path.
    PathLength {
        /// Of the better one's route.
        better: u16,
        /// Of the other's.
        worse: u16,
    },
    /// The worse one's neighbour AS would rather be reached elsewhere.
    Med {
        /// The worse one's neighbour AS.
        neighbour_as: Option<u32>,
        /// What that AS says in the region where it would rather be reached.
        lowest: u32,
        /// What it says in the worse one.
        worse: u32,
    },
    /// Great-circle distance to the clients' position, rounded to what is compared.
    Distance {
        /// Of the better one, kilometres.
        better_km: u32,
        /// Of the other, kilometres.
        worse_km: u32,
    },
    /// Nothing: each is first for its half of the clients.
    Nothing,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { better: Some(better), worse: Some(worse) } => write!(f, "{better}, {worse}"),
            Self::Rule { better: Some(rule), .. } | Self::Rule { worse: Some(rule), .. } => rule.fmt(f),
            Self::Rule { .. } => f.write_str("a rule"),
            Self::Heard => f.write_str("hearing the prefix; both are pinned"),
            Self::SessionClass { better, worse } => write!(f, "session class: {}, {}", better.name(), worse.name()),
            Self::PathLength { better, worse } => write!(f, "AS path length: {better}, {worse}"),
            Self::Med { neighbour_as: Some(neighbour), lowest, worse } => {
                write!(f, "MED of AS {neighbour}: it asks for {lowest} elsewhere, {worse} here")
            }
            Self::Med { neighbour_as: None, lowest, worse } => write!(f, "MED: {lowest} elsewhere, {worse} here"),
            Self::Distance { better_km, worse_km } => write!(f, "distance: {better_km} km, {worse_km} km"),
            Self::Nothing => f.write_str("equal, a hash of the client's network decides"),
        }
    }
}

/// Something that was said and does not count.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LeftOut {
    /// The region it was said of.
    pub region: RegionId,
    /// Who told the route; none if no single route is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why it does not count.
    pub why: Why,
}

/// Why something does not count.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A rule denies the region.
    Denied(Told),
    /// The prefix is so short that a route to it says nothing of clients.
    DefaultRoute,
    /// The topology has no such region.
    NoSuchRegion,
    /// Enough regions are better.
    Crowded,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(rule) => rule.fmt(f),
            Self::DefaultRoute => f.write_str("a default route says nothing of clients"),
            Self::NoSuchRegion => f.write_str("the topology has no such region"),
            Self::Crowded => write!(f, "{CANDIDATES_MAX} regions are better"),
        }
    }
}

impl Chooser<'_> {
    /// As [`Chooser::choose`], with the reasons.
    #[must_use]
    pub fn explain(&mut self, prefix: IpNet, heard: &[Heard<'_>]) -> Choice {
        let counted: Vec<Heard<'_>> = heard.iter().filter(|route| self.counts(prefix, route)).copied().collect();
        self.order(prefix, &counted);
        let leaf = self.fill_leaf().cloned();
        let position = (self.position)(prefix);
        let ranks = leaf.iter().flat_map(|leaf| leaf.candidates.iter().map(|candidate| candidate.rank));
        let candidates = ranks.zip(&self.entrants);
        let candidates: Vec<Chosen> =
            candidates.map(|(rank, entrant)| self.chosen(rank, entrant, &counted, position.as_ref())).collect();
        let pairs = self.entrants.windows(2).zip(candidates.windows(2));
        let why = pairs.filter_map(|(entrants, chosen)| match (entrants, chosen) {
            ([a, b], [better, worse]) => {
                Some(Step { before: a.region, after: b.region, by: self.by((a, better), (b, worse)) })
            }
            _ => None,
        });
        let why = why.collect();
        Choice { leaf, why, left_out: self.left_out(prefix, heard), candidates }
    }

    fn counts(&self, prefix: IpNet, route: &Heard<'_>) -> bool {
        route.listed || !self.options.is_default_route(prefix)
    }

    fn chosen(&self, rank: u8, entrant: &Entrant, heard: &[Heard<'_>], position: Option<&Point>) -> Chosen {
        let verdict = self.verdicts.iter().find(|verdict| verdict.region == entrant.region);
        let route = entrant.route.and_then(|at| heard.get(at as usize));
        Chosen {
            region: entrant.region,
            rank,
            rule: verdict.and_then(|verdict| self.rules.told(verdict)).cloned(),
            route: route.map(RouteTold::of),
            km: position.and_then(|position| self.regions.km(entrant.region, position)).map(whole_km),
        }
    }

    /// The first difference between a region and the next.
    fn by(&self, (a, better): (&Entrant, &Chosen), (b, worse): (&Entrant, &Chosen)) -> By {
        let (key, next) = (a.key, b.key);
        if key.rule != next.rule {
            By::Rule { better: better.rule.clone(), worse: worse.rule.clone() }
        } else if a.route.is_some() && b.route.is_none() {
            By::Heard
        } else if key.class != next.class {
            By::SessionClass { better: key.class, worse: next.class }
        } else if key.path_length != next.path_length {
            By::PathLength { better: key.path_length, worse: next.path_length }
        } else if key.med_level != next.med_level {
            self.by_med(b)
        } else if key.distance != next.distance {
            let km = |key: Key| u32::from(key.distance) * KM_STEP;
            By::Distance { better_km: km(key), worse_km: km(next) }
        } else {
            By::Nothing
        }
    }

    fn by_med(&self, worse: &Entrant) -> By {
        let of_route = self.meds.iter().find(|med| Some(med.route) == worse.route);
        let lowest = of_route.and_then(|worse| {
            let same = |med: &&Med| (med.key, med.neighbour_as) == (worse.key, worse.neighbour_as);
            self.meds.iter().find(same)
        });
        By::Med {
            neighbour_as: of_route.and_then(|med| med.neighbour_as),
            lowest: lowest.map_or(0, |med| med.med),
            worse: of_route.map_or(0, |med| med.med),
        }
    }

    fn left_out(&self, prefix: IpNet, heard: &[Heard<'_>]) -> Vec<LeftOut> {
        let denied = self.verdicts.iter().filter(|verdict| verdict.action == Action::Deny).filter_map(|verdict| {
            let why = Why::Denied(self.rules.told(verdict)?.clone());
            Some(LeftOut { region: verdict.region, source: None, why })
        });
        let routes = heard.iter().filter_map(|route| {
            let why = if !self.counts(prefix, route) {
                Why::DefaultRoute
            } else if !self.regions.contains(route.region) {
                Why::NoSuchRegion
            } else {
                return None;
            };
            Some(LeftOut { region: route.region, source: Some(route.source.to_owned()), why })
        });
        let crowded = self.entrants.iter().skip(CANDIDATES_MAX);
        let crowded = crowded.map(|entrant| LeftOut { region: entrant.region, source: None, why: Why::Crowded });
        let mut left_out: Vec<LeftOut> = denied.chain(routes).chain(crowded).collect();
        left_out.sort_by_key(|left| left.region);
        left_out
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 20,015 fit")]
fn whole_km(km: f64) -> u32 {
    km.round() as u32
}
