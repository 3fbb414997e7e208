//! Who takes over whose addresses, in groups of every size.

use super::*;

#[test]
fn one_failure_spreads_over_all_survivors() {
    for count in 2..=16 {
        for own in 1..=8 {
            let group = group(count, own);
            let worst = (0..count).map(|down| worst_gain(&group, &[down])).max().unwrap();
            assert_eq!(worst, own.div_ceil(count - 1), "{count} members with {own} addresses each");
        }
    }
}

#[test]
fn a_second_failure_spreads_as_well() {
    // The most that a survivor gets when the worst two members fail. No order is better than the addresses divided by the
    // survivors; one more is granted.
    for count in 3..=16 {
        for own in 1..=8 {
            let group = group(count, own);
            let least = (2 * own).div_ceil(count - 2);
            let worst = worst_of_pairs(&group);
            assert!(worst <= least + 1, "{count} members with {own} addresses each: {worst}, least {least}");
        }
    }
    assert_eq!(worst_of_pairs(&group(8, 4)), 2);
}

#[test]
fn a_third_failure_spreads_as_well() {
    let group = group(8, 4);
    let triples = (0..8).flat_map(|a| (a + 1..8).flat_map(move |b| (b + 1..8).map(move |c| [a, b, c])));
    // Twelve addresses, five survivors: three each at least.
    assert_eq!(triples.map(|down| worst_gain(&group, &down)).max(), Some(4));
}

#[test]
fn random_orders_are_worse() {
    let designed = group(8, 4);
    let random = |seed: u64| {
        let mut group = designed.clone();
        for address in &mut group.addresses {
            let key = |member: &usize| score(address.address, &format!("{seed} {member}"));
            address.backups.sort_by_key(key);
        }
        group
    };
    let orders: Vec<Assignment> = (0..200).map(random).collect();
    let of = |worst: &dyn Fn(&Assignment) -> usize| orders.iter().map(worst).collect::<Vec<_>>();
    // For any one failure: its worst survivor, on average.
    let ones: usize = orders.iter().flat_map(|group| (0..8).map(|down| worst_gain(group, &[down]))).sum();
    let (one, pair) = (of(&|group| (0..8).map(|down| worst_gain(group, &[down])).max().unwrap()), of(&worst_of_pairs));
    println!("random, one failure: {} on average, worst {:?}", ones as f64 / 1600.0, one.iter().max());
    println!("random, worst pair: {:?}..={:?}", pair.iter().min(), pair.iter().max());
    assert!(one.iter().sum::<usize>() > 200 && pair.iter().sum::<usize>() > 2 * 200);
}

#[test]
fn a_new_member_changes_few_backups() {
    let (mut changed, mut all) = (0, 0);
    for newcomer in 0..9 {
        let nine: Vec<usize> = (0..9).collect();
        let eight: Vec<usize> = nine.iter().copied().filter(|&member| member != newcomer).collect();
        let (before, after) = (of_members(&eight, 4), of_members(&nine, 4));
        for address in &before.addresses {
            let same = after.addresses.iter().find(|other| other.address == address.address).unwrap();
            changed += usize::from(before.members[address.backups[0]] != after.members[same.backups[0]]);
            all += 1;
        }
    }
    println!("first backups changed: {changed} of {all}");
    assert!(changed * 5 <= all, "{changed} of {all}");
}

#[test]
fn every_member_announces_every_address_once_and_the_subnet_last() {
    let group = group(4, 2);
    for name in group.members() {
        let routes = group.announcements(name);
        assert_eq!(routes.len(), 4 * 2 + 1);
        assert_eq!(routes.iter().filter(|route| route.rank == Some(0)).count(), 2);
        assert!(routes.is_sorted_by_key(|route| route.rank.unwrap_or(u16::MAX)));
        assert_eq!(routes.last().unwrap(), &Announcement { prefix: subnet(), rank: None });
    }
    assert!(group.announcements("sun9-9-9").is_empty());
    // Of an address, no two members have the same rank.
    for address in &group.addresses {
        let mut ranks: Vec<u16> = (0..4).map(|member| address.rank_of(member)).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [0, 1, 2, 3], "{}", address.address);
    }
}

