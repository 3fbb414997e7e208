//! The document beside the routes and the wire types.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeOwned, Visitor};
use serde_json::Value;

use super::DOCUMENT;
use crate::wire;

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let documented: BTreeSet<String> =
        operations(&document()).into_iter().map(|(path, method, _)| format!("{method} {path}")).collect();
    assert_eq!(documented, routed(include_str!("../routes.rs")));
}

#[test]
fn every_type_has_its_fields_and_no_others() {
    use wire::{
        CacheGeneration, CacheHoldings, Candidate, Copies, Diverted, Download, DownloadsAck, DownloadsBatch,
        Explanation, FetchAnswer, FetchNote, FetchState, Held, HeldBy, HeldScore, Holder, HoldingsAck, HoldingsDelta,
        HoldingsReport, Hot, HotFile, HotNow, HotRate, HotRegion, Link, LinkState, Links, LinksRequest, Load, Problem,
        Purge, PurgeAck, PurgeAcknowledgements, PurgeLog, PurgeMode, PurgeRequest, PurgeServer, PurgeState, PurgeWhat,
        Rated, RatingsSettings, RefusedEntry, RegionState, ServerNow, ServerSeen, ServerState, Servers, SignedBy,
        SnapshotFile, StatusReport, Tier, Top, Wanted, WantedRequest,
    };
    let mut known: BTreeSet<String> = ["RegionId", "FileName"].map(str::to_owned).into();
    macro_rules! check {
        ($($wire:ty),* $(,)?) => { $( check_fields::<$wire>(); known.insert(name_of::<$wire>()); )* };
    }
    check!(CacheGeneration, CacheHoldings, Candidate, Copies, Diverted, Download, DownloadsAck, DownloadsBatch);
    check!(Explanation, FetchAnswer, FetchNote, FetchState, Held, HeldBy, HeldScore, Holder);
    check!(HoldingsAck, HoldingsDelta, HoldingsReport, Hot, HotFile, HotNow, HotRate, HotRegion);
    check!(Link, LinkState, Links, LinksRequest, Load, Problem, Purge, PurgeAck);
    check!(PurgeAcknowledgements, PurgeLog, PurgeMode, PurgeRequest, PurgeServer, PurgeState, PurgeWhat, Rated);
    check!(RegionState, ServerSeen, ServerState, SignedBy, SnapshotFile, StatusReport, Tier, Top);
    check!(RatingsSettings, RefusedEntry, ServerNow, Servers, Wanted, WantedRequest);
    check!(geo::Scheme);
    let document = document();
    let documented = document["components"]["schemas"].as_object().unwrap();
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), known);
}

#[test]
fn its_bounds_are_the_codes() {
    for (pointer, expected) in [
        ("DownloadsBatch/properties/downloads/maxItems", wire::DOWNLOADS_PER_BATCH_MAX),
        ("HoldingsReport/properties/added/maxItems", wire::HOLDINGS_PER_REPORT_MAX),
        ("HoldingsReport/properties/removed/maxItems", wire::HOLDINGS_PER_REPORT_MAX),
        ("DownloadsAck/properties/refusals/maxItems", wire::REFUSALS_PER_ANSWER_MAX),
        ("LinksRequest/properties/files/maxItems", wire::LINKS_PER_REQUEST_MAX),
        ("StatusReport/properties/hottest/maxItems", wire::HOTTEST_MAX),
        ("PurgeLog/properties/purges/maxItems", wire::PURGES_PER_ANSWER_MAX),
        ("FileName/maxLength", geo::name::SITE_NAME_BYTES_MAX),
        ("RegionId/maximum", usize::from(u16::MAX)),
    ] {
        let document = document();
        let found = document.pointer(&format!("/components/schemas/{pointer}")).and_then(Value::as_u64);
        assert_eq!(found, Some(expected as u64), "{pointer}");
    }
}

