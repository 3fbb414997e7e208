//! Bytes that are asked for and may not be there.
//!
//! The only place that cuts outside bytes apart. It knows where it stands in the whole message, so that every fault names
//! the offset a hex dump of the message has.

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) offset: u64,
}

/// What is left of a message, or of a part of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Of the first byte, from the start of the whole.
    offset: u64,
}

impl<'a> Reader<'a> {
    /// Over bytes that start at this offset of the whole.
    pub(super) const fn new(bytes: &'a [u8], offset: u64) -> Self {
        Self { bytes, offset }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// A fault at the next byte.
    pub(super) const fn fault(&self, what: &'static str) -> Fault {
        Fault { what, offset: self.offset }
    }

    /// The next bytes as a part of its own; `what` is said when they are not there.
    pub(super) fn part(&mut self, bytes: usize, what: &'static str) -> Result<Self, Fault> {
        let (part, rest) = self.bytes.split_at_checked(bytes).ok_or(self.fault(what))?;
        let part = Self { bytes: part, offset: self.offset };
        self.bytes = rest;
        self.offset += bytes as u64;
        Ok(part)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Fault> {
        let (array, rest) = self.bytes.split_first_chunk::<N>().ok_or(self.fault(what))?;
        self.bytes = rest;
        self.offset += N as u64;
        Ok(*array)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, Fault> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, Fault> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Fault> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Fault> {
        self.array(what).map(u64::from_be_bytes)
    }
}