#[test]
fn the_order_is_frozen() {
    // Members of different versions that disagreed would announce one address with one rank.
    let group = group(4, 2);
    let orders: Vec<String> = group
        .addresses
        .iter()
        .map(|address| {
            let backups: Vec<&str> = address.backups.iter().map(|&member| &group.members[member][7..]).collect();
            format!("{} {} {}", address.address, &group.members[address.owner][7..], backups.join(""))
        })
        .collect();
    assert_eq!(
        orders,
        [
            "192.0.2.0 0 231",
            "192.0.2.1 0 132",
            "192.0.2.8 1 302",
            "192.0.2.9 1 203",
            "192.0.2.16 2 310",
            "192.0.2.17 2 103",
            "192.0.2.24 3 012",
            "192.0.2.25 3 201"
        ]
    );
}

#[test]
fn nothing_but_names_and_addresses_counts() {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = (own(1, 2), vec!["2001:db8::1".parse().unwrap()]);
    let mixed: Vec<IpAddr> = [v6.clone(), v4.clone()].concat();
    let swapped: Vec<IpAddr> = [v4, v6].concat();
    let (two, three) = (own(2, 2), own(3, 2));
    let one = Assignment::new(subnet(), &[("sun4-2-1", &mixed), ("sun4-2-2", &two), ("sun4-2-3", &three)]);
    let other = Assignment::new(subnet(), &[("sun4-2-3", &three), ("sun4-2-2", &two), ("sun4-2-1", &swapped)]);
    assert_eq!(one, other);
    assert!(one.announcements("sun4-2-2").iter().any(|route| route.prefix == "2001:db8::1/128".parse().unwrap()));
}

#[test]
fn a_lone_member_announces_what_it_has() {
    let own = own(0, 1);
    let group = Assignment::new(subnet(), &[("sun4-2-1", &own)]);
    let own = Announcement { prefix: own[0].into(), rank: Some(0) };
    assert_eq!(group.announcements("sun4-2-1"), [own, Announcement { prefix: subnet(), rank: None }]);
    assert!(group.answering(&["sun4-2-1"]).is_empty());
}

#[test]
fn a_topologys_group_is_found_by_its_name() {
    let text = include_str!("../../../deploy/config/topology.toml");
    let topology = Topology::parse(text).unwrap();
    assert_eq!(Assignment::of(&topology, "sun4-2").unwrap().members(), ["sun4-2-1", "sun4-2-2"]);
    assert_eq!(Assignment::of(&topology, "sun5-1").unwrap().members(), ["sun5-1-1"]);
    assert!(Assignment::of(&topology, "sun9-1").is_none());
}

fn group(count: usize, own: usize) -> Assignment {
    of_members(&(0..count).collect::<Vec<_>>(), own)
}

fn of_members(members: &[usize], addresses: usize) -> Assignment {
    let members: Vec<(String, Vec<IpAddr>)> =
        members.iter().map(|&member| (format!("sun4-2-{member}"), own(member, addresses))).collect();
    let members: Vec<(&str, &[IpAddr])> =
        members.iter().map(|(name, addresses)| (name.as_str(), addresses.as_slice())).collect();
    Assignment::new(subnet(), &members)
}

fn own(member: usize, addresses: usize) -> Vec<IpAddr> {
    let byte = |number: usize| u8::try_from(number).unwrap();
    (0..addresses).map(|number| IpAddr::from([192, 0, 2, byte(member * 8 + number)])).collect()
}

fn subnet() -> IpNet {
    "192.0.2.0/24".parse().unwrap()
}

/// The most addresses that one survivor has more while these are down.
fn worst_gain(group: &Assignment, down: &[usize]) -> usize {
    let down: Vec<&str> = down.iter().map(|&member| group.members[member].as_str()).collect();
    let mut gains: BTreeMap<&str, usize> = BTreeMap::new();
    for ((_, now), address) in group.answering(&down).into_iter().zip(&group.addresses) {
        *gains.entry(now).or_default() += usize::from(now != group.members[address.owner]);
    }
    gains.into_values().max().unwrap_or_default()
}

fn worst_of_pairs(group: &Assignment) -> usize {
    let count = group.members.len();
    let pairs = (0..count).flat_map(|one| (one + 1..count).map(move |other| [one, other]));
    pairs.map(|pair| worst_gain(group, &pair)).max().unwrap()
}
