//! What a request to `/events` says: "look at this object". Pure.
//!
//! Three forms come: a CloudEvent in binary mode (Eventarc), and a Cloud Storage notification pushed by Pub/Sub, wrapped in a
//! message or unwrapped. In all of them the body is, or holds, the object's resource. Only its bucket, name and generation are
//! taken, and those only as a hint: whoever handles it looks for itself.

use http::HeaderMap;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The only type of event that there is work for.
const FINALIZED: &str = "google.cloud.storage.object.v1.finalized";
/// The same in a Cloud Storage notification ("Pub/Sub notifications for Cloud Storage", event types).
const OBJECT_FINALIZE: &str = "OBJECT_FINALIZE";
/// Where the trace context travels, in an object's metadata.
const TRACEPARENT: &str = "traceparent";

/// What a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The bucket's real name.
    pub bucket: String,
    /// The object's name.
    pub name: String,
    /// Its version.
    pub generation: i64,
    /// The trace context of whoever wrote the object.
    pub traceparent: Option<String>,
    /// Some identity of the delivery, for logs.
    pub id: Option<String>,
}

/// Why a request says nothing of the kind. It is acknowledged: delivered again it would be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHint {
    /// Another type of event: there is no work.
    #[error("an event of another type")]
    OtherType,
    /// Not in any of the three forms.
    #[error("{0}")]
    Malformed(&'static str),
}

#[derive(Deserialize)]
struct Resource {
    bucket: String,
    name: String,
    generation: Number,
    metadata: Option<BTreeMap<String, String>>,
}

/// Google's JSON has 64-bit numbers as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Number(i64),
}

impl Number {
    fn value(&self) -> Option<i64> {
        match self {
            Number::Text(text) => text.parse().ok(),
            Number::Number(number) => Some(*number),
        }
    }
}

#[derive(Deserialize)]
struct Pushed {
    message: Message,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    attributes: Option<BTreeMap<String, String>>,
    data: Option<String>,
    message_id: Option<String>,
}

/// Reads a request in whichever of the three forms it comes.
pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Hint, NotAHint> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(kind) = header("ce-type") {
        expect(&kind, FINALIZED)?;
        return resource(body, header("ce-id"));
    }
    if headers.keys().any(|name| name.as_str().starts_with("x-goog-pubsub-")) {
        // Attributes come as headers where the subscription writes metadata (NoWrapper.write_metadata of the Pub/Sub API); without
        // them the object itself will tell.
        if let Some(kind) = header("eventtype") {
            expect(&kind, OBJECT_FINALIZE)?;
        }
        return resource(body, header("x-goog-pubsub-message-id"));
    }
    let pushed: Pushed = serde_json::from_slice(body)
        .map_err(|_| NotAHint::Malformed("neither a CloudEvent in binary mode nor a message that Pub/Sub pushed"))?;
    wrapped(pushed.message)
}

fn wrapped(message: Message) -> Result<Hint, NotAHint> {
    let attributes = message.attributes.unwrap_or_default();
    if let Some(kind) = attributes.get("eventType") {
        expect(kind, OBJECT_FINALIZE)?;
    }
    if let Some(data) = message.data.filter(|data| !data.is_empty()) {
        let data = data_encoding::BASE64.decode(data.as_bytes());
        return resource(&data.map_err(|_| NotAHint::Malformed("its data is not base64"))?, message.message_id);
    }
    // A notification with the payload format NONE has only attributes.
    let attribute = |name: &str| attributes.get(name).cloned();
    let hint = || {
        Some(Hint {
            bucket: attribute("bucketId")?,
            name: attribute("objectId")?,
            generation: attribute("objectGeneration")?.parse().ok()?,
            traceparent: None,
            id: message.message_id.clone(),
        })
    };
    hint().ok_or(NotAHint::Malformed("a message without data needs bucketId, objectId and objectGeneration"))
}

fn expect(kind: &str, wanted: &str) -> Result<(), NotAHint> {
    if kind == wanted { Ok(()) } else { Err(NotAHint::OtherType) }
}

