//! Where the topology document is: a file, or a key of an etcd cluster.
//!
//! ```text
//!   config    topology = "/etc/sun/topology.toml"
//!             topology = { etcd = ["http://10.0.0.1:2379", "http://10.0.0.2:2379"], key = "/sun/topology" }
//!   sunctl    --topology /etc/sun/topology.toml
//!             --topology etcd://10.0.0.1:2379,10.0.0.2:2379/sun/topology     etcds:// for TLS
//! ```
//!
//! [`watch`](crate::watch) follows either, [`etcd`](crate::etcd) speaks to the cluster.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Topology;
use crate::etcd::{Etcd, Gateway};
use crate::file::read_bounded;
use crate::topology::DOCUMENT_BYTES_MAX;

/// Where the topology document is.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A file on this host.
    File(PathBuf),
    /// A key of an etcd cluster.
    Etcd(Etcd),
}

impl Source {
    /// The document as it is now, checked. Blocks: for a start and a check, not for a daemon that runs.
    ///
    /// # Errors
    ///
    /// Where it was looked for and why there is none, or every problem of it.
    pub fn load(&self) -> Result<Topology, String> {
        let text = self.read().map_err(|why| format!("topology {self}: {why}"))?;
        Topology::parse(&text).map_err(|error| format!("topology {self}: {error}"))
    }

    /// The document's text as it is now. Blocks.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    pub fn read(&self) -> Result<String, String> {
        let bytes = match self {
            Self::File(file) => read_bounded(file, DOCUMENT_BYTES_MAX as u64).map_err(|error| error.to_string())?,
            Self::Etcd(etcd) => read_etcd(etcd.clone())?,
        };
        String::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {}", error.utf8_error()))
    }

    /// The file, where it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(file) => Some(file),
            Self::Etcd(_) => None,
        }
    }
}

/// On a thread with a runtime of its own, since whoever asks may run in one.
fn read_etcd(etcd: Etcd) -> Result<Vec<u8>, String> {
    let read = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let gateway = Gateway::new(&etcd)?;
        let stored = runtime.block_on(gateway.read()).map_err(|error| error.to_string())?;
        stored.document.map(|document| document.bytes).ok_or_else(|| format!("there is no key {}", etcd.key))
    };
    let thread = std::thread::Builder::new().spawn(read).map_err(|error| error.to_string())?;
    thread.join().map_err(|_| "reading it failed".to_owned())?
}

/// There is none from text: that may be a path or a cluster, which [`FromStr`] tells apart.
impl From<PathBuf> for Source {
    fn from(file: PathBuf) -> Self {
        Self::File(file)
    }
}

/// A path, or `etcd://[user@]host:port,host:port/key`, or the same with `etcds://` for TLS. Without a port it is etcd's own.
impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("etcd", rest)) => ("http", rest),
            Some(("etcds", rest)) => ("https", rest),
            Some(("http" | "https", _)) => return Err(format!("{text}: {SHORT_FORM}")),
            _ if ["etcd:", "etcds:", "http:", "https:"].iter().any(|scheme| text.starts_with(scheme)) => {
                return Err(format!("{text}: {SHORT_FORM}"));
            }
            _ => return Ok(Self::File(text.into())),
        };
        let (hosts, key) = rest.split_once('/').ok_or_else(|| format!("{text}: {SHORT_FORM}"))?;
        let (user, hosts) = hosts.split_once('@').map_or((None, hosts), |(user, hosts)| (Some(user.to_owned()), hosts));
        let port = |host: &str| match host.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => String::new(),
            _ => format!(":{PORT}"),
        };
        let addresses =
            |scheme: &str| hosts.split(',').map(|host| format!("{scheme}://{host}{}", port(host))).collect();
        // The files with the user's password and of TLS are said elsewhere.
        let plain = Etcd { etcd: addresses("http"), key: format!("/{key}"), ..Etcd::default() };
        match plain.problems() {
            Some(problem) => Err(format!("{text}: {problem}")),
            None => Ok(Self::Etcd(Etcd { user, etcd: addresses(scheme), ..plain })),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Etcd(etcd) => write!(f, "{} in etcd at {}", etcd.key, etcd.etcd.join(", ")),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(file) => file.serialize(serializer),
            Self::Etcd(etcd) => etcd.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FileOrTable)
    }
}

/// Why not an untagged enum: its errors name neither the key nor what is wrong with it.
struct FileOrTable;

