use super::*;

const OUT: &[&str] = &["schema", "p.toml", "--out", "ddl"];

/// Pipeline p with a key and answers as given, each a name and a type.
fn with_answers(key: &str, answers: &[(&str, &str)]) -> String {
    let answers: String = answers.iter().map(|(name, kind)| format!("[answer.{name}]\ntype = \"{kind}\"\n")).collect();
    format!(
        "name = \"p\"\nkey = \"{key}\"\n[prompt]\ntemplate = \"{{{{ text }}}}\"\n{answers}[target]\ntable = \"themes\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_of_pipelines_are_printed() {
    let desk = Desk::new();
    desk.write("p.toml", pipeline(""));
    desk.write("q.toml", pipeline("").replace("\"p\"", "\"q\"").replace("\"themes\"", "\"order\""));
    let done = desk.tasuki(&["schema", "p.toml", "q.toml"]).await;
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{done:?}");
    for said in ["CREATE TABLE IF NOT EXISTS `themes` (", "CREATE TABLE IF NOT EXISTS `order` (", "TO ROLE loader;"] {
        assert!(done.out.contains(said), "{said:?} in {}", done.out);
    }
    assert!(!desk.path(".tasuki").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_time_changes_nothing_and_a_new_answer_is_added() {
    let desk = Desk::new();
    desk.write("p.toml", pipeline(""));
    let done = desk.tasuki(&[OUT, &["--check"]].concat()).await;
    assert_eq!(done.code, Some(1), "the file is not there: {done:?}");
    assert!(!desk.path("ddl").exists());

    assert_eq!(desk.tasuki(OUT).await.out.trim(), "ddl/themes.sql");
    let first = fs::read_to_string(desk.path("ddl/themes.sql")).unwrap();
    let again = desk.tasuki(OUT).await;
    assert_eq!((again.code, again.out.as_str()), (Some(0), ""));
    assert_eq!(fs::read_to_string(desk.path("ddl/themes.sql")).unwrap(), first);
    assert_eq!(desk.tasuki(&[OUT, &["--check"]].concat()).await.code, Some(0));

    desk.write("p.toml", with_answers("id", &[("theme", "string"), ("score", "number")]));
    let stale = desk.tasuki(&[OUT, &["--check"]].concat()).await;
    assert!(stale.code == Some(1) && stale.err.contains("ddl/themes.sql is not up to date"), "{stale:?}");
    assert_eq!(fs::read_to_string(desk.path("ddl/themes.sql")).unwrap(), first);
    assert_eq!(desk.tasuki(OUT).await.code, Some(0));
    let second = fs::read_to_string(desk.path("ddl/themes.sql")).unwrap();
    assert!(second.contains("ALTER TABLE `themes` ADD COLUMN IF NOT EXISTS `score` FLOAT64;"), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_loses_answers_is_refused_with_its_migration() {
    let desk = Desk::new();
    desk.write("p.toml", with_answers("id", &[("theme", "string"), ("score", "number")]));
    desk.tasuki(OUT).await;
    let before = fs::read_to_string(desk.path("ddl/themes.sql")).unwrap();
    desk.write("p.toml", with_answers("id", &[("score", "integer")]));
    let done = desk.tasuki(OUT).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    for said in ["DROP COLUMN `theme`;", "DROP COLUMN `score`;", "FLOAT64", "INT64", "nothing was written"] {
        assert!(done.err.contains(said), "{said:?} in {}", done.err);
    }
    desk.write("p.toml", with_answers("sku", &[("theme", "string"), ("score", "number")]));
    assert!(desk.tasuki(OUT).await.err.contains("A table keeps its key"));
    assert_eq!(fs::read_to_string(desk.path("ddl/themes.sql")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_of_every_pipeline_is_told_at_once() {
    let desk = Desk::new();
    desk.write("p.toml", with_answers("id", &[("theme", "string")]));
    desk.write("q.toml", with_answers("id", &[("theme", "number")]).replace("\"p\"", "\"q\""));
    desk.write("r.toml", "name = 1");
    let done = desk.tasuki(&["schema", "p.toml", "q.toml", "r.toml", "none.toml"]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{done:?}");
    for said in ["r.toml:1:", "none.toml", "pipeline q shares table themes"] {
        assert!(done.err.contains(said), "{said:?} in {}", done.err);
    }
}
