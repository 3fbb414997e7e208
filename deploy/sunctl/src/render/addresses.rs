//! What a sun answers for: every address of its group's subnet, and those of members that lie outside of it.
//!
//! The kernel takes a whole subnet as local by one route (`ip route add local`, "AnyIP"), so that an address that is taken
//! over needs nothing to be set up, and listeners at 0.0.0.0 and [::] serve it. The routes stay while the sun is unhealthy
//! or drains: what still arrives is to be answered, not refused.
//!
//! # Run again
//!
//! What a script sets up bears marks: routes have the protocol number [`PROTOCOL`], the table, the mark and the chain names are
//! its own. A run first sets up what is wanted, then takes away what bears the marks and is not: the routes of a former subnet,
//! and all of `--pass-on` once that is not asked for any more, with the forwarding that it switched on. Other settings of the
//! kernel stay.
//!
//! # Connections that are open when their address moves
//!
//! A router that changes over sends the next packet of an open connection to a sun that has never heard of it, which would
//! reset it. With `--pass-on DEVICE` such a packet is passed on, once, to the member that had the address:
//!
//! ```text
//!   client --> router --> sun4-2-2, new home of 192.0.2.1:  SYN              --> its own sun, a new connection
//!                                                           known            --> its own sun
//!                                                           neither (`ct state invalid`)
//!                                                              | over DEVICE, to the internal address
//!                                                              v
//!              client <-- router <-- sun4-2-1, which has the connection and answers it directly
//! ```
//!
//! So a drain, an update or a return of addresses breaks no connection. Between an address's owner and others, the owner is
//! asked; the owner asks its first backup. What came over DEVICE is never passed on again. The members have to be neighbours
//! on DEVICE, and the routers elsewhere: what comes from them over DEVICE would never be passed on.
//!
//! The price: connection tracking, with an entry of 320 bytes for each connection and for half a minute after its end, and
//! new connections dropped where there are more than [`TRACKED_MIN`]; a machine that forwards, though nothing else than
//! these packets; clients of a machine that is gone whole wait for their own timeout instead of being reset. Connections
//! that are open at the first run are unknown and are passed on to a member that resets them: it is run before the sun.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use geo::anycast::Assignment;
use geo::topology::{Group, Sun};
use ipnet::IpNet;

/// The script.
pub(super) fn script(sun: &str, group: &Group, members: &[&Sun], pass_on: Option<&str>) -> String {
    let addresses = members.iter().flat_map(|member| member.server.addresses.iter().copied());
    let outside = addresses.filter(|address| !group.subnet.contains(address)).map(IpNet::from);
    let local: BTreeSet<IpNet> = outside.chain([group.subnet]).collect();
    let mut text = format!(
        "#!/bin/sh\n\
         # What {sun} answers for: every address of {}, by `sunctl render addresses`. Run it at boot, as root, before\n\
         # the sun and BIRD. The routes stay whatever the sun's health.\nset -eu\n",
        group.name
    );
    for prefix in &local {
        let family = family(prefix.addr());
        let _ = writeln!(text, "ip {family}route replace local {prefix} dev lo proto {PROTOCOL}");
    }
    text += TIDY;
    text += &tidy("local", local.iter().copied());
    // Where the subnet is that of a wire as well, members would answer its ARP for each other.
    text += "# Addresses are reached by routes: no member answers ARP for them.\n\
             sysctl -q -w net.ipv4.conf.all.arp_ignore=1\n";
    text + &match pass_on {
        Some(device) => passing(device, &local, &next_hops(sun, group, members)),
        None => not_passing(),
    }
}

/// (address, the member that had it, if it is not here): for others' addresses their owner, for the own ones the backup.
fn next_hops(sun: &str, group: &Group, members: &[&Sun]) -> Vec<(IpAddr, IpAddr)> {
    let named: Vec<(&str, &[IpAddr])> =
        members.iter().map(|member| (member.server.name.as_str(), member.server.addresses.as_slice())).collect();
    let assignment = Assignment::new(group.subnet, &named);
    let internal =
        |name: &str| members.iter().find(|member| member.server.name == name).map(|m| m.server.internal.ip());
    let hops = assignment.answering(&[sun]).into_iter().filter_map(|(address, answering)| {
        // Others' are at home with that sun down: who answers is their owner.
        Some((address, internal(answering)?))
    });
    hops.filter(|(address, hop)| address.is_ipv4() == hop.is_ipv4()).collect()
}

