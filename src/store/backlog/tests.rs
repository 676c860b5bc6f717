use super::*;
use crate::filter::{EventsFilter, Order, SessionsFilter};
use crate::model::{PageRequest, SessionEvent, SessionRecord};
use crate::store::{EventsQuery, Probe, SessionsQuery};

const LONG: Duration = Duration::from_secs(3_600);
const IN_TURN: BatchRules =
    BatchRules { max_rows: 1_000, max_bytes: 8_000_000, are_concurrent: false };
const BESIDE_EACH_OTHER: BatchRules = BatchRules { are_concurrent: true, ..IN_TURN };

fn backlog(rules: BatchRules) -> Backlog {
    Backlog::new(rules, 100_000_000, LONG, Instant::now())
}

fn event_of(session: &str, id: &str) -> SessionEvent {
    SessionEvent { id: id.to_owned(), session_id: session.to_owned(), ..SessionEvent::default() }
}

fn event(session: &str, id: &str) -> Write {
    Write::Event(event_of(session, id))
}

fn large(payload_bytes: usize) -> Write {
    Write::Event(SessionEvent { payload: "x".repeat(payload_bytes), ..event_of("s", "") })
}

fn session(id: &str) -> Write {
    Write::Session(SessionRecord { id: id.to_owned(), ..SessionRecord::default() })
}

fn deletion(id: &str) -> Write {
    Write::DeleteSession { id: id.to_owned() }
}

fn page() -> PageRequest {
    PageRequest { limit: 1, cursor: None, max_bytes: None }
}

fn events_of(session: &str) -> Query {
    Query::Events(EventsQuery {
        session_id: session.to_owned(),
        filter: EventsFilter::default(),
        order: Order::default(),
        page: page(),
    })
}

fn sessions() -> Query {
    let (filter, order) = (SessionsFilter::default(), Order::default());
    Query::Sessions(SessionsQuery { filter, order, page: page() })
}

fn push(backlog: &mut Backlog, ticket: usize, write: Write) {
    backlog.push_write(Ticket(ticket), write, Instant::now()).unwrap();
}

fn read(backlog: &mut Backlog, query: Query) -> Option<Read> {
    backlog.push_read(Read { ticket: Ticket(100), query, called_at: Instant::now() }).unwrap()
}

fn tickets(writes: &[PendingWrite]) -> Vec<usize> {
    writes.iter().map(|pending| pending.ticket.0).collect()
}

fn take(backlog: &mut Backlog) -> Vec<PendingWrite> {
    backlog.take().map(|batch| batch.writes).unwrap_or_default()
}

fn settle(backlog: &mut Backlog, mut writes: Vec<PendingWrite>) -> usize {
    backlog.settle(&mut writes).len()
}

