//! Every address's regions in one table: prefixes with their leaves, and geoip's ranges where no prefix is heard.

mod leaf;

pub use leaf::{CANDIDATES_MAX, Candidate, DENIED_MAX, Leaf, Source};
