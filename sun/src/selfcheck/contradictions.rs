//! What `--check` compares: the config with the topology, with the tokens of this machine, and with the BIRD that runs here.
//!
//! What contradicts each other is a problem. What may come right by itself is a warning: a BIRD that is not started yet, a session
//! that is not up, a sun that has no group yet. Everything but asking BIRD is pure.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use daemon::findings::Findings;
use daemon::tokens::{Identity, Role};
use geo::Topology;

use super::bird::{self, BirdError, Configured};
use super::config::{Config, SpeakerKind};
use super::{exabgp, peers};

/// The group as the config has it, and as it is.
#[must_use]
pub fn of_group(config: &Config, topology: &Topology) -> Findings {
    let mut findings = Findings::default();
    let Config { name, guard, internal, .. } = config;
    let others = peers::group(topology, name, guard);
    for (peer, address) in &guard.peers {
        if peer == name {
            findings
                .problems
                .push(format!("guard.peers: {peer:?} is this sun itself; name the others of its group only"));
        } else if !others.iter().any(|(other, _)| other == peer) {
            findings.problems.push(format!(
                "guard.peers: {peer:?} is no other sun of the group of {name}: nobody asks it; is the name right?"
            ));
        } else if address == internal {
            findings
                .problems
                .push(format!("guard.peers: {peer:?} is at {address}, which is this self-check's own `internal`"));
        }
    }
    let (up_min, others) = (guard.up_min, others.len());
    if up_min > others && others > 0 {
        findings.problems.push(format!(
            "guard.up_min = {up_min}: the group of {name} has {others} others, so that it would never be withdrawn; {others} at most"
        ));
    } else if up_min > others {
        findings.warnings.push(format!(
            "guard.up_min = {up_min}: {name} is alone in its group, and is never withdrawn, however ill it is; 0 withdraws it"
        ));
    }
    findings
}

/// What of a sun of a group is as the shipped config has it, and nobody hears of: who announces it, and where the others ask.
#[must_use]
pub fn of_place(config: &Config, topology: &Topology) -> Vec<String> {
    let Config { name, guard, internal, speaker, .. } = config;
    let mut warnings = Vec::new();
    let Some(sun) = topology.sun(name) else { return warnings };
    if speaker.kind == SpeakerKind::None {
        warnings.push(format!(
            "speaker.kind = \"none\": nobody announces the addresses of {name}, or withdraws them when it is ill; \"bird\" or \
             \"exabgp\" does"
        ));
    }
    let there = sun.server.internal.ip();
    if internal.ip().is_loopback() && !there.is_loopback() && !peers::group(topology, name, guard).is_empty() {
        warnings.push(format!(
            "internal = \"{internal}\": the others of the group ask at {}, where the topology has {name}, and hear nothing: for \
             them it is never Up; make it internal = \"{0}\"",
            std::net::SocketAddr::new(there, guard.port)
        ));
    }
    warnings
}

/// The sun's own token, and whose it is by the tokens of this machine.
#[must_use]
pub fn of_token(config: &Config, topology: &Topology, whose: Option<&Identity>) -> Option<String> {
    let Config { name, token, tokens, .. } = config;
    let (token, tokens) = (token.display(), tokens.display());
    let Some(whose) = whose else {
        return Some(format!(
            "token: {token}: is not in {tokens}: `sun-check disable` and `enable` would be refused, and so is a probe of the sun's \
             own address if the sun goes by the same file; add it there as the sun's"
        ));
    };
    let Identity { role, region, name: other } = whose;
    let own_region = topology.sun(name).map(|sun| sun.server.region.0);
    let is_own = *role == Role::Sun && other == name && (own_region.is_none() || *region == own_region);
    let region = region.map_or_else(String::new, |region| format!(" of region {region}"));
    (!is_own).then(|| format!("token: {token}: is that of {other:?}{region} by {tokens}, and not of the sun {name:?}"))
}

