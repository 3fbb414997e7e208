//! Session tickets that every sun of a group opens, so that a client whose address was taken over, or whose sun was
//! restarted, resumes its session (RFC 8446, section 2.2; RFC 5077) and is spared a full handshake.
//!
//! ```text
//!   secret, 32 bytes, the same file on all suns of a group
//!     |
//!   HKDF (RFC 5869): master --"epoch", number--> key of an epoch --"name"----------> 16 bytes that name it
//!                                                       |
//!                                                       +--"ticket", salt--> AES-256-GCM key of one ticket
//!
//!   ticket    0 name 16   16 salt 32, random   48 sealed, as long as what is sealed   48 + n tag 16
//!             nonce: zeros, for no key is used twice; bytes 0..48 are authenticated too
//! ```
//!
//! Keys follow from the secret and the clock alone: suns need not talk to each other to change them all together, every
//! [`EPOCH_S`] seconds. A ticket is sealed with the key of the current epoch and opened with that of the previous,
//! the current and the next one. So it is good for one epoch at least and two at most, and suns whose clocks differ by
//! less than an epoch understand each other.
//!
//! # The file
//!
//! One secret a line, 64 hexadecimal digits as `sunctl token` makes them; empty lines and those that begin with `#` do
//! not count. The first seals, all of them open: a new secret is added as the second line everywhere, then made the
//! first, and the old one removed two epochs later; no session is lost. The file is read again when it changes; one that
//! cannot be used leaves the running secrets in place, with one WARN. Without a file each process has a random secret:
//! its tickets end with it.
//!
//! # What a stolen secret opens
//!
//! Whoever has it can take a server's place in resumed sessions, and read recorded TLS 1.2 sessions that a ticket was
//! sent in (in TLS 1.3 every resumption has a key exchange of its own). It is worth as much as the certificate's key:
//! one a group, replaced now and then. No sun sends or takes early data (0-RTT): it could be replayed, to each sun once.
//!
//! Why not `rustls::crypto::aws_lc_rs::Ticketer`: its keys are random in each process. Why a key a ticket: a group makes
//! more tickets in an epoch than one AES-GCM key with random nonces of 96 bits is good for (2^32).

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use daemon::config::{ConfigError, read_private};
use prometheus::IntCounter;
use rustls::server::ProducesTickets;

/// The tickets of an edge; cheap to look at from all workers.
pub struct Tickets {
    state: ArcSwap<State>,
    unknown: IntCounter,
}

/// Secrets, and the keys that they give at one time.
struct State {
    secrets: Arc<Secrets>,
    keys: Keys,
}

impl Tickets {
    /// Reads the secrets of the group; without a file, makes one of this process's own. `unknown` counts tickets that
    /// no key opens.
    ///
    /// # Errors
    ///
    /// As [`Secrets::load`].
    pub fn new(file: Option<&Path>, unknown: IntCounter) -> Result<Self, ConfigError> {
        let secrets = file.map_or_else(Secrets::random, Secrets::load)?;
        Ok(Self { state: ArcSwap::from_pointee(State::at(Arc::new(secrets), epoch(daemon::clock::unix_s()))), unknown })
    }

    /// Reads the file again.
    ///
    /// # Errors
    ///
    /// As [`Secrets::load`]; the running secrets stay.
    pub fn reload(&self, file: &Path) -> Result<(), ConfigError> {
        let secrets = Secrets::load(file)?;
        self.state.store(Arc::new(State::at(Arc::new(secrets), epoch(daemon::clock::unix_s()))));
        Ok(())
    }

    /// The keys at a time, made anew when an epoch has begun.
    fn with_keys<T>(&self, now_s: u64, with: impl FnOnce(&Keys) -> T) -> T {
        let epoch = epoch(now_s);
        if self.state.load().keys.epoch != epoch {
            // Two workers may both do it: they make the same.
            self.state.rcu(|state| State::at(Arc::clone(&state.secrets), epoch));
        }
        with(&self.state.load().keys)
    }

    fn seal(&self, plain: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let mut salt = [0; SALT_BYTES];
        aws_lc_rs::rand::fill(&mut salt).ok()?;
        self.with_keys(now_s, |keys| keys.seal(plain, &salt))
    }

    fn open(&self, ticket: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let plain = self.with_keys(now_s, |keys| keys.open(ticket));
        if plain.is_none() {
            self.unknown.inc();
        }
        plain
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// Seconds that a ticket is surely good for.
    fn lifetime(&self) -> u32 {
        u32::try_from(EPOCH_S).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, daemon::clock::unix_s())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, daemon::clock::unix_s())
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("epoch", &self.state.load().keys.epoch).finish_non_exhaustive()
    }
}

