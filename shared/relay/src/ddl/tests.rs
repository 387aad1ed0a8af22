use super::*;
use crate::pipeline::RESERVED_COLUMNS;

fn pipeline(answers: &str) -> Pipeline {
    let text = format!(
        "name = \"p\"\nkey = \"select\"\nkey_type = \"integer\"\n[prompt]\ntemplate = \"{{{{ text }}}}\"\n{answers}\
         [target]\ntable = \"from\"\n"
    );
    Pipeline::parse(&text).unwrap()
}

const ALL: &str = "[answer.order]\ntype = \"string\"\ncount = 6\n[answer.stars]\ntype = \"integer\"\n\
                   [answer.score]\ntype = \"number\"\n[answer.good]\ntype = \"boolean\"\ncount = 2\n";

#[test]
fn a_pipeline_wants_this_table() {
    let ddl = target(&pipeline(ALL)).ddl();
    let expected = "\
CREATE TABLE IF NOT EXISTS `from` (
  `select` INT64 NOT NULL,
  `order` ARRAY<STRING(MAX)>,
  `stars` INT64,
  `score` FLOAT64,
  `good` ARRAY<BOOL>,
  `run` STRING(27) NOT NULL,
  `run_time` TIMESTAMP NOT NULL,
  `ordinal` INT64 NOT NULL,
  `source_time` TIMESTAMP NOT NULL,
  `model` STRING(MAX) NOT NULL,
  `fingerprint` STRING(MAX) NOT NULL,
  `prompt_tokens` INT64 NOT NULL,
  `output_tokens` INT64 NOT NULL,
  `thought_tokens` INT64 NOT NULL,
  `cached_tokens` INT64 NOT NULL,
  `cost` FLOAT64,
  `committed_at` TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (`select`);

ALTER TABLE `from` ADD COLUMN IF NOT EXISTS `order` ARRAY<STRING(MAX)>;
ALTER TABLE `from` ADD COLUMN IF NOT EXISTS `stars` INT64;
ALTER TABLE `from` ADD COLUMN IF NOT EXISTS `score` FLOAT64;
ALTER TABLE `from` ADD COLUMN IF NOT EXISTS `good` ARRAY<BOOL>;

GRANT SELECT, INSERT, UPDATE ON TABLE `from` TO ROLE loader;
GRANT SELECT ON TABLE `from` TO ROLE splitter, reader;
";
    assert_eq!(ddl, expected);
}

#[test]
fn the_columns_that_tasuki_writes_are_those_that_no_pipeline_may_name() {
    assert_eq!(OURS.map(|(name, ..)| name), RESERVED_COLUMNS);
}

#[test]
fn what_is_written_is_read_back() {
    let table = target(&pipeline(ALL));
    assert_eq!(tables(&table.ddl()), std::slice::from_ref(&table));
    assert_eq!(statements(&table.ddl()).len(), 7);
    assert_eq!(differences(&table, &table), []);
}

#[test]
fn comments_and_constraints_are_no_columns() {
    let text = "-- why; not\nCREATE TABLE Outbox (\n  id STRING(64) NOT NULL, -- one; only\n  at TIMESTAMP,\n  \
                CONSTRAINT c FOREIGN KEY (id) REFERENCES Runs (run),\n) PRIMARY KEY (id, at),\n  INTERLEAVE IN PARENT Runs;\n";
    let [table] = &tables(text)[..] else { panic!("one table") };
    assert_eq!((table.name.as_str(), &table.key[..]), ("Outbox", &["id".to_owned(), "at".to_owned()][..]));
    let columns: Vec<_> = table.columns.iter().map(|c| (c.name.as_str(), c.kind.as_str(), c.required)).collect();
    assert_eq!(columns, [("id", "STRING(64)", true), ("at", "TIMESTAMP", false)]);
}

#[test]
fn every_difference_is_told() {
    let there = target(&pipeline(ALL));
    let mut wanted = target(&pipeline("[answer.ORDER]\ntype = \"string\"\n[answer.new]\ntype = \"string\"\n"));
    wanted.key = vec!["id".into()];
    let told: Vec<String> = differences(&there, &wanted).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "its key is (select), the pipeline wants (id)",
            "its column ORDER is ARRAY<STRING(MAX)>, the pipeline wants STRING(MAX)",
            "it has no column new",
            "it has a column stars that no pipeline writes",
            "it has a column score that no pipeline writes",
            "it has a column good that no pipeline writes",
        ]
    );
}

#[test]
fn pipelines_of_one_target_share_its_table() {
    let other = target(&pipeline("[answer.stars]\ntype = \"integer\"\n[answer.new]\ntype = \"string\"\n"));
    let [table] = &merge([("a", target(&pipeline(ALL))), ("b", other)]).unwrap()[..] else { panic!("one table") };
    let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names[..7], ["select", "order", "stars", "score", "good", "new", "run"]);
    assert_eq!(tables(&table.ddl()), std::slice::from_ref(table));
}

#[test]
fn pipelines_that_contradict_each_other_are_told_all_at_once() {
    let mut other = target(&pipeline("[answer.score]\ntype = \"integer\"\n"));
    other.columns[0].kind = "STRING(1024)".into();
    let told = merge([("a", target(&pipeline(ALL))), ("b", other)]).unwrap_err().join("\n");
    assert!(told.contains("select is INT64, the pipeline wants STRING(1024)") && told.contains("score"), "{told}");
}
