//! The embedded relay, and the `tasuki` command that drives it.

mod cli;
mod commands;
pub mod folder;
pub mod home;
mod logs;
pub mod model;
mod progress;
pub mod relay;
mod show;
mod signals;
pub mod store;

pub use commands::main;
