//! Bearer tokens (RFC 6750) bound to a role, its region and name.
//!
//! ```toml
//! [[token]]
//! token = "..."            # at least 16 characters; make one with `sunctl token`
//! role = "sun"             # sun, cache, backend, replica, operator
//! region = 4               # sun and cache only
//! name = "sun4-2-1"        # sun and cache must have it; others may, for the logs
//! ```
//!
//! # Invariants
//!
//! - A token leaves this module only as a hash: no error, log line or `Debug` output shows one.
//! - How long [`Tokens::identify`] takes depends on the number of known tokens, never on what was presented.
//! - Tokens that are [followed](Tokens::follow) are another set after a change of their file, whole.

mod follow;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::StatusCode;

use crate::config::{self, ConfigError};
use crate::problem::Refusal;

/// What a bearer may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// An edge proxy.
    Sun,
    /// A regional cache.
    Cache,
    /// A site that asks for links.
    Backend,
    /// A copy of the popularity API; it reads everything that it needs to answer in the other's place.
    Replica,
    /// A person.
    Operator,
}

/// Who a token belongs to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// What it may do.
    pub role: Role,
    /// The region of a sun or cache.
    pub region: Option<u16>,
    /// The name of a sun or cache, or what the operator calls the bearer; the role when nothing was said.
    pub name: String,
}

/// Known tokens; kept as blake3 hashes, compared in constant time. Clones know the same, also after a change.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    known: Arc<RwLock<Known>>,
}

/// Tokens' hashes, and whose they are.
type Known = Vec<(blake3::Hash, Arc<Identity>)>;

impl Tokens {
    /// Reads a token file.
    ///
    /// # Errors
    ///
    /// What is wrong in which entry; never the token itself. A file that others may read is refused.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(&config::read_private(file)?, &file.display().to_string())
    }

    /// Reads the text of a token file; `origin` names it in errors.
    ///
    /// # Errors
    ///
    /// What is wrong in which entry; never the token itself.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let known = parse(text, origin)?;
        Ok(Self { known: Arc::new(RwLock::new(known)) })
    }

    /// Whose token the `Authorization` header carries; none: 401, see [`Tokens::admit`].
    #[must_use]
    pub fn identify(&self, authorization: Option<&str>) -> Option<Arc<Identity>> {
        let presented = blake3::hash(bearer(authorization?)?.as_bytes());
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        // `==` of two hashes takes constant time, and every known token is compared.
        let found = known.iter().fold(None, |found, (hash, identity)| match *hash == presented {
            true => Some(identity),
            false => found,
        });
        found.map(Arc::clone)
    }

    /// As [`Tokens::identify`], with what to tell who is not known.
    ///
    /// # Errors
    ///
    /// 401: no token, another scheme, or a token that is not in the file.
    pub fn admit(&self, authorization: Option<&str>) -> Result<Arc<Identity>, Refusal> {
        let why = match authorization {
            None => "every call carries a token: Authorization: Bearer ...",
            Some(told) if bearer(told).is_none() => "the Authorization header has no token: it is `Bearer TOKEN`",
            Some(_) => {
                "the token is not known here: it is wrong, was revoked, or is not in this server's token file yet"
            }
        };
        self.identify(authorization).ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, why))
    }

    /// How many tokens are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nobody can be identified.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn replace(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

fn parse(text: &str, origin: &str) -> Result<Known, ConfigError> {
    let document: Document = config::parse(text, origin)?;
    let mut known = Known::new();
    for (index, entry) in document.token.iter().enumerate() {
        let refused = |what: String| ConfigError(format!("{origin}: token[{index}].{what}"));
        let (hash, identity) = entry.check().map_err(refused)?;
        if known.iter().any(|(other, _)| *other == hash) {
            return Err(refused("token: is the same as an earlier entry's; make one of its own".to_owned()));
        }
        known.push((hash, Arc::new(identity)));
    }
    Ok(known)
}

/// Reads a file that holds one token of this daemon's own, trimmed.
///
/// # Errors
///
/// When it cannot be read, others may read it, or it holds no token.
pub fn read_secret(file: &Path) -> Result<String, ConfigError> {
    let text = config::read_private(file)?;
    let token = text.trim();
    problem_of(token).map_or_else(
        || Ok(token.to_owned()),
        |problem| Err(ConfigError(format!("{}: the token {problem}", file.display()))),
    )
}

/// Shortest token, characters.
pub const TOKEN_CHARACTERS_MIN: usize = 16;

/// Longest token, characters; a header has to carry it.
pub const TOKEN_CHARACTERS_MAX: usize = 512;

