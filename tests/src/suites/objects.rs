use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::future::join_all;
use tasuki_relay::names::Bucket;
use tasuki_relay::ports::{Meta, Objects, ObjectsError};

/// How many writers try to create one name at once.
const WRITERS: usize = 16;

/// Checks `objects`, whose buckets must be empty of names that begin with `suite`.
pub async fn objects_suite(objects: &dyn Objects) -> Result<()> {
    created_once(objects).await.context("create")?;
    replaced_by_generation(objects).await.context("replace")?;
    removed(objects).await.context("remove")?;
    read_in_ranges(objects).await.context("read_range")?;
    listed_in_order(objects).await.context("list")?;
    raced(objects).await.context("concurrent creates")
}

async fn created_once(objects: &dyn Objects) -> Result<()> {
    let name = "suite/create/one";
    ensure!(objects.stat(Bucket::Shards, name).await?.is_none(), "an absent object has a stat");
    ensure!(objects.read(Bucket::Shards, name, None).await?.is_none(), "an absent object can be read");
    ensure!(objects.read_range(Bucket::Shards, name, 1, 0, 1).await?.is_none(), "a range of an absent object");
    let made = objects.create(Bucket::Shards, name, Bytes::from_static(b"first")).await.context("first create")?;
    ensure!(made.name == name && made.size == 5, "the first create says {made:?}");
    precondition(objects.create(Bucket::Shards, name, Bytes::from_static(b"second")).await).context("second create")?;
    live(objects, &made, b"first").await.context("after the second create")?;
    for other in [Bucket::Inbox, Bucket::Answers, Bucket::State] {
        ensure!(objects.stat(other, name).await?.is_none(), "a create in shards shows in {}", other.as_str());
    }
    let empty = objects.create(Bucket::Shards, "suite/create/empty", Bytes::new()).await.context("empty body")?;
    live(objects, &empty, b"").await.context("an empty object")?;
    ensure!(empty.created >= made.created, "created went back");
    Ok(())
}

async fn replaced_by_generation(objects: &dyn Objects) -> Result<()> {
    let name = "suite/replace/claim";
    precondition(objects.replace(Bucket::Shards, name, Bytes::from_static(b"x"), 1).await).context("absent object")?;
    ensure!(objects.stat(Bucket::Shards, name).await?.is_none(), "a refused replace created the object");
    let mut last = objects.create(Bucket::Shards, name, Bytes::from_static(b"0")).await.context("create")?;
    let first = last.clone();
    for turn in 1..=50u8 {
        let body = Bytes::from(vec![turn; turn as usize]);
        let next = objects.replace(Bucket::Shards, name, body.clone(), last.generation).await.context("replace")?;
        ensure!(next.generation > last.generation, "turn {turn}: the generation does not grow");
        ensure!(next.created >= last.created, "turn {turn}: created went back");
        precondition(objects.replace(Bucket::Shards, name, Bytes::new(), last.generation).await)
            .context("replace at a stale generation")?;
        live(objects, &next, &body).await.with_context(|| format!("after turn {turn}"))?;
        last = next;
    }
    let old = objects.read(Bucket::Shards, name, Some(first.generation)).await.context("read an old version")?;
    ensure!(old.is_none_or(|old| old.meta == first && &old.body[..] == b"0"), "an old generation reads as another");
    let never = objects.read(Bucket::Shards, name, Some(last.generation + 1)).await.context("read a future version")?;
    ensure!(never.is_none(), "a generation that never was can be read");
    Ok(())
}

async fn removed(objects: &dyn Objects) -> Result<()> {
    let name = "suite/remove/marker";
    objects.remove(Bucket::State, name, None).await.context("an absent object, whatever it is")?;
    objects.remove(Bucket::State, name, Some(7)).await.context("an absent object at a generation")?;
    let first = objects.create(Bucket::State, name, Bytes::from_static(b"1")).await.context("create")?;
    precondition(objects.remove(Bucket::State, name, Some(first.generation - 1)).await).context("stale generation")?;
    live_in(objects, Bucket::State, &first, b"1").await.context("after a refused remove")?;
    objects.remove(Bucket::State, name, Some(first.generation)).await.context("at its generation")?;
    ensure!(objects.stat(Bucket::State, name).await?.is_none(), "a removed object has a stat");
    ensure!(objects.list(Bucket::State, "suite/remove/", None, 10).await?.is_empty(), "a removed object is listed");
    precondition(objects.replace(Bucket::State, name, Bytes::new(), first.generation).await)
        .context("replace of a removed object")?;
    let second = objects.create(Bucket::State, name, Bytes::from_static(b"2")).await.context("create again")?;
    ensure!(second.generation > first.generation, "the generation does not grow over a removal");
    ensure!(second.created >= first.created, "created went back over a removal");
    objects.remove(Bucket::State, name, None).await.context("whatever it is")?;
    ensure!(objects.read(Bucket::State, name, None).await?.is_none(), "a removed object can be read");
    Ok(())
}

