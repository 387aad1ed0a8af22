//! `tasuki schema`

use super::Exit;
use super::run::read_pipeline;
use crate::cli;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{ErrorKind, Write, stdout};
use std::path::{Path, PathBuf};
use tasuki_relay::ddl::{self, Difference, Table, quoted};
use tasuki_relay::pipeline::Pipeline;

/// A file of one table, as it is to be.
struct File {
    path: PathBuf,
    text: String,
    /// What it holds now.
    before: Option<String>,
}

pub(crate) fn schema(args: &cli::Schema) -> Result<Exit> {
    let tables = told("nothing was written", wanted(&args.pipelines))?;
    let Some(out) = &args.out else {
        let texts: Vec<String> = tables.iter().map(Table::ddl).collect();
        write!(stdout().lock(), "{}", texts.join("\n"))?;
        return Ok(Exit::Done);
    };
    let files = told("nothing was written", files(out, &tables)?)?;
    let stale = files.into_iter().filter(|file| file.before.as_ref() != Some(&file.text)).collect::<Vec<_>>();
    if args.check {
        for file in &stale {
            eprintln!("{} is not up to date: run tasuki schema without --check", file.path.display());
        }
        return Ok(if stale.is_empty() { Exit::Done } else { Exit::NotDone });
    }
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    for file in &stale {
        fs::write(&file.path, &file.text).with_context(|| file.path.display().to_string())?;
        writeln!(stdout().lock(), "{}", file.path.display())?;
    }
    Ok(Exit::Done)
}

/// All that is wrong at once, so that one look mends it.
fn told<T>(so: &str, result: Result<T, Vec<String>>) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(problems) => bail!("{so}:\n{}", problems.join("\n")),
    }
}

/// The tables that the pipelines want.
fn wanted(paths: &[PathBuf]) -> Result<Vec<Table>, Vec<String>> {
    let (mut pipelines, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let parsed = read_pipeline(path)
            .map_err(|error| format!("{error:#}"))
            .and_then(|text| Pipeline::parse(&text).map_err(|problems| problems.in_file(&path.display().to_string())));
        match parsed {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(problem) => problems.push(problem),
        }
    }
    match ddl::merge(pipelines.iter().map(|pipeline| (pipeline.name.as_str(), ddl::target(pipeline)))) {
        Ok(tables) if problems.is_empty() => Ok(tables),
        Ok(_) => Err(problems),
        Err(more) => Err(problems.into_iter().chain(more).collect()),
    }
}

/// The tables' files; or what hinders, with the migrations to run by hand.
fn files(out: &Path, tables: &[Table]) -> Result<Result<Vec<File>, Vec<String>>> {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for table in tables {
        let path = out.join(format!("{}.sql", table.name));
        let before = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        problems.extend(before.as_deref().map(|text| losses(&path, text, table)).unwrap_or_default());
        let text = format!(
            "-- Made by `tasuki schema`. Apply it with:\n--   gcloud spanner databases ddl update DATABASE --instance=INSTANCE \
             --ddl-file={}.sql\n-- Applying it again changes nothing.\n\n{}",
            table.name,
            table.ddl()
        );
        files.push(File { path, text, before });
    }
    Ok(if problems.is_empty() { Ok(files) } else { Err(problems) })
}

/// What the step from the earlier file to `wanted` would lose.
fn losses(path: &Path, before: &str, wanted: &Table) -> Vec<String> {
    let file = path.display();
    let [there] = &ddl::tables(before)[..] else {
        return vec![format!("{file}: not a file of `tasuki schema`: it holds no table, or several")];
    };
    let differences = ddl::differences(there, wanted);
    if let Some(key) = differences.iter().find(|difference| matches!(difference, Difference::Key { .. })) {
        return vec![format!(
            "{file}: {key}. A table keeps its key: name another [target] table; or move the rows by hand into a new table of \
             that name, delete {file} and run this again"
        )];
    }
    let lost = |difference: &Difference| {
        let (column, or) = match difference {
            Difference::Kind { column, .. } if there.key.iter().any(|key| key.eq_ignore_ascii_case(column)) => {
                return Some(format!("{file}: {difference}. A table keeps its key: name another [target] table"));
            }
            Difference::Kind { column, .. } => (column, "A column keeps its type: name the answer otherwise"),
            Difference::Unwanted { column } => (column, "Name all pipelines of the table at once, or keep the answer"),
            Difference::Missing { .. } | Difference::Key { .. } => return None,
        };
        Some(format!(
            "{file}: {difference}. {or}. If the values that it has may be lost, run\n  ALTER TABLE {} DROP COLUMN {};\nby \
             hand, delete {file} and run this again",
            quoted(&there.name),
            quoted(column)
        ))
    };
    differences.iter().filter_map(lost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(answers: &str) -> Table {
        let text = format!(
            "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{{{ a }}}}\"\n{answers}[target]\ntable = \"t\"\n"
        );
        ddl::target(&Pipeline::parse(&text).unwrap())
    }

    fn lost(before: &str, wanted: &Table) -> String {
        losses(Path::new("t.sql"), before, wanted).join("\n")
    }

    const ONE: &str = "[answer.one]\ntype = \"string\"\n";

    #[test]
    fn what_only_adds_loses_nothing() {
        let more = table(&format!("{ONE}[answer.two]\ntype = \"number\"\n"));
        assert_eq!(lost(&table(ONE).ddl(), &more), "");
        assert_eq!(lost(&more.ddl(), &more), "");
    }

    #[test]
    fn a_dropped_and_a_retyped_column_are_told_with_the_migration() {
        let before = table(&format!("{ONE}[answer.two]\ntype = \"number\"\n")).ddl();
        let told = lost(&before, &table("[answer.two]\ntype = \"string\"\ncount = 2\n"));
        for said in ["FLOAT64", "ARRAY<STRING(MAX)>", "ALTER TABLE `t` DROP COLUMN `two`;", "DROP COLUMN `one`;"] {
            assert!(told.contains(said), "{told}");
        }
    }

    #[test]
    fn another_key_is_told_and_has_no_migration() {
        let mut other = table(ONE);
        other.columns[0].kind = "INT64".into();
        let told = lost(&table(ONE).ddl(), &other);
        assert!(told.contains("name another [target] table") && !told.contains("DROP"), "{told}");
        other.key = vec!["sku".into()];
        other.columns[0].name = "sku".into();
        let told = lost(&table(ONE).ddl(), &other);
        assert!(told.contains("the pipeline wants (sku)") && !told.contains("DROP"), "{told}");
    }

    #[test]
    fn a_file_of_somebody_else_is_not_overwritten() {
        assert!(lost("SELECT 1;", &table(ONE)).contains("not a file of `tasuki schema`"));
    }
}
