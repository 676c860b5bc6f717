//! Which of a session's events an agent is given, and in what form.
//!
//! Rows come in newest first, and as many as the window wants. What belongs together is joined as
//! it comes; when the next row belongs to something else, the group is sealed: put into the form
//! that the SDK will print, and counted exactly as the SDK will count it.

use crate::filter::{EventsFilter, Order};
use crate::json::{self, ArrayWriter};
use crate::model::{EventRow, JsonText, Number};

use super::envelope::{Envelope, Head, Part};
use super::js_string::JsString;
use super::options::{Keep, ReplayOptions};
use super::text::{self, PREFIX, ReplayText};
use super::value::{Object, Value};

/// After this many rows in succession that add nothing, such as updates of one tool call, the
/// window ends: what it costs must not grow with the session.
const MAX_IDLE_ROWS: usize = 10_000;

/// The events of a window, oldest first.
#[derive(Debug, PartialEq)]
pub struct Window {
    events: Vec<WindowEvent>,
    /// Whether anything of the session is missing: earlier events, or parts of long ones.
    pub is_truncated: bool,
}

/// An event as it is replayed.
#[derive(Debug, Clone, PartialEq)]
struct WindowEvent {
    head: Head,
    /// Of the first stored event that is in it.
    first_index: Number,
    payload: JsonText,
    /// As the SDK prints it.
    line: String,
}

/// Chooses the events of a window. Lengths are in UTF-16 units.
#[derive(Debug)]
pub struct WindowBuilder<'options> {
    options: &'options ReplayOptions,
    newest_first: Vec<WindowEvent>,
    /// Of `max_chars`.
    used: usize,
    /// What the next row may belong to.
    group: Option<Group>,
    /// Of a text that a stub stands for, what is around it: what comes before is of it too.
    passed: Option<Envelope>,
    idle_rows: usize,
    is_truncated: bool,
    is_full: bool,
}

/// Rows that become one event.
#[derive(Debug)]
struct Group {
    envelope: Envelope,
    /// How long the line of a text's event is without the text.
    frame_len: usize,
}

impl<'options> WindowBuilder<'options> {
    /// An empty window.
    pub fn new(options: &'options ReplayOptions) -> Self {
        Self {
            options,
            newest_first: Vec::new(),
            used: PREFIX.len(),
            group: None,
            passed: None,
            idle_rows: 0,
            is_truncated: false,
            is_full: false,
        }
    }

    /// Takes the row before the last. Returns whether the window wants another.
    pub fn push(&mut self, row: &EventRow<'_>) -> bool {
        match self.read(row) {
            Some(envelope) => self.add(envelope),
            None => self.pass_over(row),
        }
        self.wants_more()
    }

    fn wants_more(&mut self) -> bool {
        if self.idle_rows > MAX_IDLE_ROWS {
            self.end();
        }
        !self.is_full
    }

    /// The window; `None` if there were no rows.
    pub fn finish(mut self) -> Option<Window> {
        self.seal();
        self.newest_first.reverse();
        let window = Window { events: self.newest_first, is_truncated: self.is_truncated };
        (!window.events.is_empty()).then_some(window)
    }

    fn read(&self, row: &EventRow<'_>) -> Option<Envelope> {
        let mut envelope = Envelope::read(row)?;
        if !self.options.keeps_earlier_replays() {
            envelope = envelope.without_earlier_replay();
        }
        Some(if self.options.coalesce { envelope.split() } else { envelope })
    }

    fn add(&mut self, envelope: Envelope) {
        let Some(envelope) = self.pass_over_text(envelope) else { return };
        let has_text = matches!(&envelope.part, Part::Text(run) if run.json_len > 0);
        let next = match &mut self.group {
            Some(group) => group.envelope.join(envelope),
            None => Some(envelope),
        };
        self.idle_rows = if has_text || next.is_some() { 0 } else { self.idle_rows + 1 };
        if let Some(next) = next {
            self.seal();
            if self.is_full || self.newest_first.len() == self.options.max_events {
                return self.end();
            }
            self.group = Some(Group::new(next, self.options));
        }
        if self.group.as_ref().is_some_and(|group| self.must_cut(group)) {
            self.seal();
        }
    }

