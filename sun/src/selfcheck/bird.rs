//! BIRD 2, driven through its control socket.
//!
//! `sunctl render bird` makes a configuration with one static protocol for each prefix in two families, all of them disabled
//! at the start: `sun_up_N` announces it as best or backup, `sun_drain_N` with GRACEFUL_SHUTDOWN and a lower preference.
//! Which of them are enabled is looked at each round and set right, so that a BIRD that was restarted announces again.
//!
//! ```text
//!   > show protocols                   < 2002-Name       Proto      Table      State  Since         Info
//!                                      < 1002-sun_up_1   Static     master4    down   12:00:00.000
//!                                      <      router     BGP        ---        up     12:00:00.000  Established
//!                                      < 0000
//!   > enable "sun_up_*"                < 0011-sun_up_1: enabled
//!                                      < 0000
//! ```
//!
//! Sessions are those that `sunctl render bird` calls `routerN`; `show protocols all "router*"` says which family each carries
//! (`Channel ipv4`, and below it its `State:`). Any other session is not this daemon's.
//!
//! Every line of a reply has a code and `-`, or begins with a space and continues the code before; the last has a code and a
//! space. Codes from 8000 on are errors. Make before break: what is to be announced is enabled before anything is disabled.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::machine::Announce;

/// What `show protocols` says of one.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// Its kind: `Static`, `BGP`.
    pub kind: String,
    /// Its table: `master4` or `master6` of a static one, unless the operator named another.
    pub table: String,
    /// `up`, `down`, `start`, `stop`.
    pub state: String,
    /// The rest of the line: `Established` of a BGP session.
    pub info: String,
}

/// What one round saw.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// All protocols.
    pub protocols: Vec<Protocol>,
    /// What the sessions to routers carry.
    pub channels: Vec<Channel>,
}

/// One family of addresses of one session to a router.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Channel {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Routes are exchanged.
    pub up: bool,
}

/// Why BIRD did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum BirdError {
    /// It does not run, or this user may not use its socket.
    #[error("{}: {why}; does BIRD run, and may this user use its socket?", .socket.display())]
    Away {
        /// Its control socket.
        socket: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// It does not answer.
    #[error("{}: BIRD does not answer within {timeout_ms} ms", .socket.display())]
    Hung {
        /// Its control socket.
        socket: PathBuf,
        /// Milliseconds.
        timeout_ms: u128,
    },
    /// It refuses.
    #[error("BIRD: {0}")]
    Refused(String),
    /// Its configuration is not one of `sunctl render bird`.
    #[error("BIRD has no protocols {0}*: is its configuration made by `sunctl render bird`?")]
    NoProtocols(&'static str),
}

/// One round: looks, sets right what is to be announced, looks again if anything was changed.
///
/// # Errors
///
/// What keeps BIRD from announcing it; the next round tries again.
pub async fn round(socket: &Path, announce: Announce, timeout: Duration) -> Result<Seen, BirdError> {
    let exchange = async {
        let mut bird = Bird::connect(socket).await?;
        let before = bird.protocols().await?;
        if !before.iter().any(|protocol| protocol.name.starts_with(UP)) {
            return Ok(Err(BirdError::NoProtocols(UP)));
        }
        let orders = orders(&before, announce);
        for order in &orders {
            if let Err(refusal) = bird.ask(order).await? {
                return Ok(Err(BirdError::Refused(format!("{order}: {refusal}"))));
            }
        }
        if announce == Announce::Drain && count(&before, DRAIN).1 == 0 {
            return Ok(Err(BirdError::NoProtocols(DRAIN)));
        }
        let protocols = if orders.is_empty() { before } else { bird.protocols().await? };
        Ok::<_, io::Error>(Ok(Seen { protocols, channels: bird.channels().await? }))
    };
    let timeout_ms = timeout.as_millis();
    match tokio::time::timeout(timeout, exchange).await {
        Err(_) => Err(BirdError::Hung { socket: socket.to_owned(), timeout_ms }),
        Ok(Err(why)) => Err(BirdError::Away { socket: socket.to_owned(), why }),
        Ok(Ok(result)) => result,
    }
}

/// Which routes its static protocols have, be they enabled or not, and what its sessions to routers carry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Configured {
    /// Names of protocols and their prefixes, as BIRD writes them.
    pub routes: Vec<(String, String)>,
    /// See [`Seen`].
    pub channels: Vec<Channel>,
}

