//! The life of a request: what happens next, decided here and nowhere else. Pure.
//!
//! ```text
//!   request::parse ---refused---------------------------------------------> Refuse
//!      |
//!   tiers looked at
//!      |         |            \
//!    fresh     stale          absent --- server asks a cache -------------> Refuse (not held)
//!      |       |   |             |
//!      |  just |  Ask(Revalidate)  Ask(cold plan)
//!      |       |         |         |
//!      |       |     +---+--- upstream answered ---- for one alone? -----> Ask(the same, alone)
//!      |       |     | usable                       | failed
//!      v       v     v                              v
//!    Respond(conclusion)        stale copy? Respond : Refuse (403 404 410 416 502 503 504)
//!      and behind it, when just stale: revalidate
//! ```
//!
//! The shell ([`crate::serve`]) carries out a [`Step`] and comes back with what it found. Why not a trait with
//! a method per phase: control flow that is spread over implementations cannot be read in one place.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use crate::caching::freshness::Reuse;
use crate::conditional::{self, Conclusion};
use crate::fill::FillError;
use crate::fill::plan::Plan;
use crate::meta::Meta;
use crate::request::{Lookup, Refusal};

/// What to do next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Answer from this version of the file.
    Respond {
        /// The version.
        meta: Arc<Meta>,
        /// What the request gets of it.
        conclusion: Conclusion,
        /// Whether it is past its time.
        standing: Standing,
    },
    /// Join a fill, or begin one.
    Ask(Plan, Company),
    /// Answer with an error.
    Refuse(Refusal),
}

/// Whether what is served is past its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It is not.
    Current,
    /// It is, a little: served at once and asked about behind the response (RFC 5861, section 3).
    Refreshing,
    /// It is, and nothing newer could be had (RFC 5861, section 4).
    Failed,
}

/// Whose fill a request reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Company {
    /// One for everybody who waits.
    Shared,
    /// One of its own: what comes may be for this client only.
    Alone,
}

/// What the tiers know of a file.
#[derive(Clone, Debug)]
pub enum Known {
    /// Nothing.
    Nothing,
    /// It is held, whole or in part.
    File(Arc<Meta>),
    /// Some bytes of a small one are.
    Piece {
        /// Metadata of the whole file.
        meta: Arc<Meta>,
        /// Position of the first byte.
        start: u64,
        /// The bytes.
        body: Bytes,
    },
    /// There is none.
    Refused {
        /// What the content server said.
        status: StatusCode,
        /// Until when that counts, seconds since 1970.
        until: u64,
    },
    /// It was for one client only, lately.
    Alone {
        /// Until when that counts, seconds since 1970.
        until: u64,
    },
}

impl Known {
    /// The version that is held, fresh or not.
    #[must_use]
    pub const fn meta(&self) -> Option<&Arc<Meta>> {
        match self {
            Self::File(meta) => Some(meta),
            _ => None,
        }
    }
}

/// What this server does with files it does not hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Absent {
    /// Gets them.
    Fill,
    /// Says so: 404 "not held".
    Refuse,
}

/// The tiers were looked at; `known` is what they say, `now` in seconds since 1970.
#[must_use]
pub fn looked(request: &Lookup, known: &Known, now: u64, absent: Absent) -> Step {
    let asks = request.said.as_ref().map(|said| &said.directives);
    if request.said.as_ref().is_some_and(|said| said.conditional) {
        return Step::Ask(cold(request), Company::Alone);
    }
    match known {
        Known::File(meta) if absent == Absent::Refuse => respond(request, meta, Standing::Current),
        _ if absent == Absent::Refuse => {
            Step::Refuse(Refusal::new(StatusCode::NOT_FOUND, "this cache does not hold the file"))
        }
        Known::File(meta) => match meta.reuse(asks, now) {
            Reuse::Serve => respond(request, meta, Standing::Current),
            Reuse::ServeStale => respond(request, meta, Standing::Refreshing),
            Reuse::Validate => ask(request, stale(request, meta), company(request, meta.never_fresh())),
        },
        Known::Piece { meta, start, body } => {
            let here = *start..*start + body.len() as u64;
            match meta.reuse(asks, now) {
                Reuse::Validate => ask(request, cold(request), Company::Shared),
                _ if within_piece(request, meta, &here) => respond(request, meta, Standing::Current),
                _ if *start == 0 && !request.head_only => {
                    let plan = Plan::Complete { meta: Arc::clone(meta), body: body.clone() };
                    ask(request, plan, company(request, false))
                }
                _ => ask(request, cold(request), company(request, false)),
            }
        }
        Known::Refused { status, until } if now < *until => Step::Refuse(refusal(&FillError::Missing(*status))),
        Known::Alone { until } => ask(request, cold(request), company(request, now < *until)),
        Known::Refused { .. } | Known::Nothing => ask(request, cold(request), company(request, false)),
    }
}

