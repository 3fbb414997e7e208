//! What an upstream's response means for a fill under the policy "rfc". Pure.
//!
//! Any status is an answer: it is handed on, and kept if [`crate::caching`] says so.
//!
//! ```text
//!   status   asked for               then
//!   304      is it still current?    the held version, with its fields updated
//!            is the client's?        handed on
//!   206      whole extents           these bytes of the file
//!            the rest of a piece     piece and rest are the file, if a strong validator says so
//!            the client's own range  handed on as it is; kept as a piece
//!   5xx      is it still current?    a failure, if the held version may be used then (RFC 9111, section 4.3.3)
//!   other                           a whole response
//! ```

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};

use crate::caching::directives::ResponseDirectives;
use crate::caching::freshness::{self, Lifetime};
use crate::caching::storable::{self, may_store};
use crate::caching::update;
use crate::caching::vary::Vary;
use crate::errand::Said;
use crate::fill::FillError;
use crate::fill::answer::Answer;
use crate::fill::plan::Plan;
use crate::headers;
use crate::meta::Meta;
use crate::range::ContentRange;

/// A response's head, as far as it matters.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its end-to-end fields.
    pub headers: &'a HeaderMap,
    /// Length of its body, if that is known.
    pub length: Option<u64>,
}

/// What it is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The request.
    pub said: &'a Said,
    /// When it was asked and answered.
    pub exchange: freshness::Exchange,
    /// Generation for a response without a strong validator.
    pub fallback: u64,
    /// Lifetimes that the class gives to statuses, seconds.
    pub negative_ttl: &'a [(u16, u64)],
    /// Largest body that is kept, bytes.
    pub file_bytes_max: u64,
}

/// A response, understood.
#[derive(Debug)]
pub struct Understood {
    /// What it is.
    pub answer: Answer,
    /// It may be kept.
    pub stored: bool,
    /// Others that wait get it too.
    pub shared: bool,
    /// Which requests get it.
    pub vary: Vary,
    /// As the one who asked gets it: with the fields that are not kept.
    pub original: Option<Arc<Meta>>,
    /// It is a part of a file, from this position of a file of this version on.
    pub piece: Option<(u64, Arc<Meta>)>,
    /// Bytes that are here already and come before those of the response.
    pub prefix: Bytes,
}

/// Understands the answer of a source to `plan`.
#[must_use]
pub fn understand(plan: &Plan, head: Head<'_>, rules: &Rules<'_>) -> Understood {
    let content_range = headers::text(head.headers, &header::CONTENT_RANGE).and_then(ContentRange::parse);
    match (head.status, plan) {
        (StatusCode::NOT_MODIFIED, Plan::Revalidate { meta }) => unchanged(meta, head, rules),
        (StatusCode::NOT_MODIFIED, Plan::Conditional) => whole(head, rules, true),
        (StatusCode::NOT_MODIFIED, _) => failed(Answer::Useless("304 to a question without a condition".to_owned())),
        (status, Plan::Revalidate { meta }) if is_failure(status) && may_use_stale(meta, rules) => {
            failed(Answer::Useless(format!("it answered {status}")))
        }
        (StatusCode::PARTIAL_CONTENT, Plan::Complete { meta, body }) => {
            completed(meta, body, content_range, head, rules)
        }
        (StatusCode::RANGE_NOT_SATISFIABLE, Plan::Complete { .. }) => failed(Answer::Refused(FillError::Changed)),
        (StatusCode::PARTIAL_CONTENT, Plan::Continue { meta, .. }) => continued(plan, meta, content_range, head),
        (_, Plan::Continue { .. }) => failed(Answer::Refused(FillError::Changed)),
        (StatusCode::PARTIAL_CONTENT, Plan::Span(_)) => span(plan, content_range, head, rules),
        (StatusCode::RANGE_NOT_SATISFIABLE, Plan::Span(_)) => failed(Answer::Refused(FillError::NotShared)),
        (StatusCode::PARTIAL_CONTENT, _) => part(content_range, head, rules),
        (_, Plan::Head) => whole(head, rules, true),
        _ => whole(head, rules, false),
    }
}

