//! Requests that are the content server's own business: unsafe and unknown methods under the policy "rfc".
//!
//! ```text
//!   client --request, body as it comes--> content server
//!   client <--response, body as it comes--     |
//!                 |                            +-- what it made invalid is forgotten (RFC 9111, section 4.4)
//!                 +-- an answer to POST that is one to GET too is kept (RFC 9110, section 9.3.3)
//! ```
//!
//! Nothing is held of a body but the piece under way, and nothing is asked twice: whoever made the request decides
//! whether it may be repeated. No other server of ours sees it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use geo::{CanonicalName, ContentId};
use http::{HeaderMap, Method, Response, StatusCode, header, request};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::ResponseBody;
use crate::caching::directives::ResponseDirectives;
use crate::caching::freshness::{Exchange, Lifetime};
use crate::caching::storable::{self, may_store};
use crate::caching::vary::{self, Vary};
use crate::caching::{invalidate, update};
use crate::edge::Edge;
use crate::errand::Asker;
use crate::extent::EXTENT_BYTES;
use crate::fill::FillError;
use crate::meta::{Meta, fresh_generation};
use crate::metrics::Outcome;
use crate::request::{Lookup, Refusal, host};
use crate::sources::Source;
use crate::upstream::AskError;

/// Passes a request on and answers what the content server answers.
pub async fn pass(
    edge: &Arc<Edge>,
    lookup: &Lookup,
    head: &request::Parts,
    body: Incoming,
) -> (Response<ResponseBody>, Outcome) {
    let refused = |refusal: &Refusal| (edge.signature.refuse(refusal, true), Outcome::Refused);
    let (Some(url), Some(asker)) = (edge.topology().content_servers.url_of(&lookup.name), &lookup.asker) else {
        return refused(&Refusal::new(StatusCode::NOT_FOUND, "there is no such content server"));
    };
    let source = Source::ContentServer { number: lookup.name.content_server(), url };
    if !edge.admits(&source) {
        return refused(&Refusal::new(StatusCode::BAD_GATEWAY, "the content server failed just now"));
    }
    let Source::ContentServer { url, .. } = &source else { unreachable!("it was made one above") };
    let asked_at = crate::unix_now();
    let response = match edge.upstream.pass(&head.method, url, &asker.headers, body).await {
        Ok(response) => response,
        Err(error) => {
            edge.failed(&source);
            tracing::debug!(file = %lookup.name, %error, "a request could not be passed on");
            let status = match error {
                AskError::Unreachable(_) => StatusCode::BAD_GATEWAY,
                AskError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            };
            return refused(&Refusal::new(status, "the content server did not answer"));
        }
    };
    edge.succeeded(&source);
    let (answer, body) = response.into_parts();
    let headers = update::end_to_end(&answer.headers);
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_else(|| host(head));
    forget(edge, lookup, &head.method, host, answer.status, &headers);
    let exchange = Exchange { asked_at, answered_at: crate::unix_now() };
    let target = lookup.name.path_and_query();
    let keep = (head.method == Method::POST && invalidate::answers_get(target, host, &headers))
        .then(|| Keep::of(edge, lookup.slot, asker, answer.status, &headers, body.size_hint().exact(), exchange))
        .flatten();
    let body = ResponseBody::passed(Passed { body, keep });
    (edge.signature.passed(answer.status, headers, body), Outcome::Origin)
}

/// What the request made invalid is no longer used, and what is under way of it is not kept.
fn forget(edge: &Edge, lookup: &Lookup, method: &Method, host: &str, status: StatusCode, headers: &HeaderMap) {
    let number = lookup.name.content_server();
    for target in invalidate::targets(method, lookup.name.path_and_query(), host, status, headers) {
        let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
        if let Ok(name) = CanonicalName::for_site(number, path, query) {
            let slot = vary::slot(name.content_id());
            edge.fills.outdate(slot);
            edge.ram.forget(slot);
        }
    }
}

/// A body on its way to the client.
#[derive(Debug)]
pub struct Passed {
    body: Incoming,
    keep: Option<Keep>,
}

/// A response that is kept when its body has come whole.
#[derive(Debug)]
struct Keep {
    edge: Arc<Edge>,
    slot: ContentId,
    meta: Meta,
    bytes: BytesMut,
}

impl Keep {
    /// Nothing when the response may not be kept, or not as a small file.
    fn of(
        edge: &Arc<Edge>,
        slot: ContentId,
        asker: &Asker,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
        exchange: Exchange,
    ) -> Option<Self> {
        let directives = ResponseDirectives::of(headers);
        let allowed = may_store(storable::Exchange {
            method: &Method::POST,
            authorized: asker.authorized,
            request: &asker.directives,
            status,
            response: headers,
            directives: &directives,
            negative: false,
        });
        let small = length.is_some_and(|length| length <= EXTENT_BYTES);
        if !(allowed && small && Vary::of(headers) == Vary::No) {
            return None;
        }
        let kept = update::stored(headers, &directives.withheld)?;
        let lifetime = Lifetime::of(status, headers, &directives, exchange, None);
        let meta = Meta::of_response(status, kept, length, lifetime, fresh_generation(rand::random()));
        Some(Self { edge: Arc::clone(edge), slot, meta, bytes: BytesMut::new() })
    }

    fn take(&mut self, data: &Bytes) {
        if (self.bytes.len() + data.len()) as u64 <= EXTENT_BYTES {
            self.bytes.extend_from_slice(data);
        }
    }

    fn complete(self) {
        if self.meta.size == Some(self.bytes.len() as u64) {
            self.edge.ram.keep_small(self.slot, Arc::new(self.meta), self.bytes.freeze());
        }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = FillError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, FillError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => None,
            Some(Ok(frame)) => Some(frame),
            Some(Err(error)) => {
                self.keep = None;
                return Poll::Ready(Some(Err(FillError::Broken { at: 0, why: error.to_string().into() })));
            }
        };
        if let (Some(data), Some(keep)) = (frame.as_ref().and_then(Frame::data_ref), &mut self.keep) {
            keep.take(data);
        }
        // hyper does not ask again after the last byte of a body whose length is known.
        if frame.is_none() || self.body.is_end_stream() {
            self.keep.take().map(Keep::complete);
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.keep.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
