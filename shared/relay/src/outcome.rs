//! Outcome classes: what a model said, and what follows from it. Pure and total; the table is protocol.md 4.

use crate::pipeline::{ModelSettings, Pipeline, Thinking, Values};
use crate::ports::{Ask, Fault, Reply};
use crate::prices::Catalogue;
use crate::record::{Failed, Spent};
use std::sync::Arc;

/// Ambiguous calls after which a row fails: each may have been paid.
pub const AMBIGUOUS_CALLS_MAX: u32 = 2;

/// What the model said, by what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Class {
    /// A valid answer.
    Answer(Values),
    /// An answer that is none: not JSON, another shape, too few, too long, empty. Says which rule.
    Malformed(String),
    /// Cut by the limit of output tokens.
    Truncated,
    /// The same, and thoughts took more of the tokens than the answer.
    Overthought,
    /// The prompt was blocked.
    BlockedPrompt(String),
    /// The answer was blocked.
    BlockedAnswer(String),
    /// A finish reason that nobody knows.
    UnknownFinish(String),
    /// See [`Fault::Busy`].
    Busy,
    /// See [`Fault::Unavailable`].
    Unavailable,
    /// See [`Fault::Ambiguous`].
    Ambiguous,
    /// See [`Fault::Invalid`].
    Invalid(String),
    /// See [`Fault::Systemic`].
    Systemic(String),
}

/// Finish reasons of a candidate that was blocked (Gemini API reference, `FinishReason`).
const BLOCKED: &[&str] = &[
    "SAFETY",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "RECITATION",
    "OTHER",
    "LANGUAGE",
    "IMAGE_SAFETY",
    "MODEL_ARMOR",
];

/// Longest word of the model's that is kept as a reason: reasons are labels.
const WORD_CHARS_MAX: usize = 40;

/// Tells the class of what came back.
pub fn classify(said: &Result<Reply, Fault>, validate: impl FnOnce(&str) -> Result<Values, String>) -> Class {
    let reply = match said {
        Ok(reply) => reply,
        Err(Fault::Busy { .. }) => return Class::Busy,
        Err(Fault::Unavailable(_)) => return Class::Unavailable,
        Err(Fault::Ambiguous(_)) => return Class::Ambiguous,
        Err(Fault::Garbled(what)) => return Class::Malformed(what.clone()),
        Err(Fault::Invalid(what)) => return Class::Invalid(what.clone()),
        Err(Fault::Systemic(what)) => return Class::Systemic(what.clone()),
    };
    if let Some(reason) = &reply.blocked {
        return Class::BlockedPrompt(word(reason));
    }
    match reply.finish.as_deref() {
        // What came may be all the same: a model can go on with spaces after its answer.
        Some("MAX_TOKENS") => match validate(&reply.text) {
            Ok(values) => Class::Answer(values),
            Err(_) if reply.usage.thought > reply.usage.output => Class::Overthought,
            Err(_) => Class::Truncated,
        },
        Some("STOP" | "FINISH_REASON_UNSPECIFIED") | None if reply.text.is_empty() => {
            Class::Malformed("the answer is empty".into())
        }
        Some("STOP" | "FINISH_REASON_UNSPECIFIED") | None => match validate(&reply.text) {
            Ok(values) => Class::Answer(values),
            Err(rule) => Class::Malformed(rule),
        },
        Some(finish) if BLOCKED.contains(&finish) => Class::BlockedAnswer(word(finish)),
        Some(finish) => Class::UnknownFinish(word(finish)),
    }
}

/// A word of the model's, fit to be a label.
fn word(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(WORD_CHARS_MAX).collect()
}

impl Class {
    /// The call was charged.
    pub fn is_paid(&self) -> bool {
        match self {
            Class::Answer(_) | Class::Malformed(_) | Class::Truncated | Class::Overthought => true,
            Class::BlockedPrompt(_) | Class::BlockedAnswer(_) | Class::UnknownFinish(_) => true,
            Class::Busy | Class::Unavailable | Class::Ambiguous | Class::Invalid(_) | Class::Systemic(_) => false,
        }
    }
}

