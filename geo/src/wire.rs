//! What goes over the wire between `geo serve` and those who ask it: every body, completely.
//!
//! JSON both ways, but for the table, which is its file's bytes ([`crate::table`]). Unknown fields of a request are
//! refused, unknown fields of an answer are ignored.
//!
//! | call | answer |
//! |---|---|
//! | `GET /v1/resolve/{address}` | [`Resolved`] |
//! | `POST /v1/resolve` of a [`ResolveRequest`] | [`ResolveAnswer`] |
//! | `GET /v1/explain/{address}`, `GET /v1/audit`, `GET /v1/stats` | the engine's words for people, as JSON |
//! | `GET /v1/table` | the table's bytes; `ETag: W/"EPOCH-SEQUENCE"`, weak since the packed form has the same |
//! | `GET /v1/table/changes?epoch=E&after=N&wait_ms=W` | [`Changes`] |
//!
//! The last two are answered 503 with `Retry-After` by a server that has routers, no saved table, and has not heard
//! yet what the routers have: who has a table keeps it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::table::Leaf;
use crate::topology::RegionId;

/// Which regions serve a client, and why.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Resolved {
    /// The client.
    pub address: IpAddr,
    /// Best first, at least one, at most four.
    pub regions: Vec<RegionId>,
    /// For people: "prefix 192.0.2.0/24", "geoip RU", "default".
    pub evidence: String,
}

/// Many clients.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// At most [`ADDRESSES_MAX`].
    pub addresses: Vec<IpAddr>,
}

/// In the order of the question.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ResolveAnswer {
    /// One an address.
    pub answers: Vec<Resolved>,
}

/// A state of a published table: how far its changes go.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// The server's life in which sequences count; another one has nothing to do with it.
    pub epoch: u64,
    /// Of the last change that is in it.
    pub sequence: u64,
}

/// As the table's entity tag, without quotes: `EPOCH-SEQUENCE`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

/// Reads what `Display` writes.
impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| NoPosition);
        let (epoch, sequence) = text.split_once('-').ok_or(NoPosition)?;
        Ok(Self { epoch: number(epoch)?, sequence: number(sequence)? })
    }
}

/// A text is no position.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a table's position has the form EPOCH-SEQUENCE")]
pub struct NoPosition;

/// What changed in a table after a position, oldest first.
///
/// The next question is for what comes after `sequence`. When the server does not know any more what changed since
/// the position, or never did, the answer is 410 Gone instead, and the follower takes the whole table.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Changes {
    /// As in the question.
    pub epoch: u64,
    /// Of the last of these changes; that of the question when there are none. Each change is one sequence, so there are
    /// as many as it is ahead of the question: a follower refuses an answer with more or fewer, and takes the whole table.
    pub sequence: u64,
    /// At most [`CHANGES_MAX`]; when there are more, the next question gets them at once. A prefix may be there twice:
    /// the later word counts.
    pub changes: Vec<Change>,
}

/// One prefix.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Change {
    /// Which.
    pub prefix: IpNet,
    /// What the table says of it now; none: nothing any more.
    pub leaf: Option<Leaf>,
}

/// Addresses of one [`ResolveRequest`].
pub const ADDRESSES_MAX: usize = 10_000;

/// Changes of one answer: some 100 bytes each.
pub const CHANGES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Candidate, Source};

    /// Golden: servers and followers of different age talk to each other.
    #[test]
    fn bodies_keep_their_form() {
        let resolved =
            Resolved { address: [192, 0, 2, 1].into(), regions: vec![RegionId(4)], evidence: "default".to_owned() };
        check(&resolved, r#"{"address":"192.0.2.1","regions":[4],"evidence":"default"}"#);
        check(&ResolveAnswer { answers: vec![] }, r#"{"answers":[]}"#);
        check(&ResolveRequest { addresses: vec!["::1".parse().unwrap()] }, r#"{"addresses":["::1"]}"#);
        let leaf = Leaf {
            candidates: vec![Candidate { region: RegionId(4), rank: 0 }],
            denied: vec![RegionId(5)],
            source: Source::Bgp,
        };
        let changes = Changes {
            epoch: 7,
            sequence: 12,
            changes: vec![
                Change { prefix: "192.0.2.0/24".parse().unwrap(), leaf: Some(leaf) },
                Change { prefix: "2001:db8::/32".parse().unwrap(), leaf: None },
            ],
        };
        check(
            &changes,
            r#"{"epoch":7,"sequence":12,"changes":[{"prefix":"192.0.2.0/24","leaf":{"candidates":[{"region":4,"rank":0}],"denied":[5],"source":"bgp"}},{"prefix":"2001:db8::/32","leaf":null}]}"#,
        );
    }

    #[test]
    fn a_position_is_written_and_read() {
        let position = Position { epoch: 1_700_000_000_000, sequence: 3 };
        assert_eq!(position.to_string(), "1700000000000-3");
        assert_eq!("1700000000000-3".parse(), Ok(position));
        for bad in ["", "-", "1", "1-", "-1", "1-2-3", "1-x", "18446744073709551616-1"] {
            assert_eq!(bad.parse::<Position>(), Err(NoPosition), "{bad}");
        }
    }

    #[test]
    fn unknown_fields_of_a_request_are_refused_and_of_an_answer_ignored() {
        assert!(serde_json::from_str::<ResolveRequest>(r#"{"addresses":[],"more":1}"#).is_err());
        assert!(serde_json::from_str::<Changes>(r#"{"epoch":1,"sequence":1,"changes":[],"more":1}"#).is_ok());
    }

    #[track_caller]
    fn check<T: Serialize + for<'a> Deserialize<'a> + PartialEq + fmt::Debug>(value: &T, json: &str) {
        assert_eq!(serde_json::to_string(value).unwrap(), json);
        assert_eq!(&serde_json::from_str::<T>(json).unwrap(), value);
    }
}
