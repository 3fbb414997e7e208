//! A machine with systemd, what its `/etc` has, and clients and a content server outside of it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tests::booted::{Booted, Tree, install_units};
use tests::certificates::Authority;
use tests::client::Client;
use tests::lab::network::{Machine, Network};
use tests::origin::{Origin, Script};
use tests::poll;
use tests::visitors::{Target, Visitors};

/// A machine with systemd, and outside of it clients and a content server.
pub(super) struct World {
    pub(super) booted: Booted,
    _origin: Origin,
    authority: Authority,
    pub(super) folder: Tree,
}

impl World {
    /// What `/etc` has for a sun with its self-check, its addresses and BIRD.
    pub(super) fn edge(&self) {
        let topology = self.folder.path().join("etc/sun/topology.toml").display().to_string();
        let rendered = |words: &[&str]| {
            let words = [&["render"], words, &["--sun", SUN, "--topology", &topology]].concat();
            let done = tests::process::run("sunctl", &words);
            assert_eq!(done.status, Some(0), "{}", done.err);
            done.out
        };
        self.put("sun/sun.toml", &sun_config());
        self.put("sun/sun-check.toml", &sun_check_config());
        self.put("sun/tickets", &"5a".repeat(32));
        let _ = self.authority.issue(&self.folder.path().join("etc/sun"), "sun", &["*.cdn.test"]);
        self.put("sun/addresses", &rendered(&["addresses", "--pass-on", "outside"]));
        let router = format!("{OUTSIDE}=64500");
        let bird = rendered(&["bird", "--asn", "64512", "--neighbour", &router, "--router-id", "192.0.2.8"]);
        self.put("bird/bird.conf", &bird);
        for file in EDGE_SECRETS.iter().chain(&EDGE_FILES) {
            self.booted.must(&["chown", "sun:", file]);
        }
        self.booted.must(&["chown", "bird:", "/etc/bird/bird.conf"]);
    }

    /// Writes a file below the machine's `/etc`, root's.
    pub(super) fn put(&self, file: &str, text: &str) {
        tests::files::write(&self.folder.path().join("etc").join(file), text);
    }

    /// What `/etc` has for a popularity API, a cache and a geo server. Each has a folder of its own for its secrets.
    pub(super) fn core(&self) {
        let put = |name: &str, file: &str, text: &str, user: &str| {
            self.put(&format!("sun/{name}/{file}"), text);
            self.booted.must(&[
                "chown",
                &format!("{user}:"),
                &format!("/etc/sun/{name}"),
                &format!("/etc/sun/{name}/{file}"),
            ]);
        };
        for (name, user, _) in CORE {
            std::fs::create_dir_all(self.folder.path().join("etc/sun").join(name)).unwrap();
            put(name, "tokens.toml", &tokens(), user);
            put(name, "token", &tests::settings::token("cache1-1"), user);
        }
        let folder = self.folder.path().join("etc/sun/cache");
        let _ = self.authority.issue(&folder, "cache", &["*.cdn.test"]);
        self.booted.must(&["chown", "-R", "sun-cache:", "/etc/sun/cache"]);
        let common = |name: &str| format!("tokens = \"/etc/sun/{name}/tokens.toml\"\n");
        self.put("sun/popularity-api.toml", &format!("listen = \"{INSIDE}:8090\"\n{}", common("api")));
        self.put("sun/geo.toml", &format!("listen = \"{INSIDE}:8095\"\n{}", common("geo")));
        let cache = format!(
            "[edge]\nname = \"cache1-1\"\nhttps = [\"{INSIDE}:443\"]\ninternal = \"{INSIDE}:8181\"\n{}\
             token = \"/etc/sun/cache/token\"\nram_bytes = 67108864\n\
             [[edge.certificates]]\nchain = \"/etc/sun/cache/cache.pem\"\nkey = \"/etc/sun/cache/cache.key\"\n\
             [edge.popularity]\nurl = \"http://{INSIDE}:8090\"\ntoken_file = \"/etc/sun/cache/token\"\n",
            common("cache")
        );
        self.put("sun/cache-daemon.toml", &cache);
        for (unit, address) in [("popularity-api", "8090"), ("cache-daemon", "443")] {
            let socket = format!("[Socket]\nListenStream={INSIDE}:{address}\n[Install]\nWantedBy=sockets.target\n");
            self.put(&format!("systemd/system/{unit}.socket"), &socket);
        }
        self.booted.must(&["sh", "-c", "chmod 644 /etc/sun/*.toml /etc/systemd/system/*.socket"]);
        self.booted.must(&["systemctl", "daemon-reload"]);
    }

    /// Clients who ask without end: HTTP/1.1 and HTTP/2 on connections that are kept, and on new ones.
    pub(super) fn visitors(&self, address: SocketAddr, host: &str, kinds: [usize; 3]) -> Visitors {
        let target = Target {
            address,
            host: host.to_owned(),
            path: FILE.to_owned(),
            size: usize::try_from(FILE_BYTES).unwrap(),
            pause: Duration::from_millis(10),
        };
        Visitors::start(&self.authority, &target, kinds)
    }

    /// Whether BIRD announces the sun's address as best, and as the last choice.
    pub(super) fn announced(&self) -> [bool; 2] {
        let told = self.booted.run(&["birdc", "show", "protocols"]).out;
        ["sun_up_", "sun_drain_"].map(|name| {
            let rows = told.lines().filter(|row| row.starts_with(name));
            rows.into_iter().any(|row| row.split_whitespace().nth(3) == Some("up"))
        })
    }

