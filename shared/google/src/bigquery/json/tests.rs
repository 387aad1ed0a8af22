use super::*;
use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::*;
use arrow_buffer::{IntervalMonthDayNano, i256};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// The values of a column of this Arrow type; `extension` is what the field says of BigQuery's type.
fn values_of(column: impl Array + 'static, extension: Option<&str>) -> Vec<Value> {
    let metadata = extension.map(|name| (EXTENSION.to_owned(), name.to_owned()));
    let field = Field::new("c", column.data_type().clone(), true).with_metadata(HashMap::from_iter(metadata));
    let schema = Arc::new(arrow_schema::Schema::new(vec![field]));
    let batch = RecordBatch::try_new(schema, vec![Arc::new(column)]).unwrap();
    rows(&batch, &[]).into_iter().map(|row| row.unwrap()["c"].clone()).collect()
}

fn values(column: impl Array + 'static) -> Vec<Value> {
    values_of(column, None)
}

#[test]
fn integers_beyond_2_to_the_53_are_strings() {
    let numbers = [0, -1, EXACT, -EXACT, EXACT + 1, -EXACT - 1, i64::MAX, i64::MIN];
    let expected = json!([
        0,
        -1,
        9_007_199_254_740_992_i64,
        -9_007_199_254_740_992_i64,
        "9007199254740993",
        "-9007199254740993",
        "9223372036854775807",
        "-9223372036854775808"
    ]);
    assert_eq!(Value::Array(values(Int64Array::from_iter_values(numbers))), expected);
}

#[test]
fn decimals_are_exact_strings() {
    let numeric = Decimal128Array::from(vec![Some(1_500_000_000), Some(-20_000_000_000), Some(0), Some(1), None]);
    let numeric = numeric.with_precision_and_scale(38, 9).unwrap();
    assert_eq!(Value::Array(values(numeric)), json!(["1.5", "-20", "0", "0.000000001", null]));
    let big = i256::from_string(&format!("12{}", "3".repeat(38))).unwrap();
    let bignumeric = Decimal256Array::from(vec![Some(big)]).with_precision_and_scale(76, 38).unwrap();
    assert_eq!(values(bignumeric), [json!(format!("12.{}", "3".repeat(38)))]);
    let whole = Decimal128Array::from(vec![Some(100)]).with_precision_and_scale(10, 0).unwrap();
    assert_eq!(values(whole), [json!("100")]);
}

