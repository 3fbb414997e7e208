//! What responses and requests say about being kept (RFC 9111), on a site under the policy "rfc" where nothing else is
//! said. The public conformance suite judges the details; here is what it does not see: many clients at once.

use hyper::Method;
use tests::client::{Answer, Client};
use tests::origin::{Gate, Script};
use tests::poll;
use tests::process::Daemon;
use tests::world::{API, World};
use tokio::task::JoinSet;

use crate::CacheStatus;

const SUN: &str = "sun1-1-1";
const SITE: &str = "www.site.test";
const SIZE: u64 = 1000;

/// The answer made for one of many who wait together never reaches another, and nobody waits for another's.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_one_client_reaches_no_other() {
    let (world, _sun) = world().await;
    for said in ["private, max-age=60", "no-store", "max-age=0", "no-cache"] {
        let file = format!("c1/{}", said.split([',', '=']).next().unwrap());
        let gate = Gate::closed();
        let script = Script::file(0).echoing("x-client").header("cache-control", said);
        world.put(&file, script.head_held_for(&gate, 1));
        let clients = crowd(&world, &file, 50).await;
        gate.reached().await;
        gate.open();
        for (client, answer) in everybody(clients).await {
            assert_eq!((answer.status, answer.text()), (200, client), "{said}");
        }
        assert_eq!(world.fetches(&file), 50, "{said}: each asked for themselves");
    }
}

/// What is for everybody is asked for once.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_for_everybody_is_one_question() {
    let (world, _sun) = world().await;
    let gate = Gate::closed();
    let script = Script::file(0).echoing("x-client").header("cache-control", "max-age=60");
    world.put("c1/a", script.head_held(&gate));
    let first = tokio::spawn(get(visitor(&world).with("x-client", "first"), url("a")));
    gate.reached().await;
    let clients = crowd(&world, "c1/a", 50).await;
    gate.open();
    assert_eq!(first.await.unwrap().text(), "first");
    for (_, answer) in everybody(clients).await {
        assert_eq!(answer.text(), "first");
    }
    assert_eq!(world.fetches("c1/a"), 1);
}

/// Also when the one who asked first is of another variant than those who wait.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_their_own_variant() {
    let (world, _sun) = world().await;
    let gate = Gate::closed();
    let script = Script::file(0).echoing("accept-language").header("cache-control", "max-age=60");
    world.put("c1/a", script.header("vary", "Accept-Language").head_held_for(&gate, 1));
    let mut clients = JoinSet::new();
    for number in 0..30 {
        let language = ["en", "de", "fr"][number % 3];
        clients.spawn(said(visitor(&world), "accept-language", language, url("a")));
    }
    gate.reached().await;
    gate.open();
    for (language, answer) in everybody(clients).await {
        assert_eq!(answer.text(), language);
    }
    assert_eq!(world.fetches("c1/a"), 3, "one question a variant");
    let again = get(visitor(&world).with("accept-language", "DE"), url("a")).await;
    assert!(CacheStatus::of(&again).is_hit() && again.text() == "de");
}