/// What BIRD has, and what the sun is to announce.
#[must_use]
pub fn of_bird(config: &Config, topology: &Topology, bird: Result<&Configured, &BirdError>) -> Findings {
    let socket = config.speaker.socket.display();
    let configured = match bird {
        Ok(configured) => configured,
        Err(BirdError::Away { why, .. }) if why.kind() == std::io::ErrorKind::PermissionDenied => {
            return Findings::from(vec![format!(
                "speaker.socket: {socket}: {why}; this user has to be in the group of the socket (`usermod -aG bird sun`)"
            )]);
        }
        Err(error) => return warning(format!("speaker.socket: {error}")),
    };
    let mut findings = Findings::default();
    let ranked = announced(topology, &config.name);
    let expected: BTreeSet<String> = ranked.iter().cloned().collect();
    for family in [bird::UP, bird::DRAIN] {
        let has = configured.prefixes(family);
        let of = |prefixes: Vec<&str>| prefixes.join(", ");
        let lacks = of(expected.difference(&has).map(String::as_str).collect());
        let more = of(has.difference(&expected).map(String::as_str).collect());
        let name = &config.name;
        if !lacks.is_empty() {
            let what = "make its configuration anew with `sunctl render bird`";
            findings.problems.push(format!(
                "speaker.socket: {socket}: BIRD's {family}* lack {lacks}, which {name} is to announce: {what}"
            ));
        }
        if !more.is_empty() {
            findings.problems.push(format!(
                "speaker.socket: {socket}: BIRD's {family}* have {more}, which is not of the group of {name}: is it another sun's configuration?"
            ));
        }
    }
    // The configuration has them in the order of their ranks, its own addresses first.
    let has = configured.numbered(bird::UP);
    let other = ranked.iter().zip(&has).find(|(expected, has)| expected != has);
    if let (true, Some((expected, has))) = (findings.problems.is_empty(), other) {
        findings.problems.push(format!(
            "speaker.socket: {socket}: BIRD's {}* have {has} where {} has {expected}, by rank: is it another sun's configuration?",
            bird::UP,
            config.name
        ));
    }
    let (up, all) = (configured.channels.iter().filter(|channel| channel.up).count(), configured.channels.len());
    if all == 0 {
        findings
            .warnings
            .push(format!("speaker.socket: {socket}: BIRD has no session to a router (`routerN`): nobody hears it"));
    } else if up < all {
        findings.warnings.push(format!("speaker.socket: {socket}: {up} of {all} sessions of BIRD to routers are up"));
    }
    findings
}

/// Asks the BIRD that runs here, if it is the speaker, and waits for it.
#[must_use]
pub fn ask_bird(config: &Config) -> Option<Result<Configured, BirdError>> {
    (config.speaker.kind == SpeakerKind::Bird).then(|| ask(&config.speaker.socket))
}

/// On a thread of its own: whoever checks may be within a runtime already.
fn ask(socket: &Path) -> Result<Configured, BirdError> {
    let away = |why| BirdError::Away { socket: socket.to_owned(), why };
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(away)?;
            runtime.block_on(bird::configured(socket, ASK_MAX))
        });
        asking.join().unwrap_or_else(|_| Err(away(std::io::Error::other("it could not be asked"))))
    })
}

fn warning(what: String) -> Findings {
    Findings { problems: Vec::new(), warnings: vec![what] }
}

/// All prefixes that a sun announces while it is well, as BIRD writes them, by rank.
fn announced(topology: &Topology, name: &str) -> Vec<String> {
    let routes = exabgp::routes(topology, name).unwrap_or_default();
    routes.into_iter().map(|route| route.prefix.to_string()).collect()
}

