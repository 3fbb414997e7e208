//! Tests of the feed: what routers and dumps may say, what hostile ones may, and the same read by another implementation.

mod against_bgpkit;
mod dumps;
mod hostile;
mod real;
mod sessions;
mod updates;
mod wire;

use std::net::IpAddr;

use super::{Event, PeerId, View};

/// The peer that most messages are of.
fn peer() -> PeerId {
    PeerId { address: address("192.0.2.9"), distinguisher: 0, asn: 64_501 }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One line for what happened: `+` announced, `-` withdrawn, then the path, the length, the origin, MED and communities.
fn line(event: &Event) -> String {
    match event {
        Event::Initiation { name, description } => format!("hello {name:?} {description:?}"),
        Event::Up { peer, view, bgp_id, add_path } => format!("up {peer} {view:?} {bgp_id} {add_path:?}"),
        Event::Down { peer, view, reason } => format!("down {peer} {view:?}: {reason}"),
        Event::EndOfRib { view, family, .. } => format!("end {view:?} {family:?}"),
        Event::Malformed { what, offset, .. } => format!("malformed at {offset}: {what}"),
        Event::Termination { reason } => format!("bye: {reason}"),
        Event::Ignored(what) => format!("ignored {}", what.name()),
        Event::Routes { announced, withdrawn, attributes, .. } => {
            let mut words: Vec<String> = announced.iter().map(|prefix| format!("+{prefix}")).collect();
            words.extend(withdrawn.iter().map(|prefix| format!("-{prefix}")));
            if let Some(attributes) = attributes {
                words.push(format!("{:?}/{}", attributes.as_path, attributes.path_length));
                words.extend(attributes.origin_as.map(|origin| format!("AS{origin}")));
                words.extend(attributes.med.map(|med| format!("med={med}")));
                words.extend(attributes.communities.iter().map(ToString::to_string));
            }
            words.join(" ")
        }
    }
}

fn lines(events: &[Event]) -> Vec<String> {
    events.iter().map(line).collect()
}

/// Of routes and ends of RIBs: the view they were told in.
fn view(event: &Event) -> Option<View> {
    match event {
        Event::Routes { view, .. } | Event::EndOfRib { view, .. } => Some(*view),
        _ => None,
    }
}
