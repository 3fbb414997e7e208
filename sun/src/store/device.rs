//! What a log is written to: something with positioned reads and writes. The only part that touches a disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::ReadWriteFlags;

use crate::store::format::{Opening, SEGMENTS_START};

/// Positioned bytes of a fixed number. Errors are the device's own; every caller checks what it reads.
pub trait Device: std::fmt::Debug + Send + Sync {
    /// Bytes that may be addressed.
    fn bytes(&self) -> u64;

    /// Fills `buffer` from `offset` if that can be had without waiting; false: it cannot.
    ///
    /// # Errors
    ///
    /// What the device says.
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    ///
    /// What the device says; `UnexpectedEof` when it ends before that.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// `bytes` from `offset` are read soon: the device may begin now. Only a hint.
    fn will_read(&self, _offset: u64, _bytes: u64) {}

    /// Writes all of `bytes` at `offset`; durable after the next [`Device::sync`] that succeeds.
    ///
    /// # Errors
    ///
    /// What the device says; any part may have been written.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    ///
    /// What the device says; what was written since the last sync may be lost, in any part.
    fn sync(&self) -> io::Result<()>;

    /// Lets another process write it. This one reads it on.
    fn unlock(&self) {}

    /// The next read of `bytes` from `offset` is to be the device's own, not RAM's. Only a hint; what is not synced stays.
    fn drop_cached(&self, _offset: u64, _bytes: u64) {}
}

/// A file or a block device.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    bytes: u64,
}

impl FileDevice {
    /// Opens `path`: a directory (then the file [`FILE_NAME`] in it), a file, or a block device. A file is made
    /// `bytes` long and its room reserved; a block device must have them, and nothing else may use it: Linux refuses
    /// it while it is mounted, swap, or part of a RAID, a volume group or a pool that runs (open(2), `O_EXCL`).
    ///
    /// # Errors
    ///
    /// `WouldBlock` when another process has it open, `ResourceBusy` when the system uses the device; what the
    /// operating system says.
    pub fn open(path: &Path, bytes: u64) -> io::Result<Self> {
        let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        let exists = std::fs::metadata(&path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).truncate(false);
        if exists.is_ok_and(|found| found.file_type().is_block_device()) {
            options.custom_flags(OFlags::EXCL.bits().cast_signed());
        } else {
            options.create(true);
        }
        let file = options.open(&path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let kind = file.metadata()?.file_type();
        if kind.is_block_device() {
            let has = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
            if has < bytes {
                return Err(io::Error::other(format!("{} has {has} bytes, {bytes} are configured", path.display())));
            }
        } else {
            reserve(&file, bytes)?;
        }
        // Blocks are read here and there: reading ahead fetches neighbours that nobody asked for.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random)?;
        Ok(Self { file, bytes })
    }
}

/// Makes a file `bytes` long, unless it is longer: what is in it may be somebody else's. Its room is reserved now,
/// so that a full filesystem is found now; one that cannot reserve gets a sparse file.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut front = vec![0; usize::try_from(length.min(SEGMENTS_START)).unwrap_or(0)];
    file.read_exact_at(&mut front, 0)?;
    if matches!(Opening::decode(&front), Opening::Foreign) {
        return Err(io::Error::other("it holds something that is not a store: remove it, or name another path"));
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    if length < bytes { file.set_len(bytes) } else { Ok(()) }
}

impl Device for FileDevice {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let wanted = buffer.len();
        let mut slices = [io::IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read == wanted),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn will_read(&self, offset: u64, bytes: u64) {
        // A hint that is not taken costs time, no more.
        let _ = rustix::fs::fadvise(&self.file, offset, std::num::NonZeroU64::new(bytes), rustix::fs::Advice::WillNeed);
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn unlock(&self) {
        // What cannot be unlocked is when this process ends.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }

    fn drop_cached(&self, offset: u64, bytes: u64) {
        // Pages are dropped whole or not at all.
        let (start, end) = (offset / PAGE_BYTES * PAGE_BYTES, (offset + bytes).next_multiple_of(PAGE_BYTES));
        let length = std::num::NonZeroU64::new(end - start);
        let _ = rustix::fs::fadvise(&self.file, start, length, rustix::fs::Advice::DontNeed);
    }
}

/// The page cache's unit on the machines that this runs on.
const PAGE_BYTES: u64 = 4096;

/// Name of the one file in a directory that is given as a store.
pub const FILE_NAME: &str = "blocks.sun";
