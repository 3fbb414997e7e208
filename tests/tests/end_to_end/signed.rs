//! Links that are good for a while: made by the API, by `sunctl` and by a back end of another language, checked by suns and
//! caches, and of no consequence for what is fetched and kept.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use geo::topology::Covers;
use popularity_api::signing::Keys;
use tests::client::Answer;
use tests::origin::Script;
use tests::poll;
use tests::process::{Daemon, run};
use tests::settings::Settings;
use tests::topology::HTTP_PORT;
use tests::world::{API, World, owner};

use crate::carrying::links;
use crate::{CacheStatus, check_done, text};

const SUNS: [&str; 2] = ["sun1-1-1", "sun1-1-2"];
const SIZE: u64 = 20_000;
const CLASSES: &str = "[[class]]\nname = \"private\"\npaths = [\"c1/private/*\"]\nsigned = true\nlink_ttl_s = 60\n\
    [[class]]\nname = \"films\"\npaths = [\"c1/films/*\"]\nsigned = true\nlink_covers = \"folder\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_file_is_served_by_its_link_and_fetched_once_whatever_the_signature() {
    let world = world(&["sun1-1-1", "sun1-1-2", "cache1-1"], "key = \"a\"");
    let _daemons = start(&world, &["sun1-1-1", "sun1-1-2", "cache1-1"]).await;
    let file = "c1/private/a.jpg";
    world.put(file, Script::file(SIZE));
    let link = links(&world, 1, &[file.to_owned()]).await.links.remove(0);
    let signed = link.explain.unwrap().signed.unwrap();
    assert_eq!((signed.key.as_str(), signed.covers.as_str()), ("a", "file"));
    let url = link.url.unwrap();
    world.check_whole(file, SIZE, &world.client().get(&url).await.unwrap());

    let (_, path) = path_of(&url);
    let owner = owner(&world.topology.parsed(), 1, file);
    let other = SUNS.into_iter().find(|sun| *sun != owner).unwrap();
    // Any sun takes it, with any good signature; suns and caches ask each other without.
    for server in [other, owner.as_str(), "cache1-1"] {
        for path in [path.clone(), made(file, Covers::File, "a", now() + 30)] {
            world.check_whole(file, SIZE, &world.client().get(&world.https(server, &path)).await.unwrap());
        }
        check(&world, server, file, 403, "this file is served with signed links only").await;
        check(&world, server, &made(file, Covers::File, "a", now() - 31), 403, "the link has expired").await;
        let folders = made(file, Covers::Folder, "a", now() + 30);
        check(&world, server, &folders, 403, "does not fit this file").await;
        check(&world, server, &made(file, Covers::File, "b", now() + 30), 403, "a key that is not accepted").await;
        check(&world, server, &path.replace("a.jpg", "b.jpg"), 403, "does not fit this file").await;
        check(&world, server, &path.replace("k=a", "k=a&k=a"), 403, "is damaged").await;
    }
    assert_eq!(world.fetches(file), 1, "signatures are no part of its name");
    let hit = world.client().get(&world.https(&owner, &path)).await.unwrap();
    assert!(CacheStatus::of(&hit).is_hit());
    let head = world.client().head(&world.https(&owner, file)).await.unwrap();
    assert_eq!(head.status, 403, "not even its length");
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_of_a_playlist_inherit_its_signature() {
    let world = world(&["sun1-1-1"], "key = \"a\"");
    let daemons = start(&world, &["sun1-1-1"]).await;
    let (playlist, segment, foreign) = ("c1/films/7/master.m3u8", "c1/films/7/720p/1.ts", "c1/films/8/720p/1.ts");
    for file in [playlist, segment, foreign] {
        world.put(file, Script::file(SIZE));
    }
    let link = links(&world, 1, &[playlist.to_owned()]).await.links.remove(0);
    assert_eq!(link.explain.unwrap().signed.unwrap().covers, "folder /c1/films/7/");
    let url = link.url.unwrap();
    world.check_whole(playlist, SIZE, &world.client().get(&url).await.unwrap());
    let (base, _) = url.rsplit_once('/').unwrap();
    world.check_whole(segment, SIZE, &world.client().get(&format!("{base}/720p/1.ts")).await.unwrap());
    // As a player resolves ../8/720p/1.ts.
    let (above, _) = base.rsplit_once('/').unwrap();
    let answer = world.client().get(&format!("{above}/8/720p/1.ts")).await.unwrap();
    assert_eq!((answer.status, answer.text().contains("does not fit")), (403, true), "{}", answer.text());
    assert_eq!((world.fetches(segment), world.fetches(foreign)), (1, 0));

    // curl, without TLS.
    let (_, path) = path_of(&url);
    let host = world.server("sun1-1-1").host();
    let resolve = format!("{host}:{HTTP_PORT}:{}", world.server("sun1-1-1").address);
    let http = format!("http://{host}:{HTTP_PORT}/{path}");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", &resolve, &http]);
    let said = tokio::task::block_in_place(|| curl.output().expect("curl"));
    assert_eq!(String::from_utf8_lossy(&said.stdout), "200", "{}", String::from_utf8_lossy(&said.stderr));
    let metrics = daemons[1].metrics().await;
    assert_eq!(metrics.sum("edge_signatures_total", &["verdict=\"good\""]), Some(3.0));
    assert_eq!(metrics.sum("edge_signatures_total", &["verdict=\"wrong\""]), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_under_load_and_no_link_breaks() {
    let world = world(&SUNS, "key = \"a\"");
    let daemons = start(&world, &SUNS).await;
    let files: Vec<String> = (0..8).map(|n| format!("c1/private/{n}.jpg")).collect();
    files.iter().for_each(|file| world.put(file, Script::file(SIZE)));
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = async {
        while !stop.load(Ordering::Relaxed) {
            for (link, file) in links(&world, 1, &files).await.links.into_iter().zip(&files) {
                world.check_whole(file, SIZE, &followed(&world, &link.url.unwrap()).await);
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let change = async {
        let by_a = links(&world, 1, &files[..1]).await.links.remove(0).url.unwrap();
        write_keys(&world, &["a", "b"]);
        let steps = ["key = \"a\"\naccepted = [\"b\"]", "key = \"b\"\naccepted = [\"a\"]", "key = \"b\""];
        for (version, signing) in (2..).zip(steps) {
            write_topology(&world, signing, version);
            for daemon in &daemons {
                until_followed(daemon, version).await;
            }
            let status = followed(&world, &by_a).await.status;
            assert_eq!(status, if version < 4 { 200 } else { 403 }, "a link of the first key, at {version}");
            let before = served.load(Ordering::Relaxed);
            poll::until_true("more links", || async { served.load(Ordering::Relaxed) > before + 20 }).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, change);
    for daemon in &daemons[1..] {
        let metrics = daemon.metrics().await;
        let broken = |verdict: &str| metrics.sum("edge_signatures_total", &[verdict]).unwrap_or(0.0);
        assert_eq!(broken("verdict=\"no_secret\"") + broken("verdict=\"wrong\"") + broken("verdict=\"expired\""), 0.0);
    }
}

/// As a browser: what has become hot may be had from another sun, which the signature is carried to.
async fn followed(world: &World, url: &str) -> Answer {
    let answer = world.client().get(url).await.unwrap();
    match answer.headers.get("location").filter(|_| answer.status == 307) {
        Some(sibling) => world.client().get(sibling.to_str().unwrap()).await.unwrap(),
        None => answer,
    }
}

/// The daemon goes by this version of the topology, and has no signing key missing.
async fn until_followed(daemon: &Daemon, version: u32) {
    poll::until_true("the new topology and its keys", || async {
        let metrics = daemon.metrics().await;
        let is = |of: &str, value: u32| {
            ["edge", "popularity"]
                .iter()
                .any(|kind| metrics.sum(&format!("{kind}_{of}"), &[]) == Some(f64::from(value)))
        };
        is("topology_version", version) && is("signing_keys_lacking", 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sunctl_and_back_ends_make_the_same_links() {
    let world = world(&["sun1-1-1"], "key = \"a\"");
    let keys = world.path("keys.toml");
    let topology = world.topology_file();
    let sign = |link: &str| {
        let arguments = ["sign", link, "--keys", text(&keys), "--topology", text(&topology)];
        tokio::task::block_in_place(|| run("sunctl", &arguments))
    };
    let done = sign("https://sun1-1-1.cdn.test:8443/c1/private/a.jpg");
    check_done(&done, 0, &["https://sun1-1-1.cdn.test:8443/c1/private/a.jpg?e=", "&k=a&s="]);
    check_done(&sign("c1/films/7/a.m3u8"), 0, &["/s.", ".3.a.", "/c1/films/7/a.m3u8"]);
    check_done(&sign("c1/open.jpg"), 1, &["for how long?"]);
    check_done(&tokio::task::block_in_place(|| run("sunctl", &["keys", "new", "2026b"])), 0, &["2026b = \""]);

    // The example of sun/README.md, as it stands there.
    let readme = include_str!("../../../sun/README.md");
    let example = readme.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let ask = format!(
        "{example}\nprint(file_link('', '/c1/private/a.jpg', 'a', 'aa' * 32, 1893456000))\n\
         print(folder_link('', '/c1/films/7/', '720p/1.ts', 'a', 'aa' * 32, 1893456000))\n"
    );
    let said = tokio::task::block_in_place(|| Command::new("python3").args(["-c", &ask]).output().expect("python3"));
    let expected = format!(
        "/{}\n/{}\n",
        made("c1/private/a.jpg", Covers::File, "a", 1_893_456_000),
        made("c1/films/7/master.m3u8", Covers::Folder, "a", 1_893_456_000).replace("master.m3u8", "720p/1.ts")
    );
    assert_eq!(String::from_utf8_lossy(&said.stdout), expected, "{}", String::from_utf8_lossy(&said.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_key_says_so() {
    let world = world(&["sun1-1-1"], "key = \"b\"");
    let config = world.write_config("sun1-1-1", |settings| settings.more = more(&world));
    let done = tokio::task::block_in_place(|| run("sun", &["--config", text(&config), "--check"]));
    check_done(&done, 1, &["signing_keys: the key \"b\", which the topology names, is not there"]);
    let daemons = start(&world, &["sun1-1-1"]).await;
    let link = links(&world, 1, &["c1/private/a.jpg".to_owned()]).await.links.remove(0);
    assert!(link.error.unwrap().contains("has no key for it"));
    check(&world, "sun1-1-1", &made("c1/private/a.jpg", Covers::File, "b", now() + 30), 503, "does not have the key")
        .await;
    poll::until_true("the gauge", || async {
        daemons[1].metrics().await.sum("edge_signing_keys_lacking", &[]) == Some(1.0)
    })
    .await;
    // It is brought, and counts within a second or two.
    write_keys(&world, &["a", "b"]);
    world.put("c1/private/a.jpg", Script::file(SIZE));
    poll::until_true("the key", || async {
        let url = world.https("sun1-1-1", &made("c1/private/a.jpg", Covers::File, "b", now() + 30));
        world.client().get(&url).await.unwrap().status == 200
    })
    .await;
}

/// A world whose servers have the key `a`, with an API.
fn world(servers: &[&str], signing: &str) -> World {
    let mut world = World::with_api(servers);
    world.topology.classes = CLASSES.to_owned();
    write_keys(&world, &["a"]);
    write_topology(&world, signing, 1);
    world.topology.classes = format!("{CLASSES}\n[signing]\n{signing}\n");
    world
}

fn write_topology(world: &World, signing: &str, version: u32) {
    let mut topology = world.topology.clone();
    topology.classes = format!("{CLASSES}\n[signing]\n{signing}\n");
    topology.version = u64::from(version);
    world.write_topology(&topology);
}

fn write_keys(world: &World, ids: &[&str]) {
    tests::files::write(&world.path("keys.toml"), &key_file(ids));
}

fn key_file(ids: &[&str]) -> String {
    ids.iter().fold("[keys]\n".to_owned(), |text, id| format!("{text}{id} = \"{}\"\n", id.repeat(64)))
}

fn more(world: &World) -> String {
    format!("signing_keys = {:?}", world.path("keys.toml"))
}

/// The API and these servers.
async fn start(world: &World, servers: &[&str]) -> Vec<Daemon> {
    let mut daemons = Vec::new();
    for name in [API].iter().chain(servers) {
        let own = |settings: &mut Settings| {
            settings.more = more(world);
            // One that carries fetches on its own account.
            settings.api = settings.api.filter(|_| !name.starts_with("cache"));
        };
        daemons.push(world.start_with(name, own).await);
    }
    daemons
}

/// The path of a signed link, without the slash.
fn made(file: &str, covers: Covers, key: &str, expires_s: u64) -> String {
    let keys = Keys::parse(&key_file(&["a", "b"])).unwrap();
    let mut path = Vec::new();
    keys.signer_of(key).unwrap().write_path(&mut path, file, covers, expires_s);
    String::from_utf8(path.split_off(1)).unwrap()
}

/// Origin and path, without the slash between them.
fn path_of(url: &str) -> (String, String) {
    let (origin, path) = url[8..].split_once('/').unwrap();
    (origin.to_owned(), path.to_owned())
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

async fn check(world: &World, server: &str, path: &str, status: u16, says: &str) {
    let answer: Answer = world.client().get(&world.https(server, path)).await.unwrap();
    assert_eq!(answer.status, status, "{server} {path}: {}", answer.text());
    assert!(answer.text().contains(says), "{server} {path}: {}", answer.text());
}
