//! The gallery: what a site's back end does with the CDN.
//!
//! ```text
//!   browser -- GET / --> gallery -- POST /v1/links {the browser's address, files} --> popularity API
//!      |                    |
//!      |  <-- HTML with the links --
//!      +-- GET http://sun4-2-1.localhost:8411/c100500/pictures/000.png --> the server that was named
//! ```
//!
//! The client's address is the socket's peer. `?client=127.5.0.1` pretends another one: a freedom of the
//! demo, which a real site must not give.

mod page;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use daemon::drain::Drain;
use geo::Scheme;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use popularity_api::Client;
use popularity_api::wire::LinksRequest;

use super::body::Body;
use super::listener;
use super::media::{Library, MediaFile, MediaKind};
use super::plan::REGIONS;
use page::{View, render, render_problem};

/// What every page view needs.
#[derive(Debug)]
struct Site {
    library: Arc<Library>,
    api: Client,
}

/// Serves the gallery until the drain; returns the bound address. `api` has a back end's token.
///
/// # Errors
///
/// When the address cannot be bound.
pub async fn start(listen: SocketAddr, library: Arc<Library>, api: Client, drain: &Drain) -> io::Result<SocketAddr> {
    let site = Arc::new(Site { library, api });
    listener::serve(listen, drain, move |request, peer| answer(Arc::clone(&site), request, peer.ip())).await
}

async fn answer(site: Arc<Site>, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
    let head_only = request.method() == Method::HEAD;
    let (status, html) = if !head_only && request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, render_problem("This page can only be looked at: GET it."))
    } else if request.uri().path() != "/" {
        (StatusCode::NOT_FOUND, render_problem("There is only one page here."))
    } else {
        match Asked::parse(request.uri().query().unwrap_or_default()) {
            Ok(asked) => site.page(&asked, peer).await,
            Err(problem) => (StatusCode::BAD_REQUEST, render_problem(&problem)),
        }
    };
    let length = html.len();
    let mut response = Response::new(if head_only { Body::empty() } else { Body::ram(html) });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    response
}

impl Site {
    async fn page(&self, asked: &Asked, peer: IpAddr) -> (StatusCode, String) {
        let client = asked.client.unwrap_or(peer);
        let (files, page) = selection(&self.library, asked.page);
        let request = LinksRequest {
            client,
            files: files.iter().map(|file| file.name.to_string()).collect(),
            scheme: Scheme::Http,
            explain: false,
        };
        match self.api.links(&request).await {
            Ok(links) => {
                let pretended = asked.client.is_some();
                (
                    StatusCode::OK,
                    render(&View { client, pretended, stand_ins: stand_ins(), page, files, links: &links }),
                )
            }
            Err(error) => (StatusCode::BAD_GATEWAY, render_problem(&format!("There are no links now: {error}."))),
        }
    }
}

/// What the query says.
#[derive(Debug, Default, Eq, PartialEq)]
struct Asked {
    client: Option<IpAddr>,
    page: usize,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for (key, value) in
            query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(_, value)| !value.is_empty())
        {
            match key {
                "client" => {
                    // Colons of an IPv6 address are encoded by forms.
                    let address = value.replace("%3A", ":").replace("%3a", ":");
                    let parsed = address.parse().map_err(|_| format!("client={value}: say an address, 127.5.0.1"))?;
                    asked.client = Some(parsed);
                }
                "page" => asked.page = value.parse().map_err(|_| format!("page={value}: say a number from 0"))?,
                _ => {}
            }
        }
        Ok(asked)
    }
}

/// The files of a page, and its number and how many there are. Every page has the sound and the large files.
fn selection(library: &Library, page: usize) -> (Vec<&MediaFile>, (usize, usize)) {
    let of = |kind| library.files().iter().filter(move |file| file.kind == kind);
    let pages = of(MediaKind::Picture).count().div_ceil(PICTURES_PER_PAGE).max(1);
    let page = page.min(pages - 1);
    let pictures = of(MediaKind::Picture).skip(page * PICTURES_PER_PAGE).take(PICTURES_PER_PAGE);
    let sounds = of(MediaKind::Sound).take(SOUNDS_MAX);
    let others = of(MediaKind::Other).take(OTHERS_MAX);
    (pictures.chain(sounds).chain(others).collect(), (page, pages))
}

/// The first client of each region.
fn stand_ins() -> Vec<(IpAddr, String)> {
    let stand_in = |&(id, name): &(u16, &str)| {
        let address = IpAddr::from([127, id.to_le_bytes()[0], 0, 1]);
        (address, format!("{address}, region {id}, {name}"))
    };
    REGIONS.iter().map(stand_in).collect()
}

const PICTURES_PER_PAGE: usize = 36;
const SOUNDS_MAX: usize = 3;
const OTHERS_MAX: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_client_and_a_page() {
        check("", "None 0");
        check("client=", "None 0");
        check("client=127.5.0.1&page=3", "Some(127.5.0.1) 3");
        check("client=%3A%3A1", "Some(::1) 0");
        check("utm=x&page=1", "None 1");
        check("client=me", "client=me: say an address, 127.5.0.1");
        check("page=-1", "page=-1: say a number from 0");
    }

    #[test]
    fn a_page_past_the_last_is_the_last() {
        let library = Library::generated();
        assert_eq!(selection(&library, 0).1, (0, 10));
        assert_eq!(selection(&library, 99).1, (9, 10));
        assert_eq!(selection(&library, 0).0.len(), 36 + 1 + 24);
    }

    #[track_caller]
    fn check(query: &str, expected: &str) {
        let parsed = Asked::parse(query);
        let text = parsed.map_or_else(|problem| problem, |asked| format!("{:?} {}", asked.client, asked.page));
        assert_eq!(text, expected, "{query}");
    }
}
