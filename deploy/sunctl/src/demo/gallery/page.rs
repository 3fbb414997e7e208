//! The gallery's page, from what the API answered: pure, plain HTML, nothing from elsewhere.

use std::fmt::Write;
use std::net::IpAddr;

use popularity_api::wire::{Link, Links};

use crate::demo::media::{MediaFile, MediaKind};
use geo::answer::bytes;

/// What one page shows.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// Whose address the links are for.
    pub client: IpAddr,
    /// Whether the visitor pretends to be that client.
    pub pretended: bool,
    /// Addresses to pretend with, and what for.
    pub stand_ins: Vec<(IpAddr, String)>,
    /// The page's number, from 0, and how many there are.
    pub page: (usize, usize),
    /// The files, in the order of the links.
    pub files: Vec<&'a MediaFile>,
    /// What the API answered.
    pub links: &'a Links,
}

/// The whole document.
#[must_use]
pub(super) fn render(view: &View) -> String {
    let mut html = String::with_capacity(64 * 1024);
    head(&mut html, view);
    let of = |kind| view.files.iter().zip(&view.links.links).filter(move |(file, _)| file.kind == kind);
    html.push_str("<main>\n<ul id=\"tally\" aria-live=\"polite\" aria-label=\"Who gave the pictures\"></ul>\n");
    html.push_str("<section class=\"pictures\" aria-label=\"Pictures\">\n");
    for (file, link) in of(MediaKind::Picture) {
        picture(&mut html, file, link);
    }
    html.push_str("</section>\n");
    pages(&mut html, view);
    for (file, link) in of(MediaKind::Sound) {
        sound(&mut html, file, link);
    }
    others(&mut html, of(MediaKind::Other));
    html.push_str("</main>\n");
    html.push_str(FOOTER);
    let _ = write!(html, "<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    html
}

/// A page that says what went wrong.
#[must_use]
pub(super) fn render_problem(what: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Sun gallery</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Sun gallery</h1>\n<p role=\"alert\">{}</p>\n\
         <p><a href=\"/\">Back to the pictures</a></p>\n</body>\n</html>\n",
        escaped(what)
    )
}

// Writing to a string cannot fail: the results of `write!` below are dropped.

fn head(html: &mut String, view: &View) {
    let regions: Vec<String> = view.links.regions.iter().map(ToString::to_string).collect();
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Sun gallery</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body data-region=\"{region}\">\n\
         <header>\n<div>\n<h1>Sun gallery</h1>\n\
         <p>Links for <strong>{client}</strong>{pretended}: region <strong>{region}</strong></p>\n</div>\n",
        region = regions.first().map_or("", String::as_str),
        client = view.client,
        pretended = if view.pretended { ", whom you pretend to be" } else { "" },
    );
    html.push_str("<form method=\"get\" action=\"/\">\n<label>See it as <select name=\"client\">\n");
    let _ = writeln!(html, "<option value=\"\">yourself</option>");
    for (address, what) in &view.stand_ins {
        let selected = if view.pretended && *address == view.client { " selected" } else { "" };
        let _ = writeln!(html, "<option value=\"{address}\"{selected}>{}</option>", escaped(what));
    }
    html.push_str("</select></label>\n<button>Load again</button>\n</form>\n</header>\n");
}

fn picture(html: &mut String, file: &MediaFile, link: &Link) {
    let (url, server) = (link.url.as_deref().unwrap_or_default(), link.server.as_deref().unwrap_or_default());
    let (url, server, name) = (escaped(url), escaped(server), escaped(file.name.as_str()));
    let short = escaped(short_name(file));
    let _ = write!(
        html,
        "<figure data-file=\"{name}\" data-url=\"{url}\" data-linked=\"{server}\">\n\
         <a href=\"{url}\"><img alt=\"{short}\" width=\"320\" height=\"200\" decoding=\"sync\"></a>\n\
         <noscript><img src=\"{url}\" alt=\"{short}\" width=\"320\" height=\"200\"></noscript>\n\
         <figcaption><span class=\"name\">{short}</span> <span class=\"size\">{size}</span>\
         <p class=\"status\">{server}</p></figcaption>\n</figure>\n",
        size = bytes(file.size),
    );
}

fn sound(html: &mut String, file: &MediaFile, link: &Link) {
    let Some(url) = &link.url else { return };
    let (url, short) = (escaped(url), escaped(short_name(file)));
    let server = escaped(link.server.as_deref().unwrap_or_default());
    let _ = write!(
        html,
        "<section aria-label=\"Sound\">\n<h2>Sound</h2>\n<p>{short}, {size}, by {server}</p>\n\
         <audio controls preload=\"metadata\" src=\"{url}\" data-linked=\"{server}\"><a href=\"{url}\">{short}</a></audio>\n\
         </section>\n",
        size = bytes(file.size),
    );
}

