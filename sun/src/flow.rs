//! The life of a request: what happens next, decided here and nowhere else. Pure.
//!
//! ```text
//!   request::parse ---refused---------------------------------------------> Refuse
//!      |
//!   tiers looked at
//!      |         |            \
//!    fresh     stale          absent --- server asks a cache -------------> Refuse (not held)
//!      |         |               |
//!      |     Ask(Revalidate)  Ask(cold plan)
//!      |         |               |
//!      |     +---+--- upstream answered ----+
//!      |     | usable                       | failed
//!      v     v                              v
//!    Respond(conclusion)        stale copy? Respond : Refuse (403 404 410 416 502 503 504)
//! ```
//!
//! The shell ([`crate::serve`]) carries out a [`Step`] and comes back with what it found. Why not a trait with
//! a method per phase: control flow that is spread over implementations cannot be read in one place.

use std::sync::Arc;

use http::StatusCode;

use crate::conditional::{self, Conclusion};
use crate::fill::plan::Plan;
use crate::fill::{FillError, Opened};
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
        /// A copy past its time, served because nothing newer could be had (RFC 5861, section 4).
        stale: bool,
    },
    /// Join a fill, or begin one.
    Ask(Plan),
    /// Answer with an error.
    Refuse(Refusal),
}

/// What this server does with files it does not hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Absent {
    /// Gets them.
    Fill,
    /// Says so: 404 "not held".
    Refuse,
}

/// The tiers were looked at; `held` is what they know, `now` in seconds since 1970.
#[must_use]
pub fn looked(request: &Lookup, held: Option<&Arc<Meta>>, now: u64, absent: Absent) -> Step {
    match held {
        Some(meta) if meta.fresh(now) || absent == Absent::Refuse => respond(request, meta, false),
        Some(meta) => Step::Ask(Plan::Revalidate { meta: Arc::clone(meta) }),
        None if absent == Absent::Refuse => {
            Step::Refuse(Refusal::new(StatusCode::NOT_FOUND, "this cache does not hold the file"))
        }
        None => Step::Ask(Plan::cold(request.head_only, request.range)),
    }
}

/// Upstream answered.
#[must_use]
pub fn opened(request: &Lookup, opened: &Opened) -> Step {
    respond(request, &opened.meta, false)
}

/// Upstream did not answer usably. `asked` is what the failed fill was begun for, `stale` a copy that is past
/// its time.
#[must_use]
pub fn failed(request: &Lookup, asked: &Plan, error: &FillError, stale: Option<&Arc<Meta>>) -> Step {
    match (error, stale) {
        // The first byte of an empty file cannot be had: ask for all of it. Also when the fill that was joined
        // was another request's range.
        (FillError::Unsatisfiable { .. }, _) if request.range.is_none() && !matches!(asked, Plan::Whole) => {
            Step::Ask(Plan::Whole)
        }
        // It was another request's range that lies past the end, not this one's.
        (FillError::Unsatisfiable { size }, _) if request.range.is_some_and(|range| range.within(*size).is_some()) => {
            Step::Ask(Plan::cold(request.head_only, request.range))
        }
        (FillError::Missing(_) | FillError::Unsatisfiable { .. }, _) | (_, None) => Step::Refuse(refusal(error)),
        (_, Some(meta)) => respond(request, meta, true),
    }
}

fn respond(request: &Lookup, meta: &Arc<Meta>, stale: bool) -> Step {
    Step::Respond { meta: Arc::clone(meta), conclusion: conditional::conclude(request, meta), stale }
}

/// The status a client sees for a fill that failed before its response began.
fn refusal(error: &FillError) -> Refusal {
    let status = match error {
        FillError::Missing(status) => *status,
        FillError::Unsatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
        FillError::Unreachable(_) | FillError::Changed | FillError::Broken { .. } => StatusCode::BAD_GATEWAY,
        FillError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        FillError::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    let why = match error {
        // Which servers were asked is nobody's business outside.
        FillError::Unreachable(_) => "no source of this file can be reached".to_owned(),
        FillError::TimedOut(_) => "no source of this file answered in time".to_owned(),
        FillError::Broken { .. } => "the source of this file broke off".to_owned(),
        FillError::Missing(_) => "there is no such file".to_owned(),
        FillError::Unsatisfiable { .. } | FillError::Busy | FillError::Changed => error.to_string(),
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
        check(looked(&request, Some(&meta(100)), 99, Absent::Fill), "respond Whole");
        check(looked(&request, Some(&meta(100)), 100, Absent::Fill), "ask Revalidate");
        check(looked(&request, Some(&meta(100)), 100, Absent::Refuse), "respond Whole");
        check(looked(&request, None, 0, Absent::Fill), "ask Whole");
        check(looked(&request, None, 0, Absent::Refuse), "refuse 404");
        check(looked(&lookup("HEAD", None), None, 0, Absent::Fill), "ask Size");
        check(looked(&lookup("GET", Some("bytes=-5")), None, 0, Absent::Fill), "ask Size");
        check(looked(&lookup("GET", Some("bytes=0-5")), None, 0, Absent::Fill), "ask Span");
    }

    #[test]
    fn a_failure_is_covered_by_a_stale_copy_unless_the_file_is_gone() {
        let request = lookup("GET", None);
        let whole = Plan::Whole;
        let unreachable = FillError::Unreachable("".into());
        check(failed(&request, &whole, &unreachable, Some(&meta(1))), "respond Whole stale");
        check(failed(&request, &whole, &unreachable, None), "refuse 502");
        check(failed(&request, &whole, &FillError::TimedOut("".into()), None), "refuse 504");
        check(failed(&request, &whole, &FillError::Busy, None), "refuse 503");
        check(failed(&request, &whole, &FillError::Missing(StatusCode::GONE), Some(&meta(1))), "refuse 410");
    }

    #[test]
    fn an_empty_file_is_asked_for_whole() {
        let empty = FillError::Unsatisfiable { size: 0 };
        check(failed(&lookup("HEAD", None), &Plan::Size, &empty, None), "ask Whole");
        check(failed(&lookup("HEAD", None), &Plan::Whole, &empty, None), "refuse 416");
        check(failed(&lookup("GET", Some("bytes=5-")), &Plan::Span(0..9), &empty, None), "refuse 416");
    }

    #[test]
    fn the_range_of_another_request_refuses_nobody_else() {
        let short = FillError::Unsatisfiable { size: 1000 };
        let far = Plan::Span(99 << 20..100 << 20);
        check(failed(&lookup("GET", Some("bytes=0-99")), &far, &short, None), "ask Span");
        check(failed(&lookup("GET", None), &far, &short, None), "ask Whole");
        check(failed(&lookup("GET", Some("bytes=1000-")), &far, &short, None), "refuse 416");
    }

    #[track_caller]
    fn check(step: Step, expected: &str) {
        let answer = match step {
            Step::Respond { conclusion, stale, .. } => {
                format!("respond {conclusion:?}{}", if stale { " stale" } else { "" })
            }
            Step::Ask(plan) => format!("ask {}", format!("{plan:?}").split([' ', '(']).next().unwrap()),
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
