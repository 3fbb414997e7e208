//! What `--check` says of a config: what the start would refuse, and what others would not find as the topology says.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use daemon::findings::Findings;
use daemon::tokens::{self, Tokens};
use geo::topology::Server;
use popularity_api::Client;
use popularity_api::signing;

use crate::config::Config;
use crate::control;
use crate::origin_tls;
use crate::start::known_name;
use crate::tickets::Secrets;
use crate::tls::Certificates;

/// Everything that is wrong with a config and the files it names; binds nothing.
#[must_use]
pub fn check(config: &Config) -> Findings {
    let (mut problems, mut own_names, mut warnings) = (same_twice(config), Vec::new(), Vec::new());
    match config.topology.load() {
        Err(problem) => problems.push(problem),
        Ok(topology) => {
            own_names = names(&config.name, &topology);
            problems.extend(known_name(config, &topology).err().map(|error| error.to_string()));
            warnings.extend(topology.server(&config.name).into_iter().flat_map(|server| against(config, server)));
            problems.extend(geo::Resolver::load(&config.geo, &topology).err().map(|error| error.to_string()));
            problems.extend(signing::problems(config.signing_keys.as_deref(), &topology));
            problems.extend(origin_tls::problem(&config.upstream, &topology));
        }
    }
    problems.extend(config.rest.problem());
    problems.extend(daemon::folder::check(&config.data).err().map(|error| format!("data: {error}")));
    problems.extend(Tokens::load(&config.tokens).err().map(|error| error.to_string()));
    problems.extend(tokens::read_secret(&config.token).err().map(|error| error.to_string()));
    problems.extend(daemon::telemetry::check(&config.log).err().map(|error| error.to_string()));
    problems.extend(config.store.iter().filter_map(|device| device.check().err()));
    if let Some(popularity) = &config.popularity {
        problems.extend(Client::new(popularity).err().map(|error| error.to_string()));
    }
    if !config.https.is_empty() {
        match Certificates::load(&config.certificates, control::now_s()) {
            Err(error) => problems.push(error.to_string()),
            Ok(certificates) => {
                problems.extend(certificates.invalid(control::now_s()));
                warnings.extend(certificates.uncovered(&own_names));
                warnings.extend(certificates.expiring(control::now_s(), EXPIRES_SOON_S));
            }
        }
        let secrets = config.ticket_secret.as_deref().map(Secrets::load);
        problems.extend(secrets.and_then(Result::err).map(|error| error.to_string()));
    }
    Findings { problems, warnings }
}

/// The names that links have this server as, a sun's group, and the hosts of sites, which every sun serves.
fn names(name: &str, topology: &geo::Topology) -> Vec<String> {
    let own = topology.server(name).map(|server| server.host.clone());
    let group = topology.sun(name).and_then(|sun| {
        let group = topology.region(sun.server.region)?.groups.iter().find(|group| group.number == sun.group)?;
        Some(format!("{}.{}", group.name, topology.domain))
    });
    let sites = topology.sites.iter().filter(|_| group.is_some()).map(|site| site.host.clone());
    own.into_iter().chain(group.clone()).chain(sites).collect()
}

/// Addresses that are given to two listeners.
fn same_twice(config: &Config) -> Vec<String> {
    let public = |key: &'static str, addresses: &[SocketAddr]| -> Vec<(&'static str, SocketAddr)> {
        addresses.iter().map(|address| (key, *address)).collect()
    };
    let all = [
        public("https", &config.https),
        public("http", &config.http),
        public("internal", &[config.internal]),
        public("admin", &[config.admin]),
    ];
    let (mut known, mut problems) = (BTreeMap::new(), Vec::new());
    // Port 0 is another one each time.
    for (key, address) in all.concat().into_iter().filter(|(_, address)| address.port() != 0) {
        if let Some(before) = known.insert(address, key) {
            problems.push(format!("{key} = {address}: it is that of {before}, too; give it another port"));
        }
    }
    problems
}

/// Where the config and the server's entry in the topology differ: a port may be translated on the way here, so these are no
/// errors.
fn against(config: &Config, server: &Server) -> Vec<String> {
    let mut warnings = Vec::new();
    let (own, told) = (config.internal, server.internal);
    let elsewhere = !own.ip().is_unspecified() && own.ip() != told.ip();
    if own.port() != 0 && (elsewhere || own.port() != told.port()) {
        warnings.push(format!("internal = {own}: by the topology other servers reach {} at {told}", server.name));
    }
    let mut lacks = |key: &str, port: u16, listeners: &[SocketAddr]| {
        if !listeners.iter().any(|listener| [0, port].contains(&listener.port())) {
            let scheme = if key == "https_port" { "https" } else { "http" };
            warnings
                .push(format!("{scheme}: nothing listens at port {port}, where links lead ({key} of {})", server.name));
        }
    };
    lacks("https_port", server.https_port, &config.https);
    if let Some(port) = server.http_port {
        lacks("http_port", port, &config.http);
    }
    warnings
}

/// Certificates that end within this time are told, seconds: two weeks, as the self-check's `certificate_warn_days` has it.
const EXPIRES_SOON_S: i64 = 14 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_listeners() {
        let config = Config { admin: Config::default().internal, ..Config::default() };
        let expected = format!("admin = {}: it is that of internal, too; give it another port", config.admin);
        assert_eq!(same_twice(&config), [expected]);
        assert_eq!(same_twice(&Config::default()), [""; 0]);
    }

    #[test]
    fn what_differs_from_the_topology_is_told() {
        let document = std::fs::read_to_string("../deploy/config/topology.toml").unwrap();
        let topology = geo::Topology::parse(&document).unwrap();
        let server = topology.server("sun4-2-1").unwrap();
        let good = Config {
            internal: server.internal,
            https: vec![([0, 0, 0, 0], server.https_port).into()],
            http: server.http_port.map(|port| ([0, 0, 0, 0], port).into()).into_iter().collect(),
            ..Config::default()
        };
        assert_eq!(against(&good, server), [""; 0]);
        let anywhere = Config { internal: ([0, 0, 0, 0], server.internal.port()).into(), ..good.clone() };
        assert_eq!(against(&anywhere, server), [""; 0]);
        let own = "127.0.0.1:7777".parse().unwrap();
        let told = against(&Config { internal: own, https: Vec::new(), ..good }, server);
        let expected = [
            format!("internal = 127.0.0.1:7777: by the topology other servers reach sun4-2-1 at {}", server.internal),
            format!("https: nothing listens at port {}, where links lead (https_port of sun4-2-1)", server.https_port),
        ];
        assert_eq!(told, expected);
    }
}
