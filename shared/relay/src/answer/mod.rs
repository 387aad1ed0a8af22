//! Is a reply's text the answer that the pipeline asks for? And if not: what of it is good?

mod rules;
mod text;

pub(crate) use rules::{normal, whole as pattern};

use crate::limits::ANSWER_BYTES_MAX;
use crate::pipeline::{AnswerColumn, Pipeline, Values};
use crate::ports::Ask;
use crate::record::Answer;
use rules::{Echoes, Rules, identity};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why it is not: the column and the rule, never the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// The good values of a row's replies so far: whole columns, and arrays that are not full yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft(Values);

impl Draft {
    /// How many values it has.
    pub fn values(&self) -> usize {
        self.0.values().map(|value| value.as_array().map_or(1, Vec::len)).sum()
    }
}

/// Judges the answers of one pipeline. Shared by all rows of a process.
#[derive(Debug)]
pub struct Judge {
    rules: Vec<Rules>,
    echoes: Echoes,
}

impl Judge {
    /// With the pipeline's rules, compiled.
    pub fn new(pipeline: &Pipeline) -> Judge {
        Judge { rules: pipeline.answer.iter().map(Rules::of).collect(), echoes: Echoes::of(pipeline) }
    }

    /// Takes a reply's text: what is good of it goes into the draft, which keeps what it has. `Ok` when the answer is
    /// complete: a value for each column, in the order of the file; texts trimmed, numbers as floats.
    pub fn take(&self, draft: &mut Draft, text: &str) -> Result<Values, Invalid> {
        if text.len() > ANSWER_BYTES_MAX {
            return Err(Invalid(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes")));
        }
        let names: Vec<&str> = self.rules.iter().map(|rules| rules.column.name.as_str()).collect();
        let Some((fields, cut)) = text::fields(text, &names) else {
            return Err(Invalid("the answer is not a JSON object with the fields that were asked for".to_owned()));
        };
        let mut broken = None;
        for rules in &self.rules {
            let name = &rules.column.name;
            let mut given = fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value);
            let filled = match (given.next(), given.next()) {
                (_, Some(_)) => Err("it is there twice".to_owned()),
                (given, None) => self.fill(rules, draft, given),
            };
            if let Err(rule) = filled {
                broken.get_or_insert_with(|| Invalid(format!("{name}: {rule}")));
            }
        }
        match broken {
            None => Ok(self
                .rules
                .iter()
                .map(|rules| &rules.column.name)
                .map(|name| (name.clone(), draft.0[name].clone()))
                .collect()),
            Some(_) if cut => Err(Invalid("the answer breaks off".to_owned())),
            Some(broken) => Err(broken),
        }
    }

    /// These values are still the answer that is asked for.
    pub fn allows(&self, values: &Values) -> bool {
        self.take(&mut Draft::default(), &Value::Object(values.clone()).to_string()).is_ok()
    }

    /// The answer to this question that a body of the cache holds, if it is still one.
    pub fn recall(&self, fingerprint: &str, body: &[u8]) -> Option<Answer> {
        let answer: Answer = serde_json::from_slice(body).ok()?;
        (answer.fingerprint == fingerprint && self.allows(&answer.values)).then_some(answer)
    }

    /// Puts what is good of a column's value into the draft. `Ok` when the column is complete.
    fn fill(&self, rules: &Rules, draft: &mut Draft, given: Option<&Value>) -> Result<(), String> {
        let name = &rules.column.name;
        let Some(count) = rules.column.count else {
            if !draft.0.contains_key(name) {
                let value = rules.check(given.ok_or("it is missing")?, &self.echoes)?;
                draft.0.insert(name.clone(), value);
            }
            return Ok(());
        };
        let count = count as usize;
        let mut items = match draft.0.get(name) {
            Some(Value::Array(items)) if items.len() == count => return Ok(()),
            Some(Value::Array(items)) => items.clone(),
            _ => Vec::new(),
        };
        let (kept, broken) = match given {
            Some(Value::Array(given)) => self.items(rules, items.len(), &items, given),
            Some(_) => (Vec::new(), Some("must be an array".to_owned())),
            None => (Vec::new(), Some("it is missing".to_owned())),
        };
        items.extend(kept);
        let full = items.len() == count;
        if !items.is_empty() {
            draft.0.insert(name.clone(), Value::Array(items));
        }
        // A full array is good, whatever else was given: more values than asked for, or one that is not.
        if full { Ok(()) } else { Err(broken.unwrap_or_else(|| "it is missing".to_owned())) }
    }

    /// The good ones of `given`, so many as are missing, and the first rule that was broken. Where values are distinct, any
    /// good one counts; elsewhere a value's place may mean something, and only the first ones up to a bad one are kept.
    fn items(&self, rules: &Rules, had: usize, before: &[Value], given: &[Value]) -> (Vec<Value>, Option<String>) {
        let column = &rules.column;
        let missing = column.count.map_or(0, |count| count as usize).saturating_sub(had);
        let mut seen: BTreeSet<String> = before.iter().map(identity).collect();
        let (mut kept, mut broken) = (Vec::new(), None);
        for value in given {
            let checked = rules.check(value, &self.echoes).and_then(|value| {
                let twice = column.distinct && !seen.insert(identity(&value));
                if twice { Err("no two values may be equal".to_owned()) } else { Ok(value) }
            });
            match checked {
                Ok(value) => kept.push(value),
                Err(rule) => {
                    broken.get_or_insert(rule);
                    if !column.distinct {
                        break;
                    }
                }
            }
        }
        if broken.is_none() && given.len() != missing {
            broken = Some(format!("must have {missing} values, not {}", given.len()));
        }
        if !column.distinct && given.len() > missing {
            kept.clear(); // which of them are the ones, nobody knows
        }
        kept.truncate(missing);
        (kept, broken)
    }

    /// The question for what the draft lacks: the same prompt, with the values that are kept and must not come again.
    pub fn repair(&self, draft: &Draft, ask: &Ask) -> Ask {
        let missing: Vec<AnswerColumn> = self.rules.iter().filter_map(|rules| missing(&rules.column, draft)).collect();
        let told = missing.iter().map(|column| match column.count {
            Some(count) if draft.0.contains_key(&column.name) => format!("{} (exactly {count} more)", column.name),
            Some(count) => format!("{} (exactly {count})", column.name),
            None => column.name.clone(),
        });
        let told: Vec<String> = told.collect();
        let kept = Value::Object(draft.0.clone());
        let prompt = format!(
            "{}\n\nThese parts of the answer are there already: {kept}\nGive only what is missing: {}. \
             Do not repeat values that are there already.",
            ask.prompt,
            told.join(", "),
        );
        let pipeline = Arc::new(Pipeline { answer: missing, ..(*ask.pipeline).clone() });
        Ask { pipeline, prompt, ..ask.clone() }
    }
}

/// What a column still lacks; `None` when it is complete.
fn missing(column: &AnswerColumn, draft: &Draft) -> Option<AnswerColumn> {
    match (column.count, draft.0.get(&column.name)) {
        (_, None) => Some(column.clone()),
        (None, Some(_)) => None,
        (Some(count), Some(there)) => {
            let left = count.saturating_sub(there.as_array().map_or(0, Vec::len) as u32);
            (left > 0).then(|| AnswerColumn { count: Some(left), ..column.clone() })
        }
    }
}

/// Takes one reply's text for the whole answer.
pub fn validate(pipeline: &Pipeline, text: &str) -> Result<Values, Invalid> {
    Judge::new(pipeline).take(&mut Draft::default(), text)
}

#[cfg(test)]
mod tests;