/// Stale at birth, so that no test waits for time to pass.
fn stale(more: &str) -> Script {
    Script::file(SIZE).header("age", "100").header("cache-control", &format!("max-age=50{more}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_is_served_while_it_is_asked_about() {
    let (world, _sun) = world().await;
    world.put("c1/a", stale(", stale-while-revalidate=3600"));
    let first = get(visitor(&world), url("a")).await;
    world.check_whole("c1/a", SIZE, &first);
    let gate = Gate::closed();
    let newer = Script::file(SIZE).version(1).header("cache-control", "max-age=60").head_held(&gate);
    world.put("c1/a", newer);
    for _ in 0..3 {
        let answer = get(visitor(&world), url("a")).await;
        assert_eq!(answer.body, first.body, "while the content server says nothing");
        assert!(CacheStatus::of(&answer).says(SUN, "detail=stale-while-revalidate"), "{:?}", answer.headers);
    }
    gate.reached().await;
    assert_eq!(world.fetches("c1/a"), 2, "one question behind all of them");
    gate.open();
    poll::until_true("the newer version", || async { get(visitor(&world), url("a")).await.body != first.body }).await;
    world.check_whole("c1/a", SIZE, &get(visitor(&world), url("a")).await);
    assert_eq!(world.fetches("c1/a"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_covers_for_a_content_server_that_fails_unless_it_says_no() {
    let (world, _sun) = world().await;
    for (name, more) in
        [("a", ", stale-if-error=3600"), ("b", ""), ("c", ", must-revalidate"), ("d", ", proxy-revalidate")]
    {
        world.put(&format!("c1/{name}"), stale(more));
        assert_eq!(get(visitor(&world), url(name)).await.status, 200);
    }
    world.origin.stop();
    for name in ["a", "b"] {
        let answer = get(visitor(&world), url(name)).await;
        world.check_whole(&format!("c1/{name}"), SIZE, &answer);
        assert!(CacheStatus::of(&answer).says(SUN, "detail=stale-if-error"), "{:?}", answer.headers);
    }
    for name in ["c", "d"] {
        assert_eq!(get(visitor(&world), url(name)).await.status, 502, "{name}");
    }
    let insisting = get(visitor(&world).with("cache-control", "no-cache"), url("a")).await;
    assert_eq!(insisting.status, 502);
    let cached = get(visitor(&world).with("cache-control", "only-if-cached"), url("nothing")).await;
    assert_eq!(cached.status, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_makes_what_is_kept_invalid() {
    let (world, _sun) = world().await;
    let fresh = || Script::file(SIZE).header("cache-control", "max-age=60").any_method();
    for method in ["POST", "PUT", "DELETE", "M-SEARCH"] {
        let file = format!("c1/{method}");
        world.put(&file, fresh());
        get(visitor(&world), url(method)).await;
        assert!(CacheStatus::of(&get(visitor(&world), url(method)).await).is_hit());
        world.put(&file, Script::status(500));
        let failed = send(&world, method, &url(method)).await;
        assert_eq!(failed.status, 500);
        assert!(CacheStatus::of(&get(visitor(&world), url(method)).await).is_hit(), "{method}: nothing was changed");
        world.put(&file, fresh().version(1));
        assert_eq!(send(&world, method, &url(method)).await.status, 200);
        let answer = get(visitor(&world), url(method)).await;
        assert!(!CacheStatus::of(&answer).is_hit(), "{method}: {:?}", answer.headers);
        world.check_whole(&file, SIZE, &answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_file_are_kept_put_together_and_become_the_file() {
    let (world, _sun) = world().await;
    world.put("c1/a", Script::file(SIZE).header("cache-control", "max-age=60"));
    let pattern = world.origin.pattern("/cs1/a");
    // What is asked for, from where on, and how many questions the content server has heard by then.
    for (range, start, questions) in [
        ("bytes=-100", 900, 1),
        ("bytes=-50", 950, 1),
        ("bytes=920-", 920, 1),
        ("bytes=-200", 800, 2),
        ("bytes=850-999", 850, 2),
        ("bytes=-1000", 0, 3),
        ("bytes=0-999", 0, 3),
    ] {
        let answer = get(visitor(&world).with("range", range), url("a")).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {start}-999/1000"), "{range}");
        pattern.check(start, &answer.body);
        assert_eq!(answer.body.len() as u64, SIZE - start, "{range}");
        assert_eq!(world.fetches("c1/a"), questions, "{range}");
    }
    let whole = get(visitor(&world), url("a")).await;
    world.check_whole("c1/a", SIZE, &whole);
    assert!(CacheStatus::of(&whole).is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_asked_for_again_and_again() {
    let (world, _sun) = world().await;
    world.put("c1/gone", Script::status(404));
    world.put("c1/broken", Script::status(500));
    for _ in 0..5 {
        assert_eq!(get(visitor(&world), url("gone")).await.status, 404);
        assert_eq!(get(visitor(&world), url("broken")).await.status, 500);
        assert_eq!(world.client().get(&world.https(SUN, "c2/gone.jpg")).await.unwrap().status, 404);
    }
    assert_eq!(world.fetches("c1/gone"), 1, "the site's class gives 404 a lifetime");
    assert_eq!(world.fetches("c1/broken"), 5);
    assert_eq!(world.fetches("c2/gone.jpg"), 1, "so does the default of media");
}

/// The same file under `/c...` has a medium's headers, whatever a site keeps of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_site_keeps_is_not_served_under_c() {
    let (world, _sun) = world().await;
    let script = Script::file(SIZE).header("cache-control", "max-age=60").header("set-cookie", "a=b");
    world.put("c1/a.jpg", script.header("x-own", "1"));
    for _ in 0..2 {
        let site = get(visitor(&world), url("a.jpg")).await;
        assert_eq!((site.header("set-cookie"), site.header("x-own")), ("a=b".to_owned(), "1".to_owned()));
        let medium = world.client().get(&world.https(SUN, "c1/a.jpg")).await.unwrap();
        world.check_whole("c1/a.jpg", SIZE, &medium);
        assert!(!medium.headers.contains_key("set-cookie") && !medium.headers.contains_key("x-own"));
    }
    assert_eq!(world.fetches("c1/a.jpg"), 2);
}

/// What a cache carries it keeps for good, so nothing that says for itself how long it lasts is ever rated.
#[tokio::test(flavor = "multi_thread")]
async fn what_says_for_itself_how_long_it_lasts_is_not_reported_as_downloaded() {
    let (world, sun) = world_of(World::with_api(&[SUN])).await;
    let _api = world.start(API).await;
    world.put("c1/a.jpg", Script::file(SIZE).header("cache-control", "max-age=60"));
    world.put("c2/b.jpg", Script::file(SIZE));
    for _ in 0..5 {
        world.check_whole("c1/a.jpg", SIZE, &get(visitor(&world), url("a.jpg")).await);
    }
    let sent = sun.metrics().await.find("edge_sent_bytes_total");
    assert_eq!(sent, [5000.0], "it is traffic like any other");
    // A batch is in order of names: what came before this is counted when this is.
    world.check_whole("c2/b.jpg", SIZE, &world.client().get(&world.https(SUN, "c2/b.jpg")).await.unwrap());
    let rated = poll::until("a rating", || async {
        let files = crate::carrying::top(&world, 1).await.files;
        (!files.is_empty()).then_some(files)
    })
    .await
    .0;
    assert_eq!(rated.iter().map(|rated| rated.file.as_str()).collect::<Vec<_>>(), ["c2/b.jpg"]);
}

/// An origin may know its sites by their names alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_content_server_is_asked_by_its_sites_name() {
    let (world, _sun) = world().await;
    let hosts = |path: &str| {
        let host = |seen: &tests::origin::Seen| seen.headers["host"].to_str().unwrap().to_owned();
        world.origin.requests_for(path).iter().map(host).collect::<Vec<_>>()
    };
    for file in ["c1/a", "c1/b.jpg", "c2/b.jpg"] {
        world.put(file, Script::file(SIZE).any_method());
    }
    get(visitor(&world), url("a")).await;
    send(&world, "POST", &url("a")).await;
    assert_eq!(hosts("/cs1/a"), [SITE, SITE]);
    for file in ["c1/b.jpg", "c2/b.jpg"] {
        assert_eq!(world.client().get(&world.https(SUN, file)).await.unwrap().status, 200);
    }
    assert_eq!(hosts("/cs1/b.jpg"), [SITE], "a file is one, whoever asks for it");
    assert_eq!(hosts("/cs2/b.jpg"), [world.origin.address().to_string()], "it has no site");
}

/// A sun whose other hostname is a site of content server 1.
async fn world() -> (World, Daemon) {
    world_of(World::new(&[SUN])).await
}

async fn world_of(mut world: World) -> (World, Daemon) {
    world.topology.classes = format!(
        "[[site]]\nhost = \"{SITE}\"\ncontent_server = 1\n\
         [[site.class]]\nname = \"all\"\npaths = [\"*\"]\nnegative_ttl = {{ \"404\" = 60 }}\n"
    );
    world.write_topology(&world.topology);
    let sun = world.start(SUN).await;
    (world, sun)
}

fn visitor(world: &World) -> Client {
    world.client().name(SITE, world.server(SUN).address.into())
}

fn url(path: &str) -> String {
    format!("http://{SITE}:{}/{path}", tests::topology::HTTP_PORT)
}

async fn get(client: Client, url: String) -> Answer {
    client.get(&url).await.unwrap_or_else(|error| panic!("{url}: {error:#}"))
}

async fn send(world: &World, method: &str, url: &str) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    poll::within(url, async { visitor(world).start(method, url).await.unwrap().finish().await.unwrap() }).await
}

/// What a client said, and what it got.
async fn said(client: Client, header: &str, value: &str, url: String) -> (String, Answer) {
    (value.to_owned(), get(client.with(header, value), url).await)
}

/// Many who ask at once, each with a name. All are connected when it returns.
async fn crowd(world: &World, file: &str, count: usize) -> JoinSet<(String, Answer)> {
    let path = file.strip_prefix("c1/").unwrap();
    let mut clients = JoinSet::new();
    let connected = std::sync::Arc::new(tokio::sync::Barrier::new(count + 1));
    for number in 0..count {
        let (client, url) = (visitor(world), url(path));
        let connected = std::sync::Arc::clone(&connected);
        clients.spawn(async move {
            let name = format!("client-{number}");
            let client = client.with("x-client", &name);
            let mut connection = client.connect(&url).await.unwrap();
            connected.wait().await;
            let request = client.request(Method::GET, &url, "").unwrap();
            let answer = poll::within(&url, async { connection.send(request).await.unwrap().finish().await }).await;
            (name, answer.unwrap())
        });
    }
    connected.wait().await;
    clients
}

async fn everybody(mut clients: JoinSet<(String, Answer)>) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    while let Some(answer) = poll::within("the answers of all", clients.join_next()).await {
        answers.push(answer.unwrap());
    }
    answers
}
