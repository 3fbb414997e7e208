//! What ExaBGP answers on standard input, line by line. Pure: time comes in.
//!
//! ```text
//!   > announce route 192.0.2.1/32 ...    < done            one for each command, in the order of the commands; or `error`
//!   > show neighbor extensive            < Neighbor 192.0.2.254
//!                                        <    state                    ESTABLISHED
//!                                        <    ipv4 unicast:                enabled         enabled        disabled
//!                                        < done
//! ```
//!
//! Of a family both sides must have said that they speak it: the columns are ours, theirs and add-path. ExaBGP 4.2 prints so; it
//! says `done` unless it is told not to (`exabgp.api.ack=false`), and then nothing is known of it, as of one that hangs.
//!
//! A command that fails within ExaBGP is never answered, and all answers after it would be taken for those of others. So after
//! [`ANSWER_MAX`] nothing that waits is waited for any more: it is asked for its `version`, which it says as soon as it has read all
//! that was written before. What it says until it is silent for [`SILENCE`] after that may answer anything and is not heard; then
//! everything is told anew.
//!
//! ```text
//!   in step --no answer for ANSWER_MAX--> lost --"exabgp 4.2.21", then SILENCE--> told anew --an answer--> in step
//! ```
//!
//! Everything is bounded: lines by [`LINE_BYTES_MAX`], sessions by [`CHANNELS_MAX`], commands without an answer by [`ASKED_MAX`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::selfcheck::bird::Channel;

/// See the module's doc.
#[derive(Debug, Default)]
pub struct Answers {
    /// Commands that are not answered, oldest first.
    asked: VecDeque<(Command, Instant)>,
    /// The end of what was read, without its end of line.
    line: Vec<u8>,
    /// The session that is told of is established.
    established: bool,
    /// Of the answer that is being read.
    reading: Vec<Channel>,
    /// The last whole answer, and when it came.
    sessions: Option<(Vec<Channel>, Instant)>,
    /// It ever answered.
    answers: bool,
    /// An order for a route was refused when they were told last.
    refused: bool,
    /// One of those that are being answered was.
    refuses: bool,
    /// Which command an answer is of is not known.
    lost: Option<Lost>,
    /// It was lost, and has answered nothing since.
    late: bool,
    /// It is in step again, and not told anew.
    found: bool,
    /// Families of sessions, and those that are up.
    channels: Option<(usize, usize)>,
    /// There is a session that may not have the routes.
    rose: bool,
    /// When everything was told anew.
    told: Option<Instant>,
}

/// On the way to be in step again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lost {
    /// It is to be asked for its version.
    Unasked,
    /// It was asked, and has not said it.
    Asked,
    /// It has read everything, and said or was told nothing since.
    Silent(Instant),
}

/// What was said to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// A route is announced or withdrawn.
    Route,
    /// It is asked for its sessions.
    Sessions,
    /// It is asked for its version.
    Version,
}

