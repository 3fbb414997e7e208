//! What becomes of an answer: what it means by the class's policy, where it is kept, and who else gets it.

use std::sync::Arc;

use geo::ContentId;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;

use super::Writer;
use crate::caching::freshness::Exchange;
use crate::caching::update;
use crate::caching::vary::{self, Vary, Varying};
use crate::fill::answer::{self, Answer, Making};
use crate::fill::plan::Plan;
use crate::fill::rfc::{self, Understood};
use crate::fill::{self, Opened};
use crate::headers;
use crate::meta::{self, Meta, Storable};
use crate::purge::{self, Stamp, Verdict};
use crate::ram::Note;
use crate::sources::Source;

impl Writer<'_> {
    /// What a response means, by the class's policy.
    pub(super) fn understand(&self, response: &Response<Incoming>, source: &Source, waited_s: u64) -> Understood {
        let topology = self.edge.topology();
        let class = self.errand.class(&topology);
        let fallback = meta::fresh_generation(rand::random());
        let (status, now) = (response.status(), daemon::clock::unix_s());
        let Some(said) = &self.errand.said else {
            let making = Making {
                now,
                ttl_s: class.ttl_s,
                fallback,
                stale_while_revalidate_s: class.stale_while_revalidate_s,
                stale_if_error_s: class.stale_if_error_s,
            };
            let plan = &self.fill.plan;
            let answer = answer::understand(plan, status, response.headers(), making, source.authority());
            return self.of_medium(answer, response.headers(), class.file_bytes_max);
        };
        let ours_failed = source.server().is_some() && matches!(status.as_u16(), 502..=504);
        if ours_failed || (status == StatusCode::NOT_FOUND && !source.authority()) {
            return rfc::failed(Answer::Useless(format!("it answered {status}")));
        }
        let exchange = Exchange { asked_at: now.saturating_sub(waited_s), answered_at: now };
        let rules = rfc::Rules {
            said,
            exchange,
            fallback,
            negative_ttl: &class.negative_ttl,
            file_bytes_max: class.file_bytes_max,
        };
        let mut headers = update::end_to_end(response.headers());
        // Tags and marks are read from the response itself (`stamped`).
        purge::headers::strip(&mut headers);
        let length = match self.fill.plan {
            // Its body would have that length, and has none.
            Plan::Head => headers::text(&headers, &header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            _ => response.body().size_hint().exact(),
        };
        let head = rfc::Head { status, headers: &headers, length };
        if let (Plan::Head, StatusCode::OK) = (&self.fill.plan, status) {
            self.head_updates(&headers, &rules);
        }
        rfc::understand(&self.fill.plan, head, &rules)
    }

    /// A medium is kept and shared unless it says that it must not be.
    fn of_medium(&self, answer: Answer, headers: &HeaderMap, file_bytes_max: u64) -> Understood {
        let (size, flows) = match &answer {
            Answer::Bytes { meta, .. } => (meta.size, true),
            _ => (None, false),
        };
        let allowed = Storable::of(headers) == Storable::Yes;
        let stored = flows && allowed && size.is_none_or(|size| size <= file_bytes_max);
        Understood { stored, shared: allowed, ..rfc::failed(answer) }
    }

    /// RFC 9111, section 4.3.5: what HEAD says of a held file updates it, or shows that it is of another version.
    fn head_updates(&self, headers: &HeaderMap, rules: &rfc::Rules<'_>) {
        let (ram, slot) = (&self.edge.ram, self.fill.content);
        let Some(head) = ram.head(slot) else { return };
        if head.meta().status != StatusCode::OK {
            return;
        }
        if update::agrees(&head.meta().headers, head.meta().size, headers) {
            self.edge.refresh(slot, Arc::new(rfc::refreshed(head.meta(), headers, rules)));
        } else {
            self.edge.forget(slot);
        }
    }

    /// With the purges that were gone by when this fill began, and the tags.
    pub(super) fn stamped(&self, understood: Understood, response: &HeaderMap, ours: bool) -> Understood {
        let (purges, errand) = (&self.edge.purges, self.errand);
        let stamp = Stamp::new(purges, self.fill, (&errand.name, errand.content), response, ours);
        Understood {
            answer: stamp.answer(understood.answer),
            original: understood.original.map(|meta| stamp.version(&meta)),
            piece: understood.piece.map(|(start, meta)| (start, stamp.version(&meta))),
            ..understood
        }
    }

    /// Where what came is kept: in the slot of its URL, or in that of a variant.
    pub(super) fn place(&self, understood: &Understood, response: &HeaderMap) -> (ContentId, Option<Arc<Varying>>) {
        let Some(said) = &self.errand.said else { return (self.fill.content, None) };
        let keeps = understood.stored || understood.piece.is_some();
        if !keeps || self.fill.plan.version().is_some() {
            return (self.fill.content, None);
        }
        let (ram, url) = (&self.edge.ram, vary::slot(self.errand.content));
        let Vary::By(fields) = &understood.vary else { return (url, None) };
        let known = ram.varying(url).filter(|known| known.fields == *fields);
        let mut varying = known.map_or_else(|| Varying::new(fields.clone(), rand::random()), |known| (*known).clone());
        varying.note_language(url, &said.headers, response);
        let (slot, varying) = (varying.exact(url, &said.headers), Arc::new(varying));
        self.edge.unstore(url);
        ram.note(url, Note::Varying(Arc::clone(&varying)));
        (slot, Some(varying))
    }

    pub(super) fn why_asked(&self) -> fill::Asked {
        match &self.fill.plan {
            _ if self.errand.said.is_none() => fill::Asked::Nothing,
            Plan::Revalidate { .. } => fill::Asked::Stale,
            Plan::Complete { .. } | Plan::Continue { .. } => fill::Asked::Part,
            _ => fill::Asked::Url,
        }
    }

    /// What came is for the one who asked: nobody joins any more, and for a while nobody waits for another's answer.
    pub(super) fn note_alone(&self, opened: &Opened) {
        if opened.shared || self.fill.alone {
            return;
        }
        self.edge.fills.leave(self.fill);
        let final_word = opened.flows && !opened.stored && !opened.status.is_server_error();
        let about_all = !matches!(self.fill.plan, Plan::Part | Plan::Head | Plan::Continue { .. });
        if final_word && about_all {
            self.edge.ram.note(self.fill.content, Note::Alone { until: daemon::clock::unix_s() + ALONE_S });
        }
    }

    /// Whether a body that breaks off can be gone on with: not the client's own range, and no error.
    pub(super) fn resumable(&self, opened: &Opened) -> bool {
        !matches!(self.fill.plan, Plan::Part) && opened.meta.status == StatusCode::OK
    }

    /// Whether neither a purge nor a change through this server has overtaken this fill.
    pub(super) fn is_current(&self, meta: &Meta) -> bool {
        self.epoch == self.edge.epochs.of(self.errand.content)
            && self.edge.purges.of(&self.errand.name, self.errand.content, meta) == Verdict::Current
    }
}
/// How long it is remembered that an answer was for one client alone, seconds: so long whoever asks next asks for
/// themselves at once. Too small: they wait for each other first, too large: they ask one by one what could be shared.
const ALONE_S: u64 = 30;
