//! "Where": what a file is called, regions and servers, which server keeps it, which region a client is in.

pub mod name;
pub mod placement;
pub mod resolver;
pub mod topology;
pub mod watch;

pub use name::{CanonicalName, ContentId, NameError};
pub use placement::Weight;
pub use resolver::{Evidence, Resolution, Resolver};
pub use topology::{RegionId, Scheme, Topology};
