//! The objects of Google Cloud where things go wrong, on the stand-in server.

use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tasuki_google::objects::{Buckets, GoogleObjects};
use tasuki_relay::names::Bucket;
use tasuki_relay::ports::{Objects, ObjectsError, Rows};
use tasuki_relay::rows::ObjectRows;
use tasuki_relay::write::{Written, create_once};
use tasuki_tests::storage_server::{
    Fault, On, Op, StorageServer, fresh_buckets, make_buckets, objects_on, traced_objects_on,
};

const NAME: &str = "run/00000001.ndjson";

/// More than any call is tried.
const ALWAYS: u32 = 1_000;

struct World {
    server: StorageServer,
    buckets: Buckets,
    objects: GoogleObjects,
}

async fn world() -> World {
    let (server, buckets) = (StorageServer::start(&[]).await.expect("a free port"), fresh_buckets());
    make_buckets(&server.host(), &buckets).await.expect("no bucket is there yet");
    let objects = objects_on(&server.host(), &buckets).await.expect("a client");
    World { server, buckets, objects }
}

impl World {
    async fn create(&self, body: &'static str) -> Result<(), ObjectsError> {
        self.objects.create(Bucket::Shards, NAME, Bytes::from(body)).await.map(drop)
    }

    async fn create_once(&self, body: impl Into<Bytes>) -> Result<Written, ObjectsError> {
        create_once(&self.objects, Bucket::Shards, NAME, body.into()).await
    }

    async fn read(&self) -> Result<Option<Bytes>, ObjectsError> {
        Ok(self.objects.read(Bucket::Shards, NAME, None).await?.map(|object| object.body))
    }

    /// What the server has, whatever the adapter says.
    fn there(&self) -> Option<Bytes> {
        self.server.body(&self.buckets.shards, NAME)
    }
}

fn unknown<T: std::fmt::Debug>(result: Result<T, ObjectsError>) -> bool {
    matches!(result, Err(ObjectsError::Unknown(_)))
}

fn denied<T: std::fmt::Debug>(result: Result<T, ObjectsError>) -> bool {
    matches!(result, Err(ObjectsError::Denied(_)))
}

#[tokio::test]
async fn an_own_write_whose_reply_was_lost_is_never_foreign() {
    for (lost, fault) in [(1, Fault::LostReply), (1, Fault::DoneThenStatus(503)), (ALWAYS, Fault::LostReply)] {
        let world = world().await;
        world.server.fault(On::op(Op::Insert), lost, fault);
        let written = world.create_once("mine").await;
        assert!(matches!(written, Ok(Written::Identical(_))), "{fault:?}: {written:?}");
        assert!(world.server.calls(Op::Insert) > 1, "the client's own retry is what this is about");
    }
}

#[tokio::test]
async fn a_retry_of_the_clients_own_write_is_no_more_than_a_precondition() {
    let world = world().await;
    world.server.fault(On::op(Op::Insert), 1, Fault::LostReply);
    assert_eq!(world.create("mine").await, Err(ObjectsError::Precondition));
    assert_eq!(world.there().unwrap(), "mine");
}

#[tokio::test]
async fn an_own_write_that_is_then_forbidden_is_not_foreign_either() {
    let world = world().await;
    world.server.fault(On::op(Op::Insert), 1, Fault::LostReply);
    world.server.fault(On::op(Op::Insert), 1, Fault::Status(403));
    let written = world.create_once("mine").await;
    assert!(matches!(written, Ok(Written::Identical(_))), "{written:?}");
    assert_eq!(world.server.faults_left(), 0);
}

#[tokio::test]
async fn anothers_object_is_foreign() {
    let world = world().await;
    world.server.put(&world.buckets.shards, NAME, "theirs").unwrap();
    let written = world.create_once("mine").await.unwrap();
    assert!(matches!(&written, Written::Foreign(found) if found.body == "theirs"), "{written:?}");
}