/// What is known of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heard {
    /// All orders for routes are carried out; none: it never answered anything.
    pub answered: Option<bool>,
    /// Its sessions; none: not known.
    pub channels: Option<Vec<Channel>>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl Answers {
    /// So many commands were written.
    pub fn asked(&mut self, command: Command, count: usize, now: Instant) {
        if count == 0 {
            return;
        }
        match (command, self.lost) {
            (Command::Version, _) => self.lost = Some(Lost::Asked),
            // Its answer is not to be taken for that of a command after it.
            (_, Some(Lost::Silent(_))) => self.lost = Some(Lost::Silent(now)),
            (_, Some(_)) => {}
            (_, None) if !self.asked.is_empty() && self.asked.len() + count > ASKED_MAX => self.lose(),
            (_, None) => self.asked.extend(std::iter::repeat_n((command, now), count.min(ASKED_MAX))),
        }
    }

    /// What it is time to ask: for its sessions, if it was not asked, or has answered and some time has passed; for its version, if
    /// it does not answer.
    pub fn asks(&mut self, now: Instant) -> Option<Command> {
        self.pass(now);
        let waits = self.asked.iter().any(|(command, _)| *command == Command::Sessions);
        let fresh = self.sessions.as_ref().is_some_and(|(_, at)| now.saturating_duration_since(*at) < SESSIONS_EVERY);
        match self.lost {
            Some(Lost::Unasked) => Some(Command::Version),
            Some(Lost::Asked | Lost::Silent(_)) => None,
            None => (!waits && !fresh).then_some(Command::Sessions),
        }
    }

    /// Time passes.
    fn pass(&mut self, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at);
        match self.lost {
            None if self.asked.front().is_some_and(|(_, at)| since(*at) > ANSWER_MAX) => self.lose(),
            Some(Lost::Silent(at)) if since(at) > SILENCE => (self.lost, self.found) = (None, true),
            _ => {}
        }
    }

    /// What is answered from now on is not known.
    fn lose(&mut self) {
        self.asked.clear();
        self.reading.clear();
        (self.lost, self.late, self.sessions, self.refuses) = (Some(Lost::Unasked), true, None, false);
    }

    /// Whether all orders for routes are to be given anew: it is in step again, has refused one, or has a session that may lack
    /// routes. The caller gives them.
    pub fn tells_anew(&mut self, now: Instant) -> bool {
        self.pass(now);
        let rests = self.told.is_some_and(|at| now.saturating_duration_since(at) < ANEW_EVERY);
        let lacks = (self.refused || self.rose) && !rests && !self.waits();
        let anew = self.lost.is_none() && (self.found || lacks);
        if anew {
            (self.found, self.rose, self.told) = (false, false, Some(now));
        }
        anew
    }

    /// Orders for routes are not answered.
    fn waits(&self) -> bool {
        self.asked.iter().any(|(command, _)| *command == Command::Route)
    }

    /// Bytes came.
    pub fn read(&mut self, bytes: &[u8], now: Instant) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.hear(&String::from_utf8_lossy(&line), now);
            } else if self.line.len() < LINE_BYTES_MAX {
                self.line.push(*byte);
            }
        }
    }

    fn hear(&mut self, line: &str, now: Instant) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(lost) = self.lost {
            let version = matches!(words[..], ["exabgp", _]) && lost == Lost::Asked;
            if version || matches!(lost, Lost::Silent(_)) {
                self.lost = Some(Lost::Silent(now));
            }
            return;
        }
        match words[..] {
            ["done" | "error"] => self.ended(words[0] == "done", now),
            ["Neighbor", _] => self.established = false,
            ["state", state] => self.established = state == "ESTABLISHED",
            [family @ ("ipv4" | "ipv6"), "unicast:", _, theirs, ..] if self.reading.len() < CHANNELS_MAX => {
                self.reading.push(Channel { family: family.to_owned(), up: self.established && theirs == "enabled" });
            }
            _ => {}
        }
    }

    /// The oldest command is answered.
    fn ended(&mut self, done: bool, now: Instant) {
        let read = std::mem::take(&mut self.reading);
        let Some((command, _)) = self.asked.pop_front() else { return };
        (self.answers, self.late) = (true, false);
        match command {
            Command::Sessions if done => self.has_sessions(read, now),
            Command::Sessions => self.sessions = None,
            Command::Route => {
                self.refuses |= !done;
                // One refusal stands until all were told without any.
                self.refused |= self.refuses;
                if !self.waits() {
                    self.refused = std::mem::take(&mut self.refuses);
                }
            }
            Command::Version => {}
        }
    }

    fn has_sessions(&mut self, read: Vec<Channel>, now: Instant) {
        let counts = (read.len(), read.iter().filter(|channel| channel.up).count());
        // One that was configured anew has none of the routes that were told before.
        self.rose |= self.channels.is_some_and(|(all, up)| counts.0 != all || counts.1 > up);
        (self.channels, self.sessions) = (Some(counts), Some((read, now)));
    }

    /// What is known of it now.
    #[must_use]
    pub fn heard(&self, now: Instant) -> Heard {
        let waits_since = self.asked.front().map(|(_, since)| now.saturating_duration_since(*since));
        let hangs = self.late || waits_since.is_some_and(|waited| waited > ANSWER_MAX);
        let problem = match (hangs, self.refused) {
            (true, _) => Some(format!("ExaBGP does not answer within {} s", ANSWER_MAX.as_secs())),
            (false, true) => Some("ExaBGP refuses an order: its log says why".to_owned()),
            (false, false) => None,
        };
        let channels = self.sessions.as_ref().filter(|_| !hangs).map(|(channels, _)| channels.clone());
        let told = !self.waits() && !self.found && self.lost.is_none();
        Heard { answered: self.answers.then_some(told), channels, problem }
    }
}

