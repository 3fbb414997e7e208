//! A short sound as a WAV file: 16-bit mono PCM.
//!
//! ```text
//!   "RIFF" length "WAVE" | "fmt " 16 bytes | "data" length samples
//! ```

/// Samples per second.
pub(super) const SAMPLE_RATE: u32 = 22_050;

/// Bytes of the chime's file.
#[must_use]
pub(super) const fn chime_bytes() -> u64 {
    HEADER_BYTES as u64 + SAMPLES as u64 * 2
}

/// Three notes of a major chord, one after the other, each ringing out.
#[must_use]
pub(super) fn chime() -> Vec<u8> {
    let mut file = Vec::with_capacity((HEADER_BYTES + SAMPLES * 2) as usize);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(HEADER_BYTES - 8 + SAMPLES * 2).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    // PCM, one channel; then samples per second, bytes per second, bytes and bits per sample.
    file.extend_from_slice(&[1, 0, 1, 0]);
    file.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
    file.extend_from_slice(&(SAMPLE_RATE * 2).to_le_bytes());
    file.extend_from_slice(&[2, 0, 16, 0]);
    file.extend_from_slice(b"data");
    file.extend_from_slice(&(SAMPLES * 2).to_le_bytes());
    for sample in 0..SAMPLES {
        file.extend_from_slice(&amplitude(sample).to_le_bytes());
    }
    file
}

fn amplitude(sample: u32) -> i16 {
    let seconds = f64::from(sample) / f64::from(SAMPLE_RATE);
    let sum: f64 = NOTES
        .iter()
        .filter(|(begins_s, _)| seconds >= *begins_s)
        .map(|(begins_s, hertz)| {
            let since = seconds - begins_s;
            (-4.0 * since).exp() * (std::f64::consts::TAU * hertz * since).sin()
        })
        .sum();
    // Three notes of at most 1 each stay within a third of the range.
    #[expect(clippy::cast_possible_truncation, reason = "at most 3 * 10,000 in magnitude")]
    let amplitude = (sum * 10_000.0) as i16;
    amplitude
}

/// When each note begins, seconds, and its pitch: C5, E5, G5.
const NOTES: [(f64, f64); 3] = [(0.0, 523.25), (0.25, 659.26), (0.5, 783.99)];
const SAMPLES: u32 = SAMPLE_RATE * 2;
const HEADER_BYTES: u32 = 44;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_length_and_form_of_what_follows() {
        let file = chime();
        assert_eq!(file.len() as u64, chime_bytes());
        assert_eq!(file[..4], *b"RIFF");
        assert_eq!(file[4..8], u32::try_from(file.len() - 8).unwrap().to_le_bytes());
        assert_eq!(file[8..16], *b"WAVEfmt ");
        assert_eq!(file[24..28], SAMPLE_RATE.to_le_bytes());
        assert_eq!(file[40..44], u32::try_from(file.len() - 44).unwrap().to_le_bytes());
    }
}
