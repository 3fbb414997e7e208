//! Which certificate a client sees, and when it changes.

use tests::origin::Script;
use tests::poll;
use tests::world::World;

const SUN: &str = "sun1-1-1";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_without_a_restart() {
    let world = World::new(&[SUN]);
    world.put("c1/a.jpg", Script::file(1000));
    let _sun = world.start(SUN).await;
    let url = world.https(SUN, "c1/a.jpg");
    let before = world.client().connect(&url).await.unwrap();
    let first = before.certificate.clone().expect("TLS");

    // A chain that is no certificate changes nothing: what runs stays.
    let good = std::fs::read_to_string(&world.certificate.chain).unwrap();
    tests::files::write(&world.certificate.chain, "nonsense");
    let renewed = world.authority.issue(world.folder(), "renewed", &["*.cdn.test"]);
    for _ in 0..3 {
        let connection = world.client().connect(&url).await.unwrap();
        assert_eq!(connection.certificate.as_ref(), Some(&first));
    }
    tests::files::write(&world.certificate.chain, &good);

    // Key and chain are two files: for a moment they do not belong together.
    std::fs::copy(&renewed.key, &world.certificate.key).unwrap();
    let chain = std::fs::read_to_string(&renewed.chain).unwrap();
    tests::files::write(&world.certificate.chain, &chain);
    let took = poll::until_true("the new certificate", || async {
        let connection = world.client().connect(&url).await.expect("every handshake succeeds meanwhile");
        connection.certificate.as_ref() != Some(&first)
    })
    .await;
    println!("a new certificate was in use after {took:?}");

    // Who was connected before is still served.
    let mut before = before;
    let request = world.client().request(hyper::Method::GET, &url, "").unwrap();
    let answer = before.send(request).await.unwrap().finish().await.unwrap();
    world.check_whole("c1/a.jpg", 1000, &answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_asked_for_chooses_the_certificate() {
    let world = World::new(&[SUN]);
    let other = world.authority.issue(world.folder(), "other", &["media.other.test", "127.0.0.1"]);
    let _sun = world.start_with(SUN, |settings| settings.certificates.push(other)).await;
    let address = std::net::IpAddr::from(world.server(SUN).address);
    let client = world.client().name("media.other.test", address).name("unknown.test", address);
    for (host, trusted) in [("sun1-1-1.cdn.test", true), ("media.other.test", true), ("unknown.test", false)] {
        let connected = client.connect(&format!("https://{host}:8443/c1/a.jpg")).await;
        assert_eq!(connected.is_ok(), trusted, "{host}: {:?}", connected.err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_protocol_both_speak_is_chosen() {
    let world = World::new(&[SUN]);
    world.put("c1/a.jpg", Script::file(1000));
    let _sun = world.start(SUN).await;
    let url = world.https(SUN, "c1/a.jpg");
    for (client, version) in
        [(world.client(), hyper::Version::HTTP_11), (world.client().http2(), hyper::Version::HTTP_2)]
    {
        let answer = client.get(&url).await.unwrap();
        assert_eq!(answer.version, version);
        world.check_whole("c1/a.jpg", 1000, &answer);
    }
}
