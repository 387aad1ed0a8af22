//! BigQuery as a source, on bqemulator: its SQL, its jobs, its Storage Read API.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tasuki_google::bigquery::{BigQuery, Settings};
use tasuki_google::connect::Endpoint;
use tasuki_relay::clock::{Chance, Clock};
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::ports::{Event, Objects, Order, Snapshots, Taking, Verdict};
use tasuki_relay::record::{Content, Header, Plan, ShardLine, Snapshot, Totals, decode};
use tasuki_relay::source::Source;
use tasuki_splitter::Splitter;
use tasuki_tests::emulators::{Needs, trial};
use tasuki_tests::memory::records::MemoryRecords;
use tasuki_tests::memory::{MemoryObjects, MemoryRows};

const PROJECT: &str = "tasuki-test";
const ROWS: u64 = 3_000;

pub fn trials() -> Vec<Trial> {
    const BIGQUERY: &[Needs] = &[Needs::BigQuery];
    vec![
        trial("bigquery: a dropped run.toml over a table becomes shards", BIGQUERY, a_table_becomes_shards),
        trial("bigquery: every part is read whole, in pieces too", BIGQUERY, parts_are_read_whole),
        trial("bigquery: a query becomes shards, or is refused once", BIGQUERY, queries),
    ]
}

/// Datasets of one trial.
struct World {
    http: reqwest::Client,
    base: String,
    /// Of the rows.
    source: String,
    adapter: Arc<BigQuery>,
}