/// Upstream answered.
#[must_use]
pub fn opened(request: &Lookup, meta: &Arc<Meta>) -> Step {
    respond(request, meta, Standing::Current)
}

/// Upstream did not answer usably. `asked` is what the failed fill was begun for, `held` a copy that is past
/// its time, `now` in seconds since 1970.
#[must_use]
pub fn failed(request: &Lookup, asked: &Plan, error: &FillError, held: Option<&Arc<Meta>>, now: u64) -> Step {
    let insists = request.said.as_ref().is_some_and(|said| said.directives.no_cache);
    let usable = held.filter(|meta| now < meta.error_until && !insists);
    match (error, usable) {
        // The first byte of an empty file cannot be had: ask for all of it. Also when the fill that was joined
        // was another request's range.
        (FillError::Unsatisfiable { .. }, _) if request.range.is_none() && !matches!(asked, Plan::Whole) => {
            Step::Ask(Plan::Whole, Company::Shared)
        }
        // It was another request's range that lies past the end, not this one's.
        (FillError::Unsatisfiable { size }, _) if request.range.is_some_and(|range| range.within(*size).is_some()) => {
            Step::Ask(cold(request), Company::Shared)
        }
        // What another client has is nothing for this one: all who waited ask for the file together.
        (FillError::NotShared, _) if matches!(asked, Plan::Conditional) => Step::Ask(Plan::Whole, Company::Shared),
        // Nobody queues behind another: each asks for themselves, as the client does.
        (FillError::NotShared, _) => {
            let own = match (held, asked) {
                (_, Plan::Span(_)) if request.range.is_some() && request.said.is_some() => Plan::Part,
                (Some(meta), _) => stale(request, meta),
                (None, _) => cold(request),
            };
            Step::Ask(own, Company::Alone)
        }
        // What was held is of another version than what is there now.
        (FillError::Changed, _) if matches!(asked, Plan::Revalidate { .. } | Plan::Complete { .. }) => {
            Step::Ask(Plan::Whole, company(request, request.said.is_some()))
        }
        (FillError::Missing(_) | FillError::Unsatisfiable { .. }, _) | (_, None) => Step::Refuse(refusal(error)),
        (_, Some(meta)) => respond(request, meta, Standing::Failed),
    }
}

/// The question of a request of which nothing is held. What the client has may do: then its conditions go with it.
#[must_use]
pub fn cold(request: &Lookup) -> Plan {
    match &request.said {
        Some(said)
            if !request.head_only
                && request.range.is_none()
                && (said.if_none_match.is_some() || said.if_modified_since.is_some()) =>
        {
            Plan::Conditional
        }
        Some(_) => Plan::cold_rfc(request.head_only, request.range),
        None => Plan::cold(request.head_only, request.range),
    }
}

/// The question about a copy that is past its time. Under the policy "rfc" HEAD is written through: it updates what
/// is held.
fn stale(request: &Lookup, meta: &Arc<Meta>) -> Plan {
    match request.said {
        Some(_) if request.head_only => Plan::Head,
        _ => Plan::Revalidate { meta: Arc::clone(meta) },
    }
}

