use hyper::Method;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use tasuki_relay::ports::Generation;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Writes an object in one request.
    Insert,
    /// Opens a resumable upload.
    Open,
    /// Sends a resumable upload's bytes.
    Append,
    /// Asks how far a resumable upload is.
    Progress,
    /// Reads a body, or a range of it.
    Read,
    /// Reads what is known of an object.
    Stat,
    /// A page of names.
    List,
    /// Removes an object.
    Remove,
    /// Makes a bucket.
    MakeBucket,
}

/// A request, as far as its first lines tell it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) op: Op,
    pub(super) bucket: String,
    /// The object's name; empty where the request has none.
    pub(super) name: String,
    query: BTreeMap<String, String>,
}

impl Call {
    /// `None` for a request that Tasuki and Google's client do not send.
    pub(super) fn read(head: &Parts) -> Option<Call> {
        let query: BTreeMap<_, _> = query(head.uri.query().unwrap_or(""))?;
        let path: Vec<String> = head.uri.path().trim_matches('/').split('/').map(decoded).collect::<Option<_>>()?;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let given = |name: &str| query.get(name).map(String::as_str);
        let (op, bucket, name) = match (head.method.as_str(), path.as_slice()) {
            ("POST", ["upload", "storage", "v1", "b", bucket, "o"]) => match given("uploadType")? {
                "multipart" => (Op::Insert, *bucket, given("name")?),
                "resumable" => (Op::Open, *bucket, given("name")?),
                _ => return None,
            },
            ("PUT", ["upload", "storage", "v1", "b", bucket, "o"]) => {
                let asks = head.headers.get("content-range")?.to_str().ok()? == "bytes */*";
                (if asks { Op::Progress } else { Op::Append }, *bucket, "")
            }
            ("GET", ["storage", "v1", "b", bucket, "o", name]) => match given("alt") {
                Some("media") => (Op::Read, *bucket, *name),
                None => (Op::Stat, *bucket, *name),
                Some(_) => return None,
            },
            ("GET", ["storage", "v1", "b", bucket, "o"]) => (Op::List, *bucket, ""),
            ("DELETE", ["storage", "v1", "b", bucket, "o", name]) => (Op::Remove, *bucket, *name),
            ("POST", ["storage", "v1", "b"]) => (Op::MakeBucket, "", ""),
            _ => return None,
        };
        let (bucket, name) = (bucket.to_owned(), name.to_owned());
        // A parameter that is not obeyed would be worse than one that is refused.
        query.keys().all(|key| known(op).contains(&key.as_str())).then_some(Call { op, bucket, name, query })
    }

    /// A parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A parameter that is a number; 400 if it is none.
    pub(super) fn number(&self, name: &str) -> Result<Option<Generation>, hyper::StatusCode> {
        self.get(name).map(str::parse).transpose().map_err(|_| hyper::StatusCode::BAD_REQUEST)
    }
}

/// The parameters that a request of this kind may have.
fn known(op: Op) -> &'static [&'static str] {
    match op {
        Op::Insert | Op::Open => &["uploadType", "name", "ifGenerationMatch"],
        Op::Append | Op::Progress => &["uploadType", "upload_id"],
        Op::Read => &["alt", "generation"],
        Op::Stat => &["fields", "generation"],
        Op::List => &["fields", "prefix", "startOffset", "maxResults", "pageToken"],
        Op::Remove => &["ifGenerationMatch"],
        Op::MakeBucket => &["project"],
    }
}

/// How a request is named to whoever sent one that is not answered.
pub(super) fn named(method: &Method, uri: &hyper::Uri) -> String {
    format!("{method} {uri}")
}

fn query(text: &str) -> Option<BTreeMap<String, String>> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // In a query, unlike in a path, '+' is a space.
            Some((decoded(&name.replace('+', " "))?, decoded(&value.replace('+', " "))?))
        })
        .collect()
}

fn decoded(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}