#[test]
fn floats_that_are_no_numbers_are_words() {
    let floats = Float64Array::from(vec![1.5, 0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!(Value::Array(values(floats)), json!([1.5, 0.0, "NaN", "Infinity", "-Infinity"]));
}

#[test]
fn words_bytes_and_truth_are_themselves() {
    assert_eq!(
        Value::Array(values(BooleanArray::from(vec![Some(true), Some(false), None]))),
        json!([true, false, null])
    );
    assert_eq!(Value::Array(values(StringArray::from(vec!["", "赤い\n\"ペン\""]))), json!(["", "赤い\n\"ペン\""]));
    assert_eq!(
        Value::Array(values(BinaryArray::from_vec(vec![b"", b"\x00\xff\x10", b"ab"]))),
        json!(["", "AP8Q", "YWI="])
    );
    assert_eq!(
        values_of(StringArray::from(vec!["POINT(1 2)"]), Some("google:sqlType:geography")),
        [json!("POINT(1 2)")]
    );
}

#[test]
fn dates_and_times_are_iso_and_timestamps_rfc_3339_in_utc() {
    assert_eq!(
        Value::Array(values(Date32Array::from(vec![0, 20_778, -719_162]))),
        json!(["1970-01-01", "2026-11-21", "0001-01-01"])
    );
    let times = Time64MicrosecondArray::from(vec![0, 47_109_000_123, 86_399_999_999]);
    assert_eq!(Value::Array(values(times)), json!(["00:00:00", "13:05:09.000123", "23:59:59.999999"]));
    let moments = vec![1_795_266_309_000_123, 1_795_266_309_000_000, -1];
    let datetimes = TimestampMicrosecondArray::from(moments.clone());
    let expected = json!(["2026-11-21T13:05:09.000123", "2026-11-21T13:05:09", "1969-12-31T23:59:59.999999"]);
    assert_eq!(Value::Array(values(datetimes)), expected);
    let timestamps = TimestampMicrosecondArray::from(moments).with_timezone("UTC");
    let expected = json!(["2026-11-21T13:05:09.000123Z", "2026-11-21T13:05:09.000000Z", "1969-12-31T23:59:59.999999Z"]);
    assert_eq!(Value::Array(values(timestamps)), expected);
}

#[test]
fn intervals_are_written_as_bigquery_casts_them() {
    let interval = |months, days, nanos| IntervalMonthDayNano::new(months, days, nanos);
    let hour = 3_600_000_000_000;
    let column = IntervalMonthDayNanoArray::from(vec![
        interval(14, 3, 4 * hour + 300_000_000_000 + 6_700_000_000),
        interval(-14, -3, -hour),
        interval(0, 0, 0),
    ]);
    assert_eq!(Value::Array(values(column)), json!(["1-2 3 4:5:6.7", "-1-2 -3 -1:0:0", "0-0 0 0:0:0"]));
}

#[test]
fn json_is_its_value_and_only_where_the_field_says_so() {
    let texts = || StringArray::from(vec![Some(r#"{"a":[1,null,"x"]}"#), Some("null"), None]);
    assert_eq!(Value::Array(values_of(texts(), Some(JSON))), json!([{"a": [1, null, "x"]}, null, null]));
    assert_eq!(values(texts())[0], json!(r#"{"a":[1,null,"x"]}"#));
}

#[test]
fn arrays_and_structs_nest_and_nulls_stay() {
    let mut lists = ListBuilder::new(Int64Builder::new());
    lists.append_value([Some(1), None, Some(EXACT + 1)]);
    lists.append_value([]);
    lists.append_null();
    let lists: ArrayRef = Arc::new(lists.finish());
    assert_eq!(Value::Array(values(lists.as_list::<i32>().clone())), json!([[1, null, "9007199254740993"], [], null]));
    let field = |name: &str, column: &ArrayRef| Arc::new(Field::new(name, column.data_type().clone(), true));
    let start: ArrayRef = Arc::new(Date32Array::from(vec![Some(0), None, None]));
    let structs = StructArray::from(vec![(field("start", &start), start), (field("l", &lists), lists)]);
    let expected = json!([
        {"start": "1970-01-01", "l": [1, null, "9007199254740993"]}, {"start": null, "l": []}, {"start": null, "l": null}
    ]);
    assert_eq!(Value::Array(values(structs)), expected);
}

fn fault_of(text: String) -> Option<&'static str> {
    let field = Field::new("c", DataType::Utf8, true).with_metadata(HashMap::from([(EXTENSION.into(), JSON.into())]));
    let schema = Arc::new(arrow_schema::Schema::new(vec![field]));
    let batch = RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(vec![text]))]).unwrap();
    rows(&batch, &[])[0].as_ref().err().map(|fault| fault.reason)
}

#[test]
fn a_row_may_be_as_long_and_as_deep_as_a_line_of_a_file_and_no_more() {
    let around = r#"{"c":""}"#.len();
    assert_eq!(fault_of(format!("\"{}\"", "x".repeat(LINE_BYTES_MAX - around))), None);
    assert_eq!(fault_of(format!("\"{}\"", "x".repeat(LINE_BYTES_MAX - around + 1))), Some("too_long"));
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(fault_of(nested(JSON_DEPTH_MAX - 1)), None); // the row itself is 1 deep
    assert_eq!(fault_of(nested(JSON_DEPTH_MAX)), Some("too_deep"));
    assert_eq!(fault_of(nested(400)), Some("bad_value"));
}

#[test]
fn columns_can_be_left_out() {
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let schema = Arc::new(arrow_schema::Schema::new(vec![field("a"), field("b")]));
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_new(schema, vec![column.clone(), column]).unwrap();
    assert_eq!(rows(&batch, &["b"]), [Ok(json!({"a": 1}).as_object().unwrap().clone())]);
}

#[test]
fn a_type_that_is_not_known_fails_the_row_by_its_column() {
    let schema = Arc::new(arrow_schema::Schema::new(vec![Field::new("c", DataType::UInt8, true)]));
    let batch = RecordBatch::try_new(schema, vec![Arc::new(UInt8Array::from(vec![1]))]).unwrap();
    let fault = rows(&batch, &[]).remove(0).unwrap_err();
    assert_eq!((fault.reason, fault.message.contains("\"c\"")), ("bad_value", true));
}
