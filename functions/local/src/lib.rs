//! The embedded relay.
