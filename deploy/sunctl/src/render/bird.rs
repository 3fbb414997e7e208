//! A whole bird.conf for the BIRD 2 beside a sun.
//!
//! | | up (`sun_up_N`) | draining (`sun_drain_N`) |
//! |---|---|---|
//! | preference in BIRD | 200: counts while both are enabled | 100 |
//! | community | | 65535:0, GRACEFUL_SHUTDOWN (RFC 8326) |
//! | metric (`--rank med`) | 100 x rank | 100,000 + 100 x rank: also for routers that do not know the community |
//! | path (`--rank prepend`) | rank x own AS more | [`PREPENDS_MAX`] more |
//!
//! Why one protocol a route: `birdc enable` and `disable` know protocols only. Why blackhole: nothing is forwarded here, the
//! addresses are local by `ip route add local`; no kernel protocol is there, so BIRD touches no table of the machine.
//! Why `up_is_disabled`: `birdc configure` takes what is disabled in the file down, whoever enabled it since. With a copy that
//! says 0 a BIRD that announces takes a new file without a gap.

use std::fmt::Write as _;

use anyhow::ensure;
use geo::anycast::Announcement;

use super::{RankBy, Session, Speaker};

/// The config; the same topology and options give the same text.
///
/// # Errors
///
/// Prepending over a session within one AS, where the path would be a loop.
pub(super) fn config(speaker: &Speaker<'_>, rank: RankBy) -> anyhow::Result<String> {
    let inside = speaker.sessions.iter().find(|session| session.neighbour.asn == speaker.asn);
    if let (RankBy::Prepend, Some(session)) = (rank, inside) {
        let address = session.neighbour.address;
        ensure!(false, "--rank prepend: {address} is of the same AS and would see a loop; take --rank med");
    }
    let Speaker { sun, group, router_id, .. } = speaker;
    let mut text = format!(
        "# The announcements of {sun} in {group}, by `sunctl render bird`. sun-check enables and disables them; by hand:\n\
         #   birdc disable '\"sun_*\"'     nothing is announced\n\
         #\n\
         # A plain `birdc configure` withdraws every route until sun-check has looked again, up to a second later. While the\n\
         # sun is announced (`sun-check status`), a copy in which the routes begin enabled changes only what differs; the file\n\
         # itself stays as it is, so that a BIRD that is restarted announces nothing unchecked. One member after the other:\n\
         #   sed 's/^define up_is_disabled = 1;/define up_is_disabled = 0;/' /etc/bird/bird.conf > /run/bird/announced.conf\n\
         #   birdc configure '\"/run/bird/announced.conf\"'\n\
         define up_is_disabled = 1;\n\
         log stderr {{ info, remote, warning, error, auth, fatal, bug }};\n\
         router id {router_id};\n\
         protocol device {{ scan time 1; }}\n"
    );
    for (number, session) in speaker.sessions.iter().enumerate() {
        text += &session_block(speaker, number + 1, session);
    }
    for (number, route) in speaker.announcements.iter().enumerate() {
        text += &route_blocks(speaker.asn, number + 1, route, rank);
    }
    Ok(text)
}

fn session_block(speaker: &Speaker<'_>, number: usize, session: &Session) -> String {
    let family = if session.neighbour.address.is_ipv4() { "ipv4" } else { "ipv6" };
    let local = session.local.map(|local| format!("{local} ")).unwrap_or_default();
    let Speaker { asn, hold_s, .. } = speaker;
    let keepalive_s = (hold_s / 3).max(1);
    format!(
        "\nprotocol bgp router{number} {{\n  \
           local {local}as {asn};\n  \
           neighbor {} as {};\n  \
           hold time {hold_s};\n  \
           keepalive time {keepalive_s};\n  \
           connect delay time 1;\n  \
           connect retry time 1;\n  \
           error wait time 1, 3;\n  \
           # With it the router would go on sending to a sun whose BIRD died, just when nobody checks any more.\n  \
           graceful restart off;\n  \
           long lived graceful restart off;\n  \
           {family} {{\n    \
             import none;\n    \
             # A metric goes to another AS only if it is set here.\n    \
             export filter {{ if proto !~ \"sun_*\" then reject; if defined(bgp_med) then bgp_med = bgp_med; accept; }};\n    \
             next hop self;\n  \
           }};\n}}\n",
        session.neighbour.address, session.neighbour.asn
    )
}

fn route_blocks(asn: u32, number: usize, route: &Announcement, rank: RankBy) -> String {
    let family = if route.prefix.addr().is_ipv4() { "ipv4" } else { "ipv6" };
    let place = u32::from(route.rank.unwrap_or_default());
    let whose = match route.rank {
        Some(0) => "its own".to_owned(),
        Some(rank) => format!("backup {rank}"),
        None => "the covering subnet".to_owned(),
    };
    let mut text = format!("\n# {} {whose}\n", route.prefix);
    for (state, preference) in [("up", 200), ("drain", 100)] {
        let drains = state == "drain";
        let disabled = if drains { "disabled" } else { "disabled up_is_disabled" };
        // BIRD's default for what has none differs by version; unequal ones would keep routers from sharing load.
        let mut attributes = "bgp_origin = ORIGIN_IGP; ".to_owned();
        match rank {
            RankBy::Med => {
                let metric = MED_STEP * place + if drains { MED_DRAIN } else { 0 };
                let _ = write!(attributes, "bgp_med = {metric}; ");
            }
            RankBy::Prepend => {
                let count = if drains { PREPENDS_MAX } else { place.min(PREPENDS_MAX - 1) };
                (0..count).for_each(|_| attributes += &format!("bgp_path.prepend({asn}); "));
            }
        }
        if drains {
            attributes += "bgp_community.add((65535, 0)); ";
        }
        let _ = write!(
            text,
            "protocol static sun_{state}_{number} {{\n  {disabled};\n  {family} {{ preference {preference}; }};\n  \
             route {} blackhole {{ {attributes}}};\n}}\n",
            route.prefix
        );
    }
    text
}

/// Between two ranks; room for an operator's own in between.
const MED_STEP: u32 = 100;

/// Above every rank there is: a region has at most 512 suns.
const MED_DRAIN: u32 = 100_000;

/// Routers drop paths that are much longer; ranks beyond are the same.
const PREPENDS_MAX: u32 = 10;
