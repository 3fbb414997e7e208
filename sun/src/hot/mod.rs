//! Files that one sun is not enough for: seen here, agreed on through the popularity API, shared by several suns.
//!
//! ```text
//!   requests, bytes --> detector (a sketch a worker) --each second--> rates --> hottest files --> status report
//!                                                                       |                             |
//!                                                                       v                      popularity API
//!   old links still name the owner:                        own view, while the              spread r, busy of all
//!   307 to a sibling <-- passing <----- turn <-----------  API is away  <---+--------------- status answer
//! ```
//!
//! In reading order: [`sketch`] (counting in bounded memory), [`detector`] (what workers write to), [`rates`] (per
//! second, smoothed), [`turn`] (what follows each second), [`passing`] (which request is passed on, and why that
//! cannot loop). All but the detector's locks is pure: the clock and the dice are arguments.

pub mod detector;
pub mod passing;
pub mod rates;
pub mod sketch;
pub mod turn;

pub use detector::Detector;
pub use passing::Passing;
