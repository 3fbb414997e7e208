//! Which of several responses of one URL a request gets (RFC 9111, section 4.1).
//!
//! ```text
//!   content id --> Varying { fields: accept-language, salt }     what the last response said in `Vary`
//!                      |
//!                      blake3(content id, salt, fields and their normalised values in the request)
//!                      |
//!                  id of the variant --> head, extents, fills, as of any file
//! ```
//!
//! A file that does not vary has no such record: it costs nothing. The salt is made anew with each record, so
//! that variants of a record that was forgotten (an unsafe request, a purge) are never found again.

use geo::ContentId;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::caching::directives::members;

/// Where a URL is kept under the policy "rfc". Another place than the file's own id: the same file may be asked for
/// under `/c...`, where other headers are kept and other statuses count.
#[must_use]
pub fn slot(content: ContentId) -> ContentId {
    id_of(blake3::Hasher::new().update(content.as_bytes()).update(b"rfc"))
}

/// What a response says in `Vary`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Vary {
    /// Nothing.
    No,
    /// By these fields, sorted, each once.
    By(Vec<HeaderName>),
    /// `*`, or by more than [`FIELDS_MAX`] fields: no other request gets it.
    Always,
}

/// How a URL's responses vary.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Varying {
    /// The fields, sorted.
    pub fields: Vec<HeaderName>,
    /// Makes the ids of variants differ from those of an earlier record.
    pub salt: u64,
    /// Variants by the language that they are in: the id of the other fields, the language, the variant.
    pub languages: Vec<(ContentId, String, ContentId)>,
}

impl Vary {
    /// Reads a response's headers.
    #[must_use]
    pub fn of(response: &HeaderMap) -> Self {
        let mut fields = Vec::new();
        for line in response.get_all(header::VARY) {
            let Ok(line) = line.to_str() else { return Self::Always };
            for member in members(line) {
                match member.parse::<HeaderName>() {
                    Ok(_) if member == "*" => return Self::Always,
                    Ok(field) => fields.push(field),
                    Err(_) => return Self::Always,
                }
            }
        }
        fields.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        fields.dedup();
        match fields.len() {
            0 => Self::No,
            count if count > FIELDS_MAX => Self::Always,
            _ => Self::By(fields),
        }
    }
}

impl Varying {
    /// A new record.
    #[must_use]
    pub const fn new(fields: Vec<HeaderName>, salt: u64) -> Self {
        Self { fields, salt, languages: Vec::new() }
    }

    /// What it weighs in RAM, bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let languages: usize = self.languages.iter().map(|(_, language, _)| language.len() + 64).sum();
        size_of::<Self>() + self.fields.len() * 32 + languages
    }

    /// The variant for a request: the one whose language is what the client likes best, if that is known,
    /// else the one of exactly these (normalised) values.
    #[must_use]
    pub fn variant(&self, content: ContentId, request: &HeaderMap) -> ContentId {
        self.in_best_language(content, request).unwrap_or_else(|| self.exact(content, request))
    }

    /// The variant of exactly these (normalised) values.
    #[must_use]
    pub fn exact(&self, content: ContentId, request: &HeaderMap) -> ContentId {
        self.id(content, request, true)
    }

    /// Notes which language the variant for `request` is in, if the response says so.
    pub fn note_language(&mut self, content: ContentId, request: &HeaderMap, response: &HeaderMap) {
        let Some(language) = single(response, &header::CONTENT_LANGUAGE) else { return };
        if !self.fields.contains(&header::ACCEPT_LANGUAGE) {
            return;
        }
        let (others, variant) = (self.id(content, request, false), self.exact(content, request));
        self.languages.retain(|(of, known, _)| !(*of == others && *known == language));
        if self.languages.len() >= LANGUAGES_MAX {
            self.languages.remove(0);
        }
        self.languages.push((others, language, variant));
    }

    /// A server that chooses by quality gives this client the same language that it gave another: the one
    /// with a quality above all others (RFC 9110, section 12.5.4).
    fn in_best_language(&self, content: ContentId, request: &HeaderMap) -> Option<ContentId> {
        if self.languages.is_empty() {
            return None;
        }
        let best = best_language(request)?;
        let others = self.id(content, request, false);
        let known = self.languages.iter().find(|(of, language, _)| *of == others && *language == best);
        known.map(|(_, _, variant)| *variant)
    }

    fn id(&self, content: ContentId, request: &HeaderMap, with_language: bool) -> ContentId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(content.as_bytes()).update(&self.salt.to_be_bytes());
        for field in self.fields.iter().filter(|field| with_language || *field != header::ACCEPT_LANGUAGE) {
            let value = normalised(field, request);
            hasher.update(field.as_str().as_bytes()).update(&[0, u8::from(value.is_some())]);
            hasher.update(value.unwrap_or_default().as_bytes()).update(&[0]);
        }
        id_of(&hasher)
    }
}