/// The file as written. Values stay untyped until they are checked here: the errors of a typed parse quote
/// the value they refuse, and that could be a token.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    token: Option<toml::Value>,
    role: Option<toml::Value>,
    region: Option<toml::Value>,
    name: Option<toml::Value>,
}

impl Entry {
    fn check(&self) -> Result<(blake3::Hash, Identity), String> {
        let token = text("token", self.token.as_ref())?.ok_or("token: is missing")?;
        if let Some(problem) = problem_of(token) {
            return Err(format!("token: {problem}"));
        }
        let role = match text("role", self.role.as_ref())?
            .ok_or("role: is missing; say sun, cache, backend, replica or operator")?
        {
            "sun" => Role::Sun,
            "cache" => Role::Cache,
            "backend" => Role::Backend,
            "replica" => Role::Replica,
            "operator" => Role::Operator,
            _ => return Err("role: is none of sun, cache, backend, replica, operator".to_owned()),
        };
        let region = self.region()?;
        let name = text("name", self.name.as_ref())?;
        let name = match role {
            Role::Sun | Role::Cache => {
                region.ok_or("region: is missing; a sun or cache has the region it stands in")?;
                name.ok_or("name: is missing; a sun or cache has its name of the topology")?
            }
            Role::Backend | Role::Replica | Role::Operator if region.is_some() => {
                return Err("region: only a sun or cache has one; leave it out".to_owned());
            }
            Role::Backend => name.unwrap_or("backend"),
            Role::Replica => name.unwrap_or("replica"),
            Role::Operator => name.unwrap_or("operator"),
        };
        if name.is_empty() {
            return Err("name: is empty".to_owned());
        }
        Ok((blake3::hash(token.as_bytes()), Identity { role, region, name: name.to_owned() }))
    }

    fn region(&self) -> Result<Option<u16>, String> {
        let Some(value) = &self.region else { return Ok(None) };
        let number = value.as_integer().and_then(|number| u16::try_from(number).ok());
        number.map(Some).ok_or_else(|| "region: must be a number of 0..=65535".to_owned())
    }
}

fn text<'a>(key: &str, value: Option<&'a toml::Value>) -> Result<Option<&'a str>, String> {
    match value {
        None => Ok(None),
        Some(toml::Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{key}: must be a string")),
    }
}

/// What keeps a text from being a token: `b64token` of RFC 6750, section 2.1, of bounded length.
fn problem_of(token: &str) -> Option<String> {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
    if token.is_empty() {
        Some("is empty; make one with `sunctl token`".to_owned())
    } else if token.len() < TOKEN_CHARACTERS_MIN {
        Some(format!("is shorter than {TOKEN_CHARACTERS_MIN} characters; make one with `sunctl token`"))
    } else if token.len() > TOKEN_CHARACTERS_MAX {
        Some(format!("is longer than {TOKEN_CHARACTERS_MAX} characters"))
    } else if !token.bytes().all(allowed) {
        Some("has a character other than A-Z a-z 0-9 - . _ ~ + / =".to_owned())
    } else {
        None
    }
}

