//! The embedded relay.

pub mod store;