/// A response to a question for all of a file, or to HEAD.
fn whole(head: Head<'_>, rules: &Rules<'_>, head_only: bool) -> Understood {
    let made = Made::of(head.status, head, rules);
    // One that ends with its connection counts as complete (RFC 9112, section 8).
    let fits = head.length.is_none_or(|length| length <= rules.file_bytes_max);
    let stored = made.storable && fits && !head_only;
    let original = made.original(head);
    let meta = Arc::new(made.meta);
    let fresh = !meta.never_fresh() && meta.fresh(rules.exchange.answered_at);
    let answer = match head_only {
        true => Answer::Sized(meta),
        false => Answer::Bytes { meta, range: 0..head.length.unwrap_or(u64::MAX) },
    };
    Understood { answer, stored, shared: stored && fresh, vary: made.vary, original, piece: None, prefix: Bytes::new() }
}

/// RFC 9111, section 4.3.4.
fn unchanged(meta: &Arc<Meta>, head: Head<'_>, rules: &Rules<'_>) -> Understood {
    let tag = head.headers.get(header::ETAG);
    if tag.is_some_and(|tag| meta.headers.get(header::ETAG).is_some_and(|held| held != tag)) {
        // It says that what was asked about is current and names something else: it is used, and updates nothing
        // (RFC 9111, section 4.3.4).
        return Understood { shared: false, ..failed(Answer::Unchanged(Arc::clone(meta))) };
    }
    let updated = Arc::new(refreshed(meta, head.headers, rules));
    let fresh = updated.fresh(rules.exchange.answered_at);
    let vary = Vary::of(&updated.headers);
    let answer = Answer::Unchanged(updated);
    Understood { answer, stored: false, shared: fresh, vary, original: None, piece: None, prefix: Bytes::new() }
}

/// The held version with what a 304, or a 200 to HEAD, says.
#[must_use]
pub fn refreshed(meta: &Meta, headers: &HeaderMap, rules: &Rules<'_>) -> Meta {
    let mut directives = ResponseDirectives::of(headers);
    // Fields that are not kept are not kept of a later response either.
    let mut kept = headers.clone();
    for name in directives.withheld.drain(..) {
        kept.remove(name);
    }
    let mut said = headers.clone();
    said.remove(header::AGE);
    meta.updated(&kept, |all| {
        let mut timed = all.clone();
        if let Some(age) = headers.get(header::AGE) {
            timed.insert(header::AGE, age.clone());
        }
        let directives = ResponseDirectives::of(all);
        Lifetime::of(meta.status, &timed, &directives, rules.exchange, rules.negative_ttl(meta.status))
    })
}

/// The rest of a piece: together they are the file if both are of one version (RFC 9110, section 15.3.7.3).
fn completed(
    meta: &Arc<Meta>,
    body: &Bytes,
    content_range: Option<ContentRange>,
    head: Head<'_>,
    rules: &Rules<'_>,
) -> Understood {
    let from = body.len() as u64;
    let rest = match content_range {
        Some(ContentRange::Part { part, size }) if part.start == from && part.end == size => Some(size),
        _ => None,
    };
    let same = meta.resume_validator().is_some_and(|_| rest.is_some_and(|size| meta.continued_by(head.headers, size)));
    let (true, Some(size)) =
        (same && head.length.is_none_or(|length| Some(length) == rest.map(|size| size - from)), rest)
    else {
        return failed(Answer::Refused(FillError::Changed));
    };
    let updated = Arc::new(refreshed(meta, head.headers, rules));
    let fresh = updated.fresh(rules.exchange.answered_at);
    let (vary, stored) = (Vary::of(&updated.headers), size <= rules.file_bytes_max);
    let answer = Answer::Bytes { meta: updated, range: 0..size };
    Understood { answer, stored, shared: stored && fresh, vary, original: None, piece: None, prefix: body.clone() }
}

/// Extents of a version that is known.
fn continued(plan: &Plan, meta: &Arc<Meta>, content_range: Option<ContentRange>, head: Head<'_>) -> Understood {
    let asked = plan.range().unwrap_or(0..0);
    let as_asked = match content_range {
        Some(ContentRange::Part { part, size }) => {
            (part.start == asked.start && part.end == asked.end.min(size)).then_some((part, size))
        }
        _ => None,
    };
    let same = |size| meta.resume_validator().is_some() && meta.continued_by(head.headers, size);
    let Some((part, _)) = as_asked.filter(|(_, size)| same(*size)) else {
        return failed(Answer::Refused(FillError::Changed));
    };
    let vary = Vary::of(&meta.headers);
    let answer = Answer::Bytes { meta: Arc::clone(meta), range: part };
    Understood { answer, stored: true, shared: true, vary, original: None, piece: None, prefix: Bytes::new() }
}

