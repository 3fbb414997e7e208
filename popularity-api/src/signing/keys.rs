//! The secrets of signing keys: a file that the operator writes on every machine.
//!
//! ```text
//!   # /etc/sun/keys.toml, mode 600; `sunctl keys new 2026b` makes a line
//!   [keys]
//!   2026a = "64 hexadecimal digits: 32 random bytes"
//!   2026b = "..."
//! ```
//!
//! Which of them sign and are accepted is the topology's word: a key that is only here does nothing. So a new key is
//! brought to all machines first, and means something everywhere at the same time. The file is read again when it changes;
//! one that cannot be used leaves the running keys in place, with one WARN.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use daemon::config::{ConfigError, read_private};
use daemon::drain::Drain;
use daemon::files::Seen;
use daemon::metrics::level;
use geo::topology::{Signing, Topology, Watched, is_key_id};
use prometheus::IntGauge;

use super::{SIGNATURE_BYTES, Signer};

/// Keys by id; nothing shows them.
#[derive(Default)]
pub struct Keys(BTreeMap<String, hmac::Key>);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    keys: BTreeMap<String, String>,
}

impl Keys {
    /// Reads a key file; none without one.
    ///
    /// # Errors
    ///
    /// When it cannot be read, others than its owner may read it, or something in it is no key (which, never what).
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(file) = file else { return Ok(Self::default()) };
        Self::parse(&read_private(file)?)
            .map_err(|problem| ConfigError(format!("signing_keys: {}: {problem}", file.display())))
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    ///
    /// What is no key, never what it is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Document = daemon::config::parse(text, "keys").map_err(|error| error.to_string())?;
        if document.keys.len() > KEYS_MAX {
            return Err(format!("it holds {} keys: at most {KEYS_MAX}", document.keys.len()));
        }
        let key = |(id, secret): (String, String)| {
            if !is_key_id(&id) {
                return Err(format!("{id:?} is no id of a key: 1..=16 of letters, digits, - and _"));
            }
            let bytes = unhex(&secret)
                .ok_or_else(|| format!("{id}: a key is 64 hexadecimal digits; make it with `sunctl keys new {id}`"))?;
            Ok((id, hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
        };
        Ok(Self(document.keys.into_iter().map(key).collect::<Result<_, _>>()?))
    }

    /// What signs: the topology's key, or while this file does not have it another one that is accepted, so that links
    /// are made all the same.
    #[must_use]
    pub fn signer<'a>(&'a self, signing: &'a Signing) -> Option<Signer<'a>> {
        signing.ids().find_map(|id| self.find(id).map(|key| Signer { id, key }))
    }

    /// The key with an id, to sign with.
    #[must_use]
    pub fn signer_of<'a>(&'a self, id: &str) -> Option<Signer<'a>> {
        self.0.get_key_value(id).map(|(id, key)| Signer { id, key })
    }

    /// Ids of the topology that the file does not have; none while no class is signed, when nothing is missed yet.
    #[must_use]
    pub fn lacking(&self, topology: &Topology) -> Vec<String> {
        let signed = topology.classes.iter().any(|class| class.signed.is_some());
        let ids = topology.signing.iter().filter(|_| signed).flat_map(Signing::ids);
        ids.filter(|id| !self.0.contains_key(*id)).map(str::to_owned).collect()
    }

    pub(super) fn find(&self, id: &str) -> Option<&hmac::Key> {
        self.0.get(id)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// What is wrong with a key file for a topology.
#[must_use]
pub fn problems(file: Option<&Path>, topology: &Topology) -> Vec<String> {
    match Keys::load(file) {
        Err(error) => vec![error.to_string()],
        Ok(keys) => {
            let lack = |id: String| match file {
                Some(_) => format!("signing_keys: the key {id:?}, which the topology names, is not there"),
                None => {
                    format!("signing_keys is not set, and the topology signs with {id:?}: name the file of keys there")
                }
            };
            keys.lacking(topology).into_iter().map(lack).collect()
        }
    }
}

/// Reads the key file when it changes (`seen` is from before it was loaded), and tells when the topology names keys that
/// it does not have, until the drain.
pub async fn follow(
    keys: Arc<ArcSwap<Keys>>,
    (file, seen): (Option<PathBuf>, Seen),
    topology: Watched,
    lacking: IntGauge,
    drain: Drain,
) {
    let reload = daemon::files::follow(seen, drain.clone(), || take(&keys, Keys::load(file.as_deref())));
    tokio::join!(reload, tell_lacking(&keys, topology, lacking, drain));
}

/// Takes what was read over, if it is good. A file without a key is what an editor or a full disk leaves behind: those in use
/// stay.
pub(super) fn take(keys: &ArcSwap<Keys>, read: Result<Keys, ConfigError>) {
    let some = |read: Keys| {
        let emptied = read.0.is_empty() && !keys.load().0.is_empty();
        if emptied { Err(ConfigError("signing_keys: there is no key in it".to_owned())) } else { Ok(read) }
    };
    match read.and_then(some) {
        Ok(read) => {
            tracing::info!(keys = ?read, "signing keys reloaded");
            keys.store(Arc::new(read));
        }
        Err(error) => tracing::warn!(%error, "changed signing keys are refused, the running ones stay"),
    }
}

/// Each second, since either of both may change.
async fn tell_lacking(keys: &ArcSwap<Keys>, topology: Watched, gauge: IntGauge, drain: Drain) {
    let mut told = Vec::new();
    loop {
        let lacking = keys.load().lacking(&topology.borrow());
        gauge.set(level(lacking.len()));
        if lacking != told {
            if !lacking.is_empty() {
                tracing::warn!(keys = ?lacking, "the topology names signing keys that `signing_keys` does not have");
            }
            told = lacking;
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
            () = drain.wait() => return,
        }
    }
}

fn unhex(text: &str) -> Option<[u8; SIGNATURE_BYTES]> {
    let mut bytes = [0; SIGNATURE_BYTES];
    if text.len() != 2 * SIGNATURE_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

const KEYS_MAX: usize = 64;
