//! The splitter leg.
