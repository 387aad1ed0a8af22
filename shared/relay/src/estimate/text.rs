//! Tokens of a text that no model has counted.

/// ASCII bytes of a token (<https://ai.google.dev/gemini-api/docs/tokens>: "a token is equivalent to about 4 characters").
const ASCII_PER_TOKEN: f64 = 4.0;

/// Tokens of a text by a rule of thumb: four ASCII characters are one, and so is each other letter (kana, kanji, hangul, accents).
///
/// With counts of some texts at hand only its proportions matter; alone it may be off by [`super::GUESS_OFF`].
pub fn guess(text: &str) -> f64 {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    ascii as f64 / ASCII_PER_TOKEN + others(text) as f64
}

/// Characters that are no ASCII.
fn others(text: &str) -> usize {
    text.chars().filter(|character| !character.is_ascii()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_of_japanese_is_a_token_and_four_of_english_are() {
        assert_eq!(["", "four", "日本", "日本 tea"].map(guess), [0.0, 1.0, 2.0, 3.0]);
    }
}
