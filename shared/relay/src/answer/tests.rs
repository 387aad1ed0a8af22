use super::*;
use proptest::prelude::*;
use serde_json::{Map, json};

fn pipeline(answer: &str) -> Pipeline {
    let text = format!(
        "name = \"p\"\nkey = \"id\"\n[prompt]\nsystem = \"You name themes. Answer in the language of the text.\"\n\
         template = \"\"\"Name the themes of this product: {{{{ text }}}}\"\"\"\n[target]\ntable = \"t\"\n{answer}"
    );
    Pipeline::parse(&text).unwrap()
}

fn themes() -> Pipeline {
    pipeline(
        "[answer.themes]\ntype = \"string\"\ncount = 3\ndistinct = true\nmax_chars = 60\ndescription = \"From the most specific to the most general.\"",
    )
}

fn why(pipeline: &Pipeline, text: &str) -> String {
    validate(pipeline, text).unwrap_err().0
}

fn json_of(values: Values) -> Value {
    Value::Object(values)
}

/// What the replies, one after another, leave in the draft; and the answer, if it is complete.
fn replies(pipeline: &Pipeline, texts: &[&str]) -> (Value, Option<Value>) {
    let (judge, mut draft) = (Judge::new(pipeline), Draft::default());
    let mut last = None;
    for text in texts {
        last = judge.take(&mut draft, text).ok().map(json_of);
    }
    (json_of(draft.0), last)
}

#[test]
fn a_valid_answer_comes_back_trimmed() {
    let values = validate(&themes(), " {\"themes\": [\" 茶の香\", \"tea \", \"b\"]} ").unwrap();
    assert_eq!(json_of(values), json!({"themes": ["茶の香", "tea", "b"]}));
}

