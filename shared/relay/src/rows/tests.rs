use super::*;
use crate::clock::Millis;
use crate::limits::{COLUMNS_MAX, JSON_DEPTH_MAX, LINE_BYTES_MAX};
use crate::ports::{Generation, Object};
use flate2::{Compression, write::GzEncoder};
use futures::FutureExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Write;

const RUN: &str = "raaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Nothing here ever waits.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

/// One inbox object, of which the adapter has the first `there` bytes.
struct OneFile {
    body: Bytes,
    there: usize,
    gone: bool,
}

#[async_trait]
impl Objects for OneFile {
    async fn read_range(
        &self,
        _: Bucket,
        _: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        let from = (offset as usize).min(self.there);
        let range = self.body.slice(from..(from + most).min(self.there));
        Ok((generation == 1 && !self.gone).then_some(range))
    }
    async fn create(&self, _: Bucket, _: &str, _: Bytes) -> Result<Meta, ObjectsError> {
        Err(ObjectsError::Denied("read only".into()))
    }
    async fn replace(&self, _: Bucket, _: &str, _: Bytes, _: Generation) -> Result<Meta, ObjectsError> {
        Err(ObjectsError::Denied("read only".into()))
    }
    async fn remove(&self, _: Bucket, _: &str, _: Option<Generation>) -> Result<(), ObjectsError> {
        Err(ObjectsError::Denied("read only".into()))
    }
    async fn stat(&self, _: Bucket, _: &str) -> Result<Option<Meta>, ObjectsError> {
        Err(ObjectsError::Denied("not needed".into()))
    }
    async fn read(&self, _: Bucket, _: &str, _: Option<Generation>) -> Result<Option<Object>, ObjectsError> {
        Err(ObjectsError::Denied("not needed: files are read in ranges".into()))
    }
    async fn list(&self, _: Bucket, _: &str, _: Option<&str>, _: usize) -> Result<Vec<Meta>, ObjectsError> {
        Err(ObjectsError::Denied("not needed".into()))
    }
}

fn whole(body: &[u8]) -> OneFile {
    OneFile { body: Bytes::copy_from_slice(body), there: body.len(), gone: false }
}

fn input(file: &str, size: usize) -> Meta {
    Meta { name: format!("p/{file}"), generation: 1, created: Millis(0), size: size as u64 }
}

fn read_all(objects: OneFile, file: &str, chunk: usize, caps: Caps) -> Result<Vec<SourceRow>, RowsError> {
    let input = input(file, objects.body.len());
    let rows = ObjectRows { objects: Arc::new(objects), chunk, caps };
    block_on(async {
        let mut stream = rows.open(&input).await?;
        let mut all = Vec::new();
        while let Some(batch) = stream.next().await? {
            assert!(!batch.is_empty());
            all.extend(batch);
        }
        assert_eq!(stream.next().await, Ok(None), "the end is the end");
        Ok(all)
    })
}

fn rows_of(file: &str, body: impl AsRef<[u8]>) -> Result<Vec<SourceRow>, RowsError> {
    read_all(whole(body.as_ref()), file, CHUNK_BYTES, CAPS)
}

fn refusal(file: &str, body: impl AsRef<[u8]>) -> String {
    match rows_of(file, body) {
        Err(RowsError::Refused(why)) => why,
        other => panic!("{file} was not refused: {other:?}"),
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(body).unwrap();
    packed.finish().unwrap()
}

fn values(rows: &[SourceRow]) -> Vec<Value> {
    rows.iter().map(|row| row.row.clone().map_or(Value::Null, Value::Object)).collect()
}

/// The reason of a file's only fault.
fn reason(file: &str, body: impl AsRef<[u8]>) -> Option<&'static str> {
    let rows = rows_of(file, body).unwrap();
    let mut faults = rows.iter().filter_map(|row| row.row.as_ref().err());
    let reason = faults.next().map(|fault| fault.reason);
    assert_eq!(faults.next(), None);
    reason
}

/// An object nested `depth` deep.
fn nested(depth: usize) -> String {
    format!("{{\"a\":{}0{}}}\n", "[".repeat(depth - 1), "]".repeat(depth - 1))
}

