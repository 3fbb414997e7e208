//! Downloading one file into the vault: from caches that hold it, then from its content server.
//!
//! ```text
//!   Order --> peer cache --> next peer --> content server
//!                |               |              | when it is this cache's turn (turns.rs)
//!                +--- 200 -------+--------------+--> Writer, 256 KiB at a time --> commit --> Fetched
//!                   anything else: the next source; after the last one: FetchError
//! ```
//!
//! A download that fails leaves nothing behind and is not resumed: files are fetched ahead of demand, nobody waits.
//! Redirects are not followed and proxy variables of the environment are not read: bytes come from where the
//! topology says or not at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::telemetry::causes;
use geo::CanonicalName;
use reqwest::header;
use sun::held::HELD_BLOCK_BYTES;
use sun::purge::headers::Told;
use sun::purge::{Mark, Purges, Subject, Verdict};

use crate::config::PrefillConfig;
use crate::offer::{self, Refusal};
use crate::turns::Turns;
use crate::vault::{Vault, VaultError, Writer};

/// Downloads files; shared by all downloads of a daemon.
#[derive(Debug)]
pub struct Prefill {
    client: reqwest::Client,
    /// This server's own token, for other caches.
    token: String,
    vault: Arc<Vault>,
    purges: Arc<Purges>,
    turns: Option<Turns>,
    idle: Duration,
    bytes_per_second_min: u64,
}

/// A file and where it can be had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    /// Which file.
    pub name: CanonicalName,
    /// What the plan made room for, bytes; a longer body is refused.
    pub size_max: u64,
    /// Where to ask, in this order.
    pub sources: Vec<Source>,
}

/// Where a file can be had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// The internal listener of a cache; it answers 404 when it does not hold the file.
    Cache(SocketAddr),
    /// The file's content server.
    ContentServer {
        /// The file's address there.
        url: String,
        /// `Host`, when it is not what the address says.
        host: Option<String>,
    },
}

/// A file that is held now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fetched {
    /// Length of the body, bytes.
    pub size: u64,
    /// Whether another cache gave it.
    pub from_cache: bool,
}

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Its content server does not have it, or not in a form that can be kept: not worth asking again soon.
    #[error("{0}")]
    Lasting(String),
    /// A connection, a deadline, an overloaded server: worth another try.
    #[error("{0}")]
    Passing(String),
    /// Another cache fetches it from its content server: it has it soon.
    #[error("{name}: {cache} fetches it already")]
    Waiting {
        /// Which file.
        name: CanonicalName,
        /// Which cache.
        cache: String,
    },
    /// This machine's disk: no file can be stored for now.
    #[error("{0}")]
    Disk(VaultError),
}