/// BIRD is asked for each of its protocols; it takes a millisecond.
const ASK_MAX: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use super::super::bird::Channel;
    use super::super::config::{GuardConfig, SpeakerConfig};
    use super::*;
    use crate::selfcheck::fixture;

    #[test]
    fn the_guard_is_compared_with_the_group() {
        let check = |up_min, peers: &[(&str, &str)], suns, problem: &str, warning: &str| {
            let peers =
                peers.iter().map(|(name, address)| ((*name).to_owned(), address.parse::<SocketAddr>().unwrap()));
            let guard = GuardConfig { up_min, peers: peers.collect(), ..GuardConfig::default() };
            let config = Config { name: "sun4-2-1".into(), guard, ..Config::default() };
            let Findings { problems, warnings } = of_group(&config, &topology(suns));
            for (found, expected) in [(problems.join("\n"), problem), (warnings.join("\n"), warning)] {
                let same = if expected.is_empty() { found.is_empty() } else { found.contains(expected) };
                assert!(same, "{found:?}, and not {expected:?}");
            }
        };
        check(1, &[("sun4-2-2", "10.0.0.2:8184")], 2, "", "");
        check(2, &[], 3, "", "");
        check(3, &[], 3, "has 2 others, so that it would never be withdrawn", "");
        check(1, &[], 1, "", "is alone in its group");
        check(0, &[], 1, "", "");
        check(1, &[("sun4-2-9", "10.0.0.2:1")], 2, "\"sun4-2-9\" is no other sun of the group of sun4-2-1", "");
        check(1, &[("sun4-2-1", "10.0.0.2:1")], 2, "is this sun itself", "");
        check(1, &[("sun4-2-2", "127.0.0.1:8084")], 2, "this self-check's own `internal`", "");
    }

    #[test]
    fn the_token_is_the_suns_own_by_the_tokens_of_its_machine() {
        let config = Config { name: "sun4-2-1".into(), ..Config::default() };
        let told = |role, region, name: &str| {
            of_token(&config, &topology(2), Some(&Identity { role, region, name: name.to_owned() }))
        };
        assert_eq!(told(Role::Sun, Some(4), "sun4-2-1"), None);
        assert!(
            of_token(&config, &topology(2), None)
                .unwrap()
                .starts_with("token: /etc/sun/token: is not in /etc/sun/tokens.toml")
        );
        for odd in [
            told(Role::Sun, Some(4), "sun4-2-2"),
            told(Role::Sun, Some(5), "sun4-2-1"),
            told(Role::Operator, None, "sun4-2-1"),
            told(Role::Cache, Some(4), "sun4-2-1"),
        ] {
            assert!(odd.unwrap().contains("and not of the sun \"sun4-2-1\""));
        }
    }

    #[test]
    fn a_sun_that_nobody_announces_or_can_ask_is_warned_of() {
        let check = |kind, internal: &str, suns, expected: &[&str]| {
            let speaker = SpeakerConfig { kind, ..SpeakerConfig::default() };
            let config =
                Config { name: "sun4-2-1".into(), speaker, internal: internal.parse().unwrap(), ..Config::default() };
            let found = of_place(&config, &topology(suns));
            assert_eq!(found.len(), expected.len(), "{found:?}");
            assert!(found.iter().zip(expected).all(|(found, part)| found.contains(part)), "{found:?}");
        };
        let asked = "make it internal = \"10.0.0.1:8084\"";
        check(SpeakerKind::None, "127.0.0.1:8084", 2, &["speaker.kind = \"none\"", asked]);
        check(SpeakerKind::Bird, "127.0.0.1:8084", 2, &[asked]);
        check(SpeakerKind::Exabgp, "127.0.0.1:8084", 1, &[]);
        check(SpeakerKind::Bird, "10.0.0.1:8084", 2, &[]);
        check(SpeakerKind::Bird, "0.0.0.0:8084", 2, &[]);
    }

    #[test]
    fn birds_routes_are_compared_with_the_topology() {
        let all = ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.0/24"];
        check_bird(&[&all, &all], &[true], "", "");
        check_bird(&[&all[1..], &all], &[true], "sun_up_* lack 192.0.2.1/32, which sun4-2-1 is to announce", "");
        check_bird(&[&all, &[]], &[true], "sun_drain_* lack 192.0.2.0/24, 192.0.2.1/32, 192.0.2.2/32", "");
        let more = [&all[..], &["198.51.100.1/32"]].concat();
        check_bird(&[&more, &all], &[true], "sun_up_* have 198.51.100.1/32, which is not of the group", "");
        let others = ["192.0.2.2/32", "192.0.2.1/32", "192.0.2.0/24"];
        let what = "have 192.0.2.2/32 where sun4-2-1 has 192.0.2.1/32, by rank: is it another sun's configuration?";
        check_bird(&[&others, &others], &[true], what, "");
        check_bird(&[&all, &all], &[], "", "no session to a router");
        check_bird(&[&all, &all], &[true, false], "", "1 of 2 sessions");
    }

    #[test]
    fn a_bird_that_is_not_there_yet_is_a_warning_and_one_that_may_not_be_asked_is_not() {
        let of = |kind: io::ErrorKind| {
            let error = BirdError::Away { socket: "/run/bird/bird.ctl".into(), why: kind.into() };
            let Findings { problems, warnings } = of_bird(&config(), &topology(2), Err(&error));
            (problems.len(), warnings.len())
        };
        assert_eq!(of(io::ErrorKind::NotFound), (0, 1));
        assert_eq!(of(io::ErrorKind::ConnectionRefused), (0, 1));
        assert_eq!(of(io::ErrorKind::PermissionDenied), (1, 0));
    }

    #[track_caller]
    fn check_bird(families: &[&[&str]; 2], sessions: &[bool], problem: &str, warning: &str) {
        let routes = [bird::UP, bird::DRAIN].into_iter().zip(families).flat_map(|(family, prefixes)| {
            prefixes.iter().enumerate().map(move |(at, prefix)| (format!("{family}{at}"), (*prefix).to_owned()))
        });
        let channels = sessions.iter().map(|up| Channel { family: "ipv4".into(), up: *up }).collect();
        let configured = Configured { routes: routes.collect(), channels };
        let Findings { problems, warnings } = of_bird(&config(), &topology(2), Ok(&configured));
        for (found, expected) in [(problems.join("\n"), problem), (warnings.join("\n"), warning)] {
            let same = if expected.is_empty() { found.is_empty() } else { found.contains(expected) };
            assert!(same, "{found:?}, and not {expected:?}");
        }
    }

    fn config() -> Config {
        let speaker = SpeakerConfig { kind: SpeakerKind::Bird, ..SpeakerConfig::default() };
        Config { name: "sun4-2-1".into(), speaker, ..Config::default() }
    }

    /// A group of so many suns.
    fn topology(suns: usize) -> Topology {
        Topology::parse(&fixture::topology(suns)).unwrap()
    }
}
