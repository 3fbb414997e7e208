//! `sunctl render`: the topology in the languages of others: BIRD, ExaBGP, a shell, DNS servers.
//!
//! ```text
//!   topology --geo::anycast--> announcements of a sun --> bird.conf, exabgp.conf     who takes over from whom
//!            --group, subnet-------------------------> a script of `ip route`        what a sun answers for
//!            --names, addresses----------------------> a DNS zone                    where names lead
//! ```
//!
//! What is printed is whole and goes nowhere by itself: the operator puts it in place. Each form is checked in the tests by
//! the program it is for (`bird -p`, `exabgp --validate`, `sh -n`, `named-checkzone`).

mod addresses;
mod bird;
mod exabgp;
mod zone;

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use geo::Topology;
use geo::answer::Answer;
use geo::anycast::{Announcement, Assignment};
use geo::topology::{Group, Sun};
use serde_json::json;

use crate::cli::TopologyArgs;

/// What is rendered.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A bird.conf for a sun: sessions, and a static route for each of its announcements.
    ///
    /// The routes are disabled until sun-check enables them, so that a BIRD that was restarted announces nothing unchecked.
    /// Those named sun_up_* are for a healthy sun; sun_drain_* are the same prefixes with the community GRACEFUL_SHUTDOWN
    /// (65535:0, RFC 8326). Check it with `bird -p -c FILE`.
    Bird {
        #[command(flatten)]
        speaker: SpeakerArgs,
        /// How routers are told which backup comes first. MEDs are compared among routes of one neighbouring AS; prepended
        /// paths everywhere, but not over sessions within one AS.
        #[arg(long, value_enum, default_value_t = RankBy::Med)]
        rank: RankBy,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// A config of ExaBGP 4 for a sun, which starts sun-check and takes its announcements from it.
    Exabgp {
        #[command(flatten)]
        speaker: SpeakerArgs,
        /// The program that says what is announced.
        #[arg(long, value_name = "COMMAND", default_value = "/usr/bin/sun-check --config /etc/sun/sun-check.toml")]
        run: String,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// A shell script that has a sun answer for every address of its group; safe to run any number of times.
    Addresses {
        /// The sun, sun4-2-1.
        #[arg(long, value_name = "NAME")]
        sun: String,
        /// Connections that are open when their address moves go on where they are: their packets are passed on to the sun
        /// that has them, over this device, on which the internal addresses of the group are neighbours, and which is not the
        /// way to the routers. Takes nftables and connection tracking (up to 160 MiB). Its first run is to be before the sun
        /// serves: connections that are open by then break.
        #[arg(long, value_name = "DEVICE", value_parser = device)]
        pass_on: Option<String>,
        #[command(flatten)]
        topology: TopologyArgs,
    },
    /// A DNS zone with the names of all groups, suns and caches.
    ///
    /// The serial is the topology's version. Check it with `named-checkzone DOMAIN FILE`.
    Zone {
        #[command(flatten)]
        zone: ZoneArgs,
        #[command(flatten)]
        topology: TopologyArgs,
    },
}

/// The BGP speaker of a sun.
#[derive(Debug, Args)]
pub(crate) struct SpeakerArgs {
    /// The sun, sun4-2-1.
    #[arg(long, value_name = "NAME")]
    sun: String,
    /// Its AS, the same for all members of a group.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    asn: u32,
    /// A router, as ADDRESS=AS; one for each session.
    #[arg(long = "neighbour", value_name = "ADDRESS=AS", required = true)]
    neighbours: Vec<Neighbour>,
    /// The sun's own address in a session, for the neighbours of its family [default for BIRD: as routed].
    #[arg(long = "local", value_name = "ADDRESS")]
    locals: Vec<IpAddr>,
    /// An IPv4 address that no other speaker has as its id [default: --local, else the sun's internal address].
    #[arg(long, value_name = "ADDRESS")]
    router_id: Option<Ipv4Addr>,
    /// A speaker that says nothing for so long is taken for dead, seconds. Below 3 no speaker goes; too large: a machine
    /// that hangs whole is asked for so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=240))]
    hold_s: u16,
}

/// What a zone needs beside the topology.
#[derive(Debug, Args)]
pub(crate) struct ZoneArgs {
    /// A name server of the zone; with =ADDRESS when its name lies within the zone.
    #[arg(long = "nameserver", value_name = "NAME[=ADDRESS]", required_unless_present = "records")]
    nameservers: Vec<String>,
    /// Who answers for the zone, as a name (RFC 1035, section 3.3.13) [default: hostmaster.DOMAIN].
    #[arg(long, value_name = "NAME")]
    hostmaster: Option<String>,
    /// How long resolvers keep a record, seconds. Too small: more questions; too large: a server that moved is looked for
    /// at its old address.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    ttl_s: u32,
    /// The records of servers alone, to be included in a zone of yours.
    #[arg(long)]
    records: bool,
}

/// How the order of backups is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum RankBy {
    /// A metric: MULTI_EXIT_DISC.
    Med,
    /// A longer AS path.
    Prepend,
}

/// The other end of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Neighbour {
    address: IpAddr,
    asn: u32,
}

impl FromStr for Neighbour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').and_then(|(address, asn)| Some((address.parse().ok()?, asn.parse().ok()?)));
        match parsed {
            Some((address, asn)) if asn > 0 => Ok(Self { address, asn }),
            _ => Err("a neighbour is ADDRESS=AS, 192.0.2.254=64500 or 2001:db8::1=64500".to_owned()),
        }
    }
}

