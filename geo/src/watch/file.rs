//! A file that is looked at.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{Followed, News, disk};
use crate::topology::DOCUMENT_BYTES_MAX;

/// The file, as it was last looked at.
#[derive(Debug)]
pub(super) struct FileFollowed {
    /// None while a look goes on.
    file: Option<disk::Followed>,
    path: PathBuf,
    /// Until the next look.
    pause: Duration,
}

impl FileFollowed {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { file: Some(new(&path)), path, pause: LOOK_EVERY }
    }

    /// Does something with the file where it may take its time.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut disk::Followed) -> T + Send + 'static,
    ) -> Option<T> {
        let mut file = self.file.take().unwrap_or_else(|| new(&self.path));
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut file);
            (file, done)
        });
        // Fails only while the process shuts down.
        let (file, done) = done.await.ok()?;
        self.file = Some(file);
        Some(done)
    }
}

impl Followed for FileFollowed {
    async fn first(&mut self) -> News {
        self.with(take).await.unwrap_or(News::Same)
    }

    async fn next(&mut self) -> News {
        loop {
            tokio::time::sleep(self.pause).await;
            let looked = self.with(|file| look(file, SystemTime::now())).await.flatten();
            self.pause = if looked.is_none() { SETTLE } else { LOOK_EVERY };
            if let Some(news) = looked {
                return news;
            }
        }
    }
}

fn new(path: &std::path::Path) -> disk::Followed {
    disk::Followed::new(path.to_owned(), DOCUMENT_BYTES_MAX as u64)
}

/// The content as it is, seen twice or not.
pub(super) fn take(file: &mut disk::Followed) -> News {
    file.take().map_or_else(|error| News::Away(error.to_string()), |bytes| News::Document { bytes, revision: None })
}

/// What a look finds; nothing when it has to be repeated soon.
pub(super) fn look(file: &mut disk::Followed, now: SystemTime) -> Option<News> {
    match file.look(now) {
        disk::Look::Unsettled => None,
        disk::Look::Same => Some(News::Same),
        disk::Look::Back => Some(News::Back),
        disk::Look::Unreadable(why) => Some(News::Away(why)),
        disk::Look::Changed(bytes) => Some(News::Document { bytes, revision: None }),
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between the two looks that must find the same new content.
const SETTLE: Duration = Duration::from_millis(50);
