//! What runs inside the cluster's nodes, and what it answers. Pure.
//!
//! Scripts are sent whole: a node that was just promoted knows none, and hashing 2 KB takes a microsecond.
//!
//! A script's writes are replicated and put in the append-only file as one transaction. So sums and the marks that keep
//! them from being counted twice are never apart, whatever node dies and whichever of its copies goes on.

use redis::Value;

use crate::engine::decay::{Decay, Rating};
use crate::engine::table::{Mark, Standing};

/// Counts parts of batches in one shard.
///
/// Keys: rank, files, seen. Arguments: pairs at most, the short half-life's share of the score, bits of `seen`, then of
/// each batch: source, boot, sequence (20 digits each), entries.
///
/// A mark is of the last two boots: a batch that was under way while its source started again is still counted, and once.
/// It is written also when nothing is new: `WAIT` waits for what its connection wrote, and an earlier try may have been
/// another connection's.
///
/// After a bound was lowered much has to go: at most 10,000 pairs a call, some 50 ms of the node, the rest with the next
/// calls.
///
/// Answers: of each batch 1 (counted), 0 (was counted before) or the known boot (it is older than the last two); then pairs,
/// pairs that went, reports turned away.
pub(super) const COUNT: &str = r"
local rank, files, seen = KEYS[1], KEYS[2], KEYS[3]
local most, share, bits = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local log2e = 1 / math.log(2)
local function sum(a, b)
  if a < b then a, b = b, a end
  if a - b > 60 then return a end
  return a + math.log(1 + 2 ^ (b - a)) * log2e
end
local function score(hour, days)
  if share == 0 then return days end
  if share == 1 then return hour end
  return share * hour + (1 - share) * days
end
local function stand(source, boot, sequence)
  local field = '\0' .. source
  local mark = redis.call('HGET', files, field) or ''
  local boot1, sequence1 = mark:sub(1, 20), mark:sub(21, 40)
  local boot2, sequence2 = mark:sub(41, 60), mark:sub(61, 80)
  local answer = 1
  if boot1 == '' or boot > boot1 then
    mark = boot .. sequence .. boot1 .. sequence1
  elseif boot == boot1 then
    if sequence > sequence1 then mark = boot .. sequence .. boot2 .. sequence2 else answer = 0 end
  elseif boot == boot2 then
    if sequence > sequence2 then mark = boot1 .. sequence1 .. boot .. sequence else answer = 0 end
  elseif boot > boot2 then
    mark = boot1 .. sequence1 .. boot .. sequence
  else
    answer = boot1
  end
  redis.call('HSET', files, field, mark)
  return answer
end
local pairs_now, gone, away = redis.call('ZCARD', rank), 0, 0
local function admit(hash, hour, days)
  if pairs_now < most then return true end
  if redis.call('SETBIT', seen, hash % bits, 1) == 0 then
    if redis.call('HINCRBY', files, '\0', 1) > bits / 8 then
      redis.call('DEL', seen)
      redis.call('HSET', files, '\0', 0)
    end
    return false
  end
  local lowest = redis.call('ZRANGE', rank, -1, -1, 'WITHSCORES')
  return score(hour, days) > -tonumber(lowest[2])
end
local function add(entries)
  local at = 1
  while at <= #entries do
    local hour, days, size, hash, name
    hour, days, size, hash, name, at = struct.unpack('<dddI4Hc0', entries, at)
    local old = redis.call('HGET', files, name)
    if old then
      local old_hour, old_days = struct.unpack('<dd', old)
      hour, days = sum(old_hour, hour), sum(old_days, days)
    end
    if old or admit(hash, hour, days) then
      if not old then pairs_now = pairs_now + 1 end
      redis.call('HSET', files, name, struct.pack('<ddd', hour, days, size))
      redis.call('ZADD', rank, string.format('%.17g', -score(hour, days)), name)
    else
      away = away + 1
    end
  end
