//! The embedded relay.

pub mod folder;
pub mod store;