fn others<'a>(html: &mut String, files: impl Iterator<Item = (&'a &'a MediaFile, &'a Link)>) {
    let mut rows = String::new();
    for (file, link) in files {
        let Some(url) = &link.url else { continue };
        let _ = writeln!(
            rows,
            "<tr><td><a href=\"{}\">{}</a></td><td class=\"size\">{}</td><td>{}</td></tr>",
            escaped(url),
            escaped(short_name(file)),
            bytes(file.size),
            escaped(link.server.as_deref().unwrap_or_default()),
        );
    }
    if !rows.is_empty() {
        let _ = write!(
            html,
            "<section aria-label=\"Large files\">\n<h2>Large files</h2>\n<table>\n\
             <tr><th scope=\"col\">File</th><th scope=\"col\">Size</th><th scope=\"col\">Server</th></tr>\n{rows}</table>\n</section>\n"
        );
    }
}

fn pages(html: &mut String, view: &View) {
    let (page, count) = view.page;
    let client = if view.pretended { format!("&amp;client={}", view.client) } else { String::new() };
    html.push_str("<nav aria-label=\"Pages\">\n");
    if page > 0 {
        let _ = writeln!(html, "<a rel=\"prev\" href=\"/?page={}{client}\">Previous</a>", page - 1);
    }
    let _ = writeln!(html, "<span class=\"faint\">Page {} of {count}</span>", page + 1);
    if page + 1 < count {
        let _ = writeln!(html, "<a rel=\"next\" href=\"/?page={}{client}\">Next</a>", page + 1);
    }
    html.push_str("</nav>\n");
}

/// The name without its content server.
fn short_name(file: &MediaFile) -> &str {
    file.name.path().trim_start_matches('/')
}

/// Text as it may stand in HTML, in attributes too.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut html, character| {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
        html
    })
}

const STYLE: &str = include_str!("gallery.css");
const SCRIPT: &str = include_str!("gallery.js");
const FOOTER: &str = "\
<footer>\n\
<p>This page is what a site's back end would write: its server asked the popularity API for links, with the \
address of your connection. Load it again, and what was fetched for you the first time is a hit.</p>\n\
<p><b>hit</b>: the server had it. <b>from &hellip;</b>: it asked the sun that keeps the file, or a cache. \
<b>miss</b>: nobody in the region had it yet.</p>\n\
</footer>\n";

#[cfg(test)]
mod tests {
    use geo::RegionId;

    use super::*;
    use crate::demo::media::Library;

    #[test]
    fn every_picture_has_its_link_its_server_and_a_place_for_what_happened() {
        let html = page(false);
        assert!(html.contains("<title>Sun gallery</title>"));
        assert!(html.contains("data-region=\"4\""));
        assert_eq!(html.matches("<figure ").count(), 3);
        assert!(html.contains(
            "<figure data-file=\"c100500/pictures/000.png\" \
             data-url=\"http://sun4-2-1.localhost:8411/c100500/pictures/000.png\" data-linked=\"sun4-2-1\">"
        ));
        assert_eq!(html.matches("class=\"status\"").count(), 3);
        assert!(html.contains("<audio controls"));
        assert!(html.contains("videos/clip-00.bin"));
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        let html = page(true);
        let links = html.match_indices("http").map(|(at, _)| &html[at..]);
        for link in links {
            assert!(link.starts_with("http://sun4-2-1.localhost:8411/"), "{}", &link[..60]);
        }
    }

    #[test]
    fn what_a_visitor_says_is_text() {
        assert_eq!(escaped("<b a='1'>&\"</b>"), "&lt;b a=&#39;1&#39;&gt;&amp;&quot;&lt;/b&gt;");
        assert!(render_problem("<script>").contains("&lt;script&gt;"));
    }

    #[test]
    fn a_visitor_stays_who_they_pretend_to_be() {
        assert!(page(true).contains("href=\"/?page=1&amp;client=127.4.0.1\""));
        assert!(page(true).contains("<option value=\"127.4.0.1\" selected>"));
        assert!(page(false).contains("href=\"/?page=1\""));
    }

    fn page(pretended: bool) -> String {
        let library = Library::generated();
        let files: Vec<&MediaFile> = library.files().iter().filter(|file| wanted(file)).collect();
        let link = |file: &&MediaFile| Link {
            file: file.name.to_string(),
            url: Some(format!("http://sun4-2-1.localhost:8411/{}", file.name)),
            server: Some("sun4-2-1".to_owned()),
            error: None,
            explain: None,
        };
        let links = Links { regions: vec![RegionId(4)], links: files.iter().map(link).collect() };
        let client = IpAddr::from([127, 4, 0, 1]);
        let stand_ins = vec![(client, "someone in region 4".to_owned())];
        render(&View { client, pretended, stand_ins, page: (0, 2), files, links: &links })
    }

    fn wanted(file: &MediaFile) -> bool {
        ["00", "01", "02"].iter().any(|number| file.name.as_str().ends_with(&format!("/0{number}.png")))
            || file.name.as_str().ends_with("clip-00.bin")
            || file.kind == MediaKind::Sound
    }
}
