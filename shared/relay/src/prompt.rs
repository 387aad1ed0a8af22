//! From a row to a prompt. Text of a row is data: it is put into the template once, and never read as a template.

use crate::pipeline::{Pipeline, Provider, Thinking};
use crate::ports::Ask;
use crate::record::Failed;
use crate::schema::response_schema;
use minijinja::value::{DynObject, Object, Serde, Value as Field, ValueKind};
use minijinja::{Environment, ErrorKind, Output, State, UndefinedBehavior};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Arc;

/// Longest prompt in bytes: a row (`limits::LINE_BYTES_MAX`) fits, a loop that multiplies it does not.
pub const PROMPT_BYTES_MAX: usize = 1 << 20;

/// Most instructions that a template may take for one row: a loop over 10,000 values fits, one that keeps a processor busy
/// for seconds does not.
const FUEL: u64 = 100_000;

const NAME: &str = "template";

/// A template that does not compile. A pipeline that was parsed has none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the template does not compile (line {0})")]
pub struct BadTemplate(usize);

/// Makes the prompts of one pipeline. Shared by all rows of a process.
#[derive(Debug)]
pub struct Prompter {
    pipeline: Arc<Pipeline>,
    environment: Environment<'static>,
    columns: Arc<[String]>,
    /// A hash that has eaten all but the prompt.
    settings: Sha256,
}

impl Prompter {
    /// Compiles the template.
    pub fn new(pipeline: Arc<Pipeline>) -> Result<Prompter, BadTemplate> {
        let mut environment = environment();
        environment
            .add_template_owned(NAME, pipeline.template.clone())
            .map_err(|error| BadTemplate(error.line().unwrap_or(1)))?;
        let model = &pipeline.model;
        // Limits on tokens are left out: they decide whether there is an answer, not which.
        let mut settings = vec![
            json!(pipeline.system),
            response_schema(&pipeline),
            json!(model.name),
            json!(model.temperature),
            json!(model.thinking.map(Thinking::as_str)),
        ];
        // Last, and only where it differs: what Gemini was asked keeps its fingerprint.
        settings.extend((model.provider == Provider::OpenAi).then(|| json!("openai")));
        let settings = Sha256::new().chain_update(Value::Array(settings).to_string());
        Ok(Prompter { columns: pipeline.columns.as_slice().into(), pipeline, environment, settings })
    }

    /// What to ask about a row. `missing_column` when it lacks a column that the template names, `bad_prompt` when the
    /// template cannot be rendered with it. Null counts as empty text.
    pub fn ask(&self, row: Arc<Map<String, Value>>) -> Result<Ask, Failed> {
        let missing: Vec<&str> =
            self.columns.iter().filter(|name| !row.contains_key(*name)).map(String::as_str).collect();
        if !missing.is_empty() {
            let message = format!("the template names a column that this row lacks: {}", missing.join(", "));
            return Err(Failed { reason: "missing_column".to_owned(), message });
        }
        let prompt = self
            .render(row.clone())
            .map_err(|error| Failed { reason: "bad_prompt".to_owned(), message: explain(&error) })?;
        Ok(Ask { pipeline: self.pipeline.clone(), prompt, row, max_output_tokens: None })
    }

    /// 32 hexadecimal digits over all that changes an answer: prompt, system instruction, schema, model and its settings.
    pub fn fingerprint(&self, prompt: &str) -> String {
        let digest = self.settings.clone().chain_update(prompt).finalize();
        data_encoding::HEXLOWER.encode(&digest[..16])
    }

    fn render(&self, row: Arc<Map<String, Value>>) -> Result<String, minijinja::Error> {
        let template = self.environment.get_template(NAME)?;
        let variables = Variables(Arc::new(Row { columns: self.columns.clone(), row }));
        let mut prompt = Bounded(Vec::with_capacity(self.pipeline.template.len() + 512));
        template.render_captured_to(Field::from_object(variables), &mut prompt)?;
        Ok(String::from_utf8(prompt.0).expect("a template writes strings"))
    }
}

