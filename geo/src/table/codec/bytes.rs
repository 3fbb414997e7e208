//! Numbers in bytes, and a reader that knows where it is.

use super::DecodeError;

/// LEB128: seven bits a byte, the low ones first.
pub(super) fn put(bytes: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads a part of a file.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Of the file.
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(super) fn error(&self, what: &'static str) -> DecodeError {
        DecodeError { offset: self.offset, what }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(self.error("it ends too early"));
        };
        self.bytes = rest;
        self.offset += count;
        Ok(taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let Some((byte, rest)) = self.bytes.split_first() else { return Err(self.error("it ends too early")) };
        self.bytes = rest;
        self.offset += 1;
        Ok(*byte)
    }

    #[inline]
    pub(super) fn byte_upto(&mut self, last: u8, what: &'static str) -> Result<u8, DecodeError> {
        let at = *self;
        self.byte().and_then(|byte| if byte <= last { Ok(byte) } else { Err(at.error(what)) })
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    #[inline]
    pub(super) fn number(&mut self) -> Result<u128, DecodeError> {
        let byte = self.byte()?;
        if byte < 0x80 { Ok(byte.into()) } else { self.long(byte) }
    }

    fn long(&mut self, first: u8) -> Result<u128, DecodeError> {
        let mut number = u128::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            let part = u128::from(byte & 0x7f);
            if shift > 121 && part >> (128 - shift) != 0 {
                return Err(self.error("a number of more than 128 bits"));
            }
            number |= part << shift;
            if byte < 0x80 {
                return Ok(number);
            }
            shift += 7;
            if shift >= 128 {
                return Err(self.error("a number of more than 128 bits"));
            }
        }
    }

    /// A number below `end`.
    #[inline]
    pub(super) fn below(&mut self, end: usize, what: &'static str) -> Result<usize, DecodeError> {
        let at = *self;
        let number = self.number()?;
        if number < end as u128 { Ok(number as usize) } else { Err(at.error(what)) }
    }

    /// How many items follow, of which each takes at least `bytes_each`.
    pub(super) fn count(&mut self, max: usize, bytes_each: usize) -> Result<usize, DecodeError> {
        let at = *self;
        let count = self.below(max + 1, "too many")?;
        if count <= self.bytes.len() / bytes_each { Ok(count) } else { Err(at.error("more than there is room for")) }
    }

    /// A part that is preceded by its length.
    pub(super) fn part(&mut self) -> Result<Self, DecodeError> {
        let length = self.count(usize::MAX - 1, 1)?;
        let offset = self.offset;
        Ok(Self { bytes: self.take(length)?, offset })
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.error("more than was announced")) }
    }
}
