//! The model port in memory: says what it was told to, by prompt.

use async_trait::async_trait;
use std::collections::BTreeMap;
use tasuki_relay::ports::{Ask, Fault, Model, Reply};

/// [`Model`] in memory.
#[derive(Debug, Default)]
pub struct MemoryModel(BTreeMap<String, Result<Reply, Fault>>);

impl MemoryModel {
    /// Says this of these prompts; any other is [`Fault::Invalid`].
    pub fn new(says: impl IntoIterator<Item = (String, Result<Reply, Fault>)>) -> MemoryModel {
        MemoryModel(says.into_iter().collect())
    }
}

#[async_trait]
impl Model for MemoryModel {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        self.0
            .get(&ask.prompt)
            .cloned()
            .unwrap_or_else(|| Err(Fault::Invalid("nothing was told of this prompt".into())))
    }
}
