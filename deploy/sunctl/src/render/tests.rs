//! What is rendered is read by the programs it is for, and says what the topology says.

use std::path::Path;
use std::process::Command as Process;

use clap::Parser;

use super::*;

#[test]
fn bird_takes_what_is_rendered_for_it() {
    for rank in ["med", "prepend"] {
        let text = rendered(&["bird", "--sun", "sun4-2-1", "--rank", rank], &V4);
        checked("bird.conf", &text, |file| Process::new(in_sbin("bird")).arg("-p").arg("-c").arg(file).output());
    }
    let text = rendered(&["bird", "--sun", "sun4-3-1", "--hold-s", "9"], &BOTH);
    checked("bird.conf", &text, |file| Process::new(in_sbin("bird")).arg("-p").arg("-c").arg(file).output());
    // The copy that is reloaded without a gap.
    let announced = text.replace("\ndefine up_is_disabled = 1;\n", "\ndefine up_is_disabled = 0;\n");
    assert_ne!(announced, text);
    checked("bird.conf", &announced, |file| Process::new(in_sbin("bird")).arg("-p").arg("-c").arg(file).output());
    assert!(text.contains("hold time 9;\n  keepalive time 3;"), "{text}");
    assert!(text.contains("local 2001:db8::f0 as 64512;\n  neighbor 2001:db8::fe as 64500;"), "{text}");
}

#[test]
fn every_route_is_there_twice_and_disabled() {
    let text = rendered(&["bird", "--sun", "sun4-2-1"], &V4);
    // Three suns with one address each, and the subnet.
    for (name, count) in [
        ("protocol static sun_up_", 4),
        ("protocol static sun_drain_", 4),
        ("  disabled;\n", 4),
        ("  disabled up_is_disabled;\n", 4),
    ] {
        assert_eq!(text.matches(name).count(), count, "{name}: {text}");
    }
    let own = "# 192.0.2.1/32 its own\nprotocol static sun_up_1 {\n  disabled up_is_disabled;\n  ipv4 { preference 200; };\n  \
               route 192.0.2.1/32 blackhole { bgp_origin = ORIGIN_IGP; bgp_med = 0; };\n}\n\
               protocol static sun_drain_1 {\n  disabled;\n  ipv4 { preference 100; };\n  \
               route 192.0.2.1/32 blackhole { bgp_origin = ORIGIN_IGP; bgp_med = 100000; bgp_community.add((65535, 0)); };\n}\n";
    assert!(text.contains(own), "{text}");
    assert!(text.contains("# 192.0.2.0/26 the covering subnet\nprotocol static sun_up_4 {"), "{text}");
    let prepended = rendered(&["bird", "--sun", "sun4-2-1", "--rank", "prepend"], &V4);
    assert!(
        prepended.contains("bgp_origin = ORIGIN_IGP; bgp_path.prepend(64512); bgp_path.prepend(64512); };"),
        "{prepended}"
    );
    assert!(!prepended.contains("ORIGIN_IGP; bgp_med"), "{prepended}");
}

#[test]
fn exabgp_takes_what_is_rendered_for_it() {
    let text = rendered(&["exabgp", "--sun", "sun4-3-1", "--run", "/bin/cat -u"], &BOTH);
    checked("exabgp.conf", &text, |file| {
        // It wants a pipe to be told things by, unless it is told not to.
        Process::new(in_sbin("exabgp")).env("exabgp.api.cli", "false").arg("--validate").arg(file).output()
    });
    assert!(text.contains("run /bin/cat -u;"), "{text}");
}

#[test]
fn a_shell_takes_what_is_rendered_for_it() {
    let text = rendered(&["addresses", "--sun", "sun4-3-1"], &[]);
    checked("addresses", &text, |file| Process::new("sh").arg("-n").arg(file).output());
    assert!(text.contains("\nip route replace local 192.0.2.64/26 dev lo proto 115\n"), "{text}");
    assert!(text.contains("\nip -6 route replace local 2001:db8:3::1/128 dev lo proto 115\n"), "{text}");
}