/// Extents of a file of which nothing was known.
fn span(plan: &Plan, content_range: Option<ContentRange>, head: Head<'_>, rules: &Rules<'_>) -> Understood {
    let asked = plan.range().unwrap_or(0..0);
    let Some(ContentRange::Part { part, size }) = content_range else {
        return failed(Answer::Refused(FillError::NotShared));
    };
    if part.start != asked.start
        || part.end != asked.end.min(size)
        || head.length.is_some_and(|length| length != part.end - part.start)
    {
        return failed(Answer::Refused(FillError::NotShared));
    }
    let mut made = Made::of(StatusCode::OK, head, rules);
    made.meta.headers.remove(header::CONTENT_RANGE);
    made.meta = made.meta.with_size(size);
    // Extents are put together by their version: without a strong validator only a whole answer will do.
    let whole = part == (0..size);
    if !(made.storable && (whole || made.meta.resume_validator().is_some())) {
        return failed(Answer::Refused(FillError::NotShared));
    }
    let meta = Arc::new(made.meta);
    let fresh = meta.fresh(rules.exchange.answered_at);
    let (stored, vary) = (size <= rules.file_bytes_max, made.vary);
    let answer = Answer::Bytes { meta, range: part };
    Understood { answer, stored, shared: stored && fresh, vary, original: None, piece: None, prefix: Bytes::new() }
}

/// The client's own range: handed on as it came, kept as a piece of the file.
fn part(content_range: Option<ContentRange>, head: Head<'_>, rules: &Rules<'_>) -> Understood {
    let made = Made::of(StatusCode::PARTIAL_CONTENT, head, rules);
    let piece = match (content_range, head.length) {
        (Some(ContentRange::Part { part, size }), Some(length)) => {
            // Some servers count the end of a range that runs to the end of the file wrong by what they do not
            // send: the bytes that come are what there is.
            let runs_out = part.end == size && length < part.end - part.start;
            let size = if runs_out { part.start + length } else { size };
            (part.start + length == part.end || runs_out).then_some((part.start, size))
        }
        _ => None,
    };
    let piece = piece.filter(|_| made.storable && head.length.is_some_and(|length| length <= PIECE_BYTES_MAX));
    let piece = piece.map(|(start, size)| {
        let mut whole = made.meta.clone().with_size(size);
        whole.status = StatusCode::OK;
        whole.headers.remove(header::CONTENT_RANGE);
        (start, Arc::new(whole))
    });
    let original = Some(Arc::new(Meta { headers: head.headers.clone(), ..made.meta.clone() }));
    let answer = Answer::Bytes { meta: Arc::new(made.meta), range: 0..head.length.unwrap_or(u64::MAX) };
    Understood { answer, stored: false, shared: false, vary: made.vary, original, piece, prefix: Bytes::new() }
}

/// An answer and nothing else.
#[must_use]
pub fn failed(answer: Answer) -> Understood {
    let (vary, prefix) = (Vary::No, Bytes::new());
    Understood { answer, stored: false, shared: true, vary, original: None, piece: None, prefix }
}

/// A response as metadata.
struct Made {
    meta: Meta,
    storable: bool,
    vary: Vary,
}

impl Made {
    fn of(status: StatusCode, head: Head<'_>, rules: &Rules<'_>) -> Self {
        let directives = ResponseDirectives::of(head.headers);
        let negative_ttl = rules.negative_ttl(head.status);
        let vary = Vary::of(head.headers);
        let kept = update::stored(head.headers, &directives.withheld);
        let allowed = may_store(storable::Exchange {
            method: &Method::GET,
            authorized: rules.said.authorized,
            request: &rules.said.directives,
            status: head.status,
            response: head.headers,
            directives: &directives,
            negative: negative_ttl.is_some(),
        });
        // What a request with a cookie got, or what sets one, may be one person's although it does not say so.
        let doubtful = rules.said.personal || head.headers.contains_key(header::SET_COOKIE);
        let expires = !directives.targeted && head.headers.contains_key(header::EXPIRES);
        let told = directives.public || directives.names_a_lifetime() || expires;
        let storable = allowed && vary != Vary::Always && kept.is_some() && (told || !doubtful);
        let lifetime = Lifetime::of(head.status, head.headers, &directives, rules.exchange, negative_ttl);
        let fields = kept.unwrap_or_else(|| head.headers.clone());
        let meta = Meta::of_response(status, fields, head.length, lifetime, rules.fallback);
        Self { meta, storable, vary }
    }

