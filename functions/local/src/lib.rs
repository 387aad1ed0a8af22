//! The embedded relay.

pub mod folder;