#[tokio::test]
async fn a_failure_that_passes_costs_nothing() {
    let world = world().await;
    for status in [429, 503] {
        world.server.fault(On::op(Op::Insert), 1, Fault::Status(status));
        world.server.fault(On::op(Op::Stat), 1, Fault::Status(status));
        world.server.fault(On::op(Op::Read), 1, Fault::Status(status));
        world.server.fault(On::op(Op::List), 1, Fault::Status(status));
        world.server.fault(On::op(Op::Remove), 1, Fault::Status(status));
        world.create("body").await.unwrap();
        assert_eq!(world.read().await.unwrap().unwrap(), "body");
        assert_eq!(world.objects.list(Bucket::Shards, "", None, 10).await.unwrap().len(), 1);
        world.objects.remove(Bucket::Shards, NAME, None).await.unwrap();
        assert_eq!(world.server.faults_left(), 0);
    }
}

#[tokio::test]
async fn a_failure_that_stays_is_not_confirmed() {
    let world = world().await;
    for status in [429, 503] {
        world.server.fault(On::any(), ALWAYS, Fault::Status(status));
        assert!(unknown(world.create("body").await), "{status}");
        assert!(unknown(world.create_once("body").await), "{status}");
        assert!(unknown(world.objects.replace(Bucket::Shards, NAME, Bytes::new(), 1).await), "{status}");
        assert!(unknown(world.read().await), "{status}");
        assert!(unknown(world.objects.read_range(Bucket::Shards, NAME, 1, 0, 1).await), "{status}");
        assert!(unknown(world.objects.stat(Bucket::Shards, NAME).await), "{status}");
        assert!(unknown(world.objects.list(Bucket::Shards, "", None, 1).await), "{status}");
        assert!(unknown(world.objects.remove(Bucket::Shards, NAME, None).await), "{status}");
        world.server.heal();
    }
    assert_eq!(world.there(), None);
}

#[tokio::test]
async fn a_call_that_hangs_ends() {
    let mut world = world().await;
    world.objects = world.objects.call_limit(Duration::from_millis(300));
    world.server.fault(On::any(), ALWAYS, Fault::Hang);
    assert!(unknown(world.create("body").await));
    assert!(unknown(world.read().await));
    assert!(unknown(world.objects.list(Bucket::Shards, "", None, 1).await));
    world.server.heal();
    world.server.fault(On::op(Op::Insert), 1, Fault::DoneThenHang);
    let written = world.create_once("body").await;
    assert!(matches!(written, Ok(Written::Identical(_))), "{written:?}");
}

#[tokio::test]
async fn forbidden_is_a_precondition_where_the_object_is_another() {
    let world = world().await;
    let forbid = || world.server.fault(On::op(Op::Insert), 1, Fault::Status(403));
    forbid();
    assert!(denied(world.create("mine").await), "absent: the right to create is missing");
    let live = world.server.put(&world.buckets.shards, NAME, "theirs").unwrap();
    forbid();
    assert_eq!(world.create("mine").await, Err(ObjectsError::Precondition));
    forbid();
    assert!(matches!(world.create_once("mine").await, Ok(Written::Foreign(_))));
    forbid();
    assert!(matches!(world.create_once("theirs").await, Ok(Written::Identical(_))));
    forbid();
    let stale = world.objects.replace(Bucket::Shards, NAME, Bytes::new(), live - 1).await;
    assert_eq!(stale, Err(ObjectsError::Precondition));
    forbid();
    assert!(denied(world.objects.replace(Bucket::Shards, NAME, Bytes::new(), live).await), "the right is missing");
    assert_eq!(world.there().unwrap(), "theirs");
}

