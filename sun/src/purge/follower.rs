//! Following the popularity API's log: once before anything is served, then for as long as the server runs.
//!
//! Each question names the sequence that this server goes by, durably: the question is the acknowledgement. It waits at the
//! API until there is an entry, so a purge is here one round trip after it was accepted.

use std::sync::Arc;
use std::time::Duration;

use daemon::drain::Drain;
use popularity_api::Client;
use popularity_api::wire::PurgeLog;

use super::Purges;
use crate::edge::Edge;

/// Follows until the end of the log as it is now. False: the API is away, or this server's disk is; what is known from
/// before is gone by.
pub async fn catch_up(purges: &Arc<Purges>, client: &Client) -> bool {
    loop {
        match step(purges, client, Duration::ZERO).await {
            Ok(answer) if purges.position() >= answer.latest => return true,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the purge log cannot be followed: serving by what is known of it");
                return false;
            }
        }
    }
}

/// Follows until the drain.
pub async fn follow(edge: Arc<Edge>, client: Client, mut away: bool, drain: Drain) {
    loop {
        let stepped = tokio::select! {
            stepped = step(&edge.purges, &client, WAIT) => stepped,
            () = drain.wait() => return,
        };
        edge.metrics.purges(&edge.purges);
        match stepped {
            Ok(_) if std::mem::take(&mut away) => tracing::info!("the purge log is followed again"),
            Ok(_) => {}
            Err(error) => {
                // Not when another process has the file: it asks again what could not be kept here.
                if !edge.purges.lent() && !std::mem::replace(&mut away, true) {
                    tracing::warn!(%error, "the purge log cannot be followed: purges do not arrive");
                }
                edge.metrics.purge_failures.inc();
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = drain.wait() => return,
                }
            }
        }
    }
}

async fn step(purges: &Arc<Purges>, client: &Client, wait: Duration) -> anyhow::Result<PurgeLog> {
    let answer = client.purges(purges.position(), wait).await?;
    if let Some(floor) = answer.floor {
        tracing::warn!(
            position = purges.position(),
            floor,
            "entries of the purge log were missed: everything held from before is dropped"
        );
    }
    let purges = Arc::clone(purges);
    let (answer, followed) = tokio::task::spawn_blocking(move || {
        let followed = purges.follow(&answer);
        (answer, followed)
    })
    .await?;
    followed?;
    Ok(answer)
}

/// How long a question waits at the API for an entry. Shorter: more questions. Longer: a connection that is dead
/// without a sign is noticed later.
const WAIT: Duration = Duration::from_secs(5);

/// Pause after a failure: as long as the API is away purges are late anyway.
const AGAIN: Duration = Duration::from_millis(500);