impl State {
    fn at(secrets: Arc<Secrets>, epoch: u64) -> Self {
        // A key that cannot be derived is one that opens nothing; HKDF of 32 bytes does not fail.
        let keys = Keys::at(&secrets, epoch).unwrap_or_else(|Unspecified| Keys { epoch, ring: Vec::new() });
        Self { secrets, keys }
    }
}

/// What keys are derived from, the one that seals first; nothing shows them.
pub struct Secrets(Vec<Prk>);

impl Secrets {
    /// Reads a file of secrets.
    ///
    /// # Errors
    ///
    /// When it cannot be read, others than its owner may read it, or a line is no secret (which line, never what).
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read_private(file)?)
            .map_err(|problem| ConfigError(format!("ticket_secret: {}: {problem}", file.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let secrets: Vec<Prk> = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(at, line)| {
                let why = || format!("line {} is not 64 hexadecimal digits; make it with `sunctl token`", at + 1);
                unhex(line).map(|secret| master(&secret)).ok_or_else(why)
            })
            .collect::<Result<_, _>>()?;
        match secrets.len() {
            0 => Err("it holds no secret; make one with `sunctl token`".to_owned()),
            1..=SECRETS_MAX => Ok(Self(secrets)),
            count => Err(format!("it holds {count} secrets, {SECRETS_MAX} at most are looked at")),
        }
    }

    fn random() -> Result<Self, ConfigError> {
        let mut secret = [0; SECRET_BYTES];
        aws_lc_rs::rand::fill(&mut secret)
            .map_err(|Unspecified| ConfigError("the system has no random bytes for session tickets".to_owned()))?;
        Ok(Self(vec![master(&secret)]))
    }
}

/// The keys of three epochs; the first seals.
struct Keys {
    epoch: u64,
    ring: Vec<EpochKey>,
}

struct EpochKey {
    name: [u8; NAME_BYTES],
    key: Prk,
}

impl Keys {
    fn at(secrets: &Secrets, epoch: u64) -> Result<Self, Unspecified> {
        let epochs = [Some(epoch), epoch.checked_sub(1), epoch.checked_add(1)];
        let mut ring = Vec::with_capacity(3 * SECRETS_MAX);
        for secret in &secrets.0 {
            for epoch in epochs.into_iter().flatten() {
                let key = Prk::from(secret.expand(&[b"epoch", &epoch.to_be_bytes()], HKDF_SHA256)?);
                let mut name = [0; NAME_BYTES];
                key.expand(&[b"name"], Length(NAME_BYTES))?.fill(&mut name)?;
                ring.push(EpochKey { name, key });
            }
        }
        Ok(Self { epoch, ring })
    }

    fn seal(&self, plain: &[u8], salt: &[u8; SALT_BYTES]) -> Option<Vec<u8>> {
        let current = self.ring.first().filter(|_| plain.len() <= PLAIN_BYTES_MAX)?;
        let header = [current.name.as_slice(), salt].concat();
        let mut sealed = plain.to_vec();
        let key = current.ticket_key(salt).ok()?;
        key.seal_in_place_append_tag(nonce(), Aad::from(&header), &mut sealed).ok()?;
        Some([header, sealed].concat())
    }

