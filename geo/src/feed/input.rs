//! A file's bytes, unpacked: gzip and bzip2 are known by how they start, anything else is taken as it is.
//!
//! Files of several members one behind the other (as `cat a.gz b.gz` makes them) are read to the end.

use std::io::{self, BufReader, Cursor, Read};

/// Bytes that tell the packing.
const MAGIC_BYTES: u64 = 3;

/// Read ahead.
const BUFFER_BYTES: usize = 64 * 1_024;

/// Wraps what unpacks `reader`.
pub(super) fn unpacked<'a>(mut reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = Vec::new();
    reader.by_ref().take(MAGIC_BYTES).read_to_end(&mut magic)?;
    let gzip = magic.starts_with(&[0x1f, 0x8b]);
    let bzip2 = magic == b"BZh";
    let whole = Cursor::new(magic).chain(reader);
    Ok(if gzip {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::read::MultiGzDecoder::new(whole)))
    } else if bzip2 {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, bzip2::read::MultiBzDecoder::new(whole)))
    } else {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, whole))
    })
}
