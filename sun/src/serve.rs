//! Carrying out the steps of [`crate::flow`]: looks, joins, waits, builds the response. It decides nothing.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use daemon::tokens::Role;
use geo::Scheme;
use geo::topology::Cors;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::body::{FileReader, ResponseBody};
use crate::conditional::Conclusion;
use crate::edge::Edge;
use crate::extent;
use crate::fill::plan::Plan;
use crate::fill::registry::{Joined, Need, UnderWay};
use crate::fill::{Opened, Reader, ahead, task};
use crate::flow::{self, Step};
use crate::headers;
use crate::held::HeldFile;
use crate::meta::{Meta, fresh_generation};
use crate::metrics::Outcome;
use crate::multipart::{FileSize, Multipart};
use crate::pass;
use crate::ram::Head;
use crate::report::Tally;
use crate::request::{self, Lookup, Parsed, Pass, Refusal};
use crate::response::{self, Provenance};

/// Answers a client.
pub async fn client(
    edge: Arc<Edge>,
    client: IpAddr,
    scheme: Scheme,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let (head, body) = request.into_parts();
    let parsed = request::parse(&head, false, &edge.topology());
    let lookup = match parsed {
        Parsed::File(lookup) => lookup,
        Parsed::Preflight { name, site, origin } => {
            pass::refuse_body(&head, body);
            return edge.with_class(site.as_deref(), &name, |class| response::preflight(class, &origin));
        }
        Parsed::Pass(pass) => return passed(&edge, client, &pass, Request::from_parts(head, body)).await,
        Parsed::Refused(refusal) => {
            pass::refuse_body(&head, body);
            edge.metrics.answered(Outcome::Refused, refusal.status);
            return edge.signature.refuse(&refusal, false);
        }
    };
    let passed_on = pass_on(&edge, &lookup, scheme, head.uri.query());
    let redirected = passed_on.is_some();
    let (mut response, outcome) = match passed_on {
        Some(response) => (response, Outcome::Refused),
        None => Serving { client: Some(client), ..Serving::new(&edge, &lookup) }.run().await,
    };
    edge.with_class(lookup.site.as_deref(), &lookup.name, |class| {
        if let Some(cors) = &class.cors {
            response::allow_origin(response.headers_mut(), cors, lookup.origin.as_deref());
        }
    });
    if redirected {
        edge.metrics.passed_on();
        return response;
    }
    edge.metrics.answered(outcome, response.status());
    tracing::debug!(%client, file = %lookup.name, status = response.status().as_u16(), outcome = outcome.name(), "request");
    if outcome == Outcome::Refused || !matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        return response;
    }
    let size = file_size(&response);
    response.map(|body| {
        let region = edge.region_of(client);
        body.counted(Tally::new(&edge, region, &lookup, size))
    })
}

/// The `307` of a request for a hot file that a sibling is to take over; see [`crate::hot::passing`].
fn pass_on(edge: &Edge, request: &Lookup, scheme: Scheme, query: Option<&str>) -> Option<Response<ResponseBody>> {
    // After a redirect to another host a browser says "Origin: null" (Fetch, section 4.4): no list of origins has that.
    let read_by_some = |cors: &Cors| !cors.origins.iter().any(|allowed| allowed == "*");
    let read_by_some = || edge.with_class(None, &request.name, |class| class.cors.as_ref().is_some_and(read_by_some));
    // A site's host leads to all suns; another sun has no URL of its own for its files.
    if request.site.is_some() || (request.origin.is_some() && read_by_some()) {
        return None;
    }
    let sharing = edge.sharing.load();
    let address = sharing.on(request.content, scheme, &mut |below| rand::random_range(0..below))?;
    Some(edge.signature.pass_on(address, query))
}

/// Answers a client with what its content server says.
async fn passed(edge: &Arc<Edge>, client: IpAddr, pass: &Pass, request: Request<Incoming>) -> Response<ResponseBody> {
    let (mut response, outcome) = pass::pass(edge, client, pass, request).await;
    edge.with_class(pass.site.as_deref(), &pass.name, |class| {
        if let Some(cors) = &class.cors {
            response::allow_origin(response.headers_mut(), cors, pass.origin.as_deref());
        }
    });
    edge.metrics.answered(outcome, response.status());
    tracing::debug!(%client, file = %pass.name, status = response.status().as_u16(), "request passed on");
    response
}

/// Answers another server on the internal listener: authenticated, never through a sun, not reported.
pub async fn server(edge: Arc<Edge>, request: Request<Incoming>) -> Response<ResponseBody> {
    let (head, _) = request.into_parts();
    let authorization = headers::text(&head.headers, &header::AUTHORIZATION);
    let refusal = match edge.tokens.identify(authorization).map(|identity| identity.role) {
        Some(Role::Sun | Role::Cache | Role::Operator) => None,
        Some(Role::Backend) => Some(Refusal::new(StatusCode::FORBIDDEN, "this is for servers: ask for links instead")),
        None => Some(Refusal::new(StatusCode::UNAUTHORIZED, "servers of this CDN present their token here")),
    };
    if let Some(refusal) = refusal {
        return edge.signature.refuse(&refusal, false);
    }
    match request::parse(&head, true, &edge.topology()) {
        Parsed::File(lookup) => Serving::new(&edge, &lookup).run().await.0,
        Parsed::Preflight { .. } | Parsed::Pass(_) => {
            edge.signature.refuse(&Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "no browser asks here"), false)
        }
        Parsed::Refused(refusal) => edge.signature.refuse(&refusal, false),
    }
}