/// From an answer about sessions to the next question.
const SESSIONS_EVERY: Duration = Duration::from_millis(900);

/// One that takes longer hangs. Its loop begins again each 0.1 s.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// One that has read everything and says nothing for so long has nothing more to say: it answers several commands in each loop.
const SILENCE: Duration = Duration::from_secs(1);

/// What is refused is told again so often.
const ANEW_EVERY: Duration = Duration::from_secs(5);

/// Longer lines are cut.
const LINE_BYTES_MAX: usize = 4096;

/// Families of all sessions of one answer.
const CHANNELS_MAX: usize = 4096;

/// Commands without an answer: every route of a large group several times.
const ASKED_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_read_as_exabgp_prints_them() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        assert_eq!(answers.heard(now), Heard { answered: None, channels: None, problem: None });
        assert_eq!(answers.asks(now), Some(Command::Sessions));
        answers.asked(Command::Sessions, 1, now);
        assert_eq!(answers.asks(now), None, "one question at a time");
        let text =
            answer(&[("ESTABLISHED", "enabled", "n/a"), ("IDLE", "n/a", "n/a"), ("ESTABLISHED", "n/a", "enabled")]);
        for part in text.as_bytes().chunks(7) {
            answers.read(part, now);
        }
        let channels = answers.heard(now).channels.unwrap();
        let told: Vec<String> = channels.iter().map(|channel| format!("{}{}", channel.family, channel.up)).collect();
        assert_eq!(told, ["ipv4true", "ipv6false", "ipv4false", "ipv6false", "ipv4false", "ipv6true"]);
        assert_eq!((answers.asks(now), answers.asks(now + SESSIONS_EVERY)), (None, Some(Command::Sessions)));
    }

    #[test]
    fn every_order_is_answered_in_its_turn() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.asked(Command::Route, 2, now);
        answers.asked(Command::Sessions, 1, now);
        answers.read(b"done\n", now);
        assert_eq!(answers.heard(now).answered, Some(false));
        answers.read(b"done\n", now);
        assert_eq!(answers.heard(now).answered, Some(true));
        answers.read(answer(&[("ESTABLISHED", "enabled", "enabled")]).as_bytes(), now);
        answers.asked(Command::Route, 1, now);
        answers.read(b"error\n", now);
        assert_eq!(answers.heard(now).problem.as_deref(), Some("ExaBGP refuses an order: its log says why"));
        answers.asked(Command::Route, 2, now);
        answers.read(b"done\n", now);
        assert!(answers.heard(now).problem.is_some(), "until all are carried out");
        answers.read(b"done\n", now);
        assert_eq!(answers.heard(now).problem, None);
    }

    #[test]
    fn after_an_answer_that_never_comes_all_is_told_anew_and_nothing_old_is_taken_for_an_answer() {
        let (mut answers, begin) = (Answers::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        let problem = |answers: &Answers, ms| answers.heard(at(ms)).problem;
        answers.asked(Command::Sessions, 1, begin);
        assert_eq!(answers.asks(at(2000)), None);
        assert_eq!(answers.asks(at(2001)), Some(Command::Version));
        answers.asked(Command::Route, 1, at(2001));
        answers.asked(Command::Version, 1, at(2001));
        answers.read(b"done\n", at(2002));
        assert_eq!((answers.asks(at(60_000)), answers.tells_anew(at(60_000))), (None, false), "it hangs");
        answers.read(b"exabgp 4.2.21\ndone\n", at(60_000));
        // What was asked before it is answered after it.
        answers.read(b"error\n", at(60_900));
        answers.asked(Command::Route, 1, at(61_000));
        assert!(!answers.tells_anew(at(62_000)) && problem(&answers, 62_000).is_some());
        assert!(answers.tells_anew(at(62_001)) && !answers.tells_anew(at(62_001)));
        answers.asked(Command::Route, 1, at(62_001));
        assert_eq!(answers.asks(at(62_001)), Some(Command::Sessions));
        assert!(problem(&answers, 62_001).is_some(), "it has not answered yet");
        answers.read(b"done\n", at(62_002));
        assert_eq!(answers.heard(at(62_002)), Heard { answered: Some(true), channels: None, problem: None });
    }

    #[test]
    fn what_is_refused_is_told_anew_now_and_then() {
        let (mut answers, begin) = (Answers::default(), Instant::now());
        let at = |s| begin + Duration::from_secs(s);
        for (second, anew) in [(0, true), (1, false), (4, false), (5, true), (6, false), (10, true)] {
            answers.asked(Command::Route, 1, at(second));
            assert!(!answers.tells_anew(at(second)), "it is not answered");
            answers.read(b"error\n", at(second));
            assert_eq!(answers.tells_anew(at(second)), anew, "{second}");
        }
        answers.asked(Command::Route, 1, at(11));
        answers.read(b"done\n", at(11));
        assert!(!answers.tells_anew(at(60)));
    }

    #[test]
    fn a_session_that_was_not_there_is_told_of_all_routes() {
        let (mut answers, begin) = (Answers::default(), Instant::now());
        let (up, idle) = (("ESTABLISHED", "enabled", "enabled"), ("IDLE", "n/a", "n/a"));
        let mut anew = |s, sessions: &[(&str, &str, &str)]| {
            let now = begin + Duration::from_secs(s);
            answers.asked(Command::Sessions, 1, now);
            answers.read(answer(sessions).as_bytes(), now);
            answers.tells_anew(now)
        };
        assert!(!anew(0, &[up]), "the first look");
        assert!(!anew(1, &[up]) && !anew(2, &[idle]));
        assert!(anew(3, &[up]));
        assert!(!anew(4, &[up, idle]), "not so soon after");
        assert!(anew(8, &[up, idle]) && !anew(60, &[up, idle]));
    }

    #[test]
    fn of_one_that_hangs_nothing_is_known_be_it_from_the_start() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        let late = now + ANSWER_MAX + Duration::from_millis(1);
        answers.asked(Command::Sessions, 1, now);
        let problem = Some("ExaBGP does not answer within 2 s".to_owned());
        assert_eq!(answers.heard(now + ANSWER_MAX), Heard { answered: None, channels: None, problem: None });
        assert_eq!(answers.heard(late), Heard { answered: None, channels: None, problem });
        answers.read(answer(&[("ESTABLISHED", "enabled", "enabled")]).as_bytes(), now);
        answers.asked(Command::Route, 1, now);
        assert_eq!((answers.heard(now).channels.map(|of| of.len()), answers.heard(now).problem), (Some(2), None));
        assert_eq!(answers.heard(late).channels, None);
        assert_eq!(answers.heard(late).problem.as_deref(), Some("ExaBGP does not answer within 2 s"));
    }

    #[test]
    fn what_it_says_is_bounded() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.asked(Command::Route, 2 * ASKED_MAX, now);
        assert_eq!(answers.asked.len(), ASKED_MAX);
        let mut lost = Answers::default();
        lost.asked(Command::Route, ASKED_MAX, now);
        lost.asked(Command::Route, 1, now);
        assert_eq!((lost.asked.len(), lost.asks(now)), (0, Some(Command::Version)));
        answers.read(&vec![b'a'; 10 * LINE_BYTES_MAX], now);
        assert_eq!(answers.line.len(), LINE_BYTES_MAX);
        answers.read("\n   ipv4 unicast:   enabled   enabled   disabled".repeat(2 * CHANNELS_MAX).as_bytes(), now);
        assert_eq!(answers.reading.len(), CHANNELS_MAX);
    }

    /// An answer with a session each: its state, and whether the other side speaks IPv4 and IPv6.
    fn answer(sessions: &[(&str, &str, &str)]) -> String {
        let session = |(state, ipv4, ipv6): &(&str, &str, &str)| {
            format!(
                "Neighbor 192.0.2.254\n\n  Session                         Local\n   local    192.0.2.1      \n   \
                 state                    {state}                                \n\n  Families  Local  Remote  Add-Path\n   \
                 ipv4 unicast:                enabled         {ipv4}        disabled\n   \
                 ipv6 unicast:                enabled         {ipv6}        disabled\n\n"
            )
        };
        sessions.iter().map(session).collect::<String>() + "done\n"
    }
}
