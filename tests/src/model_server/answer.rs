use serde_json::{Map, Value, json};

/// What a reply says that it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    pub(super) prompt: u64,
    pub(super) output: u64,
}

impl Tokens {
    /// About four bytes a token, and at least one.
    pub(super) fn of(request: &Value, text: &str) -> Tokens {
        Tokens { prompt: prompt_tokens(request), output: text.len() as u64 / 4 + 1 }
    }
}

/// What a request reads: its contents, the system instruction and the schema, by the same rule.
pub(super) fn prompt_tokens(request: &Value) -> u64 {
    let text = |of: &Value| of["parts"][0]["text"].as_str().or(of["content"].as_str()).map_or(0, str::len);
    let schemas =
        [&request["generationConfig"]["responseSchema"], &request["response_format"]["json_schema"]["schema"]];
    let schema: usize =
        schemas.into_iter().filter(|schema| !schema.is_null()).map(|schema| schema.to_string().len()).sum();
    let messages: usize = request["messages"].as_array().into_iter().flatten().map(text).sum();
    (text(&request["contents"][0]) + text(&request["systemInstruction"]) + messages + schema) as u64 / 4 + 1
}

/// What every fixed reply says that it took.
pub(super) const FIXED_USAGE: Tokens = Tokens { prompt: 600, output: 120 };

/// The reply of a server that does not look at calls.
pub(super) fn fixed(text: &str) -> String {
    body(Some(text), "STOP", "fixed", FIXED_USAGE)
}

/// A reply; without `text` its candidate has no content.
pub(super) fn body(text: Option<&str>, finish: &str, model: &str, tokens: Tokens) -> String {
    let mut candidate = json!({ "finishReason": finish, "index": 0 });
    if let Some(text) = text {
        candidate["content"] = json!({ "role": "model", "parts": [{ "text": text }] });
    }
    json!({ "candidates": [candidate], "usageMetadata": usage(tokens), "modelVersion": format!("{model}-001") })
        .to_string()
}

/// The reply to a prompt that is not let in.
pub(super) fn blocked(reason: &str, model: &str, tokens: Tokens) -> String {
    let version = format!("{model}-001");
    json!({ "promptFeedback": { "blockReason": reason }, "usageMetadata": usage(tokens), "modelVersion": version })
        .to_string()
}

fn usage(tokens: Tokens) -> Value {
    let Tokens { prompt, output } = tokens;
    json!({ "promptTokenCount": prompt, "candidatesTokenCount": output, "totalTokenCount": prompt + output })
}

/// A valid answer, as text: the same for the same schema and prompt.
pub(super) fn auto(schema: &Value, prompt: &str) -> String {
    value(schema, hash(prompt.as_bytes())).to_string()
}

fn value(schema: &Value, seed: u64) -> Value {
    match schema["type"].as_str().unwrap_or("STRING").to_ascii_uppercase().as_str() {
        "OBJECT" => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let member = |(name, schema): (&String, &Value)| (name.clone(), value(schema, mix(seed, name.as_bytes())));
            Value::Object(properties.map(member).collect::<Map<_, _>>())
        }
        // Seeds in a row: no two values in a row are equal (but for booleans).
        "ARRAY" => {
            let count = schema["minItems"].as_u64().or_else(|| schema["minItems"].as_str()?.parse().ok()).unwrap_or(1);
            (0..count).map(|i| value(&schema["items"], seed.wrapping_add(i))).collect()
        }
        "INTEGER" => json!(seed % 1_000),
        "NUMBER" => json!((seed % 1_000) as f64 / 8.0),
        "BOOLEAN" => json!(seed.is_multiple_of(2)),
        _ => match schema["enum"].as_array() {
            Some(choices) if !choices.is_empty() => choices[seed as usize % choices.len()].clone(),
            _ => json!(format!("{} {}", WORDS[seed as usize % WORDS.len()], seed % 1_009)),
        },
    }
}

const WORDS: [&str; 12] =
    ["harbour", "quiet", "lamp", "price", "delay", "staff", "noise", "colour", "battery", "crew", "ticket", "breeze"];

/// Tokens of an answer: by Box and Muller, from the prompt and a seed.
pub(super) fn log_normal(prompt: &str, median: f64, sigma: f64, seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(mix(hash(&seed.to_le_bytes()), prompt.as_bytes()));
    let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
    (median * (sigma * normal).exp()).round().max(1.0) as u64
}

/// FNV-1a: small, and the same on every machine.
fn hash(bytes: &[u8]) -> u64 {
    mix(0xcbf2_9ce4_8422_2325, bytes)
}

fn mix(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_normal_answers_have_the_median_and_the_mean_of_their_law() {
        let mut tokens: Vec<u64> = (0..20_000).map(|n| log_normal(&format!("row {n}"), 90.0, 0.6, 7)).collect();
        tokens.sort_unstable();
        let (median, mean) = (tokens[10_000], tokens.iter().sum::<u64>() as f64 / 20_000.0);
        assert!((88..=92).contains(&median) && (mean / (90.0 * 0.18_f64.exp()) - 1.0).abs() < 0.02, "{median} {mean}");
    }

    #[test]
    fn an_automatic_answer_fits_its_schema_and_is_the_same_for_the_same_prompt() {
        let array = json!({ "type": "ARRAY", "items": { "type": "STRING" }, "minItems": 6, "maxItems": 6 });
        let schema = json!({ "type": "OBJECT", "properties": { "themes": array, "n": { "type": "INTEGER" } } });
        let answer: Value = serde_json::from_str(&auto(&schema, "a")).unwrap();
        let themes: std::collections::BTreeSet<_> =
            answer["themes"].as_array().unwrap().iter().map(|theme| theme.as_str().unwrap()).collect();
        assert_eq!(themes.len(), 6, "{answer}");
        assert!(answer["n"].is_u64());
        assert_eq!(auto(&schema, "a"), auto(&schema, "a"));
        assert_ne!(auto(&schema, "a"), auto(&schema, "b"));
    }
}
