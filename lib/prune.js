/** Pruning: what is too old or too much goes. */
"use strict";

const { invalidArgument } = require("./errors.js");
const { LIMITS, readLimits } = require("./limits.js");
const { requireOptions } = require("./options.js");
const { candidates, HOW, readHow, step, withoutRecord } = require("./upkeep.js");

/** No session with an event that is younger is removed. */
const HOUR_MS = 3_600_000;
/** Of a session that is in use, so many events stay though there are too many bytes. */
const EVENTS_IN_USE = 1_000;
/** What a row takes beside its texts, about: as the addon counts it. */
const ROW_BYTES = 48;
/** A step is for at most so many sessions, the first for so many: each of them is looked at anew. */
const MAX_SESSIONS_A_STEP = 100;
const FIRST_SESSIONS_A_STEP = 8;

/** `prune` of index.d.ts. `handle` is the driver's, `submit` what to call in its place. */
exports.prune = async (handle, submit, options) => {
  requireOptions(options, [...LIMITS, ...HOW]);
  const limits = readLimits(options);
  if (Object.keys(limits).length === 0) {
    throw invalidArgument(`options must have at least one of ${LIMITS.join(", ")}`);
  }
  const how = readHow(options);
  const pass = new Pass(handle, submit, how);
  const done = await pass.run(limits);
  how.tellLast(pass.progress);
  return { ...pass.progress, done };
};

/** One go through a store. */
class Pass {
  #handle;
  #submit;
  #how;
  /** Sessions that a dry run takes for gone, and how many of them have a record. */
  #gone = new Set();
  #goneRecords = 0;
  #sessionsAStep = FIRST_SESSIONS_A_STEP;
  progress = { sessions: 0, events: 0, bytes: 0 };

  /** @param how As `readHow` or `inBackground` gives it. */
  constructor(handle, submit, how) {
    this.#handle = handle;
    this.#submit = submit;
    this.#how = how;
  }

