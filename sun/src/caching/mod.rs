//! The rules of a shared HTTP cache (RFC 9111): what a message says about being kept, for how long, for whom.
//!
//! ```text
//!   response headers --directives--> ResponseDirectives --freshness--> Lifetime: fresh, stale, how long
//!                                          |          \--storable---> may it be kept at all?
//!                                          +--update----> the fields that are kept, and what a 304 makes of them
//!   request headers  --directives--> RequestDirectives --reuse------> Serve, ServeStale, Validate
//!                    --vary--------> which of several responses
//!   unsafe request and its response ---invalidate--> what is no longer good
//! ```
//!
//! Everything here is pure: the clock is an argument, in seconds since 1970, and nothing waits. Who asks
//! ([`crate::flow`]) and who answers ([`crate::fill`]) only apply it.
//!
//! Content classes under the policy "immutable" use none of it but `no-store` and `private`: their files are
//! fresh for as long as the class says.

pub mod date;
pub mod directives;
pub mod freshness;
pub mod invalidate;
pub mod storable;
pub mod update;
pub mod vary;
