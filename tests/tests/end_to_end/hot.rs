//! A file that one sun is not enough for: shared between the suns of its region, whatever links are still out; and
//! files that changed their owner.

use std::collections::BTreeSet;

use hyper::Method;
use tests::client::{Answer, Connection};
use tests::origin::Script;
use tests::poll;
use tests::process::{Daemon, run};
use tests::settings::{token, token_file};
use tests::world::{API, World, owner};

use crate::carrying::links;
use crate::{CacheStatus, until_hit};

const SUNS: [&str; 4] = ["sun1-1-1", "sun1-1-2", "sun1-1-3", "sun1-1-4"];
const SIZE: u64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_file_is_shared_by_all_suns_also_for_links_already_out() {
    let world = World::with_api(&SUNS);
    // A test makes few requests a second.
    let _api = world.start_with(API, |settings| settings.more = "hot.requests_min = 1.0".to_owned()).await;
    let suns = start(&world).await;
    let viral = &world.files_owned_by(SUNS[0], "viral", 1)[0];
    world.put(viral, Script::file(SIZE));
    let mut crowd = Crowd::new(&world).await;

    // A third of all requests, all by a link from before: until each sun has served the file, and links name them all.
    let (mut served, mut named) = (BTreeSet::new(), BTreeSet::new());
    for round in 0.. {
        crowd.others().await;
        for _ in 0..2 {
            served.insert(crowd.by_old_link(viral).await);
        }
        if round % 10 == 0 {
            named.insert(links(&world, 1, std::slice::from_ref(viral)).await.links.remove(0).server.unwrap());
        }
        if served.len() == SUNS.len() && named.len() == SUNS.len() {
            break;
        }
        crowd.check_patience(&format!("served by {served:?}, named by links: {named:?}"));
    }

    assert_eq!(world.fetches(viral), 1, "one copy comes from the content server, the others from its owner");
    assert!(sum(&suns, "edge_hot_redirects_total").await >= 3.0);
    // Five files at most are hot, the viral one and one of each sun.
    let copies = sum(&suns, "edge_hot_copies").await as usize;
    assert!((SUNS.len() - 1..=5 * (SUNS.len() - 1)).contains(&copies), "{copies} extra copies");
    // The operator sees the file and who shares it.
    let (api, token_file) = (format!("http://{}", world.api()), token_file(world.folder(), "operator"));
    let asked = ["hot", "1", "--api", &api, "--token-file", token_file.to_str().unwrap()];
    let told = tokio::task::block_in_place(|| run("sunctl", &asked));
    let line = told.out.lines().find(|line| line.contains(viral.as_str()));
    let line = line.unwrap_or_else(|| panic!("{}{} has no line of {viral}", told.out, told.err));
    assert!(SUNS.iter().all(|sun| line.contains(sun)), "{line}");
    // Servers are never sent on.
    let internal = format!("http://{}/{viral}", world.server(SUNS[0]).internal());
    let server = world.client().with("authorization", &format!("Bearer {}", token(SUNS[1])));
    for _ in 0..30 {
        assert_eq!(server.get(&internal).await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_is_away_an_owner_still_shares_what_it_sees_hot() {
    let world = World::new(&SUNS);
    let suns = start(&world).await;
    let viral = &world.files_owned_by(SUNS[0], "viral", 1)[0];
    world.put(viral, Script::file(SIZE));
    let mut crowd = Crowd::new(&world).await;
    let mut served = BTreeSet::new();
    while served.len() < SUNS.len() {
        served.insert(crowd.by_old_link(viral).await);
        crowd.check_patience(&format!("served by {served:?}"));
    }
    assert_eq!(world.fetches(viral), 1);
    assert!(sum(&suns, "edge_hot_redirects_total").await >= 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_switch_nobody_is_sent_on() {
    let world = World::new(&SUNS);
    let mut suns = Vec::new();
    for name in SUNS {
        suns.push(world.start_with(name, |settings| settings.more = "hot.redirect = false".to_owned()).await);
    }
    let viral = &world.files_owned_by(SUNS[0], "viral", 1)[0];
    world.put(viral, Script::file(SIZE));
    let mut crowd = Crowd::new(&world).await;
    // Until the sun itself counts the file as hot.
    while suns[0].metrics().await.sum("edge_hot_files", &[]) != Some(1.0) {
        for _ in 0..50 {
            assert_eq!(crowd.by_old_link(viral).await, SUNS[0]);
        }
        crowd.check_patience("the owner sees no hot file");
    }
    assert_eq!(sum(&suns, "edge_hot_redirects_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_weight_change_files_come_from_their_previous_owner() {
    let world = World::new(&SUNS);
    let suns = start(&world).await;
    let mut files: Vec<String> = SUNS.iter().flat_map(|sun| world.files_owned_by(sun, "moved", 12)).collect();
    // Larger than an extent.
    let large = world.files_owned_by(SUNS[0], "large", 4);
    files.extend(large.clone());
    let size = |file: &String| if large.contains(file) { 2_500_000 } else { SIZE };
    for file in &files {
        world.put(file, Script::file(size(file)));
        let url = world.https(&owner(&world.topology.parsed(), 1, file), file);
        until_hit(&world, &world.client(), &url, file, size(file)).await;
    }

    let before = world.topology.parsed();
    let mut changed = world.topology.clone();
    changed.set_weight(SUNS[0], 10);
    world.write_topology(&changed);
    for sun in &suns {
        poll::until_true("the new topology", || async {
            sun.metrics().await.sum("edge_topology_version", &[]) == Some(changed.version as f64)
        })
        .await;
    }
    let after = changed.parsed();
    let moved: Vec<&String> = files.iter().filter(|file| owner(&before, 1, file) != owner(&after, 1, file)).collect();
    assert!(moved.len() >= 8 && moved.iter().any(|file| large.contains(file)), "{moved:?}");
    for &file in &moved {
        let (previous, now) = (owner(&before, 1, file), owner(&after, 1, file));
        let answer = world.client().get(&world.https(&now, file)).await.unwrap();
        world.check_whole(file, size(file), &answer);
        assert_eq!(CacheStatus::of(&answer).servers(), [previous, now.clone()], "{file}");
        until_hit(&world, &world.client(), &world.https(&now, file), file, size(file)).await;
    }
    for file in &files {
        assert_eq!(world.fetches(file), 1, "{file}: not once more");
    }
    assert!(sum_of(&suns, "edge_fills_total", &["source=\"former\""]).await >= moved.len() as f64);

    // What nobody holds comes from the content server.
    let names = (0..).map(|number| format!("c1/new{number}.jpg"));
    let mut names = names.filter(|file| owner(&before, 1, file) != owner(&after, 1, file));
    let new = names.next().unwrap();
    world.put(&new, Script::file(SIZE));
    let answer = world.client().get(&world.https(&owner(&after, 1, &new), &new)).await.unwrap();
    world.check_whole(&new, SIZE, &answer);
    assert_eq!(world.fetches(&new), 1);
}

async fn start(world: &World) -> Vec<Daemon> {
    let mut suns = Vec::new();
    for name in SUNS {
        suns.push(world.start(name).await);
    }
    suns
}

async fn sum(suns: &[Daemon], metric: &str) -> f64 {
    sum_of(suns, metric, &[]).await
}

async fn sum_of(suns: &[Daemon], metric: &str, labels: &[&str]) -> f64 {
    let mut sum = 0.0;
    for sun in suns {
        sum += sun.metrics().await.sum(metric, labels).unwrap_or(0.0);
    }
    sum
}

/// Users that keep a connection to each sun.
struct Crowd<'a> {
    world: &'a World,
    connections: Vec<Connection>,
    others: Vec<String>,
    began: std::time::Instant,
}

impl<'a> Crowd<'a> {
    async fn new(world: &'a World) -> Self {
        let mut connections = Vec::new();
        for sun in SUNS {
            connections.push(world.client().connect(&world.http(sun, "c1/any.jpg")).await.unwrap());
        }
        let others: Vec<String> = SUNS.iter().map(|sun| world.files_owned_by(sun, "other", 1).remove(0)).collect();
        others.iter().for_each(|file| world.put(file, Script::file(SIZE)));
        Self { world, connections, others, began: std::time::Instant::now() }
    }

    /// A request of each sun for a file of its own. With so few files these are hot as well.
    async fn others(&mut self) {
        for (place, file) in self.others.clone().iter().enumerate() {
            self.by_link(place, file).await;
        }
    }

    /// By a link from before, which names the owner; who served it.
    async fn by_old_link(&mut self, file: &str) -> String {
        self.by_link(0, file).await
    }

    /// By a signed link that names the sun at `place`, which owns the file; who served it.
    async fn by_link(&mut self, place: usize, file: &str) -> String {
        let answer = self.get(place, file, "?expires=1&signature=2").await;
        if answer.status == 200 {
            self.world.check_whole(file, SIZE, &answer);
            return SUNS[place].to_owned();
        }
        assert_eq!((answer.status, answer.header("cache-control").as_str()), (307, "no-store"));
        let location = answer.header("location");
        let whose = |sun: &&str| location == format!("{}?expires=1&signature=2", self.world.http(sun, file));
        let sibling = SUNS.iter().position(whose).unwrap_or_else(|| panic!("sent on to {location:?}"));
        assert_ne!(sibling, place, "sent on to itself");
        let answer = self.get(sibling, file, "?expires=1&signature=2").await;
        // Whole, and not sent on once more.
        self.world.check_whole(file, SIZE, &answer);
        SUNS[sibling].to_owned()
    }

    async fn get(&mut self, place: usize, file: &str, query: &str) -> Answer {
        let url = format!("{}{query}", self.world.http(SUNS[place], file));
        let request = self.world.client().request(Method::GET, &url, "").unwrap();
        let response = self.connections[place].send(request).await.unwrap();
        tests::poll::within("the end of the body", response.finish()).await.unwrap()
    }

    #[track_caller]
    fn check_patience(&self, state: &str) {
        assert!(self.began.elapsed() < poll::DEADLINE, "{state}");
    }
}
