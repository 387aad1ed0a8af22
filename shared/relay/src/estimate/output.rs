//! How many tokens an answer takes, as far as its form tells.

use super::{Span, guess};
use crate::pipeline::{AnswerColumn, ModelSettings, Pipeline, Thinking, ValueType};

/// Least characters of an ASCII token: names, digits and brackets of JSON come in short ones.
const SHORT_TOKEN: f64 = 2.0;
/// Most tokens of a value beside its text: quotes, a comma, a line break and its indentation.
const AROUND: f64 = 4.0;
/// Most tokens of a whole number of 64 bits, a digit each, with its sign.
const INTEGER: f64 = 20.0;
/// Most tokens of a float: 17 digits, sign, point, exponent.
const NUMBER: f64 = 24.0;

/// Output tokens of one answer, thoughts included: at least and at most. No upper end where neither the pipeline's columns nor
/// `max_output_tokens` set one.
pub fn output_of(pipeline: &Pipeline) -> Span {
    let least = guess(&skeleton(pipeline)).max(1.0);
    let most = pipeline.answer.iter().map(most_of).sum::<Option<f64>>().map(|sum| sum + 2.0 * AROUND);
    // What is thought beyond the minimum has no length that the answer tells.
    let most = most.filter(|_| !thinks(&pipeline.model));
    let cap = pipeline.model.max_output_tokens.map(f64::from);
    let most = match (most, cap) {
        (Some(most), Some(cap)) => Some(most.min(cap)),
        (most, cap) => most.or(cap),
    };
    Span { likely: None, least: most.map_or(least, |most| least.min(most)), most }
}

/// Whether the model is asked to think more than it must.
pub(super) fn thinks(model: &ModelSettings) -> bool {
    model.thinking != Some(Thinking::Minimal)
}

/// The shortest valid answer: a letter for a text.
fn skeleton(pipeline: &Pipeline) -> String {
    let columns = pipeline.answer.iter().map(|column| {
        let value = match (column.value_type, &column.one_of) {
            (ValueType::String, Some(choices)) => {
                let shortest = choices.iter().min_by(|a, b| guess(a).total_cmp(&guess(b)));
                format!("\"{}\"", shortest.map_or("", String::as_str))
            }
            (ValueType::String, None) => "\"a\"".to_owned(),
            (ValueType::Integer | ValueType::Number, _) => "1".to_owned(),
            (ValueType::Boolean, _) => "true".to_owned(),
        };
        let values = vec![value; column.count.unwrap_or(1) as usize].join(",");
        format!("\"{}\":[{values}]", column.name)
    });
    format!("{{{}}}", columns.collect::<Vec<_>>().join(","))
}

/// Tokens of a column at most: a token for each character of a text.
fn most_of(column: &AnswerColumn) -> Option<f64> {
    let value = match (column.value_type, &column.one_of) {
        (ValueType::String, Some(choices)) => choices.iter().map(|choice| choice.chars().count()).max()? as f64,
        (ValueType::String, None) => f64::from(column.max_chars?),
        (ValueType::Integer, _) => INTEGER,
        (ValueType::Number, _) => NUMBER,
        (ValueType::Boolean, _) => 1.0,
    };
    let count = f64::from(column.count.unwrap_or(1));
    Some(column.name.len() as f64 / SHORT_TOKEN + 2.0 * AROUND + count * (value + AROUND))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(change: impl Fn(&mut Pipeline)) -> Span {
        let mut pipeline = Pipeline::parse(include_str!("../../../../examples/themes.toml")).unwrap();
        change(&mut pipeline);
        output_of(&pipeline)
    }

    #[test]
    fn six_themes_of_forty_letters_have_a_range_within_the_pipelines_limit() {
        let span = pipeline(|_| ());
        // {"themes":["a","a","a","a","a","a"]} has 36 characters.
        assert_eq!((span.likely, span.least), (None, 9.0));
        // Six times forty and what is around them, at a token a character.
        assert!((240.0..=300.0).contains(&span.most.unwrap()), "{span:?}");
        assert_eq!(pipeline(|pipeline| pipeline.model.max_output_tokens = Some(100)).most, Some(100.0));
    }

    #[test]
    fn without_a_longest_text_or_with_thoughts_only_the_pipelines_limit_bounds_an_answer() {
        let open = |pipeline: &mut Pipeline| pipeline.answer[0].max_chars = None;
        assert_eq!(pipeline(open).most, Some(512.0));
        let unbounded = |pipeline: &mut Pipeline| {
            open(pipeline);
            pipeline.model.max_output_tokens = None;
        };
        assert_eq!(pipeline(unbounded).most, None);
        assert_eq!(pipeline(|pipeline| pipeline.model.thinking = Some(Thinking::High)).most, Some(512.0));
    }

    #[test]
    fn of_choices_the_shortest_and_the_longest_count() {
        let span = pipeline(|pipeline| {
            pipeline.answer[0].count = None;
            pipeline.answer[0].one_of = Some(vec!["no".into(), "perhaps, perhaps not".into()]);
        });
        assert!(span.least < 6.0 && (20.0..=45.0).contains(&span.most.unwrap()), "{span:?}");
    }
}