#[test]
fn json_lines_are_rows_and_blank_lines_are_none() {
    let rows = rows_of("x.jsonl", "\n{\"a\":1}\n  \r\n{\"b\":[true,null,\"é\",-1.5,{\"c\":{}}]}").unwrap();
    assert_eq!(values(&rows), [json!({"a": 1}), json!({"b": [true, null, "é", -1.5, {"c": {}}]})]);
    assert_eq!(rows.iter().map(|row| row.place.as_str()).collect::<Vec<_>>(), ["line 2", "line 4"]);
}

#[test]
fn csv_records_are_rows_of_strings() {
    let text = "\nsku,text\n1,\"a, \"\"b\"\"\nc\"\n\n   \n2,\n";
    let rows = rows_of("x.csv", text).unwrap();
    assert_eq!(values(&rows), [json!({"sku": "1", "text": "a, \"b\"\nc"}), json!({"sku": "2", "text": ""})]);
    assert_eq!(rows.iter().map(|row| row.place.as_str()).collect::<Vec<_>>(), ["line 3", "line 7"]);
}

#[test]
fn files_without_rows_have_none() {
    assert_eq!(rows_of("x.jsonl", ""), Ok(vec![]));
    assert_eq!(rows_of("x.jsonl", "\n \n"), Ok(vec![]));
    assert_eq!(rows_of("x.csv", "sku,text"), Ok(vec![]));
    assert_eq!(rows_of("x.jsonl.gz", gzip(b"")), Ok(vec![]));
}

#[test]
fn a_bad_row_fails_alone_and_says_where() {
    let lines: [(&[u8], &str, &str); 9] = [
        (b"{\"a\":1,}", "bad_json", "column 8"),
        (b"{\"a\":1} SECRET", "bad_json", "column 9"),
        (b"[1]", "bad_json", "no object"),
        (b"\"SECRET\"", "bad_json", "no object"),
        (b"{\"a\":\"\\ud800\"}", "bad_json", "column"),
        (b"{\"SECRET\":1,\"SECRET\":2}", "repeated_name", "column"),
        (b"{\"a\":[{\"SECRET\":1,\"\\u0053ECRET\":2}]}", "repeated_name", "column"),
        (b"{\"a\":\"\xff\"}", "bad_utf8", "byte 7"),
        (b"{\"a\":1e999}", "bad_json", "column"),
    ];
    for (line, reason, place) in lines {
        let rows = rows_of("x.jsonl", [b"{\"ok\":1}\n\n", line, b"\n{\"ok\":2}"].concat()).unwrap();
        assert_eq!(values(&rows), [json!({"ok": 1}), Value::Null, json!({"ok": 2})]);
        let fault = rows[1].row.as_ref().unwrap_err();
        assert_eq!((fault.reason, &rows[1].place[..]), (reason, "line 3"), "{fault:?}");
        assert!(fault.message.starts_with("line 3: ") && fault.message.contains(place), "{fault:?}");
        assert!(!fault.message.contains("SECRET"), "{fault:?}");
    }
}

#[test]
fn a_bad_record_fails_alone_and_says_where() {
    let cases: [(&[u8], &str, &str); 4] = [
        (b"SECRET", "bad_csv", "1 fields, but the header has 2"),
        (b"SECRET,2,3", "bad_csv", "3 fields, but the header has 2"),
        (b"SECRET,\xff", "bad_utf8", "field 2"),
        (b"SECRET\xc3,\xa9", "bad_utf8", "field 1"),
    ];
    for (record, reason, what) in cases {
        let rows = rows_of("x.csv", [b"a,b\n1,2\n\n", record, b"\n3,4\n"].concat()).unwrap();
        assert_eq!(values(&rows), [json!({"a": "1", "b": "2"}), Value::Null, json!({"a": "3", "b": "4"})]);
        let fault = rows[1].row.as_ref().unwrap_err();
        assert_eq!((fault.reason, &rows[1].place[..]), (reason, "line 4"), "{fault:?}");
        assert!(fault.message.contains(what) && !fault.message.contains("SECRET"), "{fault:?}");
    }
    assert_eq!(reason("x.csv", "a,b\n1,2\n3,\"4\n"), Some("bad_csv"), "a quote that is never closed");
}