/// The token of `Bearer TOKEN`; the scheme's name is matched without case (RFC 9110, section 11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' ')).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SUN: &str = "sun-token-0123456789";
    const OPERATOR: &str = "operator-token-0123456789";

    #[test]
    fn a_bearer_is_known_by_its_token_alone() {
        check_bearer(Some(&format!("Bearer {SUN}")), "Sun 4 sun4-2-1");
        check_bearer(Some(&format!("bearer   {SUN} ")), "Sun 4 sun4-2-1");
        check_bearer(Some(&format!("BEARER {OPERATOR}")), "Operator - operator");
        check_bearer(Some("Bearer backend-token-0123456789"), "Backend - shop");
    }

    #[test]
    fn nobody_else_is() {
        check_bearer(None, "nobody");
        check_bearer(Some(""), "nobody");
        check_bearer(Some("Bearer"), "nobody");
        check_bearer(Some("Bearer "), "nobody");
        check_bearer(Some(SUN), "nobody");
        check_bearer(Some(&format!("Basic {SUN}")), "nobody");
        check_bearer(Some(&format!("Bearer {SUN}0")), "nobody");
        check_bearer(Some(&format!("Bearer {}", &SUN[1..])), "nobody");
    }

    #[test]
    fn an_entry_that_grants_too_much_or_too_little_is_refused() {
        check_refused("role = 'sun'", "token[0].token: is missing");
        check_refused("token = 12345678901234567", "token[0].token: must be a string");
        check_refused("token = 'short'\nrole = 'operator'", "token[0].token: is shorter than 16 characters");
        check_refused("token = 'with a space 0123456789'", "token[0].token: has a character other than");
        check_refused("token = 'x0123456789abcdef'", "token[0].role: is missing");
        check_refused("token = 'x0123456789abcdef'\nrole = 'admin'", "token[0].role: is none of");
        check_refused("token = 'x0123456789abcdef'\nrole = 'sun'\nname = 'a'", "token[0].region: is missing");
        check_refused("token = 'x0123456789abcdef'\nrole = 'cache'\nregion = 4", "token[0].name: is missing");
        check_refused("token = 'x0123456789abcdef'\nrole = 'backend'\nregion = 4", "token[0].region: only a sun");
        check_refused("token = 'x0123456789abcdef'\nrole = 'sun'\nregion = 70000", "token[0].region: must be a number");
        check_refused("token = 'x0123456789abcdef'\nrole = 'operator'\nname = ''", "token[0].name: is empty");
        check_refused("token = 'x0123456789abcdef'\nscope = 'all'", "unknown field `scope`");
    }

    #[test]
    fn a_token_given_twice_is_refused() {
        let entry = format!("[[token]]\ntoken = '{SUN}'\nrole = 'operator'\n");
        let error = Tokens::parse(&format!("{entry}{entry}"), "tokens.toml").unwrap_err().to_string();
        assert_eq!(error, "tokens.toml: token[1].token: is the same as an earlier entry's; make one of its own");
    }

    #[test]
    fn no_error_and_no_debug_output_shows_a_token() {
        let secret = "very-secret-0123456789";
        for entry in [
            format!("token = ['{secret}']"),
            format!("token = 'x'\nrole = '{secret}'"),
            format!("token = '{secret}'\nrole = '{secret}'"),
            format!("token = '{secret}'\nrole = 'sun'\nregion = '{secret}'"),
            format!("token = '{secret}'\nrole = 'sun'\nregion = 4\nname = ['{secret}']"),
            format!("token = '{secret}"),
            format!("token = {secret}"),
        ] {
            let error = Tokens::parse(&format!("[[token]]\n{entry}\n"), "tokens.toml").unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let shown =
            format!("{:?}", Tokens::parse(&format!("[[token]]\ntoken = '{secret}'\nrole = 'operator'"), "").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_token_file_of_a_daemon_is_read_trimmed() {
        check_secret(0o600, "abcdefgh01234567\n", "abcdefgh01234567");
        check_secret(0o600, "  abcdefgh01234567", "abcdefgh01234567");
        check_secret(0o600, "\n", "the token is empty");
        check_secret(0o600, "short", "the token is shorter than 16 characters");
        check_secret(0o644, "abcdefgh01234567", "chmod 600");
    }

    #[test]
    fn a_caller_who_is_not_known_is_told_why() {
        let tokens = Tokens::parse(&format!("[[token]]\ntoken = '{SUN}'\nrole = 'operator'"), "").unwrap();
        let told = |authorization: Option<&str>| match tokens.admit(authorization) {
            Ok(who) => who.name.clone(),
            Err(refusal) => refusal.detail().to_owned(),
        };
        assert_eq!(told(Some(&format!("Bearer {SUN}"))), "operator");
        assert!(told(None).starts_with("every call carries a token"));
        assert!(told(Some("Basic abc")).starts_with("the Authorization header has no token"));
        assert!(told(Some(&format!("Bearer {OPERATOR}"))).starts_with("the token is not known here"));
    }

    #[track_caller]
    fn check_bearer(authorization: Option<&str>, expected: &str) {
        let text = format!(
            "[[token]]\ntoken = '{SUN}'\nrole = 'sun'\nregion = 4\nname = 'sun4-2-1'\n\
             [[token]]\ntoken = 'backend-token-0123456789'\nrole = 'backend'\nname = 'shop'\n\
             [[token]]\ntoken = '{OPERATOR}'\nrole = 'operator'\n"
        );
        let tokens = Tokens::parse(&text, "tokens.toml").unwrap();
        assert_eq!(tokens.len(), 3);
        let answer = tokens.identify(authorization).map_or_else(
            || "nobody".to_owned(),
            |who| {
                let region = who.region.map_or_else(|| "-".to_owned(), |region| region.to_string());
                format!("{:?} {region} {}", who.role, who.name)
            },
        );
        assert_eq!(answer, expected, "{authorization:?}");
    }

    #[track_caller]
    fn check_refused(entry: &str, expected: &str) {
        let error = Tokens::parse(&format!("[[token]]\n{entry}\n"), "tokens.toml").unwrap_err().to_string();
        assert!(error.starts_with("tokens.toml:") && error.contains(expected), "{error}");
    }

    #[track_caller]
    fn check_secret(mode: u32, content: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let answer = read_secret(&file).unwrap_or_else(|error| error.to_string());
        assert!(answer.ends_with(expected) || answer.contains(expected), "{answer}");
    }
}
