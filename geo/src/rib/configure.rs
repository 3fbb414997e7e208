//! Feeds come, change, connect and go.

use std::time::Duration;

use super::walk::Tell;
use super::{Feed, FeedId, FeedSlot, Rib};

impl Rib {
    /// What is configured now, with the id of each feed in the order given. A feed keeps its id by its name; a changed region or
    /// class counts at once for the routes there are; a peer that is not left out any more is heard when it comes up the next time. Routes of feeds that are configured no more go, and so do those of a feed
    /// whose view or kind changed: it gets a new id, and its router has to connect anew. Feeds beyond [`FEEDS_MAX`] get none.
    pub fn set_feeds(&mut self, feeds: &[Feed], now: Duration) -> Vec<Option<FeedId>> {
        let mut ids = Vec::with_capacity(feeds.len());
        for feed in feeds {
            let same = |slot: &FeedSlot| {
                slot.configured
                    && slot.feed.name == feed.name
                    && slot.feed.view == feed.view
                    && slot.feed.kind == feed.kind
            };
            ids.push(match self.feeds.iter().position(same) {
                Some(index) => self.change_feed(index, feed, now),
                None => self.add_feed(feed, now),
            });
        }
        for index in 0..self.feeds.len() {
            let id = u16::try_from(index).map(FeedId).ok();
            if self.feeds[index].configured && !ids.contains(&id) {
                self.feeds[index].configured = false;
                id.into_iter().for_each(|id| self.forget(id, now));
            }
        }
        self.settle(now);
        ids
    }

    /// A feed's router connected. Its peers come up one by one after that.
    pub fn connected(&mut self, feed: FeedId, now: Duration) {
        if let Some(slot) = self.feeds.get_mut(usize::from(feed.0)) {
            (slot.connected, slot.since) = (true, now);
        }
    }

    /// All routes of a feed go at once: it is configured no more, or was told to begin anew.
    pub fn forget(&mut self, feed: FeedId, now: Duration) {
        for index in self.peers.of_feed(feed) {
            self.kill(index, now);
        }
    }

    fn change_feed(&mut self, index: usize, feed: &Feed, now: Duration) -> Option<FeedId> {
        let id = FeedId(u16::try_from(index).ok()?);
        if self.feeds[index].feed != *feed {
            self.feeds[index].feed = feed.clone();
            for peer in self.peers.of_feed(id) {
                if self.place(peer) {
                    self.walks.want(peer, Tell::All);
                } else {
                    self.kill(peer, now);
                }
            }
        }
        Some(id)
    }

    fn add_feed(&mut self, feed: &Feed, now: Duration) -> Option<FeedId> {
        let id = FeedId(u16::try_from(self.feeds.len()).ok().filter(|&id| id < FEEDS_MAX)?);
        let (configured_at, since) = (now, now);
        let feed = feed.clone();
        self.feeds.push(FeedSlot {
            feed,
            configured: true,
            configured_at,
            connected: false,
            since,
            skipped: 0,
            refusals: 0,
        });
        Some(id)
    }
}

/// Feeds of one RIB over its life, those that were taken out of the config included.
const FEEDS_MAX: u16 = 16_384;