impl<'de> Visitor<'de> for FileOrTable {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file, \"/etc/sun/topology.toml\", or a cluster, { etcd = [\"http://10.0.0.1:2379\"] }")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Source, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
        let etcd = Etcd::deserialize(MapAccessDeserializer::new(map))?;
        etcd.problems().map_or(Ok(Source::Etcd(etcd)), |problem| Err(A::Error::custom(problem)))
    }
}

/// Where members of a cluster listen for clients when nobody says otherwise.
const PORT: u16 = 2379;

const SHORT_FORM: &str = "a cluster is etcd://10.0.0.1:2379,10.0.0.2:2379/sun/topology, with TLS etcds://...";

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, Serialize)]
    struct Config {
        topology: Source,
    }

    #[test]
    fn a_source_is_a_file_or_a_cluster() {
        check_config("topology = '/a/b.toml'", "/a/b.toml");
        check_config(
            "topology = { etcd = ['http://10.0.0.1:2379', 'http://10.0.0.2:2379'] }",
            "/sun/topology in etcd at http://10.0.0.1:2379, http://10.0.0.2:2379",
        );
        check_config(
            "topology = { etcd = ['http://a:1'], key = '/x', user = 'sun', password_file = '/p', check_ms = 500 }",
            "/x in etcd at http://a:1",
        );
        check_config("topology = 'etcd://a:1,b:2/c/d'", "/c/d in etcd at http://a:1, http://b:2");
        check_config(
            "topology = 'etcd://a,[::1],[::1]:1/c'",
            "/c in etcd at http://a:2379, http://[::1]:2379, http://[::1]:1",
        );
        check_config("topology = 'etcds://u@a:1,b:2/c/d'", "/c/d in etcd at https://a:1, https://b:2");
        check_config(
            "topology = { etcd = ['https://a:1'], ca = '/ca', certificate = '/c', certificate_key = '/k' }",
            "/sun/topology in etcd at https://a:1",
        );
    }

    #[test]
    fn what_is_none_says_what_is_wrong() {
        check_config(
            "topology = 3",
            "invalid type: integer `3`, expected a file, \"/etc/sun/topology.toml\", or a cluster",
        );
        check_config("topology = { etcd = ['http://a:1'], kye = '/x' }", "unknown field `kye`");
        check_config("topology = { key = '/x' }", "missing field `etcd`");
        check_config("topology = { etcd = [] }", "etcd: there are 0 addresses: 1..=16");
        check_config("topology = { etcd = ['10.0.0.1:2379'] }", "it has the form http://host:port");
        check_config("topology = { etcd = ['http://a:1'], key = '' }", "key: it has 1..=512 bytes");
        check_config("topology = { etcd = ['http://a:1'], user = 'sun' }", "user and password_file belong together");
        check_config("topology = { etcd = ['http://a:1'], check_ms = 5 }", "check_ms = 5: 100..=60000");
        check_config(
            "topology = { etcd = ['https://a:1'] }",
            "https:// and ca, the file of the authority, belong together",
        );
        check_config("topology = { etcd = ['http://a:1'], ca = '/ca' }", "https:// and ca, the file of");
        check_config(
            "topology = { etcd = ['http://a:1', 'https://b:1'], ca = '/ca' }",
            "either all members have https://",
        );
        check_config(
            "topology = { etcd = ['https://a:1'], ca = '/ca', certificate = '/c' }",
            "certificate and certificate_key belong together",
        );
        check_config("topology = 'etcd://a:1'", "a cluster is etcd://");
        check_config("topology = 'http://a:1/sun/topology'", "a cluster is etcd://");
        check_config("topology = 'etcd:/a:1/sun/topology'", "a cluster is etcd://");
        check_config("topology = 'etcd:///sun/topology'", "it has the form http://host:port");
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in
            ["topology = \"/a/b.toml\"\n", "[topology]\netcd = [\"http://a:1\"]\nkey = \"/x\"\ncheck_ms = 3000\n"]
        {
            let config: Config = toml::from_str(text).unwrap();
            assert_eq!(toml::to_string(&config).unwrap(), text);
        }
    }

    #[track_caller]
    fn check_config(text: &str, expected: &str) {
        match toml::from_str::<Config>(text) {
            Ok(config) => assert_eq!(config.topology.to_string(), expected),
            Err(error) => assert!(error.message().contains(expected), "{}", error.message()),
        }
    }
}