    /// What a client presents: any bytes at all.
    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (header, sealed) = ticket.split_at_checked(HEADER_BYTES)?;
        let (name, salt) = header.split_at_checked(NAME_BYTES)?;
        let key = self.ring.iter().find(|key| key.name == name).filter(|_| sealed.len() <= SEALED_BYTES_MAX)?;
        let mut opened = sealed.to_vec();
        let length = key.ticket_key(salt).ok()?.open_in_place(nonce(), Aad::from(header), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

impl EpochKey {
    fn ticket_key(&self, salt: &[u8]) -> Result<LessSafeKey, Unspecified> {
        let info = [b"ticket", salt];
        Ok(LessSafeKey::new(UnboundKey::from(self.key.expand(&info, &AES_256_GCM)?)))
    }
}

fn master(secret: &[u8; SECRET_BYTES]) -> Prk {
    Salt::new(HKDF_SHA256, LABEL).extract(secret)
}

const fn epoch(now_s: u64) -> u64 {
    now_s / EPOCH_S
}

fn unhex(line: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    if line.len() != 2 * SECRET_BYTES || !line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in secret.iter_mut().zip(line.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(secret)
}

/// How many bytes are to be derived.
struct Length(usize);

impl aws_lc_rs::hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Zeros: each ticket has a key of its own.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// How long keys seal, seconds: six hours.
pub const EPOCH_S: u64 = 6 * 60 * 60;

/// Most secrets of a file: one that seals, and some that still open.
pub const SECRETS_MAX: usize = 3;

/// What a ticket may hold, bytes: keys, a name and a protocol, of which there are a few hundred.
const PLAIN_BYTES_MAX: usize = 4096;

const SECRET_BYTES: usize = 32;
const NAME_BYTES: usize = 16;
const SALT_BYTES: usize = 32;
const HEADER_BYTES: usize = NAME_BYTES + SALT_BYTES;
const SEALED_BYTES_MAX: usize = PLAIN_BYTES_MAX + 16;

/// Keys of this format are keys of nothing else.
const LABEL: &[u8] = b"sun session tickets 1";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const THIRD: &str = "fe0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const PLAIN: &[u8] = b"a session";

    #[test]
    fn the_form_of_a_ticket_is_pinned() {
        // Computed by other code: hmac of Python's standard library, AES-GCM of its package cryptography.
        let ticket = keys(SECRET, 80_000).seal(PLAIN, &[7; SALT_BYTES]).unwrap();
        let hex: String = ticket.iter().map(|byte| format!("{byte:02x}")).collect();
        let salt = "07".repeat(SALT_BYTES);
        assert_eq!(
            hex,
            format!("0840e107e5890c46d39087121c5d0995{salt}4957fc876eca807a1094074ca8781318035e031f2d4844ffb5")
        );
    }

    #[test]
    fn a_ticket_is_opened_from_an_epoch_before_to_an_epoch_after() {
        check_opened((SECRET, 100), (SECRET, 98), false);
        check_opened((SECRET, 100), (SECRET, 99), true);
        check_opened((SECRET, 100), (SECRET, 100), true);
        check_opened((SECRET, 100), (SECRET, 101), true);
        check_opened((SECRET, 100), (SECRET, 102), false);
        check_opened((SECRET, 0), (SECRET, 0), true);
        check_opened((SECRET, 0), (SECRET, 1), true);
        check_opened((SECRET, u64::MAX), (SECRET, u64::MAX), true);
    }

    #[test]
    fn a_secret_is_replaced_without_losing_a_session() {
        let (adding, added) = (format!("{SECRET}\n{OTHER}"), format!("{OTHER}\n{SECRET}"));
        // Each step reaches one sun after the other: both of them open what either seals.
        for (one, next) in [(SECRET, adding.as_str()), (&adding, &added), (&added, OTHER)] {
            check_opened((one, 100), (next, 100), true);
            check_opened((next, 100), (one, 100), true);
        }
        check_opened((SECRET, 100), (OTHER, 100), false);
        check_opened((OTHER, 100), (SECRET, 100), false);
    }

    #[test]
    fn what_was_tampered_with_is_opened_by_nobody() {
        let keys = keys(SECRET, 100);
        let ticket = keys.seal(PLAIN, &[7; SALT_BYTES]).unwrap();
        for at in 0..ticket.len() {
            let mut tampered = ticket.clone();
            tampered[at] ^= 1;
            assert_eq!(keys.open(&tampered), None, "byte {at}");
            assert_eq!(keys.open(&ticket[..at]), None, "cut at {at}");
        }
        assert_eq!(keys.open(&[ticket.as_slice(), &[0]].concat()), None);
        assert_eq!(keys.open(&ticket).unwrap(), PLAIN);
    }

    #[test]
    fn the_size_of_a_ticket_is_bounded() {
        let keys = keys(SECRET, 100);
        let most = keys.seal(&[1; PLAIN_BYTES_MAX], &[7; SALT_BYTES]).unwrap();
        assert_eq!(most.len(), HEADER_BYTES + SEALED_BYTES_MAX);
        assert_eq!(keys.open(&most).unwrap(), [1; PLAIN_BYTES_MAX]);
        assert_eq!(keys.seal(&[1; PLAIN_BYTES_MAX + 1], &[7; SALT_BYTES]), None);
        assert_eq!(keys.open(&[&most[..HEADER_BYTES], &[0; SEALED_BYTES_MAX + 1]].concat()), None);
        assert!(keys.open(&keys.seal(&[], &[7; SALT_BYTES]).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn suns_change_keys_by_their_clocks_alone() {
        let (one, other) = (tickets(SECRET), tickets(SECRET));
        let noon = 80_000 * EPOCH_S;
        // Clocks apart by less than an epoch, either way, with a change of epoch between them or not.
        for (sealed_s, opened_s) in [(noon, noon - 1), (noon - 1, noon), (noon, noon + 2 * EPOCH_S - 1)] {
            let ticket = one.seal(PLAIN, sealed_s).unwrap();
            assert_eq!(other.open(&ticket, opened_s).as_deref(), Some(PLAIN), "{sealed_s} {opened_s}");
        }
        assert_eq!(other.unknown.get(), 0);
        let ticket = one.seal(PLAIN, noon).unwrap();
        assert_eq!(other.open(&ticket, noon + 2 * EPOCH_S), None);
        assert_eq!(other.unknown.get(), 1);
        // No two tickets are the same.
        assert_ne!(one.seal(PLAIN, noon), one.seal(PLAIN, noon));
    }

    #[test]
    fn without_a_file_tickets_end_with_the_process() {
        let make = || Tickets::new(None, unknown()).unwrap();
        let (one, other) = (make(), make());
        let ticket = one.encrypt(PLAIN).unwrap();
        assert_eq!(one.decrypt(&ticket).as_deref(), Some(PLAIN));
        assert_eq!(other.decrypt(&ticket), None);
        assert_eq!((one.unknown.get(), other.unknown.get()), (0, 1));
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused_and_never_shown() {
        check_parsed(SECRET, "1 secrets");
        check_parsed(&format!("# of group 4-2\n\n  {}\n{OTHER}\n", SECRET.to_uppercase()), "2 secrets");
        check_parsed(&[SECRET, OTHER, THIRD].join("\n"), "3 secrets");
        check_parsed(&[SECRET; 4].join("\n"), "it holds 4 secrets, 3 at most are looked at");
        check_parsed("", "it holds no secret; make one with `sunctl token`");
        check_parsed("# nothing\n", "it holds no secret; make one with `sunctl token`");
        let line = |number| format!("line {number} is not 64 hexadecimal digits; make it with `sunctl token`");
        check_parsed(&SECRET[1..], &line(1));
        check_parsed(&format!("{SECRET}\n{SECRET}0"), &line(2));
        check_parsed(&format!("\n+{}", &SECRET[1..]), &line(2));
        check_parsed(&"ä".repeat(32), &line(1));
    }

    #[test]
    fn a_changed_file_is_taken_when_it_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let write = |text: &str, mode: u32| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write(SECRET, 0o640);
        assert!(Tickets::new(Some(&file), unknown()).unwrap_err().0.contains("chmod 600"));
        write(SECRET, 0o600);
        let tickets = Tickets::new(Some(&file), unknown()).unwrap();
        let ticket = tickets.encrypt(PLAIN).unwrap();
        write("nonsense", 0o600);
        let error = tickets.reload(&file).unwrap_err().0;
        assert!(error.starts_with("ticket_secret: ") && error.contains("secret: line 1 is not"), "{error}");
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(PLAIN));
        write(OTHER, 0o600);
        tickets.reload(&file).unwrap();
        assert_eq!(tickets.decrypt(&ticket), None);
        assert_eq!(format!("{tickets:?}").matches("epoch").count(), 1);
    }

    fn keys(text: &str, epoch: u64) -> Keys {
        Keys::at(&Secrets::parse(text).unwrap(), epoch).unwrap()
    }

    fn tickets(text: &str) -> Tickets {
        let secrets = Arc::new(Secrets::parse(text).unwrap());
        Tickets { state: ArcSwap::from_pointee(State::at(secrets, 0)), unknown: unknown() }
    }

    fn unknown() -> IntCounter {
        IntCounter::new("unknown", "Tickets.").unwrap()
    }

    #[track_caller]
    fn check_opened(sealed: (&str, u64), opened: (&str, u64), expected: bool) {
        let ticket = keys(sealed.0, sealed.1).seal(PLAIN, &[7; SALT_BYTES]).unwrap();
        let plain = keys(opened.0, opened.1).open(&ticket);
        assert_eq!(plain.as_deref(), expected.then_some(PLAIN), "{sealed:?} {opened:?}");
    }

    #[track_caller]
    fn check_parsed(text: &str, expected: &str) {
        let answer = Secrets::parse(text).map_or_else(|why| why, |secrets| format!("{} secrets", secrets.0.len()));
        assert_eq!(answer, expected, "{text}");
    }
}