impl Configured {
    /// The prefixes of a family.
    #[must_use]
    pub fn prefixes(&self, family: &str) -> BTreeSet<String> {
        let of = self.routes.iter().filter(|(name, _)| name.starts_with(family));
        of.map(|(_, prefix)| prefix.clone()).collect()
    }
}

impl Configured {
    /// The prefixes of a family by the numbers of its protocols; empty if they are not numbered.
    #[must_use]
    pub fn numbered(&self, family: &str) -> Vec<String> {
        let of = self.routes.iter().filter_map(|(name, prefix)| Some((name.strip_prefix(family)?, prefix)));
        let numbers: Option<Vec<(u32, &String)>> =
            of.map(|(number, prefix)| Some((number.parse().ok()?, prefix))).collect();
        let mut numbers = numbers.unwrap_or_default();
        numbers.sort_unstable();
        numbers.into_iter().map(|(_, prefix)| prefix.clone()).collect()
    }
}

/// Asks what BIRD is configured to announce; changes nothing.
///
/// # Errors
///
/// When it does not answer.
pub async fn configured(socket: &Path, timeout: Duration) -> Result<Configured, BirdError> {
    let exchange = async {
        let mut bird = Bird::connect(socket).await?;
        let mut routes = Vec::new();
        let protocols = bird.protocols().await?;
        let ours = |name: &str| name.starts_with(UP) || name.starts_with(DRAIN);
        for Protocol { name, .. } in protocols.into_iter().filter(|protocol| ours(&protocol.name)) {
            // Refused: a `birdc configure` took it away meanwhile.
            let rows = bird.ask(&format!("show static {name}")).await?.unwrap_or_default();
            let prefixes =
                rows.iter().filter(|(code, _)| *code == STATIC).filter_map(|(_, row)| row.split_whitespace().next());
            routes.extend(prefixes.map(|prefix| (name.clone(), prefix.to_owned())));
        }
        Ok(Configured { routes, channels: bird.channels().await? })
    };
    let timeout_ms = timeout.as_millis();
    match tokio::time::timeout(timeout, exchange).await {
        Err(_) => Err(BirdError::Hung { socket: socket.to_owned(), timeout_ms }),
        Ok(Err(why)) => Err(BirdError::Away { socket: socket.to_owned(), why }),
        Ok(Ok(configured)) => Ok(configured),
    }
}

/// How many of a family are up, of how many.
#[must_use]
pub fn count(protocols: &[Protocol], family: &str) -> (usize, usize) {
    let of = || protocols.iter().filter(|protocol| protocol.name.starts_with(family));
    (of().filter(|protocol| protocol.is_up()).count(), of().count())
}

/// The channels in what `show protocols all` says.
fn channels(rows: &[(u16, String)]) -> Vec<Channel> {
    let (mut channels, mut ours) = (Vec::<Channel>::new(), false);
    for (code, text) in rows {
        if *code == PROTOCOL {
            ours = text.split_whitespace().next().is_some_and(is_router);
        }
        let text = text.trim();
        if let (true, Some(family)) = (ours, text.strip_prefix("Channel ")) {
            channels.push(Channel { family: family.to_owned(), up: false });
        }
        if let (true, Some(state), Some(channel)) = (ours, text.strip_prefix("State:"), channels.last_mut()) {
            channel.up = state.trim() == "UP";
        }
    }
    channels
}