/// RFC 9111, section 5.2.1.7: who wants only what is here is not made to wait.
fn ask(request: &Lookup, plan: Plan, company: Company) -> Step {
    if request.said.as_ref().is_some_and(|said| said.directives.only_if_cached) {
        let why = "nothing is held that this request may use, and it wants nothing else";
        return Step::Refuse(Refusal::new(StatusCode::GATEWAY_TIMEOUT, why));
    }
    let own = matches!(plan, Plan::Head | Plan::Part);
    Step::Ask(plan, if own { Company::Alone } else { company })
}

/// Whether a request waits with others: not when the answer is likely to be for one alone.
fn company(request: &Lookup, lately_alone: bool) -> Company {
    let authorized = request.said.as_ref().is_some_and(|said| said.authorized || said.directives.no_store);
    if authorized || lately_alone { Company::Alone } else { Company::Shared }
}

/// Whether all that a request gets of a file lies in the piece that is held.
fn within_piece(request: &Lookup, meta: &Meta, here: &std::ops::Range<u64>) -> bool {
    match conditional::conclude(request, meta) {
        Conclusion::Part(part) => here.start <= part.start && part.end <= here.end,
        Conclusion::NotModified => true,
        _ => false,
    }
}

fn respond(request: &Lookup, meta: &Arc<Meta>, standing: Standing) -> Step {
    Step::Respond { meta: Arc::clone(meta), conclusion: conditional::conclude(request, meta), standing }
}

