//! A config of ExaBGP 4 that starts sun-check as its process: what is announced comes from there, line by line.
//!
//! ExaBGP announces nothing by itself. When sun-check dies, ExaBGP starts it again and keeps the session and what was announced;
//! what ends everything is the end of ExaBGP.

use std::fmt::Write as _;

use anyhow::{Context, ensure};

use super::Speaker;

/// The config.
///
/// # Errors
///
/// A command that would end the statement it stands in; a session without an own address.
pub(super) fn config(speaker: &Speaker<'_>, run: &str) -> anyhow::Result<String> {
    ensure!(
        !run.trim().is_empty() && !run.contains([';', '{', '}', '#', '\n', '"']),
        "--run {run:?}: a command without quotes, braces, # and ;"
    );
    let Speaker { sun, group, asn, router_id, hold_s, .. } = speaker;
    let mut text = format!(
        "# The sessions of {sun} in {group}, by `sunctl render exabgp`. sun-check says what is announced.\n\
         # It runs as ExaBGP's user, who has to be the sun's: it reads the sun's token (mode 600) and writes its own `data`.\n\
         #   exabgp.daemon.user=sun exabgp FILE\n\
         process sun-check {{\n    run {run};\n    encoder text;\n}}\n"
    );
    for session in &speaker.sessions {
        let family = if session.neighbour.address.is_ipv4() { "ipv4" } else { "ipv6" };
        let neighbour = session.neighbour.address;
        let local =
            session.local.with_context(|| format!("ExaBGP wants its own address for {neighbour}: say --local"))?;
        let _ = write!(
            text,
            "\nneighbor {neighbour} {{\n    router-id {router_id};\n    local-address {local};\n    local-as {asn};\n    \
             peer-as {};\n    hold-time {hold_s};\n    family {{ {family} unicast; }}\n    \
             api {{ processes [ sun-check ]; }}\n}}\n",
            session.neighbour.asn
        );
    }
    Ok(text)
}
