//! What a deployed leg needs of Google Cloud: the adapters behind the ports, the HTTP server that Eventarc calls, settings,
//! telemetry. A newcomer's first command builds none of it.

pub mod bigquery;
pub mod connect;
