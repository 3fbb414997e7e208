//! Refusals: problem details (RFC 9457) with what, where and what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// What every refusal carries: problem details (RFC 9457).
#[derive(Clone, Debug, serde::Deserialize, PartialEq, serde::Serialize)]
pub struct Problem {
    /// Short, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What, where and what to do.
    pub detail: String,
}

/// A call that is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    status: StatusCode,
    detail: String,
    /// With 429 and 503.
    retry_after_s: u64,
}

impl Refusal {
    /// A refusal with this status; its title is the status's own phrase.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after_s: 1 }
    }

    /// Its status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// What, where and what to do.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// 400: the caller's mistake.
    #[must_use]
    pub fn bad(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: no such thing.
    #[must_use]
    pub fn missing(detail: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 429: come again in a second.
    #[must_use]
    pub fn busy(detail: String) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
    }

    /// 429: come again after so long, in whole seconds.
    #[must_use]
    pub fn busy_for(detail: String, wait: std::time::Duration) -> Self {
        Self { retry_after_s: wait.as_secs().max(1), ..Self::busy(detail) }
    }

    /// 503: not now.
    #[must_use]
    pub fn unavailable(detail: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error").to_owned();
        let problem = Problem { title, status: self.status.as_u16(), detail: self.detail };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after_s));
            }
            _ => {}
        }
        response
    }
}
/// The parser's words without those of the code: it names the type of what should be an object.
fn plain(error: &str) -> String {
    let Some((before, rest)) = error.split_once("expected struct ") else { return error.to_owned() };
    let place = rest.find(" at line ").map_or("", |at| &rest[at..]);
    format!("{before}expected an object{place}")
}

/// The JSON value of a body, with nothing behind it.
///
/// # Errors
///
/// 400, with the field and what is wrong there.
pub fn from_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.inner());
        Refusal::bad(match (error.is_data(), path.as_str()) {
            (false, _) => format!("the body is no JSON: {error}"),
            (true, "." | "?") => format!("the body: {}", plain(&error.to_string())),
            (true, path) => format!("{path}: {}", plain(&error.to_string())),
        })
    })?;
    json.end().map_err(|error| Refusal::bad(format!("after the JSON value: {error}")))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(rename = "inner")]
        _inner: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Inner {
        #[serde(rename = "count")]
        _count: u16,
    }

    #[test]
    fn a_refusal_names_the_field_and_what_is_expected() {
        for (body, expected) in [
            ("", "the body is no JSON: EOF while parsing a value at line 1 column 0"),
            ("{", "the body is no JSON: EOF while parsing an object at line 1 column 1"),
            ("[]", "the body: invalid length 0, expected an object at line 1 column 2"),
            ("7", "the body: invalid type: integer `7`, expected an object at line 1 column 1"),
            ("{}", "the body: missing field `inner` at line 1 column 2"),
            (r#"{"inner":7}"#, "inner: invalid type: integer `7`, expected a sequence at line 1 column 10"),
            (r#"{"inner":[[]]}"#, "inner[0]: invalid length 0, expected an object at line 1 column 12"),
            (
                r#"{"inner":[{"count":-1}]}"#,
                "inner[0].count: invalid value: integer `-1`, expected u16 at line 1 column 21",
            ),
            (r#"{"inner":[]} x"#, "after the JSON value: trailing characters at line 1 column 14"),
        ] {
            assert_eq!(from_json::<Outer>(body.as_bytes()).unwrap_err().detail(), expected, "{body}");
        }
    }
}