/// Whether a protocol is a session as `sunctl render bird` makes them: `router1`.
fn is_router(name: &str) -> bool {
    name.strip_prefix(ROUTER).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What is to be ordered so that `announce` is announced.
fn orders(protocols: &[Protocol], announce: Announce) -> Vec<String> {
    let enable = |family: &str| {
        let (up, all) = count(protocols, family);
        (up < all).then(|| format!("enable \"{family}*\""))
    };
    let disable = |family: &str| {
        let (up, _) = count(protocols, family);
        (up > 0).then(|| format!("disable \"{family}*\""))
    };
    let orders = match announce {
        Announce::Unchanged => [None, None],
        Announce::Best => [enable(UP), disable(DRAIN)],
        // Nothing to be announced instead: as best is better than not at all.
        Announce::Drain if count(protocols, DRAIN).1 == 0 => [None, None],
        Announce::Drain => [enable(DRAIN), disable(UP)],
        Announce::Nothing => [disable(UP), disable(DRAIN)],
    };
    orders.into_iter().flatten().collect()
}

/// The family that announces a sun that is well.
pub const UP: &str = "sun_up_";

/// What sessions to routers are called, before their numbers.
const ROUTER: &str = "router";

/// The family that announces a sun that drains.
pub const DRAIN: &str = "sun_drain_";

impl Protocol {
    /// Whether it is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == "up"
    }

    /// A row of the table: name, kind, table, state, since, and whatever follows.
    fn parse(row: &str) -> Option<Self> {
        let mut fields = row.split_whitespace();
        let (name, kind) = (fields.next()?, fields.next()?);
        let (table, state) = (fields.next()?, fields.next()?);
        let _since = fields.next();
        let info: Vec<&str> = fields.collect();
        let [name, kind, table, state] = [name, kind, table, state].map(str::to_owned);
        Some(Self { name, kind, table, state, info: info.join(" ") })
    }
}

/// A connection to its control socket.
struct Bird {
    stream: BufReader<tokio::io::Take<UnixStream>>,
}

/// Lines of a reply with their codes, or the refusal.
type Reply = Result<Vec<(u16, String)>, String>;

impl Bird {
    async fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let mut bird = Self { stream: BufReader::new(stream.take(ROUND_BYTES_MAX)) };
        // The greeting is a reply of its own: `0001 BIRD 2.0.12 ready.`
        bird.reply().await?.map_err(io::Error::other)?;
        Ok(bird)
    }

    async fn protocols(&mut self) -> io::Result<Vec<Protocol>> {
        let rows = self.ask("show protocols").await?.map_err(io::Error::other)?;
        Ok(rows.iter().filter(|(code, _)| *code == PROTOCOL).filter_map(|(_, row)| Protocol::parse(row)).collect())
    }

    async fn channels(&mut self) -> io::Result<Vec<Channel>> {
        // Refused: there is no such protocol.
        let rows = self.ask(&format!("show protocols all \"{ROUTER}*\"")).await?.unwrap_or_default();
        Ok(channels(&rows))
    }

    async fn ask(&mut self, command: &str) -> io::Result<Reply> {
        let stream = self.stream.get_mut().get_mut();
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> io::Result<Reply> {
        let mut rows: Vec<(u16, String)> = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection, or says too much"));
            }
            match Line::parse(line.trim_end_matches(['\n', '\r']), rows.last().map(|(code, _)| *code)) {
                None => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("no line of BIRD: {line:?}"))),
                Some(Line { code, text, last }) => {
                    if code >= ERRORS_FROM {
                        return Ok(Err(text.to_owned()));
                    }
                    rows.push((code, text.to_owned()));
                    if last {
                        return Ok(Ok(rows));
                    }
                }
            }
        }
    }
}

/// A line of a reply.
#[derive(Debug, Eq, PartialEq)]
struct Line<'a> {
    code: u16,
    text: &'a str,
    last: bool,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str, before: Option<u16>) -> Option<Self> {
        if let Some(text) = line.strip_prefix(' ') {
            return Some(Self { code: before?, text, last: false });
        }
        let (code, rest) = line.split_at_checked(4)?;
        let code = code.bytes().all(|byte| byte.is_ascii_digit()).then(|| code.parse().ok()).flatten()?;
        match rest.as_bytes().first() {
            Some(b'-') => Some(Self { code, text: &rest[1..], last: false }),
            Some(b' ') => Some(Self { code, text: &rest[1..], last: true }),
            None => Some(Self { code, text: "", last: true }),
            Some(_) => None,
        }
    }
}

/// A row of `show protocols`.
const PROTOCOL: u16 = 1002;

/// A route of `show static`.
const STATIC: u16 = 1009;

/// Codes of errors.
const ERRORS_FROM: u16 = 8000;