#[test]
fn a_line_may_have_the_most_bytes_and_no_more() {
    for (over, expected) in [(-1, None), (0, None), (1, Some("too_long"))] {
        let bytes = LINE_BYTES_MAX.strict_add_signed(over);
        let line = format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        for end in ["", "\n", "\r\n", "\n{}\n"] {
            assert_eq!(reason("x.jsonl", format!("{line}{end}")), expected, "{over} {end:?}");
        }
        let record = "x".repeat(bytes - 1);
        for end in ["", "\n", "\r\n1,2\n"] {
            assert_eq!(reason("x.csv", format!("a,b\ny,{record}{end}")), expected, "{over} {end:?}");
        }
    }
    let rows = rows_of("x.jsonl", format!("{{}}\n{}\n{{\"a\":1}}", "x".repeat(5 * LINE_BYTES_MAX))).unwrap();
    assert_eq!(values(&rows), [json!({}), Value::Null, json!({"a": 1})]);
}

#[test]
fn a_row_may_nest_to_the_limit_and_no_deeper() {
    for (depth, expected) in
        [(JSON_DEPTH_MAX - 1, None), (JSON_DEPTH_MAX, None), (JSON_DEPTH_MAX + 1, Some("too_deep"))]
    {
        assert_eq!(reason("x.jsonl", nested(depth)), expected);
        let retry = format!("{{\"parent\":\"{RUN}\"}}\n{{\"ordinal\":1,\"row\":{}}}", nested(depth).trim());
        assert_eq!(reason("x.retry.jsonl", retry), expected);
    }
    assert_eq!(reason("x.jsonl", nested(100_000)), Some("too_deep"));
}

#[test]
fn a_row_may_have_the_most_columns_and_no_more() {
    for (columns, many) in [(COLUMNS_MAX - 1, false), (COLUMNS_MAX, false), (COLUMNS_MAX + 1, true)] {
        let names: Vec<_> = (0..columns).map(|at| format!("c{at}")).collect();
        let line = names.iter().map(|name| format!("\"{name}\":1")).collect::<Vec<_>>().join(",");
        assert_eq!(reason("x.jsonl", format!("{{{line}}}")), many.then_some("too_many_columns"));
        let csv = format!("{}\n{}\n", names.join(","), vec!["1"; columns].join(","));
        assert_eq!(rows_of("x.csv", csv).is_err(), many);
    }
    let wide = format!("a,b\n{}\n1,2\n", ",".repeat(5 * COLUMNS_MAX));
    let rows = rows_of("x.csv", wide).unwrap();
    assert!(rows[0].row.as_ref().unwrap_err().message.contains("5001 fields"));
    assert_eq!(values(&rows[1..]), [json!({"a": "1", "b": "2"})]);
}

#[test]
fn a_suffix_that_is_not_read_is_refused_with_the_ones_that_are() {
    for file in ["x", "x.parquet", "x.json", "x.tsv", "x.xlsx", "x.gz", "x.jsonl.zip", "jsonl"] {
        assert!(suffix_problem(file).is_some_and(|why| why.starts_with(file) && why.contains(".csv.gz")), "{file}");
        assert_eq!(suffix_problem(file), Some(refusal(file, "{}")));
    }
    for file in ["x.jsonl", "X.CSV", "x.JsonL.gz", "x.csv.GZ", "x.retry.jsonl"] {
        assert_eq!(suffix_problem(file), None);
    }
    assert!(suffix_problem("x.retry.jsonl.gz").is_some());
}

