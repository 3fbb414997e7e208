//! A device in RAM that crashes, tears, flips and refuses.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard};

use crate::store::device::Device;

/// Sectors are written whole or not at all, whatever else happens.
const SECTOR: usize = 512;

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct Simulated {
    state: Mutex<State>,
    /// Taken by every write.
    writes: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// What survives a crash for certain.
    durable: Vec<u8>,
    /// What reads see.
    now: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
    /// Writes and syncs from now on that are refused, half done.
    refuse_writes: u32,
    refuse_reads: u32,
}

impl Simulated {
    pub(crate) fn new(bytes: usize) -> Self {
        let state = State {
            durable: vec![0; bytes],
            now: vec![0; bytes],
            dirty: BTreeSet::new(),
            refuse_writes: 0,
            refuse_reads: 0,
        };
        Self { state: Mutex::new(state), writes: Mutex::default() }
    }

    /// The power goes: each sector that was not synced is there or not, as the bits of `fate` say.
    pub(crate) fn crash(&self, mut fate: u64) {
        let mut state = self.lock();
        for sector in std::mem::take(&mut state.dirty) {
            fate = fate.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            if fate >> 63 == 0 {
                let written = state.now[range.clone()].to_vec();
                state.durable[range].copy_from_slice(&written);
            }
        }
        state.now = state.durable.clone();
        (state.refuse_writes, state.refuse_reads) = (0, 0);
    }

    /// A bit rots.
    pub(crate) fn flip(&self, bit: usize) {
        let mut state = self.lock();
        let (at, mask) = (bit / 8 % state.now.len(), 1 << (bit % 8));
        state.now[at] ^= mask;
        state.durable[at] ^= mask;
    }

    pub(crate) fn refuse_writes(&self, count: u32) {
        self.lock().refuse_writes = count;
    }

    /// Writes hang until this is dropped.
    pub(crate) fn hold_writes(&self) -> MutexGuard<'_, ()> {
        self.writes.lock().unwrap()
    }

    pub(crate) fn refuse_reads(&self, count: u32) {
        self.lock().refuse_reads = count;
    }

    pub(crate) fn overwrite(&self, offset: usize, bytes: &[u8]) {
        let mut state = self.lock();
        state.now[offset..offset + bytes.len()].copy_from_slice(bytes);
        state.durable[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Device for Simulated {
    fn bytes(&self) -> u64 {
        self.lock().now.len() as u64
    }

    /// Every third page is not in the page cache.
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        if (offset / 4096).is_multiple_of(3) { Ok(false) } else { self.read(offset, buffer).map(|()| true) }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.lock();
        if state.refuse_reads > 0 {
            state.refuse_reads -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        let start = usize::try_from(offset).unwrap();
        let bytes = state.now.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _free = self.hold_writes();
        let mut state = self.lock();
        let start = usize::try_from(offset).unwrap();
        let refused = state.refuse_writes > 0;
        state.refuse_writes -= u32::from(refused);
        let written = if refused { bytes.len() / 2 } else { bytes.len() };
        state.now[start..start + written].copy_from_slice(&bytes[..written]);
        state.dirty.extend(start / SECTOR..(start + written).div_ceil(SECTOR));
        if refused { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.refuse_writes > 0 {
            // What the kernel could not write it drops: reads see it still, a crash does not.
            state.refuse_writes -= 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        for sector in std::mem::take(&mut state.dirty) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            let written = state.now[range.clone()].to_vec();
            state.durable[range].copy_from_slice(&written);
        }
        Ok(())
    }
}
