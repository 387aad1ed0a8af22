//! What a call may cost at most, before it is made.

use crate::ports::Ask;
use crate::schema::response_schema;

/// Tokens that a question takes beside its text: marks of turns and of roles, and what a provider adds to say what a schema is.
pub(super) const FRAME_TOKENS: u64 = 256;

/// Tokens that a call takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worst {
    /// Of its prompt.
    pub prompt: u64,
    /// Of its answer and thoughts together.
    pub output: u64,
}

/// The most tokens that a call can take; `None` when nothing bounds its output.
///
/// A token is a byte at least, so no text has more tokens than bytes; thoughts are within the limit of the output. About four
/// bytes are a token of English prose: what was too much is given back once the call is settled.
pub fn worst_case(ask: &Ask) -> Option<Worst> {
    let output = ask.max_output_tokens.or(ask.pipeline.model.max_output_tokens)?;
    let system = ask.pipeline.system.as_ref().map_or(0, String::len);
    let schema = response_schema(&ask.pipeline).to_string().len();
    let prompt = (ask.prompt.len() + system + schema) as u64 + FRAME_TOKENS;
    Some(Worst { prompt, output: output.into() })
}