/// All that BIRD may say in one round: some thousand protocols, twice.
const ROUND_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_codes_or_continue() {
        let line = |text, before| Line::parse(text, before).map(|line| (line.code, line.text.to_owned(), line.last));
        assert_eq!(line("0001 BIRD 2.0.12 ready.", None), Some((1, "BIRD 2.0.12 ready.".into(), true)));
        assert_eq!(line("1002-a", None), Some((1002, "a".into(), false)));
        assert_eq!(line(" b", Some(1002)), Some((1002, "b".into(), false)));
        assert_eq!(line("0000 ", None), Some((0, String::new(), true)));
        assert_eq!(line("0000", None), Some((0, String::new(), true)));
        for odd in ["", "000", " b", "+001 a", "0000x", "ä001"] {
            assert_eq!(line(odd, None), None, "{odd}");
        }
    }

    #[test]
    fn rows_are_read_as_bird_prints_them() {
        let router = Protocol::parse("router     BGP        ---        up     23:55:08.123  Established   ").unwrap();
        assert_eq!((router.is_up(), router.info.as_str()), (true, "Established"));
        let disabled = Protocol::parse("sun_up_1   Static     master4    down   23:55:08.123  ").unwrap();
        assert_eq!((disabled.is_up(), disabled.info.as_str()), (false, ""));
        let idle = Protocol::parse("r BGP --- start 23:55:08.123 Active        Socket: Connection refused").unwrap();
        assert_eq!(idle.info, "Active Socket: Connection refused");
        assert_eq!(Protocol::parse("too few fields"), None);
    }

    #[test]
    fn sessions_are_those_to_routers_by_family() {
        let text = "1002-router1    BGP        ---        up     03:18:55.003  Established   \n\
                    1006-  BGP state:          Established\n     Neighbor AS:      65000\n   Channel ipv4\n     \
                    State:          UP\n     Table:          master4\n \n\
                    1002-router22   BGP        ---        up     03:18:55.003  Established   \n\
                    1006-  BGP state:          Established\n   Channel ipv4\n     State:          DOWN\n   \
                    Channel ipv6\n     State:          UP\n \n\
                    1002-router_x   BGP        ---        up     03:18:55.003  Established   \n\
                    1006-  BGP state:          Established\n   Channel ipv6\n     State:          UP\n \n0000 ";
        let mut rows: Vec<(u16, String)> = Vec::new();
        for line in text.split('\n') {
            let line = Line::parse(line, rows.last().map(|(code, _)| *code)).unwrap();
            rows.push((line.code, line.text.to_owned()));
        }
        let channel = |family: &str, up| Channel { family: family.to_owned(), up };
        assert_eq!(channels(&rows), [channel("ipv4", true), channel("ipv4", false), channel("ipv6", true)]);
        assert_eq!(["router", "router1", "router1x", "arouter1"].map(is_router), [false, true, false, false]);
    }

    #[test]
    fn what_is_to_be_announced_is_made_before_the_other_is_broken() {
        check("up down", Announce::Best, &[]);
        check("down down", Announce::Best, &["enable \"sun_up_*\""]);
        check("down up", Announce::Best, &["enable \"sun_up_*\"", "disable \"sun_drain_*\""]);
        check("up down", Announce::Drain, &["enable \"sun_drain_*\"", "disable \"sun_up_*\""]);
        check("up up", Announce::Nothing, &["disable \"sun_up_*\"", "disable \"sun_drain_*\""]);
        check("down down", Announce::Nothing, &[]);
        check("up down", Announce::Unchanged, &[]);
        check("up none", Announce::Drain, &[]);
        check("up none", Announce::Nothing, &["disable \"sun_up_*\""]);
    }

    #[track_caller]
    fn check(states: &str, announce: Announce, expected: &[&str]) {
        let (up, drain) = states.split_once(' ').unwrap();
        let row =
            |name: &str, state: &str| Protocol::parse(&format!("{name} Static master4 {state} 12:00:00")).unwrap();
        // One of a family is right already, the other decides.
        let protocols = [row("sun_up_1", up), row("sun_up_2", up), row("sun_drain_1", drain), row("other", "up")];
        let protocols = if drain == "none" { protocols[..2].to_vec() } else { protocols.to_vec() };
        assert_eq!(orders(&protocols, announce), expected);
    }
}
