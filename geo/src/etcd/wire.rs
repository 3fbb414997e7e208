//! What is said to the gateway and what it says, as JSON. Pure.
//!
//! The gateway writes 64-bit numbers as strings and leaves out what is zero or empty; an answer is read with that in mind
//! and with nothing expected of it but a bound.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// What the cluster has under the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The cluster's revision when it was read: a watch from the next one misses nothing.
    pub revision: u64,
    /// None: there is no such key.
    pub document: Option<Document>,
}

/// A document under a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The revision that wrote it; every write has another one.
    pub revision: u64,
    /// Its bytes; empty where only the revision was asked for.
    pub bytes: Vec<u8>,
}

/// A key and what it is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// That it begins, or goes on.
    Nothing,
    /// The newest of the events in one message; none: the key was deleted.
    Changed(Option<Document>),
    /// It ends, and why: what was to be watched from is compacted, the member lost its leader, the token is none.
    Ended(String),
}

pub(crate) fn read(key: &str, keys_only: bool) -> Value {
    json!({ "key": encoded(key), "keys_only": keys_only })
}

/// Keys with a prefix, the last first.
pub(crate) fn list(prefix: &str, count_max: usize) -> Value {
    json!({
        "key": encoded(prefix),
        "range_end": encoded(after(prefix)),
        "limit": count_max.to_string(),
        "sort_order": "DESCEND",
        "sort_target": "KEY",
    })
}

pub(crate) fn watch(key: &str, from: u64) -> Value {
    json!({ "create_request": { "key": encoded(key), "start_revision": from.to_string() } })
}

/// If the document is still of `expected` (0: there is none), puts all of `puts` and deletes the keys from
/// `delete.0` to before `delete.1`; otherwise reads what is under the last put's key.
pub(crate) fn change(key: &str, expected: u64, puts: &[Put], delete: Option<(&str, &str)>) -> Value {
    let mut success: Vec<Value> = puts
        .iter()
        .map(|put| json!({ "request_put": { "key": encoded(&put.key), "value": encoded(&put.value) } }))
        .collect();
    if let Some((from, to)) = delete {
        success.push(json!({ "request_delete_range": { "key": encoded(from), "range_end": encoded(to) } }));
    }
    let mark = puts.last().map_or(key, |put| put.key.as_str());
    json!({
        "compare": [{ "key": encoded(key), "target": "MOD", "result": "EQUAL", "mod_revision": expected.to_string() }],
        "success": success,
        "failure": [{ "request_range": { "key": encoded(mark) } }],
    })
}

pub(crate) fn stored(answer: &Value) -> Result<Stored, String> {
    let range: Range = parse(answer)?;
    let document = range.kvs.into_iter().next().map(Pair::document).transpose()?;
    Ok(Stored { revision: range.header.revision, document })
}

pub(crate) fn listed(answer: &Value) -> Result<Vec<Put>, String> {
    let range: Range = parse(answer)?;
    let put = |pair: Pair| {
        let key = String::from_utf8(decoded(&pair.key)?).map_err(|_| "a key is not UTF-8".to_owned())?;
        Ok(Put { key, value: decoded(&pair.value)? })
    };
    range.kvs.into_iter().map(put).collect()
}

/// The revision of a change; none when it was not made, with what is under the last put's key.
pub(crate) fn changed(answer: &Value) -> Result<Result<u64, Option<Document>>, String> {
    let change: Change = parse(answer)?;
    if change.succeeded {
        return Ok(Ok(change.header.revision));
    }
    let found = change.responses.into_iter().next().and_then(|response| response.response_range);
    let pair = found.and_then(|range| range.kvs.into_iter().next());
    pair.map(Pair::document).transpose().map(Err)
}

pub(crate) fn told(line: &[u8]) -> Result<Told, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| format!("its watch: {error}"))?;
    if let Some(error) = line.error {
        return Ok(Told::Ended(text_of(&error)));
    }
    let Some(result) = line.result else { return Ok(Told::Nothing) };
    if result.canceled {
        let why = if result.compact_revision > 0 {
            format!("compacted at revision {}", result.compact_revision)
        } else if result.cancel_reason.is_empty() {
            "the member ended the watch".to_owned()
        } else {
            result.cancel_reason
        };
        return Ok(Told::Ended(why));
    }
    match result.events.into_iter().next_back() {
        None => Ok(Told::Nothing),
        Some(event) if event.kind == "DELETE" => Ok(Told::Changed(None)),
        Some(event) => Ok(Told::Changed(event.kv.map(Pair::document).transpose()?)),
    }
}

/// What a refusal says, and etcd's code of it.
pub(crate) fn refusal(body: &[u8]) -> (u64, String) {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        let told = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
        return (0, if told.is_empty() { "it gave no reason: is this etcd?".to_owned() } else { told });
    };
    (answer["code"].as_u64().unwrap_or_default(), text_of(&answer))
}

