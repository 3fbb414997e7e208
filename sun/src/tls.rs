//! TLS 1.2 and 1.3 by rustls: certificates chosen by SNI, reread when their files change.
//!
//! A name is matched exactly, then by a wildcard for its first label (RFC 6125, section 6.4.3); a client
//! without a name, or with one that no certificate has, gets the first certificate that is valid. A changed pair of files that cannot
//! be used, has expired, is not valid yet or is for other names, leaves the running one of that pair in place while that is valid
//! itself; the other pairs are taken. At a start there is nothing to keep: what has expired is used and told, because some clients look at no
//! date and the self-check withdraws the sun for all others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::Certificate;
use crate::tickets::Tickets;
use crate::validity::Validity;

/// All certificates of an edge; replaced whole.
#[derive(Debug)]
pub struct Certificates {
    current: ArcSwap<ByName>,
}

/// Certificates by the names that clients ask for.
#[derive(Debug)]
struct ByName {
    /// As configured.
    pairs: Vec<Pair>,
    names: HashMap<String, Arc<CertifiedKey>>,
    first: Arc<CertifiedKey>,
}

/// A certificate and its key, from a pair of files.
#[derive(Clone, Debug)]
struct Pair {
    chain: PathBuf,
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    /// None: it cannot be told.
    validity: Option<Validity>,
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl Certificates {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// Which file, and what is wrong with it.
    pub fn load(files: &[Certificate], now: i64) -> Result<Self, TlsError> {
        let pairs = files.iter().map(Pair::read).collect::<Result<_, _>>()?;
        Ok(Self { current: ArcSwap::from_pointee(ByName::of(pairs, now)?) })
    }

    /// Reads all files again; connections that are open keep what they have. `files` are those of [`Certificates::load`], `now`
    /// is in seconds since 1970. Returned is why which of them are not taken: the running ones of those stay.
    pub fn reload(&self, files: &[Certificate], now: i64) -> Vec<String> {
        let (mut pairs, mut refused) = (self.current.load().pairs.clone(), Vec::new());
        for (running, file) in pairs.iter_mut().zip(files) {
            match Pair::read(file) {
                Err(error) => refused.push(error.to_string()),
                Ok(new) => match new.worse_than(running, now) {
                    Some(why) => refused.push(why),
                    None => *running = new,
                },
            }
        }
        // There are as many as at the start, which were not none.
        if let Ok(all) = ByName::of(pairs, now) {
            self.current.store(Arc::new(all));
        }
        refused
    }

    /// Chooses anew among what runs: of two for one name, the one that was chosen may have expired meanwhile.
    pub fn settle(&self, now: i64) {
        if let Ok(all) = ByName::of(self.current.load().pairs.clone(), now) {
            self.current.store(Arc::new(all));
        }
    }

    /// Which are not valid at `now`, seconds since 1970; a sentence each.
    #[must_use]
    pub fn invalid(&self, now: i64) -> Vec<String> {
        self.current.load().pairs.iter().filter_map(|pair| pair.problem(now)).collect()
    }

    /// The first that is not valid and shown all the same, for want of a better one.
    #[must_use]
    pub fn shown_invalid(&self, now: i64) -> Option<String> {
        let current = self.current.load();
        let is_shown = |pair: &Pair| {
            let of_name = pair.names.iter().filter_map(|name| current.names.get(name));
            of_name.chain([&current.first]).any(|shown| Arc::ptr_eq(shown, &pair.key))
        };
        current.pairs.iter().filter(|pair| is_shown(pair)).find_map(|pair| pair.problem(now))
    }

    /// Which end within `soon_s` seconds; a sentence each.
    #[must_use]
    pub fn expiring(&self, now: i64, soon_s: i64) -> Vec<String> {
        let current = self.current.load();
        let valid = current.pairs.iter().filter(|pair| pair.problem(now).is_none());
        let soon = valid.filter_map(|pair| Some((pair, pair.validity?.not_after)));
        let soon = soon.filter(|(_, not_after)| not_after - now < soon_s);
        let told = |(pair, not_after): (&Pair, i64)| {
            let (chain, names) = (pair.chain.display(), pair.names.join(", "));
            format!("certificates: {chain}: it expires on {}; it is for {names}", crate::validity::date(not_after))
        };
        soon.map(told).collect()
    }

    /// When the first of them ends, seconds since 1970.
    #[must_use]
    pub fn first_end(&self) -> Option<i64> {
        self.current.load().pairs.iter().filter_map(|pair| Some(pair.validity?.not_after)).min()
    }

    /// Which of these names no certificate is for; a sentence each.
    #[must_use]
    pub fn uncovered(&self, names: &[String]) -> Vec<String> {
        let current = self.current.load();
        let told = |name: &String| {
            let chain = current.pairs.first().map(|pair| pair.chain.display().to_string()).unwrap_or_default();
            format!(
                "certificates: none is for {name}: who asks for it gets {chain}, and refuses it; have one issued that has this \
                 name, or a wildcard for it"
            )
        };
        names.iter().filter(|name| current.find(name).is_none()).map(told).collect()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().choose(hello.server_name()))
    }
}

