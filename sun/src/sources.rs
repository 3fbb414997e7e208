//! Where the bytes of a missing file come from, in order. Pure.
//!
//! ```text
//!   request of a client at ...          sources
//!   a sun that does not keep the file   owner sun, its stand-in, caches that hold it, content server
//!   its owner                           its owner before a change of weights, caches that hold it, content server
//!   another sun that keeps it (hot)     owner sun, ..., caches that hold it, content server
//!   a cache that does not hold it       owner sun, its stand-in, content server
//!   request of a server at a sun        the same without suns that would ask in turn (no ring)
//!   request of a server at a cache      nothing: "not held"
//! ```
//!
//! A former owner is asked only for what it holds, and answers that at once or not at all: it joins and begins no
//! fill for such a request, so asking it can close no ring. One copy of a hot file comes from the content server, the
//! others from its owner.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use geo::topology::{Class, Policy, Region, Server, Spread};
use geo::{CanonicalName, ContentId, Topology};

/// One place to ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// Another sun's internal listener.
    Sun {
        /// Its name.
        name: String,
        /// Its internal listener.
        address: SocketAddr,
    },
    /// The internal listener of a sun that kept the file before weights changed; it answers only what it holds.
    Former {
        /// Its name.
        name: String,
        /// Its internal listener.
        address: SocketAddr,
    },
    /// A cache's internal listener; it answers only what it holds.
    Cache {
        /// Its name.
        name: String,
        /// Its internal listener.
        address: SocketAddr,
    },
    /// The content server that owns the file.
    ContentServer {
        /// Its number.
        number: u32,
        /// The file's address there.
        url: String,
        /// `Host`, when it is not what the address says ([`Topology::origin_host`]).
        host: Option<String>,
    },
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// This server's name.
    pub me: &'a str,
    /// This server is a cache.
    pub cache: bool,
    /// The request came from a server: ask no sun.
    pub direct: bool,
    /// The file.
    pub name: &'a CanonicalName,
    /// The file's id.
    pub content: ContentId,
    /// Its class, as it was asked for: a site has its own.
    pub class: &'a Class,
    /// How many first suns of its order keep it (hot files).
    pub spread: usize,
    /// The topologies before this one that still count, newest first; see [`History`].
    pub earlier: &'a [Arc<Topology>],
}

/// What is believed of the region's other servers.
pub trait Belief {
    /// Whether the server is worth asking.
    fn alive(&self, server: &str) -> bool;
    /// Whether the cache says that it holds the file.
    fn holds(&self, cache: &str, content: ContentId) -> bool;
}

/// The sources of a file; empty when its content server is not one of ours (404) or this server is not in
/// the topology.
#[must_use]
pub fn sources(question: Question<'_>, topology: &Topology, belief: &impl Belief) -> Vec<Source> {
    let Some(url) = topology.content_servers.url_of(question.name) else {
        return Vec::new();
    };
    let region = topology.server(question.me).and_then(|server| topology.region(server.region));
    let mut sources = Vec::new();
    if let Some(region) = region {
        if !question.direct {
            sources.extend(suns(question, region, belief));
        }
        if !question.cache {
            sources.extend(former(question, region, belief));
            sources.extend(caches(question, region, belief));
        }
    }
    sources.push(content_server(question.name, url, topology));
    sources
}

/// The content server, as the source of a file at `url`.
#[must_use]
pub fn content_server(name: &CanonicalName, url: String, topology: &Topology) -> Source {
    let number = name.content_server();
    Source::ContentServer { number, url, host: topology.origin_host(number).map(str::to_owned) }
}

/// Whether this server is one of the suns that keep the file: its owner, or of the first `r` that live when it is
/// hot. Others that serve it have it in passing, in RAM.
#[must_use]
pub fn keeps(question: Question<'_>, topology: &Topology, belief: &impl Belief) -> bool {
    let region = topology.sun(question.me).and_then(|sun| topology.region(sun.server.region));
    region.is_some_and(|region| is_keeper(question, region, belief))
}

fn is_keeper(question: Question<'_>, region: &Region, belief: &impl Belief) -> bool {
    let keepers = match question.class.spread {
        Spread::All => region.suns.len(),
        Spread::Auto => question.spread.max(1),
    };
    living(question, region, belief).into_iter().take(keepers).any(|server| server.name == question.me)
}