#[test]
fn a_file_that_holds_something_else_is_refused_with_the_mend() {
    let utf16: Vec<u8> = "{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: [(&str, Vec<u8>, &str); 20] = [
        ("p.jsonl", b"sku,text\n1,a".into(), "p.jsonl holds CSV: rename it to p.csv"),
        ("p.jsonl", b"\xef\xbb\xbf\"sku\",\"text\"\n".into(), "p.jsonl holds CSV: rename it to p.csv"),
        ("P.JSONL.gz", gzip(b"a;b\n"), "P.JSONL.gz holds CSV: rename it to P.csv.gz"),
        ("p.csv", b"\n {\"a\":1}\n".into(), "p.csv holds JSON lines: rename it to p.jsonl"),
        ("p.csv", gzip(b"a,b\n"), "p.csv holds gzip data: rename it to p.csv.gz"),
        ("p.csv", gzip(b"{}\n"), "p.csv holds gzip data and JSON lines: rename it to p.jsonl.gz"),
        ("p.jsonl.gz", b"{}\n".into(), "p.jsonl.gz holds no gzip data: rename it to p.jsonl"),
        ("p.jsonl.gz", b"".into(), "p.jsonl.gz holds no gzip data: rename it to p.jsonl"),
        ("p.jsonl", b"[{\"a\":1},\n{}]".into(), "holds one JSON array: write one object per line"),
        ("p.jsonl", b"{\n \"a\": 1\n}".into(), "over several lines: write one object per line"),
        ("p.jsonl", utf16.clone(), "holds UTF-16: save it as UTF-8"),
        ("p.csv", b"\xff\xfea\0,\0b\0".into(), "holds UTF-16: save it as UTF-8"),
        ("p.jsonl.gz", gzip(&utf16), "holds UTF-16: save it as UTF-8"),
        ("p.csv", b"PAR1....".into(), "holds Parquet"),
        ("p.csv", b"PK\x03\x04....".into(), "Excel"),
        ("p.csv.gz", gzip(&gzip(b"a,b")), "gzip twice"),
        ("p.retry.jsonl", gzip(b"{}"), "`tasuki retry`"),
        ("p.retry.jsonl", b"{\"a\":1}\n".into(), "`tasuki retry`"),
        ("p.retry.jsonl", b"".into(), "`tasuki retry`"),
        ("p.csv", b"".into(), "has no header"),
    ];
    for (file, body, expected) in cases {
        let why = refusal(file, body);
        assert!(why.starts_with(file) && why.contains(expected), "{why}");
    }
}

#[test]
fn a_header_that_does_not_name_every_column_once_is_refused() {
    let cases = [
        ("a,,c\n", "column 2"),
        ("a, ,c\n", "column 2"),
        ("SECRET,b,SECRET\n", "columns 1 and 3"),
        ("a;b\n1;2\n", "semicolons"),
        ("a\tb\n", "tabs"),
        ("\n\n", "no header"),
        ("a,\"b\n1,2\n", "never closed"),
    ];
    for (text, expected) in cases {
        let why = refusal("p.csv", text);
        assert!(why.starts_with("p.csv ") && why.contains(expected) && !why.contains("SECRET"), "{why}");
    }
    assert!(refusal("p.csv", b"a,\xff\n").contains("not UTF-8 in column 2"));
    assert_eq!(values(&rows_of("p.csv", "a;b,c\n1,2").unwrap()), [json!({"a;b": "1", "c": "2"})]);
    assert_eq!(values(&rows_of("p.csv", "a\n1\n\n ").unwrap()), [json!({"a": "1"}), json!({"a": " "})]);
}

#[test]
fn gzip_that_is_cut_off_or_damaged_is_refused_with_the_place() {
    let packed = gzip("{\"a\":1}\n".repeat(500).as_bytes());
    for cut in 2..packed.len() {
        let why = refusal("p.jsonl.gz", &packed[..cut]);
        assert!(why.contains(&format!("byte {cut} with its gzip data cut off")), "{why}");
    }
    let mut damaged = packed.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(refusal("p.jsonl.gz", damaged).contains("damaged"));
    assert!(refusal("p.jsonl.gz", [&packed[..], b"junk after it"].concat()).contains("gzip data"));
}

#[test]
fn whole_files_may_reach_their_caps_and_no_more() {
    let body = "{}\n".repeat(100);
    let read = |file, body: &[u8], caps| read_all(whole(body), file, 7, caps).map(|rows| rows.len());
    for (over, is_read) in [(-1, false), (0, true), (1, true)] {
        let most = |exact: u64| exact.strict_add_signed(over);
        let caps = Caps { rows: most(100), ..CAPS };
        assert_eq!(read("x.jsonl", body.as_bytes(), caps).is_ok(), is_read);
        let caps = Caps { bytes: most(300), ..CAPS };
        assert_eq!(read("x.jsonl", body.as_bytes(), caps).is_ok(), is_read);
        assert_eq!(read("x.jsonl.gz", &gzip(body.as_bytes()), caps).is_ok(), is_read);
    }
    let bomb = gzip(&vec![b'\n'; 1 << 20]);
    let caps = Caps { ratio_from_bytes: 1 << 20, ..CAPS };
    assert!(matches!(read("x.jsonl.gz", &bomb, caps), Err(RowsError::Refused(why)) if why.contains("200 times")));
    assert_eq!(read("x.jsonl.gz", &bomb, Caps { ratio_from_bytes: (1 << 20) + 1, ..CAPS }), Ok(0));
}