    /// Gives the event back if it isn't of the text that a stub stands for.
    fn pass_over_text(&mut self, envelope: Envelope) -> Option<Envelope> {
        let Some(passed) = &mut self.passed else { return Some(envelope) };
        let next = passed.join(envelope);
        if next.is_some() {
            self.passed = None;
        } else {
            self.idle_rows += 1;
        }
        next
    }

    /// Passes over a row that can't be read, unless it is the first. Returns as [`Self::push`].
    pub fn skip(&mut self) -> Option<bool> {
        self.leave_out();
        (!self.newest_first.is_empty()).then(|| self.wants_more())
    }

    /// What can't be parsed is left out, but not if it is the newest.
    fn pass_over(&mut self, row: &EventRow<'_>) {
        self.leave_out();
        if self.newest_first.is_empty() {
            let original = Original { method: None, length: text::utf16_len(row.payload) };
            self.push_event(self.stub(&Head::of(row), row.event_index, &original));
        }
    }

    /// What comes before a row that is left out isn't next to what comes after it.
    fn leave_out(&mut self) {
        self.seal();
        self.passed = None;
        self.idle_rows += 1;
        self.is_truncated = true;
    }

    /// Nothing earlier comes in.
    fn end(&mut self) {
        self.seal();
        self.is_full = true;
        self.is_truncated = true;
    }

    /// Whether the text must not be longer than it may; else the SDK's cut comes into play.
    fn must_fit(&self) -> bool {
        self.options.keep == Keep::Newest
    }

    fn must_cut(&self, group: &Group) -> bool {
        self.must_fit() && group.is_text_longer_than(self.room())
    }

    /// How long the next line may be.
    fn room(&self) -> usize {
        self.options.max_chars.saturating_sub(self.used).saturating_sub(1)
    }

    fn seal(&mut self) {
        let Some(group) = self.group.take() else { return };
        let must_cut = self.must_cut(&group);
        let Group { mut envelope, frame_len } = group;
        let room = self.room();
        let original = self.may_be_stub(&envelope).then(|| Original::of(&envelope));
        if let Part::Text(run) = &mut envelope.part
            && must_cut
            && let Some(first_index) = run.cut_front(room.saturating_sub(frame_len))
        {
            envelope.first_index = first_index;
            self.is_truncated = true;
            self.is_full = true;
        }
        let around_text = envelope.around_text();
        let is_elided = envelope.elide_strings(self.options.max_chars_per_event);
        let event = WindowEvent::new(envelope);
        if !self.must_fit() || event.line_len() <= room {
            self.is_truncated |= is_elided;
            self.push_event(event);
        } else {
            // What doesn't fit of a text, once it is cut, is what is around it.
            let size = if frame_len > 0 { frame_len } else { event.line_len() };
            self.push_stub_of(&event, size, original);
            self.passed = around_text;
        }
    }

    /// Whether a stub may stand for it: for the newest, and for what is larger than an event should
    /// be. What is of a usual size is left to end the window.
    fn may_be_stub(&self, envelope: &Envelope) -> bool {
        let size = match &envelope.part {
            Part::Text(_) => len_around_text(envelope),
            Part::Whole | Part::Tool(_) => envelope.stored_bytes,
        };
        let is_large = size > self.options.max_chars_per_event;
        self.must_fit() && (self.newest_first.is_empty() || is_large)
    }

    /// Of an event that doesn't fit. The newest has one in any case.
    fn push_stub_of(&mut self, event: &WindowEvent, size: usize, original: Option<Original>) {
        let is_newest = self.newest_first.is_empty();
        let is_large = size > self.options.max_chars_per_event;
        self.is_truncated = true;
        match original.map(|original| self.stub(&event.head, event.first_index, &original)) {
            Some(stub) if is_newest || (is_large && stub.line_len() <= self.room()) => {
                self.push_event(stub);
            }
            _ => self.is_full = true,
        }
    }

    fn push_event(&mut self, event: WindowEvent) {
        if self.must_fit() {
            self.used = self.used.saturating_add(event.line_len() + 1);
        }
        self.newest_first.push(event);
    }

    /// Stands for an event that can't be there itself.
    fn stub(&self, head: &Head, first_index: Number, original: &Original) -> WindowEvent {
        let stub = |method| WindowEvent::new(original.stub(head, first_index, method));
        let full = stub(original.method.as_ref());
        if full.line_len() <= self.room() { full } else { stub(None) }
    }
}

