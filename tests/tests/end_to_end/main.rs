//! The whole system, end to end: real programs between a scripted content server and clients that check every
//! byte, every counter and every header. Simplest first:
//!
//! - [`serving`]: one sun. Miss, hit, ranges, conditions, HEAD.
//! - [`caching`]: what responses and requests say about keeping, on a site under the policy "rfc".
//! - [`crowds`]: many clients and one fill; a client that leaves.
//! - [`parts`]: several ranges in one response, and what of a partly cached file is asked for.
//! - [`fills`]: what competes for sources and memory, and what is fetched ahead.
//! - [`upstream`]: a content server that dies, lies, hangs or is away.
//! - [`secured`]: a content server behind TLS, and who is taken for it.
//! - [`uploads`]: what is passed on uncached: uploads, and a site's other methods.
//! - [`hostile`]: what must reach no upstream; malformed and slow clients.
//! - [`conformance`]: the public suite for HTTP caches, against what passed before.
//! - [`tls`]: which certificate, and a new one.
//! - [`region`]: several suns and caches: owners, stand-ins, no ring.
//! - [`carrying`]: downloads become ratings, ratings fill caches, caches get the links.
//! - [`feeding`]: in how many caches a file is, and where they have it from.
//! - [`ingest`]: downloads while the API is away, and floods of names.
//! - [`hot`]: a file that one sun is not enough for; a file whose owner changed.
//! - [`signed`]: links that are good for a while.
//! - [`weights`]: a weight changes everywhere at once and moves the least.
//! - [`etcd`]: a topology in a cluster, whose members die.
//! - [`purge`]: what was purged is served by nobody any more.
//! - [`geo_serve`]: one server says which region serves whom; the others follow its table.
//! - [`openapi`]: the popularity API called by its own description.
//! - [`history`]: downloads in ClickHouse, and while it is away.
//! - [`restarts`]: kill -9 and drain.
//! - [`geo_bmp`]: real routers, and what they tell.
//! - [`upgrade`]: a new process takes over, and no client notices.
//! - [`selfcheck`]: what a sun's self-check sees, and what it has BIRD announce.
//! - [`tools`]: `--check`, `geo`, `sunctl`.
//! - [`geo_oracle`]: which region an address is in, beside other implementations.
//! - [`shipped`]: the config files that are shipped start the daemons.
//! - [`lab`]: a group of suns behind a router, and one after the other fails.
//! - [`units`]: systemd takes the units that are shipped. [`booted`]: a systemd that runs runs them.
//! - [`demo`], [`browser`]: `sunctl demo`, its commands, and its gallery in a real browser.
//!
//! One binary, so that it links once. Every test has a world of its own and all run at the same time.

mod booted;
mod browser;
mod caching;
mod carrying;
mod conformance;
mod crowds;
mod demo;
mod etcd;
mod feeding;
mod fills;
mod geo_bmp;
mod geo_oracle;
mod geo_serve;
mod history;
mod hostile;
mod hot;
mod ingest;
mod lab;
mod openapi;
mod parts;
mod purge;
mod region;
mod restarts;
mod secured;
mod selfcheck;
mod serving;
mod shipped;
mod signed;
mod store;
mod tls;
mod tools;
mod units;
mod upgrade;
mod uploads;
mod upstream;
mod weights;

use std::path::Path;

use tests::client::{Answer, Client};
use tests::poll;
use tests::process::Done;
use tests::world::World;

/// A `Cache-Status` field (RFC 9211): one entry a server, the one nearest to the content server first.
#[derive(Clone, Debug, PartialEq)]
struct CacheStatus(Vec<(String, Vec<String>)>);

impl CacheStatus {
    fn of(answer: &Answer) -> Self {
        let field = answer.header("cache-status");
        let entries = field.split(',').filter(|entry| !entry.trim().is_empty()).map(|entry| {
            let mut parts = entry.split(';').map(|part| part.trim().to_owned());
            (parts.next().unwrap_or_default(), parts.collect())
        });
        Self(entries.collect())
    }

    /// Names of the servers the answer came through.
    fn servers(&self) -> Vec<&str> {
        self.0.iter().map(|(server, _)| server.as_str()).collect()
    }

    /// Whether a server says this of itself: `hit`, `fwd=miss`, `stored`.
    fn says(&self, server: &str, what: &str) -> bool {
        self.0.iter().any(|(name, parameters)| name == server && parameters.iter().any(|parameter| parameter == what))
    }

    /// Whether the server nearest to the client had it.
    fn is_hit(&self) -> bool {
        self.0.last().is_some_and(|(_, parameters)| parameters.iter().any(|parameter| parameter == "hit"))
    }
}

/// Asks until it is a hit; every answer on the way must be the whole file.
async fn until_hit(world: &World, client: &Client, url: &str, file: &str, size: u64) -> Answer {
    let hit = poll::until(&format!("a hit of {url}"), || async {
        let answer = client.get(url).await.unwrap_or_else(|error| panic!("{url}: {error:#}"));
        world.check_whole(file, size, &answer);
        CacheStatus::of(&answer).is_hit().then_some(answer)
    });
    hit.await.0
}

/// Asks until the answer is the whole file; errors on the way are borne, wrong bytes are not.
async fn until_whole(world: &World, client: &Client, url: &str, file: &str, size: u64) -> Answer {
    let whole = poll::until(&format!("200 of {url}"), || async {
        let answer = client.get(url).await.ok().filter(|answer| answer.status == 200)?;
        world.check_whole(file, size, &answer);
        Some(answer)
    });
    whole.await.0
}

/// A program ended like this and said each of these, on either stream.
#[track_caller]
fn check_done(done: &Done, status: i32, says: &[&str]) {
    let all = format!("{}{}", done.out, done.err);
    assert_eq!(done.status, Some(status), "{all}");
    for expected in says {
        assert!(all.contains(expected), "does not say {expected:?}:\n{all}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