/// The suns in the file's order that live; this one does.
fn living<'a>(question: Question<'_>, region: &'a Region, belief: &impl Belief) -> Vec<&'a Server> {
    let order = region.sun_order(question.content).into_iter().map(|sun| &sun.server);
    order.filter(|server| server.name == question.me || belief.alive(&server.name)).collect()
}

/// Living suns that come before this one in the file's order; none if it is the first.
fn suns(question: Question<'_>, region: &Region, belief: &impl Belief) -> Vec<Source> {
    living(question, region, belief)
        .into_iter()
        .take_while(|server| server.name != question.me)
        .take(SUNS_ASKED_MAX)
        .map(|server| Source::Sun { name: server.name.clone(), address: server.internal })
        .collect()
}

/// The suns that owned a file which this one keeps, by the earlier topologies, newest first. None under the policy
/// "rfc": there `only-if-cached` is the client's word, and a sun that is asked without it asks the content server.
fn former(question: Question<'_>, region: &Region, belief: &impl Belief) -> Vec<Source> {
    let asks_further = question.class.policy == Policy::Rfc;
    if question.earlier.is_empty() || asks_further || !is_keeper(question, region, belief) {
        return Vec::new();
    }
    let mut seen = HashSet::from([question.me]);
    question
        .earlier
        .iter()
        .filter_map(|topology| topology.region(region.id)?.owner(question.content))
        .map(|sun| &sun.server)
        .filter(|server| seen.insert(server.name.as_str()) && belief.alive(&server.name))
        .take(FORMER_ASKED_MAX)
        .map(|server| Source::Former { name: server.name.clone(), address: server.internal })
        .collect()
}

/// Living caches of the region that hold the file, in its order.
fn caches(question: Question<'_>, region: &Region, belief: &impl Belief) -> Vec<Source> {
    let mut seen = HashSet::new();
    region
        .cache_order(question.content)
        .into_iter()
        // A draining cache has no place in the order and is still asked for what it holds.
        .chain(&region.caches)
        .map(|cache| &cache.server)
        .filter(|server| belief.holds(&server.name, question.content) && belief.alive(&server.name))
        .filter(|server| seen.insert(server.name.as_str()))
        .take(CACHES_ASKED_MAX)
        .map(|server| Source::Cache { name: server.name.clone(), address: server.internal })
        .collect()
}

/// The owner and one stand-in: after two that fail, the content server is nearer than a third.
const SUNS_ASKED_MAX: usize = 2;
/// Weights that change in small steps leave the files of the last few.
const FORMER_ASKED_MAX: usize = 2;
/// After two caches that do not answer, the content server is asked.
const CACHES_ASKED_MAX: usize = 2;

impl Source {
    /// For logs and metrics: "sun", "former", "cache" or "origin".
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sun { .. } => "sun",
            Self::Former { .. } => "former",
            Self::Cache { .. } => "cache",
            Self::ContentServer { .. } => "origin",
        }
    }

    /// Whether its 404 is the last word: the content server's own, or that of a sun that has asked it.
    #[must_use]
    pub const fn authority(&self) -> bool {
        !self.held_only()
    }

    /// Whether it answers only what it holds, at once, and 404 says nothing but that it does not.
    #[must_use]
    pub const fn held_only(&self) -> bool {
        matches!(self, Self::Cache { .. } | Self::Former { .. })
    }

    /// Whether it is another sun, which may ask further.
    #[must_use]
    pub const fn is_sun(&self) -> bool {
        matches!(self, Self::Sun { .. })
    }

    /// The name of one of ours.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Sun { name, .. } | Self::Former { name, .. } | Self::Cache { name, .. } => Some(name),
            Self::ContentServer { .. } => None,
        }
    }
}

/// The topologies before the running one, for ten minutes after each change: a new owner asks the previous one
/// for what it holds. Pure; a sun that starts anew remembers none, and fetches what it gained.
#[derive(Clone, Debug, Default)]
pub struct History {
    running: Option<Arc<Topology>>,
    /// With when they were replaced, milliseconds; newest first.
    earlier: Vec<(u64, Arc<Topology>)>,
}

