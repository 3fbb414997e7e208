//! What an upstream's response means for a fill of a medium. Pure. Under the policy "rfc": [`crate::fill::rfc`].

use std::ops::Range;
use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};

use crate::extent::FILE_BYTES_MAX;
use crate::fill::FillError;
use crate::fill::plan::Plan;
use crate::headers;
use crate::meta::Meta;
use crate::range::ContentRange;

/// A response, understood.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Bytes follow: these ones (the end is `u64::MAX` when it is not announced), of this version.
    Bytes {
        /// The version.
        meta: Arc<Meta>,
        /// What follows.
        range: Range<u64>,
    },
    /// The size is known now; the body does not matter.
    Sized(Arc<Meta>),
    /// The version that is held is still current.
    Unchanged(Arc<Meta>),
    /// A final word: other sources would say the same.
    Refused(FillError),
    /// This source is of no use; another may be.
    Useless(String),
}

/// When and how to make metadata.
#[derive(Clone, Copy, Debug)]
pub struct Making {
    /// Seconds since 1970.
    pub now: u64,
    /// Freshness of the file's class, seconds.
    pub ttl_s: u64,
    /// Generation for a response without a strong validator.
    pub fallback: u64,
    /// The class's window of serving at once what is just stale, seconds.
    pub stale_while_revalidate_s: u64,
    /// The class's window of serving what is stale while its content server fails, seconds.
    pub stale_if_error_s: u64,
}

impl Making {
    fn meta(&self, headers: &HeaderMap, size: Option<u64>) -> Meta {
        let meta = Meta::new(headers, size, self.now, self.ttl_s, self.fallback);
        meta.with_windows(self.stale_while_revalidate_s, self.stale_if_error_s)
    }
}

/// Understands the answer of a source to `plan`. `authority` is false for a cache asked for what it holds,
/// whose 404 only says that it does not.
#[must_use]
pub fn understand(plan: &Plan, status: StatusCode, headers: &HeaderMap, making: Making, authority: bool) -> Answer {
    match status {
        StatusCode::OK => whole(plan, headers, making),
        StatusCode::PARTIAL_CONTENT => part(plan, headers, making),
        StatusCode::NOT_MODIFIED => match plan {
            Plan::Revalidate { meta } => {
                Answer::Unchanged(Arc::new(meta.revalidated(headers, making.now, making.ttl_s)))
            }
            _ => Answer::Useless("304 to a question without a condition".to_owned()),
        },
        StatusCode::RANGE_NOT_SATISFIABLE => unsatisfiable(plan, headers),
        StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::GONE
        | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS
            if authority =>
        {
            Answer::Refused(FillError::Missing(status))
        }
        _ => Answer::Useless(format!("it answered {status}")),
    }
}

/// Whether a response goes on with a version at the byte reached. The end may be open (`u64::MAX`).
#[must_use]
pub fn resumes(meta: &Meta, at: u64, end: u64, status: StatusCode, headers: &HeaderMap) -> bool {
    let content_range = headers::text(headers, &header::CONTENT_RANGE).and_then(ContentRange::parse);
    let Some(ContentRange::Part { part, size }) = content_range else {
        return false;
    };
    let same_size = meta.size.is_none_or(|known| known == size);
    let same = Meta { size: Some(size), ..meta.clone() }.continued_by(headers, size);
    status == StatusCode::PARTIAL_CONTENT && same_size && same && part == (at..end.min(size))
}

fn whole(plan: &Plan, headers: &HeaderMap, making: Making) -> Answer {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Answer::Useless("it encoded the file although it was asked not to".to_owned());
    }
    let size = headers::text(headers, &header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    if size.is_none() && !chunked(headers) {
        // Its end would be the end of the connection, which looks the same when the server dies.
        return Answer::Useless("it neither announces a length nor sends chunks: a cut would look complete".to_owned());
    }
    if size.is_some_and(|size| size > FILE_BYTES_MAX) {
        return Answer::Useless(format!("the file is larger than {FILE_BYTES_MAX} bytes"));
    }
    let meta = making.meta(headers, size);
    match plan.version() {
        // It ignores ranges: what it sends is of use only if it is what was sent before.
        Some(version) if !size.is_some_and(|size| version.continued_by(headers, size)) => {
            Answer::Refused(FillError::Changed)
        }
        Some(version) => Answer::Bytes { meta: Arc::clone(version), range: 0..size.unwrap_or(u64::MAX) },
        None => Answer::Bytes { meta: Arc::new(meta), range: 0..size.unwrap_or(u64::MAX) },
    }
}

fn chunked(headers: &HeaderMap) -> bool {
    headers::text(headers, &header::TRANSFER_ENCODING)
        .is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"))
}

fn part(plan: &Plan, headers: &HeaderMap, making: Making) -> Answer {
    let Some(asked) = plan.range() else {
        return Answer::Useless("206 to a question without a range".to_owned());
    };
    let content_range = headers::text(headers, &header::CONTENT_RANGE).and_then(ContentRange::parse);
    let Some(ContentRange::Part { part, size }) = content_range else {
        return Answer::Useless("206 without a usable Content-Range".to_owned());
    };
    if size > FILE_BYTES_MAX || part.start != asked.start || part.end != asked.end.min(size) {
        return Answer::Useless(format!("206 with bytes {part:?} of {size} instead of {asked:?}"));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Answer::Useless("it encoded the file although it was asked not to".to_owned());
    }
    match (plan, plan.version()) {
        (_, Some(version)) if !version.continued_by(headers, size) => Answer::Refused(FillError::Changed),
        (_, Some(version)) => Answer::Bytes { meta: Arc::clone(version), range: part },
        (Plan::Size, None) => Answer::Sized(Arc::new(making.meta(headers, Some(size)))),
        (_, None) => {
            let meta = making.meta(headers, Some(size));
            Answer::Bytes { meta: Arc::new(meta), range: part }
        }
    }
}

