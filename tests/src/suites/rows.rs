use anyhow::{Context, Result, ensure};
use tasuki_relay::ports::{Meta, RowStream, Rows, SourceRow};

/// Checks that `rows` reads `input` as `expected`: in this order, to an end that stays the end, and the same when opened again.
pub async fn rows_suite(rows: &dyn Rows, input: &Meta, expected: &[SourceRow]) -> Result<()> {
    let mut first = rows.open(input).await.context("open")?;
    let mut second = rows.open(input).await.context("open again while the first stream is at its start")?;
    same(&read_all(first.as_mut()).await.context("read to the end")?, expected)?;
    for _ in 0..3 {
        ensure!(first.next().await.context("read after the end")?.is_none(), "rows came after the end");
    }
    same(&read_all(second.as_mut()).await.context("read the second stream")?, expected).context("second stream")?;
    let mut third = rows.open(input).await.context("open again after the end")?;
    same(&read_all(third.as_mut()).await.context("read the third stream")?, expected).context("third stream")
}

async fn read_all(stream: &mut dyn RowStream) -> Result<Vec<SourceRow>> {
    let mut all = Vec::new();
    while let Some(batch) = stream.next().await? {
        ensure!(!batch.is_empty(), "a batch of no rows");
        all.extend(batch);
    }
    Ok(all)
}

fn same(found: &[SourceRow], expected: &[SourceRow]) -> Result<()> {
    for (ordinal, (found, expected)) in found.iter().zip(expected).enumerate() {
        ensure!(found == expected, "ordinal {ordinal}: found {found:?}, expected {expected:?}");
    }
    ensure!(found.len() == expected.len(), "found {} rows, expected {}", found.len(), expected.len());
    Ok(())
}