impl ByName {
    fn of(pairs: Vec<Pair>, now: i64) -> Result<Self, TlsError> {
        let mut names = HashMap::new();
        // Of two that are for one name, one that is valid comes first.
        let (valid, invalid): (Vec<&Pair>, Vec<&Pair>) = pairs.iter().partition(|pair| pair.problem(now).is_none());
        let mut first = None;
        for pair in valid.into_iter().chain(invalid) {
            first.get_or_insert_with(|| Arc::clone(&pair.key));
            for name in &pair.names {
                names.entry(name.clone()).or_insert_with(|| Arc::clone(&pair.key));
            }
        }
        let first = first.ok_or_else(|| TlsError("certificates: a TLS listener needs at least one".to_owned()))?;
        Ok(Self { pairs, names, first })
    }

    fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        Arc::clone(name.and_then(|name| self.find(name)).unwrap_or(&self.first))
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard = || name.split_once('.').and_then(|(_, rest)| self.names.get(&format!("*.{rest}")));
        self.names.get(&name).or_else(wildcard)
    }
}

impl Pair {
    fn read(file: &Certificate) -> Result<Self, TlsError> {
        let key = Arc::new(read(file)?);
        let names = dns_names(&key).map_err(|why| at(&file.chain, &why))?;
        let validity = key.end_entity_cert().ok().and_then(|leaf| Validity::of(leaf));
        Ok(Self { chain: file.chain.clone(), key, names, validity })
    }

    /// Why it is not valid, where, for whom it is, and what to do.
    fn problem(&self, now: i64) -> Option<String> {
        let why = self.validity?.problem(now)?;
        let (chain, names) = (self.chain.display(), self.names.join(", "));
        Some(format!("certificates: {chain}: {why}; it is for {names}: put a renewed one there, with its key"))
    }

    /// Why it is not to take the place of the running one, which is valid.
    fn worse_than(&self, running: &Self, now: i64) -> Option<String> {
        if running.problem(now).is_some() {
            return None;
        }
        self.problem(now).or_else(|| self.of_others(running))
    }

    /// That it is for none of the names that the running one is for: somebody copied the wrong file.
    fn of_others(&self, running: &Self) -> Option<String> {
        let shares = |one: &Self, other: &Self| one.names.iter().any(|name| other.covers(name));
        let has_no_names = running.names.is_empty();
        if has_no_names || shares(self, running) || shares(running, self) {
            return None;
        }
        let (chain, names, before) = (self.chain.display(), self.names.join(", "), running.names.join(", "));
        Some(format!(
            "certificates: {chain}: it is for {names}, and the running one for {before}: put one there that is for one of these, \
             or restart the server, which then takes what there is"
        ))
    }

    fn covers(&self, name: &str) -> bool {
        let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.names.iter().any(|own| own == name || Some(own) == wildcard.as_ref())
    }
}

