//! Leaves in a file.
//!
//! ```text
//!   source: 0 rule  1 bgp  2 list  3 geoip without a country  4 geoip, two bytes of country  5 default
//!   count of candidates, for each: region, rank      count of denied regions, each of them
//! ```

use super::bytes::{Reader, put};
use super::{DecodeError, LEAVES_MAX};
use crate::table::{CANDIDATES_MAX, Candidate, DENIED_MAX, Leaf, Source};
use crate::topology::RegionId;

pub(super) fn encode<'a>(leaves: impl ExactSizeIterator<Item = &'a Leaf>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, leaves.len() as u128);
    for leaf in leaves {
        match &leaf.source {
            Source::Rule => bytes.push(0),
            Source::Bgp => bytes.push(1),
            Source::List => bytes.push(2),
            Source::Geoip(None) => bytes.push(3),
            Source::Geoip(Some(country)) => bytes.extend([4, country[0], country[1]]),
            Source::Default => bytes.push(5),
        }
        put(&mut bytes, leaf.candidates.len() as u128);
        for candidate in &leaf.candidates {
            put(&mut bytes, candidate.region.0.into());
            bytes.push(candidate.rank);
        }
        put(&mut bytes, leaf.denied.len() as u128);
        leaf.denied.iter().for_each(|region| put(&mut bytes, region.0.into()));
    }
    bytes
}

/// At most as many as can be `named`: a table has no leaf that nothing names, and each takes a hundred times its bytes.
pub(super) fn decode(mut reader: Reader<'_>, named: usize) -> Result<Vec<Leaf>, DecodeError> {
    let count = reader.count(named.min(LEAVES_MAX), 3)?;
    let leaves = (0..count).map(|_| leaf(&mut reader)).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(leaves)
}

fn leaf(reader: &mut Reader<'_>) -> Result<Leaf, DecodeError> {
    let at = *reader;
    let source = match reader.byte()? {
        0 => Source::Rule,
        1 => Source::Bgp,
        2 => Source::List,
        3 => Source::Geoip(None),
        4 => Source::Geoip(Some([reader.byte()?, reader.byte()?])),
        5 => Source::Default,
        _ => return Err(at.error("an unknown source")),
    };
    let candidates = (0..reader.count(CANDIDATES_MAX, 2)?)
        .map(|_| Ok(Candidate { region: region(reader)?, rank: reader.byte()? }))
        .collect::<Result<_, _>>()?;
    let denied = (0..reader.count(DENIED_MAX, 1)?).map(|_| region(reader)).collect::<Result<_, _>>()?;
    Ok(Leaf { candidates, denied, source })
}

fn region(reader: &mut Reader<'_>) -> Result<RegionId, DecodeError> {
    Ok(RegionId(reader.below(1 << 16, "no number of a region")? as u16))
}
