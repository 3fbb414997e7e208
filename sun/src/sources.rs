//! Where the bytes of a missing file come from, in order. Pure.
//!
//! ```text
//!   request of a client at ...          sources
//!   a sun that does not keep the file   owner sun, its stand-in, caches that hold it, content server
//!   a sun that keeps it                 caches that hold it, content server
//!   a cache that does not hold it       owner sun, its stand-in, content server
//!   request of a server at a sun        caches that hold it, content server: never a sun (no ring)
//!   request of a server at a cache      nothing: "not held"
//! ```

use std::collections::HashSet;
use std::net::SocketAddr;

use geo::topology::{Region, Spread};
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
    /// How many first suns of its order keep it (hot files).
    pub spread: usize,
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
            sources.extend(suns(question, topology, region, belief));
        }
        if !question.cache {
            sources.extend(caches(question, region, belief));
        }
    }
    sources.push(Source::ContentServer { number: question.name.content_server(), url });
    sources
}

/// Living suns that come before this one in the file's order; none if it is among those that keep the file.
fn suns(question: Question<'_>, topology: &Topology, region: &Region, belief: &impl Belief) -> Vec<Source> {
    let order = region.sun_order(question.content);
    let keepers = match topology.class_of(question.name).spread {
        Spread::All => order.len(),
        Spread::Auto => question.spread.max(1),
    };
    let alive = order
        .into_iter()
        .map(|sun| &sun.server)
        .filter(|server| server.name == question.me || belief.alive(&server.name))
        .collect::<Vec<_>>();
    if alive.iter().take(keepers).any(|server| server.name == question.me) {
        return Vec::new();
    }
    alive
        .into_iter()
        .take_while(|server| server.name != question.me)
        .take(SUNS_ASKED_MAX)
        .map(|server| Source::Sun { name: server.name.clone(), address: server.internal })
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
/// After two caches that do not answer, the content server is asked.
const CACHES_ASKED_MAX: usize = 2;

impl Source {
    /// For logs and metrics: "sun", "cache" or "origin".
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sun { .. } => "sun",
            Self::Cache { .. } => "cache",
            Self::ContentServer { .. } => "origin",
        }
    }

    /// Whether its 404 is the last word: the content server's own, or that of a sun that has asked it.
    #[must_use]
    pub const fn authority(&self) -> bool {
        !matches!(self, Self::Cache { .. })
    }

    /// Whether it is another sun.
    #[must_use]
    pub const fn is_sun(&self) -> bool {
        matches!(self, Self::Sun { .. })
    }

    /// The name of one of ours.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Sun { name, .. } | Self::Cache { name, .. } => Some(name),
            Self::ContentServer { .. } => None,
        }
    }
}

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
        assert_eq!(ask(&second, "c7/a.jpg", &hot), "origin");
        assert_eq!(ask(&third, "c7/a.jpg", &hot), format!("{first} {second} origin"));
        let (_, _, third) = order("c7/live.ts");
        check(&third, "c7/live.ts", &[], &[], "origin");
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

    #[derive(Default)]
    struct Asking<'a> {
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

    fn ask(me: &str, name: &str, asking: &Asking<'_>) -> String {
        let name = CanonicalName::parse(name).unwrap();
        let question = Question {
            me,
            cache: me.starts_with("cache"),
            direct: asking.direct,
            name: &name,
            content: name.content_id(),
            spread: asking.spread,
        };
        let sources = sources(question, &topology(), asking);
        sources.iter().map(|source| source.server().unwrap_or("origin")).collect::<Vec<_>>().join(" ")
    }

    fn topology() -> Topology {
        let mut text = String::from(
            "version = 1\ndomain = \"example.org\"\ndefault_region = 4\n\
             [content_servers]\nurl = \"http://cs{number}.storage.example.org\"\nnumbers = [\"1-9\"]\n\
             [[region]]\nid = 4\nname = \"Moscow\"\nlatitude = 55.75\nlongitude = 37.6\n\
             [[group]]\nname = \"sun4-1\"\nsubnet = \"192.0.2.0/26\"\n\
             [[class]]\nname = \"live\"\npaths = [\"*.ts\"]\nspread = \"all\"\n\
             [[cache]]\nname = \"cache4-1\"\naddresses = [\"192.0.2.70\"]\ninternal = \"10.0.0.9:8081\"\nweight = 100\nbytes = 1000000\n",
        );
        for sun in 1..=3 {
            text.push_str(&format!(
                "[[sun]]\nname = \"sun4-1-{sun}\"\naddresses = [\"192.0.2.{sun}\"]\ninternal = \"10.0.0.{sun}:8081\"\nweight = 100\n"
            ));
        }
        Topology::parse(&text).unwrap()
    }
}
