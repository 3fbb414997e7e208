//! The config files that are shipped: with this machine's paths and addresses in them, and nothing else changed,
//! four shells (content server, API, sun, cache) do what the demo does.

use std::path::{Path, PathBuf};

use tests::origin::Script;
use tests::poll;
use tests::process::Daemon;
use tests::settings::token_file;
use tests::topology::Server;
use tests::world::{API, GEO, World};

use crate::CacheStatus;
use crate::carrying::links;

const SIZE: u64 = 100_000;
const FILE: &str = "c1/a.jpg";

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_configs_carry_a_file_from_shell_to_shell() {
    let world = World::with_api(&["sun1-1-1", "cache1-1"]);
    world.put(FILE, Script::file(SIZE));
    let api = vec![
        (top("listen"), quoted(world.api())),
        (top("admin"), quoted(world.api_admin())),
        (top("topology"), quoted(world.topology_file().display())),
        (top("data"), folder(&world, "api")),
        (top("tokens"), quoted(world.path("tokens.toml").display())),
        (("geo", "prefixes"), prefixes(&world)),
    ];
    let cache = [(top("vault"), folder(&world, "vault"))];
    let cache = cache.into_iter().chain(edge(&world, world.server("cache1-1"), true)).collect();
    let geo = vec![
        (top("listen"), quoted(world.geo())),
        (top("admin"), quoted(world.geo_admin())),
        (top("topology"), quoted(world.topology_file().display())),
        (top("data"), folder(&world, "geo")),
        (top("tokens"), quoted(world.path("tokens.toml").display())),
    ];
    let _geo = start(&world, "geo serve", GEO, geo, world.geo_admin()).await;
    let _api = start(&world, API, API, api, world.api_admin()).await;
    let _sun = start(
        &world,
        "sun",
        "sun1-1-1",
        edge(&world, world.server("sun1-1-1"), false),
        world.server("sun1-1-1").admin(),
    )
    .await;
    let _check =
        start(&world, "sun-check", "sun1-1-1-check", check(&world, world.server("sun1-1-1")), check_admin(&world))
            .await;
    let _cache = start(&world, "cache-daemon", "cache1-1", cache, world.server("cache1-1").admin()).await;

    poll::until_true("a link that names the cache", || async {
        let link = links(&world, 1, &[FILE.to_owned()]).await.links.remove(0);
        let answer = world.client_in(1).get(&link.url.expect("a link")).await.unwrap();
        world.check_whole(FILE, SIZE, &answer);
        link.server.as_deref() == Some("cache1-1") && CacheStatus::of(&answer).says("cache1-1", "hit")
    })
    .await;
}

#[test]
fn every_shipped_config_is_driven_here() {
    let mut files: Vec<String> = std::fs::read_dir(shipped())
        .expect("deploy/config")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    files.sort();
    let driven = ["cache-daemon.toml", "geo.toml", "popularity-api.toml", "sun-check.toml", "sun.toml"];
    let documents = ["tokens.toml", "topology.toml"];
    for file in &files {
        assert!(driven.contains(&file.as_str()) || documents.contains(&file.as_str()), "nothing starts from {file}");
    }
    for file in driven {
        assert!(files.iter().any(|shipped| shipped == file), "{file} is not shipped");
    }
}

/// What must be said of a self-check.
fn check(world: &World, server: &Server) -> Vec<((&'static str, &'static str), String)> {
    vec![
        (top("name"), quoted(&server.name)),
        (top("topology"), quoted(world.topology_file().display())),
        (top("data"), folder(world, "check")),
        (top("admin"), quoted(check_admin(world))),
        (top("internal"), quoted(format!("{}:8084", server.address))),
        (top("tokens"), quoted(world.path("tokens.toml").display())),
        (top("token"), quoted(token_file(world.folder(), &server.name).display())),
        (("probe", "addresses"), format!("[{}]", quoted(server.https()))),
        (("probe", "trust"), quoted(world.certificate.chain.display())),
    ]
}

fn check_admin(world: &World) -> std::net::SocketAddr {
    (world.server("sun1-1-1").address, 9084).into()
}

