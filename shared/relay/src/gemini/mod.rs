//! The Gemini client: the model port over HTTP.
