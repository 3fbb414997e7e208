//! What a head record says of a file: [`Meta`] to bytes and back. Numbers are little endian.
//!
//! ```text
//!    0 version u8 = 1    1 status u16    3 size u64    11 born_at u64    19 fresh_until u64
//!   27 background_until u64    35 error_until u64    43 purge mark 16    59 count of tags u16, then each u64
//!      count of headers u16, then each: length of the name u16, name, length of the value u32, value
//! ```
//!
//! The generation is in the record's own header. Bytes of another version, or with anything left over, are no
//! metadata: the file is fetched again. A field that is added makes a new version.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::meta::Meta;
use crate::purge::Mark;

/// The bytes for a file; None: its size is not known, or something in it is too long.
#[must_use]
pub fn encode(meta: &Meta) -> Option<Vec<u8>> {
    let mut bytes = vec![VERSION];
    bytes.extend(meta.status.as_u16().to_le_bytes());
    for number in [meta.size?, meta.born_at, meta.fresh_until, meta.background_until, meta.error_until] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(meta.mark.to_bytes());
    bytes.extend(u16::try_from(meta.tags.len()).ok()?.to_le_bytes());
    meta.tags.iter().for_each(|tag| bytes.extend(tag.to_le_bytes()));
    bytes.extend(u16::try_from(meta.headers.len()).ok()?.to_le_bytes());
    for (name, value) in &meta.headers {
        bytes.extend(u16::try_from(name.as_str().len()).ok()?.to_le_bytes());
        bytes.extend(name.as_str().as_bytes());
        bytes.extend(u32::try_from(value.len()).ok()?.to_le_bytes());
        bytes.extend(value.as_bytes());
    }
    Some(bytes)
}

/// The file that `bytes` tell of.
#[must_use]
pub fn decode(bytes: &[u8], generation: u64) -> Option<Meta> {
    let mut rest = bytes;
    let [VERSION] = take(&mut rest)? else { return None };
    let status = StatusCode::from_u16(u16::from_le_bytes(take(&mut rest)?)).ok()?;
    let mut number = || take(&mut rest).map(u64::from_le_bytes);
    let (size, born_at, fresh_until) = (number()?, number()?, number()?);
    let (background_until, error_until) = (number()?, number()?);
    let mark = Mark::from_bytes(take(&mut rest)?);
    let count = u16::from_le_bytes(take(&mut rest)?);
    let tags = (0..count).map(|_| take(&mut rest).map(u64::from_le_bytes)).collect::<Option<Vec<u64>>>()?.into();
    let count = u16::from_le_bytes(take(&mut rest)?);
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        let length = u16::from_le_bytes(take(&mut rest)?);
        let name = HeaderName::from_bytes(rest.split_off(..usize::from(length))?).ok()?;
        let length = u32::from_le_bytes(take(&mut rest)?);
        let value = HeaderValue::from_bytes(rest.split_off(..usize::try_from(length).ok()?)?).ok()?;
        headers.try_append(name, value).ok()?;
    }
    let size = Some(size);
    let meta =
        Meta { size, generation, status, headers, born_at, fresh_until, background_until, error_until, mark, tags };
    rest.is_empty().then_some(meta)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N)?.try_into().ok()
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_what_they_were() {
        let bytes = encode(&meta()).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "01c80007000000000000000100000000000000020000000000000003000000000000000400000000000000\
             050000000000000006000000000000000100090000000000000002000400657461670300000022612204006c\
             696e6b01000000ff"
        );
    }

    #[test]
    fn what_is_written_is_read() {
        let read = decode(&encode(&meta()).unwrap(), 8).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", meta()));
        assert!(encode(&Meta { size: None, ..meta() }).is_none());
    }

    #[test]
    fn a_number_of_fields_that_is_not_there_is_refused() {
        let mut bytes = encode(&Meta { headers: HeaderMap::new(), ..meta() }).unwrap();
        let count = bytes.len() - 2;
        bytes[count..].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(decode(&bytes, 8).is_none());
    }

    proptest! {
        /// Whatever the bytes are, nothing panics, and what is cut or longer is refused.
        #[test]
        fn other_bytes_are_refused(garbage in prop::collection::vec(any::<u8>(), 0..300), cut in 0..90_usize) {
            let whole = encode(&meta()).unwrap();
            prop_assert!(decode(&whole[..cut.min(whole.len() - 1)], 8).is_none());
            prop_assert!(decode(&[&whole[..], &[0]].concat(), 8).is_none());
            let _ = decode(&garbage, 8);
            let _ = decode(&[&whole[..cut.min(whole.len())], &garbage].concat(), 8);
        }
    }

    fn meta() -> Meta {
        let mut headers = HeaderMap::new();
        headers.append("etag", HeaderValue::from_static("\"a\""));
        headers.append("link", HeaderValue::from_bytes(b"\xff").unwrap());
        Meta {
            size: Some(7),
            generation: 8,
            status: StatusCode::OK,
            headers,
            born_at: 1,
            fresh_until: 2,
            background_until: 3,
            error_until: 4,
            mark: Mark { log: 5, direct: 6 },
            tags: Box::new([9]),
        }
    }
}
