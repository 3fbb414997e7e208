//! Parts of files: several in one response, and which of the missing ones are asked for.

use tests::client::Answer;
use tests::origin::{Gate, Script};
use tests::world::World;

const SUN: &str = "sun1-1-1";
const SMALL: u64 = 300_000;
const MIB: u64 = 1 << 20;
const LARGE: u64 = 10 * MIB + 7;

/// First byte of a part, and the one after its last.
type Part = (u64, u64);

#[tokio::test(flavor = "multi_thread")]
async fn several_parts_are_right_from_a_cold_a_partly_cached_and_a_warm_file() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    let cases: &[(u64, &str, &[Part])] = &[
        (SMALL, "bytes=0-99,1000-1099", &[(0, 100), (1000, 1100)]),
        (SMALL, "bytes=200000-200099, 0-0, -10", &[(200_000, 200_100), (0, 1), (SMALL - 10, SMALL)]),
        (SMALL, "bytes=0-99,400000-500000,1000-1099", &[(0, 100), (1000, 1100)]),
        (LARGE, "bytes=0-99,9000000-9000099", &[(0, 100), (9_000_000, 9_000_100)]),
        (LARGE, "bytes=1048500-1048700,5000000-7500000", &[(1_048_500, 1_048_701), (5_000_000, 7_500_001)]),
        (LARGE, "bytes=9000000-9000099,3000000-3000099", &[(9_000_000, 9_000_100), (3_000_000, 3_000_100)]),
        (LARGE, "bytes=-100,0-99,5000000-5000099", &[(LARGE - 100, LARGE), (0, 100), (5_000_000, 5_000_100)]),
    ];
    for (number, (size, header, expected)) in cases.iter().enumerate() {
        for (way, client) in [world.client(), world.client().http2()].into_iter().enumerate() {
            let file = format!("c1/{number}-{way}.mp4");
            world.put(&file, Script::file(*size));
            let url = world.https(SUN, &file);
            for round in ["cold", "partly cached", "warm"] {
                let answer = client.clone().with("range", header).get(&url).await.unwrap();
                assert_eq!((answer.status, answer.header("content-range")), (206, String::new()), "{round} {header}");
                let parts = parts_of(&answer, *size);
                let found: Vec<(u64, u64)> =
                    parts.iter().map(|(start, bytes)| (*start, start + bytes.len() as u64)).collect();
                assert_eq!(found, *expected, "{round} {header}");
                for (start, bytes) in parts {
                    world.origin.pattern(&World::upstream(&file)).check(start, bytes);
                }
                if round == "partly cached" {
                    let whole = client.get(&url).await.unwrap();
                    world.check_whole(&file, *size, &whole);
                }
            }
            let asked = world.origin.requests_for(&World::upstream(&file));
            assert_eq!(bytes_asked(&asked, *size) / MIB, size / MIB, "no extent twice: {header}, {asked:#?}");
        }
    }
}

/// The parts of a multipart answer whose length is as announced and whose parts all say where they belong.
fn parts_of(answer: &Answer, size: u64) -> Vec<(u64, &[u8])> {
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let kind = answer.header("content-type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{kind}"));
    let mut rest = &answer.body[..];
    let mut parts = Vec::new();
    loop {
        rest = rest.strip_prefix(format!("--{boundary}").as_bytes()).expect("a delimiter");
        if rest == b"--\r\n" {
            return parts;
        }
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of a part's head");
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        assert!(head.contains("\r\nContent-Type: image/jpeg\r\n"), "{head}");
        let range = head.split("Content-Range: bytes ").nth(1).expect("a Content-Range").split("\r\n").next().unwrap();
        let (range, of) = range.split_once('/').unwrap();
        assert_eq!(of, size.to_string());
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
        let (bytes, after) = rest[end + 4..].split_at(usize::try_from(last + 1 - first).unwrap());
        parts.push((first, bytes));
        rest = after.strip_prefix(b"\r\n").expect("a line's end after a part");
    }
}

