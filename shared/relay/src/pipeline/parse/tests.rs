use super::*;
use crate::pipeline::{DEFAULT_MODEL, ModelSettings, Place, Provider, RunSettings, Thinking};
use crate::prices::{Price, Tier};
use std::time::Duration;

const ALL: &str = r#"name = "themes"
key  = "id"
key_type = "integer"
[prompt]
system   = "You name themes."
template = "{{ name }}: {{ description }}"
[answer.themes]
type = "string"
count = 6
distinct = true
max_chars = 40
description = "Theme names."
[answer.fits]
type = "boolean"
[model]
name = "gemini-3.5-flash"
location = "global"
temperature = 0.4
max_output_tokens = 512
retry_output_tokens = 1024
thinking = "low"
tier = "flex"
fallback = ["gemini-3.5-flash@us", "gemini-3.5-flash-lite@002"]
price = { input = 0.5, output = 3, thought = 4, cached = 0.05 }
requests_per_minute = 4000
tokens_per_minute = 2000000
[run]
rows_per_shard = 100
max_in_flight  = 50
paid_retries = 0
give_up_after = "6h 30m"
only_changed = true
reuse_answers = true
max_cost_usd = 12.5
[target]
table = "row_themes"
"#;

const LEAST: &str =
    "name = 'p'\nkey = 'id'\n[prompt]\ntemplate = '{{ text }}'\n[answer.a]\ntype = 'number'\n[target]\ntable = 't'\n";

