//! What waits to be written, and the reads that wait for it. Pure: it knows no lock, no thread and
//! no clock, and serves every backend.
//!
//! # Order
//!
//! Each scope that a write touches lies in a lane: that of its session, or that of an event's id.
//! Writes of a lane never overtake each other: one that must stay behind keeps those of its lanes
//! behind it too, and a lane that is held lets nothing pass. A write holds its lanes from the batch
//! that takes it until it is settled or put back, where batches are under way beside each other;
//! where they follow one another, only a write that may outlast its batch needs to. What has to
//! wait for such a write is put aside, so that any number of it holds up nobody else.
//!
//! A read is held until every write that touches its scope, and was accepted before it, is settled.
//! Writes of a scope share a lane and so are settled in order: the last of them tells.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::BuildHasher as _;
use std::mem;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::error::StoreError;

use super::operation::{Query, Scope, Write};
use super::session_store::Ticket;
use super::unsettled::Unsettled;

/// How many waiting writes are looked at for one batch: those of lanes that are held for short
/// stay.
const MAX_WRITES_LOOKED_AT: usize = 20_000;

/// How a backend takes work off its backlog.
#[derive(Debug, Clone, Copy)]
pub struct BatchRules {
    /// A batch stores at most this many rows …
    pub max_rows: usize,
    /// … and this many bytes; a larger write goes alone.
    pub max_bytes: usize,
    /// Whether batches are under way beside each other. Then what may take long goes alone.
    pub are_concurrent: bool,
}

/// A write on its way.
#[derive(Debug)]
pub struct PendingWrite {
    /// Its call.
    pub ticket: Ticket,
    /// What it does.
    pub write: Write,
    /// When it was called.
    pub called_at: Instant,
    /// About how much memory it takes.
    bytes: usize,
    /// Its place among all writes, from 1.
    number: u64,
    touched: Touched,
    /// It goes out with no more than this, itself included.
    max_together: usize,
    is_holding_lanes: bool,
}

/// What decides how long a write may wait.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    called_at: Instant,
    stores_nothing: bool,
}

impl PendingWrite {
    /// See [`Patience`].
    pub fn patience(&self) -> Patience {
        Patience { called_at: self.called_at, stores_nothing: self.write.stores_nothing() }
    }
}

/// Writes that go out together, in the order of the calls.
#[derive(Debug, Default)]
pub struct Batch {
    /// The writes.
    pub writes: Vec<PendingWrite>,
    /// How many it takes in all: in the end as many as there are writes.
    count: usize,
    rows: usize,
    bytes: usize,
    max_together: usize,
    goes_alone: bool,
}

/// A read on its way.
#[derive(Debug)]
pub struct Read {
    /// Its call.
    pub ticket: Ticket,
    /// What it wants.
    pub query: Query,
    /// When it was called.
    pub called_at: Instant,
}

/// A scope, hashed: two that collide only wait for each other needlessly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Touch {
    lane: u64,
    part: Part,
}

/// What of its lane a scope is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Record,
    Events,
    EventId,
}

/// Nearly every write touches two scopes.
type Touched = SmallVec<[Touch; 2]>;

/// What a read waits for.
#[derive(Debug, Clone, Copy)]
enum Awaited {
    /// This write: the last of its scope, and so those before it.
    Write(u64),
    /// All writes of sessions' records up to this one.
    RecordsUpTo(u64),
    /// All writes up to this one.
    AllUpTo(u64),
}

