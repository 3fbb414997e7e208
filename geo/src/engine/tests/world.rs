//! An engine, the files it is made of, and routers that say what a test has them say.

use std::fs;
use std::net::Ipv4Addr;

use super::*;
use crate::feed::{Family, PeerId, View};
use crate::lists::Config as List;
use crate::rib::{Feed, FeedKind};
use crate::route::{Attributes, SessionClass};

pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) inputs: Inputs,
    pub(super) engine: Option<Engine>,
    pub(super) now: Instant,
}

impl World {
    pub(super) fn new() -> Self {
        let inputs = Inputs { changes_max: 10_000, ..Inputs::default() };
        Self { folder: tempfile::tempdir().unwrap(), inputs, engine: None, now: Instant::now() }
    }

    pub(super) fn list(&mut self, text: &str) {
        let file = self.folder.path().join(format!("list{}", self.inputs.lists.len()));
        fs::write(&file, text).unwrap();
        self.inputs.lists.push(List { file, values: None, class: SessionClass::Private });
    }

    pub(super) fn rule(&mut self, action: Action, region: u16, prefix: &str) {
        self.inputs.rules.push(rule(action, region, prefix));
    }

    pub(super) fn router(&mut self, name: &str, region: u16) {
        let (class, view, kind) = (SessionClass::Private, View::PrePolicy, FeedKind::Live);
        let (name, region, peers) = (name.to_owned(), RegionId(region), Vec::new());
        self.inputs.feeds.push(Feed { name, region, class, peers, view, prefixes_max: None, kind });
    }

    /// London.
    pub(super) fn geoip(&mut self) {
        use mmdb_writer::Value;
        let mut file = mmdb_writer::Writer::builder("City").ip_version(mmdb_writer::IpVersion::V4).build();
        let country = ("country", Value::map([("iso_code", Value::from("GB"))]));
        let location = Value::map([("latitude", Value::Double(51.5)), ("longitude", Value::Double(-0.1))]);
        let record = Value::map([country, ("location", location)]);
        file.insert_value("81.2.69.0/24".parse::<IpNet>().unwrap(), record).unwrap();
        let path = self.folder.path().join("geoip");
        fs::write(&path, file.to_bytes().unwrap()).unwrap();
        self.inputs.geoip = vec![path];
    }

    pub(super) fn read(&self) -> Result<Loaded, InputsError> {
        Loaded::read(&self.inputs, &topology())
    }

    pub(super) fn start(&mut self, saved: Option<&[u8]>) {
        self.engine = Some(Engine::start(self.read().unwrap(), saved, 7, self.now));
    }

    pub(super) fn install(&mut self) {
        let loaded = self.read().unwrap();
        let now = self.now;
        self.engine.as_mut().unwrap().install(loaded, now);
    }

    pub(super) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// All routers are there and have told all they have: nothing.
    pub(super) fn settle(&mut self) {
        for router in 0..self.inputs.feeds.len() {
            self.step(1, &[(router, "connect"), (router, "up"), (router, "end")]);
        }
        assert!(self.engine().settled);
    }

    /// So many seconds later routers say something: `+10.0.0.0/8`, with a longer AS path `+10.0.0.0/8 longer`,
    /// `-10.0.0.0/8`, `connect`, `up`, `end`, `lost`.
    pub(super) fn step(&mut self, seconds: u64, said: &[(usize, &str)]) -> Stepped {
        self.now += Duration::from_secs(seconds);
        let now = self.now;
        let engine = self.engine.as_mut().unwrap();
        let update = |&(router, word): &(usize, &str)| (engine.feeds()[router].unwrap(), said_by(router, word));
        let updates: Vec<_> = said.iter().map(update).collect();
        let mut stepped = engine.step(now, updates);
        let changed = &mut stepped.changed;
        while stepped.more {
            let next = engine.step(now, []);
            *changed += next.changed;
            stepped.more = next.more;
        }
        stepped
    }
}

/// The router's peer is of AS 64500 + its number.
pub(super) fn said_by(router: usize, word: &str) -> Update {
    let asn = 64_500 + u32::try_from(router).unwrap();
    let (peer, view) = (PeerId { address: [192, 0, 2, 1].into(), distinguisher: 0, asn }, View::PrePolicy);
    let routes = |announced: Vec<IpNet>, withdrawn: Vec<IpNet>, path: &[u32]| {
        let path_length = u16::try_from(path.len()).unwrap();
        let attributes =
            Attributes { as_path: path.into(), path_length, origin_as: path.last().copied(), ..Attributes::default() };
        let attributes = (!announced.is_empty()).then_some(attributes);
        vec![Event::Routes { peer, view, announced, withdrawn, attributes }]
    };
    let events = match word.split_at(1) {
        _ if word == "connect" => return Update::Connected,
        _ if word == "lost" => return Update::Lost,
        _ if word == "up" => vec![Event::Up { peer, view, bgp_id: Ipv4Addr::UNSPECIFIED, add_path: Vec::new() }],
        _ if word == "end" => {
            vec![Event::EndOfRib { peer, view, family: Family::V4 }, Event::EndOfRib { peer, view, family: Family::V6 }]
        }
        ("+", prefix) => match prefix.strip_suffix(" longer") {
            Some(prefix) => routes(vec![prefix.parse().unwrap()], vec![], &[asn, 64_510, 64_511]),
            None => routes(vec![prefix.parse().unwrap()], vec![], &[asn, 64_511]),
        },
        (_, prefix) => {
            let prefix = prefix.strip_suffix(" longer").unwrap_or(prefix);
            routes(vec![], vec![prefix.parse().unwrap()], &[])
        }
    };
    Update::Events(events)
}

pub(super) fn rule(action: Action, region: u16, prefix: &str) -> Rule {
    let prefix = Some(prefix.to_owned());
    let (region, note) = (RegionId(region), String::new());
    Rule { action, region, prefix, origin_as: None, via: None, community: None, note }
}

/// 4 is Moscow, whose clients Berlin takes over; 5 is Berlin.
pub(super) fn topology() -> Topology {
    let document = r#"
version = 1
domain = "example.org"
default_region = 4
content_servers = { url = "http://cs{number}", numbers = ["1"] }
region = [
    { id = 4, name = "Moscow", latitude = 55.75, longitude = 37.6, neighbours = [5] },
    { id = 5, name = "Berlin", latitude = 52.5, longitude = 13.4 },
]
group = [{ name = "sun4-1", subnet = "192.0.2.0/24" }]
sun = [{ name = "sun4-1-1", addresses = ["192.0.2.1"], internal = "10.0.0.1:81", weight = 1 }]
"#;
    Topology::parse(document).unwrap()
}