/// What is said of `LEAST` with one text in place of another.
fn said(old: &str, new: &str) -> String {
    assert!(LEAST.contains(old), "{old}");
    match Pipeline::parse(&LEAST.replacen(old, new, 1)) {
        Ok(_) => "nothing".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

fn columns(template: &str) -> Vec<String> {
    Pipeline::parse(&LEAST.replace("'{{ text }}'", &format!("'''{template}'''"))).unwrap().columns
}

fn said_of_template(template: &str) -> String {
    said("'{{ text }}'", &format!("'''{template}'''"))
}

#[test]
fn every_field_is_read() {
    let pipeline = Pipeline::parse(ALL).unwrap();
    assert_eq!(
        pipeline,
        Pipeline {
            name: "themes".into(),
            key: "id".into(),
            key_type: KeyType::Integer,
            system: Some("You name themes.".into()),
            template: "{{ name }}: {{ description }}".into(),
            columns: vec!["description".into(), "name".into()],
            answer: vec![
                AnswerColumn {
                    name: "themes".into(),
                    value_type: ValueType::String,
                    count: Some(6),
                    distinct: true,
                    max_chars: Some(40),
                    one_of: None,
                    pattern: None,
                    description: Some("Theme names.".into()),
                },
                AnswerColumn {
                    name: "fits".into(),
                    value_type: ValueType::Boolean,
                    count: None,
                    distinct: false,
                    max_chars: None,
                    one_of: None,
                    pattern: None,
                    description: None,
                },
            ],
            model: ModelSettings {
                provider: Provider::Google,
                name: "gemini-3.5-flash".into(),
                location: Some("global".into()),
                temperature: Some(0.4),
                max_output_tokens: Some(512),
                retry_output_tokens: Some(1024),
                thinking: Some(Thinking::Low),
                tier: Tier::Flex,
                fallback: vec![
                    Place { model: "gemini-3.5-flash".into(), location: Some("us".into()) },
                    Place { model: "gemini-3.5-flash-lite@002".into(), location: None },
                ],
                price: Some(Price::per_million(0.5, 3.0, Some(4.0), Some(0.05))),
                requests_per_minute: Some(4_000),
                tokens_per_minute: Some(2_000_000),
            },
            run: RunSettings {
                rows_per_shard: Some(100),
                max_in_flight: 50,
                paid_retries: 0,
                give_up_after: Some(Duration::from_secs(6 * 3600 + 30 * 60)),
                only_changed: true,
                reuse_answers: true,
                max_cost: Some(12_500_000_000_000),
            },
            table: "row_themes".into(),
        }
    );
}

#[test]
fn what_is_left_out_has_its_default() {
    let pipeline = Pipeline::parse(LEAST).unwrap();
    assert_eq!((pipeline.key_type, pipeline.system), (KeyType::String, None));
    let model = ModelSettings {
        provider: Provider::Google,
        name: DEFAULT_MODEL.into(),
        location: None,
        temperature: None,
        max_output_tokens: None,
        retry_output_tokens: None,
        thinking: Some(Thinking::Minimal),
        tier: Tier::Standard,
        fallback: vec![],
        price: None,
        requests_per_minute: None,
        tokens_per_minute: None,
    };
    assert_eq!(pipeline.model, model);
    let run = RunSettings {
        rows_per_shard: None,
        max_in_flight: 5_000,
        paid_retries: 1,
        give_up_after: None,
        only_changed: false,
        reuse_answers: false,
        max_cost: None,
    };
    assert_eq!(pipeline.run, run);
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let text = r#"name = "Themes"
keys = "id"
[prompt]
template = "{{ name }"
[answer.model]
type = "strng"
count = 0
[modle]
temperature = 3
[run]
only_changed = "yes"
[target]
"#;
    let expected = r#"themes.toml:1:1: the pipeline needs key: write key = "id", the column that identifies a row
themes.toml:1:8: name cannot be "Themes": a lower-case letter, then at most 30 of a-z, 0-9 and -
themes.toml:2:1: unknown field "keys": did you mean "key"? Allowed: name, key, key_type, prompt, answer, model, run, target
themes.toml:4:21: template: unexpected `}`, expected end of variable block
themes.toml:5:9: an answer column cannot be "model": Tasuki writes the columns run, run_time, ordinal, source_time, model, fingerprint, prompt_tokens, output_tokens, thought_tokens, cached_tokens, cost, committed_at itself
themes.toml:6:8: type cannot be "strng": did you mean "string"? Allowed: string, integer, number, boolean
themes.toml:7:9: count must be 1 to 100
themes.toml:8:2: unknown field "modle": did you mean "model"? Allowed: name, key, key_type, prompt, answer, model, run, target
themes.toml:11:16: only_changed must be true or false, not a string
themes.toml:12:2: [target] needs table: write table = "row_themes""#;
    assert_eq!(Pipeline::parse(text).unwrap_err().in_file("themes.toml"), expected);
}

#[test]
fn an_empty_file_says_all_that_is_needed() {
    let problems = Pipeline::parse("").unwrap_err();
    let needs: Vec<&str> = problems.0.iter().map(|problem| problem.message.split(':').next().unwrap()).collect();
    let expected = ["name", "key", "prompt", "answer", "target"].map(|field| format!("the pipeline needs {field}"));
    assert_eq!(needs, expected);
    assert!(problems.0.iter().all(|problem| (problem.line, problem.column) == (1, 1)));
}

#[test]
fn every_syntax_error_has_its_place() {
    let problems = Pipeline::parse("name = \nkey = 'id'\nkey = 'id'\n").unwrap_err();
    assert_eq!(problems.0.len(), 2, "{problems}");
    assert_eq!(problems.0.iter().map(|problem| problem.line).collect::<Vec<_>>(), [1, 3], "{problems}");
    assert!(problems.0.iter().all(|problem| problem.message.starts_with("not TOML: ")));
}

#[test]
fn a_column_counts_characters_not_bytes() {
    let said = said("'{{ text }}'", "'商品 {{ text | uper }}'");
    assert!(said.starts_with("4:26: template: there is no filter \"uper\""), "{said}");
}

#[test]
fn numbers_out_of_range_name_the_range() {
    let model = |field: &str| said("[target]", &format!("[model]\n{field}\n[target]"));
    let run = |field: &str| said("[target]", &format!("[run]\n{field}\n[target]"));
    assert!(model("temperature = 2.1").ends_with("temperature must be 0 to 2"));
    assert!(model("temperature = -1").ends_with("temperature must be 0 to 2"));
    assert!(model("temperature = nan").ends_with("temperature must be 0 to 2"));
    assert_eq!(model("temperature = 2"), "nothing");
    assert!(model("max_output_tokens = 65537").ends_with("max_output_tokens must be 1 to 65536"));
    assert!(model("requests_per_minute = 0").ends_with("requests_per_minute must be 1 to 1000000000"));
    assert!(model("tokens_per_minute = 1.5").ends_with("tokens_per_minute must be an integer, not a float"));
    assert!(run("rows_per_shard = 1001").ends_with("rows_per_shard must be 1 to 1000"));
    assert!(run("max_in_flight = 99999999999999999999").ends_with("max_in_flight must be 1 to 100000"));
    assert!(run("paid_retries = -1").ends_with("paid_retries must be 0 to 5"));
    assert!(run("paid_retries = 1.0").ends_with("paid_retries must be an integer, not a float"));
    assert_eq!(run("paid_retries = 0x5"), "nothing");
}

#[test]
fn a_retry_needs_more_tokens_than_the_first_call() {
    let model = |fields: &str| said("[target]", &format!("[model]\n{fields}\n[target]"));
    assert_eq!(model("max_output_tokens = 8\nretry_output_tokens = 9"), "nothing");
    assert!(
        model("max_output_tokens = 8\nretry_output_tokens = 8").starts_with("9:23: retry_output_tokens must exceed")
    );
    assert!(model("retry_output_tokens = 8").contains("[model] needs max_output_tokens"));
}

#[test]
fn a_duration_is_read_and_a_bad_one_refused() {
    let run = |field: &str| said("[target]", &format!("[run]\n{field}\n[target]"));
    assert_eq!(run("give_up_after = '1h 30m'"), "nothing");
    for bad in ["''", "'6'", "'six hours'", "'0s'"] {
        assert!(run(&format!("give_up_after = {bad}")).starts_with("8:17: give_up_after must be a duration"), "{bad}");
    }
}

#[test]
fn columns_of_the_target_do_not_collide() {
    assert!(said("answer.a", "answer.ID").contains("\"ID\" is the key"));
    assert!(said("[target]", "[answer.A]\ntype = 'number'\n[target]").contains("\"a\" and \"A\" are one column"));
    assert!(said("answer.a", "answer.Run_Time").contains("an answer column cannot be \"Run_Time\""));
    assert!(said("'id'", "'run'").contains("key cannot be \"run\""));
    assert!(said("'id'", "'1d'").contains("key cannot be \"1d\": a letter"));
    assert!(said("answer.a", "answer.\"a b\"").contains("cannot be \"a b\": a letter"));
    assert!(said("'t'", "'a-b'").contains("table cannot be \"a-b\""));
    assert!(said("'t'", "'Runs'").contains("Tasuki's own"));
    assert_eq!(said("'id'", &format!("'{}'", "k".repeat(128))), "nothing");
    assert_ne!(said("'id'", &format!("'{}'", "k".repeat(129))), "nothing");
}

#[test]
fn rules_of_an_answer_that_no_answer_could_keep_are_refused() {
    assert!(said("'number'", "'number'\ndistinct = true").contains("distinct needs count"));
    assert!(said("'number'", "'number'\nmax_chars = 9").contains("max_chars is for strings"));
    assert!(said("'number'", "'boolean'\ncount = 3\ndistinct = true").contains("only 2 booleans"));
    assert_eq!(said("'number'", "'boolean'\ncount = 2\ndistinct = true"), "nothing");
}

#[test]
fn choices_and_patterns_that_say_nothing_or_cannot_be_kept_are_refused() {
    let string = |rules: &str| said("'number'", &format!("'string'\n{rules}"));
    assert_eq!(string("one_of = ['warm', 'cold']"), "nothing");
    assert_eq!(string("pattern = '[A-Z]+'"), "nothing");
    assert!(said("'number'", "'number'\none_of = ['1', '2']").contains("one_of is for strings"));
    assert!(said("'number'", "'integer'\npattern = '1'").contains("pattern is for strings"));
    assert!(string("one_of = ['a']").contains("one_of must have 2 to 200 choices, not 1"));
    let words = |count| format!("one_of = [{}]", (0..count).map(|n| format!("'w{n}'")).collect::<Vec<_>>().join(", "));
    assert_eq!((string(&words(200)).as_str(), string(&words(201)).contains("not 201")), ("nothing", true));
    assert!(string("one_of = ['a', 'b']\ncount = 3\ndistinct = true").contains("3 distinct values cannot come from 2"));
    assert!(string("one_of = ['a', 'ａ']").contains("\"ａ\" and \"a\" are one choice"));
    assert!(string("one_of = ['a', ' b']").contains("without spaces around it"));
    assert!(string("one_of = ['a', 'b']\nmax_chars = 3").contains("max_chars says nothing beside one_of"));
    assert!(string("one_of = ['a', 'b']\npattern = 'a'").contains("pattern says nothing beside one_of"));
    assert!(string("pattern = '[A-Z'").contains("pattern is no regular expression"));
    assert!(string("pattern = 'a)|(?:b'").contains("pattern is no regular expression"), "only within ours it is one");
}

#[test]
fn a_location_is_global_a_multi_region_or_a_region() {
    let location = |name: &str| said("[target]", &format!("[model]\nlocation = '{name}'\n[target]"));
    for known in ["global", "us", "eu", "us-central1", "europe-west12", "northamerica-northeast1"] {
        assert_eq!(location(known), "nothing", "{known}");
    }
    let long = format!("{}-west1", "a".repeat(63));
    for other in
        ["", "Global", "europe", "us-central", "us-1", "-west1", "us-west1a", "us.evil.example", "us-west1/x", &long]
    {
        assert!(location(other).starts_with("8:12: location is \"global\""), "{other}: {}", location(other));
    }
}

#[test]
fn a_tier_is_served_in_global_alone() {
    let model = |fields: &str| said("[target]", &format!("[model]\n{fields}\n[target]"));
    assert_eq!(model("tier = 'flex'"), "nothing");
    assert_eq!(model("tier = 'standard'\nlocation = 'eu'"), "nothing");
    assert!(model("tier = 'priority'\nlocation = 'eu'").starts_with("8:8: flex and priority are served in one place"));
    assert!(model("tier = 'batch'").contains("Allowed: standard, flex, priority"));
}

#[test]
fn a_fallback_names_places() {
    let fallback = |words: &str| said("[target]", &format!("[model]\nfallback = [{words}]\n[target]"));
    assert_eq!(fallback("'gemini-3.5-flash-lite@us', 'gemini-3.5-flash'"), "nothing");
    assert!(fallback("'m@us', 'm@us'").starts_with("8:21: \"m@us\" stands there twice"));
    assert!(fallback("'@us'").contains("\"@us\" is no place"));
    assert!(fallback("'gemini-3.5-flash-lite'").starts_with("8:13: \"gemini-3.5-flash-lite\" is the model itself"));
    let there =
        |word: &str| said("[target]", &format!("[model]\nname='m'\nlocation='eu'\nfallback=['{word}']\n[target]"));
    assert!(there("m@eu").contains("\"m@eu\" is the model itself"));
    assert_eq!([there("m"), there("m@us")], ["nothing", "nothing"]);
    assert!(fallback("'a', 'b', 'c', 'd', 'e', 'f'").starts_with("8:1: fallback names 6 places: 5 at most"));
}

#[test]
fn another_provider_has_models_of_any_name_and_no_places() {
    let model = |fields: &str| said("[target]", &format!("[model]\nprovider = 'openai'\n{fields}\n[target]"));
    assert_eq!(model("name = 'meta/llama-3:8b'\nfallback = ['other/one@us']\ntier = 'flex'"), "nothing");
    assert!(model("").contains("[model] needs name"));
    assert!(model("name = 'm'\nlocation = 'eu'").contains("location is for Google's models"));
    let text = LEAST.replace("[target]", "[model]\nprovider = 'openai'\nname = 'm'\n[target]");
    assert_eq!(Pipeline::parse(&text).unwrap().model.thinking, None);
}

#[test]
fn a_price_is_whole_and_a_cap_knows_the_worst_case_of_a_call() {
    let with = |fields: &str| said("[target]", &format!("{fields}\n[target]"));
    assert_eq!(with("[model.price]\ninput = 0.3\noutput = 2.5"), "nothing");
    assert!(with("[model.price]\ninput = 0.3").contains("[model.price] needs output"));
    let told = with("[model.price]\ninput = -1\noutput = 1");
    assert!(told.contains("input must be 0 to 100000, in dollars for a million tokens"), "{told}");
    assert!(with("[run]\nmax_cost_usd = 5").starts_with("8:16: max_cost_usd sets the worst case of each call aside"));
    assert_eq!(with("[model]\nmax_output_tokens = 512\n[run]\nmax_cost_usd = 5"), "nothing");
}

#[test]
fn a_price_for_one_token_is_no_price_for_a_million() {
    let with = |input: &str| said("[target]", &format!("[model.price]\ninput = {input}\noutput = 2.5\n[target]"));
    let told = with("0.0000003");
    assert_eq!(told, "8:9: input is a price in dollars for a million tokens, not for one: write 0, or 0.001 or more");
    assert_eq!([with("0"), with("0.001")], ["nothing", "nothing"]);
}

#[test]
fn a_table_that_is_none_is_told() {
    assert!(said("[answer.a]\ntype = 'number'", "[answer]").contains("[answer] has no column"));
    assert!(said("[answer.a]\ntype", "[answer]\na").contains("a must be a table [answer.a], not a string"));
    assert!(said("[target]\ntable = 't'", "").contains("the pipeline needs target"));
    let text = LEAST.replace("[target]\ntable = 't'\n", "");
    assert!(
        Pipeline::parse(&format!("target = 't'\n{text}")).unwrap_err().to_string().contains("must be a table [target]")
    );
}

#[test]
fn a_shard_that_exceeds_one_commit_is_refused_with_the_greatest_that_does_not() {
    let answers =
        |count: usize| (0..count).map(|n| format!("[answer.c{n}]\ntype = 'number'\n")).collect::<String>() + "[target]";
    // 66 answers, the key and 12 columns of Tasuki's are 79: 1,000 rows of them and 200 more are 79,200 mutations.
    assert_eq!(said("[target]", &answers(65)), "nothing");
    assert!(said("[target]", &answers(66)).contains("write [run] rows_per_shard = 997 or less"));
    let with = |rows| said("[target]", &format!("[run]\nrows_per_shard = {rows}\n{}", answers(66)));
    assert_eq!(with(997), "nothing");
    assert!(with(998).starts_with("8:18: a shard of 998 rows"));
}

#[test]
fn an_answer_has_so_many_values_at_most() {
    let two = "'number'\ncount = 100\n[answer.b]\ntype = 'number'\ncount = 100\n[answer.c]\ntype = 'number'\ncount = ";
    assert_eq!(said("'number'", &format!("{two}56")), "nothing");
    assert!(said("'number'", &format!("{two}57")).starts_with("5:2: an answer of 257 values"));
}

#[test]
fn a_file_beyond_the_limit_is_not_read() {
    let text = |size: usize| format!("{LEAST}#{}", "a".repeat(size - LEAST.len() - 1));
    assert!(Pipeline::parse(&text(PIPELINE_BYTES_MAX)).is_ok());
    assert!(Pipeline::parse(&text(PIPELINE_BYTES_MAX + 1)).unwrap_err().to_string().contains("at most 1048576"));
}

#[test]
fn the_columns_of_a_template_are_found_whatever_their_names() {
    assert_eq!(
        columns("{{ 商品名 }} {{ row[\"product name\"] }} {{ row.price }}"),
        ["price", "product name", "商品名"]
    );
    assert_eq!(columns("{{ row['a'] }}{{ row[\"a\"].b }}{{ spec.color }}{{ tags[0] }}"), ["a", "spec", "tags"]);
    // These three are missed by the library's own list.
    assert_eq!(columns("{{ text[:100] }}"), ["text"]);
    assert_eq!(columns("{% set text = text | upper %}{{ text }}"), ["text"]);
    assert_eq!(columns("{% filter replace(from, to) %}x{% endfilter %}"), ["from", "to"]);
}

#[test]
fn variables_of_the_template_are_no_columns() {
    assert_eq!(columns("{% for tag in tags %}{{ loop.index }} {{ tag }}{{ loop.cycle(1, 2) }}{% endfor %}"), ["tags"]);
    assert_eq!(columns("{% with a = x %}{{ a }}{% endwith %}{{ range(3) }}"), ["x"]);
    assert_eq!(columns("{% if x %}{% set a = 1 %}{% else %}{% set a = 2 %}{% endif %}{{ a }}"), ["x"]);
    assert_eq!(columns("{% if x %}{% set a = 1 %}{% endif %}{{ a }}"), ["a", "x"]);
    assert_eq!(columns("{# {{ no }} #}{% raw %}{{ no }}{% endraw %}{{ yes }}"), ["yes"]);
}

#[test]
fn a_template_that_cannot_be_known_is_refused_where_it_stands() {
    assert!(said_of_template("\n{{ x }}\n {{ row[x] }}").starts_with("6:9: template: a column is named by a string"));
    assert!(said_of_template("{{ row }}").starts_with("4:18: template: row is the whole row"));
    assert!(said_of_template("{{ x.upper() }}").contains("use a filter"));
    assert!(said_of_template("{{ now() }}{{ x }}").contains("there is no function \"now\""));
    assert!(said_of_template("{% if x is vowel %}{% endif %}").contains("there is no test \"vowel\""));
    assert!(said_of_template("the same for all").contains("names no column"));
    for other in ["include 'x'", "import 'x' as y", "extends 'x'", "from 'x' import y"] {
        let said = said_of_template(&format!("{{{{ x }}}}\n{{% {other} %}}"));
        assert!(said.starts_with("5:"), "{said}");
        assert!(said.contains("a template is one text"), "{said}");
    }
    let said = said_of_template("{{ x }}{% macro a() %}{% endmacro %}");
    assert!(said.contains("there are no blocks and macros"), "{said}");
}

#[test]
fn a_template_with_escapes_names_its_own_line() {
    let said = said("'{{ text }}'", "\"a\\n{{ text | uper }}\"");
    assert!(said.starts_with("4:12: template, its line 2: there is no filter"), "{said}");
}
