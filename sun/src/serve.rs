//! Carrying out the steps of [`crate::flow`]: looks, joins, waits, builds the response. It decides nothing.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use daemon::tokens::Role;
use geo::topology::Cors;
use geo::{CanonicalName, ContentId, Scheme};
use http::{Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use popularity_api::signing;

use crate::body::{FileReader, ResponseBody};
use crate::caching::freshness::Reuse;
use crate::canary;
use crate::conditional::Conclusion;
use crate::edge::Edge;
use crate::extent;
use crate::fill::plan::Plan;
use crate::fill::registry::{Joined, Need, UnderWay};
use crate::fill::window::slice;
use crate::fill::{Fill, FillError, Opened, Reader, ahead, task};
use crate::flow::{self, Company, Known, Standing, Step};
use crate::headers;
use crate::held::HeldFile;
use crate::interim::Interim;
use crate::meta::{Meta, fresh_generation};
use crate::metrics::Outcome;
use crate::multipart::{FileSize, Multipart};
use crate::pass;
use crate::purge;
use crate::ram::{self, Head, Note};
use crate::report::Tally;
use crate::request::{self, Lookup, Parsed, Pass, Refusal};
use crate::response::{self, Provenance};

/// Answers a client.
pub async fn client(
    edge: Arc<Edge>,
    client: IpAddr,
    scheme: Scheme,
    request: Request<Incoming>,
    interim: &Interim,
) -> Response<ResponseBody> {
    let (head, body) = request.into_parts();
    if head.uri.path() == canary::PATH && canary::may_ask(&edge, Some(client), &head.headers) {
        pass::refuse_body(&head, body);
        return canary::answer(&edge);
    }
    let parsed = request::parse(&head, false, &edge.topology());
    let lookup = match parsed {
        Parsed::File(lookup) => lookup.from_client(client),
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
    let refused = refuse_unsigned(&edge, &lookup, &head.uri);
    let passed_on = if refused.is_some() { None } else { pass_on(&edge, &lookup, scheme, &head.uri) };
    let redirected = passed_on.is_some();
    // RFC 9110, section 15.2: none to a client of HTTP/1.0; over HTTP/2 hyper cannot.
    let hints = (head.version == Version::HTTP_11).then_some(interim);
    let (mut response, outcome) = match refused.or(passed_on) {
        Some(response) => (response, Outcome::Refused),
        None => Serving { client: Some(client), interim: hints, ..Serving::new(&edge, &lookup) }.run().await,
    };
    interim.close();
    if lookup.cors {
        allow_origin(&edge, (lookup.site.as_deref(), &lookup.name), lookup.origin.as_deref(), &mut response);
    }
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
fn pass_on(edge: &Edge, request: &Lookup, scheme: Scheme, uri: &Uri) -> Option<Response<ResponseBody>> {
    // After a redirect to another host a browser says "Origin: null" (Fetch, section 4.4): no list of origins has that.
    let read_by_some = |cors: &Cors| !cors.origins.iter().any(|allowed| allowed == "*");
    let read_by_some = || edge.with_class(None, &request.name, |class| class.cors.as_ref().is_some_and(read_by_some));
    // A site's host leads to all suns; another sun has no URL of its own for its files. A client that is sent to another
    // host leaves its credentials behind (Fetch, section 4.4).
    if request.site.is_some() || request.personal() || (request.cors && request.origin.is_some() && read_by_some()) {
        return None;
    }
    let sharing = edge.sharing.load();
    let address = sharing.on(request.content, scheme, &mut |below| rand::random_range(0..below))?;
    Some(edge.signature.pass_on(address, signing::split(uri.path()).0, uri.query()))
}

/// The refusal of a client whose link is not signed as the file's class wants it.
fn refuse_unsigned(edge: &Edge, request: &Lookup, uri: &Uri) -> Option<Response<ResponseBody>> {
    let links = request.signed?;
    let keys = edge.keys.load();
    let verdict = request::admit(uri, &request.name, links, &edge.topology(), &keys, daemon::clock::unix_s());
    edge.metrics.signature(verdict);
    let refusal = request::denied(verdict.err()?);
    Some(edge.signature.refuse(&refusal, false))
}

/// Lets the page of this `origin` read the response, if the class of the file, asked for at a site or not, does.
fn allow_origin(
    edge: &Edge,
    (site, name): (Option<&str>, &CanonicalName),
    origin: Option<&str>,
    response: &mut Response<ResponseBody>,
) {
    edge.with_class(site, name, |class| {
        if let Some(cors) = &class.cors {
            response::allow_origin(response.headers_mut(), cors, origin);
        }
    });
}

/// Answers a client with what its content server says.
async fn passed(edge: &Arc<Edge>, client: IpAddr, pass: &Pass, request: Request<Incoming>) -> Response<ResponseBody> {
    let (mut response, outcome) = pass::pass(edge, client, pass, request).await;
    allow_origin(edge, (pass.site.as_deref(), &pass.name), pass.origin.as_deref(), &mut response);
    edge.metrics.answered(outcome, response.status());
    tracing::debug!(%client, file = %pass.name, status = response.status().as_u16(), "request passed on");
    response
}

/// Answers another server on the internal listener: authenticated, never through a sun, not reported.
pub async fn server(edge: Arc<Edge>, request: Request<Incoming>) -> Response<ResponseBody> {
    if request.uri().path() == purge::direct::PATH {
        return purge::direct::answer(edge, request).await;
    }
    let (head, _) = request.into_parts();
    let authorization = headers::text(&head.headers, &header::AUTHORIZATION);
    let refusal = match edge.tokens.identify(authorization).map(|identity| identity.role) {
        Some(Role::Sun | Role::Cache | Role::Operator) => None,
        Some(Role::Backend | Role::Replica) => {
            Some(Refusal::new(StatusCode::FORBIDDEN, "this is for servers: ask for links instead"))
        }
        None => Some(Refusal::new(StatusCode::UNAUTHORIZED, "servers of this CDN present their token here")),
    };
    if let Some(refusal) = refusal {
        return edge.signature.refuse(&refusal, false);
    }
    if head.uri.path() == canary::PATH {
        return canary::answer(&edge);
    }
    match request::parse(&head, true, &edge.topology()) {
        Parsed::File(lookup) => Serving::new(&edge, &lookup).run().await.0,
        Parsed::Preflight { .. } => {
            edge.signature.refuse(&Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "no browser asks here"), false)
        }
        Parsed::Pass(_) => {
            edge.signature.refuse(&Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "servers only read here"), false)
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
    /// Where 1xx responses go on to.
    interim: Option<&'a Interim>,
    found: Found,
}

/// What the tiers and fills have given so far.
#[derive(Debug)]
struct Found {
    /// Where the request looks: the file's slot, or that of the variant it gets.
    slot: ContentId,
    /// What RAM knows of it.
    known: Known,
    /// A whole small file.
    body: Option<Bytes>,
    /// The vault's copy.
    held: Option<Arc<HeldFile>>,
    /// The fill that was joined, and what it answered.
    fill: Option<(Reader, Opened, bool)>,
    /// It was found in the store.
    stored: bool,
}

impl<'a> Serving<'a> {
    fn new(edge: &'a Arc<Edge>, request: &'a Lookup) -> Self {
        Self { edge, request, client: None, interim: None, found: Found::nothing(request.slot) }
    }

    async fn run(mut self) -> (Response<ResponseBody>, Outcome) {
        if !self.edge.topology().content_servers.serves(&self.request.name) {
            let refusal = Refusal::new(StatusCode::NOT_FOUND, "there is no such content server");
            return (self.edge.signature.refuse(&refusal, false), Outcome::Refused);
        }
        let mut step = self.look();
        if let Some(recalled) = self.recall().await {
            step = recalled;
        }
        let mut forwarded = false;
        for _ in 0..STEPS_MAX {
            step = match step {
                Step::Respond { meta, conclusion, standing } => return self.respond(meta, &conclusion, standing),
                Step::Refuse(refusal) => return (self.edge.signature.refuse(&refusal, forwarded), Outcome::Refused),
                Step::Ask(plan, company) => {
                    forwarded = true;
                    self.ask(plan, company).await
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
        if request.said.is_none()
            && let Some((held, current)) = edge.open_held(&request.name, request.content)
        {
            let ttl_s = edge.with_class(request.site.as_deref(), &request.name, |class| class.ttl_s);
            // A held file is carried by plan and served until it is dropped by plan.
            let generation = fresh_generation(request.content.prefix());
            let meta = Meta::new(&held.headers, Some(held.size), held.stored_at, ttl_s, generation);
            let (fresh_until, background_until) = if current { (u64::MAX, u64::MAX) } else { (0, 0) };
            let (mark, tags) = (held.mark, held.tags.clone());
            let known = Known::File(Arc::new(Meta { fresh_until, background_until, mark, tags, ..meta }));
            self.found = Found { held: Some(Arc::new(held)), known, ..Found::nothing(request.slot) };
            return flow::looked(request, &self.found.known, daemon::clock::unix_s(), absent);
        }
        self.found = match absent {
            flow::Absent::Refuse => {
                let known = edge.known(&request.name, request.content, request.slot);
                Found::of(request.slot, edge.held_whole(request, known))
            }
            flow::Absent::Fill => Found::in_ram(edge, request),
        };
        flow::looked(request, &self.found.known, daemon::clock::unix_s(), absent)
    }

    /// Looks at the store, of a file of which RAM knows nothing.
    async fn recall(&mut self) -> Option<Step> {
        let (edge, request) = (self.edge, self.request);
        let absent = edge.absent(request);
        let unknown = matches!(self.found.known, Known::Nothing) && self.found.slot == request.slot;
        let may = absent == flow::Absent::Fill || request.held_only;
        if !edge.store.is_configured() || !unknown || !may {
            return None;
        }
        let mut known = edge.recall(&request.name, request.content, request.slot).await?;
        if absent == flow::Absent::Refuse {
            known = edge.held_whole(request, Some(known))?;
        }
        self.found = Found { stored: true, ..Found::of(request.slot, Some(known)).continuable(edge, request) };
        Some(flow::looked(request, &self.found.known, daemon::clock::unix_s(), absent))
    }

    /// Joins a fill, or begins one, and waits for upstream's answer.
    async fn ask(&mut self, plan: Plan, company: Company) -> Step {
        let (edge, request) = (self.edge, self.request);
        let (mut reader, collapsed) = match self.join(plan, company) {
            Joined::Held(found) => {
                self.found = found;
                return flow::looked(request, &self.found.known, daemon::clock::unix_s(), flow::Absent::Fill);
            }
            Joined::Joined(reader) => (reader, true),
            Joined::Started(reader) => {
                tokio::spawn(task::run(Arc::clone(edge), Arc::clone(reader.fill()), request.errand()));
                (reader, false)
            }
        };
        // What comes ahead of somebody else's answer may be for them alone.
        let interim = self.interim.filter(|_| !collapsed);
        let answered = reader.opened_with(|status, headers| {
            if let Some(interim) = interim {
                interim.send(status, headers);
            }
        });
        match answered.await {
            Ok(opened) if collapsed && !opened.shared => self.failed(&reader, &FillError::NotShared),
            Ok(opened) if !collapsed && self.has_it(&reader, &opened) => self.hand_on(reader, opened),
            Ok(opened) if collapsed && !self.gets(&opened) => self.look(),
            Ok(opened) => {
                if !self.found.holds(opened.meta.generation) {
                    // The vault has another version than the one that is served.
                    self.found.held = None;
                }
                let original = opened.original.clone().filter(|_| !collapsed);
                let step = flow::opened(request, original.as_ref().unwrap_or(&opened.meta));
                self.found.slot = opened.slot;
                self.found.fill = Some((reader, opened, collapsed));
                step
            }
            Err(error) => self.failed(&reader, &error),
        }
    }

    /// The client's own copy is current, although nothing is held here.
    fn has_it(&self, reader: &Reader, opened: &Opened) -> bool {
        matches!(reader.fill().plan, Plan::Conditional) && opened.status == StatusCode::NOT_MODIFIED
    }

    /// That is all this client needs; those who come later need the file, unless each needs their own.
    fn hand_on(&mut self, reader: Reader, opened: Opened) -> Step {
        if !reader.fill().alone
            && let Joined::Started(reader) = self.join(Plan::Whole, Company::Shared)
        {
            tokio::spawn(task::run(Arc::clone(self.edge), Arc::clone(reader.fill()), self.request.errand()));
        }
        let step = flow::opened(self.request, opened.original.as_ref().unwrap_or(&opened.meta));
        self.found.fill = Some((reader, opened, false));
        step
    }

    fn failed(&self, reader: &Reader, error: &FillError) -> Step {
        flow::failed(self.request, &reader.fill().plan, error, self.found.known.meta(), daemon::clock::unix_s())
    }

    /// A fill to read; one that was begun waits for its task.
    fn join(&self, plan: Plan, company: Company) -> Joined<Found> {
        let (edge, request, slot) = (self.edge, self.request, self.found.slot);
        let direct = request.direct || request.personal();
        let sources = || edge.sources_of(&request.errand(), direct);
        if company == Company::Alone {
            return Joined::Started(Reader::new(Arc::new(Fill::new(slot, plan, sources()).for_one())));
        }
        let now = daemon::clock::unix_s();
        let asks = request.said.as_ref().map(|said| &said.directives);
        let fresh = || {
            let found = Found::in_ram(edge, request);
            let usable = matches!(&found.known, Known::File(meta) if meta.reuse(asks, now) == Reuse::Serve);
            usable.then_some(found)
        };
        let begin = |_: UnderWay<'_>| (plan.clone(), sources());
        edge.part_overtaken(&request.name, request.content, slot);
        edge.fills.join(slot, Need::Head, direct, fresh, begin)
    }

    /// Whether what another request's fill brings is the variant that this request gets.
    fn gets(&self, opened: &Opened) -> bool {
        let Some((varying, said)) = opened.varying.as_ref().zip(self.request.said.as_ref()) else { return true };
        varying.variant(self.request.slot, &said.headers) == opened.slot
    }

    /// Asks whether the copy that is served is still current, for those who come later.
    fn refresh_behind(&self, meta: &Arc<Meta>) {
        let plan = Plan::Revalidate { meta: Arc::clone(meta) };
        if let Joined::Started(reader) = self.join(plan, Company::Shared) {
            tokio::spawn(task::run(Arc::clone(self.edge), Arc::clone(reader.fill()), self.request.errand()));
        }
    }

    fn respond(
        self,
        meta: Arc<Meta>,
        conclusion: &Conclusion,
        standing: Standing,
    ) -> (Response<ResponseBody>, Outcome) {
        if let (Conclusion::Parts(parts), Some(size)) = (conclusion, meta.size) {
            return self.respond_parts(meta, conclusion, parts, size, standing);
        }
        let part = match conclusion {
            Conclusion::Whole => 0..meta.size.unwrap_or(u64::MAX),
            Conclusion::Part(part) => part.clone(),
            _ => 0..0,
        };
        if standing == Standing::Refreshing {
            self.refresh_behind(&meta);
        }
        if let (Some(client), Conclusion::Part(part), None, None) =
            (self.client, conclusion, &self.found.held, &self.request.said)
        {
            ahead::follow(self.edge, client, self.request, &meta, part);
        }
        self.tell_store();
        let (provenance, outcome) = self.provenance(&meta, part.start, standing);
        let direct = self.request.direct;
        let (edge, rfc) = (Arc::clone(self.edge), self.request.said.is_some());
        let body = self.body(Arc::clone(&meta), part, None);
        let mut response = answer(&edge, rfc, &meta, conclusion, &provenance, body);
        if direct {
            purge::headers::tell(response.headers_mut(), meta.mark, &meta.tags);
        }
        (response, outcome)
    }

    fn respond_parts(
        self,
        meta: Arc<Meta>,
        conclusion: &Conclusion,
        parts: &[std::ops::Range<u64>],
        size: u64,
        standing: Standing,
    ) -> (Response<ResponseBody>, Outcome) {
        let multipart = Multipart::new(parts, size, meta.headers.get(header::CONTENT_TYPE), rand::random());
        if standing == Standing::Refreshing {
            self.refresh_behind(&meta);
        }
        self.tell_store();
        let (provenance, outcome) = self.provenance(&meta, parts[0].start, standing);
        let (none, rfc) = (ResponseBody::empty(), self.request.said.is_some());
        let mut response = answer(self.edge, rfc, &meta, conclusion, &provenance, none);
        multipart.describe(response.headers_mut());
        response.extensions_mut().insert(FileSize(size));
        if self.request.direct {
            purge::headers::tell(response.headers_mut(), meta.mark, &meta.tags);
        }
        let body = self.body(meta, parts[0].clone(), Some(multipart));
        (response.map(|_| body), outcome)
    }

    /// The store hears of some of what RAM answers.
    fn tell_store(&self) {
        if matches!(self.found.known, Known::File(_)) && !self.found.stored && self.found.held.is_none() {
            let request = self.request;
            self.edge.hit_in_ram((&request.name, request.content, request.site.as_deref()), self.found.slot, None);
        }
    }

    fn provenance(&self, meta: &Meta, start: u64, standing: Standing) -> (Provenance, Outcome) {
        match &self.found.fill {
            _ if standing == Standing::Failed => (Provenance::Stale, Outcome::Stale),
            _ if standing == Standing::Refreshing => (Provenance::Refreshing, Outcome::Stale),
            Some((_, opened, _)) if !opened.flows && self.found.holds(opened.meta.generation) => {
                (Provenance::Revalidated, Outcome::Ram)
            }
            Some((_, opened, collapsed)) => {
                (Provenance::Miss { collapsed: *collapsed, opened: opened.clone() }, opened.outcome)
            }
            None if self.found.held.is_some() => (Provenance::Hit, Outcome::Vault),
            None if self.found.stored && self.found.body.is_some() => (Provenance::Hit, Outcome::Store),
            None if self.found.body.is_some()
                || matches!(self.found.known, Known::Piece { .. })
                || self.has_extent(meta, start) =>
            {
                (Provenance::Hit, Outcome::Ram)
            }
            None if self.in_store(meta, start) => (Provenance::Hit, Outcome::Store),
            None => (Provenance::Partial, Outcome::Origin),
        }
    }

    fn has_extent(&self, meta: &Meta, position: u64) -> bool {
        let index = extent::index_of(position);
        self.edge.ram.extent(self.found.slot, meta.generation, index).is_some()
    }

    fn in_store(&self, meta: &Meta, position: u64) -> bool {
        self.edge.store.has_block(self.found.slot, meta.generation, extent::index_of(position))
    }

    /// `part` of the file, or several of which it is the first.
    fn body(self, meta: Arc<Meta>, part: std::ops::Range<u64>, several: Option<Multipart>) -> ResponseBody {
        if self.request.head_only || part.is_empty() {
            return ResponseBody::empty();
        }
        let same_version = self.found.holds(meta.generation);
        if let Some(body) = self.found.body.filter(|_| same_version) {
            return match several {
                Some(several) => ResponseBody::pieces(several.pieces(&body)),
                None => ResponseBody::whole(slice(&body, part.start, part.end)),
            };
        }
        if let (Known::Piece { start, body, .. }, None) = (&self.found.known, &self.found.fill) {
            return ResponseBody::whole(slice(body, part.start - start, part.end - start));
        }
        let alone = self.found.fill.as_ref().is_some_and(|(reader, opened, _)| {
            opened.flows && !opened.stored && (reader.fill().alone || !opened.shared)
        });
        // A fill that told what the file is may be far from the part that is wanted.
        let useful = |(reader, opened, _): &(Reader, Opened, bool)| {
            opened.flows && (alone || meta.size.is_none() || reader.fill().brings(meta.generation, part.start))
        };
        let fill = self.found.fill.filter(useful).map(|(reader, _, _)| reader);
        ResponseBody::file(FileReader {
            edge: Arc::clone(self.edge),
            errand: self.request.errand(),
            content: self.found.slot,
            meta,
            position: part.start,
            end: if several.is_some() { part.start } else { part.end },
            several,
            direct: self.request.direct || self.request.personal(),
            held_only: self.request.held_only,
            held: self.found.held,
            fill,
            alone,
            fruitless: 0,
            stood_still: false,
        })
    }
}

impl Found {
    const fn nothing(slot: ContentId) -> Self {
        Self { slot, known: Known::Nothing, body: None, held: None, fill: None, stored: false }
    }

    /// What RAM says: of the file, or of the variant that the request gets.
    fn in_ram(edge: &Edge, request: &Lookup) -> Self {
        let known = edge.known(&request.name, request.content, request.slot);
        match (known, &request.said) {
            (Some(ram::Known::Note(Note::Varying(varying))), Some(said)) => {
                let slot = varying.variant(request.slot, &said.headers);
                Self::of(slot, edge.known(&request.name, request.content, slot)).continuable(edge, request)
            }
            (known, _) => Self::of(request.slot, known).continuable(edge, request),
        }
    }

    /// Without what cannot be gone on with: under the policy "rfc" the missing extents of a large file are known to be of
    /// the same version only by a strong validator.
    fn continuable(self, edge: &Edge, request: &Lookup) -> Self {
        match &self.known {
            Known::File(meta)
                if request.said.is_some()
                    && self.body.is_none()
                    && meta.resume_validator().is_none()
                    && !edge.holds_part(request, self.slot, meta) =>
            {
                Self::nothing(self.slot)
            }
            _ => self,
        }
    }

    fn of(slot: ContentId, known: Option<ram::Known>) -> Self {
        let (known, body) = match known {
            Some(ram::Known::File(Head::Small { meta, body })) => (Known::File(meta), Some(body)),
            Some(ram::Known::File(Head::Large { meta })) => (Known::File(meta), None),
            Some(ram::Known::Note(Note::Piece { meta, start, body })) => (Known::Piece { meta, start, body }, None),
            Some(ram::Known::Note(Note::Refused { status, until, .. })) => (Known::Refused { status, until }, None),
            Some(ram::Known::Note(Note::Alone { until })) => (Known::Alone { until }, None),
            Some(ram::Known::Note(Note::Varying(_))) | None => (Known::Nothing, None),
        };
        Self { known, body, ..Self::nothing(slot) }
    }

    /// Whether this version is what a tier holds.
    fn holds(&self, generation: u64) -> bool {
        matches!(&self.known, Known::File(meta) if meta.generation == generation)
    }
}

fn answer(
    edge: &Edge,
    rfc: bool,
    meta: &Arc<Meta>,
    conclusion: &Conclusion,
    provenance: &Provenance,
    body: ResponseBody,
) -> Response<ResponseBody> {
    let now = daemon::clock::unix_s();
    match rfc {
        true => edge.signature.answer_rfc(meta, conclusion, provenance, now, body),
        false => edge.signature.answer(meta, conclusion, provenance, now, body),
    }
}

/// Steps a request may take: look, ask, and ask once more for an empty file, after a change, for another variant than
/// was waited for, or alone.
const STEPS_MAX: usize = 6;
