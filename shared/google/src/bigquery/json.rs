//! Arrow, as the Storage Read API sends it, to JSON. Exact: what a JSON number does not hold becomes a string.
//!
//! ```text
//! INT64                  number within ±2^53, beyond a string       DATE        "2026-11-21"
//! NUMERIC, BIGNUMERIC    string without needless zeros: "1.5"       TIME        "13:05:09" or "13:05:09.000123"
//! FLOAT64                number; "NaN", "Infinity", "-Infinity"     DATETIME    "2026-11-21T13:05:09", likewise
//! BOOL                   true or false                              TIMESTAMP   "2026-11-21T13:05:09.000000Z", always UTC
//! STRING, GEOGRAPHY      string (GEOGRAPHY: WKT)                    INTERVAL    "1-2 3 4:5:6.7": years-months days time
//! BYTES                  base64, padded                             RANGE       {"start": …, "end": …}; null = unbounded
//! JSON                   the value                                  ARRAY, STRUCT   nested; a NULL is null
//! ```

use arrow_array::cast::AsArray;
use arrow_array::temporal_conversions as time;
use arrow_array::types::*;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use serde_json::{Map, Number, Value};
use tasuki_relay::limits::{JSON_DEPTH_MAX, LINE_BYTES_MAX};
use tasuki_relay::ports::RowFault;

/// The largest integer up to which a 64-bit float, which many readers make of a JSON number, holds every one.
const EXACT: i64 = 1 << 53;
/// Where a field says which of BigQuery's types it is, and what it says of JSON.
const EXTENSION: &str = "ARROW:extension:name";
const JSON: &str = "google:sqlType:json";

/// The rows of a batch; columns named in `without` are left out. A row that cannot be used says why.
pub fn rows(batch: &RecordBatch, without: &[&str]) -> Vec<Result<Map<String, Value>, RowFault>> {
    let schema = batch.schema();
    let columns: Vec<(&Field, &dyn Array)> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| (field.as_ref(), column.as_ref()))
        .filter(|(field, _)| !without.contains(&field.name().as_str()))
        .collect();
    (0..batch.num_rows()).map(|at| row(&columns, at)).collect()
}

fn row(columns: &[(&Field, &dyn Array)], at: usize) -> Result<Map<String, Value>, RowFault> {
    let mut row = Map::new();
    for (field, column) in columns {
        let value = value(field, *column, at).map_err(|Unreadable(what)| RowFault {
            reason: "bad_value",
            message: format!("the column {:?} {what}", field.name()),
            key: None,
        })?;
        row.insert(field.name().clone(), value);
    }
    let fault = |reason, message| Err(RowFault { reason, message, key: None });
    let bytes = length(&row);
    if bytes > LINE_BYTES_MAX {
        return fault("too_long", format!("the row has {bytes} bytes as JSON; at most {LINE_BYTES_MAX} are allowed"));
    }
    if row.values().any(|value| !is_within(value, JSON_DEPTH_MAX - 1)) {
        return fault("too_deep", format!("the row is nested more than {JSON_DEPTH_MAX} deep"));
    }
    Ok(row)
}

/// Bytes as JSON.
fn length(row: &Map<String, Value>) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0 += text.len();
            Ok(text.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, row).expect("a map with string keys is JSON, and counting does not fail");
    count.0
}

fn is_within(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_within(item, depth - 1)),
        Value::Object(members) => depth > 0 && members.values().all(|member| is_within(member, depth - 1)),
        _ => true,
    }
}

