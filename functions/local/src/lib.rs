//! The embedded relay, and the `tasuki` command that drives it.

mod bill;
mod cli;
#[cfg(feature = "cloud")]
mod cloud;
mod commands;
pub mod folder;
pub mod home;
mod logs;
pub mod model;
mod one_file;
mod progress;
pub mod relay;
mod show;
mod signals;
mod site;
pub mod store;

pub use commands::main;
