//! Compaction: what streamed in many events becomes few. A session is gone through from its end, in
//! steps. Pure: backends feed rows in, newest first, and do what comes of it.

use crate::model::{EventRow, Number};
use crate::replay::{Compaction, Merge};

/// Some of the work on one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactStep {
    /// The session.
    pub session_id: String,
    /// Only if its newest event is older than this.
    pub idle_before: i64,
    /// Whether tool calls are joined with their updates too.
    pub joins_tools: bool,
    /// Where the step begins.
    pub from: CompactCursor,
}

/// Where the next step begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactCursor {
    /// So many rows more stay as they are.
    pub keep: u64,
    /// Whether an answer of the agent's was met.
    pub has_answer: bool,
    /// Behind this row; `None` for the end of the session.
    pub after: Option<CompactPlace>,
}

/// A row's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactPlace {
    /// Its index.
    pub event_index: i64,
    /// Its id.
    pub id: String,
    /// Whether it is itself read again: older rows may yet go into it.
    pub is_open: bool,
}

/// What a step came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compacted {
    /// How many events were looked at for the first time.
    pub read: u64,
    /// How many of the session's events went.
    pub gone: u64,
    /// The bytes of the texts in these.
    pub bytes: u64,
    /// Where the next step begins; `None` at the end.
    pub next: Option<CompactCursor>,
    /// Nothing was done: another process prunes or compacts.
    pub is_elsewhere: bool,
}

/// The rows of a step, as they come in.
#[derive(Debug)]
pub struct CompactRun {
    compaction: Compaction,
    keep: u64,
    /// The row that is read again.
    reopened: Option<String>,
    read: u64,
    last: Option<CompactPlace>,
    /// Of the group that is open.
    open: Option<CompactPlace>,
    is_at_end: bool,
}

impl CompactCursor {
    /// At the end of a session, of whose newest events so many stay as they are.
    pub fn start(keep: u64) -> Self {
        Self { keep, has_answer: false, after: None }
    }

    /// As text.
    pub fn to_text(&self) -> String {
        let place = self.after.as_ref().map_or_else(String::new, |place| {
            format!(" {} {} {}", u8::from(place.is_open), place.event_index, place.id)
        });
        format!("{} {}{place}", self.keep, u8::from(self.has_answer))
    }

    /// Out of such a text.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, ' ');
        let keep = parts.next()?.parse().ok()?;
        let has_answer = parts.next()? == "1";
        let after = match (parts.next(), parts.next(), parts.next()) {
            (Some(is_open), Some(index), Some(id)) => Some(CompactPlace {
                event_index: index.parse().ok()?,
                id: id.to_owned(),
                is_open: is_open == "1",
            }),
            _ => None,
        };
        Some(Self { keep, has_answer, after })
    }
}

impl CompactRun {
    /// The beginning of a step.
    pub fn new(step: &CompactStep) -> Self {
        let reopened = step.from.after.as_ref().filter(|place| place.is_open);
        Self {
            compaction: Compaction::new(step.joins_tools, step.from.has_answer),
            keep: step.from.keep,
            reopened: reopened.map(|place| place.id.clone()),
            read: 0,
            last: None,
            open: None,
            is_at_end: false,
        }
    }

    /// Takes the row before the last.
    pub fn push(&mut self, row: &EventRow<'_>) {
        if self.reopened.as_deref() != Some(row.id) {
            self.read += 1;
        }
        let Number::Integer(event_index) = row.event_index else {
            // What lies below has no place that could be gone on from.
            self.is_at_end = true;
            return self.compaction.skip();
        };
        if self.keep > 0 {
            self.keep -= 1;
            self.compaction.keep(row);
        } else {
            self.compaction.push(row);
        }
        let place = CompactPlace { event_index, id: row.id.to_owned(), is_open: false };
        if self.compaction.open_id() == Some(row.id) {
            self.open = Some(CompactPlace { is_open: true, ..place.clone() });
        }
        self.last = Some(place);
    }

    /// A row can't be read. It stays, and nothing is joined across it.
    pub fn skip(&mut self) {
        self.compaction.skip();
        self.keep = self.keep.saturating_sub(1);
    }

