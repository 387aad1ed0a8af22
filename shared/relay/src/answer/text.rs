//! From a reply's text to the fields of its object, tolerantly, once: what stands around the object is left out, and of one
//! that breaks off what came whole is read.

use crate::limits::JSON_DEPTH_MAX;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// Braces at which an object is looked for: prose before the answer may have some of its own.
const STARTS_MAX: usize = 8;

/// The fields of the first object in `text` that has one of `names`, as written; `None` without such an object. Read past:
/// a byte order mark, code fences, prose before and after. `true`: the object was broken off.
pub(super) fn fields(text: &str, names: &[&str]) -> Option<(Vec<(String, Value)>, bool)> {
    let starts = text.match_indices('{').take(STARTS_MAX);
    let objects = starts.filter_map(|(start, _)| {
        let (object, cut) = object(&text[start..])?;
        let Fields(fields) = serde_json::from_str(&object).ok()?;
        Some((fields, cut))
    });
    let mut objects = objects.filter(|(fields, _)| fields.iter().any(|(name, _)| names.contains(&name.as_str())));
    objects.next()
}

/// How much of a text came whole, and what is open there.
#[derive(Clone, Default)]
struct Whole {
    end: usize,
    open: Vec<u8>,
}

/// The object that `text` begins with; of one that breaks off, all that came whole, closed. `true`: it broke off.
///
/// A string came whole where what follows it may follow a string. Where it may not, a quote of the text was not escaped: the
/// text did not end there, and nothing after it can be told apart.
fn object(text: &str) -> Option<(String, bool)> {
    let (mut open, mut in_string, mut escaped, mut is_name) = (Vec::new(), false, false, false);
    let (mut whole, mut string, mut comma) = (None, None, false);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    in_string = false;
                    string = (!is_name).then(|| Whole { end: at + 1, open: open.clone() });
                    comma = false;
                }
                _ => {}
            }
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        if string.is_some() {
            let in_object = open.last() == Some(&b'}');
            match byte {
                b',' if !comma => {
                    comma = true;
                    is_name = in_object;
                    continue;
                }
                b']' | b'}' if !comma => whole = string.take(),
                b'"' if comma => whole = string.take(),
                b'-' | b'0'..=b'9' | b't' | b'f' | b'n' if comma && !in_object => whole = string.take(),
                _ => break,
            }
        }
        match byte {
            b'"' => in_string = true,
            b':' => is_name = false,
            b'{' | b'[' if open.len() == JSON_DEPTH_MAX => return None,
            b'{' | b'[' => {
                open.push(if byte == b'{' { b'}' } else { b']' });
                is_name = byte == b'{';
                whole = Some(Whole { end: at + 1, open: open.clone() });
            }
            b',' => {
                is_name = open.last() == Some(&b'}');
                whole = Some(Whole { end: at, open: open.clone() });
            }
            b'}' | b']' => {
                if open.pop() != Some(byte) {
                    return None;
                }
                if open.is_empty() {
                    return Some((text[..=at].to_owned(), false));
                }
                is_name = false;
                whole = Some(Whole { end: at + 1, open: open.clone() });
            }
            _ => {}
        }
    }
    // At the end of the text a string is as whole as it will be.
    let at_the_end =
        string.filter(|string: &Whole| text[string.end..].trim_matches([' ', '\n', '\r', '\t', ',']).is_empty());
    let Whole { end, open } = at_the_end.or(whole)?;
    let closed = open.iter().rev().map(|close| char::from(*close));
    Some((text[..end].chars().chain(closed).collect(), true))
}

/// An object's fields as written, with names that are there twice.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(text: &str) -> Option<(Value, bool)> {
        let (fields, cut) = fields(text, &["a", "b"])?;
        Some((Value::Object(fields.into_iter().collect()), cut))
    }

    #[test]
    fn what_stands_around_the_object_is_left_out() {
        let object = r#"{"a": ["x", "}"], "b": 1}"#;
        for text in [
            object.to_owned(),
            format!("\u{feff} {object}\n"),
            format!("```json\n{object}\n```\nHope this helps {{really}}!"),
            format!("Of {{these}} and {{\"c\": 1}}: {object}"),
        ] {
            assert_eq!(read(&text), Some((json!({"a": ["x", "}"], "b": 1}), false)), "{text}");
        }
        for text in ["", "a", "[\"a\"]", "{\"c\": 1}", "{]", "{a}", r#"{"a": "it"s", "b": 1}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn of_a_broken_object_what_came_whole_is_read() {
        let kept = |text: &str| read(text).map(|(value, cut)| (value.to_string(), cut));
        let cut = |json: &str| Some((json.to_owned(), true));
        assert_eq!(kept(r#"{"a": ["x", "y"#), cut(r#"{"a":["x"]}"#));
        assert_eq!(kept(r#"{"a": ["x", "y""#), cut(r#"{"a":["x","y"]}"#));
        assert_eq!(kept(r#"{"a": ["x\""#), cut(r#"{"a":[]}"#));
        assert_eq!(kept(r#"{"a": [1, 23"#), cut(r#"{"a":[1]}"#), "23 may be the start of 234");
        assert_eq!(kept(r#"{"a": "x", "b"#), cut(r#"{"a":"x"}"#));
        assert_eq!(kept(r#"{"a": 1, "b": tru"#), cut(r#"{"a":1}"#));
        assert_eq!(kept(r#"{"a"#), None, "nothing came whole");
        assert_eq!(kept(r#"{"b": 1, "a": "it"s"}"#), cut(r#"{"b":1}"#), "a text did not end at a quote of its own");
        assert_eq!(kept(r#"{"a": ["x", "it"s", "y"]}"#), cut(r#"{"a":["x"]}"#));
        assert_eq!(kept(r#"{"b": 1, "a": "Monitor 24", black"}"#), cut(r#"{"b":1}"#));
        assert_eq!(kept(r#"{"a": ["x", "Monitor 24", black", "y"]}"#), cut(r#"{"a":["x"]}"#));
        assert_eq!(kept(r#"{"a": ["x", "y", "#), cut(r#"{"a":["x","y"]}"#));
        assert_eq!(kept(&format!("{{\"a\": {}", "[".repeat(70))), None, "deeper than JSON may be here");
    }

    proptest! {
        /// A quote that was not escaped never makes a text end early, as long as a letter follows it or its comma.
        #[test]
        fn a_stray_quote_never_shortens_a_value(before in "[a-z ]{0,5}", after in ",? ?[a-eg-mo-su-z][a-z ]{0,5}") {
            let text = format!(r#"{{"b": 1, "a": "{before}"{after}", "c": 2}}"#);
            let (value, _) = read(&text).unwrap();
            prop_assert!(value.get("a").is_none(), "{text}: {value}");
        }

        /// The law of salvage: a prefix gives no value that the whole has not, at its place.
        #[test]
        fn a_cut_answer_never_gives_what_the_whole_one_has_not(items in proptest::collection::vec("\\PC{0,6}", 0..5), at in 0..200usize) {
            let whole = json!({"a": items, "b": "é\"\\"}).to_string();
            let cut = &whole[..whole.floor_char_boundary(at.min(whole.len()))];
            if let Some((value, _)) = read(cut) {
                let found = value["a"].as_array().cloned().unwrap_or_default();
                prop_assert!(found.len() <= items.len());
                prop_assert!(found.iter().zip(&items).all(|(found, item)| found == item));
                prop_assert!(value.get("b").is_none_or(|b| b == "é\"\\"));
            }
        }
    }
}
