//! A model for those who have no key yet. It makes answers of the row's own words, the same for the same row, and says so.
//!
//! Words are runs of one script in the columns that the template names (but not the key), in order of
//! occurrences × length × weight of the script, then of their place. Japanese has no spaces: runs of kanji and of katakana are
//! words, hiragana only separates. Where a row has too few words, two of them make one ("A B"), then a word and a number.

use crate::answer::normal;
use crate::pipeline::{AnswerColumn, Pipeline, Provider, ValueType};
use crate::ports::{Ask, Fault, Model, Reply};
use async_trait::async_trait;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// The stand-in model. Charges nothing, never fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandIn;

impl StandIn {
    /// What a person must read wherever its answers are shown.
    pub const NOTE: &str = "stand-in model: set GEMINI_API_KEY to ask Gemini";
    /// The same, where it is known whom the pipeline meant.
    pub fn note(provider: Provider) -> &'static str {
        match provider {
            Provider::Google => StandIn::NOTE,
            Provider::OpenAi => {
                "stand-in model: set OPENAI_API_KEY to ask OpenAI, or OPENAI_BASE_URL to ask another server"
            }
        }
    }
    /// The model's name in its replies.
    pub const MODEL: &str = "stand-in";
}

/// Longest value in bytes: [`crate::pipeline::VALUES_MAX`] of them fit into an answer.
const VALUE_BYTES_MAX: usize = 96;

/// Most characters of a row that are looked at: a description is enough, a megabyte would cost time and change nothing.
const TEXT_CHARS_MAX: usize = 4_000;

/// Longest word in characters that counts for its length: a longer run is more likely a code than a theme.
const WORD_CHARS_COUNTED: usize = 8;

/// Words that say nothing of a row.
static STOP_WORDS: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    "
        about above across after again against all almost along also always among and another any anyone anything are
        around away back because been before behind below beneath beside between both but can cannot comes could cut
        does down during each early easily eight eighty enough even every everyone everything few fifty first five for
        forty four from gives has have her here herself him himself his how hundred included inside instead into its
        itself just keep keeps last later least less like made makes many may might minutes more most much must near
        need never nine nobody not nothing off once one only onto other our out outside over own quickly same seconds
        seven she should since six sixty small some someone something somewhere still such takes than that the their
        them themselves then there these they thirty this those thousand thousands three through too towards twelve
        twenty two under underneath until upon use used usually very was well were what whatever when whenever where
        which while who whose will with within without would you your yourself
        セット 一つ 一人 一年 一度 一日 一時間 一枚 一緒 一見 三十分 三日間 三種類 上 下 不思議 中 二十分 人
        今 仕上 以上 以下 使用 全体 内 分 前 十五分 可能 同 向 回 場合 場所 外 大 少 店内 度 必要 手 方
        日 時 時間 最初 最後 本 毎日 気 用品 目 自分 自然 見 部分 間 風 高
    "
    .split_whitespace()
    .collect()
});

#[async_trait]
impl Model for StandIn {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        let text = Value::Object(answer(&ask.pipeline, &ask.row)).to_string();
        Ok(Reply { text, finish: Some("STOP".to_owned()), model: Self::MODEL.to_owned(), ..Reply::default() })
    }
}

fn answer(pipeline: &Pipeline, row: &Map<String, Value>) -> Map<String, Value> {
    let words = ranked(&texts(pipeline, row));
    let seed = Seed::of(row);
    pipeline.answer.iter().map(|column| (column.name.clone(), column_value(column, &words, &seed))).collect()
}

/// The texts of the columns that the template names; where none holds text, those of the whole row.
fn texts<'r>(pipeline: &Pipeline, row: &'r Map<String, Value>) -> Vec<&'r str> {
    let named = pipeline.columns.iter().filter(|column| **column != pipeline.key).filter_map(|column| row.get(column));
    let named: Vec<&str> = named.filter_map(Value::as_str).collect();
    if named.iter().all(|text| text.trim().is_empty()) {
        row.values().filter_map(Value::as_str).collect()
    } else {
        named
    }
}

