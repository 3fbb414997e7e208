//! The shipped file, and configs that are refused or taken over.

use super::*;

#[test]
fn the_shipped_file_shows_the_defaults_and_every_option() {
    let text = include_str!("../../../../deploy/config/geo.toml");
    let shipped: Config = daemon::config::parse(text, "geo.toml").unwrap();
    assert_eq!(shipped, Config::default());
    let all = serde_json::to_value(Config::default()).unwrap();
    for (key, value) in all.as_object().unwrap() {
        assert!(text.contains(key.as_str()), "{key} is not in the shipped file");
        for inner in value.as_object().into_iter().flat_map(|table| table.keys()) {
            assert!(text.contains(inner.as_str()), "{key}.{inner} is not in the shipped file");
        }
    }
}

/// Tables of which there may be several have no default; the file shows one of each, commented out.
#[test]
fn what_the_shipped_file_shows_commented_out_is_read() {
    let text = include_str!("../../../../deploy/config/geo.toml");
    let is_key = |rest: &str| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let shown = |rest: &&str| rest.starts_with('[') || is_key(rest);
    let line = |line| format!("{}\n", str::strip_prefix(line, "# ").filter(shown).unwrap_or(line));
    let uncommented: String = text.lines().map(line).collect();
    let config: Config = daemon::config::parse(&uncommented, "geo.toml").unwrap();
    assert_eq!(config.problems(), Vec::<String>::new());
    let several = [
        config.router.len(),
        config.router[0].peer.len(),
        config.mrt.len(),
        config.list.len(),
        config.rule.len(),
        config.origin.len(),
    ];
    assert_eq!(several, [1, 3, 1, 2, 3, 1], "{config:?}");
    assert!(config.bmp.listen.is_some() && config.geoip.files.is_empty());
}

#[test]
fn bad_settings_are_named() {
    check("", &[]);
    check("drain_s = 100000", &["drain_s = 100000: it is within 0..=86400"]);
    check("bmp.message_bytes_max = 1000", &["bmp.message_bytes_max = 1000: it is within 65536..=67108864"]);
    check("publish.save_s = 0", &["publish.save_s = 0: it is within 1..=86400"]);
    check("limits.request_s = 0", &["limits.request_s = 0: it is within 1..=86400"]);
    check("shrink_max = 1.5", &["shrink_max = 1.5: it is within 0..=1"]);
    let same = |key: &str, of: &str| format!("{key} = 127.0.0.1:8095: it is that of {of}, too; give it another port");
    check("admin = '127.0.0.1:8095'", &[&same("admin", "listen")]);
    check("bmp.listen = '127.0.0.1:8095'", &[&same("bmp.listen", "listen")]);
    check(
        "listen = '0.0.0.0:1'\nbmp.listen = '127.0.0.1:1'",
        &["bmp.listen = 127.0.0.1:1: it is that of listen, too; give it another port"],
    );
    check("listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'", &[]);
    check("listen = '127.0.0.2:9095'", &[]);
    check("damping.pending_max = 0", &["damping.pending_max = 0: it is within 1..=100000000"]);
}

#[test]
fn what_cannot_be_taken_over_stays_and_is_told() {
    let parse = |text: &str| daemon::config::parse::<Config>(text, "test").unwrap();
    let running = parse("drain_s = 7");
    for (text, differs) in [
        ("drain_s = 7", ""),
        ("drain_s = 7\n[[origin]]\nas = 64500\nregion = 4", ""),
        ("drain_s = 7\n[damping]\nstable_s = 1\n[publish]\nchanges_max = 1", ""),
        ("drain_s = 8", "drain_s"),
        ("drain_s = 7\n[publish]\nsave_s = 1", "publish.save_s"),
        ("drain_s = 8\n[bmp]\nlisten = '127.0.0.1:1'", "bmp.listen drain_s"),
    ] {
        let (taken, found) = parse(text).taken_over(&running);
        assert_eq!(found.join(" "), differs, "{text}");
        assert_eq!((taken.drain_s, taken.bmp.listen, taken.publish.save_s), (7, None, 60), "{text}");
        assert_eq!((taken.origin, taken.damping), (parse(text).origin, parse(text).damping), "{text}");
    }
}

#[test]
fn routers_are_told_apart() {
    const ONE: &str = "[[router]]\nname = 'a'\naddress = '10.0.0.1'\nregion = 4\nclass = 'transit'\n";
    let listening = |routers: &str| format!("bmp.listen = '10.0.0.9:11019'\n{routers}");
    check(&listening(ONE), &[]);
    check(ONE, &["router: bmp.listen is missing: the routers have nowhere to connect to"]);
    check(
        &listening(&format!("{ONE}{}", ONE.replace("10.0.0.1", "10.0.0.2"))),
        &["router[1].name = \"a\": an earlier router has it"],
    );
    check(
        &listening(&format!("{ONE}{}", ONE.replace("'a'", "'b'").replace("10.0.0.1", "::ffff:10.0.0.1"))),
        &["router[1].address = ::ffff:10.0.0.1: it is a's, too"],
    );
    check(
        &listening(&format!("{ONE}[[router.peer]]\nclass = 'private'")),
        &["router[0].peer[0]: give either address or as"],
    );
    let both = "router[0].peer[0]: give either class or ignore = true";
    check(&listening(&format!("{ONE}[[router.peer]]\nas = 1\nignore = true")), &[]);
    check(&listening(&format!("{ONE}[[router.peer]]\nas = 1")), &[both]);
    check(&listening(&format!("{ONE}[[router.peer]]\nas = 1\nclass = 'private'\nignore = true")), &[both]);
    check(
        &listening(&format!("{ONE}view = 'loc-rib'\n[[router.peer]]\nas = 1\nclass = 'private'")),
        &["router[0].peer: view = \"loc-rib\" is one table, of the router's own class, and does not tell peers apart"],
    );
    check("bmp.queue_max = 5000", &["bmp.queue_max = 5000: it is within 1..=1024"]);
    check(&listening(&format!("{ONE}prefixes_max = 0")), &["router[0].prefixes_max = 0: it is within 1..=100000000"]);
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let config: Config = daemon::config::parse(text, "test").unwrap();
    assert_eq!(config.problems(), expected, "{text}");
}