impl History {
    /// Whether the topology is the one that runs, by what was seen.
    #[must_use]
    pub fn runs(&self, topology: &Arc<Topology>) -> bool {
        self.running.as_ref().is_some_and(|running| Arc::ptr_eq(running, topology))
    }

    /// This topology runs now.
    pub fn see(&mut self, topology: &Arc<Topology>, now_ms: u64) {
        if self.runs(topology) {
            return;
        }
        if let Some(replaced) = self.running.replace(Arc::clone(topology)) {
            self.earlier.insert(0, (now_ms, replaced));
        }
        self.earlier.retain(|(at_ms, _)| now_ms.saturating_sub(*at_ms) < HISTORY_MS);
        self.earlier.truncate(HISTORY_MAX);
    }

    /// Topologies that were replaced within the last ten minutes, newest first.
    #[must_use]
    pub fn earlier(&self, now_ms: u64) -> Vec<Arc<Topology>> {
        let recent = self.earlier.iter().filter(|(at_ms, _)| now_ms.saturating_sub(*at_ms) < HISTORY_MS);
        recent.map(|(_, topology)| Arc::clone(topology)).collect()
    }
}

/// How long a topology that was replaced still counts, milliseconds.
pub const HISTORY_MS: u64 = 600_000;
/// Topologies that are remembered, a whole ramp of a weight; after more changes within ten minutes the oldest is forgotten.
const HISTORY_MAX: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sun_that_does_not_keep_the_file_asks_its_keepers_first() {
        let (first, second, third) = order("c7/a.jpg");
        check(&third, "c7/a.jpg", &[], &[], &format!("{first} {second} origin"));
        check(&second, "c7/a.jpg", &[], &[], &format!("{first} origin"));
        check(&first, "c7/a.jpg", &[], &[], "origin");
    }

    #[test]
    fn a_stand_in_takes_the_place_of_a_keeper_that_is_down() {
        let (first, second, third) = order("c7/a.jpg");
        check(&third, "c7/a.jpg", &[&first], &[], &format!("{second} origin"));
        check(&second, "c7/a.jpg", &[&first], &[], "origin");
        check(&third, "c7/a.jpg", &[&first, &second], &[], "origin");
    }

    #[test]
    fn a_cache_that_holds_the_file_is_asked_before_the_content_server() {
        let (first, second, _) = order("c7/a.jpg");
        check(&first, "c7/a.jpg", &[], &["cache4-1"], "cache4-1 origin");
        check(&second, "c7/a.jpg", &[], &["cache4-1"], &format!("{first} cache4-1 origin"));
        check(&first, "c7/a.jpg", &["cache4-1"], &["cache4-1"], "origin");
    }

    #[test]
    fn a_cache_passes_on_to_the_owner_sun_and_never_asks_a_cache() {
        let (first, second, _) = order("c7/a.jpg");
        check("cache4-1", "c7/a.jpg", &[], &["cache4-1"], &format!("{first} {second} origin"));
    }

    #[test]
    fn a_request_from_a_server_is_never_passed_on_to_a_sun() {
        let (first, _, third) = order("c7/a.jpg");
        let asked = Asking { direct: true, ..Asking::default() };
        assert_eq!(ask(&third, "c7/a.jpg", &asked), "origin");
        assert_eq!(ask(&third, "c7/a.jpg", &Asking { holders: &["cache4-1"], ..asked }), "cache4-1 origin");
        assert_eq!(ask(&first, "c7/a.jpg", &asked), "origin");
    }

    #[test]
    fn hot_files_and_classes_that_are_spread_have_more_keepers() {
        let (first, second, third) = order("c7/a.jpg");
        let hot = Asking { spread: 2, ..Asking::default() };
        assert_eq!(ask(&first, "c7/a.jpg", &hot), "origin");
        assert_eq!(ask(&second, "c7/a.jpg", &hot), format!("{first} origin"), "one copy comes from the content server");
        assert_eq!((keep(&first, "c7/a.jpg", &hot), keep(&second, "c7/a.jpg", &hot)), (true, true));
        assert!(!keep(&third, "c7/a.jpg", &hot) && !keep(&second, "c7/a.jpg", &Asking::default()));
        let down = Asking { down: &[&first], ..hot };
        assert!(keep(&third, "c7/a.jpg", &down), "the first two that live");
        assert_eq!(ask(&third, "c7/a.jpg", &hot), format!("{first} {second} origin"));
        let (first, second, third) = order("c7/live.ts");
        check(&third, "c7/live.ts", &[], &[], &format!("{first} {second} origin"));
        assert!(keep(&third, "c7/live.ts", &Asking::default()));
    }

    #[test]
    fn a_sites_own_class_says_how_far_it_is_spread() {
        let (_, _, third) = order("c1/live/a.jpg");
        let site = Asking { site: Some("www.site.test"), ..Asking::default() };
        assert!(keep(&third, "c1/live/a.jpg", &site) && !keep(&third, "c1/live/a.jpg", &Asking::default()));
        let (_, _, third) = order("c1/a.ts");
        assert!(!keep(&third, "c1/a.ts", &site) && keep(&third, "c1/a.ts", &Asking::default()));
    }

    #[test]
    fn a_former_owner_that_would_ask_further_is_not_asked() {
        let (first, second, _) = order("c1/a.jpg");
        let earlier = &[Arc::new(topology_with(|sun| if sun == first { 0 } else { 100 }))][..];
        let changed = Asking { earlier, ..Asking::default() };
        assert_eq!(ask(&first, "c1/a.jpg", &changed), format!("{second}? origin"));
        let rfc = Asking { site: Some("www.site.test"), ..changed };
        assert_eq!(ask(&first, "c1/a.jpg", &rfc), "origin");
    }

    #[test]
    fn after_a_change_of_weights_the_new_owner_asks_the_previous_one() {
        let (first, second, third) = order("c7/a.jpg");
        let without = |gone: &str| Arc::new(topology_with(|sun| if sun == gone { 0 } else { 100 }));
        // Before, the first had no weight: the second owned what is the first's now.
        let earlier = &[without(&first)][..];
        let changed = Asking { earlier, ..Asking::default() };
        assert_eq!(ask(&first, "c7/a.jpg", &changed), format!("{second}? origin"));
        assert_eq!(ask(&first, "c7/a.jpg", &Asking { direct: true, ..changed }), format!("{second}? origin"));
        assert_eq!(ask(&first, "c7/a.jpg", &Asking { down: &[&second], ..changed }), "origin");
        assert_eq!(ask(&second, "c7/a.jpg", &changed), format!("{first} origin"));
        assert_eq!(ask(&third, "c7/a.jpg", &changed), format!("{first} {second} origin"));
        let cache = Asking { holders: &["cache4-1"], ..changed };
        assert_eq!(ask(&first, "c7/a.jpg", &cache), format!("{second}? cache4-1 origin"));
        // A change that did not move the file.
        let other = Asking { earlier: &[without(&third)], ..Asking::default() };
        assert_eq!(ask(&first, "c7/a.jpg", &other), "origin");
        // Steps, each with its owner: the last two.
        let both = Arc::new(topology_with(|sun| if sun == third { 100 } else { 0 }));
        let steps = Asking { earlier: &[without(&first), Arc::clone(&both), both], ..Asking::default() };
        assert_eq!(ask(&first, "c7/a.jpg", &steps), format!("{second}? {third}? origin"));
    }

    #[test]
    fn a_topology_that_was_replaced_counts_for_ten_minutes() {
        let mut history = History::default();
        let topologies: Vec<Arc<Topology>> = (0..10).map(|_| Arc::new(topology())).collect();
        history.see(&topologies[0], 1000);
        assert!(history.runs(&topologies[0]) && history.earlier(1000).is_empty());
        history.see(&topologies[1], 2000);
        history.see(&topologies[1], 3000);
        history.see(&topologies[2], 5000);
        let earlier = |history: &History, now_ms| {
            let place = |one: &Arc<Topology>| topologies.iter().position(|known| Arc::ptr_eq(known, one)).unwrap();
            history.earlier(now_ms).iter().map(place).collect::<Vec<usize>>()
        };
        assert_eq!(earlier(&history, 5000), [1, 0]);
        assert_eq!(earlier(&history, 2000 + HISTORY_MS), [1]);
        assert_eq!(earlier(&history, 5000 + HISTORY_MS), [0_usize; 0]);
        for topology in &topologies {
            history.see(topology, 6000);
        }
        assert_eq!(earlier(&history, 6000), [8, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn a_content_server_that_is_not_ours_is_never_asked() {
        check("sun4-1-1", "c10/a.jpg", &[], &[], "");
    }

    /// Names of the suns in the file's order.
    fn order(name: &str) -> (String, String, String) {
        let topology = topology();
        let content = CanonicalName::parse(name).unwrap().content_id();
        let region = topology.region(geo::RegionId(4)).unwrap();
        let names: Vec<String> = region.sun_order(content).iter().map(|sun| sun.server.name.clone()).collect();
        (names[0].clone(), names[1].clone(), names[2].clone())
    }

    #[track_caller]
    fn check(me: &str, name: &str, down: &[&str], holders: &[&str], expected: &str) {
        assert_eq!(ask(me, name, &Asking { down, holders, ..Asking::default() }), expected, "{me} {name}");
    }

    #[derive(Clone, Copy, Default)]
    struct Asking<'a> {
        site: Option<&'a str>,
        earlier: &'a [Arc<Topology>],
        direct: bool,
        spread: usize,
        down: &'a [&'a str],
        holders: &'a [&'a str],
    }

    impl Belief for Asking<'_> {
        fn alive(&self, server: &str) -> bool {
            !self.down.contains(&server)
        }

        fn holds(&self, cache: &str, _: ContentId) -> bool {
            self.holders.contains(&cache)
        }
    }

    fn keep(me: &str, name: &str, asking: &Asking<'_>) -> bool {
        let name = CanonicalName::parse(name).unwrap();
        let topology = topology();
        let class = topology.class_for(asking.site.and_then(|host| topology.site(host)), &name);
        keeps(asking.question(me, &name, class), &topology, asking)
    }

    fn ask(me: &str, name: &str, asking: &Asking<'_>) -> String {
        let name = CanonicalName::parse(name).unwrap();
        let topology = topology();
        let class = topology.class_for(asking.site.and_then(|host| topology.site(host)), &name);
        let sources = sources(asking.question(me, &name, class), &topology, asking);
        let named = |source: &Source| match source {
            Source::Former { name, .. } => format!("{name}?"),
            source => source.server().unwrap_or("origin").to_owned(),
        };
        sources.iter().map(named).collect::<Vec<_>>().join(" ")
    }

    impl Asking<'_> {
        fn question<'a>(&'a self, me: &'a str, name: &'a CanonicalName, class: &'a Class) -> Question<'a> {
            Question {
                me,
                cache: me.starts_with("cache"),
                direct: self.direct,
                name,
                content: name.content_id(),
                class,
                spread: self.spread,
                earlier: self.earlier,
            }
        }
    }

    fn topology() -> Topology {
        topology_with(|_| 100)
    }

    fn topology_with(weight: impl Fn(&str) -> u16) -> Topology {
        let mut text = String::from(
            "version = 1\ndomain = \"example.org\"\ndefault_region = 4\n\
             [content_servers]\nurl = \"http://cs{number}.storage.example.org\"\nnumbers = [\"1-9\"]\n\
             [[region]]\nid = 4\nname = \"Moscow\"\nlatitude = 55.75\nlongitude = 37.6\n\
             [[group]]\nname = \"sun4-1\"\nsubnet = \"192.0.2.0/26\"\n\
             [[class]]\nname = \"live\"\npaths = [\"*.ts\"]\nspread = \"all\"\n\
             [[cache]]\nname = \"cache4-1\"\naddresses = [\"192.0.2.70\"]\ninternal = \"10.0.0.9:8081\"\nweight = 100\nbytes = 1000000\n\
             [[site]]\nhost = \"www.site.test\"\ncontent_server = 1\n\
             [[site.class]]\nname = \"live\"\npaths = [\"/live/*\"]\nspread = \"all\"\npolicy = \"immutable\"\n\
             [[site.class]]\nname = \"all\"\npaths = [\"*\"]\n",
        );
        for sun in 1..=3 {
            text.push_str(&format!(
                "[[sun]]\nname = \"sun4-1-{sun}\"\naddresses = [\"192.0.2.{sun}\"]\ninternal = \"10.0.0.{sun}:8081\"\nweight = {}\n",
                weight(&format!("sun4-1-{sun}"))
            ));
        }
        Topology::parse(&text).unwrap()
    }
}