/// Where templates are compiled, and checked: no other templates, no HTML escapes, no unbounded work.
pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(write_value);
    // Its dump of all variables would hold the row; so would the details of an error in debug mode.
    environment.remove_global("debug");
    environment.set_debug(false);
    environment
}

/// Null is empty text; booleans, lists and objects are JSON, all else is as it is.
fn write_value(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Field) -> Result<(), minijinja::Error> {
    match value.kind() {
        ValueKind::None => Ok(()),
        ValueKind::Bool | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            let text = serde_json::to_string(value)
                .map_err(|_| minijinja::Error::new(ErrorKind::BadSerialization, "a value is not JSON"))?;
            Ok(out.write_str(&text)?)
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// A sentence without text of the row: the library's own details may quote values.
fn explain(error: &minijinja::Error) -> String {
    let what = match error.kind() {
        ErrorKind::UndefinedError => "a field that it names is not in this row",
        ErrorKind::OutOfFuel => "it takes too many steps",
        ErrorKind::WriteFailure => return format!("the prompt is longer than {PROMPT_BYTES_MAX} bytes"),
        _ => "a value of this row does not suit it",
    };
    match error.line() {
        Some(line) => format!("line {line} of the template cannot be rendered: {what}"),
        None => format!("the template cannot be rendered: {what}"),
    }
}

/// The columns of a row that the template names.
#[derive(Debug)]
struct Row {
    columns: Arc<[String]>,
    row: Arc<Map<String, Value>>,
}

impl Object for Row {
    fn get_value(self: &Arc<Self>, key: &Field) -> Option<Field> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Field> {
        self.columns.iter().find(|column| *column == name)?;
        Some(match self.row.get(name)? {
            Value::Null => Field::from(""),
            Value::String(text) => Field::from(text.as_str()),
            other => Field::from(Serde(other)),
        })
    }
}

/// The variables of a template: the columns, and `row` for those whose names are no identifiers.
#[derive(Debug)]
struct Variables(Arc<Row>);

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Field) -> Option<Field> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Field> {
        if name == "row" {
            Some(Field::from_dyn_object(DynObject::from(self.0.clone())))
        } else {
            self.0.get_value_by_str(name)
        }
    }
}

