//! Pictures as PNG files (ISO/IEC 15948), 8-bit RGB, written without compression.
//!
//! ```text
//!   signature | IHDR | IDAT: zlib( stored block, stored block, ... ) | IEND
//!                              each row: filter 0, then 3 bytes a pixel
//! ```
//!
//! Stored blocks (RFC 1951, section 3.2.4) make the size of a file a function of its dimensions alone,
//! so that a picture's length is known before it is painted.
//!
//! Why not a crate: this is all that is needed of one.

/// Bytes of a picture's file.
#[must_use]
pub(super) fn file_bytes(width: u32, height: u32) -> u64 {
    let raw = raw_bytes(width, height);
    let blocks = raw.div_ceil(BLOCK_BYTES_MAX);
    let zlib = 2 + blocks * 5 + raw + 4;
    let bytes = SIGNATURE.len() + (CHUNK_FRAME_BYTES + 13) + (CHUNK_FRAME_BYTES + zlib) + CHUNK_FRAME_BYTES;
    bytes as u64
}

/// Writes a picture whose pixel at (x, y) is `pixel(x, y)`, red, green and blue.
#[must_use]
pub(super) fn encode(width: u32, height: u32, mut pixel: impl FnMut(u32, u32) -> [u8; 3]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(raw_bytes(width, height));
    for y in 0..height {
        raw.push(FILTER_NONE);
        for x in 0..width {
            raw.extend_from_slice(&pixel(x, y));
        }
    }
    let mut file = SIGNATURE.to_vec();
    let mut header = Vec::with_capacity(13);
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    // Bit depth 8, colour type 2 (RGB), and the only compression, filter method and no interlacing.
    header.extend_from_slice(&[8, 2, 0, 0, 0]);
    chunk(&mut file, *b"IHDR", &header);
    chunk(&mut file, *b"IDAT", &zlib_stored(&raw));
    chunk(&mut file, *b"IEND", &[]);
    file
}

fn raw_bytes(width: u32, height: u32) -> usize {
    (width as usize * 3 + 1) * height as usize
}

fn chunk(file: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).expect("a picture is far below 4 GiB");
    file.extend_from_slice(&length.to_be_bytes());
    let checked_from = file.len();
    file.extend_from_slice(&kind);
    file.extend_from_slice(data);
    let checksum = crc32(&file[checked_from..]);
    file.extend_from_slice(&checksum.to_be_bytes());
}

/// A zlib stream (RFC 1950) of stored blocks.
fn zlib_stored(raw: &[u8]) -> Vec<u8> {
    let mut stream = Vec::with_capacity(raw.len() + raw.len() / 1000 + 16);
    // Deflate with a 32 KiB window, fastest level; the pair is a multiple of 31.
    stream.extend_from_slice(&[0x78, 0x01]);
    let mut blocks = raw.chunks(BLOCK_BYTES_MAX).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).expect("a block is at most 65,535 bytes");
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(&(!length).to_le_bytes());
        stream.extend_from_slice(block);
    }
    stream.extend_from_slice(&adler32(raw).to_be_bytes());
    stream
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    // The sums of 5,552 bytes are the most that fit 32 bits (RFC 1950, section 9).
    for run in bytes.chunks(5552) {
        for byte in run {
            a += u32::from(*byte);
            b += a;
        }
        a %= 65_521;
        b %= 65_521;
    }
    b << 16 | a
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| (crc >> 8) ^ CRC_TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)])
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];
const FILTER_NONE: u8 = 0;
/// Length, kind and checksum of a chunk.
const CHUNK_FRAME_BYTES: usize = 12;
const BLOCK_BYTES_MAX: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_known_before_the_picture_is_painted() {
        check_length(1, 1);
        check_length(32, 20);
        check_length(160, 100);
        check_length(21_845, 1); // 65,536 raw bytes: one byte in a second block.
        check_length(320, 200);
    }

    #[test]
    fn checksums_are_those_of_their_standards() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    /// A black dot; its bytes were checked once with a PNG decoder.
    #[test]
    fn the_smallest_picture_is_pinned() {
        let file = encode(1, 1, |_, _| [0, 0, 0]);
        assert_eq!(file[..8], SIGNATURE);
        assert_eq!(file[12..16], *b"IHDR");
        assert_eq!(file[33..41], [0, 0, 0, 15, b'I', b'D', b'A', b'T']);
        assert_eq!(file[41..56], [0x78, 0x01, 1, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 4, 0, 1]);
        assert_eq!(file[file.len() - 12..], [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82]);
    }

    #[track_caller]
    fn check_length(width: u32, height: u32) {
        let file = encode(width, height, |x, y| [x.to_le_bytes()[0], y.to_le_bytes()[0], 7]);
        assert_eq!(file.len() as u64, file_bytes(width, height), "{width}x{height}");
    }
}