/// The length of the whole file, as the response's head tells it.
fn file_size(response: &Response<ResponseBody>) -> Option<u64> {
    if let Some(FileSize(size)) = response.extensions().get() {
        return Some(*size);
    }
    if let Some(range) = headers::text(response.headers(), &header::CONTENT_RANGE) {
        return range.rsplit('/').next().and_then(|size| size.parse().ok());
    }
    headers::text(response.headers(), &header::CONTENT_LENGTH).and_then(|length| length.parse().ok())
}

/// One request being served.
struct Serving<'a> {
    edge: &'a Arc<Edge>,
    request: &'a Lookup,
    /// Who asks; none: a server.
    client: Option<IpAddr>,
    found: Found,
}

/// What the tiers and fills have given so far.
#[derive(Debug, Default)]
struct Found {
    /// A whole small file.
    body: Option<Bytes>,
    /// The vault's copy.
    held: Option<Arc<HeldFile>>,
    /// The fill that was joined, and what it answered.
    fill: Option<(Reader, Opened, bool)>,
    /// The version that a tier holds, fresh or not.
    meta: Option<Arc<Meta>>,
}

impl<'a> Serving<'a> {
    fn new(edge: &'a Arc<Edge>, request: &'a Lookup) -> Self {
        Self { edge, request, client: None, found: Found::default() }
    }

    async fn run(mut self) -> (Response<ResponseBody>, Outcome) {
        if !self.edge.topology().content_servers.serves(&self.request.name) {
            let refusal = Refusal::new(StatusCode::NOT_FOUND, "there is no such content server");
            return (self.edge.signature.refuse(&refusal, false), Outcome::Refused);
        }
        let mut step = self.look();
        let mut forwarded = false;
        for _ in 0..STEPS_MAX {
            step = match step {
                Step::Respond { meta, conclusion, stale } => return self.respond(meta, &conclusion, stale),
                Step::Refuse(refusal) => return (self.edge.signature.refuse(&refusal, forwarded), Outcome::Refused),
                Step::Ask(plan) => {
                    forwarded = true;
                    self.ask(plan).await
                }
            };
        }
        let refusal = Refusal::new(StatusCode::BAD_GATEWAY, "the file keeps changing");
        (self.edge.signature.refuse(&refusal, true), Outcome::Refused)
    }

    /// Looks at the tiers.
    fn look(&mut self) -> Step {
        let (edge, request) = (self.edge, self.request);
        let absent = edge.absent(request);
        if let Some(held) = edge.open_held(request.content) {
            let ttl_s = edge.with_class(request.site.as_deref(), &request.name, |class| class.ttl_s);
            // A held file is carried by plan and served until it is dropped by plan.
            let generation = fresh_generation(request.content.prefix());
            let meta = Meta::new(&held.headers, Some(held.size), held.stored_at, ttl_s, generation);
            let meta = Arc::new(Meta { fresh_until: u64::MAX, ..meta });
            self.found = Found { held: Some(Arc::new(held)), meta: Some(Arc::clone(&meta)), ..Found::default() };
            return flow::looked(request, Some(&meta), crate::unix_now(), absent);
        }
        let head = match absent {
            flow::Absent::Refuse => edge.held_whole(request),
            flow::Absent::Fill => edge.ram.head(request.content),
        };
        self.found = Found::of(head);
        flow::looked(request, self.found.meta.as_ref(), crate::unix_now(), absent)
    }

    /// Joins a fill, or begins one, and waits for upstream's answer.
    async fn ask(&mut self, plan: Plan) -> Step {
        let (edge, request) = (self.edge, self.request);
        let now = crate::unix_now();
        let fresh = || edge.ram.head(request.content).filter(|head| head.meta().fresh(now));
        let begin = |_: UnderWay<'_>| (plan.clone(), edge.sources(&request.name, request.content, request.direct));
        let joined = edge.fills.join(request.content, Need::Head, request.direct, fresh, begin);
        let (mut reader, collapsed) = match joined {
            Joined::Held(head) => {
                self.found = Found::of(Some(head));
                return flow::looked(request, self.found.meta.as_ref(), now, flow::Absent::Fill);
            }
            Joined::Joined(reader) => (reader, true),
            Joined::Started(reader) => {
                tokio::spawn(task::run(Arc::clone(edge), Arc::clone(reader.fill()), request.name.clone()));
                (reader, false)
            }
        };
        match reader.opened().await {
            Ok(opened) => {
                let step = flow::opened(request, &opened);
                self.found.fill = Some((reader, opened, collapsed));
                step
            }
            Err(error) => flow::failed(request, &reader.fill().plan, &error, self.found.meta.as_ref()),
        }
    }