    /// What is to be done, and what it comes to, where so many rows were asked for and came. What is
    /// only told of isn't open to older rows, as it still stands there in parts.
    pub fn finish(self, asked: usize, came: usize, is_dry: bool) -> (Vec<Merge>, Compacted) {
        let is_open = self.compaction.open_id().is_some() && !is_dry;
        let after = if is_open { self.open } else { self.last };
        let has_answer = self.compaction.has_answer();
        let is_over = self.is_at_end || came < asked || after.is_none();
        let next = (!is_over).then_some(CompactCursor { keep: self.keep, has_answer, after });
        let merges = self.compaction.finish();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let compacted = Compacted {
            read: self.read,
            gone: merges.iter().map(|merge| count(merge.gone.len())).sum(),
            bytes: merges.iter().map(|merge| count(merge.bytes)).sum(),
            next,
            is_elsewhere: false,
        };
        (merges, compacted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::replay::{Keep, ReplayOptions, WindowBuilder};

    /// An event as it is stored.
    #[derive(Debug, Clone, PartialEq)]
    struct Stored {
        index: i64,
        sender: &'static str,
        payload: String,
    }

    impl Stored {
        fn id(&self) -> String {
            format!("e{}", self.index)
        }

        fn row<'row>(&'row self, id: &'row str) -> EventRow<'row> {
            EventRow {
                id,
                event_index: Number::Integer(self.index),
                session_id: "s",
                created_at: Number::Integer(1_000 + self.index),
                connection_id: "c",
                sender: self.sender,
                payload: &self.payload,
                extra: None,
            }
        }
    }

    fn chunk(kind: &str, text: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"a","update":{{"sessionUpdate":"{kind}","content":{{"type":"text","text":"{text}"}}}}}}}}"#
        )
    }

    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"stopReason":"end_turn"}}"#;
    const PROMPT: &str =
        r#"{"jsonrpc":"2.0","id":1,"method":"session/prompt","params":{"prompt":[]}}"#;

    /// Of each kind one, by a number.
    fn stored(index: i64, kind: u8) -> Stored {
        let (sender, payload) = match kind {
            0 => ("client", PROMPT.to_owned()),
            1 => ("agent", ANSWER.to_owned()),
            2 => ("agent", chunk("agent_thought_chunk", "hm ")),
            3 => ("agent", chunk("agent_message_chunk", "")),
            4 => ("agent", "{".to_owned()),
            5 => ("agent", chunk("agent_message_chunk", r"\ud83d")),
            6 => ("agent", chunk("agent_message_chunk", r"\ude00\n")),
            7 => ("client", chunk("agent_message_chunk", "mine")),
            _ => ("agent", chunk("agent_message_chunk", &format!("word {index} "))),
        };
        Stored { index, sender, payload }
    }

    fn step(from: CompactCursor) -> CompactStep {
        CompactStep { session_id: "s".to_owned(), idle_before: 0, joins_tools: false, from }
    }

    /// Compacts a session in steps of so many rows, as a backend does. What each removed.
    fn compact(events: &mut Vec<Stored>, keep: u64, rows: usize, is_dry: bool) -> (u64, u64) {
        let (mut read, mut gone) = (0, 0);
        let mut next = Some(CompactCursor::start(keep));
        while let Some(from) = next {
            let mut run = CompactRun::new(&step(from.clone()));
            let is_in = |event: &&Stored| match &from.after {
                None => true,
                Some(place) if place.is_open => event.index <= place.event_index,
                Some(place) => event.index < place.event_index,
            };
            let page: Vec<&Stored> = events.iter().rev().filter(is_in).take(rows).collect();
            for event in &page {
                run.push(&event.row(&event.id()));
            }
            let (merges, compacted) = run.finish(rows, page.len(), is_dry);
            for merge in merges.iter().filter(|_| !is_dry) {
                events.retain(|event| !merge.gone.contains(&event.id()));
                let kept = events.iter_mut().find(|event| event.id() == merge.id).unwrap();
                kept.payload.clone_from(&merge.payload);
            }
            read += compacted.read;
            gone += compacted.gone;
            next = compacted.next;
        }
        (read, gone)
    }

    fn replayed(events: &[Stored], options: &ReplayOptions) -> Option<String> {
        let mut builder = WindowBuilder::new(options);
        for event in events.iter().rev() {
            if !builder.push(&event.row(&event.id())) {
                break;
            }
        }
        builder.finish().map(|window| window.text(options.max_chars).0)
    }

    fn history(kinds: &[u8]) -> Vec<Stored> {
        (1..).zip(kinds).map(|(index, kind)| stored(index, *kind)).collect()
    }

    #[test]
    fn chunks_of_turns_that_are_over_become_one() {
        let mut events = history(&[0, 9, 9, 9, 1, 0, 9, 9]);
        assert_eq!(compact(&mut events, 0, 1_000, false), (8, 2));
        let left: Vec<i64> = events.iter().map(|event| event.index).collect();
        assert_eq!(left, [1, 4, 5, 6, 7, 8]);
        assert_eq!(events[1].payload, chunk("agent_message_chunk", "word 2 word 3 word 4 "));
    }

    #[test]
    fn the_newest_stay_as_they_are() {
        let mut events = history(&[0, 9, 9, 9, 9, 1]);
        assert_eq!(compact(&mut events, 3, 2, false), (6, 1));
        assert_eq!(events.len(), 5);
        assert_eq!(events[1].index, 3);
    }

    #[test]
    fn a_text_never_grows_without_end() {
        let long = chunk("agent_message_chunk", &"x".repeat(300_000));
        let mut events: Vec<Stored> = (1..=10)
            .map(|index| Stored { index, sender: "agent", payload: long.clone() })
            .collect();
        events.push(stored(11, 1));
        compact(&mut events, 0, 1_000, false);
        assert_eq!(events.iter().map(|event| event.index).collect::<Vec<_>>(), [1, 4, 7, 10, 11]);
    }

    proptest::proptest! {
        /// Whatever was said, in steps of whatever size: what an agent is told afterwards is the same
        /// to the character.
        #[test]
        fn the_replay_is_the_same_for_any_limits(
            kinds in proptest::collection::vec(0_u8..20, 1..120),
            rows in 2_usize..40,
            keep in 0_u64..5,
            max_events in 1_usize..20,
            max_chars in 300_usize..4_000,
            max_chars_per_event in 1_usize..300,
        ) {
            let before = history(&kinds);
            let mut after = before.clone();
            compact(&mut after, keep, rows, false);
            let options = ReplayOptions {
                max_events,
                max_chars,
                max_chars_per_event,
                keep: Keep::Newest,
                coalesce: true,
            };
            proptest::prop_assert_eq!(replayed(&before, &options), replayed(&after, &options));
            proptest::prop_assert_eq!(before.last().unwrap().index, after.last().unwrap().index);
            let again = compact(&mut after, keep, rows, false);
            proptest::prop_assert_eq!(again.1, 0);
        }

        /// A dry run may miss one event where two steps meet.
        #[test]
        fn a_dry_run_tells_about_what_goes(
            kinds in proptest::collection::vec(0_u8..20, 1..120),
            rows in 2_usize..40,
        ) {
            let mut events = history(&kinds);
            let (read, told) = compact(&mut events, 0, rows, true);
            proptest::prop_assert_eq!(usize::try_from(read), Ok(kinds.len()));
            proptest::prop_assert_eq!(events.len(), kinds.len());
            let (_, gone) = compact(&mut events, 0, rows, false);
            let steps = (kinds.len() / rows + 1) as u64;
            proptest::prop_assert!(told <= gone && gone <= told + steps, "{} {}", told, gone);
        }
    }

    #[test]
    fn a_cursor_comes_back_from_its_text() {
        let place = CompactPlace { event_index: -5, id: "a b".to_owned(), is_open: true };
        for after in [None, Some(place)] {
            let cursor = CompactCursor { keep: 3, has_answer: true, after };
            assert_eq!(CompactCursor::parse(&cursor.to_text()), Some(cursor));
        }
        assert_eq!(CompactCursor::parse("x"), None);
    }
}
