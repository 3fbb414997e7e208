//! Bearer tokens (RFC 6750) bound to a role, its region and name.
//!
//! ```toml
//! [[token]]
//! token = "..."            # at least 16 characters; make one with `sunctl token`
//! role = "sun"             # sun, cache, backend, operator
//! region = 4               # sun and cache only
//! name = "sun4-2-1"        # sun and cache only
//! ```

use std::path::Path;

use crate::config::ConfigError;

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
    /// The name of a sun or cache, or what the operator calls the bearer.
    pub name: String,
}

/// Known tokens; kept as blake3 hashes, compared in constant time.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    known: Vec<(blake3::Hash, Identity)>,
}

impl Tokens {
    /// Reads a token file.
    ///
    /// # Errors
    ///
    /// What is wrong in which entry; never the token itself. A file that others may read is refused.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let _ = file;
        todo!()
    }

    /// Whose token the `Authorization` header carries; none: 401.
    #[must_use]
    pub fn identify(&self, authorization: Option<&str>) -> Option<&Identity> {
        let _ = (&self.known, authorization);
        todo!()
    }
}

/// Reads a file that holds one token of this daemon's own, trimmed.
///
/// # Errors
///
/// When it cannot be read or is empty.
pub fn read_secret(file: &Path) -> Result<String, ConfigError> {
    let _ = file;
    todo!()
}