fn text_of(error: &Value) -> String {
    let text = error["message"].as_str().or_else(|| error["error"].as_str());
    text.map_or_else(|| error.to_string(), str::to_owned)
}

fn parse<'a, T: Deserialize<'a>>(answer: &'a Value) -> Result<T, String> {
    T::deserialize(answer).map_err(|error| format!("its answer: {error}"))
}

/// The first key behind all those with a prefix.
fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All keys there are.
    vec![0]
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("its answer: {error}"))
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    kvs: Vec<Pair>,
}

#[derive(Default, Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "number")]
    revision: u64,
}

#[derive(Deserialize)]
struct Pair {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default, deserialize_with = "number")]
    mod_revision: u64,
}

impl Pair {
    fn document(self) -> Result<Document, String> {
        Ok(Document { revision: self.mod_revision, bytes: decoded(&self.value)? })
    }
}

#[derive(Deserialize)]
struct Change {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Deserialize)]
struct Response {
    response_range: Option<Range>,
}

#[derive(Deserialize)]
struct Line {
    result: Option<WatchResult>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct WatchResult {
    #[serde(default)]
    canceled: bool,
    #[serde(default, deserialize_with = "number")]
    compact_revision: u64,
    #[serde(default)]
    cancel_reason: String,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default, rename = "type")]
    kind: String,
    kv: Option<Pair>,
}

/// A number that is written as a string.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(u64),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Ok(number),
        Written::Text(text) => text.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is no number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_gateway_is_read() {
        // Of etcd 3.4.23, as it wrote them.
        let found = json!({"header":{"cluster_id":"7064401624602276120","revision":"5","raft_term":"2"},
            "kvs":[{"key":"L3N1bi90b3BvbG9neQ==","create_revision":"2","mod_revision":"3","version":"1","value":"djI="}],
            "count":"1"});
        let document = Document { revision: 3, bytes: b"v2".to_vec() };
        assert_eq!(stored(&found), Ok(Stored { revision: 5, document: Some(document.clone()) }));
        assert_eq!(listed(&found), Ok(vec![Put { key: "/sun/topology".into(), value: b"v2".to_vec() }]));
        assert_eq!(stored(&json!({"header":{"revision":"5"}})), Ok(Stored { revision: 5, document: None }));
        let made = json!({"header":{"revision":"6"},"succeeded":true,"responses":[{"response_put":{"header":{}}}]});
        assert_eq!(changed(&made), Ok(Ok(6)));
        let lost = json!({"header":{"revision":"6"},"responses":[{"response_range":found}]});
        assert_eq!(changed(&lost), Ok(Err(Some(document))));
        assert_eq!(changed(&json!({"header":{"revision":"6"},"responses":[{"response_range":{}}]})), Ok(Err(None)));
        for bad in [json!({"kvs": 3}), json!({"kvs":[{"value":"%"}]}), json!({"header":{"revision":"x"}}), json!([1])] {
            assert!(stored(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_watch_says_is_read() {
        let check = |line: &str, expected: Told| assert_eq!(told(line.as_bytes()), Ok(expected), "{line}");
        check(r#"{"result":{"header":{"revision":"3"},"created":true}}"#, Told::Nothing);
        check(
            r#"{"result":{"events":[{"kv":{"mod_revision":"3","value":"djI="}},{"kv":{"mod_revision":"4","value":"djM="}}]}}"#,
            Told::Changed(Some(Document { revision: 4, bytes: b"v3".to_vec() })),
        );
        check(r#"{"result":{"events":[{"type":"DELETE","kv":{"mod_revision":"5"}}]}}"#, Told::Changed(None));
        check(
            r#"{"result":{"canceled":true,"compact_revision":"4"}}"#,
            Told::Ended("compacted at revision 4".to_owned()),
        );
        check(
            r#"{"result":{"canceled":true,"cancel_reason":"invalid auth token"}}"#,
            Told::Ended("invalid auth token".to_owned()),
        );
        check(
            r#"{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}"#,
            Told::Ended("etcdserver: no leader".into()),
        );
        assert!(told(b"{").is_err());
    }

    #[test]
    fn a_refusal_is_told_however_it_is_written() {
        let check = |body: &str, expected: (u64, &str)| {
            assert_eq!(refusal(body.as_bytes()), (expected.0, expected.1.to_owned()), "{body}");
        };
        check(
            r#"{"error":"x","message":"etcdserver: invalid auth token","code":16}"#,
            (16, "etcdserver: invalid auth token"),
        );
        check(r#"{"error":"x"}"#, (0, "x"));
        check("Not Found\n", (0, "Not Found"));
        check("", (0, "it gave no reason: is this etcd?"));
    }

    #[test]
    fn keys_of_a_prefix_end_before_the_next_one() {
        assert_eq!(after("/a/"), b"/a0");
        assert_eq!(after("a\u{7f}"), b"a\x80");
    }
}