fn resource(body: &[u8], id: Option<String>) -> Result<Hint, NotAHint> {
    let resource: Resource =
        serde_json::from_slice(body).map_err(|_| NotAHint::Malformed("its data is no object resource"))?;
    let generation = resource.generation.value().ok_or(NotAHint::Malformed("its generation is no number"))?;
    let traceparent = resource.metadata.unwrap_or_default().remove(TRACEPARENT);
    Ok(Hint { bucket: resource.bucket, name: resource.name, generation, traceparent, id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    const RESOURCE: &str = r#"{"kind":"storage#object","bucket":"b","name":"themes/a.csv","generation":"1712","size":"9","metadata":{"traceparent":"00-x"}}"#;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn hint(traceparent: Option<&str>, id: &str) -> Hint {
        Hint {
            bucket: "b".into(),
            name: "themes/a.csv".into(),
            generation: 1712,
            traceparent: traceparent.map(str::to_owned),
            id: Some(id.to_owned()),
        }
    }

    #[test]
    fn the_three_forms_say_the_same() {
        let event = headers(&[("ce-type", FINALIZED), ("ce-id", "7"), ("ce-specversion", "1.0")]);
        assert_eq!(read(&event, RESOURCE.as_bytes()), Ok(hint(Some("00-x"), "7")));

        let unwrapped = headers(&[("x-goog-pubsub-message-id", "7"), ("eventtype", OBJECT_FINALIZE)]);
        assert_eq!(read(&unwrapped, RESOURCE.as_bytes()), Ok(hint(Some("00-x"), "7")));

        let data = data_encoding::BASE64.encode(RESOURCE.as_bytes());
        let wrapped = serde_json::json!({"subscription": "s", "message": {"messageId": "7", "data": data, "attributes": {"eventType": OBJECT_FINALIZE}}});
        assert_eq!(read(&HeaderMap::new(), wrapped.to_string().as_bytes()), Ok(hint(Some("00-x"), "7")));

        let bare = serde_json::json!({"message": {"messageId": "7", "attributes": {"eventType": OBJECT_FINALIZE, "bucketId": "b", "objectId": "themes/a.csv", "objectGeneration": "1712"}}});
        assert_eq!(read(&HeaderMap::new(), bare.to_string().as_bytes()), Ok(hint(None, "7")));
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let event = headers(&[("ce-type", FINALIZED), ("ce-id", "7")]);
        let resource = r#"{"bucket":"b","name":"themes/a.csv","generation":1712,"metadata":null}"#;
        assert_eq!(read(&event, resource.as_bytes()), Ok(hint(None, "7")));
        let data = data_encoding::BASE64.encode(resource.as_bytes());
        let wrapped = serde_json::json!({"message": {"messageId": "7", "data": data, "attributes": null}});
        assert_eq!(read(&HeaderMap::new(), wrapped.to_string().as_bytes()), Ok(hint(None, "7")));
    }

    #[test]
    fn another_type_is_no_work() {
        let event = headers(&[("ce-type", "google.cloud.storage.object.v1.deleted")]);
        assert_eq!(read(&event, RESOURCE.as_bytes()), Err(NotAHint::OtherType));
        let deleted = serde_json::json!({"message": {"attributes": {"eventType": "OBJECT_DELETE"}}});
        assert_eq!(read(&HeaderMap::new(), deleted.to_string().as_bytes()), Err(NotAHint::OtherType));
    }

    #[test]
    fn what_is_in_no_form_is_told_so_and_never_panics() {
        let event = headers(&[("ce-type", FINALIZED)]);
        for body in
            ["", "{}", "[1]", "{\"bucket\":\"b\",\"name\":\"n\",\"generation\":\"x\"}", "\u{0}", "{\"message\":{}}"]
        {
            assert!(matches!(read(&event, body.as_bytes()), Err(NotAHint::Malformed(_))), "{body}");
            assert!(matches!(read(&HeaderMap::new(), body.as_bytes()), Err(NotAHint::Malformed(_))), "{body}");
        }
    }
}
