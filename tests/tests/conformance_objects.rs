//! Every adapter of objects and of rows does what its port promises.

use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;
use tasuki::folder::FolderObjects;
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::names::Bucket;
use tasuki_relay::ports::{Meta, Objects, RowFault, Rows, RowsError, SourceRow};
use tasuki_relay::rows::ObjectRows;
use tasuki_tests::memory::{MemoryObjects, MemoryRows};
use tasuki_tests::storage_server::{StorageServer, fresh_buckets, make_buckets, objects_on};
use tasuki_tests::suites::{objects_suite, rows_suite};

#[tokio::test]
async fn objects_in_memory_conform() {
    objects_suite(&MemoryObjects::new(Clock::system())).await.unwrap();
}

#[tokio::test]
async fn objects_in_a_folder_conform() {
    let dir = tempfile::tempdir().unwrap();
    objects_suite(&FolderObjects::open(dir.path(), Clock::system()).unwrap()).await.unwrap();
}

/// On the stand-in server; `TASUKI_TEST_STORAGE_HOST` (`host:port`, without TLS) names another server that has Cloud
/// Storage's JSON API, such as Google's storage-testbench.
#[tokio::test]
async fn objects_on_cloud_storage_conform() {
    let stand_in = StorageServer::start(&[]).await.unwrap();
    let host = std::env::var("TASUKI_TEST_STORAGE_HOST").ok().filter(|host| !host.is_empty());
    let (host, buckets) = (host.unwrap_or_else(|| stand_in.host()), fresh_buckets());
    make_buckets(&host, &buckets).await.unwrap();
    objects_suite(&objects_on(&host, &buckets).await.unwrap()).await.unwrap();
}

/// A few thousand rows, so that a file has several chunks; every 700th is none.
fn source() -> (Vec<SourceRow>, String) {
    let mut text = String::new();
    let rows = (1..=5_000u64).map(|line| {
        let place = format!("line {line}");
        let (row, json) = match line % 700 {
            0 => (Err(fault(&place)), "null".to_owned()),
            _ => {
                let value = serde_json::json!({"sku": line, "text": "words ".repeat(80)});
                let Value::Object(row) = value.clone() else { unreachable!() };
                (Ok(row), value.to_string())
            }
        };
        text += &json;
        text.push('\n');
        SourceRow { place, row }
    });
    (rows.collect(), text)
}

fn fault(place: &str) -> RowFault {
    let message = format!("{place}: JSON, but no object: write one JSON object on one line");
    RowFault { reason: "bad_json", message, key: None }
}

#[tokio::test]
async fn rows_in_memory_conform() {
    let input = Meta { name: "p/x".into(), generation: 1, created: Millis(0), size: 0 };
    for rows in [source().0, Vec::new()] {
        rows_suite(&MemoryRows::new(rows.clone()), &input, &rows).await.unwrap();
    }
}

#[tokio::test]
async fn rows_of_objects_conform_in_every_store() {
    let dir = tempfile::tempdir().unwrap();
    let (stand_in, buckets) = (StorageServer::start(&[]).await.unwrap(), fresh_buckets());
    make_buckets(&stand_in.host(), &buckets).await.unwrap();
    let stores: [Arc<dyn Objects>; 3] = [
        Arc::new(MemoryObjects::new(Clock::system())),
        Arc::new(FolderObjects::open(dir.path(), Clock::system()).unwrap()),
        Arc::new(objects_on(&stand_in.host(), &buckets).await.unwrap()),
    ];
    let (expected, text) = source();
    assert!(text.len() > 2 << 20, "several chunks");
    for objects in stores {
        let input = objects.create(Bucket::Inbox, "p/x.jsonl", Bytes::from(text.clone())).await.unwrap();
        let rows = ObjectRows::new(objects.clone());
        rows_suite(&rows, &input, &expected).await.unwrap();
        let empty = objects.create(Bucket::Inbox, "p/empty.jsonl", Bytes::new()).await.unwrap();
        rows_suite(&rows, &empty, &[]).await.unwrap();
        let stale = Meta { generation: input.generation + 1, ..input };
        assert_eq!(rows.open(&stale).await.err(), Some(RowsError::Gone));
    }
}
