//! The NVMe tier of a sun: a log of large segments per device.

pub mod device;
pub mod policy;
