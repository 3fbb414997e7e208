//! What an operator is told of a config before it is used, and of sources while it is.

use std::fs;

use super::*;

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let place = Place::new();
    place.check("", true, "ok\n");
    place.write(
        "origins",
        "192.0.2.0/24 AS64500\n198.51.100.0/24 AS64999\n203.0.113.0/24 AS64998\n192.0.2.0/24 AS64500\n",
    );
    let list = |name: &str| format!("[[list]]\nfile = '{}'\n", place.path(name));
    let origin = "[[origin]]\nas = 64500\nregion = 4\n";
    let told = "origins: 2 prefixes left out: no [[origin]] has their AS (the first is 198.51.100.0/24 of AS64999); 1 listed twice";
    place.check(&format!("{}{origin}", list("origins")), true, &format!("note: FOLDER/{told}\nok\n"));
    fs::write(place.path("packed"), [0x1f, 0x8b, 0x08]).unwrap();
    let wrong = format!(
        "admin = '127.0.0.1:8095'\n{}{}{}[[rule]]\naction = 'pin'\nregion = 9\nas = 1\n[geoip]\nfiles = ['{}']\n",
        list("none"),
        list("packed"),
        list("origins"),
        place.path("nowhere"),
    );
    let missing = "No such file or directory (os error 2)";
    place.check(
        &wrong,
        false,
        &format!(
            "admin = 127.0.0.1:8095: it is that of listen, too; give it another port\n\
             rule[0]: region = 9: the topology has no such region\n\
             FOLDER/none: {missing}\n\
             FOLDER/packed: it is not a text in UTF-8: a list is text, CSV or JSON, not packed\n\
             FOLDER/nowhere: {missing}\n"
        ),
    );
    fs::remove_file(place.path("topology.toml")).unwrap();
    fs::write(place.path("data"), "a file").unwrap();
    place.check(
        &list("none"),
        false,
        &format!(
            "data: FOLDER/data: Not a directory (os error 20)\n\
             topology FOLDER/topology.toml: {missing}\n\
             FOLDER/none: {missing}\n"
        ),
    );
}

#[test]
fn stats_tell_what_does_not_count() {
    let place = Place::new();
    place.write("origins", "192.0.2.0/24 AS64500\n198.51.100.0/24 AS64999\n");
    place.write("list", "203.0.113.0/24 4");
    let list = |name: &str| format!("[[list]]\nfile = '{}'\n", place.path(name));
    let config = place.config(&format!("{}{}[[origin]]\nas = 64500\nregion = 4\n", list("origins"), list("list")));
    let engine = || {
        let loaded = Loaded::read_partly(&config.inputs(), &config.topology.load().unwrap()).unwrap();
        Engine::start(loaded, None, 1, Instant::now())
    };
    let (_, saved) = engine().encode(0);
    let whole = report::stats(&engine().stats(Instant::now()));
    let rows = place.told(&whole.text);
    let has = |start: &str, end: &str| rows.lines().any(|row| row.starts_with(start) && row.ends_with(end));
    assert!(has("FOLDER/origins", "no [[origin]] has their AS (the first is 198.51.100.0/24 of AS64999)"), "{rows}");
    assert!(has("FOLDER/list", "1"), "{rows}");
    assert_eq!(whole.json["lists"][0]["without_region"], 1);
    fs::remove_file(place.path("list")).unwrap();
    let partly = engine().stats(Instant::now());
    let refused = vec!["origins: it had 2 entries and has 0".to_owned()];
    let told = report::stats(&crate::engine::Stats { refused, ..partly });
    let rows = place.told(&told.text);
    assert!(rows.contains("missing: the saved table stands  FOLDER/list: No such file"), "{rows}");
    assert!(rows.contains("refused: what was there counts   origins: it had 2 entries and has 0"), "{rows}");
    assert_eq!((&told.json["missing"].as_array().unwrap().len(), told.json["settled"].as_bool()), (&1, Some(false)));
    // Why the table says otherwise than what is chosen: a file, not a router.
    let loaded = Loaded::read_partly(&config.inputs(), &config.topology.load().unwrap()).unwrap();
    let engine = Engine::start(loaded, Some(&saved), 1, Instant::now());
    let told = place.told(&report::explanation(&engine.explain("203.0.113.1".parse().unwrap())).text);
    let waits =
        "203.0.113.0/24: not in use yet: the table says region 4 until this can be used: FOLDER/list: No such file";
    assert!(told.contains(waits), "{told}");
}

#[test]
fn a_region_that_nobody_serves_is_told() {
    let place = Place::new();
    place.write("topology.toml", &TOPOLOGY.replace("weight = 1", "weight = 0"));
    place.check("", true, &format!("note: region 4: {}\nok\n", crate::engine::IDLE));
    let config = place.config("");
    let topology = config.topology.load().unwrap();
    let mut engine = Engine::start(Loaded::read(&config.inputs(), &topology).unwrap(), None, 1, Instant::now());
    let told = |engine: &Engine| report::audit(&engine.audit(Instant::now()));
    assert!(told(&engine).text.contains(crate::engine::IDLE), "{}", told(&engine).text);
    assert_eq!(told(&engine).json["regions"][0]["idle"], true);
    // A weight moves no client, and counts here at once.
    place.write("topology.toml", TOPOLOGY);
    engine.sees_topology(&config.topology.load().unwrap());
    assert!(!told(&engine).text.contains(crate::engine::IDLE));
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let place = Self(tempfile::tempdir().unwrap());
        place.write("topology.toml", TOPOLOGY);
        place.write("tokens.toml", "[[token]]\ntoken = 'x0123456789abcdef'\nrole = 'operator'\n");
        fs::set_permissions(place.path("tokens.toml"), fs::Permissions::from_mode(0o600)).unwrap();
        place
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn config(&self, more: &str) -> Config {
        let files = ["topology", "tokens"].map(|key| format!("{key} = '{}'\n", self.path(&format!("{key}.toml"))));
        let text = format!("{}data = '{}'\n{more}", files.concat(), self.path("data"));
        daemon::config::parse(&text, "geo.toml").unwrap()
    }

    /// Without what differs from run to run.
    fn told(&self, text: &str) -> String {
        text.replace(&self.0.path().display().to_string(), "FOLDER")
    }

    #[track_caller]
    fn check(&self, more: &str, good: bool, expected: &str) {
        let answer = check(&self.config(more));
        assert_eq!((self.told(&answer.text).as_str(), answer.good), (expected, good), "{more}");
        assert_eq!(answer.json["ok"], good);
    }
}

const TOPOLOGY: &str = r#"
version = 1
domain = "example.org"
default_region = 4
content_servers = { url = "http://cs{number}", numbers = ["1"] }
region = [{ id = 4, name = "Moscow", latitude = 55.75, longitude = 37.6 }]
group = [{ name = "sun4-1", subnet = "192.0.2.0/24" }]
sun = [{ name = "sun4-1-1", addresses = ["192.0.2.1"], internal = "10.0.0.1:81", weight = 1 }]
"#;