fn id_of(hasher: &blake3::Hasher) -> ContentId {
    let digest = hasher.finalize();
    let (id, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
    ContentId::from_bytes(*id)
}

/// The values of a field in a form that is the same for all requests that mean the same; nothing when the
/// field is absent. Lines are joined, blanks around commas dropped; where order and case do not matter, they
/// are made one.
fn normalised(field: &HeaderName, request: &HeaderMap) -> Option<String> {
    let mut lines = request.get_all(field).iter().peekable();
    lines.peek()?;
    let unordered = [header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING].contains(field);
    let mut values = Vec::new();
    for line in lines {
        let line = latin1(line);
        values.extend(members(&line).map(|member| match unordered {
            true => member.to_ascii_lowercase().replace([' ', '\t'], ""),
            false => member.to_owned(),
        }));
    }
    if unordered {
        values.sort_unstable();
    }
    Some(values.join(","))
}

fn latin1(value: &HeaderValue) -> String {
    value.as_bytes().iter().map(|byte| char::from(*byte)).collect()
}

/// The language of highest quality, if there is one above all others.
fn best_language(request: &HeaderMap) -> Option<String> {
    let value = normalised(&header::ACCEPT_LANGUAGE, request)?;
    let mut ranked: Vec<(u32, &str)> = value
        .split(',')
        .map(|member| {
            let (language, parameters) = member.split_once(';').unwrap_or((member, ""));
            let quality = parameters.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
            let quality = if parameters.is_empty() { Some(1.0) } else { quality };
            ((quality.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u32, language)
        })
        .collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    match ranked.as_slice() {
        [(best, language), rest @ ..] if *best > 0 && rest.first().is_none_or(|(next, _)| next < best) => {
            (*language != "*").then(|| (*language).to_owned())
        }
        _ => None,
    }
}

/// The only value of a field, in lower case.
fn single(response: &HeaderMap, field: &HeaderName) -> Option<String> {
    let mut lines = response.get_all(field).iter();
    let (line, more) = (lines.next()?.to_str().ok()?, lines.next());
    (more.is_none() && !line.contains(',')).then(|| line.trim().to_ascii_lowercase())
}

/// Fields that responses may vary by.
pub const FIELDS_MAX: usize = 16;
/// Languages that are noted of one URL.
const LANGUAGES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_read_as_a_list() {
        assert_eq!(Vary::of(&map(&[])), Vary::No);
        assert_eq!(Vary::of(&map(&[("vary", " , ")])), Vary::No);
        check_fields(&[("vary", "Foo, Bar")], &["bar", "foo"]);
        check_fields(&[("vary", "Foo"), ("vary", "bar,foo")], &["bar", "foo"]);
        for star in ["*", "*, *", ", *", "*, Foo", "Foo, *", "a b"] {
            assert_eq!(Vary::of(&map(&[("vary", star)])), Vary::Always, "{star}");
        }
        assert_eq!(Vary::of(&map(&[("vary", "Foo"), ("vary", "*")])), Vary::Always);
    }

    #[test]
    fn requests_that_mean_the_same_get_the_same_variant() {
        same("foo", &["1, 2"], &["1", "2"]);
        same("foo", &["1,2"], &[" 1, 2 "]);
        same("accept-language", &["en, de"], &["de, en"]);
        same("accept-language", &["en, de"], &["eN, De"]);
        same("accept-language", &["en;q=0.5"], &["en ; q=0.5"]);
        same("accept-encoding", &["gzip, br"], &["br,gzip"]);
        differ("foo", &["1"], &["2"]);
        differ("foo", &["1, 2"], &["2, 1"]);
        differ("foo", &["a"], &["A"]);
        differ("foo", &[], &[""]);
        differ("accept-language", &["en"], &["en;q=0.5"]);
    }

    #[test]
    fn a_language_that_is_liked_best_is_found_by_it() {
        let mut varying = varying("accept-language", 1);
        let request = map(&[("accept-language", "en, de")]);
        varying.note_language(content(), &request, &map(&[("content-language", "DE")]));
        let german = varying.exact(content(), &request);
        for (likes, found) in
            [("fr;q=0.5, de;q=1.0", true), ("de", true), ("de, fr", false), ("fr, de;q=0.5", false), ("*", false)]
        {
            let headers = HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, HeaderValue::from_str(likes).unwrap())]);
            assert_eq!(varying.variant(content(), &headers) == german, found, "{likes}");
        }
    }

    #[test]
    fn variants_of_a_forgotten_record_are_never_found() {
        let request = map(&[("foo", "1")]);
        let ids = [1, 2].map(|salt| varying("foo", salt).variant(content(), &request));
        assert_ne!(ids[0], ids[1]);
    }

    #[track_caller]
    fn check_fields(headers: &[(&'static str, &'static str)], expected: &[&str]) {
        let Vary::By(fields) = Vary::of(&map(headers)) else { panic!("{headers:?}") };
        assert_eq!(fields.iter().map(HeaderName::as_str).collect::<Vec<_>>(), expected);
    }

    #[track_caller]
    fn same(field: &'static str, a: &[&'static str], b: &[&'static str]) {
        assert_eq!(id(field, a), id(field, b), "{field} {a:?} {b:?}");
    }

    #[track_caller]
    fn differ(field: &'static str, a: &[&'static str], b: &[&'static str]) {
        assert_ne!(id(field, a), id(field, b), "{field} {a:?} {b:?}");
    }

    fn id(field: &'static str, lines: &[&'static str]) -> ContentId {
        let lines: Vec<_> = lines.iter().map(|line| (field, *line)).collect();
        varying(field, 7).variant(content(), &map(&lines))
    }

    fn varying(field: &'static str, salt: u64) -> Varying {
        Varying::new(vec![HeaderName::from_static(field)], salt)
    }

    fn content() -> ContentId {
        ContentId::from_bytes([7; 16])
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }
}