fn column_value(column: &AnswerColumn, words: &[String], seed: &Seed) -> Value {
    let count = column.count.unwrap_or(1) as usize;
    let most = column.max_chars.unwrap_or(u32::MAX) as usize;
    let mut values: Vec<Value> = match column.value_type {
        ValueType::String => match &column.one_of {
            Some(choices) => chosen(choices, seed.of_column(&column.name, choices.len() as u64), count),
            None => themes(words, &column.name, most, count).into_iter().map(Value::from).collect(),
        },
        ValueType::Integer => (0..count).map(|n| (seed.of_column(&column.name, 100) + n as u64).into()).collect(),
        ValueType::Number => {
            (0..count).map(|n| ((seed.of_column(&column.name, 100) + n as u64) as f64 / 100.0).into()).collect()
        }
        ValueType::Boolean => {
            (0..count).map(|n| (seed.of_column(&column.name, 2) + n as u64).is_multiple_of(2).into()).collect()
        }
    };
    match column.count {
        Some(_) => Value::Array(values),
        None => values.swap_remove(0),
    }
}

/// `count` choices, from the one that the row falls on: distinct, as long as there are so many.
fn chosen(choices: &[String], first: u64, count: usize) -> Vec<Value> {
    choices.iter().cycle().skip(first as usize).take(count).map(|choice| choice.as_str().into()).collect()
}

/// `count` texts of at most `most` characters, no two equal: words, then pairs of words, then whatever is distinct.
fn themes(words: &[String], column: &str, most: usize, count: usize) -> Vec<String> {
    let fallback = [column.to_owned()];
    let words = if words.is_empty() { &fallback } else { words };
    let pairs = words.iter().flat_map(|a| words.iter().filter(move |b| a != *b).map(move |b| format!("{a} {b}")));
    let numbered = (2..=count).map(|n| format!("{} {n}", words[0]));
    let fits = |text: &String| text.chars().count() <= most && text.len() <= VALUE_BYTES_MAX;
    let shortened = words.iter().map(|word| shorten(word, most));
    // Single characters, common kanji first: the last resort, needed when `most` is 1 or 2.
    let single = ('一'..='龯').map(String::from);
    let candidates = words.iter().filter(|word| fits(word)).cloned().chain(pairs.filter(fits));
    let candidates = candidates.chain(shortened).chain(numbered.filter(fits)).chain(single);
    let mut seen = BTreeSet::new();
    candidates.filter(|text| !text.is_empty() && seen.insert(normal(text))).take(count).collect()
}

/// The first characters of a word, within `most` characters and [`VALUE_BYTES_MAX`].
fn shorten(word: &str, most: usize) -> String {
    let mut short: String = word.chars().take(most).collect();
    short.truncate(short.floor_char_boundary(VALUE_BYTES_MAX));
    short
}

/// Distinct words, the best first.
fn ranked(texts: &[&str]) -> Vec<String> {
    struct Word<'t> {
        first: usize,
        text: &'t str,
        occurrences: usize,
        weight: usize,
    }
    let mut words: BTreeMap<String, Word<'_>> = BTreeMap::new();
    for (place, (script, text)) in texts.iter().flat_map(|text| runs(text)).enumerate() {
        let folded = text.to_lowercase();
        let chars = text.chars().count();
        // One or two letters, one kanji, or digits alone are no theme.
        let least = if script == Script::Alphabetic { 3 } else { 2 };
        if chars < least || !text.contains(char::is_alphabetic) || STOP_WORDS.contains(folded.as_str()) {
            continue;
        }
        // A kanji says about as much as two and a half letters.
        let weight = chars.min(WORD_CHARS_COUNTED) * script.weight();
        words.entry(folded).or_insert(Word { first: place, text, occurrences: 0, weight }).occurrences += 1;
    }
    let mut words: Vec<Word<'_>> = words.into_values().collect();
    words.sort_by_key(|word| (std::cmp::Reverse(word.occurrences * word.weight), word.first));
    words.into_iter().map(|word| word.text.to_owned()).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    Kanji,
    Katakana,
    Hiragana,
    Alphabetic,
    Other,
}