/// What the row has met so far in this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    /// Truncated answers, overthought ones included.
    pub truncated: u32,
    /// Good values that the row's replies gave so far ([`crate::answer::Draft::values`]).
    pub kept: usize,
    /// Nothing more may be paid for form: the budget of the shard or of the run is spent.
    pub spent_up: bool,
    /// RECITATION, OTHER and unknown finish reasons.
    pub odd: u32,
    /// Server errors in a row: the exponent of the backoff.
    pub server_errors: u32,
}

/// What follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The row has its answer.
    Answer(Values),
    /// The row fails.
    Fail(Failed),
    /// Ask again at once: for what the draft lacks, with these changes.
    Again(Change),
    /// Ask again when the pace allows: the model is busy. Never counts against the row.
    Wait,
    /// Ask again after a backoff, from the shard's budget of retries.
    Retry,
    /// Keep the row back until a row of its run has succeeded.
    Withhold(Failed),
    /// Ask the fallback, if the pipeline names one; else stop the machine. No row fails.
    Systemic(String),
}

/// What changes about a question that is asked again, for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// [`crate::pipeline::ModelSettings::retry_output_tokens`].
    pub output_tokens: Option<u32>,
    /// Less thinking.
    pub thinking: Option<Thinking>,
}

impl Change {
    /// Changes the question.
    pub fn apply(self, question: &mut Ask) {
        question.max_output_tokens = self.output_tokens.or(question.max_output_tokens);
        if let Some(thinking) = self.thinking {
            Arc::make_mut(&mut question.pipeline).model.thinking = Some(thinking);
        }
    }
}

impl Step {
    /// The row is asked again at once.
    pub fn asks_again(&self) -> bool {
        matches!(self, Step::Again(_))
    }
}

/// Decides what follows. `pipeline` is what the row was asked with, `spent` and `history` count this call already.
pub fn decide(class: Class, pipeline: &Pipeline, spent: &Spent, history: &History) -> Step {
    let as_it_is = Step::Again(Change::default());
    let may_pay = spent.paid_calls <= pipeline.run.paid_retries && !history.spent_up;
    match class {
        Class::Answer(values) => Step::Answer(values),
        Class::Malformed(_) if may_pay => as_it_is,
        Class::Truncated | Class::Overthought => match after_a_cut(&class, &pipeline.model, history, may_pay) {
            Some(change) => Step::Again(change),
            None => Step::Fail(failure(&class, history)),
        },
        Class::BlockedAnswer(ref reason) if matches!(reason.as_str(), "RECITATION" | "OTHER") && history.odd <= 1 => {
            as_it_is
        }
        Class::UnknownFinish(_) if history.odd <= 1 => as_it_is,
        Class::Ambiguous if spent.ambiguous_calls < AMBIGUOUS_CALLS_MAX => as_it_is,
        Class::Busy => Step::Wait,
        Class::Unavailable => Step::Retry,
        Class::Invalid(_) => Step::Withhold(failure(&class, history)),
        Class::Systemic(what) => Step::Systemic(what),
        Class::Malformed(_)
        | Class::BlockedPrompt(_)
        | Class::BlockedAnswer(_)
        | Class::UnknownFinish(_)
        | Class::Ambiguous => Step::Fail(failure(&class, history)),
    }
}

/// How a row is asked again whose answer was cut. Thoughts that took the tokens would take more of them as well.
fn after_a_cut(class: &Class, model: &ModelSettings, history: &History, may_pay: bool) -> Option<Change> {
    let least = Catalogue::shipped().least_thinking(&model.name).filter(|least| Some(*least) < model.thinking);
    if let (Class::Overthought, Some(least), true) = (class, least, may_pay) {
        return Some(Change { thinking: Some(least), output_tokens: None });
    }
    let more = model.retry_output_tokens.filter(|_| history.truncated <= 1 && !history.spent_up);
    let more = more.map(|tokens| Change { output_tokens: Some(tokens), thinking: None });
    more.or((may_pay && history.kept > 0).then(Change::default))
}