#[test]
fn all_that_waits_is_one_batch_in_order() {
    for rules in [IN_TURN, BESIDE_EACH_OTHER] {
        let mut backlog = backlog(rules);
        for ticket in 0..5 {
            push(&mut backlog, ticket, event("s", "a"));
        }
        assert_eq!(tickets(&take(&mut backlog)), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn a_batch_is_bounded_in_rows_and_in_bytes() {
    let mut backlog = backlog(IN_TURN);
    for ticket in 0..=IN_TURN.max_rows {
        push(&mut backlog, ticket, event("s", "a"));
    }
    assert_eq!(take(&mut backlog).len(), IN_TURN.max_rows);
    assert_eq!(take(&mut backlog).len(), 1);
    for ticket in 0..3 {
        push(&mut backlog, ticket, large(IN_TURN.max_bytes));
        push(&mut backlog, ticket, large(1));
    }
    for _ in 0..6 {
        assert_eq!(take(&mut backlog).len(), 1, "a large write goes alone");
    }
}

#[test]
fn many_events_in_one_call_count_as_many() {
    let mut backlog = backlog(IN_TURN);
    let many = vec![event_of("s", "a"); IN_TURN.max_rows];
    push(&mut backlog, 0, Write::Events(many));
    push(&mut backlog, 1, event("s", "b"));
    assert_eq!(tickets(&take(&mut backlog)), [0]);
    assert_eq!(tickets(&take(&mut backlog)), [1]);
}

#[test]
fn what_arrives_meanwhile_joins_the_batch_within_its_bounds() {
    let mut backlog = backlog(IN_TURN);
    push(&mut backlog, 0, event("s", "a"));
    let mut batch = backlog.take().unwrap();
    push(&mut backlog, 1, event("s", "b"));
    push(&mut backlog, 2, large(IN_TURN.max_bytes));
    backlog.take_more(&mut batch);
    backlog.take_more(&mut batch);
    assert_eq!(tickets(&batch.writes), [0, 1]);
}

#[test]
fn what_is_put_back_goes_out_first_and_in_smaller_batches() {
    let mut backlog = backlog(BESIDE_EACH_OTHER);
    for ticket in 0..2 {
        push(&mut backlog, ticket, event(&ticket.to_string(), "a"));
    }
    let writes = take(&mut backlog);
    push(&mut backlog, 2, event("2", "b"));
    backlog.put_back(writes, 1);
    let first = take(&mut backlog);
    assert_eq!(tickets(&first), [0]);
    assert_eq!(tickets(&take(&mut backlog)), [2], "1 is of the same id as 0");
    settle(&mut backlog, first);
    assert_eq!(tickets(&take(&mut backlog)), [1]);
}

#[test]
fn a_session_and_an_id_are_in_one_batch_at_a_time() {
    let mut backlog = backlog(BESIDE_EACH_OTHER);
    push(&mut backlog, 0, event("s", "a"));
    let first = take(&mut backlog);
    push(&mut backlog, 1, event("s", "b"));
    push(&mut backlog, 2, event("t", "a"));
    push(&mut backlog, 3, event("t", "c"));
    push(&mut backlog, 4, session("s"));
    push(&mut backlog, 5, event("u", "d"));
    assert_eq!(tickets(&take(&mut backlog)), [5], "3 would overtake 2, which waits for 0");
    settle(&mut backlog, first);
    assert_eq!(tickets(&take(&mut backlog)), [1, 2, 3, 4]);
}

#[test]
fn a_deletion_lets_nothing_of_its_session_pass_until_it_is_settled() {
    let mut backlog = backlog(IN_TURN);
    push(&mut backlog, 0, event("s", "a"));
    push(&mut backlog, 1, deletion("s"));
    push(&mut backlog, 2, event("s", "b"));
    push(&mut backlog, 3, session("s"));
    push(&mut backlog, 4, event("t", "c"));
    let mut batch = backlog.take().unwrap();
    assert_eq!(tickets(&batch.writes), [0, 1, 4]);
    push(&mut backlog, 5, event("s", "d"));
    push(&mut backlog, 6, event("u", "e"));
    backlog.take_more(&mut batch);
    assert_eq!(tickets(&batch.writes), [0, 1, 4, 6]);
    let rest = batch.writes.split_off(2);
    let begun = batch.writes.pop().unwrap();
    settle(&mut backlog, batch.writes);
    settle(&mut backlog, rest);
    assert!(take(&mut backlog).is_empty());
    settle(&mut backlog, vec![begun]);
    assert_eq!(tickets(&take(&mut backlog)), [2, 3, 5]);
}

#[test]
fn any_number_of_writes_behind_a_deletion_holds_up_nobody_else() {
    for rules in [IN_TURN, BESIDE_EACH_OTHER] {
        let mut backlog = backlog(rules);
        push(&mut backlog, 0, deletion("s"));
        let deleting = take(&mut backlog);
        for ticket in 1..=MAX_WRITES_LOOKED_AT {
            push(&mut backlog, ticket, event("s", &ticket.to_string()));
        }
        push(&mut backlog, 30_000, Write::Events(vec![event_of("s", "a"), event_of("t", "b")]));
        push(&mut backlog, 30_001, event("t", "c"));
        push(&mut backlog, 30_002, event("u", "d"));
        let others = take(&mut backlog);
        assert_eq!(tickets(&others), [30_002], "t waits for what waits for s");
        settle(&mut backlog, others);
        assert!(take(&mut backlog).is_empty());
        settle(&mut backlog, deleting);
        assert_eq!(tickets(&take(&mut backlog))[0], 1);
    }
}

#[test]
fn what_waits_for_a_deletion_is_handed_back_when_its_time_is_up() {
    let now = Instant::now();
    let mut backlog = backlog(BESIDE_EACH_OTHER);
    push(&mut backlog, 0, deletion("s"));
    let _deleting = take(&mut backlog);
    push(&mut backlog, 1, event("s", "a"));
    assert!(take(&mut backlog).is_empty());
    assert!(backlog.next_expiry().unwrap() >= now + LONG);
    assert!(backlog.take_expired(now).is_empty());
    assert_eq!(tickets(&backlog.take_expired(Instant::now() + LONG)), [1]);
}

#[test]
fn a_deletion_goes_alone_beside_other_batches() {
    let mut backlog = backlog(BESIDE_EACH_OTHER);
    push(&mut backlog, 0, event("s", "a"));
    push(&mut backlog, 1, deletion("t"));
    push(&mut backlog, 2, event("u", "b"));
    assert_eq!(tickets(&take(&mut backlog)), [0]);
    assert_eq!(tickets(&take(&mut backlog)), [1]);
    assert_eq!(tickets(&take(&mut backlog)), [2]);
}

#[test]
fn a_read_waits_for_the_writes_of_its_session_only() {
    let mut backlog = backlog(IN_TURN);
    push(&mut backlog, 0, event("a", "1"));
    assert!(read(&mut backlog, events_of("b")).is_some());
    assert!(read(&mut backlog, events_of("a")).is_none());
    let written = take(&mut backlog);
    push(&mut backlog, 1, event("a", "2"));
    assert_eq!(settle(&mut backlog, written), 1, "later writes don't hold it back");
}

#[test]
fn reads_of_a_session_wait_for_its_deletion() {
    let mut backlog = backlog(IN_TURN);
    push(&mut backlog, 0, deletion("s"));
    assert!(read(&mut backlog, events_of("s")).is_none());
    assert!(read(&mut backlog, sessions()).is_none());
    assert!(backlog.must_wait(&Query::Session { id: "s".to_owned() }).unwrap());
    let deleted = take(&mut backlog);
    assert_eq!(settle(&mut backlog, deleted), 2);
}

#[test]
fn lists_of_sessions_wait_for_sessions_not_for_events() {
    let mut backlog = backlog(IN_TURN);
    push(&mut backlog, 0, event("a", "1"));
    assert!(read(&mut backlog, sessions()).is_some());
    push(&mut backlog, 1, session("a"));
    let of = |id: &str| Query::Session { id: id.to_owned() };
    assert!(backlog.must_wait(&of("a")).unwrap());
    assert!(!backlog.must_wait(&of("b")).unwrap());
    assert!(read(&mut backlog, sessions()).is_none());
    let written = take(&mut backlog);
    assert_eq!(settle(&mut backlog, written), 1);
    assert!(!backlog.must_wait(&of("a")).unwrap());
}

#[test]
fn a_list_of_sessions_waits_for_all_updates_before_it_and_none_after() {
    let mut backlog = backlog(BESIDE_EACH_OTHER);
    push(&mut backlog, 0, session("s"));
    let first = take(&mut backlog);
    assert!(read(&mut backlog, sessions()).is_none());
    push(&mut backlog, 1, session("t"));
    let _second = take(&mut backlog);
    assert_eq!(settle(&mut backlog, first), 1);
}

#[test]
fn what_asks_for_all_waits_for_all() {
    let mut backlog = backlog(BESIDE_EACH_OTHER);
    push(&mut backlog, 0, event("s", "a"));
    let first = take(&mut backlog);
    push(&mut backlog, 1, session("t"));
    let second = take(&mut backlog);
    assert!(read(&mut backlog, Query::Stats { largest: 0 }).is_none());
    assert_eq!(settle(&mut backlog, second), 0);
    assert_eq!(settle(&mut backlog, first), 1);
}

#[test]
fn what_waits_for_too_long_is_handed_back() {
    let mut backlog = Backlog::new(IN_TURN, 100_000, Duration::ZERO, Instant::now());
    push(&mut backlog, 7, event("s", "a"));
    assert!(read(&mut backlog, events_of("s")).is_none());
    let expired = backlog.take_expired(Instant::now());
    assert_eq!(tickets(&expired), [7]);
    assert_eq!(settle(&mut backlog, expired), 1, "it holds up no read");
}

#[test]
fn to_have_waited_while_the_database_works_is_no_outage() {
    let begun = Instant::now();
    let mut backlog = Backlog::new(IN_TURN, 100_000, LONG, begun);
    assert_eq!(backlog.deadline(begun), begun + LONG);
    backlog.note_success(begun + LONG);
    assert_eq!(backlog.deadline(begun), begun + LONG + LONG);
    backlog.begin_flush(begun + LONG);
    backlog.begin_flush(begun + LONG + LONG);
    assert_eq!(backlog.deadline(begun), begun + LONG, "the first to end the process counts");
}

#[test]
fn the_ceiling_spares_the_only_write_and_falls_when_writes_settle() {
    let mut backlog = Backlog::new(IN_TURN, 1, LONG, Instant::now());
    push(&mut backlog, 0, event("s", "a"));
    let second = backlog.push_write(Ticket(1), event("s", "b"), Instant::now());
    assert_eq!(second, Err(StoreError::Overloaded { max_queued_bytes: 1 }));
    let written = take(&mut backlog);
    let taken = backlog.push_write(Ticket(1), event("s", "b"), Instant::now());
    assert!(taken.is_err(), "taken is not settled");
    settle(&mut backlog, written);
    push(&mut backlog, 2, event("s", "b"));
}

#[test]
fn closing_hands_back_what_is_only_to_be_shown() {
    let mut backlog = backlog(IN_TURN);
    push(&mut backlog, 0, event("s", "a"));
    push(&mut backlog, 1, Write::Probe(Box::new(Probe::new())));
    assert_eq!(backlog.close(), [Ticket(1)]);
    let written = take(&mut backlog);
    assert_eq!(written.len(), 1);
    settle(&mut backlog, written);
    assert!(backlog.is_settled_whole());
}

#[test]
fn closing_hands_back_held_reads_and_keeps_writes() {
    let mut backlog = backlog(IN_TURN);
    push(&mut backlog, 0, event("a", "1"));
    assert!(read(&mut backlog, events_of("a")).is_none());
    assert_eq!(backlog.close(), [Ticket(100)]);
    let refused = backlog.push_write(Ticket(1), event("a", "2"), Instant::now());
    assert_eq!(refused, Err(StoreError::Closed));
    assert_eq!(take(&mut backlog).len(), 1);
}

#[test]
fn nothing_is_left_of_what_is_settled() {
    for rules in [IN_TURN, BESIDE_EACH_OTHER] {
        let mut backlog = backlog(rules);
        for ticket in 0..300 {
            let id = ticket.to_string();
            let writes = [event(&id, &id), session(&id), deletion(&id)];
            push(&mut backlog, ticket, writes[ticket % 3].clone());
        }
        while let Some(batch) = backlog.take() {
            settle(&mut backlog, batch.writes);
        }
        assert!(backlog.last_of.is_empty() && backlog.held_lanes.is_empty());
        assert!(backlog.is_settled_whole() && backlog.unsettled_records.is_empty());
        assert_eq!(backlog.queued(), (0, 0));
    }
}

/// A step of the model: what is called, and how far what was taken has come.
#[derive(Debug, Clone, Copy)]
enum Step {
    Push,
    Take,
    TakeMore,
    Settle(usize),
    PutBack(usize),
    Read(usize),
}

fn any_step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![
        4 => Just(Step::Push),
        2 => Just(Step::Take),
        1 => Just(Step::TakeMore),
        2 => any::<usize>().prop_map(Step::Settle),
        1 => any::<usize>().prop_map(Step::PutBack),
        2 => (0_usize..4).prop_map(Step::Read),
    ]
}

fn any_write() -> impl proptest::strategy::Strategy<Value = Write> {
    use proptest::prelude::*;
    let name = || (0_usize..4).prop_map(|name| name.to_string());
    prop_oneof![
        4 => (name(), name()).prop_map(|(session, id)| event(&session, &id)),
        1 => proptest::collection::vec((name(), name()), 0..4).prop_map(|events| {
            Write::Events(events.iter().map(|(session, id)| event_of(session, id)).collect())
        }),
        2 => name().prop_map(|id| session(&id)),
        1 => name().prop_map(|id| deletion(&id)),
    ]
}

/// The names of the lanes of a write, as the documentation has them.
fn lanes(write: &Write) -> Vec<String> {
    let mut lanes = Vec::new();
    write.touches(|scope| {
        lanes.push(match scope {
            Scope::Session(id) | Scope::Events(id) => format!("session {id}"),
            Scope::Event(id) => format!("event {id}"),
            Scope::AllSessions | Scope::All => unreachable!("no write's"),
        });
    });
    lanes
}

proptest::proptest! {
    /// Runs steps in any order; whatever they are, no lane is overtaken, each write is settled
    /// once, and each read comes back once all that it must see is settled, and no sooner.
    #[test]
    fn nothing_is_overtaken_or_forgotten(
        are_concurrent: bool,
        writes in proptest::collection::vec(any_write(), 1..40),
        steps in proptest::collection::vec(any_step(), 0..120),
    ) {
        let mut backlog = backlog(BatchRules { are_concurrent, max_rows: 7, ..IN_TURN });
        let mut waiting = writes.iter().enumerate();
        let mut called: Vec<usize> = Vec::new();
        let mut under_way: Vec<Batch> = Vec::new();
        let mut settled: Vec<usize> = Vec::new();
        let mut reads: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut next_read = 1_000;
        let drain = [Step::Push, Step::Take, Step::Settle(0)];
        let end = std::iter::repeat_n(drain, writes.len() * 3).flatten();
        for step in steps.into_iter().chain(end) {
            let mut done = Vec::new();
            match step {
                Step::Push => if let Some((ticket, write)) = waiting.next() {
                    push(&mut backlog, ticket, write.clone());
                    called.push(ticket);
                },
                // Where batches follow one another, none is taken before the last is done with.
                Step::Take => if are_concurrent || under_way.is_empty() {
                    under_way.extend(backlog.take());
                },
                Step::TakeMore => if !are_concurrent && let Some(batch) = under_way.last_mut() {
                    backlog.take_more(batch);
                },
                Step::Settle(which) => if !under_way.is_empty() {
                    done = under_way.remove(which % under_way.len()).writes;
                },
                Step::PutBack(which) => if are_concurrent && !under_way.is_empty() {
                    let batch = under_way.remove(which % under_way.len());
                    let half = (batch.writes.len() / 2).max(1);
                    backlog.put_back(batch.writes, half);
                },
                Step::Read(name) => {
                    let query = events_of(&name.to_string());
                    let must_see = |write: &Write| {
                        let mut touches = false;
                        write.touches(|scope| touches |= scope == query.scope());
                        touches
                    };
                    let awaited: Vec<usize> = called
                        .iter()
                        .copied()
                        .filter(|at| must_see(&writes[*at]) && !settled.contains(at))
                        .collect();
                    let ticket = Ticket(next_read);
                    next_read += 1;
                    let now = Instant::now();
                    let ready = backlog.push_read(Read { ticket, query, called_at: now }).unwrap();
                    proptest::prop_assert_eq!(ready.is_some(), awaited.is_empty());
                    if ready.is_none() {
                        reads.insert(ticket.0, awaited);
                    }
                }
            }
            settled.extend(tickets(&done));
            for read in backlog.settle(&mut done) {
                let awaited = reads.remove(&read.ticket.0).unwrap();
                proptest::prop_assert!(awaited.iter().all(|at| settled.contains(at)));
            }
        }
        proptest::prop_assert_eq!(settled.len(), writes.len());
        proptest::prop_assert!(reads.is_empty());
        let mut last_of_lane: HashMap<String, usize> = HashMap::new();
        for ticket in settled {
            for lane in lanes(&writes[ticket]) {
                let last = last_of_lane.insert(lane, ticket);
                proptest::prop_assert!(last.is_none_or(|last| last <= ticket));
            }
        }
    }
}
