//! A trace: who was asked for, how large it was, in which order.
//!
//! ```text
//!   1 /a.jpg 7454        time  key  size     separated by blanks; size in bytes; `#` begins a comment line
//!   2 /b.jpg 40773       time is only looked at to be a number: requests count in the order of their lines
//!   3 /a.jpg 7454        key is any word
//! ```
//!
//! Keys become small integers on the way in. **A size that changes is a new version of the file**: the request
//! misses and the old version is never asked for again ([`Versions::New`]). Simulators mostly look at the key
//! alone; [`Versions::Same`] does that: a held key is a hit, whatever the size says now, and occupies what it
//! had when it was stored.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// One request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Request {
    /// Which version of which file or block; dense from 0.
    pub(crate) key: u32,
    /// Bytes, at least 1.
    pub(crate) size: u64,
}

/// What a changed size means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Versions {
    /// Another version of the file: a miss.
    New,
    /// Nothing.
    Same,
}

/// A whole trace, in RAM: 16 bytes per request.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// In order.
    pub(crate) requests: Vec<Request>,
    /// Different keys, versions counted apart.
    pub(crate) keys: u32,
    /// Bytes of all files, each with its first size: what shares of the footprint are shares of.
    pub(crate) footprint_bytes: u64,
    /// Requests whose size differs from the one before for the same key.
    pub(crate) changed: u64,
}

/// Why there is no trace.
#[derive(Debug)]
pub(crate) enum TraceError {
    /// The file cannot be read.
    Read(io::Error),
    /// `xz` is not installed, or does not like the file.
    Xz(String),
    /// A line is not `time key size`.
    Line { number: u64, why: &'static str, line: String },
    /// No request is in it, or more than 2^32 keys.
    Unusable(&'static str),
}

impl Trace {
    /// Reads a trace; a name that ends in `.xz` goes through the `xz` command.
    ///
    /// # Errors
    ///
    /// See [`TraceError`]; the first malformed line ends the reading.
    pub(crate) fn open(path: &Path, versions: Versions) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(TraceError::Read)?;
        if path.extension().is_none_or(|extension| extension != "xz") {
            return Self::read(BufReader::new(file), versions);
        }
        let mut xz = Command::new("xz");
        xz.arg("--decompress").stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = xz.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                TraceError::Xz("the command xz is needed for this file: install xz-utils".into())
            }
            _ => TraceError::Xz(error.to_string()),
        })?;
        let output = child.stdout.take().expect("it is piped");
        let trace = Self::read(BufReader::new(output), versions);
        // What xz complains of is the cause of a cut line, not the other way round.
        let ended = child.wait_with_output().map_err(TraceError::Read)?;
        match (&trace, ended.status.success()) {
            (Err(TraceError::Line { .. }), false) | (Ok(_) | Err(TraceError::Unusable(_)), false)
                if !ended.stderr.is_empty() =>
            {
                Err(TraceError::Xz(String::from_utf8_lossy(&ended.stderr).trim().to_owned()))
            }
            _ => trace,
        }
    }

    /// Reads lines; see the module's doc.
    ///
    /// # Errors
    ///
    /// As [`Trace::open`].
    pub(crate) fn read(mut lines: impl BufRead, versions: Versions) -> Result<Self, TraceError> {
        let mut builder = Builder::new(versions);
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line).map_err(TraceError::Read)? == 0 {
                break;
            }
            number += 1;
            match parse(&line) {
                Ok(Some((key, size))) => builder.push(key, size)?,
                Ok(None) => {}
                Err(why) => {
                    let line = String::from_utf8_lossy(&line[..line.len().min(LINE_SHOWN_BYTES)]).trim().to_owned();
                    return Err(TraceError::Line { number, why, line });
                }
            }
        }
        builder.finish()
    }

    /// Of these requests; keys are words here as well.
    #[cfg(test)]
    pub(crate) fn of(requests: &[(&str, u64)], versions: Versions) -> Self {
        let mut builder = Builder::new(versions);
        for (key, size) in requests {
            builder.push(key.as_bytes(), *size).unwrap();
        }
        builder.finish().unwrap()
    }

    /// Multiplies all sizes: for traces that have none, whose unit is a file.
    ///
    /// # Errors
    ///
    /// When a size leaves 64 bits.
    pub(crate) fn scale(&mut self, factor: u64) -> Result<(), TraceError> {
        let scaled = |bytes: u64| bytes.checked_mul(factor).ok_or(TraceError::Unusable("a scaled size is too large"));
        self.footprint_bytes = scaled(self.footprint_bytes)?;
        for request in &mut self.requests {
            request.size = scaled(request.size)?;
        }
        Ok(())
    }

    /// Bytes that were asked for.
    pub(crate) fn bytes(&self) -> u64 {
        self.requests.iter().map(|request| request.size).sum()
    }

    /// Share of keys that were asked for exactly once.
    pub(crate) fn once(&self) -> f64 {
        let mut counts = vec![0_u32; self.keys as usize];
        for request in &self.requests {
            counts[request.key as usize] += 1;
        }
        counts.iter().filter(|count| **count == 1).count() as f64 / f64::from(self.keys)
    }
}