/// How a row fails that is not asked again. Classes of which no row fails have a reason all the same, that the table is total.
pub fn failure(class: &Class, history: &History) -> Failed {
    const CUT: &str = "the answer was cut: raise [model] max_output_tokens, or set retry_output_tokens";
    const EATEN: &str = "thoughts used up the output tokens: lower [model] thinking, or raise max_output_tokens";
    let (reason, message) = match class {
        Class::Malformed(rule) if history.spent_up => {
            ("malformed".into(), format!("{rule}; too many answers of this run are malformed to ask each again"))
        }
        Class::Malformed(rule) => ("malformed".into(), rule.clone()),
        Class::Truncated => ("truncated".into(), CUT.into()),
        Class::Overthought => ("truncated".into(), EATEN.into()),
        Class::BlockedPrompt(reason) => (format!("blocked_prompt:{reason}"), "the model refused the prompt".into()),
        Class::BlockedAnswer(reason) => (format!("blocked_answer:{reason}"), "the model withheld its answer".into()),
        Class::UnknownFinish(value) => {
            (format!("unknown_finish:{value}"), "the model ended for a reason that Tasuki does not know".into())
        }
        Class::Ambiguous => {
            ("timeout".into(), "the model did not reply in time, twice; the calls may have been charged".into())
        }
        Class::Invalid(what) => ("rejected".into(), what.clone()),
        Class::Answer(_) | Class::Busy | Class::Unavailable | Class::Systemic(_) => {
            ("unknown".into(), "no row fails of this".into())
        }
    };
    Failed { reason, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{KeyType, ModelSettings, RunSettings};
    use proptest::prelude::*;
    use std::time::Duration;

    fn pipeline(retry_output_tokens: Option<u32>) -> Pipeline {
        Pipeline {
            name: "p".into(),
            key: "id".into(),
            key_type: KeyType::String,
            system: None,
            template: String::new(),
            columns: vec![],
            answer: vec![],
            model: ModelSettings { retry_output_tokens, ..ModelSettings::default() },
            run: RunSettings::default(),
            table: "t".into(),
        }
    }

    fn any_said() -> impl Strategy<Value = Result<Reply, Fault>> {
        let word = || {
            proptest::option::of(prop_oneof![
                "[A-Z_]{0,60}",
                Just("STOP".to_owned()),
                Just("MAX_TOKENS".to_owned()),
                ".{0,20}"
            ])
        };
        let reply = (".{0,20}", word(), word());
        prop_oneof![
            4 => reply.prop_map(|(text, finish, blocked)| Ok(Reply { text, finish, blocked, ..Reply::default() })),
            1 => any::<Option<u64>>().prop_map(|after| Err(Fault::Busy { retry_after: after.map(Duration::from_millis) })),
            1 => ".{0,9}".prop_map(|what| Err(Fault::Unavailable(what))),
            1 => ".{0,9}".prop_map(|what| Err(Fault::Ambiguous(what))),
            1 => ".{0,9}".prop_map(|what| Err(Fault::Garbled(what))),
            1 => ".{0,9}".prop_map(|what| Err(Fault::Invalid(what))),
            1 => ".{0,9}".prop_map(|what| Err(Fault::Systemic(what))),
        ]
    }

    proptest! {
        #[test]
        fn every_reply_has_a_class_and_no_row_is_asked_for_ever(said in any_said(), valid in any::<bool>(), kept in 0..3usize) {
            let class = classify(&said, |_| if valid { Ok(Values::new()) } else { Err("rule".into()) });
            let (mut spent, mut history) = (Spent::default(), History { kept, ..History::default() });
            for _ in 0..4 {
                spent.paid_calls += u32::from(class.is_paid());
                spent.ambiguous_calls += u32::from(class == Class::Ambiguous);
                history.truncated += u32::from(matches!(class, Class::Truncated | Class::Overthought));
                history.odd += u32::from(matches!(class, Class::UnknownFinish(_) | Class::BlockedAnswer(_)));
            }
            let step = decide(class.clone(), &pipeline(Some(9)), &spent, &history);
            prop_assert!(!step.asks_again(), "{class:?} -> {step:?}");
        }

        #[test]
        fn a_fault_that_is_no_rows_fault_fails_no_row(said in any_said(), paid in 0..9u32) {
            let class = classify(&said, |_| Ok(Values::new()));
            let spent = Spent { paid_calls: paid, ..Spent::default() };
            let step = decide(class.clone(), &pipeline(None), &spent, &History::default());
            if matches!(class, Class::Busy | Class::Unavailable | Class::Invalid(_) | Class::Systemic(_)) {
                prop_assert!(!matches!(step, Step::Fail(_)));
            }
        }
    }

    #[test]
    fn each_class_is_told_from_what_the_model_writes() {
        let class = |text: &str, finish: Option<&str>, blocked: Option<&str>| {
            let (finish, blocked) = (finish.map(str::to_owned), blocked.map(str::to_owned));
            classify(&Ok(Reply { text: text.into(), finish, blocked, ..Reply::default() }), |text| {
                if text.ends_with('}') { Ok(Values::new()) } else { Err("rule".into()) }
            })
        };
        assert_eq!(class("{}", Some("STOP"), None), Class::Answer(Values::new()));
        assert_eq!(class("{}", None, None), Class::Answer(Values::new()));
        assert_eq!(class("", Some("STOP"), None), Class::Malformed("the answer is empty".into()));
        assert_eq!(class("{\"a", Some("MAX_TOKENS"), None), Class::Truncated);
        assert_eq!(class("", None, Some("SAFETY")), Class::BlockedPrompt("SAFETY".into()));
        assert_eq!(class("", Some("SPII"), None), Class::BlockedAnswer("SPII".into()));
        assert_eq!(class("{}", Some("BRAND_NEW"), None), Class::UnknownFinish("BRAND_NEW".into()));
    }

    #[test]
    fn what_was_cut_but_is_whole_is_an_answer_and_thoughts_that_ate_it_are_told_apart() {
        let cut = |text: &str, thought| {
            let usage = crate::record::Usage { thought, output: 10, ..Default::default() };
            let reply = Reply { text: text.into(), finish: Some("MAX_TOKENS".into()), usage, ..Reply::default() };
            classify(&Ok(reply), |text| if text == "whole" { Ok(Values::new()) } else { Err("rule".into()) })
        };
        assert_eq!(cut("whole", 99), Class::Answer(Values::new()));
        assert_eq!((cut("who", 10), cut("who", 11)), (Class::Truncated, Class::Overthought));
    }

    #[test]
    fn what_is_kept_is_not_asked_again_and_thinking_is_lowered_before_more_is_paid() {
        let once = Spent { paid_calls: 1, ..Spent::default() };
        let history = |kept, spent_up| History { kept, spent_up, truncated: 1, ..History::default() };
        let step = |class: Class, history| decide(class, &pipeline(Some(9)), &once, &history);
        let malformed = || Class::Malformed("rule".into());
        let change = |output_tokens, thinking| Step::Again(Change { output_tokens, thinking });
        assert_eq!(step(malformed(), history(0, false)), change(None, None));
        assert_eq!(step(malformed(), history(1, false)), change(None, None));
        for class in [Class::Truncated, Class::Overthought] {
            assert_eq!(step(class.clone(), history(1, false)), change(Some(9), None), "what was cut needs more room");
            let second = History { truncated: 2, ..history(1, false) };
            assert_eq!(step(class.clone(), second), change(None, None), "what is missing is less each time");
            assert!(matches!(step(class, History { truncated: 2, ..history(0, false) }), Step::Fail(_)));
        }
        let mut thinking = pipeline(Some(9));
        thinking.model.thinking = Some(Thinking::High);
        let overthought = |pipeline: &Pipeline| decide(Class::Overthought, pipeline, &once, &history(1, false));
        assert_eq!(overthought(&thinking), change(None, Some(Thinking::Minimal)), "more room would be more thoughts");
        thinking.model.name = "gemini-3.7-flash".into();
        assert_eq!(overthought(&thinking), change(None, Some(Thinking::Low)), "the least that this model can");
        thinking.model.name = "whatever".into();
        assert_eq!(overthought(&thinking), change(Some(9), None), "nobody knows what it can");
        for class in [malformed(), Class::Truncated, Class::Overthought] {
            assert!(matches!(step(class, history(1, true)), Step::Fail(_)), "the budget is spent");
        }
    }

    #[test]
    fn recitation_is_asked_once_more_and_safety_is_not() {
        let spent = Spent { paid_calls: 1, ..Spent::default() };
        let step = |reason: &str, odd| {
            decide(Class::BlockedAnswer(reason.into()), &pipeline(None), &spent, &History { odd, ..History::default() })
        };
        assert_eq!(step("RECITATION", 1), Step::Again(Change::default()));
        assert!(matches!(step("RECITATION", 2), Step::Fail(failed) if failed.reason == "blocked_answer:RECITATION"));
        assert!(matches!(step("SAFETY", 1), Step::Fail(_)));
    }
}