fn passing(device: &str, local: &BTreeSet<IpNet>, next_hops: &[(IpAddr, IpAddr)]) -> String {
    // A device's name may have a dot, which is another word for sysctl unless words are parted by slashes. Where there is no
    // such device, nothing has been changed yet.
    let mut text = format!(
        "\n# Packets of connections that this machine does not know go to the member that had the address, over {device},\n\
         # once. Nothing else is forwarded: that is settled before anything is forwarded at all. {device} must not be the way\n\
         # to the routers: what comes over it stays here. Connections that were opened before the first run are not known:\n\
         # run it before the sun.\n\
         sysctl -q -w net/ipv4/conf/{device}/rp_filter=0 net/ipv4/conf/all/rp_filter=0\n\
         # Whether the machine forwarded by itself, which is said once: for when this is taken away.\n\
         before=$(nft list table inet sun_pass_on 2>/dev/null | grep -o 'forwarded_[01]_[01]' || true)\n\
         [ -n \"$before\" ] || before=forwarded_$(sysctl -n net.ipv4.ip_forward)_$(sysctl -n net.ipv6.conf.all.forwarding)\n\
         nft -f - <<'RULES'\n\
         table inet sun_pass_on\ndelete table inet sun_pass_on\n\
         table inet sun_pass_on {{\n  \
           chain unknown {{\n    \
             type filter hook prerouting priority mangle; policy accept;\n    \
             iifname \"{device}\" accept\n"
    );
    for prefix in local {
        let family = if prefix.addr().is_ipv4() { "ip" } else { "ip6" };
        let _ = writeln!(text, "    {family} daddr {prefix} meta l4proto tcp ct state invalid meta mark set {MARK}");
    }
    let _ = write!(
        text,
        "  }}\n  chain others {{\n    type filter hook forward priority filter; policy drop;\n    \
         meta mark {MARK} oifname \"{device}\" accept\n  }}\n}}\nRULES\n\
         nft add chain inet sun_pass_on \"$before\"\n"
    );
    text += &tracking();
    for family in ["", "-6 "] {
        let _ = write!(
            text,
            "ip {family}rule add pref 1 fwmark {MARK} lookup {TABLE} 2>/dev/null || true\n\
             ip {family}rule add pref 2 lookup local 2>/dev/null || true\n\
             ip {family}rule delete pref 0 lookup local 2>/dev/null || true\n"
        );
    }
    for (address, hop) in next_hops {
        let family = family(*address);
        let _ = writeln!(
            text,
            "ip {family}route replace {} via {hop} dev {device} table {TABLE} proto {PROTOCOL}",
            IpNet::from(*address)
        );
    }
    text += &tidy(&TABLE.to_string(), next_hops.iter().map(|(address, _)| IpNet::from(*address)));
    text + FORWARDING
}

/// Takes away what an earlier script with `--pass-on` set up: forwarding first, so that nothing is forwarded without its rules.
fn not_passing() -> String {
    let mut text = "\n# An earlier script may have passed packets on; this one does not.\n\
                    # What it switched on may be needed by others since (containers, a VPN), who are to hear of it.\n\
                    off='forwarding is switched off, as before --pass-on; for others who need it: sysctl -w'\n\
                    if nft list table inet sun_pass_on >/dev/null 2>&1; then\n    \
                      case $(nft list table inet sun_pass_on | grep -o 'forwarded_[01]') in\n        \
                        *0*) sysctl -q -w net.ipv4.ip_forward=0\n        \
                             echo \"$off net.ipv4.ip_forward=1\" >&2 ;;\n    \
                      esac\n    \
                      case $(nft list table inet sun_pass_on | grep -o 'forwarded_[01]_[01]') in\n        \
                        *_0) sysctl -q -w net.ipv6.conf.all.forwarding=0\n        \
                             echo \"$off net.ipv6.conf.all.forwarding=1\" >&2 ;;\n    \
                      esac\n    \
                      nft delete table inet sun_pass_on\nfi\n"
        .to_owned();
    for family in ["-4", "-6"] {
        let _ = write!(
            text,
            "if ip {family} rule show | grep -q 'fwmark {MARK} lookup {TABLE}'; then\n    \
               ip {family} rule add pref 0 lookup local 2>/dev/null || true\n    \
               ip {family} rule delete pref 2 lookup local 2>/dev/null || true\n    \
               ip {family} rule delete pref 1 fwmark {MARK} lookup {TABLE}\n    \
               ip {family} route flush table {TABLE} 2>/dev/null || true\n\
             fi\n"
        );
    }
    text
}

