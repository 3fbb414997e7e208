//! Topology, tokens and configs of the lab's daemons, as an operator would write them.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::certificates::Files;
use crate::settings;
use crate::topology::DOMAIN;

/// Where the clients' files are: `c1/a.jpg`.
pub const FILE: &str = "c1/a.jpg";

/// Its size, bytes.
pub const FILE_BYTES: u64 = 4000;

/// Own addresses of each sun.
pub const ADDRESSES: u8 = 4;

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

/// A sun's own addresses.
#[must_use]
pub fn own_addresses(number: u8) -> Vec<Ipv4Addr> {
    (0..ADDRESSES).map(|index| Ipv4Addr::new(192, 0, 2, number * 8 + index)).collect()
}

/// Its address on the internal network.
#[must_use]
pub const fn internal(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 10 + number)
}

/// Its end of the cable to the router.
#[must_use]
pub const fn public(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, number, 2)
}

/// The router's end of it.
#[must_use]
pub const fn gateway(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, number, 1)
}

/// The topology; those in `draining` drain.
#[must_use]
pub fn topology(suns: u8, version: u64, draining: &[u8]) -> String {
    let mut text = format!(
        "version = {version}\ndomain = \"{DOMAIN}\"\ndefault_region = 1\n\
         [content_servers]\nurl = \"http://{CORE}:9100/cs{{number}}\"\nnumbers = [\"1-9\"]\n\
         [[region]]\nid = 1\nname = \"Lab\"\nlatitude = 10.0\nlongitude = 30.0\n\
         [[group]]\nname = \"sun1-1\"\nsubnet = \"192.0.2.0/24\"\n\
         [[cache]]\nname = \"{CACHE}\"\naddresses = [\"{CORE}\"]\nhttps_port = 8443\ninternal = \"{CORE}:8081\"\n\
         weight = 100\nbytes = 1073741824\n"
    );
    for number in 1..=suns {
        let _ = write!(
            text,
            "[[sun]]\nname = \"{}\"\naddresses = {:?}\ninternal = \"{}:8081\"\nweight = 100\n{}",
            name(number),
            own_addresses(number).iter().map(ToString::to_string).collect::<Vec<_>>(),
            internal(number),
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
pub fn sun(folder: &Path, number: u8, certificate: &Files, store: &Path) -> String {
    let (name, internal) = (name(number), internal(number));
    format!(
        "name = \"{name}\"\nhttps = [\"0.0.0.0:443\"]\ninternal = \"{internal}:8081\"\nadmin = \"{internal}:9081\"\n\
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
pub fn sun_check(folder: &Path, number: u8, control: &Path, more: &str) -> String {
    let (name, internal) = (name(number), internal(number));
    let file = |name: &str| folder.join(name);
    format!(
        "name = \"{name}\"\ntopology = {:?}\ndata = {:?}\nadmin = \"{internal}:9084\"\ninternal = \"{internal}:8084\"\n\
         tokens = {:?}\ntoken = {:?}\n\
         [probe]\naddresses = [\"127.0.0.1:443\"]\ntrust = {:?}\n\
         [speaker]\nkind = \"bird\"\nsocket = {control:?}\n\
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
pub fn router(suns: u8) -> String {
    let mut text = "log stderr all;\nrouter id 198.51.100.1;\nprotocol device { scan time 1; }\n\
                    protocol kernel { ipv4 { import none; export all; }; merge paths on; }\n"
        .to_owned();
    for number in 1..=suns {
        let _ = write!(
            text,
            "protocol bgp sun{number} {{\n  local {} as {ROUTER_ASN};\n  neighbor {} as {ASN};\n  hold time 3;\n  \
             keepalive time 1;\n  connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n  \
             ipv4 {{\n    import filter {{ if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; }};\n    \
             export none;\n  }};\n}}\n",
            gateway(number),
            public(number),
        );
    }
    text
}

/// A sun's device: the least there can be.
pub const STORE_BYTES: u64 = 33_554_432;
