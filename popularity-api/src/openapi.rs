//! The API's description for programs: an OpenAPI 3.1 document, served at `/v1/openapi.json` without a token and
//! printed by `popularity-api --openapi`.
//!
//! It is kept by hand, because what it says beyond names and types (bounds, who may call, which refusals) no derive
//! knows, and it cannot drift, because tests compare it with what is so:
//!
//! ```text
//!   routes.rs  ---every path and method---+
//!   wire.rs    ---every type's fields-----+--> openapi.json <--- a schema-driven test calls a running API by it
//!   wire/tests ---every golden body-------+                      (tests/openapi)
//!   roles      ---who is answered 403-----+
//! ```
//!
//! Why not a derive (utoipa): every wire type would carry a second description in attributes, and paths, rights and
//! refusals would still be kept by hand, beside the handlers.

/// The document, JSON.
pub const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
pub(crate) mod tests;
