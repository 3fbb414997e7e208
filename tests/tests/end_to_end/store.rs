//! The NVMe tier: it outlives kill -9, and what its file loses or twists is fetched again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use tests::origin::Script;
use tests::poll;
use tests::process::Daemon;
use tests::world::World;

use crate::CacheStatus;

const SUN: &str = "sun1-1-1";
const SMALL: (&str, u64) = ("c1/small.jpg", 300_000);
/// Three extents and a bit.
const LARGE: (&str, u64) = ("c1/large.mp4", 3_400_000);
const STORE_BYTES: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_sun_comes_back_warm_after_kill_9() {
    let (world, mut sun) = filled().await;
    sun.kill();
    world.origin.stop();
    sun.restart().await;
    for (file, size) in [SMALL, LARGE] {
        let answer = world.client().get(&world.https(SUN, file)).await.unwrap();
        world.check_whole(file, size, &answer);
        assert!(CacheStatus::of(&answer).says(SUN, "hit"), "{answer:?}");
    }
    let range = world.client().with("range", "bytes=2000000-2000999");
    let answer = range.get(&world.https(SUN, LARGE.0)).await.unwrap();
    assert_eq!(answer.status, 206);
    world.origin.pattern("/cs1/large.mp4").check(2_000_000, &answer.body);
    let metrics = sun.metrics().await;
    assert!(metrics.sum("edge_requests_total", &["outcome=\"store\""]).unwrap() >= 2.0);
    assert_eq!(metrics.sum("edge_store_corrupt_total", &[]), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_store_is_fetched_again() {
    let (world, mut sun) = filled().await;
    sun.kill();
    let file = store_file(&world);
    for (name, at) in [(SMALL.0, 123_456), (LARGE.0, 2_500_000)] {
        let place = find(&world, name, at);
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 1], place).unwrap();
    }
    sun.restart().await;
    serves_right_bytes(&world).await;
    assert_eq!((world.fetches(SMALL.0), world.fetches(LARGE.0)), (2, 2), "what was flipped, once more");
    assert_eq!(sun.metrics().await.sum("edge_store_corrupt_total", &[]), Some(2.0));
    let again = world.origin.requests_for(&World::upstream(LARGE.0))[1].clone();
    assert_eq!(again.headers["range"], "bytes=2097152-3145727", "only the extent that was flipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_cut_under_a_running_sun_costs_a_fetch() {
    let (world, mut sun) = filled().await;
    sun.kill();
    sun.restart().await;
    store_file(&world).set_len(1 << 20).unwrap();
    serves_right_bytes(&world).await;
    // Each extent is known to be missing only when it is asked for.
    assert_eq!((world.fetches(SMALL.0), world.fetches(LARGE.0)), (2, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_room_is_left_alone() {
    let world = World::new(&[SUN]);
    let Some(mounted) = Mounted::new(&world.path("full"), "24M") else {
        eprintln!("skipped: mounting a loop device needs root and loop devices");
        return;
    };
    let mut sun = world
        .start_with(SUN, |settings| {
            settings.more += &format!("\nstore = [{{ path = {:?}, bytes = {STORE_BYTES} }}]", mounted.at);
        })
        .await;
    put(&world);
    serves_right_bytes(&world).await;
    assert_eq!(sun.metrics().await.sum("edge_store_up", &[]), Some(0.0));
    assert!(sun.log().contains("No space left"), "{}", sun.log());
    sun.kill();
}

/// A sun whose store holds both files, written.
async fn filled() -> (World, Daemon) {
    let world = World::new(&[SUN]);
    let folder = world.path("store");
    std::fs::create_dir_all(&folder).unwrap();
    let store = format!("\nstore = [{{ path = {folder:?}, bytes = {STORE_BYTES} }}]");
    let sun = world.start_with(SUN, |settings| settings.more += &store).await;
    put(&world);
    serves_right_bytes(&world).await;
    // Two heads and four extents.
    poll::until_true("the files are in the store", || async {
        sun.metrics().await.sum("edge_store_entries", &[]) == Some(6.0)
    })
    .await;
    (world, sun)
}

fn put(world: &World) {
    for (file, size) in [SMALL, LARGE] {
        world.put(file, Script::file(size));
    }
}

async fn serves_right_bytes(world: &World) {
    for (file, size) in [SMALL, LARGE] {
        let answer = world.client().get(&world.https(SUN, file)).await.unwrap();
        world.check_whole(file, size, &answer);
    }
}

fn store_file(world: &World) -> File {
    OpenOptions::new().read(true).write(true).open(world.path("store").join("blocks.sun")).unwrap()
}

/// Where the byte at `at` of a file lies in the store.
fn find(world: &World, name: &str, at: u64) -> u64 {
    let store = std::fs::read(world.path("store").join("blocks.sun")).unwrap();
    let pattern = world.origin.pattern(&World::upstream(name));
    let wanted = pattern.bytes(at, 64);
    store.windows(64).position(|window| window == wanted).expect("the file is in the store") as u64
}

/// A small filesystem in a file, unmounted when it is dropped.
pub(crate) struct Mounted {
    pub(crate) at: PathBuf,
}

impl Mounted {
    pub(crate) fn new(at: &std::path::Path, size: &str) -> Option<Self> {
        let image = at.with_extension("img");
        let run = |program: &str, arguments: &[&str]| {
            Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
        };
        std::fs::create_dir_all(at).unwrap();
        let (image, folder) = (image.to_str().unwrap(), at.to_str().unwrap());
        let mounted = run("truncate", &["-s", size, image])
            && run("mkfs.ext4", &["-q", "-F", image])
            && run("mount", &["-o", "loop", image, folder]);
        mounted.then(|| Self { at: at.to_owned() })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.at).status();
    }
}
