//! Who is asked about the others of the group: they themselves; and the popularity API, whose word is shown only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use geo::topology::Watched;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::config::Config;
use super::driver::{Heard, Others};
use super::peers::{self, Asked, Asker};
use super::pulse::elapsed_ms;

/// Asks the popularity API from whom of the region it hears, each second.
pub async fn ask_api(name: String, topology: Watched, client: popularity_api::Client, heard: mpsc::Sender<Heard>) {
    let mut away = false;
    loop {
        let region = topology.borrow().sun(&name).map(|sun| sun.server.region);
        if let Some(region) = region {
            let answer = client.servers(region).await;
            if answer.is_err() != away {
                away = answer.is_err();
                match &answer {
                    Err(error) => tracing::warn!(%error, "the popularity API is no witness of who is alive"),
                    Ok(_) => tracing::info!("the popularity API is a witness of who is alive again"),
                }
            }
            if let Ok(answer) = answer {
                let well = answer.servers.into_iter().filter(|now| now.state.healthy).map(|now| now.state.name);
                if heard.send(Heard::Witnessed(well.collect())).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(API_EVERY).await;
    }
}

/// Asks the others, again and again; at once, and all anew, when there is a new look.
pub async fn ask_others(
    config: Config,
    topology: Watched,
    asker: Asker,
    (mut looks, clock): (watch::Receiver<u64>, Instant),
    heard: mpsc::Sender<Heard>,
) {
    loop {
        let look = *looks.borrow_and_update();
        let mut group = peers::group(&topology.borrow(), &config.name, &config.guard);
        group.truncate(OTHERS_MAX);
        let group: Arc<peers::Group> = group.into();
        let mut asking = JoinSet::new();
        for (name, address) in group.iter().cloned() {
            let asker = asker.clone();
            asking.spawn(async move { (name, asker.ask(address).await) });
        }
        let whole = loop {
            let mut answers = Vec::new();
            tokio::select! {
                Some(answered) = asking.join_next() => answers.extend(answered.ok()),
                // Of those that are being asked, no one may know what this sun is now.
                changed = looks.changed(), if !asking.is_empty() => match changed {
                    Ok(()) => break false,
                    Err(_) => return,
                },
                else => {}
            }
            answers.extend(std::iter::from_fn(|| asking.try_join_next()).filter_map(Result::ok));
            let asked = Asked { at_ms: elapsed_ms(clock), look };
            let answers = answers.into_iter().map(|(name, answer)| (name, answer, asked)).collect();
            let whole = asking.is_empty();
            let others = Others { group: Arc::clone(&group), answers, whole: whole.then_some(look) };
            if heard.send(Heard::Others(Box::new(others))).await.is_err() {
                return;
            }
            if whole {
                break true;
            }
        };
        if !whole {
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(config.guard.every_ms)) => {}
            changed = looks.changed() => if changed.is_err() { return },
        }
    }
}

/// The popularity API is asked so often: it hears from each server once a second.
const API_EVERY: Duration = Duration::from_secs(1);

/// Other members that are asked; a group's subnet has fewer.
const OTHERS_MAX: usize = 512;
