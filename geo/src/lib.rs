//! "Where": what a file is called, which server of a region keeps it, and which region a client is in.
//!
//! ```text
//!   /c100500/a.jpg --name--> c100500/a.jpg --blake3--> ContentId --+
//!                                                                  |
//!   topology.toml --watch--> Topology: regions, suns, weights -----+--placement--> owner, stand-ins
//!                               |                                                     |
//!   client address --resolver---+--> regions that serve it, best first                |
//!      prefix lists, geoip                                                            v
//!                                                  https://sun4-2-1.example.org/c100500/a.jpg
//! ```
//!
//! In reading order:
//!
//! - [`name`]: a request path becomes one canonical name, or is refused; the id that everything is keyed by.
//! - [`placement`]: the order of servers for a file, a pure function of names and weights.
//! - [`topology`]: what the operator wants, one TOML document that is checked as a whole.
//! - [`source`]: where the document is: a file, or a key of an [`etcd`] cluster. [`watch`]: it is followed; its last good copy
//!   outlives it.
//! - [`rest`]: the topology as it counts while servers rest.
//! - [`anycast`]: which sun of a group takes an address over from which.
//! - [`regions`]: where the regions are and who takes over for whom, all that the table needs of a topology.
//! - [`lists`]: prefix lists in text, CSV and JSON. [`geoip`]: what a file in MaxMind's format says of every address.
//! - [`bmp`]: routers connect and tell their routes. [`feed`]: what they (BMP) and dumps (MRT) say, decoded.
//! - [`route`]: a route as it was heard. [`rib`]: what all routers hear, prefix by prefix, and what of it counts now.
//! - [`rules`]: what the operator says: pin, deny, prefer; which AS is in which region.
//! - [`choice`]: the order of regions for a prefix, from routes and rules, and why.
//! - [`damping`]: how long a change of region has to be wished for before clients are moved.
//! - [`table`]: every address's regions, looked up in nanoseconds and changed while it is read.
//! - [`engine`]: what is heard becomes a table, and stays one while it changes.
//! - [`resolver`]: which regions serve a client, and what says so.
//! - [`serve`]: the daemon. [`wire`], [`client`]: what it is asked. [`follow`]: those who follow its table.
//! - [`diff`]: what moves between two tables. [`answer`]: columns for people, JSON for programs. [`cli`]: the command `geo`.
//!
//! It is *not* about state: who is alive, how loaded, and which cache holds what are the popularity API's to
//! know. Nothing here but [`bmp`], [`serve`], [`client`], [`follow`] and [`etcd`] opens a connection or listens to one, and nothing
//! that decides is random: every server that reads the same files comes to the same answers.

pub mod answer;
pub mod anycast;
pub mod bmp;
pub mod choice;
pub mod cli;
pub mod client;
pub mod damping;
pub mod diff;
pub mod engine;
pub mod etcd;
pub mod feed;
mod file;
pub mod follow;
pub mod geoip;
pub mod lists;
pub mod name;
pub mod placement;
pub mod regions;
pub mod resolver;
pub mod rest;
pub mod rib;
pub mod route;
pub mod rules;
pub mod serve;
pub mod source;
pub mod table;
pub mod topology;
pub mod watch;
pub mod wire;

pub use name::{CanonicalName, ContentId, NameError};
pub use placement::Weight;
pub use resolver::{Evidence, Resolution, Resolver};
pub use source::Source;
pub use topology::{RegionId, Scheme, Topology};
