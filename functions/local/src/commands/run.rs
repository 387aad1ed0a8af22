//! `tasuki run`

use super::drive::Job;
use super::Exit;
use crate::show::line;
use crate::cli;
use crate::home::Home;
use crate::model;
use anyhow::{Context, Result, bail};
use std::path::Path;
use tasuki_relay::limits::PIPELINE_BYTES_MAX;
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::rows::suffix_problem;

/// Suffixes of files that can be read, the longest first.
const SUFFIXES: [&str; 5] = [".retry.jsonl", ".jsonl.gz", ".csv.gz", ".jsonl", ".csv"];

pub(crate) async fn run(dir: &Path, args: cli::Run) -> Result<Exit> {
    let (input, file) = (&args.input, args.pipeline.display().to_string());
    let suffix = readable(input);
    let text = read_pipeline(&args.pipeline);
    let pipeline = text.as_ref().ok().map(|text| Pipeline::parse(text).map_err(|problems| problems.in_file(&file)));
    // All that is wrong at once, so that one look mends it.
    let mut problems = Vec::new();
    problems.extend(suffix.as_ref().err().cloned());
    problems.extend(text.as_ref().err().map(|error| format!("{error:#}")));
    problems.extend(pipeline.as_ref().and_then(|pipeline| pipeline.as_ref().err().cloned()));
    let (Ok(suffix), Ok(text), Some(Ok(pipeline)), true) = (suffix, text, pipeline, problems.is_empty()) else {
        bail!("nothing was started:\n{}", problems.join("\n"));
    };
    let job = Job {
        chosen: model::choose(pipeline.run.max_in_flight)?,
        home: Home::open(dir)?,
        command: "run",
        pipeline: &pipeline,
        pipeline_text: &text,
        source: input,
        suffix,
        called: input.display().to_string(),
        again: args.again,
        json: args.json,
        resume: line(dir, &["run", &input.to_string_lossy(), "--pipeline", &file]),
    };
    job.perform().await
}

/// The suffix of a file that can be read and is there.
fn readable(input: &Path) -> Result<&'static str, String> {
    match input.metadata() {
        Err(error) => return Err(format!("{}: {error}", input.display())),
        Ok(found) if !found.is_file() => return Err(format!("{}: not a file: name a file with rows", input.display())),
        Ok(_) => (),
    }
    let name = input.display().to_string();
    if let Some(problem) = suffix_problem(&name) {
        return Err(problem);
    }
    suffix_of(&name).ok_or_else(|| format!("{name}: its name ends in none of {}", SUFFIXES.join(", ")))
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