impl Group {
    fn new(envelope: Envelope, options: &ReplayOptions) -> Self {
        let frame_len = match &envelope.part {
            Part::Text(_) => {
                let mut frame = envelope.payload.clone();
                frame.elide_strings(options.max_chars_per_event);
                let head = &envelope.head;
                text::utf16_len(&text::line(head.created_at, &head.sender, &frame.to_json()))
            }
            Part::Whole | Part::Tool(_) => 0,
        };
        Self { envelope, frame_len }
    }

    fn is_text_longer_than(&self, room: usize) -> bool {
        match &self.envelope.part {
            Part::Text(run) => self.frame_len.saturating_add(run.json_len) > room,
            Part::Whole | Part::Tool(_) => false,
        }
    }
}

/// Of a text no more is counted than what is around it: how much of it has been read by then depends on
/// how it was cut into events.
fn len_around_text(envelope: &Envelope) -> usize {
    text::utf16_len(&envelope.payload.to_json())
}

/// What a stub says of an event.
struct Original {
    method: Option<JsString>,
    length: usize,
}

impl Original {
    fn of(envelope: &Envelope) -> Self {
        let method = envelope.payload.get("method").and_then(Value::as_string).cloned();
        let length = match &envelope.part {
            Part::Text(_) => len_around_text(envelope),
            Part::Whole | Part::Tool(_) => envelope.payload_len(),
        };
        Self { method, length }
    }

    fn stub(&self, head: &Head, first_index: Number, method: Option<&JsString>) -> Envelope {
        #[expect(clippy::cast_precision_loss, reason = "no text is that long")]
        let elided = Value::Number(self.length as f64);
        let mut payload = Object::new();
        payload.insert("jsonrpc".into(), Value::string("2.0"));
        if let Some(method) = method {
            payload.insert("method".into(), Value::String(method.clone()));
        }
        payload.insert("params".into(), Value::Object([("elided".into(), elided)].into()));
        let payload = Value::Object(payload);
        Envelope { head: head.clone(), payload, part: Part::Whole, first_index, stored_bytes: 0 }
    }
}

impl WindowEvent {
    fn new(envelope: Envelope) -> Self {
        let first_index = envelope.first_index;
        let (head, payload) = envelope.into_whole();
        let payload = payload.to_json();
        let line = text::line(head.created_at, &head.sender, &payload);
        Self { head, first_index, payload, line }
    }

    fn line_len(&self) -> usize {
        text::utf16_len(&self.line)
    }

    fn method(&self) -> Option<String> {
        let payload = Value::parse(&self.payload)?;
        payload.get("method")?.as_string()?.to_text()
    }

    fn row(&self) -> EventRow<'_> {
        let Head { id, event_index, session_id, created_at, connection_id, sender, extra } =
            &self.head;
        EventRow {
            id,
            event_index: *event_index,
            session_id,
            created_at: *created_at,
            connection_id,
            sender,
            payload: &self.payload,
            extra: extra.as_deref(),
        }
    }
}

impl Window {
    /// The indexes of the first and the last stored event of which something is in it.
    pub fn indexes(&self) -> Option<(Number, Number)> {
        let (first, last) = (self.events.first()?, self.events.last()?);
        Some((first.first_index, last.head.event_index))
    }

    /// The text that the SDK makes of it, and whether that holds all of it.
    pub fn text(&self, max_chars: usize) -> (String, bool) {
        let mut text = ReplayText::new(max_chars);
        let is_whole = self.events.iter().all(|event| text.push_line(&event.line));
        (text.finish(), is_whole)
    }