end
local answers = {}
for i = 4, #ARGV, 4 do
  local answer = stand(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if answer == 1 then add(ARGV[i + 3]) end
  answers[#answers + 1] = answer
end
while pairs_now > most and gone < 10000 do
  local lowest = redis.call('ZPOPMAX', rank)
  redis.call('HDEL', files, lowest[1])
  pairs_now, gone = pairs_now - 1, gone + 1
end
answers[#answers + 1] = pairs_now
answers[#answers + 1] = gone
answers[#answers + 1] = away
return answers
";

/// Lets a batch in that comes after the last one of its source, or is that one again.
///
/// A source sends a batch until it is acknowledged, and only then the next. So what comes before the last one was counted, and
/// what is the last one goes to its shards, which know what they have of it.
///
/// Key: the source's. Arguments: boot, sequence (20 digits each), what to answer when it is the last one again, the latest boot
/// (20 digits), how far above the known one a boot may be beyond that, and a sequence. What that is for:
/// [`crate::engine::marks::check`], which this is again, but for what numbers above 2^53 lose.
///
/// Answers: 1 (go on), 0 (counted before), 2 (there is a later boot), 3 (the boot is far ahead), 4 (the sequence is), and the
/// mark that was known, 40 digits or none.
pub(super) const OPEN: &str = r"
local mark = redis.call('GET', KEYS[1]) or ''
local boot, sequence = mark:sub(1, 20), mark:sub(21, 40)
if ARGV[1] < boot then return {2, mark} end
if ARGV[1] == boot then
  if ARGV[2] < sequence then return {0, mark} end
  if ARGV[2] == sequence then return {tonumber(ARGV[3]), mark} end
else
  local above = tonumber(ARGV[1]) - (tonumber(boot) or 0)
  if ARGV[1] > ARGV[4] and above > tonumber(ARGV[5]) then return {3, mark} end
  sequence = '0'
end
if tonumber(ARGV[2]) - tonumber(sequence) > tonumber(ARGV[6]) then return {4, mark} end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2])
return {1, mark}
";

/// What [`OPEN`] says, with the mark that was known where it matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opened {
    New(Mark),
    Counted,
    Stale(Mark),
    FarBoot,
    FarSequence(Mark),
}

/// Reads what [`OPEN`] says; nothing when it is something else.
pub(super) fn opened(answer: &Value) -> Option<Opened> {
    let Value::Array(values) = answer else { return None };
    let [Value::Int(what), Value::BulkString(mark)] = &values[..] else { return None };
    let mark = std::str::from_utf8(mark).ok()?;
    let number = |digits: Option<&str>| digits?.parse::<u64>().ok();
    let known = match mark.len() {
        0 => Mark::default(),
        _ => Mark { boot: number(mark.get(..20))?, sequence: number(mark.get(20..))? },
    };
    Some(match what {
        0 => Opened::Counted,
        1 => Opened::New(known),
        2 => Opened::Stale(known),
        3 => Opened::FarBoot,
        4 => Opened::FarSequence(known),
        _ => return None,
    })
}

/// The best-rated of a shard: file and what is kept of it, in turn. Keys: rank, files. Argument: how many.
pub(super) const BEST: &str = r"
local names = redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1)
local answer = {}
for from = 1, #names, 1000 do
  local to = math.min(from + 999, #names)
  local kept = redis.call('HMGET', KEYS[2], unpack(names, from, to))
  for i = from, to do
    answer[#answer + 1] = names[i]
    answer[#answer + 1] = kept[i - from + 1]
  end
end
return answer
";

/// A number that sorts as text.
pub(super) fn digits(number: u64) -> String {
    format!("{number:020}")
}

/// A file as a shard keeps it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kept {
    pub(super) rating: Rating,
    pub(super) size: u64,
}

impl Kept {
    /// Reads what [`COUNT`] keeps; nothing when it is something else.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (hour, rest) = bytes.split_first_chunk()?;
        let (days, rest) = rest.split_first_chunk()?;
        let size = f64::from_le_bytes(rest.try_into().ok()?);
        let rating = Rating { hour: f64::from_le_bytes(*hour), days: f64::from_le_bytes(*days) };
        let sound = !rating.hour.is_nan() && !rating.days.is_nan() && size >= 0.0;
        // The cast saturates.
        sound.then_some(Self { rating, size: size as u64 })
    }

    /// `log2(rating / size^exponent)`, the size to 1,024ths as the engine keeps it; an empty file counts as one byte.
    pub(super) fn worth(&self, decay: &Decay, exponent: f64) -> f64 {
        let score = decay.score(self.rating);
        if exponent == 0.0 { score } else { score - exponent * crate::engine::log2_size(self.size) }
    }
}

/// What [`COUNT`] says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Counted {
    /// Of each batch; with the known boot where it is stale.
    pub(super) standings: Vec<(Standing, Mark)>,
    pub(super) pairs: u64,
    pub(super) evicted: u64,
    pub(super) turned_away: u64,
}

impl Counted {
    /// Reads the answer about so many batches; nothing when it is none.
    pub(super) fn read(answer: &Value, batches: usize) -> Option<Self> {
        let Value::Array(values) = answer else { return None };
        let (standings, [pairs, evicted, turned_away]) = values.split_last_chunk()?;
        let number = |value: &Value| match value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let standings = standings.iter().map(standing).collect::<Option<Vec<_>>>()?;
        (standings.len() == batches).then_some(())?;
        let (pairs, evicted, turned_away) = (number(pairs)?, number(evicted)?, number(turned_away)?);
        Some(Self { standings, pairs, evicted, turned_away })
    }
}

/// What a script says of one batch.
pub(super) fn standing(answer: &Value) -> Option<(Standing, Mark)> {
    match answer {
        Value::Int(1) => Some((Standing::New, Mark::default())),
        Value::Int(0) => Some((Standing::Counted, Mark::default())),
        Value::BulkString(boot) => {
            let boot = std::str::from_utf8(boot).ok()?.parse().ok()?;
            Some((Standing::Stale, Mark { boot, sequence: 0 }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_and_rubbish_is_not() {
        let bytes = [3.5_f64, -2.0, 1000.0].map(f64::to_le_bytes).concat();
        let kept = Kept { rating: Rating { hour: 3.5, days: -2.0 }, size: 1000 };
        assert_eq!(Kept::read(&bytes), Some(kept));
        for bad in [&bytes[..23], &[&bytes[..], b"x"].concat(), &[f64::NAN, 1.0, 1.0].map(f64::to_le_bytes).concat()] {
            assert_eq!(Kept::read(bad), None);
        }
    }

    #[test]
    fn an_answer_is_read_and_another_one_is_not() {
        let boot = Value::BulkString(digits(7).into_bytes());
        let answer = |values: &[Value]| Value::Array(values.to_vec());
        let numbers = [Value::Int(9), Value::Int(2), Value::Int(3)];
        let good = [&[Value::Int(1), Value::Int(0), boot][..], &numbers].concat();
        let none = Mark::default();
        let standings =
            vec![(Standing::New, none), (Standing::Counted, none), (Standing::Stale, Mark { boot: 7, sequence: 0 })];
        let counted = Counted { standings, pairs: 9, evicted: 2, turned_away: 3 };
        assert_eq!(Counted::read(&answer(&good), 3), Some(counted));
        assert_eq!(Counted::read(&answer(&good), 2), None);
        assert_eq!(Counted::read(&answer(&good[4..]), 0), None);
        assert_eq!(Counted::read(&answer(&[&[Value::Int(2)][..], &numbers].concat()), 1), None);
        assert_eq!(Counted::read(&Value::Okay, 0), None);
    }

    #[test]
    fn what_is_said_of_a_batch_is_read() {
        let said = |what: i64, mark: &str| Value::Array(vec![Value::Int(what), Value::BulkString(mark.into())]);
        let (mark, known) = (digits(7) + &digits(3), Mark { boot: 7, sequence: 3 });
        for (answer, expected) in [
            (said(1, ""), Some(Opened::New(Mark::default()))),
            (said(1, &mark), Some(Opened::New(known))),
            (said(0, &mark), Some(Opened::Counted)),
            (said(2, &mark), Some(Opened::Stale(known))),
            (said(3, &mark), Some(Opened::FarBoot)),
            (said(4, &mark), Some(Opened::FarSequence(known))),
            (said(5, &mark), None),
            (said(1, "7"), None),
            (Value::Int(1), None),
        ] {
            assert_eq!(opened(&answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn numbers_sort_as_text() {
        let mut texts = [0, u64::MAX, 10, 9, 1 << 53].map(digits);
        texts.sort();
        assert_eq!(texts.map(|text| text.parse::<u64>().unwrap()), [0, 9, 10, 1 << 53, u64::MAX]);
    }
}
