//! Requests that only the content server can answer: uploads, and whatever else is asked of a site but GET and HEAD.
//!
//! ```text
//!   client --Upload: counted, paced--> [ connection of its own ] --> content server
//!      ^                                                                  |
//!      +--------------------- Passed <-- head, body ----------------------+
//!                    whichever comes first: the end of the body, or an answer before it
//! ```
//!
//! - Nothing is held: a piece of the body is read from the client when the content server has taken the one before.
//! - What is refused here is refused before the body: `100 Continue` goes out with the first read of it (RFC 9110,
//!   section 10.1.1), and that happens when a connection to the content server is there.
//! - Nothing is sent twice. Connections are not kept, so that no request is lost to one that the content server was
//!   just closing: a lost upload costs more than a handshake in the same data centre.
//! - A client that leaves takes its request with it: the content server sees a body that breaks off.
//! - What it changes (a method that is not safe, a status that is no error) is forgotten here (RFC 9111, section 4.4).
//!   Other suns of the region keep their copies until a purge or their time is over.
//!
//! Resumption is between the client and the content server: offsets and ranges go up and come down as they are
//! ([`crossing`]).

pub mod body;
pub mod crossing;
pub mod keep;
pub mod pace;
pub mod share;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use geo::CanonicalName;
use geo::topology::Uploads;
use http::header::{self, HeaderName};
use http::{HeaderValue, Request, Response, StatusCode, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use self::keep::Keep;
use self::share::{Share, Shares};
use crate::body::ResponseBody;
use crate::breaker::Leave;
use crate::caching::freshness::Exchange;
use crate::config::UpstreamConfig;
use crate::edge::Edge;
use crate::metrics::Outcome;
use crate::origin_tls::Connector;
use crate::request::{Pass, Refusal};
use crate::sources::{self, Source};
use body::{Fault, Passed, Progress, Turn, Upload, UploadLimits};

/// The client for what is passed.
#[derive(Clone, Debug)]
pub struct Passing {
    client: Client<Connector, Upload>,
    /// Requests that may be under way.
    permits: Arc<Semaphore>,
    /// Those of one client.
    shares: Arc<Shares>,
    connect: Duration,
    first_byte: Duration,
    idle: Duration,
}

impl Passing {
    /// With the deadlines and the connector of fills.
    #[must_use]
    pub fn new(config: &UpstreamConfig, connector: Connector) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .http1_max_buf_size(BUFFER_BYTES)
            .timer(TokioTimer::new())
            .build(connector);
        Self {
            client,
            permits: Arc::new(Semaphore::new(config.passes_max.min(Semaphore::MAX_PERMITS))),
            shares: Arc::default(),
            connect: Duration::from_millis(config.connect_ms),
            first_byte: Duration::from_millis(config.first_byte_ms),
            idle: Duration::from_millis(config.idle_ms),
        }
    }
}

/// Passes a request on and its answer back.
pub async fn pass(
    edge: &Arc<Edge>,
    client: IpAddr,
    pass: &Pass,
    request: Request<Incoming>,
) -> (Response<ResponseBody>, Outcome) {
    let (head, body) = request.into_parts();
    match carry(edge, client, pass, &head, body).await {
        Ok(response) => (response, Outcome::Origin),
        Err(refusal) => (edge.signature.refuse(&refusal, false), Outcome::Refused),
    }
}

