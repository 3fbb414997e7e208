//! Topology, tokens and configs of the lab's daemons, as an operator would write them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::family::Family;
use crate::certificates::Files;
use crate::settings;
use crate::topology::DOMAIN;

/// Where the clients' files are: `c1/a.jpg`.
pub const FILE: &str = "c1/a.jpg";

/// Its size, bytes.
pub const FILE_BYTES: u64 = 4000;

/// AS of all suns.
pub const ASN: u32 = 64_512;

/// AS of the router.
pub const ROUTER_ASN: u32 = 64_500;

/// Content server, popularity API and cache, on the internal network.
pub const CORE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// The regional cache.
pub const CACHE: &str = "cache1-1";

/// `sun1-1-1` of the first.
#[must_use]
pub fn name(number: u8) -> String {
    format!("sun1-1-{number}")
}

/// Its address for what is not played: metrics, and what it asks the core.
#[must_use]
pub const fn admin(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 10 + number)
}

/// The topology; those in `draining` drain.
#[must_use]
pub fn topology(family: Family, suns: u8, version: u64, draining: &[u8]) -> String {
    let mut text = format!(
        "version = {version}\ndomain = \"{DOMAIN}\"\ndefault_region = 1\n\
         [content_servers]\nurl = \"http://{CORE}:9100/cs{{number}}\"\nnumbers = [\"1-9\"]\n\
         [[region]]\nid = 1\nname = \"Lab\"\nlatitude = 10.0\nlongitude = 30.0\n\
         [[group]]\nname = \"sun1-1\"\nsubnet = \"{}\"\n\
         [[cache]]\nname = \"{CACHE}\"\naddresses = [\"{CORE}\"]\nhttps_port = 8443\ninternal = \"{CORE}:8081\"\n\
         weight = 100\nbytes = 1073741824\n",
        family.subnet()
    );
    for number in 1..=suns {
        let _ = write!(
            text,
            "[[sun]]\nname = \"{}\"\naddresses = {:?}\ninternal = \"{}\"\nweight = 100\n{}",
            name(number),
            family.own_addresses(number).iter().map(ToString::to_string).collect::<Vec<_>>(),
            SocketAddr::from((family.internal(number), 8081)),
            if draining.contains(&number) { "draining = true\n" } else { "" }
        );
    }
    text
}

/// `tokens.toml` and everybody's own.
pub fn write_tokens(folder: &Path, suns: u8) {
    let mut all = String::new();
    for (name, role) in (1..=suns).map(|number| (name(number), "sun")).chain([(CACHE.to_owned(), "cache")]) {
        let token = settings::token(&name);
        let _ = write!(all, "[[token]]\ntoken = \"{token}\"\nrole = \"{role}\"\nregion = 1\nname = \"{name}\"\n\n");
        crate::files::write(&settings::token_file(folder, &name), &token);
    }
    let token = settings::token("operator");
    let _ = write!(all, "[[token]]\ntoken = \"{token}\"\nrole = \"operator\"\n");
    crate::files::write(&settings::token_file(folder, "operator"), &token);
    crate::files::write(&folder.join("tokens.toml"), &all);
    crate::files::write(&folder.join("tickets"), &"5a".repeat(32));
}

/// `sun.toml`.
#[must_use]
pub fn sun(folder: &Path, family: Family, number: u8, certificate: &Files, store: &Path) -> String {
    let (name, admin, internal) = (name(number), admin(number), SocketAddr::from((family.internal(number), 8081)));
    format!(
        "name = \"{name}\"\nhttps = [\"0.0.0.0:443\", \"[::]:443\"]\ninternal = \"{internal}\"\nadmin = \"{admin}:9081\"\n\
         {}drain_s = 5\nticket_secret = {:?}\n\
         [[certificates]]\nchain = {:?}\nkey = {:?}\n\
         [popularity]\nurl = \"http://{CORE}:8090\"\ntoken_file = {:?}\n\
         [hot]\nredirect = false\n[[store]]\npath = {:?}\nbytes = {STORE_BYTES}\n[log]\nlevel = \"info\"\n",
        shared(folder, &name),
        folder.join("tickets"),
        certificate.chain,
        certificate.key,
        settings::token_file(folder, &name),
        store,
    )
}

