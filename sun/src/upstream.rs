//! Asking a source: the only place where this server is a client for media.
//!
//! A request is built from the file's canonical name, the topology and the plan, never from anything a client
//! sent; under the policy "rfc" with the client's end-to-end fields. Redirects are not followed, proxy variables of
//! the environment are not read, and a medium's body is asked for as it is (`Accept-Encoding: identity`), since its
//! bytes are cached by position.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daemon::telemetry::causes;
use http::header::{self, HeaderName};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::caching::update;
use crate::config::UpstreamConfig;
use crate::errand::{Errand, Said};
use crate::fill::Fill;
use crate::fill::plan::Plan;
use crate::headers;
use crate::origin_tls::Connector;
use crate::request::SITE;
use crate::sources::Source;

/// The client. Connections are kept and shared by all workers.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client<Connector, Empty<Bytes>>,
    connector: Connector,
    authorization: HeaderValue,
    via: HeaderValue,
    cdn_loop: HeaderValue,
    first_byte: Duration,
}

/// Why there is no response.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AskError {
    /// No connection, or it broke before the response's head.
    #[error("{0}")]
    Unreachable(String),
    /// No head in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// What is asked for beside the name.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// HEAD instead of GET.
    pub head_only: bool,
    /// `bytes=first-last`.
    pub range: Option<String>,
    /// Only if the file still has this validator; otherwise the whole file.
    pub if_range: Option<String>,
    /// Only if the file has another entity tag.
    pub if_none_match: Option<String>,
    /// Only if the file is younger.
    pub if_modified_since: Option<String>,
}

impl Upstream {
    /// `connector` is that of [`crate::origin_tls`]; `token` is this server's own, for other servers; `name` its name, for `Via`; `domain` identifies the CDN
    /// in `CDN-Loop` (RFC 8586).
    ///
    /// # Errors
    ///
    /// When one of them cannot stand in a header.
    pub fn new(
        config: &UpstreamConfig,
        connector: Connector,
        token: &str,
        name: &str,
        domain: &str,
    ) -> Result<Self, header::InvalidHeaderValue> {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(config.idle_connections_max)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(connector.clone());
        let mut authorization = HeaderValue::from_str(&format!("Bearer {token}"))?;
        authorization.set_sensitive(true);
        Ok(Self {
            client,
            connector,
            authorization,
            via: HeaderValue::from_str(&format!("1.1 {name}"))?,
            cdn_loop: HeaderValue::from_str(domain)?,
            first_byte: Duration::from_millis(config.first_byte_ms),
        })
    }

    /// Connects as its questions do.
    #[must_use]
    pub const fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Asks one source for a file. `fill` hears the 1xx responses that come first, if the client would.
    ///
    /// # Errors
    ///
    /// When no response head arrives; any status is a response.
    pub async fn ask(
        &self,
        source: &Source,
        errand: &Errand,
        asked: &Asked,
        fill: &Arc<Fill>,
    ) -> Result<Response<Incoming>, AskError> {
        let mut request =
            self.request(source, errand, asked).map_err(|error| AskError::Unreachable(error.to_string()))?;
        if errand.said.is_some() {
            let fill = Arc::clone(fill);
            hyper::ext::on_informational(&mut request, move |response| {
                fill.heard(response.status(), update::end_to_end(response.headers()));
            });
        }
        // A server of ours may be waiting for the content server itself: its own deadline must pass first.
        let limit = match source {
            Source::ContentServer { .. } => self.first_byte,
            Source::Sun { .. } | Source::Former { .. } | Source::Cache { .. } => self.first_byte * 3 / 2,
        };
        self.send(request, limit).await
    }

    /// A connection that was kept may be closed just when it is used again: then the question, which changes nothing, is
    /// put once more (RFC 9112, section 9.3.1). One that cannot be made is not tried again.
    async fn send(&self, request: Request<Empty<Bytes>>, limit: Duration) -> Result<Response<Incoming>, AskError> {
        let again = request.clone();
        let exchange = async {
            match self.client.request(request).await {
                Err(error) if !error.is_connect() => self.client.request(again).await,
                answered => answered,
            }
        };
        match tokio::time::timeout(limit, exchange).await {
            Err(_) => Err(AskError::TimedOut(limit)),
            Ok(Err(error)) => Err(AskError::Unreachable(causes(&error))),
            Ok(Ok(response)) => Ok(response),
        }
    }