    pub(super) async fn until_announced(&self) {
        poll::until_true("it is announced", || async { self.announced() == [true, false] }).await;
    }

    pub(super) fn client(&self) -> Client {
        Client::new(
            &self.authority,
            HashMap::from([
                (HOST.to_owned(), ADDRESS.into()),
                ("cache1-1.cdn.test".to_owned(), INSIDE.into()),
                (INSIDE.to_string(), INSIDE.into()),
            ]),
        )
    }
}

fn tokens() -> String {
    let mut text = String::new();
    for (name, role) in [(SUN, "sun"), ("cache1-1", "cache")] {
        let token = tests::settings::token(name);
        text += &format!("[[token]]\ntoken = \"{token}\"\nrole = \"{role}\"\nregion = 1\nname = \"{name}\"\n");
    }
    text + &format!("[[token]]\ntoken = \"{}\"\nrole = \"backend\"\n", tests::settings::token("backend"))
}

fn sun_config() -> String {
    format!(
        "name = \"{SUN}\"\ninternal = \"{INSIDE}:8081\"\nram_bytes = 67108864\ndrain_s = 10\n\
         ticket_secret = \"/etc/sun/tickets\"\n\
         [[certificates]]\nchain = \"/etc/sun/sun.pem\"\nkey = \"/etc/sun/sun.key\"\n\
         [[store]]\npath = \"/var/lib/sun/store\"\nbytes = 33554432\n"
    )
}

fn sun_check_config() -> String {
    format!("name = \"{SUN}\"\n[probe]\ntrust = \"/etc/sun/root.pem\"\n[speaker]\nkind = \"bird\"\n")
}

fn topology() -> String {
    format!(
        "version = 1\ndomain = \"cdn.test\"\ndefault_region = 1\n\
         [content_servers]\nurl = \"http://{OUTSIDE}:9100/cs{{number}}\"\nnumbers = [\"1-9\"]\n\
         [[region]]\nid = 1\nname = \"Lab\"\nlatitude = 10.0\nlongitude = 30.0\n\
         [[group]]\nname = \"sun1-1\"\nsubnet = \"192.0.2.0/24\"\n\
         [[sun]]\nname = \"{SUN}\"\naddresses = [\"{ADDRESS}\"]\ninternal = \"{INSIDE}:8081\"\nweight = 100\n\
         [[sun]]\nname = \"sun1-1-2\"\naddresses = [\"192.0.2.16\"]\ninternal = \"10.98.0.3:8081\"\nweight = 0\n\
         [[cache]]\nname = \"cache1-1\"\naddresses = [\"{INSIDE}\"]\ninternal = \"{INSIDE}:8181\"\nweight = 100\nbytes = 1073741824\n"
    )
}

/// Boots a machine and plays a scenario outside of it.
pub(super) fn in_a_world(scenario: impl AsyncFnOnce(&World) + Send) {
    let mut network = Network::new();
    let (outside, inside) = (network.machine("outside"), network.machine("inside"));
    network.link((&outside, "inside"), (&inside, "outside"));
    outside.ip(&format!("addr add {OUTSIDE}/24 dev inside"));
    outside.ip(&format!("route add 192.0.2.0/24 via {INSIDE}"));
    inside.ip(&format!("addr add {INSIDE}/24 dev outside"));
    outside.inside(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new(&inside).await;
            scenario(&world).await;
        });
    });
}

impl World {
    async fn new(inside: &Machine) -> Self {
        let folder = Tree::new();
        install_units(folder.path());
        let secrets = folder.path().join("etc/sun");
        std::fs::create_dir_all(&secrets).unwrap();
        let authority = Authority::new();
        tests::files::write(&secrets.join("root.pem"), authority.root_pem());
        tests::files::write(&secrets.join("topology.toml"), &topology());
        tests::files::write(&secrets.join("token"), &tests::settings::token(SUN));
        tests::files::write(&secrets.join("tokens.toml"), &tokens());
        let origin = Origin::start((OUTSIDE, 9100).into());
        origin.put("/cs1/a.jpg", Script::file(FILE_BYTES));
        origin.put("/cs1/film.mp4", Script::file(FILM_BYTES));
        let booted = Booted::boot(inside, "inside", folder.path()).await;
        Self { booted, _origin: origin, authority, folder }
    }
}

pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
pub(super) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
pub(super) const SUN: &str = "sun1-1-1";
pub(super) const HOST: &str = "sun1-1-1.cdn.test";
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);
pub(super) const FILE: &str = "/c1/a.jpg";
pub(super) const FILM: &str = "/c1/film.mp4";
pub(super) const FILE_BYTES: u64 = 20_000;
pub(super) const FILM_BYTES: u64 = 40_000_000;

/// What no other daemon may read.
pub(super) const EDGE_SECRETS: [&str; 4] =
    ["/etc/sun/token", "/etc/sun/tokens.toml", "/etc/sun/tickets", "/etc/sun/sun.key"];

/// Folder of secrets, user, folder of data.
pub(super) const CORE: [(&str, &str, &str); 3] =
    [("api", "sun-api", "popularity-api"), ("cache", "sun-cache", "cache"), ("geo", "sun-geo", "geo")];

/// What is the sun's as well.
pub(super) const EDGE_FILES: [&str; 5] =
    ["/etc/sun/sun.pem", "/etc/sun/root.pem", "/etc/sun/topology.toml", "/etc/sun/sun.toml", "/etc/sun/sun-check.toml"];