/// That a lane is held.
#[derive(Debug, Clone, Copy, Default)]
struct Holds {
    /// How often: once for each scope in it.
    count: usize,
    /// Whether by a write that may take long, and then by no other.
    are_long: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Backlog {
    rules: BatchRules,
    max_queued_bytes: usize,
    /// How long a call may take, while the database does nothing for anybody.
    timeout: Duration,
    hasher: RandomState,
    waiting: VecDeque<PendingWrite>,
    /// Writes that wait for one that may take long, and those of their lanes, in the order of the
    /// calls.
    aside: VecDeque<PendingWrite>,
    /// The lanes of what is put aside, each with the first write in it.
    aside_lanes: HashMap<u64, u64, RandomState>,
    /// Of all writes that are accepted and not settled.
    queued_bytes: usize,
    unsettled: Unsettled,
    unsettled_records: BTreeSet<u64>,
    /// The last write of each scope that has one which isn't settled.
    last_of: HashMap<Touch, u64, RandomState>,
    held_lanes: HashMap<u64, Holds, RandomState>,
    held_reads: Vec<(Awaited, Read)>,
    /// When the database last did what it was asked.
    last_success: Instant,
    /// Once the process is ending: nothing waits beyond this.
    last_deadline: Option<Instant>,
    is_closing: bool,
}

impl Backlog {
    /// An empty one. No more than `max_queued_bytes` may wait, and no call longer than `timeout`.
    pub fn new(
        rules: BatchRules,
        max_queued_bytes: usize,
        timeout: Duration,
        now: Instant,
    ) -> Self {
        Self {
            rules,
            max_queued_bytes,
            timeout,
            hasher: RandomState::default(),
            waiting: VecDeque::new(),
            aside: VecDeque::new(),
            aside_lanes: HashMap::default(),
            queued_bytes: 0,
            unsettled: Unsettled::default(),
            unsettled_records: BTreeSet::new(),
            last_of: HashMap::default(),
            held_lanes: HashMap::default(),
            held_reads: Vec::new(),
            last_success: now,
            last_deadline: None,
            is_closing: false,
        }
    }

