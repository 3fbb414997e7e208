//! Which devices a store has, and its beginning.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::device::{Device, FileDevice};
use super::index::{DEVICES_MAX, Index};
use super::log::Shared;
use super::metrics::Metrics;
use super::policy::{Policy, Settings};
use super::slot::{Opener, Slot};
use super::{Inner, Store};

/// One device of a store.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// A directory (on a filesystem of its own, best), a file, or a block device. One that is in use, or that has
    /// anything but zeros in its first MiB, is refused; what holds data behind a MiB of zeros is not recognised.
    pub path: PathBuf,
    /// Bytes of it that are used, reserved at the start. At least 32 MiB. RAM for the index comes on top: about
    /// 60 bytes a file and 60 a MiB of larger ones.
    pub bytes: u64,
}

impl StoreConfig {
    /// Looks whether it can be opened, and opens nothing.
    ///
    /// # Errors
    ///
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        let problem = |text: &str| Err(format!("store: {}: {text}", self.path.display()));
        if self.bytes < BYTES_MIN {
            return problem(&format!("{} bytes are too few: at least {BYTES_MIN}", self.bytes));
        }
        let folder = if self.path.exists() { Some(self.path.as_path()) } else { self.path.parent() };
        match folder.map(std::fs::metadata) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => problem(&error.to_string()),
            None => problem("there is no such folder"),
        }
    }
}

impl Store {
    /// Opens all devices and begins to read their index; lookups find what is known so far. A device that cannot
    /// be opened is left alone and tried again later: the store begins without it. Blocks for the time of two
    /// small reads a segment.
    ///
    /// # Errors
    ///
    /// When the registry has metrics of the same name, or there are more devices than [`DEVICES_MAX`].
    pub fn open(configs: &[StoreConfig], settings: Settings, registry: &prometheus::Registry) -> anyhow::Result<Self> {
        let device = |config: &StoreConfig| {
            let (path, bytes) = (config.path.clone(), config.bytes);
            let opener: Opener = Box::new(move || Ok(Arc::new(FileDevice::open(&path, bytes)?) as Arc<dyn Device>));
            DeviceConfig {
                name: config.path.display().to_string(),
                bytes: config.bytes,
                segment_bytes: segment_bytes(config.bytes),
                opener,
            }
        };
        Self::with_devices(configs.iter().map(device).collect(), settings, registry)
    }

    /// The same, on devices of any kind.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn with_devices(
        devices: Vec<DeviceConfig>,
        settings: Settings,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(devices.len() <= DEVICES_MAX.into(), "a store has at most {DEVICES_MAX} devices");
        let metrics = Metrics::new(registry)?;
        let shared = Shared {
            index: Arc::new(Index::new(rand::random())),
            forgotten: Arc::default(),
            sequence: Arc::new(AtomicU64::new(1)),
        };
        let all_bytes: u64 = devices.iter().map(|device| device.bytes).sum();
        let slots: Vec<_> = (0..)
            .zip(devices)
            .map(|(id, device)| {
                let share = |whole: u64| {
                    u64::try_from(u128::from(whole) * u128::from(device.bytes) / u128::from(all_bytes.max(1)))
                };
                let settings = Settings {
                    write_bytes_per_day: share(settings.write_bytes_per_day).unwrap_or(u64::MAX),
                    ghost_entries: share(settings.ghost_entries as u64)
                        .ok()
                        .and_then(|entries| usize::try_from(entries).ok())
                        .unwrap_or(usize::MAX)
                        .clamp(GHOST_ENTRIES_MIN, GHOST_ENTRIES_MAX),
                    ..settings
                };
                let policy = Policy::new(settings, 0);
                Arc::new(Slot::new(id, device.name, device.bytes, device.segment_bytes, policy, device.opener))
            })
            .collect();
        // All devices tell their highest sequence before anything is offered.
        let begun: Vec<_> = slots.iter().map(|slot| slot.open(&shared)).collect();
        let mut threads = Vec::new();
        for (slot, begun) in slots.iter().zip(begun) {
            let (slot, shared) = (Arc::clone(slot), shared.clone());
            let thread = std::thread::Builder::new().name("store".to_owned());
            threads.push(thread.spawn(move || slot.run(&shared, begun))?);
        }
        let inner = Inner { shared, slots, threads: Mutex::new(threads), metrics, started: Instant::now() };
        Ok(Self(Arc::new(inner)))
    }
}

/// One device of any kind.
pub struct DeviceConfig {
    /// For people and metrics.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes of a segment, should it be blank.
    pub segment_bytes: u32,
    /// Opens it.
    pub opener: Opener,
}

impl std::fmt::Debug for DeviceConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Bytes of a segment of a new store: a 1024th of it, between 8 and 256 MiB. Larger ones waste more when a crash
/// leaves one half written; more of them are two more small reads each at the start.
const fn segment_bytes(bytes: u64) -> u32 {
    let share = (bytes / 1024).next_power_of_two();
    if share < 8 << 20 {
        // Small stores, for tests and trials: at least 16 segments, of room for a few blocks.
        let small = (bytes / 32).next_power_of_two();
        return if small < 2 << 20 {
            2 << 20
        } else if small < 8 << 20 {
            small as u32
        } else {
            8 << 20
        };
    }
    if share > 256 << 20 { 256 << 20 } else { share as u32 }
}

/// Offers that the policy of one device remembers, 4 bytes each.
const GHOST_ENTRIES_MIN: usize = 1 << 16;
const GHOST_ENTRIES_MAX: usize = 1 << 24;

/// Fewest bytes of a device: 16 segments of 2 MiB.
pub const BYTES_MIN: u64 = 32 << 20;
