//! What every API here is started with: a topology, the tokens of everybody in it, and how it is asked.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use popularity_api::server::Config;
use popularity_api::{Client, ClientConfig};

/// Writes the topology and the tokens into a folder, and each token into a file with its bearer's name.
pub(crate) fn furnish(folder: &Path) {
    std::fs::write(folder.join("topology.toml"), TOPOLOGY).unwrap();
    let mut tokens = String::new();
    for (bearer, role, region, name) in [
        ("backend", "backend", "", "backend"),
        ("operator", "operator", "", "operator"),
        ("replica", "replica", "", "replica"),
        ("sun4-1-1", "sun", "region = 4\n", "sun4-1-1"),
        ("sun4-1-2", "sun", "region = 4\n", "sun4-1-2"),
        ("cache4-1", "cache", "region = 4\n", "cache4-1"),
        ("cache5-1", "cache", "region = 5\n", "cache5-1"),
        ("cache-as-sun4-1-1", "cache", "region = 4\n", "sun4-1-1"),
        ("sun4-1-1-of-5", "sun", "region = 5\n", "sun4-1-1"),
        ("sun-as-cache4-1", "sun", "region = 4\n", "cache4-1"),
        ("cache4-1-of-5", "cache", "region = 5\n", "cache4-1"),
        ("sun4-9-9", "sun", "region = 4\n", "sun4-9-9"),
    ] {
        let token = token(bearer);
        tokens.push_str(&format!("[[token]]\ntoken = {token:?}\nrole = {role:?}\n{region}name = {name:?}\n"));
        secret(&folder.join(bearer), &token);
    }
    secret(&folder.join("tokens.toml"), &tokens);
}

/// An API of what [`furnish`] wrote, at ports that are free.
pub(crate) fn config(folder: &Path) -> Config {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        listen: free,
        admin: free,
        topology: folder.join("topology.toml").into(),
        data: folder.join("data"),
        tokens: folder.join("tokens.toml"),
        commit_ms: 1,
        ..Config::default()
    }
}

/// Asks with the token of one whom [`furnish`] knows.
pub(crate) fn client(listen: SocketAddr, folder: &Path, bearer: &str) -> Client {
    let url = format!("http://{listen}");
    Client::new(&ClientConfig { url, token_file: folder.join(bearer), timeout_ms: 60_000 }).unwrap()
}

/// Status and text of a page of an admin port; nothing while nobody answers.
pub(crate) async fn page(admin: SocketAddr, path: &str) -> Option<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("http://{admin}{path}")).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn token(bearer: &str) -> String {
    format!("token-of-{bearer}-0123456789")
}

/// A file that nobody but its owner may read.
pub(crate) fn secret(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) const TOPOLOGY: &str = r#"
version = 1
domain = "example.org"
default_region = 4
[content_servers]
url = "http://cs{number}.storage.example.org"
numbers = ["1-9"]
[[region]]
id = 4
name = "Moscow"
latitude = 55.75
longitude = 37.6
[[region]]
id = 5
name = "Berlin"
latitude = 52.5
longitude = 13.4
[[group]]
name = "sun4-1"
subnet = "192.0.2.0/26"
[[sun]]
name = "sun4-1-1"
addresses = ["192.0.2.1"]
internal = "10.4.1.1:8081"
weight = 100
[[sun]]
name = "sun4-1-2"
addresses = ["192.0.2.2"]
internal = "10.4.1.2:8081"
weight = 100
[[cache]]
name = "cache4-1"
addresses = ["192.0.2.200"]
internal = "10.4.9.1:8081"
weight = 100
bytes = 1000000
[[cache]]
name = "cache5-1"
addresses = ["192.0.2.201"]
internal = "10.5.9.1:8081"
weight = 100
bytes = 1000000
"#;