/// Bytes up to [`PROMPT_BYTES_MAX`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > PROMPT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompter(template: &str) -> Prompter {
        let text = format!(
            "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = '''{template}'''\n[answer.a]\ntype = \"string\"\n[target]\ntable = \"t\""
        );
        Prompter::new(Arc::new(Pipeline::parse(&text).unwrap())).unwrap()
    }

    fn row(value: Value) -> Arc<Map<String, Value>> {
        Arc::new(value.as_object().unwrap().clone())
    }

    fn render(template: &str, value: Value) -> String {
        prompter(template).ask(row(value)).unwrap().prompt
    }

    #[test]
    fn the_example_pipeline_asks_this() {
        let pipeline = Pipeline::parse(include_str!("../../../examples/themes.toml")).unwrap();
        let prompter = Prompter::new(Arc::new(pipeline)).unwrap();
        let row = row(json!({"id": "p-1", "name": "朝の急須", "category": "茶器", "description": "一人分を淹れる。"}));
        let ask = prompter.ask(row).unwrap();
        assert_eq!(ask.prompt, "Name: 朝の急須\nCategory: 茶器\nDescription: 一人分を淹れる。");
        assert_eq!(ask.pipeline.columns, ["category", "description", "name"]);
    }

    #[test]
    fn text_of_a_row_is_never_read_as_a_template_or_as_html() {
        let value = json!({"x": "{{ y }} {% raw %} <b>&", "y": "secret"});
        assert_eq!(render("{{ x }}", value), "{{ y }} {% raw %} <b>&");
    }

    #[test]
    fn null_is_empty_and_numbers_are_as_they_are() {
        let value =
            json!({"n": null, "i": 18446744073709551615u64, "f": 0.1, "b": true, "l": ["茶", null, 1], "s": "é"});
        let prompt = render("[{{ n }}][{{ n | upper }}]{{ i }} {{ f }} {{ b }} {{ l }} {{ s }}", value);
        assert_eq!(prompt, "[][]18446744073709551615 0.1 true [\"茶\",null,1] é");
    }

    #[test]
    fn columns_of_any_name_are_reached() {
        let value = json!({"product name": "cup", "商品名": "湯呑", "row": "7"});
        assert_eq!(render("{{ row[\"product name\"] }}{{ 商品名 }}{{ row.row }}", value), "cup湯呑7");
    }

    #[test]
    fn a_row_that_lacks_a_column_is_told_which() {
        let failed = prompter("{{ a }}{{ b }}{{ c }}").ask(row(json!({"b": 1}))).unwrap_err();
        assert_eq!(failed.reason, "missing_column");
        assert_eq!(failed.message, "the template names a column that this row lacks: a, c");
    }

    #[test]
    fn a_row_that_does_not_suit_the_template_fails_without_its_text() {
        for template in ["\n{{ x + 1 }}", "\n{{ x.a.b }}", "\n{{ x | round }}", "\n{% for a, b in x %}{% endfor %}"] {
            let failed = prompter(template).ask(row(json!({"x": "secret"}))).unwrap_err();
            assert_eq!(failed.reason, "bad_prompt");
            assert!(failed.message.starts_with("line 1 of the template"), "{}", failed.message);
            assert!(!failed.message.contains("secret"), "{}", failed.message);
        }
    }

    #[test]
    fn a_template_without_end_or_a_prompt_without_end_fails() {
        let failed = |template: &str| prompter(template).ask(row(json!({"x": "a".repeat(1 << 16)}))).unwrap_err();
        let endless = "{{ x }}{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}";
        assert!(failed(endless).message.ends_with("it takes too many steps"));
        assert_eq!(
            failed("{% for i in range(17) %}{{ x }}{% endfor %}").message,
            "the prompt is longer than 1048576 bytes"
        );
        let full = render("{% for i in range(16) %}{{ x }}{% endfor %}", json!({"x": "a".repeat(1 << 16)}));
        assert_eq!(full.len(), PROMPT_BYTES_MAX);
    }

    #[test]
    fn where_and_how_fast_is_asked_changes_no_fingerprint_so_that_nothing_is_asked_again_for_it() {
        let text = include_str!("../../../examples/themes.toml");
        let at = |fields: &str| text.replace("[model]\n", &format!("[model]\n{fields}"));
        let of = |text: &str| Prompter::new(Arc::new(Pipeline::parse(text).unwrap())).unwrap().fingerprint("a");
        assert_eq!(Pipeline::parse(&at("location = \"eu\"\n")).unwrap().model.location.as_deref(), Some("eu"));
        assert_eq!(of(&at("location = \"eu\"\n")), of(text));
        assert_eq!(of(&at("requests_per_minute = 600\ntokens_per_minute = 90000\n")), of(text));
        // As it was before pipelines could name a location.
        assert_eq!(of(text), "842299f3449d6d196eb402eddf41b843");
    }

    #[test]
    fn the_fingerprint_follows_what_changes_an_answer_and_nothing_else() {
        let text = include_str!("../../../examples/themes.toml");
        let of = |text: &str, prompt: &str| {
            Prompter::new(Arc::new(Pipeline::parse(text).unwrap())).unwrap().fingerprint(prompt)
        };
        let first = of(text, "a");
        assert_eq!(first.len(), 32);
        assert_eq!(first, of(&text.replace("row_themes", "other").replace("= 512", "= 600"), "a"));
        assert_ne!(first, of(text, "b"));
        for (old, new) in
            [("count = 6", "count = 5"), ("= 0.4", "= 0.5"), ("minimal", "low"), ("mood", "moods"), ("-lite", "")]
        {
            assert!(text.contains(old));
            assert_ne!(first, of(&text.replace(old, new), "a"), "{old}");
        }
    }
}
