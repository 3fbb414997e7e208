//! The sun's own addresses: one of each family is asked as well, as its clients do, so that a local route that is gone shows.
//!
//! An address for which this machine does not answer is not asked: another sun of the group would answer. It is ill if the machine
//! answered for it before, or always should. Whether it does is asked of the kernel ([`super::local`]); while that cannot be told, an
//! address is asked on as before.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use geo::Topology;

use super::config::OwnRule;

/// What is known of them.
#[derive(Clone, Debug)]
pub struct Own {
    rule: OwnRule,
    /// For which this machine answered.
    answered: BTreeSet<IpAddr>,
}

/// What is to become of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// These are to be asked.
    pub ask: Vec<SocketAddr>,
    /// For these this machine must answer, and does not.
    pub lost: Vec<SocketAddr>,
    /// What a person should look at.
    pub warnings: Vec<String>,
}

impl Own {
    /// Nothing was looked at yet.
    #[must_use]
    pub const fn new(rule: OwnRule) -> Self {
        Self { rule, answered: BTreeSet::new() }
    }

    /// Looks at the addresses of the sun `name`; `is_local` says whether this machine answers for one,
    /// none: it cannot be told.
    pub fn look(&mut self, topology: &Topology, name: &str, is_local: impl Fn(IpAddr) -> Option<bool>) -> Found {
        let mut found = Found::default();
        let Some(sun) = topology.sun(name).filter(|_| self.rule != OwnRule::Never) else { return found };
        let of = |family: fn(&&IpAddr) -> bool| sun.server.addresses.iter().find(family).copied();
        for address in [of(|address| address.is_ipv4()), of(|address| address.is_ipv6())].into_iter().flatten() {
            let socket = SocketAddr::new(address, sun.server.https_port);
            let local = is_local(address);
            let answered = self.answered.contains(&address);
            if local.unwrap_or(answered) {
                self.answered.insert(address);
                found.ask.push(socket);
            } else if local == Some(false) && (self.rule == OwnRule::Always || answered) {
                found.lost.push(socket);
            } else {
                let why =
                    if local.is_some() { "this machine does not answer for it" } else { "nothing is known of it" };
                found.warnings.push(format!("{address} is not asked: {why}"));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_asked_while_it_is_local_and_missed_when_it_was() {
        let v4: SocketAddr = "192.0.2.1:443".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        let mut own = Own::new(OwnRule::Auto);
        let found = look(&mut own, &[v4.ip()]);
        let warnings = vec!["2001:db8::1 is not asked: this machine does not answer for it".to_owned()];
        assert_eq!(found, Found { ask: vec![v4], lost: vec![], warnings: warnings.clone() });
        let found = look(&mut own, &[]);
        assert_eq!(found, Found { ask: vec![], lost: vec![v4], warnings });
        let found = look(&mut own, &[v4.ip(), v6.ip()]);
        assert_eq!(found, Found { ask: vec![v4, v6], ..Found::default() });

        let found = look(&mut Own::new(OwnRule::Always), &[]);
        assert_eq!(found, Found { lost: vec![v4, v6], ..Found::default() });
        assert_eq!(look(&mut Own::new(OwnRule::Never), &[v4.ip()]), Found::default());
    }

    #[test]
    fn while_nothing_can_be_told_an_address_is_asked_on_and_not_missed() {
        let mut own = Own::new(OwnRule::Auto);
        let asked = look(&mut own, &["192.0.2.1".parse().unwrap()]).ask;
        let found = look_by(&mut own, |_| None);
        let warnings = vec!["2001:db8::1 is not asked: nothing is known of it".to_owned()];
        assert_eq!(found, Found { ask: asked, lost: vec![], warnings });
        assert_eq!(look_by(&mut Own::new(OwnRule::Always), |_| None).lost, []);
    }

    fn look(own: &mut Own, local: &[IpAddr]) -> Found {
        look_by(own, |address| Some(local.contains(&address)))
    }

    fn look_by(own: &mut Own, is_local: impl Fn(IpAddr) -> Option<bool>) -> Found {
        let text = "version = 1\ndomain = \"example.net\"\ndefault_region = 4\n\
            [content_servers]\nurl = \"http://127.0.0.1:9100/cs{number}\"\nnumbers = [\"1-9\"]\n\
            [[region]]\nid = 4\nname = \"R\"\nlatitude = 1.0\nlongitude = 1.0\n\
            [[group]]\nname = \"sun4-2\"\nsubnet = \"192.0.2.0/24\"\n\
            [[sun]]\nname = \"sun4-2-1\"\naddresses = [\"192.0.2.1\", \"192.0.2.2\", \"2001:db8::1\"]\n\
            internal = \"10.0.0.1:8081\"\nweight = 100\n";
        let topology = Topology::parse(text).unwrap();
        own.look(&topology, "sun4-2-1", is_local)
    }
}
