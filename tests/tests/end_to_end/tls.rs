//! Which certificate a client sees, when it changes, and which sessions are resumed.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tests::client::Client;
use tests::origin::Script;
use tests::poll;
use tests::process::Daemon;
use tests::world::World;

const SUN: &str = "sun1-1-1";
const OTHER: &str = "sun1-1-2";

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
async fn an_expired_certificate_does_not_take_the_place_of_a_good_one() {
    let world = World::new(&[SUN]);
    let own = world.authority.issue(world.folder(), "own", &["*.cdn.test"]);
    let sun = world.start_with(SUN, |settings| settings.certificates = vec![own.clone()]).await;
    let url = world.https(SUN, "c1/a.jpg");
    let shown = || async { world.client().connect(&url).await.unwrap().certificate };
    let first = shown().await;
    let refused = |count: f64| {
        let sun = &sun;
        poll::until_true("what is refused is counted", move || async move {
            sun.metrics().await.sum("edge_certificates_refused", &[]) == Some(count)
        })
    };
    let replace = |with: tests::certificates::Files| {
        std::fs::rename(with.key, &own.key).unwrap();
        std::fs::rename(with.chain, &own.chain).unwrap();
    };
    replace(world.authority.issue_expired(world.folder(), "old", &["*.cdn.test"]));
    refused(1.0).await;
    assert_eq!(shown().await, first);
    assert!(sun.log().contains("a changed certificate is refused, the running one stays"), "{}", sun.log());
    let config = sun.config().display().to_string();
    let checked = tests::process::run("sun", &["--config", &config, "--check"]);
    assert_eq!(checked.status, Some(1));
    for part in ["own.pem: it expired on Mon, 01 Jan 2001", "it is for *.cdn.test: put a renewed one there"] {
        assert!(checked.out.contains(part), "{part:?} is not in {}", checked.out);
    }

    replace(world.authority.issue(world.folder(), "renewed", &["*.cdn.test"]));
    refused(0.0).await;
    let second = shown().await;
    assert_ne!(second, first);
    replace(world.authority.issue(world.folder(), "odd", &["*.other.test"]));
    refused(1.0).await;
    assert_eq!(shown().await, second, "it is for others");
    assert!(sun.log().contains("it is for *.other.test, and the running one for *.cdn.test"), "{}", sun.log());
    let checked = tests::process::run("sun", &["--config", &config, "--check"]);
    assert_eq!(checked.status, Some(0), "{}", checked.out);
    for name in ["sun1-1-1.cdn.test", "sun1-1.cdn.test"] {
        assert!(checked.err.contains(&format!("warning: certificates: none is for {name}: ")), "{}", checked.err);
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begun_on_one_sun_is_resumed_on_another_and_after_a_restart() {
    let world = World::new(&[SUN, OTHER]);
    world.put("c1/a.jpg", Script::file(1000));
    tests::files::write(&world.path("tickets"), &tests::process::run("sunctl", &["token"]).out);
    let more = format!("ticket_secret = {:?}", world.path("tickets"));
    let mut sun = world.start_with(SUN, |settings| settings.more.clone_from(&more)).await;
    let other = world.start_with(OTHER, |settings| settings.more.clone_from(&more)).await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for client in [world.client(), world.client().http2()] {
            let client = client.tls(&world.authority, version);
            assert!(!resumes(&world, &client).await, "{version:?}: nothing to resume yet");
            assert!(resumes(&world, &client).await, "{version:?}: where it began");
            // The address is taken over: the same name, and another machine.
            let moved = client.clone().name(&world.server(SUN).host(), world.server(OTHER).address.into());
            assert!(resumes(&world, &moved).await, "{version:?}: on the other sun");
            sun.restart().await;
            assert!(resumes(&world, &client).await, "{version:?}: after a restart");
        }
    }
    assert_eq!(handshakes(&other).await, (0.0, 4.0, 0.0), "full, resumed, unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_resumes_on_another_sun_too() {
    let world = World::new(&[SUN, OTHER]);
    tests::files::write(&world.path("tickets"), &tests::process::run("sunctl", &["token"]).out);
    let more = format!("ticket_secret = {:?}", world.path("tickets"));
    let _sun = world.start_with(SUN, |settings| settings.more.clone_from(&more)).await;
    let _other = world.start_with(OTHER, |settings| settings.more.clone_from(&more)).await;
    for version in ["-tls1_3", "-tls1_2"] {
        let session = world.path("session").display().to_string();
        let begun = openssl(&world, SUN, &[version, "-sess_out", &session]).await;
        assert!(begun.contains("\nNew, TLSv1."), "{version}: {begun}");
        let resumed = openssl(&world, OTHER, &[version, "-sess_in", &session]).await;
        assert!(resumed.contains("\nReused, TLSv1."), "{version}: {resumed}");
        assert!(!resumed.contains("Max Early Data: 1"), "0-RTT is off: {resumed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_group_s_secret_a_session_ends_with_its_process() {
    let world = World::new(&[SUN]);
    world.put("c1/a.jpg", Script::file(1000));
    let mut sun = world.start(SUN).await;
    let client = world.client();
    assert!(!resumes(&world, &client).await);
    assert!(resumes(&world, &client).await);
    sun.restart().await;
    assert!(!resumes(&world, &client).await, "another process has another secret");
    assert_eq!(handshakes(&sun).await, (1.0, 0.0, 1.0), "full, resumed, unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_is_taken_without_a_restart() {
    let world = World::new(&[SUN]);
    world.put("c1/a.jpg", Script::file(1000));
    let (file, secret) = (world.path("tickets"), || tests::process::run("sunctl", &["token"]).out);
    let (old, new) = (secret(), secret());
    tests::files::write(&file, &old);
    let sun = world.start_with(SUN, |settings| settings.more = format!("ticket_secret = {file:?}")).await;
    let client = world.client();
    assert!(!resumes(&world, &client).await);
    let reloads = || sun.log().matches("the secret of session tickets is reloaded").count();

    // The new one is added: what the old one sealed is opened still.
    tests::files::write(&file, &format!("{new}{old}"));
    poll::until_true("the new secret", || async { reloads() == 1 }).await;
    assert!(resumes(&world, &client).await);

    // One that is no secret, or that others may read, changes nothing.
    let refusals = || sun.log().matches("a changed secret is refused").count();
    tests::files::write(&file, "nonsense");
    poll::until_true("a refusal", || async { refusals() == 1 }).await;
    assert!(resumes(&world, &client).await);
    tests::files::write(&file, &new);
    poll::until_true("the new secret alone", || async { reloads() == 2 }).await;
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    poll::until_true("another refusal", || async { refusals() == 2 }).await;
    assert!(resumes(&world, &client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_secret_sealed_is_opened_no_more() {
    let world = World::new(&[SUN]);
    world.put("c1/a.jpg", Script::file(1000));
    let (file, secret) = (world.path("tickets"), || tests::process::run("sunctl", &["token"]).out);
    let (old, new) = (secret(), secret());
    tests::files::write(&file, &old);
    let sun = world.start_with(SUN, |settings| settings.more = format!("ticket_secret = {file:?}")).await;
    // Of two clients with tickets of the old secret, one comes back while it still counts, and one only later.
    let (client, away) = (world.client(), world.client());
    assert!(!resumes(&world, &client).await && !resumes(&world, &away).await);
    let reloads = || sun.log().matches("the secret of session tickets is reloaded").count();
    tests::files::write(&file, &format!("{new}{old}"));
    poll::until_true("the new secret", || async { reloads() == 1 }).await;
    assert!(resumes(&world, &client).await, "by the old secret");

    tests::files::write(&file, &new);
    poll::until_true("the new secret alone", || async { reloads() == 2 }).await;
    assert!(resumes(&world, &client).await, "sealed by the new one since it came");
    assert!(!resumes(&world, &away).await, "sealed by the old one, which is gone");
    assert!(resumes(&world, &away).await);
    assert_eq!(handshakes(&sun).await, (3.0, 3.0, 1.0), "full, resumed, unknown");
}

/// Asks for a file on a new connection; whether the session was resumed.
async fn resumes(world: &World, client: &Client) -> bool {
    let url = world.https(SUN, "c1/a.jpg");
    let mut connection = client.connect(&url).await.unwrap();
    // Tickets of TLS 1.3 come after the handshake.
    let request = client.request(hyper::Method::GET, &url, "").unwrap();
    let answer = connection.send(request).await.unwrap().finish().await.unwrap();
    world.check_whole("c1/a.jpg", 1000, &answer);
    connection.resumed
}

/// Full and resumed handshakes, and tickets that no key opened.
async fn handshakes(sun: &Daemon) -> (f64, f64, f64) {
    let metrics = sun.metrics().await;
    let kind = |kind: &str| metrics.sum("edge_handshakes_total", &[kind]).unwrap_or_default();
    let unknown = metrics.sum("edge_unknown_tickets_total", &[]).unwrap_or_default();
    (kind("kind=\"full\""), kind("kind=\"resumed\""), unknown)
}

/// One request by `openssl s_client`; what it says.
async fn openssl(world: &World, server: &str, options: &[&str]) -> String {
    let (address, name) = (world.server(server).https().to_string(), world.server(SUN).host());
    let request = world.path("request");
    tests::files::write(&request, &format!("GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n"));
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-servername", &name, "-ign_eof"]).args(options);
    command.stdin(File::open(request).expect("the request"));
    let talk = tokio::task::spawn_blocking(move || command.output());
    let output = poll::within("the end of openssl", talk).await.unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
