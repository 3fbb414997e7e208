//! Reading and writing the numbers and texts of the disk formats: little-endian, every length checked.

/// A cursor that gives nothing where there is not enough left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Bytes that are left.
    pub(super) const fn left(&self) -> usize {
        self.left.len()
    }

    /// The next so many bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, left) = self.left.split_at_checked(count)?;
        self.left = left;
        Some(bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn f64(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }

    /// A text with its length before it, as [`put_text`] writes it.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let bytes = usize::from(self.u16()?);
        std::str::from_utf8(self.bytes(bytes)?).ok()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, left) = self.left.split_first_chunk()?;
        self.left = left;
        Some(*array)
    }
}

/// `bytes u16 | text`; texts here are names of files (4,096 bytes) and sources (255), checked where they come in.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes = u16::try_from(text.len()).expect("names are checked where they come in");
    out.extend(bytes.to_le_bytes());
    out.extend(text.as_bytes());
}