/// Why a value cannot be given: the column "…".
struct Unreadable(&'static str);

const OUT_OF_RANGE: Unreadable = Unreadable("holds a date or time out of range");

fn value(field: &Field, column: &dyn Array, at: usize) -> Result<Value, Unreadable> {
    if column.is_null(at) {
        return Ok(Value::Null);
    }
    let text = |text: &str| match field.metadata().get(EXTENSION).map(String::as_str) {
        Some(JSON) => serde_json::from_str(text).map_err(|_| Unreadable("holds JSON that is nested too deep")),
        _ => Ok(Value::from(text)),
    };
    Ok(match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(column.as_boolean().value(at)),
        DataType::Int64 => integer(column.as_primitive::<Int64Type>().value(at)),
        DataType::Int32 => integer(column.as_primitive::<Int32Type>().value(at).into()),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(at)),
        DataType::Decimal128(..) => decimal(column.as_primitive::<Decimal128Type>().value_as_string(at)),
        DataType::Decimal256(..) => decimal(column.as_primitive::<Decimal256Type>().value_as_string(at)),
        DataType::Utf8 => text(column.as_string::<i32>().value(at))?,
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(at))?,
        DataType::Binary => base64(column.as_binary::<i32>().value(at)),
        DataType::LargeBinary => base64(column.as_binary::<i64>().value(at)),
        DataType::Date32 => date(column.as_primitive::<Date32Type>().value(at))?,
        DataType::Time64(TimeUnit::Microsecond) => time(column.as_primitive::<Time64MicrosecondType>().value(at))?,
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(at);
            if zone.is_some() { timestamp(micros)? } else { datetime(micros)? }
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            interval(column.as_primitive::<IntervalMonthDayNanoType>().value(at))
        }
        DataType::List(item) => array(item, column.as_list::<i32>().value(at).as_ref())?,
        DataType::LargeList(item) => array(item, column.as_list::<i64>().value(at).as_ref())?,
        DataType::Struct(fields) => {
            let members = fields.iter().zip(column.as_struct().columns());
            let member = |(field, column): (&std::sync::Arc<Field>, &arrow_array::ArrayRef)| {
                Ok((field.name().clone(), value(field, column.as_ref(), at)?))
            };
            Value::Object(members.map(member).collect::<Result<_, Unreadable>>()?)
        }
        _ => return Err(Unreadable("is of a type that is not read: CAST it in a query")),
    })
}

fn array(item: &Field, items: &dyn Array) -> Result<Value, Unreadable> {
    (0..items.len()).map(|at| value(item, items, at)).collect()
}

fn integer(number: i64) -> Value {
    if (-EXACT..=EXACT).contains(&number) { number.into() } else { number.to_string().into() }
}

/// JSON has no word for what is no number: BigQuery's own TO_JSON writes the same strings.
fn float(number: f64) -> Value {
    let word = || match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    };
    Number::from_f64(number).map_or_else(|| word().into(), Value::Number)
}

fn decimal(text: String) -> Value {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text.into(),
    }
}

fn base64(bytes: &[u8]) -> Value {
    data_encoding::BASE64.encode(bytes).into()
}

fn date(days: i32) -> Result<Value, Unreadable> {
    let date = time::date32_to_datetime(days).ok_or(OUT_OF_RANGE)?;
    Ok(date.format("%Y-%m-%d").to_string().into())
}

fn time(micros: i64) -> Result<Value, Unreadable> {
    let time = time::time64us_to_time(micros).ok_or(OUT_OF_RANGE)?;
    let format = if micros % 1_000_000 == 0 { "%H:%M:%S" } else { "%H:%M:%S%.6f" };
    Ok(time.format(format).to_string().into())
}

fn datetime(micros: i64) -> Result<Value, Unreadable> {
    let time = time::timestamp_us_to_datetime(micros).ok_or(OUT_OF_RANGE)?;
    let format = if micros % 1_000_000 == 0 { "%Y-%m-%dT%H:%M:%S" } else { "%Y-%m-%dT%H:%M:%S%.6f" };
    Ok(time.format(format).to_string().into())
}

fn timestamp(micros: i64) -> Result<Value, Unreadable> {
    let time = time::timestamp_us_to_datetime(micros).ok_or(OUT_OF_RANGE)?;
    Ok(time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into())
}

/// As BigQuery casts an INTERVAL to STRING: `[-]Y-M [-]D [-]H:M:S[.F]`.
fn interval(interval: arrow_buffer::IntervalMonthDayNano) -> Value {
    let sign = |negative: bool| if negative { "-" } else { "" };
    let (months, days, nanos) = (interval.months.unsigned_abs(), interval.days, interval.nanoseconds.unsigned_abs());
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:09}") };
    format!(
        "{}{}-{} {days} {}{}:{}:{}{}",
        sign(interval.months < 0),
        months / 12,
        months % 12,
        sign(interval.nanoseconds < 0),
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        fraction.trim_end_matches('0'),
    )
    .into()
}

#[cfg(test)]
mod tests;