    fn request(&self, source: &Source, errand: &Errand, asked: &Asked) -> Result<Request<Empty<Bytes>>, http::Error> {
        let method = if asked.head_only { Method::HEAD } else { Method::GET };
        let to_content_server = matches!(source, Source::ContentServer { .. });
        let mut request = match source {
            Source::ContentServer { url, host, .. } => {
                let request = Request::builder().method(method).uri(url);
                // The connection goes by the URL; hyper sets `Host` by it when there is none.
                host.iter().fold(request, |request, host| request.header(header::HOST, host))
            }
            Source::Sun { address, .. } | Source::Former { address, .. } | Source::Cache { address, .. } => {
                Request::builder().method(method).uri(format!("http://{address}/{}", errand.name))
            }
        };
        request = match &errand.said {
            Some(said) => self.with_fields(request, &said.headers, to_content_server),
            None => request
                .header(header::ACCEPT_ENCODING, "identity")
                .header(header::USER_AGENT, concat!("sun/", env!("CARGO_PKG_VERSION")))
                .header(header::VIA, &self.via),
        };
        if !to_content_server {
            // Not beside a field of the client's: the other server reads the first of a name.
            if let Some(headers) = request.headers_mut() {
                headers.insert(header::AUTHORIZATION, self.authorization.clone());
                if let Some(site) = &errand.site {
                    headers.insert(SITE, HeaderValue::from_str(site)?);
                }
            }
        } else if errand.said.is_none() {
            request = request.header(CDN_LOOP, &self.cdn_loop);
        }
        if matches!(source, Source::Former { .. }) && errand.said.is_none() {
            request = request.header(header::CACHE_CONTROL, ONLY_IF_CACHED);
        }
        let conditions = [
            (header::RANGE, &asked.range),
            (header::IF_RANGE, &asked.if_range),
            (header::IF_NONE_MATCH, &asked.if_none_match),
            (header::IF_MODIFIED_SINCE, &asked.if_modified_since),
        ];
        for (name, value) in conditions {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request.body(Empty::new())
    }

    /// A client's fields, and this server's name behind those of whom the request has passed.
    fn with_fields(
        &self,
        mut request: http::request::Builder,
        fields: &http::HeaderMap,
        to_content_server: bool,
    ) -> http::request::Builder {
        let kept_back =
            |name: &HeaderName| *name == header::VIA || (!to_content_server && *name == header::AUTHORIZATION);
        for (name, value) in fields.iter().filter(|(name, _)| !kept_back(name)) {
            request = request.header(name, value);
        }
        if to_content_server {
            request = request.header(CDN_LOOP, &self.cdn_loop);
        }
        request.header(header::VIA, update::via(fields, &self.via))
    }
}

impl Asked {
    /// For the first question of a fill.
    #[must_use]
    pub fn for_plan(plan: &Plan) -> Self {
        let range = plan.range().map(|range| range_header(range.start, range.end));
        match plan {
            Plan::Revalidate { meta } => Self {
                if_none_match: headers::text(&meta.headers, &header::ETAG).map(str::to_owned),
                if_modified_since: headers::text(&meta.headers, &header::LAST_MODIFIED).map(str::to_owned),
                ..Self::default()
            },
            Plan::Continue { meta, .. } => {
                Self { range, if_range: meta.resume_validator().map(str::to_owned), ..Self::default() }
            }
            Plan::Complete { meta, .. } => {
                Self { range, if_range: meta.resume_validator().map(str::to_owned), ..Self::default() }
            }
            Plan::Head => Self { head_only: true, ..Self::default() },
            Plan::Whole | Plan::Span(_) | Plan::Size | Plan::Part | Plan::Conditional => {
                Self { range, ..Self::default() }
            }
        }
    }

    /// With the client's own conditions.
    #[must_use]
    pub fn with_conditions(self, said: &Said) -> Self {
        let text =
            |value: &Option<HeaderValue>| value.as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { if_none_match: text(&said.if_none_match), if_modified_since: text(&said.if_modified_since), ..self }
    }