/// What must be said of an edge, wherever its table is.
fn edge(world: &World, server: &Server, in_cache: bool) -> Vec<((&'static str, &'static str), String)> {
    let table = |of_sun: &'static str, of_cache: &'static str| if in_cache { of_cache } else { of_sun };
    let edge = table("", "edge");
    let certificates = table("certificates", "edge.certificates");
    let popularity = table("popularity", "edge.popularity");
    let own_token = quoted(token_file(world.folder(), &server.name).display());
    vec![
        ((edge, "name"), quoted(&server.name)),
        ((edge, "https"), format!("[{}]", quoted(server.https()))),
        ((edge, "http"), format!("[{}]", quoted(server.http()))),
        ((edge, "internal"), quoted(server.internal())),
        ((edge, "admin"), quoted(server.admin())),
        ((edge, "topology"), quoted(world.topology_file().display())),
        ((edge, "data"), folder(world, &server.name)),
        ((edge, "tokens"), quoted(world.path("tokens.toml").display())),
        ((edge, "token"), own_token.clone()),
        ((table("geo", "edge.geo"), "prefixes"), prefixes(world)),
        ((certificates, "chain"), quoted(world.certificate.chain.display())),
        ((certificates, "key"), quoted(world.certificate.key.display())),
        ((popularity, "url"), quoted(format!("http://{}", world.api()))),
        ((popularity, "token_file"), own_token),
    ]
}

/// Starts a daemon from its shipped file with these values in it.
fn start(
    world: &World,
    program: &str,
    name: &str,
    values: Vec<((&'static str, &'static str), String)>,
    admin: std::net::SocketAddr,
) -> impl Future<Output = Daemon> + use<> {
    let file = shipped().join(format!("{}.toml", program.split(' ').next().unwrap_or(program)));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let text = values.into_iter().fold(text, |text, ((table, key), value)| set(&text, table, key, &value));
    let config = world.path(&format!("{name}.toml"));
    tests::files::write(&config, &text);
    Daemon::start(program, name, &config, admin)
}

/// Gives a key of a table its value. Where key or table are shown commented out, they are no more.
#[track_caller]
fn set(text: &str, table: &str, key: &str, value: &str) -> String {
    let mut current = String::new();
    let mut lines: Vec<String> = Vec::new();
    let mut set = 0;
    for line in text.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let header = bare.trim_matches(['[', ']']);
        if bare.starts_with('[') && !header.contains([' ', ']']) {
            header.clone_into(&mut current);
            lines.push(if current == table { bare.to_owned() } else { line.to_owned() });
        } else if current == table && bare.split(" =").next() == Some(key) {
            set += 1;
            lines.push(format!("{key} = {value}"));
        } else {
            lines.push(line.to_owned());
        }
    }
    assert_eq!(set, 1, "[{table}] {key} is shown {set} times in\n{text}");
    lines.join("\n")
}

const fn top(key: &'static str) -> (&'static str, &'static str) {
    ("", key)
}

fn quoted(value: impl std::fmt::Display) -> String {
    format!("\"{value}\"")
}

fn prefixes(world: &World) -> String {
    format!("[{}]", quoted(world.path("prefixes.txt").display()))
}

/// A folder for state.
fn folder(world: &World, name: &str) -> String {
    let folder = world.path(&format!("{name}.state"));
    std::fs::create_dir_all(&folder).expect("a folder");
    quoted(folder.display())
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("deploy/config")
}

#[test]
fn every_link_of_the_manuals_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for folder in ["", "deploy", "geo", "popularity-api", "sun"] {
        let (text, here) = (std::fs::read_to_string(root.join(folder).join("README.md")).unwrap(), root.join(folder));
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http")) {
            let (file, part) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { here.join("README.md") } else { here.join(file) };
            assert!(file.exists(), "{folder}/README.md: {target}");
            if !part.is_empty() {
                let titles = std::fs::read_to_string(&file).unwrap();
                let has = titles.lines().filter(|line| line.starts_with('#')).any(|title| anchor(title) == part);
                assert!(has, "{folder}/README.md: {target}");
            }
            count += 1;
        }
    }
    assert!(count > 20, "{count} links");
}

/// What a title is linked by.
fn anchor(title: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || "- ".contains(*letter);
    title.trim_start_matches(['#', ' ']).to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}