fn read(file: &Certificate) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&file.chain)
        .and_then(Iterator::collect)
        .map_err(|error| at(&file.chain, &error))?;
    if chain.is_empty() {
        return Err(at(&file.chain, &"it holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&file.key).map_err(|error| at(&file.key, &error))?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| at(&file.key, &error))?;
    let certified = CertifiedKey::new(chain, key);
    certified
        .keys_match()
        .map_err(|error| at(&file.key, &format!("it does not fit {}: {error}", file.chain.display())))?;
    Ok(certified)
}

fn dns_names(key: &CertifiedKey) -> Result<Vec<String>, String> {
    let leaf = key.end_entity_cert().map_err(|error| error.to_string())?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
    Ok(leaf.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

fn at(file: &Path, why: &dyn std::fmt::Display) -> TlsError {
    TlsError(format!("{}: {why}", file.display()))
}

/// The TLS side of the public listeners: HTTP/2 and HTTP/1.1 by ALPN. Early data (0-RTT) is neither offered nor taken.
///
/// # Errors
///
/// When the provider lacks a protocol version, which aws-lc-rs does not.
pub fn server_config(
    certificates: Arc<Certificates>,
    tickets: Arc<Tickets>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = tickets;
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 2;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_valid_does_not_take_the_place_of_what_is() {
        let folder = Folder::new();
        let files = [folder.issue("a", 2020, 2030), folder.issue("b", 2020, 2030)];
        let certificates = Certificates::load(&files, year(2025)).unwrap();
        let shown = |name: &str| certificates.current.load().choose(Some(name)).cert[0].to_vec();
        let (first_a, first_b) = (shown("a"), shown("b"));

        folder.issue("a", 2020, 2024);
        folder.issue("b", 2020, 2031);
        let refused = certificates.reload(&files, year(2025));
        assert_eq!(refused.len(), 1);
        for part in ["a.pem: it expired on ", "2024", "it is for a: put a renewed one there"] {
            assert!(refused[0].contains(part), "{part:?} is not in {}", refused[0]);
        }
        assert_eq!(shown("a"), first_a, "the one that is good stays");
        assert_ne!(shown("b"), first_b, "and the other is taken");

        folder.issue("a", 2026, 2040);
        assert!(certificates.reload(&files, year(2025))[0].contains("it is not valid before "));
        assert_eq!(shown("a"), first_a);
        assert_eq!(certificates.reload(&files, year(2026)), [""; 0], "its time has come");
        assert_ne!(shown("a"), first_a);
        std::fs::write(&files[0].chain, "nonsense").unwrap();
        assert_eq!(certificates.reload(&files, year(2026)).len(), 1);

        // Nothing that is better is lost, and it is told that it is no good.
        folder.issue("a", 2020, 2024);
        assert_eq!(certificates.reload(&files, year(2041)), [""; 0]);
        assert_eq!(certificates.invalid(year(2041)).len(), 2);
    }

    #[test]
    fn a_certificate_of_others_does_not_take_the_place_of_ones_own() {
        let folder = Folder::new();
        let own = folder.issue("sun4-2-1.cdn.test", 2020, 2030);
        let replaced_by = |name: &str| {
            let certificates = Certificates::load(std::slice::from_ref(&own), year(2025)).unwrap();
            let new = folder.issue(name, 2020, 2031);
            let files = [Certificate { chain: new.chain, key: new.key }];
            certificates.reload(&files, year(2025))
        };
        assert_eq!(replaced_by("*.cdn.test"), [""; 0]);
        let refused = replaced_by("other.test");
        assert!(refused[0].contains("it is for other.test, and the running one for sun4-2-1.cdn.test"), "{refused:?}");
    }

    #[test]
    fn of_two_for_one_name_the_valid_one_is_shown_also_when_the_other_expires() {
        let folder = Folder::new();
        let soon = folder.issue("a", 2020, 2026);
        let [chain, key] =
            [&soon.chain, &soon.key].map(|file| file.with_file_name("soon").with_extension(file.extension().unwrap()));
        std::fs::rename(&soon.chain, &chain).unwrap();
        std::fs::rename(&soon.key, &key).unwrap();
        let files = [Certificate { chain, key }, folder.issue("a", 2020, 2040)];
        let certificates = Certificates::load(&files, year(2025)).unwrap();
        let shown = || certificates.current.load().choose(Some("a")).cert[0].to_vec();
        let (before, first) = (shown(), certificates.current.load().choose(None).cert[0].to_vec());
        assert_eq!(before, first);
        assert!(certificates.shown_invalid(year(2028)).is_some_and(|why| why.contains("soon.pem")));
        certificates.settle(year(2028));
        assert_ne!(shown(), before);
        assert_eq!((certificates.shown_invalid(year(2028)), certificates.invalid(year(2028)).len()), (None, 1));
    }

    #[test]
    fn a_start_takes_what_there_is_and_prefers_what_is_valid() {
        let folder = Folder::new();
        let old = folder.issue("old", 2020, 2024);
        let alone = Certificates::load(std::slice::from_ref(&old), year(2025)).unwrap();
        assert_eq!((alone.invalid(year(2025)).len(), alone.first_end().is_some()), (1, true));
        assert_eq!((alone.expiring(year(2023), 86_400), alone.expiring(year(2025), i64::MAX / 2)), (vec![], vec![]));
        assert!(alone.expiring(year(2023), 366 * 86_400)[0].contains("old.pem: it expires on "));
        let new = folder.issue("new", 2020, 2030);
        let both = Certificates::load(&[old, new], year(2025)).unwrap();
        let names = |name| dns_names(&both.current.load().choose(name)).unwrap();
        assert_eq!((names(None), names(Some("old"))), (vec!["new".to_owned()], vec!["old".to_owned()]));
    }

    #[test]
    fn names_that_no_certificate_is_for_are_told() {
        let folder = Folder::new();
        let files = [folder.issue("*.cdn.test", 2020, 2030)];
        let certificates = Certificates::load(&files, year(2025)).unwrap();
        let uncovered = |name: &str| certificates.uncovered(&[name.to_owned()]);
        assert_eq!(uncovered("sun4-2-1.CDN.test"), [""; 0]);
        assert!(uncovered("sun4-2.other.test")[0].starts_with("certificates: none is for sun4-2.other.test: "));
        assert_eq!(uncovered("a.b.cdn.test").len(), 1);
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// A certificate for a name from the beginning of one year to that of another.
        fn issue(&self, name: &str, from: i32, to: i32) -> Certificate {
            let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
            (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
            let key = rcgen::KeyPair::generate().unwrap();
            let at = |end: &str| self.0.path().join(format!("{name}.{end}"));
            let files = Certificate { chain: at("pem"), key: at("key") };
            std::fs::write(&files.chain, params.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(&files.key, key.serialize_pem()).unwrap();
            files
        }
    }

    /// The middle of a year, roughly.
    fn year(year: i64) -> i64 {
        (year - 1970) * 31_557_600 + 15_000_000
    }
}