/// `sunctl render`.
///
/// # Errors
///
/// A topology that cannot be read, a sun that is not in it, or options that do not go together.
pub(crate) fn render(command: &Command) -> anyhow::Result<Answer> {
    let text = match command {
        Command::Bird { speaker, rank, topology } => bird::config(&Speaker::of(&topology.read()?, speaker)?, *rank)?,
        Command::Exabgp { speaker, run, topology } => exabgp::config(&Speaker::of(&topology.read()?, speaker)?, run)?,
        Command::Addresses { sun, pass_on, topology } => {
            let topology = topology.read()?;
            let (group, members) = group_of(&topology, sun)?;
            apart(&topology)?;
            addresses::script(sun, group, &members, pass_on.as_deref())
        }
        Command::Zone { zone, topology } => zone::zone(&topology.read()?, zone)?,
    };
    Ok(Answer::good(text.clone(), json!({ "text": text })))
}

/// A sun's speaker, resolved.
#[derive(Debug)]
struct Speaker<'a> {
    sun: &'a str,
    group: String,
    asn: u32,
    router_id: Ipv4Addr,
    hold_s: u16,
    sessions: Vec<Session>,
    announcements: Vec<Announcement>,
}

/// A session, with the own address where it was said.
#[derive(Debug)]
struct Session {
    local: Option<IpAddr>,
    neighbour: Neighbour,
}

impl<'a> Speaker<'a> {
    fn of(topology: &Topology, said: &'a SpeakerArgs) -> anyhow::Result<Self> {
        let (group, members) = group_of(topology, &said.sun)?;
        apart(topology)?;
        said.possible(group, &members)?;
        let assignment = Assignment::of(topology, &group.name).context("a sun has a group")?;
        let announcements = assignment.announcements(&said.sun);
        let sessions: Vec<Session> = said.neighbours.iter().map(|&neighbour| said.session(neighbour)).collect();
        for (v4, family) in [(true, "IPv4"), (false, "IPv6")] {
            let announces = announcements.iter().any(|route| route.prefix.addr().is_ipv4() == v4);
            let speaks = sessions.iter().any(|session| session.neighbour.address.is_ipv4() == v4);
            ensure!(
                speaks || !announces,
                "{} has {family} addresses, and no --neighbour has one: nobody would hear of them",
                group.name
            );
        }
        let internal = topology.sun(&said.sun).map(|sun| sun.server.internal.ip());
        let mut candidates = said.locals.iter().copied().chain(internal).filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let router_id = said.router_id.or_else(|| candidates.next());
        let router_id = router_id.context("which router id? There is no IPv4 address to take: say --router-id")?;
        Ok(Self {
            sun: &said.sun,
            group: group.name.clone(),
            asn: said.asn,
            router_id,
            hold_s: said.hold_s,
            sessions,
            announcements,
        })
    }
}

/// Nothing that is announced is somebody else's.
fn apart(topology: &Topology) -> anyhow::Result<()> {
    let conflicts = geo::anycast::conflicts(topology);
    ensure!(conflicts.is_empty(), "the topology's addresses stand in each other's way:\n{}", conflicts.join("\n"));
    Ok(())
}

impl SpeakerArgs {
    /// Refuses sessions that can never come up: the kernel takes the whole subnet for its own, so neither end may be in it.
    fn possible(&self, group: &Group, members: &[&Sun]) -> anyhow::Result<()> {
        let subnet = group.subnet;
        let own = members.iter().find(|member| member.server.name == self.sun).context("a sun is in its group")?;
        for (index, neighbour) in self.neighbours.iter().enumerate() {
            let Neighbour { address, asn } = neighbour;
            let said = format!("--neighbour {address}={asn}");
            let twice = self.neighbours[..index].iter().any(|other| other.address == *address);
            ensure!(!twice, "{said}: this address is there twice");
            ensure!(
                !self.locals.contains(address) && own.server.internal.ip() != *address,
                "{said}: it is the sun's own address, not a router's"
            );
            ensure!(!address.is_unspecified() && !address.is_multicast(), "{said}: a router has an address of its own");
            ensure!(
                !subnet.contains(address),
                "{said}: it is in {subnet} of {}, for which the sun answers itself: a router has an address outside of it",
                group.name
            );
        }
        for local in &self.locals {
            ensure!(
                !subnet.contains(local),
                "--local {local}: it is in {subnet} of {}, for which all of its suns answer: a session needs an address that \
                 is this sun's alone",
                group.name
            );
        }
        Ok(())
    }

    fn session(&self, neighbour: Neighbour) -> Session {
        let same = |local: &&IpAddr| local.is_ipv4() == neighbour.address.is_ipv4();
        Session { local: self.locals.iter().find(same).copied(), neighbour }
    }
}

/// A network device's name, which goes into a script.
fn device(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let good = (1..=DEVICE_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain);
    if good { Ok(text.to_owned()) } else { Err("a device is eth1 or bond0.7".to_owned()) }
}

/// The kernel's IFNAMSIZ, less the end.
const DEVICE_BYTES_MAX: usize = 15;

/// A sun's group and the suns in it.
fn group_of<'a>(topology: &'a Topology, sun: &str) -> anyhow::Result<(&'a Group, Vec<&'a Sun>)> {
    let found = topology.sun(sun).with_context(|| format!("the topology has no sun {sun}"))?;
    let region = topology.region(found.server.region).context("a sun has a region")?;
    let group = region.groups.iter().find(|group| group.number == found.group).context("a sun has a group")?;
    Ok((group, region.suns.iter().filter(|sun| sun.group == group.number).collect()))
}

#[cfg(test)]
mod tests;
