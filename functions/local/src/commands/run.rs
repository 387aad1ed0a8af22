//! `tasuki run`

use super::Exit;
use super::drive::Job;
use crate::cli;
use crate::home::Home;
use crate::model::{self, Answerer};
use crate::show::line;
use crate::signals::Stop;
use anyhow::{Context, Result, bail};
use std::path::Path;
use tasuki_relay::clock::Clock;
use tasuki_relay::limits::PIPELINE_BYTES_MAX;
use tasuki_relay::pipeline::{Field, Pipeline, Problems};
use tasuki_relay::prices::Catalogue;
use tasuki_relay::rows::suffix_problem;

/// Suffixes of files that can be read, the longest first.
const SUFFIXES: [&str; 5] = [".retry.jsonl", ".jsonl.gz", ".csv.gz", ".jsonl", ".csv"];

pub(crate) async fn run(dir: &Path, args: cli::Run) -> Result<Exit> {
    let Checked { suffix, text, pipeline } = check(&args.input, &args.pipeline, readable)?;
    let input = &args.input;
    let chosen = model::choose(pipeline.model.provider, pipeline.run.max_in_flight)?;
    if let (Answerer::Gemini, Some(problems)) = (chosen.answerer, elsewhere(&pipeline, &text)) {
        bail!("nothing was started:\n{}", problems.in_file(&args.pipeline.display().to_string()));
    }
    let job = Job {
        chosen,
        home: Home::open(dir)?,
        command: "run",
        pipeline: &pipeline,
        pipeline_text: &text,
        source: input,
        identity: None,
        suffix,
        called: input.display().to_string(),
        again: args.again,
        json: args.json,
        resume: line(dir, &words(&args)),
    };
    job.perform(Stop::listen().context("signals cannot be listened for")?).await
}

/// The places that a pipeline of this text names, which an API key cannot reach.
fn elsewhere(pipeline: &Pipeline, text: &str) -> Option<Problems> {
    let vertex = "is for Vertex AI, and the Gemini API has none: remove it, or give the file to a deployment";
    let model = &pipeline.model;
    let own =
        model.location.iter().map(|_| (Field(&["model", "location"], None), format!("[model] location {vertex}")));
    let others = model.fallback.iter().enumerate().filter_map(|(at, place)| {
        let location = place.location.as_ref()?;
        let field = Field(&["model", "fallback"], Some(at));
        Some((field, format!("[model] fallback: the location {location} of {place} {vertex}")))
    });
    Problems::at(text, own.chain(others).collect())
}

/// A file and a pipeline that fit.
pub(crate) struct Checked {
    /// Of the file: `.csv.gz`.
    pub(crate) suffix: &'static str,
    /// Of the pipeline.
    pub(crate) text: String,
    pub(crate) pipeline: Pipeline,
}

/// Reads what the command line names; `readable` tells the file's suffix, or what is wrong with it. All that is wrong is told at
/// once, so that one look mends it.
pub(crate) fn check(
    input: &Path,
    pipeline: &Path,
    readable: impl Fn(&Path) -> Result<&'static str, String>,
) -> Result<Checked> {
    let file = pipeline.display().to_string();
    let suffix = readable(input);
    let text = read_pipeline(pipeline);
    let pipeline = text.as_ref().ok().map(|text| begins(text, &file));
    let mut problems = Vec::new();
    problems.extend(suffix.as_ref().err().cloned());
    problems.extend(text.as_ref().err().map(|error| format!("{error:#}")));
    problems.extend(pipeline.as_ref().and_then(|pipeline| pipeline.as_ref().err().cloned()));
    match (suffix, text, pipeline) {
        (Ok(suffix), Ok(text), Some(Ok(pipeline))) => Ok(Checked { suffix, text, pipeline }),
        _ => bail!("nothing was started:\n{}", problems.join("\n")),
    }
}

/// The pipeline of this text, if a run may begin with it. Warns on stderr of what a person should know.
pub(crate) fn begins(text: &str, file: &str) -> Result<Pipeline, String> {
    let pipeline = Pipeline::parse(text).map_err(|problems| problems.in_file(file))?;
    let (catalogue, now) = (Catalogue::shipped(), Clock::system().now());
    if let Some(problems) = catalogue.refuses(&pipeline, text, now) {
        return Err(problems.in_file(file));
    }
    if let Some(warning) = catalogue.warns(&pipeline.model, now) {
        eprintln!("{file}: {warning}");
    }
    Ok(pipeline)
}

/// The same command line again, without what is for once.
pub(crate) fn words(args: &cli::Run) -> [String; 4] {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    ["run".to_owned(), text(&args.input), "--pipeline".to_owned(), text(&args.pipeline)]
}

/// The suffix of a file that can be read and is there.
pub(crate) fn readable(input: &Path) -> Result<&'static str, String> {
    is_file(input)?;
    let name = input.display().to_string();
    if let Some(problem) = suffix_problem(&name) {
        return Err(problem);
    }
    suffix_of(&name).ok_or_else(|| format!("{name}: its name ends in none of {}", SUFFIXES.join(", ")))
}

/// The input is there.
pub(crate) fn is_file(input: &Path) -> Result<(), String> {
    match input.metadata() {
        Err(error) => Err(format!("{}: {error}", input.display())),
        Ok(found) if !found.is_file() => Err(format!("{}: not a file: name a file with rows", input.display())),
        Ok(_) => Ok(()),
    }
}

/// The suffix of a file that can be read, in small letters.
pub(crate) fn suffix_of(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    SUFFIXES.into_iter().find(|suffix| lower.ends_with(suffix))
}

/// The text of a pipeline file.
pub(crate) fn read_pipeline(file: &Path) -> Result<String> {
    let name = || file.display().to_string();
    let size = file.metadata().with_context(name)?.len();
    if size > PIPELINE_BYTES_MAX as u64 {
        bail!("{}: {size} bytes, a pipeline has at most {PIPELINE_BYTES_MAX}", name());
    }
    let bytes = std::fs::read(file).with_context(name)?;
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{}: not UTF-8: save the file as UTF-8", name()))
}