impl Script {
    fn of(character: char) -> Script {
        match character {
            '々' | '㐀'..='䶿' | '一'..='鿿' | '豈'..='﫿' | '𠀀'..='𳎯' => Script::Kanji,
            'ァ'..='ヺ' | 'ー'..='ヿ' | 'ㇰ'..='ㇿ' | 'ｦ'..='ﾟ' => Script::Katakana,
            'ぁ'..='ゟ' => Script::Hiragana,
            _ if character.is_alphanumeric() => Script::Alphabetic,
            _ => Script::Other,
        }
    }

    fn weight(self) -> usize {
        match self {
            Script::Kanji => 5,
            Script::Katakana => 3,
            _ => 2,
        }
    }
}

/// Runs of one script, without hiragana and all that is no letter. A hyphen or an apostrophe within letters joins them.
fn runs(text: &str) -> Vec<(Script, &str)> {
    let mut runs: Vec<(Script, &str)> = Vec::new();
    let (mut start, mut script) = (0, Script::Other);
    let mut characters = text.char_indices().take(TEXT_CHARS_MAX).peekable();
    let mut end = 0;
    while let Some((at, character)) = characters.next() {
        let joins = script == Script::Alphabetic
            && matches!(character, '-' | '\'' | '’')
            && characters.peek().is_some_and(|(_, next)| Script::of(*next) == Script::Alphabetic);
        let here = if joins { script } else { Script::of(character) };
        if here != script {
            runs.push((script, &text[start..at]));
            (start, script) = (at, here);
        }
        end = at + character.len_utf8();
    }
    runs.push((script, &text[start..end]));
    runs.retain(|(script, _)| !matches!(script, Script::Hiragana | Script::Other));
    runs
}

/// Chance that is the same for the same row.
struct Seed(Sha256);

impl Seed {
    fn of(row: &Map<String, Value>) -> Seed {
        let text = serde_json::to_vec(row).expect("a row is JSON");
        Seed(Sha256::new_with_prefix(text))
    }