  /** Brings a store within its limits. Whether it came to its end. */
  async run({ maxAge, destroyedFor, maxSessions, maxEventsPerSession, maxBytes }) {
    const now = Date.now();
    const oldest = now - HOUR_MS;
    const removals = [
      maxAge !== undefined && (() => this.#removeOld(Math.min(oldest, now - maxAge))),
      destroyedFor !== undefined &&
        (() => this.#remove({ before: oldest, destroyedBefore: now - destroyedFor })),
      maxSessions !== undefined && (() => this.#removeExcess(oldest, maxSessions)),
      maxEventsPerSession !== undefined && (() => this.#trimAll(maxEventsPerSession)),
      maxBytes !== undefined && (() => this.#lose(oldest, maxBytes)),
    ];
    for (const remove of removals) {
      if (this.#how.isOver() || (remove && !(await remove()))) return false;
    }
    return true;
  }

  /** Leaves no more than the newest so many events of these sessions. Whether it came to its end. */
  trim(ids, keep) {
    return this.#work(ids, { keep });
  }

  /** Sessions with a record, and those of which there are events alone. */
  async #removeOld(before) {
    if (!(await this.#remove({ before }))) return false;
    return this.#removeWithoutRecord({ before });
  }

  async #remove(what) {
    for await (const ids of this.#candidates(what)) {
      if (!(await this.#removeRecords(this.#there(ids), what))) return false;
    }
    return !this.#how.isOver();
  }

  async #removeRecords(ids, what) {
    const before = this.#gone.size;
    const isAtEnd = await this.#work(ids, what);
    this.#goneRecords += this.#gone.size - before;
    return isAtEnd;
  }

  async #removeWithoutRecord(what) {
    for await (const ids of withoutRecord(this.#submit, this.#how.isOver)) {
      if (!(await this.#work(this.#there(ids), what))) return false;
    }
    return !this.#how.isOver();
  }

  /** The oldest by (createdAt, id), until there are no more than may be. */
  async #removeExcess(before, maxSessions) {
    const count = await this.#submit.countSessions();
    let excess = count - this.#goneRecords - maxSessions;
    if (excess <= 0) return true;
    for await (const ids of this.#candidates({ before })) {
      const going = this.#removable(ids).slice(0, excess);
      const removed = this.progress.sessions;
      const moreThan = maxSessions + this.#goneRecords;
      if (!(await this.#removeRecords(going, { before, moreThan }))) return false;
      excess -= this.progress.sessions - removed;
      if (excess <= 0) return true;
    }
    return !this.#how.isOver();
  }

  async #trimAll(keep) {
    for await (const ids of this.#candidates({ maxEvents: keep })) {
      if (!(await this.trim(this.#there(ids), keep))) return false;
    }
    return !this.#how.isOver();
  }

  /**
   * The oldest sessions lose their events, all but the last, then they go, and then those that are in
   * use lose what is older than their newest events; until the rows take no more than so many bytes.
   */
  async #lose(before, maxBytes) {
    const live = await this.#submit.liveBytes();
    // Of a dry run nothing is gone yet.
    const had = this.#how.isDry ? { bytes: 0, events: 0 } : { ...this.progress };
    const isEnough = async () => {
      // SQLite knows at once; elsewhere rows are counted later.
      if (!this.#how.isDry && this.#handle.system === "sqlite") {
        return (await this.#submit.liveBytes()) <= maxBytes;
      }
      const { bytes, events } = this.progress;
      return live - (bytes - had.bytes) - ROW_BYTES * (events - had.events) <= maxBytes;
    };
    if (await isEnough()) return true;
    const isDry = this.#how.isDry;
    const phases = [
      [{ before }, { keep: 1, before }],
      // What a dry run has counted of them isn't counted again.
      ...(isDry ? [] : [[{ before }, { before }]]),
      [{ maxEvents: EVENTS_IN_USE }, { keep: EVENTS_IN_USE }],
    ];
    for (const [which, what] of phases) {
      for await (const ids of this.#candidates(which)) {
        if (!(await this.#work(this.#there(ids), what, isEnough))) return false;
        if (await isEnough()) return true;
      }
    }
    return !this.#how.isOver();
  }

  #there(ids) {
    return ids.filter((id) => !this.#gone.has(id));
  }

  /** Not those that this driver uses: one may be about to get its next event. */
  #removable(ids) {
    return this.#there(ids).filter((id) => !this.#handle.wasUsedLately(id));
  }

  #candidates({ moreThan, ...of }) {
    return candidates(this.#submit, of, this.#how.isOver);
  }

  /** Whether it came to its end, or to where it is enough. */
  async #work(ids, what, isEnough) {
    const { isDry, isOver, tell } = this.#how;
    let left = ids;
    for (;;) {
      // What is used meanwhile stays.
      if (what.before !== undefined) left = this.#removable(left);
      if (left.length === 0) return true;
      if (isOver()) return false;
      // No more than is needed, and of a dry step never the half of a session.
      const sessions = left.slice(0, isEnough ? 1 : this.#sessionsAStep);
      const went = await step(this.#how, () => this.#submit.prune({ ...what, sessions, isDry }));
      if (went === undefined) return false;
      this.#note(went);
      tell(this.progress);
      this.#sessionsAStep =
        went.handled === sessions.length
          ? Math.min(MAX_SESSIONS_A_STEP, 2 * this.#sessionsAStep)
          : Math.ceil(this.#sessionsAStep / 2);
      // What somebody's trigger keeps would be tried for ever.
      const isStuck = went.handled + went.events + went.sessions === 0;
      const handled = isStuck ? 1 : went.handled;
      if (isDry && what.before !== undefined) {
        left.slice(0, handled).forEach((id) => this.#gone.add(id));
      }
      left = left.slice(handled);
      if (await isEnough?.()) return true;
    }
  }

  #note({ sessions, events, bytes }) {
    this.progress = {
      sessions: this.progress.sessions + sessions,
      events: this.progress.events + events,
      bytes: this.progress.bytes + bytes,
    };
  }
}
exports.Pass = Pass;