/// `sun-check.toml`, with more text at the end.
#[must_use]
pub fn sun_check(folder: &Path, family: Family, number: u8, speaker: &str, more: &str) -> String {
    let (name, admin, internal) = (name(number), admin(number), SocketAddr::from((family.internal(number), 8084)));
    let file = |name: &str| folder.join(name);
    format!(
        "name = \"{name}\"\ntopology = {:?}\ndata = {:?}\nadmin = \"{admin}:9084\"\ninternal = \"{internal}\"\n\
         tokens = {:?}\ntoken = {:?}\n\
         [probe]\naddresses = [\"127.0.0.1:443\"]\ntrust = {:?}\n\
         [speaker]\n{speaker}\n\
         [popularity]\nurl = \"http://{CORE}:8090\"\ntoken_file = {:?}\n[log]\nlevel = \"info\"\n{more}",
        file("topology.toml"),
        file(&format!("{name}.check")),
        file("tokens.toml"),
        settings::token_file(folder, &name),
        file("root.pem"),
        settings::token_file(folder, &name),
    )
}

/// `cache-daemon.toml`.
#[must_use]
pub fn cache(folder: &Path, certificate: &Files) -> String {
    format!(
        "vault = {:?}\n[edge]\nname = \"{CACHE}\"\nhttps = [\"{CORE}:8443\"]\ninternal = \"{CORE}:8081\"\n\
         admin = \"{CORE}:9081\"\n{}\
         [[edge.certificates]]\nchain = {:?}\nkey = {:?}\n\
         [edge.popularity]\nurl = \"http://{CORE}:8090\"\ntoken_file = {:?}\n",
        folder.join("vault"),
        shared(folder, CACHE),
        certificate.chain,
        certificate.key,
        settings::token_file(folder, CACHE),
    )
}

/// `popularity-api.toml`.
#[must_use]
pub fn popularity_api(folder: &Path) -> String {
    let file = |name: &str| folder.join(name);
    format!(
        "listen = \"{CORE}:8090\"\nadmin = \"{CORE}:9090\"\ntopology = {:?}\ndata = {:?}\ntokens = {:?}\n",
        file("topology.toml"),
        file("api.data"),
        file("tokens.toml"),
    )
}

fn shared(folder: &Path, name: &str) -> String {
    format!(
        "topology = {:?}\ndata = {:?}\ntokens = {:?}\ntoken = {:?}\nram_bytes = 67108864\nreport_ms = 200\n",
        folder.join("topology.toml"),
        folder.join(format!("{name}.data")),
        folder.join("tokens.toml"),
        settings::token_file(folder, name),
    )
}

/// `bird.conf` of the router: connections are shared among equal routes, and GRACEFUL_SHUTDOWN counts (RFC 8326,
/// section 4.2).
#[must_use]
pub fn router(family: Family, suns: u8) -> String {
    let mut text = "log stderr all;\nrouter id 198.51.100.1;\nprotocol device { scan time 1; }\n".to_owned();
    for family in family.each() {
        let channel = format!("ipv{}", family.word());
        let _ = writeln!(text, "protocol kernel {{ {channel} {{ import none; export all; }}; merge paths on; }}");
        for number in 1..=suns {
            let _ = write!(
                text,
                "protocol bgp sun{number}_{channel} {{\n  local {} as {ROUTER_ASN};\n  neighbor {} as {ASN};\n  \
                 hold time 3;\n  keepalive time 1;\n  connect delay time 1;\n  connect retry time 1;\n  \
                 error wait time 1, 2;\n  {channel} {{\n    \
                 import filter {{ if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; }};\n    \
                 export none;\n  }};\n}}\n",
                family.gateway(number),
                family.public(number),
            );
        }
    }
    text
}

/// A sun's device: the least there can be.
pub const STORE_BYTES: u64 = 33_554_432;
