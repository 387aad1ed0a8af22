//! The generator leg.