    /// Whether calls are still accepted.
    pub fn check_open(&self) -> Result<(), StoreError> {
        if self.is_closing { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Accepts a write, unless too much waits already. The only write is never too much.
    pub fn push_write(
        &mut self,
        ticket: Ticket,
        write: Write,
        now: Instant,
    ) -> Result<(), StoreError> {
        self.check_open()?;
        let bytes = write.bytes();
        let is_only_one = self.unsettled.is_empty();
        if !is_only_one && self.queued_bytes.saturating_add(bytes) > self.max_queued_bytes {
            return Err(StoreError::Overloaded { max_queued_bytes: self.max_queued_bytes });
        }
        self.queued_bytes = self.queued_bytes.saturating_add(bytes);
        let number = self.unsettled.push();
        let mut touched = Touched::new();
        write.touches(|scope| touched.extend(touch(&self.hasher, scope)));
        if touched.iter().any(|touch| touch.part == Part::Record) {
            self.unsettled_records.insert(number);
        }
        for touch in touched.iter().filter(|touch| touch.part != Part::EventId) {
            self.last_of.insert(*touch, number);
        }
        self.waiting.push_back(PendingWrite {
            ticket,
            write,
            called_at: now,
            bytes,
            number,
            touched,
            max_together: usize::MAX,
            is_holding_lanes: false,
        });
        Ok(())
    }

    /// Accepts a read: hands it back if it may be answered now, else holds it until then.
    pub fn push_read(&mut self, read: Read) -> Result<Option<Read>, StoreError> {
        self.check_open()?;
        match self.awaited(&read.query) {
            Some(awaited) => {
                self.held_reads.push((awaited, read));
                Ok(None)
            }
            None => Ok(Some(read)),
        }
    }

    /// Whether a write that this read must see is accepted but not settled.
    pub fn must_wait(&self, query: &Query) -> Result<bool, StoreError> {
        self.check_open()?;
        Ok(self.awaited(query).is_some())
    }

    /// The next writes that may go out together, if there are any.
    pub fn take(&mut self) -> Option<Batch> {
        if self.waiting.is_empty() {
            return None;
        }
        let mut batch = Batch::default();
        self.fill(&mut batch);
        if self.rules.are_concurrent {
            for pending in &mut batch.writes {
                hold(&mut self.held_lanes, pending);
            }
        }
        (!batch.writes.is_empty()).then_some(batch)
    }

    /// Adds to a batch what arrived since it was taken.
    pub fn take_more(&mut self, batch: &mut Batch) {
        debug_assert!(!self.rules.are_concurrent, "its lanes would be held by itself");
        self.fill(batch);
    }

    /// How many writes wait for a batch, without those that are put aside.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn fill(&mut self, batch: &mut Batch) {
        if self.held_lanes.is_empty() && self.aside.is_empty() {
            self.fill_from_front(batch);
        }
        if self.waiting.front().is_some_and(|next| batch.has_room_for(next, &self.rules)) {
            self.fill_past_held_lanes(batch);
        }
    }

    /// Where no lane is held: what waits, in order, up to the first that holds its lanes at once.
    fn fill_from_front(&mut self, batch: &mut Batch) {
        let mut count = 0;
        for next in &self.waiting {
            if next.write.may_take_long() || !batch.has_room_for(next, &self.rules) {
                break;
            }
            batch.note(next, &self.rules);
            count += 1;
        }
        batch.writes.extend(self.waiting.drain(..count));
    }

    fn fill_past_held_lanes(&mut self, batch: &mut Batch) {
        let mut kept = Vec::new();
        let mut kept_lanes: HashSet<u64, RandomState> = HashSet::default();
        for _ in 0..MAX_WRITES_LOOKED_AT {
            self.put_aside_the_first();
            let Some(next) = self.waiting.front() else { break };
            let is_blocked = !(self.held_lanes.is_empty() && kept_lanes.is_empty())
                && next.touched.iter().any(|touch| {
                    self.held_lanes.contains_key(&touch.lane) || kept_lanes.contains(&touch.lane)
                });
            if !is_blocked && !batch.has_room_for(next, &self.rules) {
                break;
            }
            let Some(mut next) = self.waiting.pop_front() else { break };
            if is_blocked {
                kept_lanes.extend(next.touched.iter().map(|touch| touch.lane));
                kept.push(next);
                continue;
            }
            if next.write.may_take_long() {
                hold(&mut self.held_lanes, &mut next);
            }
            batch.note(&next, &self.rules);
            batch.writes.push(next);
        }
        for next in kept.into_iter().rev() {
            self.waiting.push_front(next);
        }
    }

    /// As many as have to wait for long. Each is put aside once, however often it is asked for.
    fn put_aside_the_first(&mut self) {
        while let Some(next) = self.waiting.pop_front() {
            if !self.must_be_put_aside(&next) {
                self.waiting.push_front(next);
                break;
            }
            self.put_aside(next);
        }
    }

    fn must_be_put_aside(&self, next: &PendingWrite) -> bool {
        next.touched.iter().any(|Touch { lane, .. }| {
            self.held_lanes.get(lane).is_some_and(|holds| holds.are_long)
                || self.aside_lanes.get(lane).is_some_and(|first| *first < next.number)
        })
    }

    fn put_aside(&mut self, write: PendingWrite) {
        for touch in &write.touched {
            let first = self.aside_lanes.entry(touch.lane).or_insert(write.number);
            *first = write.number.min(*first);
        }
        self.aside.push_back(write);
    }

    /// What was put aside waits in the order of the calls again.
    fn bring_back(&mut self) {
        self.aside_lanes.clear();
        self.waiting.extend(self.aside.drain(..));
        self.waiting.make_contiguous().sort_by_key(|pending| pending.number);
    }

    /// Lets go of the lanes of a write. What was put aside because of it is brought back.
    fn let_go(&mut self, pending: &mut PendingWrite) {
        let_go(&mut self.held_lanes, pending);
        let is_awaited = |touch: &Touch| self.aside_lanes.contains_key(&touch.lane);
        if pending.write.may_take_long() && pending.touched.iter().any(is_awaited) {
            self.bring_back();
        }
    }

    /// These go out again, before all others and with no more than so many together: one of them
    /// kept the rest from being stored.
    pub fn put_back(&mut self, writes: Vec<PendingWrite>, max_together: usize) {
        for mut pending in writes.into_iter().rev() {
            self.let_go(&mut pending);
            self.waiting.push_front(PendingWrite { max_together, ..pending });
        }
    }

    /// These are done with, one way or another. Returns the reads that waited for them.
    pub fn settle<'writes>(
        &mut self,
        writes: impl IntoIterator<Item = &'writes mut PendingWrite>,
    ) -> Vec<Read> {
        for pending in writes {
            self.let_go(pending);
            self.unsettled.settle(pending.number);
            self.queued_bytes = self.queued_bytes.saturating_sub(pending.bytes);
            for touch in pending.touched.iter().filter(|touch| touch.part != Part::EventId) {
                if touch.part == Part::Record {
                    self.unsettled_records.remove(&pending.number);
                }
                if self.last_of.get(touch) == Some(&pending.number) {
                    self.last_of.remove(touch);
                }
            }
        }
        self.release_reads()
    }