#[test]
fn what_a_sun_does_not_know_goes_to_the_one_that_had_the_address() {
    let text = rendered(&["addresses", "--sun", "sun4-2-1", "--pass-on", "eth1"], &[]);
    checked("addresses", &text, |file| Process::new("sh").arg("-n").arg(file).output());
    // Others' addresses go to their owners, the own one to its first backup.
    for hop in ["192.0.2.1/32 via 10.4.2.2", "192.0.2.2/32 via 10.4.2.2", "192.0.2.3/32 via 10.4.2.3"] {
        assert!(text.contains(&format!("\nip route replace {hop} dev eth1 table ")), "{hop}: {text}");
    }
    let order = [
        "net/ipv4/conf/eth1/rp_filter=0",
        "policy drop;",
        "nf_conntrack_tcp_loose=0",
        "dev eth1 table",
        "accept_ra",
        "ip_forward=1",
    ];
    let places = order.map(|part| text.find(part).unwrap_or_else(|| panic!("{part}: {text}")));
    assert!(places.is_sorted() && text.trim_end().ends_with("forwarding=1"), "forwarding is last: {text}");
    let dotted = rendered(&["addresses", "--sun", "sun4-2-1", "--pass-on", "bond0.7"], &[]);
    assert!(dotted.contains("net/ipv4/conf/bond0.7/rp_filter=0"), "{dotted}");
    let rules = text.split("<<'RULES'\n").nth(1).unwrap().split("RULES\n").next().unwrap();
    checked("rules", rules, |file| Process::new(in_sbin("nft")).arg("--check").arg("--file").arg(file).output());
}

#[test]
fn a_script_that_is_run_after_another_one_takes_away_what_only_that_one_wanted() {
    let before = TOPOLOGY.replace("192.0.2.64/26", "192.0.2.64/27").replace("2001:db8:3::1", "2001:db8:3::9");
    let passing = |topology: &str, sun: &str| {
        let words = ["addresses", "--sun", sun, "--pass-on", "internal"];
        run_on(topology, &words, &[]).unwrap()
    };
    let plain = |topology: &str, sun: &str| run_on(topology, &["addresses", "--sun", sun], &[]).unwrap();
    let others = TOPOLOGY.replace("192.0.2.2\"", "192.0.2.22\"");
    let steps = [
        (
            "an operator's own route stays",
            "ip route replace local 198.51.100.1 dev lo\n".to_owned(),
            "local 198.51.100.1 dev lo",
        ),
        ("1: another subnet", plain(&before, "sun4-3-1"), "local 192.0.2.64/27 dev lo"),
        ("2: this subnet alone", plain(TOPOLOGY, "sun4-3-1"), "local 192.0.2.64/26 dev lo"),
        ("3: passes on", passing(TOPOLOGY, "sun4-2-1"), "192.0.2.2 via 10.4.2.2"),
        ("4: to other addresses", passing(&others, "sun4-2-1"), "192.0.2.22 via 10.4.2.2"),
        ("5: again", passing(&others, "sun4-2-1"), "192.0.2.22 via 10.4.2.2"),
        ("6: not any more", plain(TOPOLOGY, "sun4-2-1"), "local 192.0.2.0/26 dev lo"),
    ];
    let mut script =
        "set -eu\nip link set lo up\nip link add internal type veth peer name other\nip link set other up\nip address add 10.4.2.1/24 dev internal\n\
                      ip link set internal up\nsysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=1\n\
                      ip rule >rules\n"
            .to_owned();
    for (number, (_, step, _)) in steps.iter().enumerate() {
        let file = format!("step{number}");
        script += &format!("cat >{file} <<'STEP'\n{step}STEP\nsh {file}\n(echo 'STATE {number}'; {STATE})\n");
    }
    script += "ip rule | cmp - rules\n";
    let folder = tempfile::tempdir().unwrap();
    let output = Process::new("unshare").args(["--net", "sh", "-c", &script]).current_dir(folder.path()).output();
    let output = output.expect("unshare is there; as root");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let off = "forwarding is switched off, as before --pass-on; for others who need it: sysctl -w net.";
    assert_eq!(told.matches(off).count(), 1, "{told}");
    assert!(told.contains(&format!("{off}ipv4.ip_forward=1\n")), "{told}");
    let states: Vec<&str> = said.split("STATE ").skip(1).collect();
    let gone = |state: &str, what: &[&str]| {
        for what in what {
            assert!(!state.contains(what), "{what} is left: {state}");
        }
    };
    for ((about, _, wanted), state) in steps.iter().zip(&states) {
        assert!(state.contains(wanted) && state.contains("local 198.51.100.1 dev lo"), "{about}: {state}");
    }
    assert!(states[1].contains("2001:db8:3::9") && states[2].contains("local 2001:db8:3::1 dev lo"), "{}", states[2]);
    gone(states[2], &["192.0.2.64/27", "2001:db8:3::9"]);
    gone(states[3], &["192.0.2.64/26", "2001:db8:3::1"]);
    assert!(states[3].contains("fwmark 0x73756e lookup 7566") && states[3].contains("forward 1 1"), "{}", states[3]);
    gone(states[4], &["192.0.2.2 via"]);
    assert_eq!(states[5].trim_start_matches('5'), states[4].trim_start_matches('4'), "a second run changes nothing");
    gone(states[6], &["via", "fwmark", "sun_pass_on", "192.0.2.64"]);
    assert!(states[6].contains("forward 0 1"), "as it was before: {}", states[6]);
}