/// The lines that take away a table's routes that bear the mark and are not wanted.
fn tidy(table: &str, wanted: impl Iterator<Item = IpNet> + Clone) -> String {
    let of = |v4: bool| {
        let wanted = wanted.clone().filter(|prefix| prefix.addr().is_ipv4() == v4);
        // `ip` writes one address without its length.
        let written = |prefix: IpNet| match prefix.prefix_len() == prefix.max_prefix_len() {
            true => prefix.addr().to_string(),
            false => prefix.to_string(),
        };
        wanted.map(written).collect::<Vec<_>>().join(" ")
    };
    format!("tidy -4 {table} \"{}\"\ntidy -6 {table} \"{}\"\n", of(true), of(false))
}

/// How connections are tracked. A machine that is a namespace may not change the table's size: it has that of its host.
fn tracking() -> String {
    format!(
        "# A packet in the middle of a connection begins none; and one that is late is not taken for one.\n\
         sysctl -q -w net.netfilter.nf_conntrack_tcp_loose=0 net.netfilter.nf_conntrack_tcp_be_liberal=1\n\
         # A full table drops new connections. Those that are over leave it soon; one that is silent for longer than any\n\
         # that a sun keeps is over.\n\
         sysctl -q -w net.netfilter.nf_conntrack_tcp_timeout_time_wait={TIME_WAIT_S}\n\
         sysctl -q -w net.netfilter.nf_conntrack_tcp_timeout_established={ESTABLISHED_S}\n\
         tracked() {{ [ \"$(sysctl -n net.netfilter.nf_conntrack_max)\" -ge {TRACKED_MIN} ]; }}\n\
         tracked || sysctl -q -w net.netfilter.nf_conntrack_max={TRACKED_MIN} 2>/dev/null || true\n\
         tracked || echo \"fewer than {TRACKED_MIN} connections are tracked: raise net.netfilter.nf_conntrack_max\" >&2\n"
    )
}

/// Of a family and a table, all routes that bear the mark but those that are wanted. A table that is not there has none.
const TIDY: &str = "\
# What an earlier script set up and this one does not want goes: what has its protocol number.
tidy() {
    ip \"$1\" route show table \"$2\" proto 115 2>/dev/null | while read -r first second rest; do
        kind='' prefix=$first
        if [ \"$first\" = local ]; then kind=local prefix=$second; fi
        case \" $3 \" in
        *\" $prefix \"*) ;;
        *) ip \"$1\" route delete $kind \"$prefix\" table \"$2\" proto 115 ;;
        esac
    done
}
";

/// Last, when what may be forwarded is settled.
const FORWARDING: &str = "\
# A machine that forwards takes no routes from router advertisements, unless it is told to go on.
for file in /proc/sys/net/ipv6/conf/*/accept_ra; do
    if [ -e \"$file\" ] && [ \"$(cat \"$file\")\" = 1 ]; then echo 2 >\"$file\"; fi
done
sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
";

/// Connections that are tracked at least: those of a sun that is full (32,768 clients), and those that ended within
/// [`TIME_WAIT_S`], 15,000 a second. Too small: new connections are dropped. Too large: 320 bytes each, 160 MiB at worst.
const TRACKED_MIN: u32 = 1 << 19;

/// The kernel's own is 120 s: four times the entries.
const TIME_WAIT_S: u32 = 30;

/// The kernel's own is five days, in which clients that vanished add up.
const ESTABLISHED_S: u32 = 7_200;

const fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "" } else { "-6 " }
}

/// Of packets that are passed on, and the routing table that these go by: "sun" in ASCII, and a number nobody has.
const MARK: &str = "0x73756e";
const TABLE: u32 = 7_566;

/// Of the routes that a script sets up (`proto`), so that the next one knows them: "s" in ASCII, which no routing daemon has.
const PROTOCOL: u8 = 115;