    fn respond(self, meta: Arc<Meta>, conclusion: &Conclusion, stale: bool) -> (Response<ResponseBody>, Outcome) {
        if let (Conclusion::Parts(parts), Some(size)) = (conclusion, meta.size) {
            return self.respond_parts(meta, conclusion, parts, size, stale);
        }
        let part = match conclusion {
            Conclusion::Whole => 0..meta.size.unwrap_or(u64::MAX),
            Conclusion::Part(part) => part.clone(),
            _ => 0..0,
        };
        if let (Some(client), Conclusion::Part(part), None) = (self.client, conclusion, &self.found.held) {
            ahead::follow(self.edge, client, self.request, &meta, part);
        }
        let (provenance, outcome) = self.provenance(&meta, part.start, stale);
        let edge = Arc::clone(self.edge);
        let body = self.body(Arc::clone(&meta), part, None);
        (edge.signature.answer(&meta, conclusion, &provenance, crate::unix_now(), body), outcome)
    }

    fn respond_parts(
        self,
        meta: Arc<Meta>,
        conclusion: &Conclusion,
        parts: &[std::ops::Range<u64>],
        size: u64,
        stale: bool,
    ) -> (Response<ResponseBody>, Outcome) {
        let multipart = Multipart::new(parts, size, meta.headers.get(header::CONTENT_TYPE), rand::random());
        let (provenance, outcome) = self.provenance(&meta, parts[0].start, stale);
        let none = ResponseBody::empty();
        let mut response = self.edge.signature.answer(&meta, conclusion, &provenance, crate::unix_now(), none);
        multipart.describe(response.headers_mut());
        response.extensions_mut().insert(FileSize(size));
        let body = self.body(meta, parts[0].clone(), Some(multipart));
        (response.map(|_| body), outcome)
    }

    fn provenance(&self, meta: &Meta, start: u64, stale: bool) -> (Provenance, Outcome) {
        match &self.found.fill {
            _ if stale => (Provenance::Stale, Outcome::Stale),
            Some((_, opened, _))
                if self.found.meta.as_ref().is_some_and(|held| held.generation == opened.meta.generation) =>
            {
                (Provenance::Revalidated, Outcome::Ram)
            }
            Some((_, opened, collapsed)) => {
                (Provenance::Miss { collapsed: *collapsed, opened: opened.clone() }, opened.outcome)
            }
            None if self.found.held.is_some() => (Provenance::Hit, Outcome::Vault),
            None if self.found.body.is_some() || self.has_extent(meta, start) => (Provenance::Hit, Outcome::Ram),
            None => (Provenance::Partial, Outcome::Origin),
        }
    }

    fn has_extent(&self, meta: &Meta, position: u64) -> bool {
        let index = extent::index_of(position);
        self.edge.ram.extent(self.request.content, meta.generation, index).is_some()
    }

    /// `part` of the file, or several of which it is the first.
    fn body(self, meta: Arc<Meta>, part: std::ops::Range<u64>, several: Option<Multipart>) -> ResponseBody {
        if self.request.head_only || part.is_empty() {
            return ResponseBody::empty();
        }
        let same_version = self.found.meta.as_ref().is_some_and(|held| held.generation == meta.generation);
        if let Some(body) = self.found.body.filter(|_| same_version) {
            return match several {
                Some(several) => ResponseBody::pieces(several.pieces(&body)),
                None => ResponseBody::whole(crate::fill::window::slice(&body, part.start, part.end)),
            };
        }
        // A fill that told what the file is may be far from the part that is wanted.
        let useful = |(reader, opened, _): &(Reader, Opened, bool)| {
            opened.flows && (meta.size.is_none() || reader.fill().brings(meta.generation, part.start))
        };
        let fill = self.found.fill.filter(useful).map(|(reader, _, _)| reader);
        ResponseBody::file(FileReader {
            edge: Arc::clone(self.edge),
            name: self.request.name.clone(),
            content: self.request.content,
            meta,
            position: part.start,
            end: if several.is_some() { part.start } else { part.end },
            several,
            direct: self.request.direct,
            held_only: self.request.held_only,
            held: self.found.held,
            fill,
            fruitless: 0,
            stood_still: false,
        })
    }
}

impl Found {
    fn of(head: Option<Head>) -> Self {
        let meta = head.as_ref().map(|head| Arc::clone(head.meta()));
        let body = match head {
            Some(Head::Small { body, .. }) => Some(body),
            Some(Head::Large { .. }) | None => None,
        };
        Self { body, meta, ..Self::default() }
    }
}

/// Steps a request may take: look, ask, and ask once more for an empty file or after a change.
const STEPS_MAX: usize = 4;