fn unsatisfiable(plan: &Plan, headers: &HeaderMap) -> Answer {
    let content_range = headers::text(headers, &header::CONTENT_RANGE).and_then(ContentRange::parse);
    match (plan, content_range) {
        (Plan::Continue { .. }, _) => Answer::Refused(FillError::Changed),
        (Plan::Span(_) | Plan::Size, Some(ContentRange::Unsatisfied { size })) => {
            Answer::Refused(FillError::Unsatisfiable { size })
        }
        _ => Answer::Useless("416 without a size".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::EXTENT_BYTES as MIB;

    #[test]
    fn a_cold_question_takes_the_whole_file_or_the_part_asked_for() {
        let span = Plan::Span(MIB..2 * MIB);
        check(&Plan::Whole, 200, &[("content-length", "30")], "bytes 0..30 of 30");
        check(&Plan::Whole, 200, &[("transfer-encoding", "chunked")], "bytes 0..18446744073709551615 of ?");
        check(&Plan::Whole, 200, &[], "useless");
        check(&span, 206, &[("content-range", "bytes 1048576-2097151/3000000")], "bytes 1048576..2097152 of 3000000");
        check(&span, 206, &[("content-range", "bytes 1048576-1999999/2000000")], "bytes 1048576..2000000 of 2000000");
        check(&span, 200, &[("content-length", "30")], "bytes 0..30 of 30");
        check(&Plan::Size, 206, &[("content-range", "bytes 0-0/30")], "sized 30");
        check(
            &span,
            416,
            &[("content-range", "bytes */30")],
            "refused: the range lies past the end of a file of 30 bytes",
        );
    }

    #[test]
    fn a_part_that_was_not_asked_for_is_useless() {
        let span = Plan::Span(MIB..2 * MIB);
        check(&span, 206, &[("content-range", "bytes 0-99/3000000")], "useless");
        check(&span, 206, &[("content-range", "bytes 1048576-1048577/3000000")], "useless");
        check(&span, 206, &[], "useless");
        check(&Plan::Whole, 206, &[("content-range", "bytes 0-99/100")], "useless");
        check(&Plan::Whole, 200, &[("content-length", "30"), ("content-encoding", "gzip")], "useless");
        check(&Plan::Whole, 304, &[], "useless");
        check(&Plan::Whole, 302, &[("location", "/elsewhere")], "useless");
        check(&Plan::Whole, 500, &[], "useless");
    }

    #[test]
    fn only_an_authority_says_that_there_is_no_such_file() {
        check(&Plan::Whole, 404, &[], "refused: the content server answered 404 Not Found");
        check(&Plan::Whole, 410, &[], "refused: the content server answered 410 Gone");
        let answer = understand(&Plan::Whole, StatusCode::NOT_FOUND, &HeaderMap::new(), MAKING, false);
        assert!(matches!(answer, Answer::Useless(_)));
    }

    #[test]
    fn versions_are_not_mixed() {
        let meta = Arc::new(Meta::new(&map(&[("etag", "\"a\"")]), Some(3 * MIB), 0, 9, 2));
        let plan = Plan::missing(meta, MIB, 2 * MIB, |_| false);
        let range = ("content-range", "bytes 1048576-2097151/3145728");
        check(&plan, 206, &[range, ("etag", "\"a\"")], "bytes 1048576..2097152 of 3145728");
        check(&plan, 206, &[range, ("etag", "\"b\"")], "refused: the file changed while it was being fetched");
        check(&plan, 200, &[("content-length", "3145728"), ("etag", "\"a\"")], "bytes 0..3145728 of 3145728");
        check(
            &plan,
            200,
            &[("content-length", "7"), ("etag", "\"b\"")],
            "refused: the file changed while it was being fetched",
        );
        check(&plan, 416, &[("content-range", "bytes */7")], "refused: the file changed while it was being fetched");
    }

    const MAKING: Making = Making { now: 0, ttl_s: 9, fallback: 2, stale_while_revalidate_s: 0, stale_if_error_s: 0 };

    #[track_caller]
    fn check(plan: &Plan, status: u16, headers: &[(&'static str, &'static str)], expected: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = match understand(plan, status, &map(headers), MAKING, true) {
            Answer::Bytes { meta, range } => {
                format!("bytes {range:?} of {}", meta.size.map_or("?".to_owned(), |size| size.to_string()))
            }
            Answer::Sized(meta) => format!("sized {}", meta.size.unwrap()),
            Answer::Unchanged(_) => "unchanged".to_owned(),
            Answer::Refused(error) => format!("refused: {error}"),
            Answer::Useless(_) => "useless".to_owned(),
        };
        assert_eq!(answer, expected, "{status} {headers:?}");
    }

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers.iter().map(|&(name, value)| (name.parse().unwrap(), http::HeaderValue::from_static(value))).collect()
    }
}
