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
    /// The last order for a route was refused.
    refused: bool,
}

/// What was said to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// A route is announced or withdrawn.
    Route,
    /// It is asked for its sessions.
    Sessions,
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
        // One that answers nothing at all is not waited for.
        if self.asked.len() + count > ASKED_MAX {
            self.asked.clear();
        }
        self.asked.extend(std::iter::repeat_n((command, now), count.min(ASKED_MAX)));
        if command == Command::Route && count > 0 {
            self.refused = false;
        }
    }

    /// Whether it is time to ask for sessions: it was not asked, or has answered and some time has passed.
    #[must_use]
    pub fn asks(&self, now: Instant) -> bool {
        let waits = self.asked.iter().any(|(command, _)| *command == Command::Sessions);
        let fresh = self.sessions.as_ref().is_some_and(|(_, at)| now.saturating_duration_since(*at) < SESSIONS_EVERY);
        !waits && !fresh
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
        self.answers = true;
        let read = std::mem::take(&mut self.reading);
        match self.asked.pop_front() {
            Some((Command::Sessions, _)) => self.sessions = done.then_some((read, now)),
            Some((Command::Route, _)) => self.refused |= !done,
            None => {}
        }
    }

    /// What is known of it now.
    #[must_use]
    pub fn heard(&self, now: Instant) -> Heard {
        let waits_since = self.asked.front().map(|(_, since)| now.saturating_duration_since(*since));
        let hangs = waits_since.is_some_and(|waited| waited > ANSWER_MAX);
        let problem = match (hangs, self.refused) {
            (true, _) => Some(format!("ExaBGP does not answer within {} s", ANSWER_MAX.as_secs())),
            (false, true) => Some("ExaBGP refuses an order: its log says why".to_owned()),
            (false, false) => None,
        };
        let waits = self.asked.iter().any(|(command, _)| *command == Command::Route);
        let channels = self.sessions.as_ref().filter(|_| !hangs).map(|(channels, _)| channels.clone());
        Heard { answered: self.answers.then_some(!waits), channels, problem }
    }
}

/// From an answer about sessions to the next question.
const SESSIONS_EVERY: Duration = Duration::from_millis(900);

/// One that takes longer hangs. Its loop begins again each 0.1 s.
const ANSWER_MAX: Duration = Duration::from_secs(2);

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
        assert!(answers.asks(now));
        answers.asked(Command::Sessions, 1, now);
        assert!(!answers.asks(now), "one question at a time");
        let text =
            answer(&[("ESTABLISHED", "enabled", "n/a"), ("IDLE", "n/a", "n/a"), ("ESTABLISHED", "n/a", "enabled")]);
        for part in text.as_bytes().chunks(7) {
            answers.read(part, now);
        }
        let channels = answers.heard(now).channels.unwrap();
        let told: Vec<String> = channels.iter().map(|channel| format!("{}{}", channel.family, channel.up)).collect();
        assert_eq!(told, ["ipv4true", "ipv6false", "ipv4false", "ipv6false", "ipv4false", "ipv6true"]);
        assert!(!answers.asks(now) && answers.asks(now + SESSIONS_EVERY));
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
        answers.asked(Command::Route, 1, now);
        assert_eq!(answers.heard(now).problem, None);
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
        answers.asked(Command::Route, ASKED_MAX, now);
        answers.asked(Command::Route, 2 * ASKED_MAX, now);
        assert_eq!(answers.asked.len(), ASKED_MAX);
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
