//! Lists in JSON: an object `{prefix: value}`, or an array of objects with a prefix and a region or an AS each.
//!
//! Entries are taken while the text is read, without a tree of values in between. Other keys of an object are passed
//! over. An entry's place in an error is its number, from 1.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{Column, Reading, Values, named, quoted};

/// Reads the text.
pub(super) fn read(text: &str, values: Option<Values>, reading: &mut Reading<'_>) {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut stopped = false;
    let document = Document { values, reading, stopped: &mut stopped };
    let read = document.deserialize(&mut json).and_then(|()| json.end());
    if let Err(error) = read
        && !stopped
    {
        reading.refuse(&format!("{}: it is no list in JSON: {error}", error.line()));
    }
}

/// The list as it is read.
struct Document<'r, 'a> {
    values: Option<Values>,
    reading: &'r mut Reading<'a>,
    /// Whether reading ended because of wrong entries, which are told already.
    stopped: &'r mut bool,
}

impl Document<'_, '_> {
    fn take<E: Error>(&mut self, number: u64, fields: Result<(&str, &str, Values), String>) -> Result<(), E> {
        if self.reading.take(format_args!("entry {number}"), fields) {
            return Ok(());
        }
        *self.stopped = true;
        Err(E::custom("too many wrong entries"))
    }
}

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object {prefix: region} or an array of objects")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let values = self.values.unwrap_or(Values::Regions);
        let mut number = 0;
        while let Some((prefix, value)) = map.next_entry::<String, Value>()? {
            number += 1;
            self.take(number, Ok((&prefix, &text(value), values)))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(row) = sequence.next_element::<Row>()? {
            number += 1;
            let fields = row.fields(self.values);
            let fields = fields.as_ref().map(|(prefix, value, values)| (&**prefix, &**value, *values));
            self.take(number, fields.map_err(Clone::clone))?;
        }
        Ok(())
    }
}

/// An object of the array.
#[derive(Default)]
struct Row {
    prefix: Option<Value>,
    region: Option<Value>,
    origin: Option<Value>,
}

impl Row {
    /// The prefix and what counts: what the config asks for, else the region, else the AS.
    fn fields(self, values: Option<Values>) -> Result<(String, String, Values), String> {
        let region = self.region.filter(|_| values != Some(Values::Origins)).map(|value| (value, Values::Regions));
        let origin = self.origin.filter(|_| values != Some(Values::Regions)).map(|value| (value, Values::Origins));
        match (self.prefix, region.or(origin)) {
            (Some(prefix), Some((value, values))) => Ok((text(prefix), text(value), values)),
            (None, _) => Err("it has no \"prefix\"".to_owned()),
            (Some(prefix), None) => {
                let key = match values {
                    Some(Values::Regions) => "\"region\"",
                    Some(Values::Origins) => "\"as\"",
                    None => "\"region\" or \"as\"",
                };
                Err(format!("prefix = {}: it has no {key}", quoted(&text(prefix))))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a \"prefix\" and a \"region\" or an \"as\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut row = Row::default();
        while let Some(key) = map.next_key::<String>()? {
            let field = match named(&key) {
                Some(Column::Prefix) => &mut row.prefix,
                Some(Column::Value(Values::Regions)) => &mut row.region,
                Some(Column::Value(Values::Origins)) => &mut row.origin,
                None => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if field.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom(format_args!("{} is there twice", quoted(&key))));
            }
        }
        Ok(row)
    }
}

/// A string or number as a line of text would have it.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