    /// Those of its events that are wanted as JSON arrays, in this order, without the first so
    /// many.
    pub fn arrays(&self, filter: &EventsFilter, order: Order, offset: usize) -> Vec<JsonText> {
        let mut wanted: Vec<EventRow<'_>> = self
            .events
            .iter()
            .filter(|event| filter.matches(&event.row(), event.method().as_deref()))
            .map(WindowEvent::row)
            .collect();
        if order == Order::Newest {
            wanted.reverse();
        }
        let mut arrays = ArrayWriter::default();
        for row in wanted.iter().skip(offset) {
            arrays.push(json::event_bytes(row), |out| json::write_event(out, row));
        }
        arrays.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: &str = r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"a","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"T"}}}}"#;

    fn chunk(text: &str) -> String {
        CHUNK.replace('T', text)
    }

    fn tool(kind: &str, fields: &str) -> String {
        let update = format!(r#"{{"sessionUpdate":"{kind}",{fields}}}"#);
        format!(r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"update":{update}}}}}"#)
    }

    fn prompt(texts: &[&str]) -> String {
        let blocks: Vec<String> = texts
            .iter()
            .map(|text| {
                format!(r#"{{"type":"text","text":{}}}"#, serde_json::to_string(text).unwrap())
            })
            .collect();
        let blocks = blocks.join(",");
        format!(r#"{{"jsonrpc":"2.0","method":"session/prompt","params":{{"prompt":[{blocks}]}}}}"#)
    }

    fn row<'row>(index: i64, id: &'row str, payload: &'row str) -> EventRow<'row> {
        let sender = if payload.contains("session/prompt") { "client" } else { "agent" };
        EventRow {
            id,
            event_index: Number::Integer(index),
            session_id: "s",
            created_at: Number::Integer(index * 10),
            connection_id: "c",
            sender,
            payload,
            extra: None,
        }
    }

    /// The window of these payloads, and how many rows it wanted.
    fn read(payloads: &[String], options: &ReplayOptions) -> (Window, usize) {
        let mut builder = WindowBuilder::new(options);
        let mut read = 0;
        for (index, payload) in payloads.iter().enumerate().rev() {
            read += 1;
            let index = i64::try_from(index + 1).unwrap();
            if !builder.push(&row(index, &format!("e{index}"), payload)) {
                break;
            }
        }
        (builder.finish().unwrap(), read)
    }

    fn payloads(window: &Window) -> Vec<&str> {
        window.events.iter().map(|event| event.payload.as_str()).collect()
    }

    fn replayed(given: &[String]) -> Vec<String> {
        let (window, _) = read(given, &ReplayOptions::default());
        payloads(&window).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn no_rows_are_no_window() {
        assert_eq!(WindowBuilder::new(&ReplayOptions::default()).finish(), None);
    }

    #[test]
    fn chunks_become_one_event_with_the_last_ones_id_index_and_time() {
        let (window, _) = read(&[chunk("a"), chunk("b"), chunk("c")], &ReplayOptions::default());
        assert_eq!(payloads(&window), [chunk("abc")]);
        let head = &window.events[0].head;
        assert_eq!((head.id.as_str(), head.event_index), ("e3", Number::Integer(3)));
        assert_eq!(head.created_at, Number::Integer(30));
        assert!(!window.is_truncated);
    }

    #[test]
    fn surrogates_that_meet_become_a_pair() {
        assert_eq!(replayed(&[chunk(r"\ud83d"), chunk(""), chunk(r"\ude00")]), [chunk("😀")]);
    }

    #[test]
    fn chunks_that_differ_in_anything_else_stay_apart() {
        let thought = chunk("b").replace("message", "thought");
        let image = chunk("b").replace(r#""type":"text""#, r#""type":"image""#);
        let of_message = chunk("b").replace("\"content\"", "\"messageId\":\"m\",\"content\"");
        for other in [thought, image, of_message] {
            let given = [chunk("a"), other, chunk("c")];
            assert_eq!(replayed(&given), given);
        }
    }

    #[test]
    fn a_run_is_read_until_it_fills_the_window_and_is_cut_at_its_front() {
        let given: Vec<String> = (0..10_000).map(|n| chunk(&format!("word {n} \\n"))).collect();
        let options = ReplayOptions { max_chars: 1_000, ..ReplayOptions::default() };
        let (window, read) = read(&given, &options);
        assert!((50..100).contains(&read), "{read} rows");
        assert!(window.is_truncated);
        let (text, is_whole) = window.text(options.max_chars);
        assert!(is_whole);
        // A line break is two units.
        assert!((999..=1_000).contains(&text.len()), "{}", text.len());
        assert!(text.contains("\"[... earlier text elided ...] "), "{text}");
        assert!(text.ends_with("word 9999 \\n\"}}}}}\n"), "{text}");
    }

    #[test]
    fn a_tool_call_has_its_latest_state() {
        let given = [
            tool(
                "tool_call",
                r#""toolCallId":"t","title":"Read","status":"pending","kind":"read""#,
            ),
            tool("tool_call_update", r#""toolCallId":"t","status":"in_progress","content":[1]"#),
            tool("tool_call_update", r#""toolCallId":"t","status":"completed","rawOutput":2"#),
        ];
        let merged = r#""toolCallId":"t","title":"Read","status":"completed","kind":"read","content":[1],"rawOutput":2"#;
        assert_eq!(replayed(&given), [tool("tool_call", merged)]);
    }

    #[test]
    fn updates_of_other_calls_and_after_something_else_stay_apart() {
        let call = |id: &str| tool("tool_call", &format!(r#""toolCallId":"{id}","title":"x""#));
        let update =
            |id: &str| tool("tool_call_update", &format!(r#""toolCallId":"{id}","status":"x""#));
        for given in [
            vec![call("t"), update("u")],
            vec![call("t"), chunk("a"), update("t")],
            vec![call("t"), call("t")],
            vec![
                tool("tool_call_update", r#""status":"x""#),
                tool("tool_call_update", r#""status":"y""#),
            ],
        ] {
            assert_eq!(replayed(&given), given);
        }
    }

    #[test]
    fn long_strings_lose_their_middle_but_chunks_do_not() {
        let long = "x".repeat(5_000);
        let given = [prompt(&[&long]), chunk(&long)];
        let (window, _) = read(&given, &ReplayOptions::default());
        let shown = payloads(&window);
        assert!(shown[0].contains("[... 3032 characters elided ...]"), "{}", shown[0]);
        assert_eq!(shown[1], given[1]);
        assert!(window.is_truncated);
        let all = ReplayOptions { max_chars_per_event: usize::MAX, ..ReplayOptions::default() };
        assert_eq!(payloads(&read(&given, &all).0), given);
    }

    #[test]
    fn an_earlier_replay_is_left_out_of_its_prompt() {
        let replay = format!("{PREFIX}{{}}\n");
        let given = [prompt(&[&replay, "go on"])];
        assert_eq!(replayed(&given), [prompt(&["go on"])]);
        let of_the_sdk =
            ReplayOptions { keep: Keep::Oldest, coalesce: false, ..ReplayOptions::default() };
        assert_eq!(payloads(&read(&given, &of_the_sdk).0), given);
    }

    #[test]
    fn at_most_so_many_events_result() {
        let given: Vec<String> = (0..9).map(|n| format!("{n}")).collect();
        let options = ReplayOptions { max_events: 3, ..ReplayOptions::default() };
        let (window, read) = read(&given, &options);
        assert_eq!(payloads(&window), ["6", "7", "8"]);
        assert_eq!((read, window.is_truncated), (4, true));
        let exactly = super::tests::read(&given[6..], &options).0;
        assert!(!exactly.is_truncated);
    }

    #[test]
    fn the_newest_is_a_stub_where_it_does_not_fit_or_cannot_be_parsed() {
        let many = format!(r#"{{"method":"m","params":[{}1]}}"#, "1,".repeat(9_000));
        let stub = r#"{"jsonrpc":"2.0","method":"m","params":{"elided":18027}}"#;
        assert_eq!(replayed(&[chunk("a"), many.clone()]), [chunk("a").as_str(), stub]);
        let broken = replayed(&["1".to_owned(), "{\"a\":".to_owned()]);
        assert_eq!(broken, ["1", r#"{"jsonrpc":"2.0","params":{"elided":5}}"#]);
    }

    #[test]
    fn a_stub_stands_for_an_older_event_that_is_too_large() {
        let many = format!(r#"{{"method":"m","params":[{}1]}}"#, "1,".repeat(9_000));
        let stub = r#"{"jsonrpc":"2.0","method":"m","params":{"elided":18027}}"#;
        let given = [prompt(&["a"]), many, chunk("b")];
        assert_eq!(replayed(&given), [given[0].as_str(), stub, given[2].as_str()]);
    }

    #[test]
    fn an_older_event_of_a_usual_size_that_does_not_fit_ends_the_window() {
        let given = [prompt(&["a"]), prompt(&["x".repeat(900).as_str()]), chunk("b")];
        let options = ReplayOptions { max_chars: 1_000, ..ReplayOptions::default() };
        assert_eq!(payloads(&read(&given, &options).0), given[2..]);
    }

    #[test]
    fn the_first_index_is_that_of_the_first_event_of_which_something_is_there() {
        let given: Vec<String> = (0..100).map(|_| chunk("0123456789")).collect();
        let (window, _) = read(&given, &ReplayOptions::default());
        assert_eq!(window.indexes(), Some((Number::Integer(1), Number::Integer(100))));
        let options = ReplayOptions { max_chars: 600, ..ReplayOptions::default() };
        let (window, _) = read(&given, &options);
        let text = window.events[0].payload.split("elided ...] ").nth(1).unwrap();
        let left = i64::try_from(text.find('"').unwrap().div_ceil(10)).unwrap();
        assert_eq!(window.indexes(), Some((Number::Integer(101 - left), Number::Integer(100))));
    }

    #[test]
    fn what_cannot_be_parsed_is_passed_over() {
        let given = [chunk("a"), "{".to_owned(), chunk("b")];
        let (window, _) = read(&given, &ReplayOptions::default());
        assert_eq!(payloads(&window), [chunk("a"), chunk("b")]);
        assert!(window.is_truncated);
    }

    #[test]
    fn rows_that_add_nothing_are_not_read_forever() {
        let updates = tool("tool_call_update", r#""toolCallId":"t","status":"x""#);
        for idle in [chunk(""), "{".to_owned(), updates] {
            let mut given = vec![chunk("a")];
            given.extend(std::iter::repeat_n(idle, 2 * MAX_IDLE_ROWS));
            let (window, read) = read(&given, &ReplayOptions::default());
            assert!(read <= MAX_IDLE_ROWS + 2, "{read} rows");
            assert!(window.is_truncated);
        }
    }

    #[test]
    fn the_window_goes_on_after_chunks_whose_other_fields_do_not_fit() {
        let meta = format!(r#""_meta":[{}1],"content""#, "1,".repeat(7_000));
        let large = |text: &str| chunk(text).replace("\"content\"", &meta);
        let shown = replayed(&[prompt(&["a"]), large("b"), large("c")]);
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert_eq!(shown[0], prompt(&["a"]));
    }

    #[test]
    fn merged_fields_are_in_javascripts_order() {
        let given = [
            tool("tool_call", r#""toolCallId":"t","b":1"#),
            tool("tool_call_update", r#""toolCallId":"t","5":1,"0":2,"b":3"#),
        ];
        let merged = r#"{"0":2,"5":1,"sessionUpdate":"tool_call","toolCallId":"t","b":3}"#;
        assert!(replayed(&given)[0].contains(merged), "{:?}", replayed(&given));
    }

    #[test]
    fn extra_fields_never_stand_for_known_ones() {
        let options = ReplayOptions::default();
        for (extra, kept) in [
            (r#"{"payload":1,"later":2,"eventIndex":3}"#, Some(r#"{"later":2}"#)),
            (" { } ", None),
            ("[1]", None),
            ("{", None),
        ] {
            let mut builder = WindowBuilder::new(&options);
            builder.push(&EventRow { extra: Some(extra), ..row(1, "e", "1") });
            let window = builder.finish().unwrap();
            assert_eq!(window.events[0].head.extra.as_deref(), kept);
        }
    }

    #[test]
    fn oldest_takes_long_texts_whole() {
        let given = [prompt(&["a"]), chunk(&"z".repeat(14_000)), chunk("b"), "1".to_owned()];
        let options = ReplayOptions { keep: Keep::Oldest, ..ReplayOptions::default() };
        let (window, _) = read(&given, &options);
        let joined = chunk(&format!("{}b", "z".repeat(14_000)));
        assert_eq!(payloads(&window), [prompt(&["a"]), joined, "1".to_owned()]);
    }

    #[test]
    fn oldest_keeps_the_events_and_cuts_the_text() {
        let given: Vec<String> = (0..60).map(|n| format!("\"{n}{}\"", "x".repeat(500))).collect();
        let options = ReplayOptions {
            keep: Keep::Oldest,
            coalesce: false,
            max_chars_per_event: usize::MAX,
            ..ReplayOptions::default()
        };
        let (window, _) = read(&given, &options);
        assert_eq!(payloads(&window), given[10..]);
        let (text, is_whole) = window.text(options.max_chars);
        assert!(text.ends_with("\n\n[history truncated]") && !is_whole);
    }
}
