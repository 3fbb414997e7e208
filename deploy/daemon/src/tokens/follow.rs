//! A token file that is followed: who is let in changes while the daemon runs.
//!
//! ```text
//!   each second: read --as it is in use, or still being written--> nothing
//!                     --another one, seen twice--> checked --good--> in use
//!                                                          --bad---> one WARN, those in use stay
//! ```
//!
//! What is refused as at a start (a file that others may read, an entry that grants too much) changes nothing, and neither
//! does a file without a token: that is what an editor or a full disk leaves behind, and it would lock everybody out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Known, Tokens};
use crate::config::{self, ConfigError};
use crate::drain::Drain;

impl Tokens {
    /// Reads a token file, and goes by what it says from then on, until the drain; clones of these tokens do, too. A change
    /// is seen within some two seconds.
    ///
    /// # Errors
    ///
    /// As [`Tokens::load`].
    pub fn follow(file: &Path, drain: &Drain) -> Result<Self, ConfigError> {
        let (following, tokens) = Following::begin(file)?;
        drain.spawn(run(following, tokens.clone(), drain.clone()));
        Ok(tokens)
    }
}

async fn run(mut following: Following, tokens: Tokens, drain: Drain) {
    loop {
        tokio::select! {
            () = drain.wait() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let looked = tokio::task::spawn_blocking(move || (following.look(), following));
        // Fails only while the process shuts down.
        let Ok((seen, again)) = looked.await else { return };
        following = again;
        let file = following.file.display();
        match seen {
            Seen::Nothing => {}
            Seen::Refused(why) => tracing::warn!(%why, "the token file is refused; the tokens in use stay"),
            Seen::Changed(known) => {
                tracing::info!(%file, tokens = known.len(), "the tokens changed");
                tokens.replace(known);
            }
        }
    }
}

/// What a look leads to.
#[derive(Debug)]
enum Seen {
    Nothing,
    Changed(Known),
    /// Why what is there now is not used; said once.
    Refused(String),
}

#[derive(Debug)]
struct Following {
    file: PathBuf,
    /// Of the text that is in use.
    taken: blake3::Hash,
    /// Of the text of the last look.
    seen: blake3::Hash,
    said: Option<String>,
}

impl Following {
    fn begin(file: &Path) -> Result<(Self, Tokens), ConfigError> {
        let text = config::read_private(file)?;
        let tokens = Tokens::parse(&text, &file.display().to_string())?;
        let hash = blake3::hash(text.as_bytes());
        Ok((Self { file: file.to_owned(), taken: hash, seen: hash, said: None }, tokens))
    }

    fn look(&mut self) -> Seen {
        match self.read() {
            Ok(None) => Seen::Nothing,
            Ok(Some(known)) => {
                self.said = None;
                Seen::Changed(known)
            }
            Err(ConfigError(why)) if self.said.as_ref() == Some(&why) => Seen::Nothing,
            Err(ConfigError(why)) => {
                self.said = Some(why.clone());
                Seen::Refused(why)
            }
        }
    }

    /// Other tokens than those in use, if there are any.
    fn read(&mut self) -> Result<Option<Known>, ConfigError> {
        let text = config::read_private(&self.file)?;
        let hash = blake3::hash(text.as_bytes());
        let settled = std::mem::replace(&mut self.seen, hash) == hash;
        if hash == self.taken {
            self.said = None;
        }
        if hash == self.taken || !settled {
            return Ok(None);
        }
        let origin = self.file.display().to_string();
        let known = super::parse(&text, &origin)?;
        if known.is_empty() {
            let why = "there is no token in it; to let nobody in any more, restart the daemon with this file";
            return Err(ConfigError(format!("{origin}: {why}")));
        }
        self.taken = hash;
        Ok(Some(known))
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_change_counts_when_it_was_seen_twice_and_is_good() {
        let place = Place::new();
        let (mut following, tokens) = Following::begin(&place.file).unwrap();
        place.check(&mut following, &tokens, "one", "nothing, nothing: one");
        place.check(&mut following, &tokens, "one two", "nothing, changed, nothing: one two");
        place.check(&mut following, &tokens, "two", "nothing, changed: two");
        // Half of the file, an empty one, one that others may read: those in use stay, and it is said once.
        place.check(&mut following, &tokens, "half", "nothing, refused, nothing: two");
        place.check(&mut following, &tokens, "", "nothing, refused, nothing: two");
        place.check(&mut following, &tokens, "two open", "refused, nothing: two");
        place.check(&mut following, &tokens, "one", "nothing, changed: one");
        fs::remove_file(&place.file).unwrap();
        assert!(matches!(following.look(), Seen::Refused(_)));
        assert!(tokens.identify(Some("Bearer one-0123456789abcdef")).is_some());
    }

    #[tokio::test]
    async fn tokens_that_are_followed_change_for_everybody_who_holds_them() {
        let (place, drain) = (Place::new(), Drain::new());
        let tokens = Tokens::follow(&place.file, &drain).unwrap();
        let held = tokens.clone();
        place.write("two");
        while held.identify(Some("Bearer two-0123456789abcdef")).is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(held.identify(Some("Bearer one-0123456789abcdef")).is_none(), "it was revoked");
        drain.start();
        assert!(drain.finished(Duration::from_secs(5)).await);
    }

    struct Place {
        _folder: tempfile::TempDir,
        file: PathBuf,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let place = Self { file: folder.path().join("tokens.toml"), _folder: folder };
            place.write("one");
            place
        }

        /// Names of tokens; "half" is an entry that is cut, "open" lets others read the file.
        fn write(&self, names: &str) {
            let entry = |name: &str| match name {
                "open" => String::new(),
                "half" => "[[token]]\ntoken = 'two-01".to_owned(),
                name => format!("[[token]]\ntoken = '{name}-0123456789abcdef'\nrole = 'operator'\n"),
            };
            fs::write(&self.file, names.split_whitespace().map(entry).collect::<String>()).unwrap();
            let mode = if names.contains("open") { 0o644 } else { 0o600 };
            fs::set_permissions(&self.file, fs::Permissions::from_mode(mode)).unwrap();
        }

        /// What as many looks see, and who is let in then.
        #[track_caller]
        fn check(&self, following: &mut Following, tokens: &Tokens, written: &str, expected: &str) {
            self.write(written);
            let looks = expected.split(", ").count();
            let mut told = Vec::new();
            for _ in 0..looks {
                told.push(match following.look() {
                    Seen::Nothing => "nothing",
                    Seen::Refused(_) => "refused",
                    Seen::Changed(known) => {
                        tokens.replace(known);
                        "changed"
                    }
                });
            }
            let let_in = |name: &&str| tokens.identify(Some(&format!("Bearer {name}-0123456789abcdef"))).is_some();
            let names: Vec<&str> = ["one", "two"].into_iter().filter(let_in).collect();
            assert_eq!(format!("{}: {}", told.join(", "), names.join(" ")), expected, "{written}");
        }
    }
}