/// Key and size of a line, or nothing for a comment or an empty one.
fn parse(line: &[u8]) -> Result<Option<(&[u8], u64)>, &'static str> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let Some(time) = words.next().filter(|word| !word.starts_with(b"#")) else { return Ok(None) };
    if std::str::from_utf8(time).ok().and_then(|time| time.parse::<f64>().ok()).is_none_or(|time| !time.is_finite()) {
        return Err("its time is not a number");
    }
    let (Some(key), Some(size), None) = (words.next(), words.next(), words.next()) else {
        return Err("it is not three words");
    };
    let size = std::str::from_utf8(size).ok().and_then(|size| size.parse().ok());
    // An empty file costs a cache its metadata all the same; 0 would make ratios meaningless.
    let size: u64 = size.ok_or("its size is not a number of bytes")?;
    Ok(Some((key, size.max(1))))
}

/// Makes a trace of keys of any kind, given as bytes.
pub(crate) struct Builder {
    versions: Versions,
    trace: Trace,
    /// Latest version and size of each key.
    known: HashMap<Box<[u8]>, (u32, u64)>,
}

impl Builder {
    pub(crate) fn new(versions: Versions) -> Self {
        Self { versions, trace: Trace::default(), known: HashMap::new() }
    }

    /// One more request.
    pub(crate) fn push(&mut self, key: &[u8], size: u64) -> Result<(), TraceError> {
        let trace = &mut self.trace;
        let fresh = trace.keys;
        let key = if let Some((version, latest)) = self.known.get_mut(key) {
            if *latest != size {
                trace.changed += 1;
                *latest = size;
                if self.versions == Versions::New {
                    *version = fresh;
                }
            }
            *version
        } else {
            trace.footprint_bytes += size;
            self.known.insert(key.into(), (fresh, size));
            fresh
        };
        if key == fresh {
            trace.keys = fresh.checked_add(1).ok_or(TraceError::Unusable("it has more than 2^32 keys"))?;
        }
        trace.requests.push(Request { key, size });
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Trace, TraceError> {
        if self.trace.requests.is_empty() {
            return Err(TraceError::Unusable("it has no requests"));
        }
        Ok(self.trace)
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Xz(why) => f.write_str(why),
            Self::Line { number, why, line } => {
                write!(f, "line {number} is not `time key size`: {why}: {line:?}")
            }
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for TraceError {}

const LINE_SHOWN_BYTES: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, versions: Versions) -> Result<Vec<(u32, u64)>, String> {
        let trace = Trace::read(text.as_bytes(), versions).map_err(|error| error.to_string())?;
        Ok(trace.requests.iter().map(|request| (request.key, request.size)).collect())
    }

    #[test]
    fn lines_are_time_key_and_size() {
        let text = "# a comment\n1 /a 10\n\n2\t/b  20 \n3.5 /a 10";
        assert_eq!(read(text, Versions::New), Ok(vec![(0, 10), (1, 20), (0, 10)]));
        assert_eq!(read("1 a 0\n", Versions::New), Ok(vec![(0, 1)]), "an empty file weighs something");
    }

    #[test]
    fn a_malformed_line_is_told_by_its_number() {
        fn check(line: &str, why: &str) {
            let error = read(&format!("1 a 1\n{line}\n3 b 1\n"), Versions::New).unwrap_err();
            assert_eq!(error, format!("line 2 is not `time key size`: {why}: {line:?}"));
        }
        check("2 b", "it is not three words");
        check("2 b 3 4", "it is not three words");
        check("x b 3", "its time is not a number");
        check("nan b 3", "its time is not a number");
        check("2 b -3", "its size is not a number of bytes");
        check("2 b 1e3", "its size is not a number of bytes");
        assert_eq!(read("# nothing\n", Versions::New), Err("it has no requests".into()));
    }

    #[test]
    fn a_changed_size_is_another_version_unless_told_otherwise() {
        let sizes = [("a", 10), ("b", 5), ("a", 11), ("a", 11), ("a", 10)];
        let keys = |versions| -> Vec<u32> {
            let trace = Trace::of(&sizes, versions);
            assert_eq!((trace.footprint_bytes, trace.changed), (15, 2));
            trace.requests.iter().map(|request| request.key).collect()
        };
        assert_eq!(keys(Versions::New), [0, 1, 2, 2, 3], "a version that is back is a new one too");
        assert_eq!(keys(Versions::Same), [0, 1, 0, 0, 0]);
    }

    #[test]
    fn an_xz_file_is_read_through_the_command_and_a_cut_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("t.tr");
        let lines: String = (0..20_000).map(|line| format!("{line} k{} 7\n", line * 7919 % 10_007)).collect();
        std::fs::write(&plain, lines).unwrap();
        let done = Command::new("xz").arg(&plain).status().expect("xz is installed where tests run");
        assert!(done.success());
        let packed = folder.path().join("t.tr.xz");
        assert_eq!(Trace::open(&packed, Versions::New).unwrap().requests.len(), 20_000);

        let bytes = std::fs::read(&packed).unwrap();
        std::fs::write(&packed, &bytes[..bytes.len() / 2]).unwrap();
        let error = Trace::open(&packed, Versions::New).unwrap_err();
        assert!(matches!(error, TraceError::Xz(_)), "{error}");
        assert!(matches!(Trace::open(&plain, Versions::New), Err(TraceError::Read(_))), "it was replaced");
    }
}