#[test]
fn a_short_read_is_tried_again_and_never_a_short_file() {
    let body = Bytes::from("{\"a\":1}\n".repeat(2_000));
    for there in [0, 8, 4_096, 8_000, body.len() - 1] {
        let objects = OneFile { body: body.clone(), there, gone: false };
        let read = read_all(objects, "x.jsonl", 1_000, CAPS);
        assert!(matches!(read, Err(RowsError::Unknown(_))), "{there}: {read:?}");
    }
    let gone = OneFile { body: body.clone(), there: body.len(), gone: true };
    assert_eq!(read_all(gone, "x.jsonl", 1_000, CAPS), Err(RowsError::Gone));
}

#[test]
fn a_retry_file_gives_its_rows_back_with_their_places() {
    let text = format!(
        "{{\"parent\":\"{RUN}\"}}\n{{\"ordinal\":17,\"row\":{{\"a\":1}}}}\n{{\"a\":1}}\n{{\"ordinal\":3,\"row\":{{}}}}\n"
    );
    let rows = rows_of("x.retry.jsonl", &text).unwrap();
    assert_eq!(values(&rows), [json!({"a": 1}), Value::Null, json!({})]);
    let places: Vec<_> = rows.iter().map(|row| row.place.clone()).collect();
    assert_eq!(places, [format!("row 17 of run {RUN}"), "line 3".to_owned(), format!("row 3 of run {RUN}")]);
    let parent = |file, text: &str| block_on(retry_parent(&whole(text.as_bytes()), &input(file, text.len())));
    assert_eq!(parent("x.retry.jsonl", &text), Ok(Some(Parent { parent: RUN.parse().unwrap() })));
    assert_eq!(parent("x.jsonl", &text), Ok(None));
    assert!(matches!(parent("x.retry.jsonl", "{\"parent\":\"r1\"}\n"), Err(RowsError::Refused(_))));
}

/// Lines good and bad, without their ends.
fn lines() -> impl Strategy<Value = Vec<&'static str>> {
    let line = prop::sample::select(vec![
        "",
        " ",
        "{}",
        "{\"a\":\"é製\"}",
        "{\"a\":1,\"a\":2}",
        "oops",
        "1,2",
        "\"a, b\",\"c \"\"d\"\"\"",
        ",",
        "é,製",
        "1,2,3",
    ]);
    prop::collection::vec(line, 0..12)
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_rows(lines in lines(), chunk in 1..60usize, crlf: bool, last: bool, mark: bool, split in 0..9usize) {
        for (suffix, first) in [("jsonl", "{\"first\":1}"), ("csv", "x,y")] {
            let end = if crlf { "\r\n" } else { "\n" };
            let plain = [&[first], &lines[..]].concat();
            let text = [if mark { "\u{feff}" } else { "" }, &plain.join(end), if last { end } else { "" }].concat();
            let expected = rows_of(&format!("x.{suffix}"), plain.join("\n")).unwrap();
            let file = format!("x.{suffix}");
            prop_assert_eq!(&read_all(whole(text.as_bytes()), &file, chunk, CAPS).unwrap(), &expected);
            let (one, two) = text.as_bytes().split_at(split.min(text.len()));
            let packed = [gzip(one), gzip(two)].concat();
            prop_assert_eq!(&read_all(whole(&packed), &format!("{file}.gz"), chunk, CAPS).unwrap(), &expected);
        }
    }

    #[test]
    fn csv_reads_back_what_was_written(fields in prop::collection::vec(("[a-z\",; \r\n\té製]{0,6}", "[a-z\",\r\né製]{0,6}"), 0..8), chunk in 1..40usize) {
        let quoted = |field: &str| format!("\"{}\"", field.replace('"', "\"\""));
        let text: String = fields.iter().map(|(a, b)| format!("{},{}\r\n", quoted(a), quoted(b))).collect();
        let rows = read_all(whole(format!("a,b\n{text}").as_bytes()), "x.csv", chunk, CAPS).unwrap();
        let expected: Vec<_> = fields.iter().map(|(a, b)| json!({"a": a, "b": b})).collect();
        prop_assert_eq!(values(&rows), expected);
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_quote_them(body in prop::collection::vec(any::<u8>(), 0..200), suffix in prop::sample::select(vec!["jsonl", "csv", "jsonl.gz", "csv.gz", "retry.jsonl"])) {
        let _ = rows_of(&format!("x.{suffix}"), body);
    }
}