    fn of_column(&self, name: &str, bound: u64) -> u64 {
        let digest = self.0.clone().chain_update(name).finalize();
        digest[..8].iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::validate;
    use crate::pipeline::VALUES_MAX;
    use crate::prompt::Prompter;
    use crate::record::Usage;
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::Arc;

    fn themes_pipeline() -> Pipeline {
        Pipeline::parse(include_str!("../../../examples/themes.toml")).unwrap()
    }

    fn column() -> impl Strategy<Value = AnswerColumn> {
        let value_type = prop_oneof![
            4 => Just(ValueType::String),
            1 => Just(ValueType::Integer),
            1 => Just(ValueType::Number),
            1 => Just(ValueType::Boolean)
        ];
        let max_chars = prop_oneof![Just(None), (1..=3u32).prop_map(Some), (1..=10_000u32).prop_map(Some)];
        ("[a-zA-Z][a-zA-Z0-9_]{0,127}", value_type, proptest::option::of(1..=100u32), any::<bool>(), max_chars)
            .prop_map(|(name, value_type, count, distinct, max_chars)| AnswerColumn {
                name,
                value_type,
                count,
                distinct: match (value_type, count) {
                    (_, None) | (ValueType::Boolean, Some(3..)) => false,
                    _ => distinct,
                },
                max_chars: max_chars.filter(|_| value_type == ValueType::String),
                one_of: None,
                pattern: None,
                description: None,
            })
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            ".{0,40}".prop_map(Value::from),
            "([a-zA-Z]{1,12} |[一-龠]{1,4}|[ァ-ヶー]{1,8}|[ぁ-ん]{1,4}|-){0,40}".prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(Value::Null)
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_asked_of_whatever_row_the_reply_is_valid(
            columns in proptest::collection::vec(column(), 1..8),
            values in proptest::collection::vec(value(), 3),
        ) {
            let mut pipeline = themes_pipeline();
            let (mut seen, mut total) = (BTreeSet::new(), 0);
            pipeline.answer = columns.into_iter().filter(|column| {
                total += column.count.unwrap_or(1);
                total <= VALUES_MAX && seen.insert(column.name.to_lowercase())
            }).collect();
            let names = ["id", "name", "description"].map(str::to_owned);
            let row: Map<String, Value> = names.into_iter().zip(values).collect();
            let reply = Value::Object(answer(&pipeline, &row)).to_string();
            prop_assert_eq!(validate(&pipeline, &reply).map(|_| ()), Ok(()));
            prop_assert_eq!(reply, Value::Object(answer(&pipeline, &row)).to_string());
        }
    }

    /// `cargo test -p tasuki-relay -- --nocapture every_example_row` shows them.
    #[test]
    #[expect(clippy::print_stdout, reason = "for a person's eye")]
    fn every_example_row_is_asked_about_and_gets_themes_of_its_own() {
        let pipeline = Arc::new(themes_pipeline());
        let prompter = Prompter::new(pipeline.clone()).unwrap();
        let rows = include_str!("../../../examples/products.jsonl").lines();
        let themes: BTreeSet<String> = rows
            .map(|line| {
                let row: Map<String, Value> = serde_json::from_str(line).unwrap();
                let ask = prompter.ask(Arc::new(row)).unwrap();
                let values = validate(&pipeline, &Value::Object(answer(&pipeline, &ask.row)).to_string()).unwrap();
                println!("{} {}", ask.row["id"], values["themes"]);
                values["themes"].to_string()
            })
            .collect();
        assert_eq!(themes.len(), 200);
    }

    #[test]
    fn the_largest_answer_fits() {
        let mut pipeline = themes_pipeline();
        pipeline.answer = (0..VALUES_MAX)
            .map(|n| AnswerColumn {
                name: format!("{n:c>128}"),
                count: None,
                distinct: false,
                ..pipeline.answer[0].clone()
            })
            .collect();
        pipeline.answer.iter_mut().for_each(|column| column.max_chars = None);
        let row = json!({"description": "茶".repeat(500)});
        let reply = Value::Object(answer(&pipeline, row.as_object().unwrap())).to_string();
        assert_eq!(validate(&pipeline, &reply).map(|_| ()), Ok(()));
    }

    #[tokio::test]
    async fn the_reply_says_who_answered_and_charges_nothing() {
        let row = json!({"id": "p-1", "name": "Clay teapot", "category": "Kitchen", "description": "Pours well."});
        let pipeline = Arc::new(themes_pipeline());
        let row = Arc::new(row.as_object().unwrap().clone());
        let ask = Ask { pipeline: pipeline.clone(), prompt: String::new(), row, max_output_tokens: None };
        let reply = StandIn.ask(&ask).await.unwrap();
        assert_eq!((reply.model.as_str(), reply.usage), ("stand-in", Usage::default()));
        assert!(validate(&pipeline, &reply.text).is_ok());
    }

    #[test]
    fn japanese_is_cut_where_its_scripts_change() {
        let words = ranked(&["備前焼の急須。ステンレスの茶こしを使うので、急須の中を洗いやすい。"]);
        assert_eq!(words, ["急須", "備前焼", "ステンレス"]);
    }

    #[test]
    fn english_drops_stop_words_and_keeps_joined_ones() {
        let words = ranked(&["The hand-thrown teapot, and the teapot's lid. Teapot 500 ml"]);
        assert_eq!(words, ["teapot", "hand-thrown", "teapot's", "lid"]);
    }

    #[test]
    fn the_key_gives_no_word_and_too_few_words_are_combined() {
        let row = json!({"id": "secretkey", "name": "red cup", "category": null, "description": ""});
        let answer = answer(&themes_pipeline(), row.as_object().unwrap());
        assert_eq!(answer["themes"], json!(["red", "cup", "red cup", "cup red", "red 2", "red 3"]));
    }
}