impl World {
    async fn new(name: &str) -> Result<World> {
        let (rest, storage) =
            (std::env::var("BIGQUERY_EMULATOR_HOST")?, std::env::var("BIGQUERY_STORAGE_EMULATOR_HOST")?);
        let (source, staging) = (format!("{name}_source"), format!("{name}_staging"));
        let settings = Settings::new(
            PROJECT,
            vec![format!("{PROJECT}.{source}").parse()?],
            format!("{PROJECT}.{staging}").parse()?,
        );
        let adapter = BigQuery::new(settings, Endpoint::emulator(&rest), Endpoint::emulator(&storage)).await?;
        let base = format!("http://{rest}/bigquery/v2/projects/{PROJECT}");
        let world = World { http: reqwest::Client::new(), base, source, adapter: Arc::new(adapter) };
        for dataset in [&world.source, &staging] {
            let reference = json!({"projectId": PROJECT, "datasetId": dataset});
            world.post("datasets", &json!({"datasetReference": reference, "location": "US"})).await?;
        }
        Ok(world)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let reply = self.http.post(format!("{}/{path}", self.base)).body(body.to_string());
        let reply = reply.header("content-type", "application/json").send().await?;
        let (status, text) = (reply.status(), reply.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// A table of [`ROWS`] rows, with Japanese text and the scalar types. Of bqemulator's Read API, STRUCT columns are absent,
    /// GEOGRAPHY comes in binary and JSON without its mark: these are for the unit tests.
    async fn table(&self) -> Result<()> {
        let sql = format!(
            "CREATE TABLE {}.products AS
            SELECT CONCAT('商品-', CAST(n AS STRING)) AS id, n, n + 9007199254740000 AS big,
              CONCAT('説明「', CAST(n AS STRING), '」\\n\"赤\"') AS description,
              CAST(n AS NUMERIC) / 4 AS price, CAST('12345678901234567890.5' AS BIGNUMERIC) AS huge,
              n / 8 AS ratio, MOD(n, 2) = 0 AS even, CAST(CONCAT('b', CAST(n AS STRING)) AS BYTES) AS raw,
              DATE '2026-11-21' AS day, TIME '13:05:09' AS hour, DATETIME '2026-11-21 13:05:09' AS local,
              TIMESTAMP '2026-11-21 13:05:09.000123+00:00' AS moment,
              [n, n + 1] AS numbers, CAST(NULL AS STRING) AS nothing, INTERVAL 3 DAY AS span
            FROM UNNEST(GENERATE_ARRAY(1, {ROWS})) AS n",
            self.source
        );
        self.post("queries", &json!({"query": sql, "useLegacySql": false})).await.map(drop)
    }

    fn source(&self, text: &str) -> Result<Source> {
        Source::parse(&text.replace("PLACE", &format!("{PROJECT}.{}", self.source))).context("a valid source")
    }
}

/// The row of [`World::table`] with this number, as JSON.
fn expected(n: u64) -> Value {
    let big = n + 9_007_199_254_740_000;
    let big = if big > 1 << 53 { json!(big.to_string()) } else { json!(big) };
    let quarters = [".25", ".5", ".75"];
    let fraction = if n.is_multiple_of(4) { "" } else { quarters[(n % 4 - 1) as usize] };
    json!({
        "id": format!("商品-{n}"), "n": n, "big": big, "description": format!("説明「{n}」\n\"赤\""),
        "price": format!("{}{fraction}", n / 4), "huge": "12345678901234567890.5", "ratio": n as f64 / 8.0, "even": n.is_multiple_of(2),
        "raw": data_encoding::BASE64.encode(format!("b{n}").as_bytes()), "day": "2026-11-21", "hour": "13:05:09",
        "local": "2026-11-21T13:05:09", "moment": "2026-11-21T13:05:09.000123Z", "numbers": [n, n + 1], "nothing": null, "span": "0-0 3 0:0:0",
    })
}

/// A splitter over the world's BigQuery, with everything else in memory.
struct Relay {
    objects: Arc<MemoryObjects>,
    splitter: Arc<Splitter>,
}

impl Relay {
    async fn new(world: &World) -> Result<Relay> {
        let clock = Clock::system();
        let objects = Arc::new(MemoryObjects::new(clock.clone()));
        let pipeline = "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{ id }}\"\n[answer.x]\ntype = \"string\"\n\
                        [run]\nrows_per_shard = 100\n[target]\ntable = \"t\"\n";
        objects.create(Bucket::State, &names::pipeline("p"), pipeline.into()).await?;
        let (rows, records) = (Arc::new(MemoryRows::new(vec![])), Arc::new(MemoryRecords::new(clock.clone())));
        let (adapter, chance) = (world.adapter.clone(), Chance::system());
        // Every trial has the same objects: another inbox makes other runs of them, and so other jobs.
        let settings = tasuki_splitter::Settings { inbox: chance.identity(), ..tasuki_splitter::Settings::default() };
        let splitter = Splitter::new(objects.clone(), rows, adapter, records, clock, chance, settings);
        Ok(Relay { objects, splitter })
    }

    async fn drop(&self, world: &World, text: &str) -> Result<RunId> {
        let text = text.replace("PLACE", &format!("{PROJECT}.{}", world.source));
        let meta = self.objects.create(Bucket::Inbox, "p/products.run.toml", text.into()).await?;
        let event = Event { bucket: Bucket::Inbox, name: meta.name.clone(), generation: meta.generation };
        let verdict = self.splitter.handle(&event).await;
        ensure!(verdict == Verdict::Done, "{verdict:?}");
        Ok(self.splitter.run_of(&meta.name, meta.generation))
    }

    fn shards(&self) -> Result<Vec<(Header, Vec<ShardLine>)>> {
        self.objects.live(Bucket::Shards).iter().map(|shard| Ok(decode(&shard.body)?)).collect()
    }

    async fn record<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let object = self.objects.read(Bucket::State, name, None).await?.context("it is there")?;
        Ok(serde_json::from_slice(&object.body)?)
    }
}

async fn a_table_becomes_shards() -> Result<()> {
    let world = World::new("table").await?;
    world.table().await?;
    let relay = Relay::new(&world).await?;
    let run = relay.drop(&world, "[source]\ntable = \"PLACE.products\"\n").await?;
    let snapshot: Snapshot = relay.record(&names::snapshot(&run)).await?;
    ensure!(snapshot.job == names::snapshot_job(&run, 1), "{}", snapshot.job);

    let shards = relay.shards()?;
    let totals: Vec<_> = shards.iter().map(|(header, _)| header.totals).collect();
    ensure!(totals[0] == Some(Totals { shards: shards.len() as u64, rows: ROWS }), "{:?}", totals[0]);
    ensure!(totals[1..].iter().all(Option::is_none), "the totals are there once");
    ensure!(shards.iter().all(|(header, _)| header.source_time == snapshot.source_time), "the job's time");
    let mut found: BTreeMap<u64, Value> = BTreeMap::new();
    for line in shards.iter().flat_map(|(_, lines)| lines) {
        let Content::Row(row) = &line.content else { anyhow::bail!("ordinal {} failed", line.ordinal) };
        let n = row["n"].as_u64().context("a number")?;
        ensure!(found.insert(n, Value::Object((**row).clone())).is_none(), "row {n} is there twice");
    }
    for n in 1..=ROWS {
        ensure!(found.get(&n) == Some(&expected(n)), "row {n}: {:?} is not {}", found.get(&n), expected(n));
    }
    Ok(())
}

async fn taken(world: &World, source: Source, parts: u32) -> Result<Snapshot> {
    let run = RunId::of("b", &format!("{source:?}"), parts.into());
    let order = Order { run, attempt: 1, again: None, source, parts, key: "id".into() };
    let first = world.adapter.take(&order).await?;
    ensure!(first == world.adapter.take(&order).await?, "the same order is the same job");
    let Taking::Ready { snapshot, .. } = first else { anyhow::bail!("{first:?}") };
    Ok(snapshot)
}

async fn parts_are_read_whole() -> Result<()> {
    let world = World::new("parts").await?;
    world.table().await?;
    let snapshot =
        taken(&world, world.source("[source]\ntable = \"PLACE.products\"\ncolumns = [\"id\"]\n")?, 7).await?;
    ensure!(snapshot.rows.len() == 7 && snapshot.rows.iter().sum::<u64>() == ROWS, "{:?}", snapshot.rows);
    ensure!(snapshot.rows.iter().all(|rows| (300..600).contains(rows)), "a hash spreads keys: {:?}", snapshot.rows);
    let mut found: Vec<String> = Vec::new();
    for (part, rows) in snapshot.rows.iter().enumerate() {
        let mut ids = Vec::new();
        for piece in [0..100, 100..*rows] {
            let mut read = world.adapter.read(&snapshot, part as u32, piece.clone()).await?;
            read.sort_by_key(|row| row.pos);
            ensure!(read.iter().map(|row| row.pos).eq(piece), "the positions asked for, each once");
            ids.extend(read.into_iter().map(|row| only_id(row.row.expect("a row"))));
        }
        ensure!(ids.is_sorted(), "positions follow the key");
        found.extend(ids);
    }
    found.sort();
    let mut wanted: Vec<String> = (1..=ROWS).map(|n| format!("商品-{n}")).collect();
    wanted.sort();
    ensure!(found == wanted, "every row is in one part, once");
    Ok(())
}

fn only_id(row: Map<String, Value>) -> String {
    assert_eq!(row.len(), 1, "the snapshot's own columns are left out");
    row["id"].as_str().expect("a string").to_owned()
}

async fn queries() -> Result<()> {
    let world = World::new("queries").await?;
    world.table().await?;
    let relay = Relay::new(&world).await?;
    let query = "[source]\nquery = \"\"\"SELECT IF(n = 251, '商品-1', id) AS id FROM `PLACE.products` WHERE n <= 251 -- one twice\n;\"\"\"\n";
    relay.drop(&world, query).await?;
    let refused: Vec<_> = relay.shards()?.into_iter().filter_map(|(header, _)| header.refused).collect();
    ensure!(refused.is_empty(), "{refused:?}");
    let lines: Vec<ShardLine> = relay.shards()?.into_iter().flat_map(|(_, lines)| lines).collect();
    let failed: Vec<_> = lines.iter().filter(|line| matches!(line.content, Content::Failed(_))).collect();
    ensure!(lines.len() == 251 && failed.len() == 1, "{} lines, {} failed", lines.len(), failed.len());
    ensure!(matches!(&failed[0].content, Content::Failed(failed) if failed.reason == "duplicate_key"));

    for (text, why) in [
        ("query = \"SELEC 1\"", "BigQuery does not run the source"),
        ("query = \"DELETE FROM `PLACE.products` WHERE TRUE\"", "only one SELECT is read"),
        ("query = \"SELECT n FROM `PLACE.products`\"", "the column \"id\""),
        ("query = \"SELECT n AS id FROM `PLACE.products`\"", "no STRING"),
    ] {
        let relay = Relay::new(&world).await?;
        let run = relay.drop(&world, &format!("[source]\n{text}\n")).await?;
        let plan: Plan = relay.record(&names::plan(&run)).await?;
        let refused = plan.refused.context("a refused plan")?;
        ensure!(refused.contains(why), "{refused}");
        let shards = relay.shards()?;
        ensure!(shards.len() == 1 && shards[0].0.refused.is_some(), "one empty shard that says so");
    }
    Ok(())
}
