//! ClickHouse over HTTP, as much as the history and `sunctl history` need: one POST a statement or batch.
//!
//! The statement is in the query string, the batch in the body; user and password go in headers
//! (`X-ClickHouse-User`, `X-ClickHouse-Key`), never in a URL, which servers log. Versions from 18.16 to today's speak this.
//!
//! An insert is taken whole or not at all as far as a batch is one block (`max_insert_block_size`, a million rows) of one
//! partition (a day); another one may be there in part when the server dies, and is whole after it was sent again.

use std::path::Path;
use std::time::Duration;

use daemon::telemetry::causes;
use reqwest::{StatusCode, Url};

/// Where a server is and who asks. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    http: reqwest::Client,
    url: Url,
    database: String,
    user: String,
    password: Option<String>,
}

/// Why a statement was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ClickHouseError {
    /// An address, name or password file that is none.
    #[error("{0}")]
    Config(String),
    /// No answer in time, or none that can be read.
    #[error("ClickHouse at {url}: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        why: String,
    },
    /// It answered that it does not.
    #[error("ClickHouse: {status}: {said}")]
    Refused {
        /// Its status.
        status: u16,
        /// The beginning of what it said.
        said: String,
    },
}

impl Access {
    /// Reads the password.
    ///
    /// # Errors
    ///
    /// [`ClickHouseError::Config`].
    pub fn new(
        url: &str,
        database: &str,
        user: &str,
        password_file: Option<&Path>,
        timeout_ms: u64,
    ) -> Result<Self, ClickHouseError> {
        let bad = |why: &str| ClickHouseError::Config(format!("{url:?}: {why}"));
        let parsed = Url::parse(url).ok().filter(|url| {
            let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
            url.scheme() == "http" && url.has_host() && bare && url.username().is_empty() && url.password().is_none()
        });
        let parsed = parsed.ok_or_else(|| bad("ClickHouse's address has the form http://host:port"))?;
        if !is_name(database) {
            let why = format!("{database:?}: a database's name is of a-z, A-Z, 0-9 and _");
            return Err(ClickHouseError::Config(why));
        }
        let secret = |file: &Path| {
            let text =
                daemon::config::read_private(file).map_err(|error| ClickHouseError::Config(error.to_string()))?;
            Ok(text.trim().to_owned())
        };
        let timeout = Duration::from_millis(timeout_ms);
        // Plain HTTP only: the platform's authorities, which a machine may lack, are not asked for.
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).redirect(reqwest::redirect::Policy::none());
        let http = http.timeout(timeout).connect_timeout(timeout).build();
        Ok(Self {
            http: http.map_err(|error| bad(&format!("HTTP client: {error}")))?,
            url: parsed,
            database: database.to_owned(),
            user: user.to_owned(),
            password: password_file.map(secret).transpose()?,
        })
    }

    /// The database that the tables are in.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Inserts a batch: gzipped lines of [`super::buffer::Row`].
    ///
    /// # Errors
    ///
    /// [`ClickHouseError`]; the batch may be there all the same, and is to be sent again.
    pub async fn insert(&self, lines: Vec<u8>) -> Result<(), ClickHouseError> {
        let statement = format!("INSERT INTO {}.downloads FORMAT JSONEachRow", self.database);
        let request = self.request(Some(&statement));
        self.send(request.header("content-encoding", "gzip").body(lines)).await.map(drop)
    }

    /// Carries out one statement; its answer as text.
    ///
    /// # Errors
    ///
    /// [`ClickHouseError`].
    pub async fn ask(&self, statement: &str) -> Result<String, ClickHouseError> {
        // In the body: a statement may be longer than a URL.
        self.send(self.request(None).body(statement.to_owned())).await
    }

    fn request(&self, statement: Option<&str>) -> reqwest::RequestBuilder {
        let mut url = self.url.clone();
        if let Some(statement) = statement {
            url.query_pairs_mut().append_pair("query", statement);
        }
        let request = self.http.post(url).header("x-clickhouse-user", &self.user);
        match &self.password {
            Some(password) => request.header("x-clickhouse-key", password),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<String, ClickHouseError> {
        let away =
            |why: String| ClickHouseError::Unreachable { url: self.url.as_str().trim_end_matches('/').to_owned(), why };
        let mut response = request.send().await.map_err(|error| away(causes(&error)))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| away(causes(&error)))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(away(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        if status == StatusCode::OK {
            return Ok(text);
        }
        let said = text.lines().next().unwrap_or_default().chars().take(SAID_MAX).collect();
        Err(ClickHouseError::Refused { status: status.as_u16(), said })
    }
}

/// Without the password.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("url", &self.url.as_str()).field("user", &self.user).finish_non_exhaustive()
    }
}

/// The statements of a file of SQL, without its comments; none of ours has `--` or `;` in a string.
#[must_use]
pub fn statements(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("--").next().unwrap_or_default().trim_end()).collect();
    code.join("\n").split(';').map(str::trim).filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}

/// A name that needs no quotes.
fn is_name(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(word) && !text.as_bytes()[0].is_ascii_digit()
}

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Of what a server says when it refuses, characters.
const SAID_MAX: usize = 300;