#[test]
fn each_rule_is_named_with_its_column() {
    let themes = themes();
    assert_eq!(why(&themes, r#"{"themes": ["a"]}"#), "themes: must have 3 values, not 1");
    assert_eq!(why(&themes, r#"{"themes": ["a", "b", " a"]}"#), "themes: no two values may be equal");
    assert_eq!(why(&themes, r#"{"themes": ["a", "b", "  "]}"#), "themes: must not be empty");
    let long = format!(r#"{{"themes": ["a", "b", "{}"]}}"#, "茶".repeat(61));
    assert_eq!(why(&themes, &long), "themes: must have at most 60 characters");
    assert_eq!(why(&themes, r#"{"themes": ["a", "b", 1]}"#), "themes: must be a string");
    assert_eq!(why(&themes, r#"{"themes": "a"}"#), "themes: must be an array");
    assert_eq!(why(&themes, r#"{"themes": ["a", "b", "c"], "themes": ["d"]}"#), "themes: it is there twice");
    let two = pipeline("[answer.a]\ntype = \"string\"\n[answer.b]\ntype = \"string\"");
    assert_eq!(why(&two, r#"{"a": "x"}"#), "b: it is missing");
    assert_eq!(why(&two, r#"{"a": "x", "b": "y"#), "the answer breaks off");
}

#[test]
fn what_is_not_the_object_asked_for_is_refused_without_its_text() {
    for text in ["", "secret", "[\"secret\"]", "{}", r#"{"secret": 1}"#] {
        assert_eq!(why(&themes(), text), "the answer is not a JSON object with the fields that were asked for");
    }
    assert_eq!(why(&themes(), r#"{"themes": ["it"s secret"]}"#), "the answer breaks off");
}

#[test]
fn values_are_equal_whatever_their_width_and_composition() {
    for (one, other) in [("ティー", "ﾃｨｰ"), ("Tea 1", "Ｔｅａ　１"), ("caf\u{e9}", "cafe\u{301}"), ("a  b", "a b")]
    {
        let text = json!({"themes": [one, "x", other]}).to_string();
        assert_eq!(why(&themes(), &text), "themes: no two values may be equal", "{one}");
    }
}

#[test]
fn a_sentence_of_the_instruction_is_no_answer() {
    let echoed = [
        "You name themes.",
        "Answer in the language of the text",
        "Name the themes of this product",
        "from the most specific to the most general",
        "From the most specific to the most general.",
        "From the most specific to the most general. Exactly 3 values, no two equal. Each at most 60 characters.",
    ];
    let told = echoed.map(|echo| validate(&themes(), &json!({"themes": ["a", "b", echo]}).to_string()).is_err());
    // Words are compared as they are written; the last one is longer than the column allows anyway.
    assert_eq!(told, [true, true, true, false, true, true]);
    assert!(validate(&themes(), r#"{"themes": ["themes", "text", "product"]}"#).is_ok(), "words may well be answers");
}

#[test]
fn words_that_the_instruction_prescribes_are_an_answer() {
    let prescribed = "[answer.theme]\ntype = \"string\"\ndescription = \"A theme. If there is none, answer: Not enough information.\"";
    let theme = pipeline(prescribed);
    assert!(validate(&theme, r#"{"theme": "Not enough information."}"#).is_ok());
    assert!(validate(&theme, r#"{"theme": "If there is none, answer:"}"#).is_err());
}

#[test]
fn a_choice_is_taken_as_the_pipeline_writes_it() {
    let mood = pipeline("[answer.mood]\ntype = \"string\"\none_of = [\"warm\", \"ｶﾜｲｲ\"]");
    assert_eq!(json_of(validate(&mood, r#"{"mood": " warm"}"#).unwrap()), json!({"mood": "warm"}));
    assert_eq!(json_of(validate(&mood, r#"{"mood": "カワイイ"}"#).unwrap()), json!({"mood": "ｶﾜｲｲ"}));
    assert_eq!(why(&mood, r#"{"mood": "Warm"}"#), "mood: must be one of one_of");
}

#[test]
fn a_pattern_matches_the_whole_value() {
    let code = pipeline("[answer.code]\ntype = \"string\"\npattern = '[A-Z]{2}|x'");
    assert!(validate(&code, r#"{"code": "AB"}"#).is_ok() && validate(&code, r#"{"code": "x"}"#).is_ok());
    for text in ["ABC", "xA", "ab"] {
        assert_eq!(why(&code, &json!({"code": text}).to_string()), "code: must match pattern [A-Z]{2}|x");
    }
}

#[test]
fn a_text_of_which_nothing_is_seen_is_empty() {
    let word = pipeline("[answer.word]\ntype = \"string\"");
    for text in ["\u{200b}", "\u{feff} \u{2060}\u{ad}", "\u{3164}"] {
        assert_eq!(why(&word, &json!({"word": text}).to_string()), "word: must not be empty");
    }
    assert!(validate(&word, &json!({"word": "\u{200b}茶"}).to_string()).is_ok());
}

#[test]
fn an_integer_has_64_bits_and_no_fraction() {
    let age = pipeline("[answer.age]\ntype = \"integer\"");
    assert_eq!(validate(&age, r#"{"age": -9223372036854775808}"#).unwrap()["age"], json!(i64::MIN));
    for text in [r#"{"age": 9223372036854775808}"#, r#"{"age": 1.0}"#, r#"{"age": "1"}"#, r#"{"age": null}"#] {
        assert_eq!(why(&age, text), "age: must be an integer of 64 bits");
    }
}

#[test]
fn equal_numbers_are_equal_however_they_are_written() {
    let pair = pipeline("[answer.n]\ntype = \"number\"\ncount = 2\ndistinct = true");
    assert_eq!(why(&pair, r#"{"n": [1, 1.0]}"#), "n: no two values may be equal");
    assert_eq!(why(&pair, r#"{"n": [0, -0.0]}"#), "n: no two values may be equal");
    assert_eq!(validate(&pair, r#"{"n": [1, 2.5]}"#).unwrap()["n"], json!([1.0, 2.5]));
}

#[test]
fn an_answer_of_exactly_the_greatest_size_is_read() {
    let note = pipeline("[answer.note]\ntype = \"string\"");
    let answer = |size: usize| format!("{{\"note\":\"{}\"}}", "a".repeat(size - r#"{"note":""}"#.len()));
    assert!(validate(&note, &answer(ANSWER_BYTES_MAX)).is_ok());
    assert!(validate(&note, &answer(ANSWER_BYTES_MAX + 1)).is_err());
}

#[test]
fn more_distinct_values_than_asked_for_are_an_answer() {
    let (_, answer) = replies(&themes(), &[r#"{"themes": ["a", "a", 1, "b", "c", "d"], "note": "x"}"#]);
    assert_eq!(answer, Some(json!({"themes": ["a", "b", "c"]})));
    let place = pipeline("[answer.place]\ntype = \"number\"\ncount = 2");
    assert_eq!(why(&place, r#"{"place": [1, 2, 3]}"#), "place: must have 2 values, not 3", "which two, nobody knows");
}

#[test]
fn what_is_good_of_a_bad_answer_is_kept() {
    assert_eq!(replies(&themes(), &[r#"{"themes": ["a", 1, "b", "a"#]).0, json!({"themes": ["a", "b"]}));
    let place = pipeline("[answer.place]\ntype = \"number\"\ncount = 3\n[answer.ok]\ntype = \"boolean\"");
    let (draft, _) = replies(&place, &[r#"{"place": [1, "x", 3], "ok": true}"#]);
    assert_eq!(draft, json!({"place": [1.0], "ok": true}), "a value's place may mean something");
}

#[test]
fn a_repair_completes_the_answer_and_its_values_come_after_the_kept_ones() {
    let (draft, answer) = replies(&themes(), &[r#"{"themes": ["a", "b", ""]}"#, r#"{"themes": ["a", "c"]}"#]);
    assert_eq!(answer, Some(json!({"themes": ["a", "b", "c"]})));
    assert_eq!(draft, json!({"themes": ["a", "b", "c"]}));
    let (draft, answer) = replies(&themes(), &[r#"{"themes": ["a", "b"]}"#, "nothing", r#"{"themes": ["b"]}"#]);
    assert_eq!((draft, answer), (json!({"themes": ["a", "b"]}), None), "what is kept stays kept");
}

#[test]
fn a_repair_asks_only_for_what_is_missing() {
    let pipeline = Arc::new(pipeline(
        "[answer.themes]\ntype = \"string\"\ncount = 3\ndistinct = true\n[answer.mood]\ntype = \"string\"\n[answer.age]\ntype = \"integer\"",
    ));
    let ask =
        Ask { pipeline: pipeline.clone(), prompt: "P".into(), row: Arc::new(Map::new()), max_output_tokens: None };
    let (judge, mut draft) = (Judge::new(&pipeline), Draft::default());
    judge.take(&mut draft, r#"{"themes": ["a"], "age": 3}"#).unwrap_err();
    assert_eq!(draft.values(), 2);
    let repair = judge.repair(&draft, &ask);
    let columns: Vec<_> = repair.pipeline.answer.iter().map(|column| (column.name.as_str(), column.count)).collect();
    assert_eq!(columns, [("themes", Some(2)), ("mood", None)]);
    assert_eq!(
        repair.prompt,
        "P\n\nThese parts of the answer are there already: {\"age\":3,\"themes\":[\"a\"]}\n\
         Give only what is missing: themes (exactly 2 more), mood. Do not repeat values that are there already."
    );
}

proptest! {
    /// Whatever the replies are, an answer that is called complete is one by the strict rules.
    #[test]
    fn what_is_complete_is_valid(replies in proptest::collection::vec(proptest::collection::vec("[ab ]{0,2}", 0..5), 1..4)) {
        let (pipeline, mut draft) = (themes(), Draft::default());
        let judge = Judge::new(&pipeline);
        for reply in replies {
            if let Ok(values) = judge.take(&mut draft, &json!({"themes": reply}).to_string()) {
                prop_assert_eq!(validate(&pipeline, &json_of(values.clone()).to_string()), Ok(values));
            }
        }
    }
}