    fn release_reads(&mut self) -> Vec<Read> {
        if self.held_reads.is_empty() {
            return Vec::new();
        }
        let mut ready = Vec::new();
        for (awaited, read) in mem::take(&mut self.held_reads) {
            if self.is_settled(awaited) {
                ready.push(read);
            } else {
                self.held_reads.push((awaited, read));
            }
        }
        ready
    }

    fn awaited(&self, query: &Query) -> Option<Awaited> {
        let awaited = match query.scope() {
            Scope::AllSessions => Awaited::RecordsUpTo(self.unsettled.last()),
            Scope::All => Awaited::AllUpTo(self.unsettled.last()),
            scope => {
                let touch = touch(&self.hasher, scope)?;
                Awaited::Write(*self.last_of.get(&touch)?)
            }
        };
        (!self.is_settled(awaited)).then_some(awaited)
    }

    fn is_settled(&self, awaited: Awaited) -> bool {
        match awaited {
            Awaited::Write(number) => !self.unsettled.contains(number),
            Awaited::RecordsUpTo(number) => {
                self.unsettled_records.first().is_none_or(|unsettled| *unsettled > number)
            }
            Awaited::AllUpTo(number) => !self.unsettled.has_any_up_to(number),
        }
    }

    /// The database did what it was asked.
    pub fn note_success(&mut self, now: Instant) {
        self.last_success = now;
    }

    /// How long trouble is ridden out.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Until when a call that was accepted then may take. While the database works, to have waited
    /// for one's turn is no outage.
    pub fn deadline(&self, called_at: Instant) -> Instant {
        let deadline = called_at.max(self.last_success) + self.timeout;
        self.last_deadline.map_or(deadline, |last| last.min(deadline))
    }

    /// Until when a write may take. One that stores nothing holds up no end.
    pub fn deadline_of(&self, Patience { called_at, stores_nothing }: Patience) -> Instant {
        if self.is_ending() && stores_nothing { called_at } else { self.deadline(called_at) }
    }

    /// How many of these writes, from the first on, have waited too long.
    pub fn count_expired(&self, writes: &[PendingWrite], now: Instant) -> usize {
        writes.iter().take_while(|pending| self.deadline_of(pending.patience()) <= now).count()
    }

    /// Takes the oldest writes, if they have waited too long for their turn.
    pub fn take_expired(&mut self, now: Instant) -> Vec<PendingWrite> {
        if self.aside.front().is_some_and(|first| self.deadline_of(first.patience()) <= now) {
            self.bring_back();
        }
        let is_expired = |pending: &&PendingWrite| self.deadline_of(pending.patience()) <= now;
        let count = self.waiting.iter().take_while(is_expired).count();
        self.waiting.drain(..count).collect()
    }

    /// When the oldest waiting write will have waited too long.
    pub fn next_expiry(&self) -> Option<Instant> {
        let oldest = [self.waiting.front(), self.aside.front()].into_iter().flatten();
        oldest.map(|pending| self.deadline_of(pending.patience())).min()
    }