#[test]
fn it_is_of_this_version_and_all_it_refers_to_is_there() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut references = BTreeSet::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 20, "{references:?}");
    for reference in &references {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    let ids: Vec<Value> = operations(&document).into_iter().map(|(_, _, call)| call["operationId"].clone()).collect();
    assert_eq!(ids.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

/// That a body as it goes over the wire is one by the document: no field that it does not have, none missing, and in a
/// question exactly those required that cannot be left out.
#[track_caller]
pub(crate) fn check_body<T: DeserializeOwned>(body: &str) {
    let name = name_of::<T>();
    // Servers' own listeners have these, not the API.
    if ["DirectPurge", "PurgeMark"].contains(&name.as_str()) {
        return;
    }
    let document = document();
    let schema = &document["components"]["schemas"][&name];
    assert!(schema.is_object(), "{name} is not in the document");
    let value: Value = serde_json::from_str(body).unwrap();
    conforms(&document, schema, &value).unwrap_or_else(|why| panic!("{name}: {why}"));
    if schema["additionalProperties"] == false {
        for field in value.as_object().unwrap().keys() {
            let mut without = value.clone();
            without.as_object_mut().unwrap().remove(field);
            let required = schema["required"].as_array().unwrap().contains(&Value::from(field.as_str()));
            assert_eq!(serde_json::from_value::<T>(without).is_err(), required, "{name}.{field}: required?");
        }
    }
}

/// Part of JSON Schema 2020-12: what the document uses, but for patterns and formats. Stricter in one thing: a field
/// that the schema does not know is wrong also where more are allowed.
fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        conforms(document, document.pointer(&reference[1..]).unwrap(), value)?;
    }
    let number = |key: &str| schema[key].as_f64();
    let wrong = |what: &str| Err(format!("{value} is not {what} {schema}"));
    let kinds = schema["type"].as_array().map_or_else(|| vec![schema["type"].clone()], Clone::clone);
    if !schema["type"].is_null() && !kinds.iter().any(|kind| is_a(kind.as_str().unwrap(), value)) {
        return wrong("of the type of");
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return wrong("one of");
    }
    // The alternatives of a purge go by patterns.
    let choices = schema["anyOf"].as_array().filter(|choices| choices.iter().any(|choice| choice["type"] == "null"));
    if choices.is_some_and(|choices| !choices.iter().any(|choice| conforms(document, choice, value).is_ok())) {
        return wrong("any of");
    }
    let length = value.as_array().map(Vec::len).or_else(|| value.as_str().map(str::len));
    let sizes = [("minLength", "maxLength"), ("minItems", "maxItems")];
    let size = length.map_or_else(|| value.as_f64(), |length| Some(length as f64));
    for (least, most) in sizes.into_iter().chain([("minimum", "maximum")]) {
        if size.is_some_and(|size| {
            number(least).is_some_and(|least| size < least) || number(most).is_some_and(|most| size > most)
        }) {
            return wrong("within the bounds of");
        }
    }
    for item in value.as_array().into_iter().flatten() {
        conforms(document, &schema["items"], item)?;
    }
    let Some((object, properties)) = value.as_object().zip(schema["properties"].as_object()) else { return Ok(()) };
    for (field, value) in object {
        let schema = properties.get(field).ok_or_else(|| format!("{field} is not in the document"))?;
        conforms(document, schema, value).map_err(|why| format!("{field}: {why}"))?;
    }
    let missing =
        schema["required"].as_array().into_iter().flatten().find(|field| !object.contains_key(field.as_str().unwrap()));
    missing.map_or(Ok(()), |field| Err(format!("{field} is missing")))
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        _ => panic!("{kind}"),
    }
}

/// Compares a type's fields, or its values if it has a few only, with its schema's.
#[track_caller]
fn check_fields<T: DeserializeOwned>() {
    let document = document();
    let schema = &document["components"]["schemas"][&name_of::<T>()];
    let of = |key: &str| -> BTreeSet<String> {
        match &schema[key] {
            Value::Object(properties) => properties.keys().cloned().collect(),
            Value::Array(values) => values.iter().map(|value| value.as_str().unwrap().to_owned()).collect(),
            _ => BTreeSet::new(),
        }
    };
    let (documented, names) = match T::deserialize(Probe).err().expect("a probe has no value") {
        Shape::Struct(fields) => (of("properties"), fields),
        Shape::Enum(variants) => (of("enum"), variants),
        Shape::Other(what) => panic!("{}: {what}", name_of::<T>()),
    };
    assert_eq!(documented, names.iter().map(|name| (*name).to_owned()).collect(), "{}", name_of::<T>());
}

/// The type's name, without its module.
fn name_of<T>() -> String {
    std::any::type_name::<T>().rsplit("::").next().unwrap().to_owned()
}

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// Path, method and description of every call.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            found.push((path.clone(), method.clone(), call.clone()));
        }
    }
    found
}

/// `method path` of every `.route("path", method(..).method(..))` of a source.
fn routed(source: &str) -> BTreeSet<String> {
    let source = source.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        let route = route.trim_start();
        let (path, rest) = route.strip_prefix('"').and_then(|rest| rest.split_once('"')).expect("a path");
        // Up to the next call on the router.
        let methods = rest.split(" .").next().unwrap();
        for method in ["get", "post", "put", "delete", "patch"] {
            if methods.contains(&format!(" {method}(")) || methods.contains(&format!(".{method}(")) {
                found.insert(format!("{method} {path}"));
            }
        }
    }
    found
}

fn collect_references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}

/// What a type asks its deserializer for.
#[derive(Debug)]
enum Shape {
    Struct(&'static [&'static str]),
    Enum(&'static [&'static str]),
    Other(String),
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Shape {}

impl de::Error for Shape {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }
}

/// A deserializer without a value: its error is what it was asked for.
struct Probe;

impl<'de> de::Deserializer<'de> for Probe {
    type Error = Shape;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Shape> {
        Err(Shape::Other("neither a struct nor an enum".to_owned()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Shape> {
        Err(Shape::Struct(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Shape> {
        Err(Shape::Enum(variants))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}
