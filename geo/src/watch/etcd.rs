//! A key of an etcd cluster that is watched.
//!
//! ```text
//!   read the key at a member --revision R--> watch it from R + 1 --change--> news
//!        ^                                        |   every check_ms: the key's revision is asked
//!        |                                        |
//!        +-- ended (compacted, no leader), silent and behind, unreachable: the next member, after a pause
//! ```
//!
//! [`Course`] decides, pure; here it is asked and waited. A watch that ended says nothing of what was missed, so the key
//! is always read again, and read again from whichever member, it counts if its revision is another one.

mod course;

use std::time::Duration;

use tokio::time::Instant;

use super::{Followed, News};
use crate::etcd::{CALL, Etcd, EtcdError, Gateway, Watching, wire};
use course::Course;

/// The cluster, and how far it was followed.
pub(super) struct EtcdFollowed {
    gateway: Gateway,
    course: Course,
    check: Duration,
    watching: Option<Watching>,
    check_at: Instant,
}

impl EtcdFollowed {
    pub(super) fn new(etcd: &Etcd) -> Result<Self, String> {
        let gateway = Gateway::new(etcd)?;
        let course = Course::new(gateway.members(), gateway.first());
        let check = Duration::from_millis(etcd.check_ms);
        Ok(Self { gateway, course, check, watching: None, check_at: Instant::now() })
    }

    /// Reads the key and begins to watch it.
    async fn read(&mut self) -> Option<News> {
        tokio::time::sleep(self.course.pause()).await;
        let member = self.course.member();
        let stored = match self.gateway.read_at(member, false).await {
            Ok(stored) => stored,
            Err(error) => return self.fail(&error),
        };
        match self.gateway.watch_at(member, stored.revision + 1).await {
            Ok(watching) => self.watching = Some(watching),
            Err(error) => return self.fail(&error),
        }
        self.check_at = Instant::now() + self.check;
        Some(self.course.found(stored.document, self.gateway.key()))
    }

    /// Waits for what a watch says, and asks now and then whether it is deaf; none: there is nothing to tell.
    async fn watched(&mut self, mut watching: Watching) -> Option<News> {
        let told = tokio::select! {
            told = watching.next() => Some(told),
            () = tokio::time::sleep_until(self.check_at) => None,
        };
        let Some(told) = told else {
            self.check_at = Instant::now() + self.check;
            return match self.gateway.read_at(self.course.member(), true).await {
                // What is behind reads again at once.
                Ok(stored) if self.course.is_at(stored.document.as_ref()) => {
                    self.watching = Some(watching);
                    Some(News::Same)
                }
                Ok(_) => None,
                Err(error) => self.fail(&error),
            };
        };
        match told {
            Ok(wire::Told::Nothing) => {}
            Ok(wire::Told::Changed(document)) => {
                self.watching = Some(watching);
                return Some(self.course.found(document, self.gateway.key()));
            }
            Ok(wire::Told::Ended(why)) => {
                self.gateway.forget_token();
                tracing::debug!(%why, "the watch of the topology ended; it is read again");
                self.course.ended();
                return None;
            }
            Err(error) => return self.fail(&error),
        }
        self.watching = Some(watching);
        None
    }

    /// While some member may answer, it is no news.
    fn fail(&mut self, error: &EtcdError) -> Option<News> {
        self.watching = None;
        if let EtcdError::Unauthenticated(_) = error {
            self.gateway.forget_token();
        }
        self.course.failed(error.to_string())
    }
}

impl Followed for EtcdFollowed {
    async fn first(&mut self) -> News {
        let deadline = Instant::now() + FIRST;
        let late = || News::Away(format!("no member answers within {} s", FIRST.as_secs()));
        tokio::time::timeout_at(deadline, self.next()).await.unwrap_or_else(|_| late())
    }

    async fn next(&mut self) -> News {
        loop {
            let news = match self.watching.take() {
                None => self.read().await,
                Some(watching) => self.watched(watching).await,
            };
            if let Some(news) = news {
                return news;
            }
        }
    }
}

/// How long a start waits for a cluster: for the deadlines of three members.
const FIRST: Duration = Duration::from_secs(3 * CALL.as_secs());