async fn carry(
    edge: &Arc<Edge>,
    client: IpAddr,
    pass: &Pass,
    head: &request::Parts,
    body: Incoming,
) -> Result<Response<ResponseBody>, Refusal> {
    let uploads = edge.with_class(pass.site.as_deref(), &pass.name, |class| class.uploads);
    let Admitted { url, host, source, permit } = match admit(edge, client, pass, uploads, &body) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            refuse_body(head, body);
            return Err(refusal);
        }
    };
    let limits = UploadLimits {
        bytes_max: uploads.map_or(u64::MAX, |uploads| uploads.bytes_max),
        bytes_per_second: uploads.map_or(0, |uploads| uploads.bytes_per_second),
        silence: Duration::from_secs(edge.config.limits.stall_s),
        lingers: lingers(head),
    };
    let (upload, progress) = Upload::new(body, limits);
    let passing = &edge.passing;
    let request = outgoing(edge, client, pass, head, (&url, host.as_deref()), upload)?;
    let asked_at = daemon::clock::unix_s();
    let response = match answered(passing, request, &progress).await {
        Ok(response) => response,
        Err(failure) => {
            if failure.is_the_content_servers() {
                edge.failed(&source, &Leave::ORDINARY, failure.words());
            }
            tracing::debug!(file = %pass.name, method = %head.method, ?failure, "not passed");
            return Err(failure.refusal());
        }
    };
    // What is passed is the client's own doing: an error that it provokes says nothing of the content server.
    if !response.status().is_server_error() {
        edge.succeeded(&source);
    }
    let exchange = Exchange { asked_at, answered_at: daemon::clock::unix_s() };
    let (server, body) = response.into_parts();
    let at = crossing::At { base: base_of(&url, &pass.target), host: host.as_deref() };
    let headers = crossing::down(&server.headers, &pass.target, at, pass.site.is_some());
    keep::forget(edge, pass, head, server.status, &headers);
    let keep = Keep::of(edge, pass, head, server.status, &headers, body.size_hint().exact(), exchange);
    let body = Passed::new(body, passing.idle, permit).keeping(keep);
    let mut answer = Response::new(ResponseBody::passed(body));
    *answer.status_mut() = server.status;
    *answer.headers_mut() = headers;
    edge.signature.sign_passed(answer.headers_mut());
    Ok(answer)
}

/// Where a request may go.
struct Admitted {
    url: String,
    /// `Host`, when it is not what the URL says.
    host: Option<String>,
    source: Source,
    /// Its place among those under way.
    permit: Place,
}

/// One request's place among all that are under way and among its client's; given back when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// What can be refused without the body is refused.
fn admit(
    edge: &Edge,
    client: IpAddr,
    pass: &Pass,
    uploads: Option<Uploads>,
    body: &Incoming,
) -> Result<Admitted, Refusal> {
    let topology = edge.topology();
    let url = topology.content_servers.url_of(&pass.target);
    let url = url.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is no such content server"))?;
    if let Some(Uploads { bytes_max, .. }) = uploads
        && body.size_hint().lower() > bytes_max
    {
        return Err(too_long());
    }
    let share = edge.passing.shares.enter(client);
    let share =
        share.ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many of yours are under way"))?;
    let permit = Arc::clone(&edge.passing.permits).try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many uploads are under way"))?;
    let host = topology.origin_host(pass.target.content_server()).map(str::to_owned);
    let source = sources::content_server(&pass.target, url.clone(), &topology);
    if !edge.admits_unprobed(pass.target.content_server()) {
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "the content server cannot be reached at the moment"));
    }
    Ok(Admitted { url, host, source, permit: Place { _permit: permit, _share: share } })
}

/// Disposes of a body that is refused at once.
pub fn refuse_body(head: &request::Parts, body: Incoming) {
    if lingers(head) {
        body::linger(body);
    }
}

/// Whether what is left of a body must be read: HTTP/2 ends one stream and goes on, and a client that waits for `100
/// Continue` sends nothing.
fn lingers(head: &request::Parts) -> bool {
    head.version < Version::HTTP_2 && !head.headers.contains_key(header::EXPECT)
}

fn outgoing(
    edge: &Edge,
    client: IpAddr,
    pass: &Pass,
    head: &request::Parts,
    (url, host): (&str, Option<&str>),
    upload: Upload,
) -> Result<Request<Upload>, Refusal> {
    let mut request = Request::new(upload);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = url
        .parse()
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the path or query cannot stand in a request"))?;
    *request.headers_mut() = crossing::up(&head.headers, pass.site.as_deref(), client);
    let headers = request.headers_mut();
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
        headers.insert(header::HOST, host);
    }
    headers.append(header::VIA, edge.signature.via());
    if let Ok(domain) = HeaderValue::from_str(&edge.topology().domain) {
        headers.append(CDN_LOOP, domain);
    }
    Ok(request)
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Failure {
    /// It is the client's body.
    Body(Fault),
    /// No connection, or it broke before an answer.
    Unreachable,
    /// The content server took or said nothing for too long.
    Late,
}

