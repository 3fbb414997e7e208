//! What a store counts: `edge_store_*`.

use daemon::metrics::Meters;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

/// Counters of one store.
#[derive(Clone, Debug)]
pub struct Metrics {
    hits: IntCounter,
    misses: IntCounterVec,
    reads: [IntCounter; 3],
    read_bytes: IntCounter,
    offers: IntCounterVec,
    corrupt: IntCounter,
    /// Blocks and heads that are found.
    pub entries: IntGauge,
    /// RAM of the index, bytes.
    pub index_bytes: IntGauge,
    /// Bytes of what is found, by device.
    pub bytes: IntGaugeVec,
    /// Bytes that may be held, by device.
    pub capacity: IntGaugeVec,
    /// Bytes written since the start, by device.
    pub written: IntGaugeVec,
    /// Of them, bytes of what was kept when its segment was reclaimed, by device.
    pub kept: IntGaugeVec,
    /// Errors of each device since the start.
    pub errors: IntGaugeVec,
    /// 1: in use, 0: aside.
    pub up: IntGaugeVec,
    /// Segments that recovery has still to read.
    pub recovering: IntGaugeVec,
}

/// Where a record was read from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The queue of records that are not written yet.
    Queue,
    /// The page cache, in place.
    Now,
    /// The device, by way of a blocking thread.
    Pool,
}

/// Why a record that was asked for was not found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Miss {
    /// It is not in the index.
    Unknown,
    /// Its device is aside.
    Aside,
    /// Too many reads wait for its device.
    Busy,
    /// The device refused.
    Device,
    /// Its bytes are not what was written.
    Corrupt,
    /// Its segment was used again meanwhile, or it was forgotten.
    Gone,
}

impl Miss {
    const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Aside => "aside",
            Self::Busy => "busy",
            Self::Device => "device",
            Self::Corrupt => "corrupt",
            Self::Gone => "gone",
        }
    }
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offered {
    /// It waits to be written, and is found already.
    Stored,
    /// It is there.
    Held,
    /// It was not offered often enough: only that is remembered.
    FirstOffer,
    /// The day's bytes are written.
    OverBudget,
    /// Too much waits to be written.
    QueueFull,
    /// There is no device for it, or it is larger than any record.
    Nowhere,
}

impl Offered {
    const fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Held => "held",
            Self::FirstOffer => "first",
            Self::OverBudget => "budget",
            Self::QueueFull => "queue",
            Self::Nowhere => "nowhere",
        }
    }
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    ///
    /// When the registry has something of the same name.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let meters = Meters::new(registry, "edge_store_");
        let device = |name: &str, help: &str| meters.gauges(name, help, &["device"]);
        let reads = meters.counters(
            "reads_total",
            "Records read: from the write queue, the page cache, the device.",
            &["from"],
        )?;
        Ok(Self {
            hits: meters.counter("hits_total", "Records that were asked for and found.")?,
            misses: meters.counters("misses_total", "Records that were asked for and not found.", &["reason"])?,
            reads: ["queue", "now", "pool"].map(|from| reads.with_label_values(&[from])),
            read_bytes: meters.counter("read_bytes_total", "Bytes of bodies read.")?,
            offers: meters.counters("offers_total", "Records offered, by what became of them.", &["verdict"])?,
            corrupt: meters.counter("corrupt_total", "Records whose bytes were not what was written.")?,
            entries: meters.gauge("entries", "Heads and blocks that are found.")?,
            index_bytes: meters.gauge("index_bytes", "RAM of the index.")?,
            bytes: device("bytes", "Bytes of what is found.")?,
            capacity: device("capacity_bytes", "Bytes that may be held.")?,
            written: device("written_bytes", "Bytes written since the start.")?,
            kept: device("kept_bytes", "Bytes of them written again when their segment was reclaimed.")?,
            errors: device("device_errors", "Errors of the device since the start.")?,
            up: device("up", "1: the device is in use, 0: it failed and is left alone for a while.")?,
            recovering: device("recovering_segments", "Segments that recovery has still to read.")?,
        })
    }

    /// A record was found.
    pub fn hit(&self, origin: Origin, bytes: usize) {
        self.hits.inc();
        self.reads[origin as usize].inc();
        self.read_bytes.inc_by(bytes as u64);
    }

    /// A record was not found.
    pub fn miss(&self, miss: Miss) {
        if miss == Miss::Corrupt {
            self.corrupt.inc();
        }
        self.misses.with_label_values(&[miss.name()]).inc();
    }

    /// A record was offered.
    pub fn offered(&self, offered: Offered) {
        self.offers.with_label_values(&[offered.name()]).inc();
    }
}
