//! One JSON object, read strictly: no name twice in any object, and not too deep.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// What is wrong with a text. Never quotes it: `serde_json`'s own messages do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonFault {
    /// Not JSON, at this column (bytes, from 1).
    Syntax(usize),
    /// JSON, but no object.
    NotAnObject,
    /// A name occurs twice in the object that is open at this column.
    RepeatedName(usize),
    /// Nested too deep.
    TooDeep,
}

/// The object that `text` holds, nested at most `depth` deep; the object itself is 1 deep.
pub(super) fn object(text: &str, depth: usize) -> Result<Map<String, Value>, JsonFault> {
    let broken = Cell::new(None);
    let mut json = serde_json::Deserializer::from_str(text);
    let strict = Strict { depth_left: depth, broken: &broken };
    let value = strict.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    match (value, broken.get()) {
        (Ok(Value::Object(object)), _) => Ok(object),
        (Ok(_), _) => Err(JsonFault::NotAnObject),
        (Err(_), Some(Rule::Depth)) => Err(JsonFault::TooDeep),
        (Err(error), Some(Rule::Names)) => Err(JsonFault::RepeatedName(error.column())),
        (Err(error), None) => Err(JsonFault::Syntax(error.column())),
    }
}

#[derive(Clone, Copy)]
enum Rule {
    Depth,
    Names,
}

/// Reads any value; notes the rule that it breaks.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth_left: usize,
    broken: &'a Cell<Option<Rule>>,
}

impl Strict<'_> {
    fn breaks<E: Error>(self, rule: Rule) -> E {
        self.broken.set(Some(rule));
        E::custom("against the rules")
    }

    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(|| self.breaks(Rule::Depth))?;
        Ok(Strict { depth_left, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(deeper)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.insert(name, members.next_value_seed(deeper)?).is_some() {
                return Err(self.breaks(Rule::Names));
            }
        }
        Ok(Value::Object(object))
    }
}