impl Failure {
    const fn words(self) -> &'static str {
        match self {
            Self::Body(_) => "a body broke off",
            Self::Unreachable => "no connection, or it broke before an answer",
            Self::Late => "it took or said nothing for too long",
        }
    }

    const fn is_the_content_servers(self) -> bool {
        matches!(self, Self::Unreachable | Self::Late)
    }

    fn refusal(self) -> Refusal {
        match self {
            Self::Body(Fault::TooLong) => too_long(),
            Self::Body(Fault::Silent) => Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
            Self::Body(Fault::Broken) => Refusal::new(StatusCode::BAD_REQUEST, "the body broke off"),
            Self::Unreachable => Refusal::new(StatusCode::BAD_GATEWAY, "the content server did not answer"),
            Self::Late => Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the content server did not answer in time"),
        }
    }
}

fn too_long() -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than uploads may be here")
}

/// The head of the content server's answer.
async fn answered(
    passing: &Passing,
    request: Request<Upload>,
    progress: &Progress,
) -> Result<Response<Incoming>, Failure> {
    let mut answer = std::pin::pin!(passing.client.request(request));
    loop {
        let now = Instant::now();
        let Some(look_at) = look_at(progress.turn(), now, passing) else { return Err(Failure::Late) };
        let answered = tokio::select! {
            answered = answer.as_mut() => answered,
            () = tokio::time::sleep_until(look_at) => continue,
        };
        return answered.map_err(|error| failure(&error, progress));
    }
}

fn failure(error: &Error, progress: &Progress) -> Failure {
    tracing::debug!(%error, "a request that was passed on failed");
    progress.fault().map_or(Failure::Unreachable, Failure::Body)
}

/// When to look whose turn it is again; nothing when the content server has had its time.
fn look_at(turn: Turn, now: Instant, passing: &Passing) -> Option<Instant> {
    let until = match turn {
        Turn::Client => now + passing.idle,
        Turn::Taking(since) => since + passing.connect + passing.idle,
        Turn::Answering(since) => since + passing.first_byte,
    };
    (until > now).then_some(until)
}

/// The beginning of a URL, before the path on the content server.
fn base_of<'a>(url: &'a str, target: &CanonicalName) -> &'a str {
    url.strip_suffix(target.path_and_query()).unwrap_or(url)
}

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// What one connection may hold of a body on its way, in each direction.
const BUFFER_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_content_server_has_its_time_and_the_clients_is_not_counted() {
        let config = UpstreamConfig { connect_ms: 1, idle_ms: 20, first_byte_ms: 300, ..UpstreamConfig::default() };
        let connector = crate::origin_tls::connector(&config).unwrap();
        let passing = Passing::new(&config, connector);
        let since = Instant::now();
        let wait = |turn, passed_ms| {
            let now = since + Duration::from_millis(passed_ms);
            look_at(turn, now, &passing).map(|at| at.duration_since(now).as_millis())
        };
        assert_eq!((wait(Turn::Taking(since), 0), wait(Turn::Taking(since), 20)), (Some(21), Some(1)));
        assert_eq!((wait(Turn::Taking(since), 21), wait(Turn::Answering(since), 300)), (None, None));
        assert_eq!((wait(Turn::Answering(since), 299), wait(Turn::Client, 1_000_000)), (Some(1), Some(20)));
    }

    #[test]
    fn a_url_is_cut_before_the_path_on_the_content_server() {
        let target = CanonicalName::for_site(7, "/a", Some("b=/a")).unwrap();
        assert_eq!(base_of("http://h:80/cs7/a?b=/a", &target), "http://h:80/cs7");
    }
}