    /// With the fields that are not kept, if there are any.
    fn original(&self, head: Head<'_>) -> Option<Arc<Meta>> {
        let withheld = head.headers.keys().any(|name| !self.meta.headers.contains_key(name));
        withheld.then(|| Arc::new(Meta { headers: head.headers.clone(), ..self.meta.clone() }))
    }
}

impl Rules<'_> {
    fn negative_ttl(&self, status: StatusCode) -> Option<u64> {
        self.negative_ttl.iter().find(|(of, _)| *of == status.as_u16()).map(|(_, seconds)| *seconds)
    }
}

/// Statuses that mean "ask again later".
fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

fn may_use_stale(meta: &Meta, rules: &Rules<'_>) -> bool {
    rules.exchange.answered_at < meta.error_until && !rules.said.directives.no_cache
}

/// Largest part of a file that is kept as a piece, bytes: as much as a file that is kept as one.
pub const PIECE_BYTES_MAX: u64 = crate::extent::EXTENT_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const NOW: u64 = 1_000_000;

    #[test]
    fn any_status_is_an_answer_and_what_it_says_decides() {
        let fresh = ("cache-control", "max-age=60");
        check(&Plan::Whole, 200, &[fresh], "200 0..30 stored shared");
        check(&Plan::Whole, 404, &[fresh], "404 0..30 stored shared");
        check(&Plan::Whole, 599, &[fresh], "599 0..30 stored shared");
        check(&Plan::Whole, 200, &[], "200 0..30 stored");
        check(&Plan::Whole, 200, &[("cache-control", "max-age=60, no-cache")], "200 0..30 stored");
        check(&Plan::Whole, 200, &[("cache-control", "private")], "200 0..30");
        check(&Plan::Whole, 200, &[fresh, ("vary", "*")], "200 0..30");
        check(&Plan::Whole, 503, &[], "503 0..30");
        check(&Plan::Head, 200, &[fresh], "sized 200 30");
        check(&Plan::Whole, 304, &[], "useless");
        check(&Plan::Conditional, 304, &[fresh], "sized 304 30");
        check(&Plan::Conditional, 200, &[fresh], "200 0..30 stored shared");
    }

    #[test]
    fn fields_that_are_not_kept_reach_only_the_one_who_asked() {
        let headers = [("cache-control", "max-age=60, private=\"a\""), ("a", "1"), ("b", "2")];
        let understood = judge(&Plan::Whole, 200, &headers);
        let Answer::Bytes { meta, .. } = &understood.answer else { panic!() };
        assert!(!meta.headers.contains_key("a") && meta.headers.contains_key("b"));
        assert!(understood.original.unwrap().headers.contains_key("a"));
    }

    #[test]
    fn a_304_freshens_what_it_is_about() {
        let held = held(&[("etag", "\"a\""), ("b", "1")], 0);
        let plan = Plan::Revalidate { meta: Arc::clone(&held) };
        check(&plan, 304, &[("cache-control", "max-age=60"), ("b", "2")], "unchanged b=2 shared");
        check(&plan, 304, &[("b", "2")], "unchanged b=2");
        check(&plan, 304, &[("cache-control", "max-age=60"), ("etag", "\"x\""), ("b", "2")], "unchanged b=1");
    }

    #[test]
    fn an_error_is_a_failure_only_while_what_is_held_may_be_used() {
        let usable = Plan::Revalidate { meta: held(&[], NOW + 1) };
        check(&usable, 503, &[], "useless");
        check(&usable, 404, &[], "404 0..30 stored");
        check(&Plan::Revalidate { meta: held(&[], NOW) }, 503, &[], "503 0..30");
    }

    #[test]
    fn a_piece_is_completed_only_by_its_own_version() {
        let meta = held(&[("etag", "\"a\"")], 0);
        let plan = Plan::Complete { meta, body: Bytes::from_static(b"01234") };
        let rest = ("content-range", "bytes 5-34/35");
        check(
            &plan,
            206,
            &[rest, ("etag", "\"a\""), ("cache-control", "max-age=60")],
            "200 0..35 prefix=5 stored shared",
        );
        check(&plan, 206, &[rest, ("etag", "\"b\"")], "refused: the file changed while it was being fetched");
        check(&plan, 206, &[rest], "refused: the file changed while it was being fetched");
        check(&plan, 416, &[], "refused: the file changed while it was being fetched");
        check(&plan, 200, &[], "200 0..30 stored");
        let unnamed = Plan::Complete { meta: held(&[], 0), body: Bytes::from_static(b"01234") };
        check(&unnamed, 206, &[rest], "refused: the file changed while it was being fetched");
    }

    #[test]
    fn the_clients_own_range_is_handed_on_and_kept_as_a_piece() {
        let fresh = ("cache-control", "max-age=60");
        check(&Plan::Part, 206, &[fresh, ("content-range", "bytes 5-34/100")], "206 0..30 piece 5 of 100");
        // The bytes that come are what there is when a range that runs to the end is counted too long.
        check(&Plan::Part, 206, &[fresh, ("content-range", "bytes 5-35/36")], "206 0..30 piece 5 of 35");
        check(&Plan::Part, 206, &[fresh, ("content-range", "bytes 5-35/100")], "206 0..30");
        check(&Plan::Part, 206, &[fresh, ("content-range", "bytes 5-20/21")], "206 0..30");
        check(&Plan::Part, 206, &[fresh], "206 0..30");
        check(&Plan::Part, 206, &[("cache-control", "no-store"), ("content-range", "bytes 5-34/100")], "206 0..30");
        check(&Plan::Part, 416, &[("content-range", "bytes */3")], "416 0..30");
    }

    #[test]
    fn extents_are_shared_only_with_a_version_to_put_them_together_by() {
        let (plan, fresh) = (Plan::Span(0..30), ("cache-control", "max-age=60"));
        check(&plan, 206, &[fresh, ("content-range", "bytes 0-29/90"), ("etag", "\"a\"")], "200 0..30 stored shared");
        check(&plan, 206, &[fresh, ("content-range", "bytes 0-29/30")], "200 0..30 stored shared");
        let not_shared = "refused: the answer was for another client alone";
        check(&plan, 206, &[fresh, ("content-range", "bytes 0-29/90")], not_shared);
        check(&plan, 206, &[fresh, ("content-range", "bytes 5-34/90"), ("etag", "\"a\"")], not_shared);
        check(&plan, 416, &[], not_shared);
        check(&plan, 200, &[fresh], "200 0..30 stored shared");
    }

    #[track_caller]
    fn check(plan: &Plan, status: u16, headers: &[(&'static str, &'static str)], expected: &str) {
        let understood = judge(plan, status, headers);
        let mut words = match &understood.answer {
            Answer::Bytes { meta, range } => format!("{} {range:?}", meta.status.as_u16()),
            Answer::Sized(meta) => format!("sized {} {}", meta.status.as_u16(), meta.size.unwrap()),
            Answer::Unchanged(meta) => format!("unchanged b={}", meta.headers["b"].to_str().unwrap()),
            Answer::Refused(error) => format!("refused: {error}"),
            Answer::Useless(_) => "useless".to_owned(),
        };
        if let Some((start, meta)) = &understood.piece {
            words.push_str(&format!(" piece {start} of {}", meta.size.unwrap()));
        }
        if !understood.prefix.is_empty() {
            words.push_str(&format!(" prefix={}", understood.prefix.len()));
        }
        let failed = matches!(understood.answer, Answer::Refused(_) | Answer::Useless(_));
        for (word, said) in [(" stored", understood.stored), (" shared", understood.shared && !failed)] {
            words.push_str(if said { word } else { "" });
        }
        assert_eq!(words, expected, "{plan:?} {status} {headers:?}");
    }

    fn judge(plan: &Plan, status: u16, headers: &[(&'static str, &'static str)]) -> Understood {
        let (headers, said) = (map(headers), Said::of(&HeaderMap::new(), false));
        let rules = Rules {
            said: &said,
            exchange: freshness::Exchange { asked_at: NOW, answered_at: NOW },
            fallback: 2,
            negative_ttl: &[],
            file_bytes_max: 1000,
        };
        let head = Head { status: StatusCode::from_u16(status).unwrap(), headers: &headers, length: Some(30) };
        understand(plan, head, &rules)
    }

    /// A stale version of 35 bytes.
    fn held(headers: &[(&'static str, &'static str)], error_until: u64) -> Arc<Meta> {
        let lifetime = Lifetime { born_at: 0, fresh_until: 1, background_until: 1, error_until };
        Arc::new(Meta::of_response(StatusCode::OK, map(headers), Some(35), lifetime, 4))
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }
}
