//! What is refused of the sources, and when they are read: decided without a file or a clock.
//!
//! ```text
//!   a look --config: why it is refused, if it is------------------+
//!          --a file that cannot be read: no load, but later-------+--> refusals, told once
//!          --changed? owed until a load succeeds--> load? --why it failed--+
//! ```
//!
//! # Invariants
//!
//! - What changed is owed until a load takes it, whatever else is refused meanwhile.
//! - Each refusal goes when its own cause goes: a load that succeeds says nothing of a config that is refused.

/// Where the sources stand.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Something is not as it was loaded last.
    owed: bool,
    /// Looks until a load that failed is tried again though nothing changed since.
    rest: u32,
    /// Why the content of the config that was seen last is refused.
    config: Option<String>,
    /// What cannot be read as of the last look.
    unreadable: Vec<String>,
    /// Why the last load failed.
    load: Option<String>,
    /// What was said last.
    said: Vec<String>,
}

/// What one look found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The config has a new content: whether it can be used.
    pub(super) config: Option<Result<(), String>>,
    /// Why the config cannot be read. The one in use stays, and does not keep others from being read.
    pub(super) config_unreadable: Option<String>,
    /// Something that is loaded changed, or is back.
    pub(super) changed: bool,
    /// Why what is loaded cannot be read: a load would fail.
    pub(super) unreadable: Option<String>,
}

/// What operators are told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum News {
    /// Something is refused, and why.
    Refused(String),
    /// Nothing is refused any more.
    NothingRefused,
}

impl Standing {
    /// Takes a look; whether everything is to be read now.
    pub(super) fn seen(&mut self, seen: Seen) -> bool {
        let Seen { config, config_unreadable, changed, unreadable } = seen;
        let taken = config.as_ref().is_some_and(Result::is_ok);
        if let Some(config) = config {
            self.config = config.err();
        }
        if changed || taken {
            (self.owed, self.rest) = (true, 0);
        }
        self.rest = self.rest.saturating_sub(1);
        let loads = self.owed && self.rest == 0 && unreadable.is_none();
        self.unreadable = config_unreadable.into_iter().chain(unreadable).collect();
        loads
    }

    /// Takes what came of a load.
    pub(super) fn loaded(&mut self, result: Result<(), String>) {
        self.owed = result.is_err();
        self.rest = if self.owed { AGAIN_LOOKS } else { 0 };
        self.load = result.err();
    }

    /// Takes a load that is in use, but for what is refused of it: that is not tried again until it changes.
    pub(super) fn taken(&mut self, but: Option<String>) {
        self.loaded(Ok(()));
        self.load = but;
    }

    /// Whether something that was changed is not in use.
    pub(super) fn is_refused(&self) -> bool {
        self.refusals().next().is_some()
    }

    /// What is to be said now, unless it was.
    pub(super) fn unsaid(&mut self) -> Option<News> {
        let now: Vec<String> = self.refusals().map(str::to_owned).collect();
        let new = now.iter().any(|why| !self.said.contains(why));
        let ended = now.is_empty() && !self.said.is_empty();
        self.said = now;
        if new { Some(News::Refused(self.said.join("; "))) } else { ended.then_some(News::NothingRefused) }
    }

    /// What is refused, and why.
    pub(super) fn refusals(&self) -> impl Iterator<Item = &str> {
        self.config.iter().chain(&self.unreadable).chain(&self.load).map(String::as_str)
    }
}

/// Looks between loads that fail though nothing changes, one a second. Fewer: what fails, dumps of gigabytes among it, is read all
/// the time. More: what failed for a passing reason is in use later.
const AGAIN_LOOKS: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_owed_until_a_load_takes_it() {
        check("-", "idle");
        check("changed", "load");
        check("changed ok -", "load, idle");
        check("changed bad - -", "load, idle load, idle load");
        check("changed bad changed ok -", "load, load load, idle");
        check("changed partly - changed ok -", "load, idle part, load part, idle");
        // Seen while something else cannot be read.
        check("changed+unreadable - ok -", "idle unreadable, load, idle");
        check("changed+unreadable unreadable changed ok", "idle unreadable, idle unreadable, load");
        // What is away and back as it was, without a sign of it.
        check("unreadable -", "idle unreadable, idle");
    }

    #[test]
    fn a_config_that_is_refused_stays_refused_until_it_is_another() {
        check("typo - -", "idle typo, idle typo, idle typo");
        check("typo changed ok -", "idle typo, load typo, idle typo");
        check("typo config ok -", "idle typo, load, idle");
        check("typo away - config ok", "idle typo, idle typo away, idle typo, load");
        check("away - -", "idle away, idle, idle");
        check("away changed+away ok -", "idle away, load away, idle");
        check("config bad typo -", "load, idle typo load, idle typo load");
    }

    #[test]
    fn a_load_that_fails_is_tried_again_now_and_then() {
        let mut standing = Standing::default();
        let look = |standing: &mut Standing| standing.seen(Seen::default());
        assert!(standing.seen(Seen { changed: true, ..Seen::default() }));
        for _ in 0..3 {
            standing.loaded(Err("load".to_owned()));
            assert_eq!((0..60).position(|_| look(&mut standing)), Some(59));
        }
        standing.loaded(Ok(()));
        assert!(!(0..200).any(|_| look(&mut standing)));
    }

    #[test]
    fn a_refusal_is_said_once_and_so_is_its_end() {
        let mut standing = Standing::default();
        let refused = |why: &str| Some(News::Refused(why.to_owned()));
        let typo = || Seen { config: Some(Err("typo".to_owned())), ..Seen::default() };
        standing.seen(typo());
        assert_eq!(standing.unsaid(), refused("typo"));
        standing.seen(typo());
        assert_eq!(standing.unsaid(), None);
        standing.seen(Seen { unreadable: Some("away".to_owned()), ..Seen::default() });
        assert_eq!(standing.unsaid(), refused("typo; away"));
        standing.seen(Seen::default());
        assert_eq!(standing.unsaid(), None, "less is refused");
        standing.seen(Seen { unreadable: Some("away".to_owned()), ..Seen::default() });
        assert_eq!(standing.unsaid(), refused("typo; away"));
        standing.seen(Seen { config: Some(Ok(())), ..Seen::default() });
        assert_eq!(standing.unsaid(), Some(News::NothingRefused));
        assert_eq!(standing.unsaid(), None);
    }

    /// `events`: looks, of what they saw, and what came of loads. `expected`: of each look whether it loads, and what is refused.
    #[track_caller]
    fn check(events: &str, expected: &str) {
        let mut standing = Standing::default();
        let mut found: Vec<String> = Vec::new();
        for event in events.split(' ') {
            match event {
                "ok" => standing.loaded(Ok(())),
                "partly" => standing.taken(Some("part".to_owned())),
                "bad" => standing.loaded(Err("load".to_owned())),
                look => {
                    let saw = |what: &str| look.split('+').any(|seen| seen == what);
                    let told = |what: &str| saw(what).then(|| what.to_owned());
                    let config = told("typo").map(Err).or(saw("config").then_some(Ok(())));
                    let loads = standing.seen(Seen {
                        config,
                        config_unreadable: told("away"),
                        changed: saw("changed"),
                        unreadable: told("unreadable"),
                    });
                    let mut words = vec![if loads { "load" } else { "idle" }];
                    words.extend(standing.refusals());
                    assert_eq!(standing.is_refused(), words.len() > 1);
                    found.push(words.join(" "));
                }
            }
        }
        assert_eq!(found.join(", "), expected, "{events}");
    }
}