    /// With the client's own range.
    #[must_use]
    pub fn with_range(self, range: Option<&HeaderValue>) -> Self {
        let range = range.and_then(|range| range.to_str().ok()).map(str::to_owned);
        Self { range, ..self }
    }
}

/// RFC 9111, section 5.2.1.7. Caches answer other servers in this way unasked.
pub const ONLY_IF_CACHED: &str = "only-if-cached";

const CDN_LOOP: header::HeaderName = header::HeaderName::from_static("cdn-loop");
/// `bytes=first-last` of a half-open range; without a last byte when the end is open.
#[must_use]
pub fn range_header(start: u64, end: u64) -> String {
    if end == u64::MAX { format!("bytes={start}-") } else { format!("bytes={start}-{}", end - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_server_sees_the_topologys_address_and_no_token() {
        let source = Source::ContentServer { number: 7, url: "http://cs7.storage/a.jpg".into(), host: None };
        let errand = Errand { site: Some("cdn.example.net".into()), ..errand() };
        let request = upstream().request(&source, &errand, &Asked::default()).unwrap();
        assert_eq!(request.uri(), "http://cs7.storage/a.jpg");
        assert_eq!(request.headers().get("cdn-loop").unwrap(), "example.org");
        assert_eq!(request.headers().get("via").unwrap(), "1.1 sun4-2-1");
        assert!(!request.headers().contains_key(header::AUTHORIZATION) && !request.headers().contains_key("sun-site"));
    }

    #[test]
    fn a_content_server_is_asked_by_the_name_its_sites_give_it() {
        let url = "http://cs7.storage/a.jpg";
        for (host, expected) in [(None, Vec::new()), (Some("www.example.org"), vec!["www.example.org"])] {
            let source = Source::ContentServer { number: 7, url: url.into(), host: host.map(str::to_owned) };
            // Whatever the client says of it.
            let headers = [(header::HOST, HeaderValue::from_static("client"))].into_iter().collect();
            for said in [None, Some(Arc::new(Said::of(&headers, false)))] {
                let request = upstream().request(&source, &Errand { said, ..errand() }, &Asked::default()).unwrap();
                assert_eq!(request.headers().get_all(header::HOST).iter().collect::<Vec<_>>(), expected);
                assert_eq!(request.uri(), url);
            }
        }
    }

    #[test]
    fn a_server_sees_the_canonical_name_and_the_token() {
        let source = Source::Sun { name: "sun4-2-2".into(), address: ([10, 0, 0, 2], 8081).into() };
        let asked = Asked { range: Some(range_header(0, 10)), ..Asked::default() };
        let errand = Errand { site: Some("cdn.example.net".into()), ..errand() };
        let request = upstream().request(&source, &errand, &asked).unwrap();
        assert_eq!(request.uri(), "http://10.0.0.2:8081/c7/a.jpg");
        assert_eq!(request.headers().get(header::AUTHORIZATION).unwrap(), "Bearer secret");
        assert_eq!(request.headers().get(header::RANGE).unwrap(), "bytes=0-9");
        assert_eq!(request.headers().get("sun-site").unwrap(), "cdn.example.net");
        assert!(!request.headers().contains_key(header::CACHE_CONTROL));
    }

    #[test]
    fn a_former_owner_is_asked_only_for_what_it_holds() {
        let source = Source::Former { name: "sun4-2-2".into(), address: ([10, 0, 0, 2], 8081).into() };
        let request = upstream().request(&source, &errand(), &Asked::default()).unwrap();
        assert_eq!(request.uri(), "http://10.0.0.2:8081/c7/a.jpg");
        assert_eq!(request.headers().get(header::CACHE_CONTROL).unwrap(), ONLY_IF_CACHED);
    }

    #[test]
    fn a_clients_fields_go_to_the_content_server_with_this_servers_name() {
        let said = [("accept", "*/*"), ("authorization", "Basic x"), ("via", "1.0 a"), ("cdn-loop", "other")];
        let headers =
            said.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
        let said = Said::of(&headers, false);
        let errand = Errand { said: Some(Arc::new(said)), site: Some("www.site.test".into()), ..errand() };
        let source = Source::ContentServer { number: 7, url: "http://cs7.storage/a.jpg".into(), host: None };
        let request = upstream().request(&source, &errand, &Asked::default()).unwrap();
        let lines = |name: &str| {
            request.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(lines("authorization"), ["Basic x"]);
        assert_eq!(lines("via"), ["1.0 a, 1.1 sun4-2-1"]);
        assert_eq!(lines("cdn-loop"), ["other", "example.org"]);
        assert!(lines("accept-encoding").is_empty() && lines("sun-site").is_empty());
    }

    #[test]
    fn another_server_hears_of_the_site_from_this_server_alone() {
        let said = [("sun-site", "other.site.test"), ("authorization", "Basic x")];
        let headers: http::HeaderMap =
            said.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
        let source = Source::Sun { name: "sun4-2-2".into(), address: ([10, 0, 0, 2], 8081).into() };
        // Also if the fields have come this far.
        for said in [Said::of(&headers, false), Said { headers: headers.clone(), ..Said::of(&headers, false) }] {
            let errand = Errand { said: Some(Arc::new(said)), site: Some("www.site.test".into()), ..errand() };
            let request = upstream().request(&source, &errand, &Asked::default()).unwrap();
            let lines = |name: &str| {
                request.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
            };
            assert_eq!((lines("sun-site"), lines("authorization")), (vec!["www.site.test"], vec!["Bearer secret"]));
        }
    }

    fn upstream() -> Upstream {
        let config = UpstreamConfig::default();
        let connector = crate::origin_tls::connector(&config).unwrap();
        Upstream::new(&config, connector, "secret", "sun4-2-1", "example.org").unwrap()
    }

    fn errand() -> Errand {
        let name = geo::CanonicalName::parse("c7/a.jpg").unwrap();
        Errand { content: name.content_id(), name, site: None, said: None }
    }
}
