//! What an answer that is passed on does to what is kept here: the target and what the answer names are forgotten
//! (RFC 9111, section 4.4), and the answer to a POST that says that it is one to GET too is kept (RFC 9110, section
//! 9.3.3).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use geo::topology::Policy;
use geo::{CanonicalName, ContentId};
use http::{HeaderMap, Method, StatusCode, header, request};

use crate::caching::directives::ResponseDirectives;
use crate::caching::freshness::{Exchange, Lifetime};
use crate::caching::storable::{self, may_store};
use crate::caching::vary::{self, Vary};
use crate::caching::{invalidate, update};
use crate::edge::Edge;
use crate::errand::Said;
use crate::extent::EXTENT_BYTES;
use crate::headers;
use crate::meta::{Meta, fresh_generation};
use crate::purge;
use crate::request::Pass;
use crate::stored;

/// Forgets what a request has changed. `answer` is as the client gets it.
pub fn forget(edge: &Edge, pass: &Pass, head: &request::Parts, status: StatusCode, answer: &HeaderMap) {
    let target = url_of(pass);
    for url in invalidate::targets(&head.method, &target, host(head), status, answer) {
        if url == target {
            edge.invalidate(&pass.name);
        } else if let Some(name) = name_of(pass, &url) {
            edge.invalidate(&name);
        }
    }
}

/// A response that is kept once its body has come whole.
#[derive(Debug)]
pub struct Keep {
    edge: Arc<Edge>,
    slot: ContentId,
    meta: Meta,
    bytes: BytesMut,
}

impl Keep {
    /// Nothing unless it is the answer to a POST that may be kept for GET, of a known length and small, under the
    /// policy "rfc". `length` is that of its body, bytes.
    #[must_use]
    pub fn of(
        edge: &Arc<Edge>,
        pass: &Pass,
        head: &request::Parts,
        status: StatusCode,
        answer: &HeaderMap,
        length: Option<u64>,
        exchange: Exchange,
    ) -> Option<Self> {
        let rfc = edge.with_class(pass.site.as_deref(), &pass.name, |class| class.policy == Policy::Rfc);
        let is_get_too = head.method == Method::POST && invalidate::answers_get(&url_of(pass), host(head), answer);
        if !(rfc && is_get_too && length.is_some_and(|length| length <= EXTENT_BYTES)) {
            return None;
        }
        let (said, directives) = (Said::of(&head.headers, false), ResponseDirectives::of(answer));
        let allowed = may_store(storable::Exchange {
            method: &Method::POST,
            authorized: said.authorized,
            request: &said.directives,
            status,
            response: answer,
            directives: &directives,
            negative: false,
        });
        if !allowed || Vary::of(answer) != Vary::No {
            return None;
        }
        let kept = update::stored(answer, &directives.withheld)?;
        let lifetime = Lifetime::of(status, answer, &directives, exchange, None);
        let meta = Meta::of_response(status, kept, length, lifetime, fresh_generation(rand::random()));
        let meta = Meta { tags: purge::headers::tags(answer), mark: edge.purges.mark(), ..meta };
        let slot = vary::slot(pass.name.content_id());
        Some(Self { edge: Arc::clone(edge), slot, meta, bytes: BytesMut::new() })
    }

    /// The next piece of the body.
    pub fn take(&mut self, piece: &Bytes) {
        // The length was announced: more than that never comes.
        self.bytes.extend_from_slice(piece);
    }

    /// The body has ended.
    pub fn complete(self) {
        if self.meta.size == Some(self.bytes.len() as u64) {
            self.edge.keep_small(self.slot, Arc::new(self.meta), self.bytes.freeze(), stored::Keep::Ram);
        }
    }
}

/// What a request is about, as clients write it.
fn url_of(pass: &Pass) -> String {
    match pass.site {
        Some(_) => pass.target.path_and_query().to_owned(),
        None => format!("/{}", pass.target),
    }
}

/// The file that a URL of the same host means.
fn name_of(pass: &Pass, url: &str) -> Option<CanonicalName> {
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    match pass.site {
        Some(_) => CanonicalName::for_site(pass.target.content_server(), path, query).ok(),
        // Under `/c...` one content server has no say about the files of another.
        None => {
            CanonicalName::from_url_path(path).ok().filter(|name| name.content_server() == pass.target.content_server())
        }
    }
}

/// Host and port, as in a URL.
fn host(head: &request::Parts) -> &str {
    let field = || headers::text(&head.headers, &header::HOST).unwrap_or_default();
    head.uri.authority().map_or_else(field, |authority| authority.as_str())
}