async fn read_in_ranges(objects: &dyn Objects) -> Result<()> {
    let name = "suite/range/digits";
    let made = objects.create(Bucket::Inbox, name, Bytes::from_static(b"0123456789")).await.context("create")?;
    let cases: [(u64, usize, &[u8]); 8] = [
        (0, 4, b"0123"),
        (4, 4, b"4567"),
        (8, 4, b"89"),
        (0, 100, b"0123456789"),
        (9, 1, b"9"),
        (10, 4, b""),
        (u64::MAX, 4, b""),
        (3, 0, b""),
    ];
    for (offset, most, expected) in cases {
        let range = objects.read_range(Bucket::Inbox, name, made.generation, offset, most).await;
        let range = range.with_context(|| format!("{most} bytes from {offset}"))?;
        ensure!(range.as_deref() == Some(expected), "{most} bytes from {offset} are {range:?}");
    }
    let other = objects.read_range(Bucket::Inbox, name, made.generation + 1, 0, 4).await.context("another version")?;
    ensure!(other.is_none(), "a range of a generation that never was");
    Ok(())
}

async fn listed_in_order(objects: &dyn Objects) -> Result<()> {
    // '-' and '.' sort before '/', 'é' and '製' after all of ASCII: a walk of folders in their own order gets this wrong.
    let names = [
        "suite/list/a-b/1",
        "suite/list/a.txt",
        "suite/list/a/00000001",
        "suite/list/a/00000002",
        "suite/list/a/é",
        "suite/list/a0",
        "suite/list/b/c/d",
        "suite/list/製品.jsonl",
    ];
    for name in names.iter().rev() {
        objects
            .create(Bucket::Answers, name, Bytes::from_static(b"x"))
            .await
            .with_context(|| format!("create {name}"))?;
    }
    let prefixes = ["suite/list/", "suite/list/a", "suite/list/a/", "suite/list/a/0", "suite/list/b", "suite/list/製"];
    let afters =
        names.into_iter().chain(["", "suite/list/a/", "suite/list/a/00000001x", "suite/list/zz", "suite/lisu"]);
    for after in afters.map(Some).chain([None]) {
        for (prefix, most) in prefixes.iter().flat_map(|prefix| [0, 1, 3, 100].map(|most| (*prefix, most))) {
            let found = objects.list(Bucket::Answers, prefix, after, most).await.context("list")?;
            let found: Vec<_> = found.iter().map(|meta| meta.name.as_str()).collect();
            let expected = names.iter().filter(|name| name.starts_with(prefix) && after.is_none_or(|at| **name > at));
            let expected: Vec<_> = expected.take(most).copied().collect();
            ensure!(found == expected, "{most} of {prefix:?} after {after:?}: found {found:?}, expected {expected:?}");
        }
    }
    for listed in objects.list(Bucket::Answers, "suite/list/", None, 100).await? {
        let stat = objects.stat(Bucket::Answers, &listed.name).await?;
        ensure!(stat.as_ref() == Some(&listed), "listed {listed:?}, but its stat is {stat:?}");
    }
    ensure!(objects.list(Bucket::Answers, "suite/none/", None, 10).await?.is_empty(), "nothing is there");
    Ok(())
}

async fn raced(objects: &dyn Objects) -> Result<()> {
    let name = "suite/race/shard";
    let bodies: Vec<_> = (0..WRITERS).map(|writer| Bytes::from(format!("writer {writer}"))).collect();
    let writes = bodies.iter().map(|body| objects.create(Bucket::Shards, name, body.clone()));
    let mut winner = None;
    for (body, made) in bodies.iter().zip(join_all(writes).await) {
        match made {
            Ok(made) => ensure!(winner.replace((made, body)).is_none(), "two writers won"),
            error => precondition(error).context("a loser")?,
        }
    }
    let (made, body) = winner.context("nobody won")?;
    live(objects, &made, body).await.context("after the race")
}

fn precondition<T: std::fmt::Debug>(result: Result<T, ObjectsError>) -> Result<()> {
    match result {
        Err(ObjectsError::Precondition) => Ok(()),
        other => bail!("expected Precondition, found {other:?}"),
    }
}

async fn live(objects: &dyn Objects, meta: &Meta, body: &[u8]) -> Result<()> {
    live_in(objects, Bucket::Shards, meta, body).await
}

/// The object at `meta.name` is what `meta` and `body` say, however it is asked for.
async fn live_in(objects: &dyn Objects, bucket: Bucket, meta: &Meta, body: &[u8]) -> Result<()> {
    let stat = objects.stat(bucket, &meta.name).await.context("stat")?;
    ensure!(stat.as_ref() == Some(meta), "its stat is {stat:?}, expected {meta:?}");
    for generation in [None, Some(meta.generation)] {
        let object =
            objects.read(bucket, &meta.name, generation).await.context("read")?.context("read finds nothing")?;
        ensure!(object.meta == *meta && object.body == body, "read at {generation:?} finds {object:?}");
    }
    Ok(())
}