/// What the scripts leave behind.
const STATE: &str = "(ip route show table local; ip -6 route show table local) | grep -v 'proto kernel'; ip route show table 7566 2>/dev/null || true; \
                     ip rule; ip -6 rule; nft list tables; \
                     echo forward $(sysctl -n net.ipv4.ip_forward) $(sysctl -n net.ipv6.conf.all.forwarding)";

#[test]
fn a_name_server_takes_the_zone() {
    let text =
        rendered(&["zone", "--nameserver", "ns1.example.net", "--nameserver", "ns2.example.org=192.0.2.53"], &[]);
    checked("zone", &text, |file| Process::new("named-checkzone").arg("example.org").arg(file).output());
    for line in
        ["sun4-2 IN A 192.0.2.1", "sun4-2 IN A 192.0.2.3", "sun4-2-1 IN A 192.0.2.1", "sun4-3-1 IN AAAA 2001:db8:3::1"]
    {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
    assert!(text.contains("\ncache4-1 IN A 192.0.2.130\n") && text.contains(" ( 7 3600 "), "{text}");
    let records = rendered(&["zone", "--records"], &[]);
    assert!(records.starts_with("sun4-2 IN A ") && !records.contains("SOA"), "{records}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    check_refused(&["bird", "--sun", "sun9-9-9"], &V4, "the topology has no sun sun9-9-9");
    check_refused(&["bird", "--sun", "sun4-3-1"], &V4, "sun4-3 has IPv6 addresses, and no --neighbour has one");
    let inside = ["--asn", "64512", "--neighbour", "192.0.2.254=64512"];
    check_refused(&["bird", "--sun", "sun4-2-1", "--rank", "prepend"], &inside, "of the same AS and would see a loop");
    let bird = |neighbours: &[&'static str], expected: &str| {
        let words = [&["bird", "--sun", "sun4-2-1"][..], neighbours].concat();
        check_refused(&words, &V4, expected);
    };
    bird(&["--neighbour", "192.0.2.62=64500"], "192.0.2.62=64500: it is in 192.0.2.0/26 of sun4-2");
    bird(&["--neighbour", "192.0.2.254=64501"], "192.0.2.254=64500: this address is there twice");
    bird(&["--neighbour", "10.4.2.1=64500"], "it is the sun's own address");
    bird(&["--local", "192.0.2.253", "--neighbour", "192.0.2.253=64500"], "it is the sun's own address");
    bird(&["--local", "192.0.2.9"], "--local 192.0.2.9: it is in 192.0.2.0/26");
    bird(&["--neighbour", "0.0.0.0=64500"], "a router has an address of its own");
    let taken = TOPOLOGY.replace("192.0.2.130", "192.0.2.40");
    for what in ["bird", "addresses"] {
        let more: &[&str] = if what == "bird" { &V4 } else { &[] };
        let error = run_on(&taken, &[what, "--sun", "sun4-2-1"], more).expect_err("refused").to_string();
        assert!(error.contains("cache4-1: addresses = 192.0.2.40: it is in 192.0.2.0/26 of sun4-2"), "{error}");
    }
    check_refused(&["exabgp", "--sun", "sun4-2-1", "--run", "a; b"], &V4, "without quotes, braces, # and ;");
    check_refused(&["exabgp", "--sun", "sun4-2-1"], &V4, "wants its own address for 192.0.2.254: say --local");
    check_refused(&["zone", "--nameserver", "ns1.example.org"], &[], "within the zone it needs its address");
    check_refused(&["addresses", "--sun", "sun4-2-1", "--pass-on", "a;b"], &[], "a device is eth1 or bond0.7");
    check_refused(&["zone", "--nameserver", "a b"], &[], "is no name of a host");
    check_refused(&["bird", "--sun", "sun4-2-1", "--asn", "1", "--neighbour", "a=b"], &[], "a neighbour is ADDRESS=AS");
}

const V4: [&str; 4] = ["--asn", "64512", "--neighbour", "192.0.2.254=64500"];
const BOTH: [&str; 12] = [
    "--asn",
    "64512",
    "--neighbour",
    "192.0.2.254=64500",
    "--neighbour",
    "2001:db8::fe=64500",
    "--local",
    "2001:db8::f0",
    "--local",
    "192.0.2.240",
    "--router-id",
    "10.4.3.1",
];

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

fn run(said: &[&str], more: &[&str]) -> anyhow::Result<String> {
    run_on(TOPOLOGY, said, more)
}

fn run_on(topology: &str, said: &[&str], more: &[&str]) -> anyhow::Result<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("topology.toml");
    std::fs::write(&file, topology).unwrap();
    let words = ["render"].iter().chain(said).chain(more).copied().chain(["--topology", file.to_str().unwrap()]);
    Ok(render(&Line::try_parse_from(words)?.command)?.text)
}

#[track_caller]
fn rendered(said: &[&str], more: &[&str]) -> String {
    run(said, more).unwrap_or_else(|error| panic!("{said:?}: {error:#}"))
}

#[track_caller]
fn check_refused(said: &[&str], more: &[&str], expected: &str) {
    let error = format!("{:#}", run(said, more).expect_err("refused"));
    assert!(error.contains(expected), "{said:?}: {error}");
}

/// The program that it is for takes the text.
#[track_caller]
fn checked(name: &str, text: &str, check: impl FnOnce(&Path) -> std::io::Result<std::process::Output>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    let output = check(&file).unwrap_or_else(|error| panic!("{name}: {error}; tests/setup installs what checks it"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{said}\n{text}");
}

/// Debian keeps daemons where not every user's PATH looks.
fn in_sbin(program: &str) -> String {
    let sbin = format!("/usr/sbin/{program}");
    if Path::new(&sbin).is_file() { sbin } else { program.to_owned() }
}

const TOPOLOGY: &str = r#"
version = 7
domain = "example.org"
default_region = 4
[content_servers]
url = "http://cs{number}.storage.example.org"
numbers = ["1-9"]
[[region]]
id = 4
name = "Moscow"
latitude = 55.75
longitude = 37.6
[[group]]
name = "sun4-2"
subnet = "192.0.2.0/26"
[[group]]
name = "sun4-3"
subnet = "192.0.2.64/26"
[[sun]]
name = "sun4-2-1"
addresses = ["192.0.2.1"]
internal = "10.4.2.1:8081"
weight = 100
[[sun]]
name = "sun4-2-2"
addresses = ["192.0.2.2"]
internal = "10.4.2.2:8081"
weight = 100
[[sun]]
name = "sun4-2-3"
addresses = ["192.0.2.3"]
internal = "10.4.2.3:8081"
weight = 100
[[sun]]
name = "sun4-3-1"
addresses = ["192.0.2.65", "2001:db8:3::1"]
internal = "[fd00::1]:8081"
weight = 100
[[cache]]
name = "cache4-1"
addresses = ["192.0.2.130"]
internal = "10.4.9.1:8081"
weight = 100
bytes = 1000
"#;