impl Prefill {
    /// `tls`: whom to trust of content servers.
    ///
    /// # Errors
    ///
    /// When the HTTP client cannot be made.
    pub fn new(
        config: &PrefillConfig,
        tls: rustls::ClientConfig,
        token: String,
        vault: Arc<Vault>,
        purges: Arc<Purges>,
    ) -> Result<Self, reqwest::Error> {
        let idle = Duration::from_millis(config.idle_ms);
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_millis(config.connect_ms))
            .read_timeout(idle)
            .pool_max_idle_per_host(config.parallel)
            .user_agent(concat!("cache-daemon/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let bytes_per_second_min = config.bytes_per_second_min.max(1);
        Ok(Self { client, token, vault, purges, turns: None, idle, bytes_per_second_min })
    }

    /// The same, with content servers asked in turn with other caches.
    #[must_use]
    pub fn in_turn(self, turns: Turns) -> Self {
        Self { turns: Some(turns), ..self }
    }

    /// Fetches a file from the first source that gives it; it is held when this returns.
    ///
    /// # Errors
    ///
    /// What the last source said, or the disk.
    pub async fn fetch(&self, order: &Order) -> Result<Fetched, FetchError> {
        let mut failure = FetchError::Lasting(format!("{}: no source has it", order.name));
        for source in &order.sources {
            match self.fetch_in_turn(source, order).await {
                Err(error @ (FetchError::Disk(_) | FetchError::Waiting { .. })) => return Err(error),
                Err(error) => {
                    tracing::debug!(name = %order.name, ?source, %error, "a source did not give the file");
                    failure = error;
                }
                Ok(size) => return Ok(Fetched { size, from_cache: matches!(source, Source::Cache(_)) }),
            }
        }
        Err(failure)
    }

    async fn fetch_in_turn(&self, source: &Source, order: &Order) -> Result<u64, FetchError> {
        let turns = self.turns.as_ref().filter(|_| matches!(source, Source::ContentServer { .. }));
        let Some(turns) = turns else { return self.fetch_from(source, order).await };
        if let Some(cache) = turns.begins(&order.name, order.size_max).await {
            return Err(FetchError::Waiting { name: order.name.clone(), cache });
        }
        let fetched = self.fetch_from(source, order).await;
        if fetched.is_err() {
            turns.failed(&order.name, order.size_max).await;
        }
        fetched
    }

    async fn fetch_from(&self, source: &Source, order: &Order) -> Result<u64, FetchError> {
        let (began, ours) = (self.purges.mark(), matches!(source, Source::Cache(_)));
        let request = match source {
            Source::Cache(address) => {
                self.client.get(format!("http://{address}/{}", order.name)).bearer_auth(&self.token)
            }
            Source::ContentServer { url, host } => {
                host.iter().fold(self.client.get(url), |request, host| request.header(header::HOST, host))
            }
        };
        // Bytes are kept by position and checked by length, so they must come as they are.
        let request = request.header(header::ACCEPT_ENCODING, "identity");
        let limit = self.idle + Duration::from_secs(order.size_max / self.bytes_per_second_min);
        match tokio::time::timeout(limit, self.receive(request, order, began, ours)).await {
            Ok(result) => result,
            Err(_) => Err(FetchError::Passing(format!("{}: took longer than {limit:?}", order.name))),
        }
    }

    /// `began`: purges gone by before the source was asked; `ours`: the source is a cache.
    async fn receive(
        &self,
        request: reqwest::RequestBuilder,
        order: &Order,
        began: Mark,
        ours: bool,
    ) -> Result<u64, FetchError> {
        let name = &order.name;
        // The address is left out of reqwest's message: the name says which file, and the log which source.
        let passing = |error: reqwest::Error| FetchError::Passing(format!("{name}: {}", causes(&error.without_url())));
        let mut response = request.send().await.map_err(passing)?;
        let offer = offer::judge(response.status(), response.headers(), order.size_max, daemon::clock::unix_s())
            .map_err(|refusal| refused(name, &refusal))?;
        let told = Told::of(response.headers(), ours);
        let mark = told.mark.map_or(began, |told| told.min(began));
        let purged = || {
            let subject = Subject { name: name.as_str(), content: name.content_id(), tags: &told.tags };
            let verdict = self.purges.verdict(subject, mark);
            // What a cache has from before a purge, and what was purged while it was on its way here.
            let why = || FetchError::Passing(format!("{name}: it is from before a purge"));
            if verdict == Verdict::Current { Ok(()) } else { Err(why()) }
        };
        purged()?;
        let mut writer = self.begin(name, offer.size).await?.marked(mark, told.tags.clone());
        let mut pending = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(passing)? {
            pending.extend_from_slice(&bytes);
            if pending.len() as u64 >= HELD_BLOCK_BYTES {
                writer = append(writer, std::mem::take(&mut pending)).await?;
            }
        }
        writer = append(writer, pending).await?;
        purged()?;
        blocking(move || writer.commit(&offer.headers, offer.born_at)).await?;
        Ok(offer.size)
    }

    async fn begin(&self, name: &CanonicalName, size: u64) -> Result<Writer, FetchError> {
        let (vault, name) = (Arc::clone(&self.vault), name.clone());
        blocking(move || vault.begin(&name, size)).await
    }
}

async fn append(mut writer: Writer, bytes: Vec<u8>) -> Result<Writer, FetchError> {
    blocking(move || writer.write(&bytes).map(|()| writer)).await
}

fn refused(name: &CanonicalName, refusal: &Refusal) -> FetchError {
    let what = format!("{name}: {refusal}");
    match refusal {
        Refusal::Absent(_) | Refusal::Unwanted(_) => FetchError::Lasting(what),
        Refusal::Status(_) => FetchError::Passing(what),
    }
}

impl From<VaultError> for FetchError {
    fn from(error: VaultError) -> Self {
        match error {
            // The source sent more or less than it announced.
            VaultError::Length { .. } => Self::Passing(error.to_string()),
            VaultError::Disk { .. } | VaultError::Locked { .. } => Self::Disk(error),
        }
    }
}

/// Runs work on the disk where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, FetchError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(FetchError::Passing(format!("the disk's thread ended: {error}"))),
    }
}
