//! What a deployed leg needs of Google Cloud: the adapters behind the ports, the HTTP server that Eventarc calls, settings,
//! telemetry. A newcomer's first command builds none of it.

pub mod bigquery;
pub mod connect;
pub mod http;
pub mod model;
pub mod notice;
pub mod objects;
pub mod records;
pub mod rest;
pub mod service;
pub mod settings;
pub mod telemetry;