/// The status a client sees for a fill that failed before its response began.
fn refusal(error: &FillError) -> Refusal {
    let status = match error {
        FillError::Missing(status) => *status,
        FillError::Unsatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
        FillError::Unreachable(_) | FillError::Changed | FillError::NotShared | FillError::Broken { .. } => {
            StatusCode::BAD_GATEWAY
        }
        FillError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        FillError::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    let why = match error {
        // Which servers were asked is nobody's business outside.
        FillError::Unreachable(_) => "no source of this file can be reached".to_owned(),
        FillError::TimedOut(_) => "no source of this file answered in time".to_owned(),
        FillError::Broken { .. } => "the source of this file broke off".to_owned(),
        FillError::Missing(_) => "there is no such file".to_owned(),
        FillError::Unsatisfiable { .. } | FillError::Busy | FillError::Changed | FillError::NotShared => {
            error.to_string()
        }
    };
    let unsatisfied_size = match error {
        FillError::Unsatisfiable { size } => Some(*size),
        _ => None,
    };
    Refusal { status, why, unsatisfied_size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Request};

    #[test]
    fn what_is_fresh_is_served_and_what_is_stale_is_asked_about() {
        let request = lookup("GET", None);
        check(looked(&request, &Known::File(meta(100)), 99, Absent::Fill), "respond Whole");
        check(looked(&request, &Known::File(meta(100)), 100, Absent::Fill), "ask Revalidate");
        check(looked(&request, &Known::File(meta(100)), 100, Absent::Refuse), "respond Whole");
        check(looked(&request, &Known::Nothing, 0, Absent::Fill), "ask Whole");
        check(looked(&request, &Known::Nothing, 0, Absent::Refuse), "refuse 404");
        check(looked(&lookup("HEAD", None), &Known::Nothing, 0, Absent::Fill), "ask Size");
        check(looked(&lookup("GET", Some("bytes=-5")), &Known::Nothing, 0, Absent::Fill), "ask Size");
        check(looked(&lookup("GET", Some("bytes=0-5")), &Known::Nothing, 0, Absent::Fill), "ask Span");
    }

    #[test]
    fn a_failure_is_covered_by_a_stale_copy_unless_the_file_is_gone() {
        let request = lookup("GET", None);
        let whole = Plan::Whole;
        let unreachable = FillError::Unreachable("".into());
        check(failed(&request, &whole, &unreachable, Some(&meta(1)), 5), "respond Whole stale");
        check(failed(&request, &whole, &unreachable, None, 5), "refuse 502");
        check(failed(&request, &whole, &FillError::TimedOut("".into()), None, 5), "refuse 504");
        check(failed(&request, &whole, &FillError::Busy, None, 5), "refuse 503");
        check(failed(&request, &whole, &FillError::Missing(StatusCode::GONE), Some(&meta(1)), 5), "refuse 410");
    }

    #[test]
    fn an_empty_file_is_asked_for_whole() {
        let empty = FillError::Unsatisfiable { size: 0 };
        check(failed(&lookup("HEAD", None), &Plan::Size, &empty, None, 5), "ask Whole");
        check(failed(&lookup("HEAD", None), &Plan::Whole, &empty, None, 5), "refuse 416");
        check(failed(&lookup("GET", Some("bytes=5-")), &Plan::Span(0..9), &empty, None, 5), "refuse 416");
    }

    #[test]
    fn the_range_of_another_request_refuses_nobody_else() {
        let short = FillError::Unsatisfiable { size: 1000 };
        let far = Plan::Span(99 << 20..100 << 20);
        check(failed(&lookup("GET", Some("bytes=0-99")), &far, &short, None, 5), "ask Span");
        check(failed(&lookup("GET", None), &far, &short, None, 5), "ask Whole");
        check(failed(&lookup("GET", Some("bytes=1000-")), &far, &short, None, 5), "refuse 416");
    }

    #[test]
    fn what_is_just_stale_is_served_and_asked_about_behind() {
        let meta = Arc::new(Meta::new(&HeaderMap::new(), Some(10), 0, 100, 2).with_windows(5, 10));
        let request = lookup("GET", None);
        check(looked(&request, &Known::File(Arc::clone(&meta)), 104, Absent::Fill), "respond Whole refreshing");
        check(looked(&request, &Known::File(Arc::clone(&meta)), 105, Absent::Fill), "ask Revalidate");
        let unreachable = FillError::Unreachable("".into());
        check(failed(&request, &Plan::Whole, &unreachable, Some(&meta), 109), "respond Whole stale");
        check(failed(&request, &Plan::Whole, &unreachable, Some(&meta), 110), "refuse 502");
    }

    #[test]
    fn nobody_waits_for_what_is_made_for_another() {
        let request = lookup("GET", None);
        check(looked(&request, &Known::Alone { until: 10 }, 9, Absent::Fill), "ask Whole alone");
        check(looked(&request, &Known::Alone { until: 10 }, 10, Absent::Fill), "ask Whole");
        check(failed(&request, &Plan::Whole, &FillError::NotShared, None, 5), "ask Whole alone");
        check(failed(&request, &Plan::Whole, &FillError::NotShared, Some(&meta(1)), 5), "ask Revalidate alone");
    }

    #[test]
    fn what_is_gone_is_not_asked_for_again_for_a_while() {
        let refused = Known::Refused { status: StatusCode::GONE, until: 10 };
        check(looked(&lookup("GET", None), &refused, 9, Absent::Fill), "refuse 410");
        check(looked(&lookup("GET", None), &refused, 10, Absent::Fill), "ask Whole");
    }

    #[test]
    fn a_piece_answers_what_lies_in_it_and_is_the_beginning_of_the_rest() {
        let piece = |start| Known::Piece { meta: meta(100), start, body: Bytes::from_static(b"01234") };
        check(looked(&lookup("GET", Some("bytes=1-2")), &piece(0), 9, Absent::Fill), "respond Part(1..3)");
        check(looked(&lookup("GET", Some("bytes=-3")), &piece(5), 9, Absent::Fill), "respond Part(7..10)");
        check(looked(&lookup("GET", Some("bytes=-6")), &piece(5), 9, Absent::Fill), "ask Size");
        check(looked(&lookup("GET", None), &piece(0), 9, Absent::Fill), "ask Complete");
        check(looked(&lookup("GET", None), &piece(5), 9, Absent::Fill), "ask Whole");
        check(looked(&lookup("GET", Some("bytes=1-2")), &piece(0), 100, Absent::Fill), "ask Span");
    }

    #[test]
    fn under_the_policy_rfc_the_request_has_a_say() {
        let kept = Known::File(meta(100));
        check(looked(&said("GET", &[]), &kept, 9, Absent::Fill), "respond Whole");
        check(looked(&said("GET", &[("cache-control", "no-cache")]), &kept, 9, Absent::Fill), "ask Revalidate");
        check(looked(&said("GET", &[("cache-control", "max-age=5")]), &kept, 9, Absent::Fill), "ask Revalidate");
        check(looked(&said("GET", &[("cache-control", "only-if-cached")]), &kept, 9, Absent::Fill), "respond Whole");
        check(looked(&said("GET", &[("cache-control", "only-if-cached")]), &kept, 100, Absent::Fill), "refuse 504");
        check(looked(&said("GET", &[("authorization", "x")]), &Known::Nothing, 9, Absent::Fill), "ask Whole alone");
        check(looked(&said("GET", &[("if-none-match", "x")]), &Known::Nothing, 9, Absent::Fill), "ask Conditional");
        check(looked(&said("GET", &[("if-none-match", "x")]), &kept, 100, Absent::Fill), "ask Revalidate");
        check(failed(&said("GET", &[]), &Plan::Conditional, &FillError::NotShared, None, 5), "ask Whole");
        check(looked(&said("GET", &[("if-match", "x")]), &kept, 9, Absent::Fill), "ask Whole alone");
        check(looked(&said("HEAD", &[]), &kept, 9, Absent::Fill), "respond Whole");
        check(looked(&said("HEAD", &[]), &kept, 100, Absent::Fill), "ask Head alone");
        check(looked(&said("GET", &[("range", "bytes=-5")]), &Known::Nothing, 9, Absent::Fill), "ask Part alone");
        let held = meta(1);
        let insisting = said("GET", &[("cache-control", "no-cache")]);
        check(failed(&insisting, &Plan::Whole, &FillError::Busy, Some(&held), 5), "refuse 503");
        let span = Plan::Span(0..9);
        let ranged = said("GET", &[("range", "bytes=0-5")]);
        check(failed(&ranged, &span, &FillError::NotShared, None, 5), "ask Part alone");
        let complete = Plan::Complete { meta: held, body: Bytes::new() };
        check(failed(&said("GET", &[]), &complete, &FillError::Changed, None, 5), "ask Whole alone");
    }

    fn said(method: &str, headers: &[(&'static str, &'static str)]) -> Lookup {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let range = headers_text(&headers, "range").and_then(crate::range::Spec::parse);
        let said = Some(Arc::new(crate::errand::Said::of(&headers, false)));
        Lookup { said, range, ..lookup(method, None) }
    }

    fn headers_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).and_then(|value| value.to_str().ok())
    }

    #[track_caller]
    fn check(step: Step, expected: &str) {
        let answer = match step {
            Step::Respond { conclusion, standing, .. } => match standing {
                Standing::Current => format!("respond {conclusion:?}"),
                Standing::Refreshing => format!("respond {conclusion:?} refreshing"),
                Standing::Failed => format!("respond {conclusion:?} stale"),
            },
            Step::Ask(plan, company) => {
                let alone = if company == Company::Alone { " alone" } else { "" };
                format!("ask {}{alone}", format!("{plan:?}").split([' ', '(']).next().unwrap())
            }
            Step::Refuse(refusal) => format!("refuse {}", refusal.status.as_u16()),
        };
        assert_eq!(answer, expected);
    }

    fn lookup(method: &str, range: Option<&str>) -> Lookup {
        let mut request = Request::builder().method(method).uri("/c1/a").header("host", "h");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let topology = geo::Topology::parse(
            "version = 1\ndomain = \"example.org\"\ndefault_region = 4\n[content_servers]\nurl = \"http://cs{number}\"\n\
             numbers = [\"1\"]\n[[region]]\nid = 4\nname = \"Moscow\"\nlatitude = 55.75\nlongitude = 37.6\n",
        )
        .unwrap();
        match crate::request::parse(&head, false, &topology) {
            crate::request::Parsed::File(lookup) => lookup,
            other => panic!("{other:?}"),
        }
    }

    fn meta(fresh_until: u64) -> Arc<Meta> {
        Arc::new(Meta::new(&HeaderMap::new(), Some(10), 0, fresh_until, 2))
    }
}
