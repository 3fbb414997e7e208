//! The answer to a call for links, written straight as JSON, and the call, read without copying its names.
//!
//! What [`crate::wire::LinksRequest`] and [`crate::wire::Links`] are is pinned by golden tests; this reads and writes the
//! same (`the_answer_is_what_the_wire_says`), a few times as fast: names of files are lent by the body, nothing is kept of a
//! link once it is written, and names of servers, canonical names and URLs need no look for what JSON would escape.

use std::borrow::Cow;
use std::net::IpAddr;

use daemon::problem::Refusal;
use geo::{CanonicalName, RegionId, Scheme};
use serde::Deserialize;

use super::{Choice, Maker, parse};
use crate::wire::LINKS_PER_REQUEST_MAX;

/// A [`crate::wire::LinksRequest`] that borrows from its body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question<'a> {
    /// Address of the client who will follow the links.
    pub client: IpAddr,
    /// Canonical names or URL paths.
    #[serde(borrow)]
    pub files: Vec<Text<'a>>,
    /// Scheme of the links.
    #[serde(default)]
    pub scheme: Scheme,
    /// Say why each link names its server.
    #[serde(default)]
    pub explain: bool,
}

/// A string of the body, copied only when something in it is escaped.
#[derive(Debug, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Links by what they name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Caches.
    pub cache: u64,
    /// Suns.
    pub sun: u64,
    /// Content servers themselves.
    pub content_server: u64,
    /// Nobody: what was asked for is no file, or nobody can be named.
    pub none: u64,
}

impl<'a> Question<'a> {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// 400 for what is no such question, with the place of the first problem, and for too many files.
    pub fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        let Ok(question) = serde_json::from_slice::<Self>(body) else {
            // Once more, to say where.
            let error = daemon::problem::from_json::<crate::wire::LinksRequest>(body).err();
            return Err(error.unwrap_or_else(|| Refusal::bad("the body is no question for links".to_owned())));
        };
        if question.files.len() > LINKS_PER_REQUEST_MAX {
            let count = question.files.len();
            return Err(Refusal::bad(format!("files: {count} files: at most {LINKS_PER_REQUEST_MAX} a call")));
        }
        Ok(question)
    }
}

/// Appends the answer, a [`crate::wire::Links`]. `draw` as in [`Maker::link`].
pub fn answer(
    maker: &Maker<'_>,
    question: &Question<'_>,
    draw: &mut impl FnMut(usize) -> usize,
    json: &mut Vec<u8>,
) -> Tally {
    let mut tally = Tally::default();
    json.extend_from_slice(b"{\"regions\":[");
    let regions: Vec<RegionId> = maker.visitor.regions.iter().map(|region| region.id).collect();
    json.extend_from_slice(regions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",").as_bytes());
    json.extend_from_slice(b"],\"links\":[");
    for (index, Text(file)) in question.files.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        if question.explain {
            let link = maker.link(file, true, draw);
            tally.count(link.server.as_deref());
            // A link is made of strings and numbers: it can be written, and to a vector.
            serde_json::to_writer(&mut *json, &link).expect("a link is JSON");
        } else {
            write(maker, file, draw, json, &mut tally);
        }
    }
    json.extend_from_slice(b"]}");
    tally
}

fn write(maker: &Maker<'_>, file: &str, draw: &mut impl FnMut(usize) -> usize, json: &mut Vec<u8>, tally: &mut Tally) {
    json.extend_from_slice(b"{\"file\":");
    write_text(file, json);
    json.extend_from_slice(b",\"url\":");
    let before = json.len();
    match write_link(maker, file, draw, json) {
        Ok((name, choice)) => {
            tally.choice(&choice);
            json.extend_from_slice(b"\",\"server\":\"");
            match choice.server {
                Some(named) => json.extend_from_slice(named.server.name.as_bytes()),
                None => json.extend_from_slice(choice.server_name(&name).as_bytes()),
            }
            json.extend_from_slice(b"\"}");
        }
        Err(error) => {
            tally.none += 1;
            json.truncate(before);
            json.extend_from_slice(b"null,\"server\":null,\"error\":");
            write_text(&error, json);
            json.push(b'}');
        }
    }
}

/// The URL behind a quotation mark.
fn write_link<'b>(
    maker: &'b Maker<'_>,
    file: &str,
    draw: &mut impl FnMut(usize) -> usize,
    json: &mut Vec<u8>,
) -> Result<(CanonicalName, Choice<'b>), String> {
    let name = parse(file, maker.knowledge.topology)?;
    let class = maker.knowledge.topology.class_of(&name);
    let choice = maker.choose(&name, name.content_id(), class, draw)?;
    json.push(b'"');
    maker.write_url(&choice, class, &name, json)?;
    Ok((name, choice))
}

/// A string, with what JSON escapes (RFC 8259, section 7) where there is any.
fn write_text(text: &str, json: &mut Vec<u8>) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        json.push(b'"');
        json.extend_from_slice(text.as_bytes());
        json.push(b'"');
    } else {
        serde_json::to_writer(json, text).expect("a string is JSON");
    }
}

impl Tally {
    fn choice(&mut self, choice: &Choice<'_>) {
        self.count(choice.server.map_or(Some("content server"), |named| Some(&named.server.name)));
    }

    /// By the name of a server.
    fn count(&mut self, server: Option<&str>) {
        *match server {
            None => &mut self.none,
            Some(name) if name.starts_with("cache") => &mut self.cache,
            Some(name) if name.starts_with("content") => &mut self.content_server,
            Some(_) => &mut self.sun,
        } += 1;
    }

    /// Each with its label.
    #[must_use]
    pub const fn counts(self) -> [(&'static str, u64); 4] {
        [("cache", self.cache), ("sun", self.sun), ("content_server", self.content_server), ("none", self.none)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_borrows_and_its_errors_say_where() {
        let question =
            Question::parse(br#"{"client":"192.0.2.1","files":["c1/a","c1/\u0061"],"explain":true}"#).unwrap();
        let files: Vec<&str> = question.files.iter().map(|Text(file)| &**file).collect();
        assert_eq!(files, ["c1/a", "c1/a"]);
        assert!(matches!(question.files[0].0, Cow::Borrowed(_)) && matches!(question.files[1].0, Cow::Owned(_)));
        assert!(question.explain && question.scheme == Scheme::Https);
        let refused = |body: &str| format!("{:?}", Question::parse(body.as_bytes()).unwrap_err());
        assert!(refused(r#"{"client":"192.0.2.1","files":[5]}"#).contains("files[0]: invalid type"));
        assert!(refused(r#"{"client":"192.0.2.1","files":[],"x":1}"#).contains("unknown field `x`"));
        assert!(refused(r#"{"client":"192.0.2.1","files":[]} x"#).contains("after the JSON value"));
        let many = format!(r#"{{"client":"::1","files":["{}c1/a"]}}"#, "c1/a\",\"".repeat(LINKS_PER_REQUEST_MAX));
        assert!(refused(&many).contains("files: 10001 files: at most 10000 a call"));
    }

    #[test]
    fn texts_are_escaped_as_json_has_it() {
        for text in ["", "c1/a.jpg", "a\"b", "a\\b", "a\nb", "\u{1f}", "\u{7f}", "\u{444}\u{1f600}"] {
            let mut json = Vec::new();
            write_text(text, &mut json);
            assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}
