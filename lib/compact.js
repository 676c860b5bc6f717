/** Compaction: what streamed in many events becomes few, in sessions that are at rest. */
"use strict";

const { idleForMs } = require("./durations.js");
const { invalidArgument } = require("./errors.js");
const { requireOptions } = require("./options.js");
const { candidates, HOW, readHow, step, withoutRecord } = require("./upkeep.js");

/** `idleFor`. */
const IDLE_FOR_MS = 3_600_000;

/** `compact` of index.d.ts. `handle` is the driver's, `submit` what to call in its place. */
exports.compact = async (handle, submit, options = {}) => {
  const { sessionId, idleFor, keepNewest, toolCalls } = read(options);
  const how = readHow(options);
  const idleBefore = Date.now() - idleFor;
  const pass = new Compaction(submit, how, { idleBefore, keepNewest, toolCalls });
  const done =
    sessionId === undefined ? await pass.all({ before: idleBefore }) : await pass.of([sessionId]);
  how.tellLast(pass.progress);
  return { ...pass.progress, done };
};

function read(options) {
  requireOptions(options, ["sessionId", "idleFor", "keepNewest", "toolCalls", ...HOW]);
  const { sessionId, idleFor = IDLE_FOR_MS, keepNewest = 0, toolCalls = false } = options;
  if (sessionId !== undefined && typeof sessionId !== "string") {
    throw invalidArgument("options.sessionId must be a string");
  }
  if (!(Number.isSafeInteger(keepNewest) && keepNewest >= 0)) {
    throw invalidArgument("options.keepNewest must be a whole number from 0");
  }
  if (typeof toolCalls !== "boolean") {
    throw invalidArgument("options.toolCalls must be true or false");
  }
  return { sessionId, idleFor: idleForMs("options.idleFor", idleFor), keepNewest, toolCalls };
}

/** One go through a store, or through some sessions. */
class Compaction {
  #submit;
  #how;
  #what;
  progress = { sessions: 0, eventsBefore: 0, eventsAfter: 0, bytes: 0 };

  constructor(submit, how, what) {
    this.#submit = submit;
    this.#how = how;
    this.#what = what;
  }

  /** Sessions with a record that may be at rest, and those of which there are events alone. */
  async all(which) {
    for await (const ids of candidates(this.#submit, which, this.#how.isOver)) {
      if (!(await this.of(ids))) return false;
    }
    for await (const ids of withoutRecord(this.#submit, this.#how.isOver)) {
      if (!(await this.of(ids))) return false;
    }
    return !this.#how.isOver();
  }

  /** Whether it came to its end with these. */
  async of(ids) {
    for (const id of ids) {
      if (!(await this.#session(id))) return false;
    }
    return true;
  }

  async #session(sessionId) {
    const { isDry, isOver, tell } = this.#how;
    let cursor;
    let isFirst = true;
    do {
      if (isOver()) return false;
      const asked = { ...this.#what, sessionId, cursor, isDry };
      const went = await step(this.#how, () => this.#submit.compact(asked));
      if (went === undefined) return false;
      this.#note(went, isFirst);
      tell(this.progress);
      isFirst &&= went.read === 0;
      cursor = went.cursor;
    } while (cursor !== undefined);
    return true;
  }

  #note({ read, gone, bytes }, isFirst) {
    const { progress } = this;
    this.progress = {
      sessions: progress.sessions + (isFirst && read > 0 ? 1 : 0),
      eventsBefore: progress.eventsBefore + read,
      eventsAfter: progress.eventsAfter + read - gone,
      bytes: progress.bytes + bytes,
    };
  }
}
exports.Compaction = Compaction;