    /// The process is ending: nothing waits beyond the deadline, however long it may otherwise.
    /// Returns the number of the last write that was accepted.
    pub fn begin_flush(&mut self, deadline: Instant) -> u64 {
        self.last_deadline = Some(self.last_deadline.map_or(deadline, |last| last.min(deadline)));
        self.unsettled.last()
    }

    /// Until when anything may be waited for, once the process is ending.
    pub fn last_deadline(&self) -> Option<Instant> {
        self.last_deadline
    }

    /// Whether every write up to this one is settled.
    pub fn is_settled_up_to(&self, number: u64) -> bool {
        self.is_settled(Awaited::AllUpTo(number))
    }

    /// Whether every write is settled.
    pub fn is_settled_whole(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Accepts nothing from here on, and hands back the reads that are held and the waiting writes
    /// that store nothing.
    pub fn close(&mut self) -> Vec<Ticket> {
        self.is_closing = true;
        let held = mem::take(&mut self.held_reads).into_iter().map(|(_, read)| read.ticket);
        let mut tickets: Vec<Ticket> = held.collect();
        let waiting: Vec<PendingWrite> = mem::take(&mut self.waiting).into();
        let (mut in_vain, waiting): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|pending| pending.write.stores_nothing());
        self.waiting = waiting.into();
        tickets.extend(in_vain.iter().map(|pending| pending.ticket));
        self.settle(&mut in_vain);
        tickets
    }

    /// Whether nothing is accepted any more.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether what takes long should come to its end: somebody waits for all to be done.
    pub fn is_ending(&self) -> bool {
        self.is_closing || self.last_deadline.is_some()
    }

    /// How many writes aren't settled, and how many bytes they are.
    pub fn queued(&self) -> (usize, usize) {
        (self.unsettled.len(), self.queued_bytes)
    }
}

impl Batch {
    fn has_room_for(&self, next: &PendingWrite, rules: &BatchRules) -> bool {
        if self.count == 0 {
            return true;
        }
        !(self.goes_alone || next.write.goes_alone(rules.are_concurrent))
            && self.count < self.max_together.min(next.max_together)
            && self.rows.saturating_add(next.write.rows()) <= rules.max_rows
            && self.bytes.saturating_add(next.bytes) <= rules.max_bytes
    }

    /// Takes a write into account that is about to be among the others.
    fn note(&mut self, next: &PendingWrite, rules: &BatchRules) {
        self.goes_alone = next.write.goes_alone(rules.are_concurrent);
        self.max_together = if self.count == 0 {
            next.max_together
        } else {
            self.max_together.min(next.max_together)
        };
        self.count += 1;
        self.rows = self.rows.saturating_add(next.write.rows());
        self.bytes = self.bytes.saturating_add(next.bytes);
    }
}

/// `None` for a scope that has no lane, as it is many.
fn touch(hasher: &RandomState, scope: Scope<'_>) -> Option<Touch> {
    let (kind, id, part) = match scope {
        Scope::Session(id) => ("session", id, Part::Record),
        Scope::Events(id) => ("session", id, Part::Events),
        Scope::Event(id) => ("event", id, Part::EventId),
        Scope::AllSessions | Scope::All => return None,
    };
    Some(Touch { lane: hasher.hash_one((kind, id)), part })
}

fn hold(held_lanes: &mut HashMap<u64, Holds, RandomState>, pending: &mut PendingWrite) {
    if !mem::replace(&mut pending.is_holding_lanes, true) {
        for touch in &pending.touched {
            let holds = held_lanes.entry(touch.lane).or_default();
            holds.count += 1;
            holds.are_long |= pending.write.may_take_long();
        }
    }
}

fn let_go(held_lanes: &mut HashMap<u64, Holds, RandomState>, pending: &mut PendingWrite) {
    if mem::take(&mut pending.is_holding_lanes) {
        for touch in &pending.touched {
            if let Some(holds) = held_lanes.get_mut(&touch.lane) {
                holds.count -= 1;
                if holds.count == 0 {
                    held_lanes.remove(&touch.lane);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