#[tokio::test]
async fn forbidden_reads_lists_and_removals_are_denied() {
    let world = world().await;
    world.server.put(&world.buckets.shards, NAME, "body").unwrap();
    for status in [401, 403] {
        world.server.fault(On::any(), ALWAYS, Fault::Status(status));
        assert!(denied(world.create("body").await));
        assert!(denied(world.read().await));
        assert!(denied(world.objects.stat(Bucket::Shards, NAME).await));
        assert!(denied(world.objects.list(Bucket::Shards, "", None, 1).await));
        assert!(denied(world.objects.remove(Bucket::Shards, NAME, None).await));
        world.server.heal();
    }
    assert_eq!(world.there().unwrap(), "body");
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_empty_one() {
    let server = StorageServer::start(&[]).await.unwrap();
    let objects = objects_on(&server.host(), &fresh_buckets()).await.unwrap();
    assert!(denied(objects.create(Bucket::Shards, NAME, Bytes::new()).await));
    assert!(denied(objects.list(Bucket::Shards, "", None, 1).await));
}

#[tokio::test]
async fn an_error_names_what_was_done_and_where() {
    let world = world().await;
    world.server.fault(On::any(), ALWAYS, Fault::Status(403));
    let error = world.objects.list(Bucket::State, "claims/", None, 1).await.unwrap_err().to_string();
    assert!(error.contains("list") && error.contains(&world.buckets.state) && error.contains("403"), "{error}");
}

#[tokio::test]
async fn a_body_with_another_checksum_or_none_is_never_returned() {
    let world = world().await;
    world.create("body").await.unwrap();
    for fault in [Fault::WrongChecksum, Fault::NoChecksum] {
        world.server.fault(On::op(Op::Read), ALWAYS, fault);
        assert!(unknown(world.read().await), "{fault:?}");
        world.server.heal();
    }
    assert_eq!(world.read().await.unwrap().unwrap(), "body");
}

#[tokio::test]
async fn a_download_that_breaks_off_is_resumed_and_whole() {
    let world = world().await;
    let body: Bytes = (0..200_000u32).flat_map(u32::to_be_bytes).collect();
    let made = world.objects.create(Bucket::Shards, NAME, body.clone()).await.unwrap();
    world.server.fault(On::op(Op::Read), 2, Fault::CutBody(300_000));
    assert_eq!(world.read().await.unwrap().unwrap(), body);
    world.server.fault(On::op(Op::Read), 1, Fault::CutBody(1_000));
    let range = world.objects.read_range(Bucket::Shards, NAME, made.generation, 5_000, 50_000).await.unwrap();
    assert_eq!(range.unwrap(), body.slice(5_000..55_000));
    assert_eq!(world.server.faults_left(), 0);
    world.server.fault(On::op(Op::Read), ALWAYS, Fault::CutBody(10));
    assert!(unknown(world.read().await), "not resumed for ever");
}

#[tokio::test]
async fn a_large_body_goes_up_resumably_and_once() {
    let world = world().await;
    let body: Bytes = (0..2_500_000u32).flat_map(u32::to_be_bytes).collect();
    assert!(body.len() > 8 << 20);
    world.server.fault(On::op(Op::Append), 1, Fault::Status(503));
    world.server.fault(On::op(Op::Append), 1, Fault::LostReply);
    let written = world.create_once(body.clone()).await.unwrap();
    assert!(matches!(written, Written::Won(_)), "the upload's own session says so: {written:?}");
    assert!(world.server.calls(Op::Progress) > 0);
    assert_eq!(world.there().unwrap(), body);
    assert_eq!(world.read().await.unwrap().unwrap(), body);
    let other = world.create_once(body.slice(1..)).await.unwrap();
    assert!(matches!(&other, Written::Foreign(found) if found.body == body));
}

#[tokio::test]
async fn every_name_reaches_its_own_object() {
    let names = [
        "themes/製品 一覧.jsonl",
        "themes/100%.csv",
        "themes/100%25.csv",
        "themes/a#b.jsonl",
        "themes/a?b=c&d.jsonl",
        "themes/a b+c.jsonl",
        "themes/a%2Fb",
        "themes/a/b",
        "themes/../a",
        "themes//a",
        "themes/\"quoted\"\\'`{|}~^[]<>@:;,=!$*()é",
    ];
    let world = world().await;
    let mut made = BTreeMap::new();
    for name in names {
        let meta = world.objects.create(Bucket::Inbox, name, Bytes::from(name)).await.unwrap();
        assert_eq!(meta.name, name);
        made.insert(name, meta);
    }
    assert_eq!(world.server.names(&world.buckets.inbox), made.keys().copied().collect::<Vec<_>>());
    for (name, meta) in &made {
        assert_eq!(world.objects.stat(Bucket::Inbox, name).await.unwrap().as_ref(), Some(meta));
        let object = world.objects.read(Bucket::Inbox, name, Some(meta.generation)).await.unwrap().unwrap();
        assert_eq!((&object.meta, &object.body[..]), (meta, name.as_bytes()));
        let range = world.objects.read_range(Bucket::Inbox, name, meta.generation, 2, 4).await.unwrap().unwrap();
        assert_eq!(range, &name.as_bytes()[2..6]);
        let listed = world.objects.list(Bucket::Inbox, name, None, 1).await.unwrap();
        assert_eq!(listed.first(), Some(meta));
        let behind = world.objects.list(Bucket::Inbox, name, Some(name), 1).await.unwrap();
        assert!(behind.iter().all(|other| other.name.as_str() > *name));
    }
    for (name, meta) in &made {
        world.objects.remove(Bucket::Inbox, name, Some(meta.generation)).await.unwrap();
        assert_eq!(world.server.body(&world.buckets.inbox, name), None);
    }
}

#[tokio::test]
async fn a_list_goes_on_over_pages() {
    let world = world().await;
    let names: Vec<_> = (0..2_500).map(|shard| format!("run/{shard:08}.ndjson")).collect();
    for name in &names {
        world.server.put(&world.buckets.shards, name, "x").unwrap();
    }
    world.server.put(&world.buckets.shards, "ruo", "x").unwrap();
    let list = async |after: Option<&str>, most| {
        let found = world.objects.list(Bucket::Shards, "run/", after, most).await.unwrap();
        found.into_iter().map(|meta| meta.name).collect::<Vec<_>>()
    };
    assert_eq!(list(None, usize::MAX).await, names);
    assert_eq!(world.server.calls(Op::List), 3);
    assert_eq!(list(None, 1_500).await, names[..1_500]);
    assert_eq!(list(Some(&names[99]), 1_000).await, names[100..1_100]);
    assert_eq!(list(Some(&names[2_499]), 1_000).await, [""; 0]);
}

#[tokio::test]
async fn thousands_of_small_objects_are_written_at_once() {
    let world = world().await;
    let names: Vec<_> = (0..3_000).map(|shard| format!("run/{shard:08}.ndjson")).collect();
    let writes = names.iter().map(|name| world.objects.create(Bucket::Shards, name, Bytes::from(name.clone())));
    let made: Vec<_> = stream::iter(writes).buffered(64).map(Result::unwrap).collect().await;
    assert_eq!(world.objects.list(Bucket::Shards, "", None, usize::MAX).await.unwrap(), made);
}

#[tokio::test]
async fn an_overwritten_version_is_gone() {
    let world = world().await;
    let old = world.server.put(&world.buckets.shards, NAME, "old").unwrap();
    let new = world.server.put(&world.buckets.shards, NAME, "new").unwrap();
    assert_eq!(world.objects.read(Bucket::Shards, NAME, Some(old)).await, Ok(None));
    for (offset, most) in [(0, 3), (0, 0), (3, 3), (u64::MAX, usize::MAX)] {
        assert_eq!(world.objects.read_range(Bucket::Shards, NAME, old, offset, most).await, Ok(None));
        assert!(world.objects.read_range(Bucket::Shards, NAME, new, offset, most).await.unwrap().is_some());
    }
    assert_eq!(world.read().await.unwrap().unwrap(), "new");
}

#[tokio::test]
async fn a_read_amid_an_overwrite_is_one_version() {
    let world = world().await;
    let put = |body: &'static str| world.server.put(&world.buckets.shards, NAME, body).unwrap();
    let overwritten = async |pinned| {
        // What is known of the object is told at once, its body after it was overwritten.
        world.server.fault(On::op(Op::Read), 1, Fault::Late(Duration::from_millis(300)));
        let stats = world.server.calls(Op::Stat);
        let overwrite = async {
            while world.server.calls(Op::Stat) == stats {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            put("second")
        };
        let (read, second) = tokio::join!(world.objects.read(Bucket::Shards, NAME, pinned), overwrite);
        (read.unwrap(), second)
    };
    put("first!");
    let (read, second) = overwritten(None).await;
    let read = read.unwrap();
    assert_eq!((read.meta.generation, read.meta.size, &read.body[..]), (second, 6, &b"second"[..]));
    let first = put("first!");
    assert_eq!(overwritten(Some(first)).await.0, None);
}

#[tokio::test]
async fn the_trace_travels_with_what_is_created() {
    let world = world().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let hook = Arc::new(move || Some(trace.to_owned()));
    let traced = traced_objects_on(&world.server.host(), &world.buckets, hook).await.unwrap();
    let mut events = world.server.finalized();
    let small = traced.create(Bucket::Shards, NAME, Bytes::from_static(b"1")).await.unwrap();
    traced.create(Bucket::Answers, NAME, Bytes::from(vec![7; 9 << 20])).await.unwrap();
    world.objects.create(Bucket::State, NAME, Bytes::new()).await.unwrap();
    let (first, second) = (events.recv().await.unwrap(), events.recv().await.unwrap());
    assert_eq!((first.bucket, first.name), (world.buckets.shards.clone(), NAME.to_owned()));
    assert_eq!(first.generation, small.generation);
    assert_eq!(first.metadata["traceparent"], trace);
    assert_eq!((second.bucket, &second.metadata["traceparent"][..]), (world.buckets.answers.clone(), trace));
    assert_eq!(events.recv().await.unwrap().metadata, BTreeMap::new());
}

#[tokio::test]
async fn what_nobody_sends_is_not_answered_and_named() {
    let world = world().await;
    let client = reqwest::Client::new();
    let bucket = &world.buckets.shards;
    for path in ["/storage/v1/b", &format!("/storage/v1/b/{bucket}/o?delimiter=x"), "/batch"] {
        let response = client.get(format!("http://{}{path}", world.server.host())).send().await.unwrap();
        assert_eq!(response.status(), 501);
        assert!(response.text().await.unwrap().contains(&format!("GET {path}")));
    }
}

/// Lines, packed.
fn packed() -> Bytes {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let lines: String = (0..100).map(|row| format!("{{\"id\":\"k{row}\",\"text\":\"entry {row}\"}}\n")).collect();
    packer.write_all(lines.as_bytes()).expect("memory takes everything");
    packer.finish().expect("memory takes everything").into()
}

#[tokio::test]
async fn an_object_that_says_to_be_packed_is_read_as_it_is_stored() {
    let (world, packed) = (world().await, packed());
    let generation = world.server.put_gzip(&world.buckets.inbox, "p/rows.jsonl", packed.clone()).unwrap();
    let read = world.objects.read(Bucket::Inbox, "p/rows.jsonl", None).await.unwrap().unwrap();
    assert_eq!((read.body, read.meta.size), (packed.clone(), packed.len() as u64));
    for (offset, most) in [(0, 10), (7, 30), (50, 1 << 20)] {
        let range = world.objects.read_range(Bucket::Inbox, "p/rows.jsonl", generation, offset as u64, most).await;
        assert_eq!(range.unwrap().unwrap(), packed.slice(offset..packed.len().min(offset + most)));
    }
    // Whoever does not ask for it packed gets it unpacked and whole, with the checksum of what is stored.
    let address =
        format!("http://{}/storage/v1/b/{}/o/p%2Frows.jsonl?alt=media", world.server.host(), world.buckets.inbox);
    let reply = reqwest::Client::new().get(address).header("range", "bytes=0-9").send().await.unwrap();
    assert_eq!((reply.status().as_u16(), reply.headers().get("content-encoding")), (200, None));
    let sum = data_encoding::BASE64.encode(&crc32c::crc32c(&packed).to_be_bytes());
    assert_eq!(reply.headers()["x-goog-hash"], format!("crc32c={sum}"));
    assert!(reply.text().await.unwrap().starts_with("{\"id\":\"k0\""));
}

#[tokio::test]
async fn a_dropped_file_that_says_to_be_packed_is_read_if_its_name_says_so_too_and_refused_otherwise() {
    let world = world().await;
    for name in ["p/rows.jsonl.gz", "p/rows.jsonl"] {
        world.server.put_gzip(&world.buckets.inbox, name, packed()).unwrap();
    }
    let objects = Arc::new(world.objects);
    let rows = ObjectRows::new(objects.clone());
    let meta = async |name: &str| objects.stat(Bucket::Inbox, name).await.unwrap().unwrap();
    let (mut stream, mut read) = (rows.open(&meta("p/rows.jsonl.gz").await).await.unwrap(), 0);
    while let Some(batch) = stream.next().await.unwrap() {
        read += batch.iter().filter(|row| row.row.is_ok()).count();
    }
    assert_eq!(read, 100);
    let refused = rows.open(&meta("p/rows.jsonl").await).await.err().unwrap().to_string();
    assert!(refused.contains("holds gzip data: rename it to rows.jsonl.gz"), "{refused}");
}
