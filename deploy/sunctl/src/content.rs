//! `sunctl content`: a folder served as a content server alone, for trying daemons out without a storage.
//!
//! The demo's content server and library; see there for what is served and what is not.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon::drain::{self, Drain};

use crate::demo::content_server::{self, ContentServer};
use crate::demo::media::{CONTENT_SERVER, Library};

/// What is served, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The folder. Its files of now are served, without what is hidden (.name).
    folder: PathBuf,
    /// Where it listens. Who reaches this address may read the folder.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
}

/// Serves until a signal.
///
/// # Errors
///
/// When the folder has nothing to serve or the address is taken.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let folder = options.folder.display();
    let library = Arc::new(Library::folder(&options.folder).with_context(|| format!("folder {folder}"))?);
    let drain = Drain::new();
    drain::on_signals(&drain).context("signals cannot be listened to")?;
    let started = content_server::start(options.listen, Arc::clone(&library), &drain).await;
    let server = started.with_context(|| format!("--listen {}", options.listen))?;
    // A reader that left has seen what it wanted: files are served on.
    let _ = std::io::stdout().write_all(greeting(&server, &library).as_bytes());
    drain.finished(DRAIN_LIMIT).await;
    Ok(())
}

/// What belongs into the topology, and a file to try.
fn greeting(server: &ContentServer, library: &Library) -> String {
    let files = library.files();
    let first = files.first().map_or_else(String::new, |file| format!(", such as {}", file.name));
    let noun = if files.len() == 1 { "file" } else { "files" };
    format!(
        "{} {noun}{first}. In the topology:\n\n[content_servers]\nurl = \"{}\"\nnumbers = [\"{CONTENT_SERVER}\"]\n",
        files.len(),
        server.url_template(),
    )
}

/// Running answers have this long after the signal.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_greeting_is_what_a_topology_needs() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jpg"), "picture").unwrap();
        let (library, drain) = (Arc::new(Library::folder(folder.path()).unwrap()), Drain::new());
        let server = content_server::start(([127, 0, 0, 1], 0).into(), Arc::clone(&library), &drain).await.unwrap();
        let text = greeting(&server, &library);
        let (told, table) = text.split_once("\n\n").unwrap();
        assert_eq!(told, "1 file, such as c100500/a.jpg. In the topology:");
        let table: toml::Table = toml::from_str(table).unwrap();
        let url = table["content_servers"]["url"].as_str().unwrap();
        let url = format!("{}/a.jpg", url.replace("{number}", "100500"));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        assert_eq!(client.get(url).send().await.unwrap().text().await.unwrap(), "picture");
        drain.start();
        assert!(drain.finished(DRAIN_LIMIT).await);
    }
}