/// Bytes that the content server was asked for, but for the first byte of files whose size was not known.
fn bytes_asked(asked: &[tests::origin::Seen], size: u64) -> u64 {
    let of = |seen: &tests::origin::Seen| {
        let Some(range) = seen.headers.get("range") else { return size };
        let (first, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let last = last.parse().map_or(size, |last: u64| (last + 1).min(size));
        last - first.parse::<u64>().unwrap()
    };
    asked.iter().map(of).filter(|bytes| *bytes > 1).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_which_one_none_or_too_much_is_left_is_no_multipart() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    world.put("c1/a.jpg", Script::file(SMALL));
    let url = world.https(SUN, "c1/a.jpg");
    let many: Vec<String> = (0..65).map(|at| format!("{}-{}", at * 1000, at * 1000 + 9)).collect();
    let cases = [
        ("bytes=0-99,50-149".to_owned(), 206, "bytes 0-149/300000", 150),
        ("bytes=0-99,300000-".to_owned(), 206, "bytes 0-99/300000", 100),
        ("bytes=300000-,400000-500000".to_owned(), 416, "bytes */300000", 0),
        ("bytes=0-,0-,0-,0-,0-".to_owned(), 200, "", SMALL),
        ("bytes=0-1,x".to_owned(), 200, "", SMALL),
        (format!("bytes={}", many.join(",")), 200, "", SMALL),
    ];
    for round in ["cold", "warm"] {
        for (header, status, range, length) in &cases {
            let answer = world.client().with("range", header).get(&url).await.unwrap();
            let found = (answer.status, answer.header("content-range"), answer.body.len() as u64);
            assert_eq!(found, (*status, (*range).to_owned(), *length), "{round} {header}");
            world.origin.pattern("/cs1/a.jpg").check(0, &answer.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_missing_extents_are_asked_for_and_neighbours_in_one_question() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    for (way, client) in [world.client(), world.client().http2()].into_iter().enumerate() {
        let file = format!("c1/{way}.mp4");
        world.put(&file, Script::file(LARGE));
        let url = world.https(SUN, &file);
        let part = |start: u64, end: u64| {
            let client = client.clone().with("range", &format!("bytes={start}-{}", end - 1));
            let (world, url, file) = (&world, &url, &file);
            async move {
                let answer = client.get(url).await.unwrap();
                assert_eq!((answer.status, answer.body.len() as u64), (206, end - start));
                world.origin.pattern(&World::upstream(file)).check(start, &answer.body);
            }
        };
        part(5 * MIB + 10, 5 * MIB + 20).await;
        part(3 * MIB, 10 * MIB).await;
        assert_eq!(asked(&world, &file), ["5-5", "3-4", "6-9"]);
        part(3 * MIB + 1, 9 * MIB + 1).await;
        assert_eq!(asked(&world, &file).len(), 3, "all of it is held");
        let whole = client.get(&url).await.unwrap();
        world.check_whole(&file, LARGE, &whole);
        assert_eq!(asked(&world, &file), ["5-5", "3-4", "6-9", "0-2", "10-10"]);
    }
}

/// Which extents the content server was asked for, from the first to the last of each question.
fn asked(world: &World, file: &str) -> Vec<String> {
    let extents = |seen: tests::origin::Seen| {
        let Some(range) = seen.headers.get("range") else { return "all".to_owned() };
        let (first, last) = range.to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let [first, last] = [first, last].map(|byte| byte.parse().map_or(LARGE, |byte: u64| byte) / MIB);
        format!("{first}-{last}")
    };
    world.origin.requests_for(&World::upstream(file)).into_iter().map(extents).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_fill_brings_is_not_asked_for_again() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    let gate = Gate::closed();
    world.put("c1/a.mp4", Script::file(LARGE).held_at(4 * MIB + 1000, &gate));
    let url = world.https(SUN, "c1/a.mp4");
    let later = world.client().with("range", &format!("bytes={}-", 4 * MIB));
    let later = later.start(hyper::Method::GET, &url).await.unwrap();
    gate.reached().await;
    // The whole file, while its second half is on its way: only the first half is missing.
    let mut whole = world.client().start(hyper::Method::GET, &url).await.unwrap();
    let pattern = world.origin.pattern("/cs1/a.mp4");
    let first = whole.read(4 * MIB as usize + 1000).await.unwrap();
    pattern.check(0, &first);
    gate.open();
    let rest = whole.finish().await.unwrap();
    pattern.check(first.len() as u64, &rest.body);
    assert_eq!((first.len() + rest.body.len()) as u64, LARGE);
    let later = later.finish().await.unwrap();
    pattern.check(4 * MIB, &later.body);
    assert_eq!(asked(&world, "c1/a.mp4"), ["4-10", "0-3"]);
}

/// A slow content server sends a file to one client; another wants its end, which takes no longer for that.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_file_does_not_wait_for_its_beginning() {
    let world = World::new(&[SUN]);
    let _sun = world.start(SUN).await;
    for (file, control) in [("c1/kept.mp4", "max-age=60"), ("c1/not-kept.mp4", "no-store")] {
        let gate = Gate::closed();
        let script = Script::file(LARGE).header("cache-control", control);
        // Held only where the first client is: the end is asked for on its own and comes at once.
        world.put(file, script.clone().held_at(1000, &gate));
        let url = world.https(SUN, file);
        let first = world.client().start(hyper::Method::GET, &url).await.unwrap();
        gate.reached().await;
        world.put(file, script);
        let last = world.client().with("range", "bytes=-100").get(&url).await.unwrap();
        assert_eq!((last.status, last.body.len()), (206, 100));
        world.origin.pattern(&World::upstream(file)).check(LARGE - 100, &last.body);
        gate.open();
        let answer = first.finish().await.unwrap();
        world.check_whole(file, LARGE, &answer);
    }
}
