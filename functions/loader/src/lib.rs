//! The loader leg.
