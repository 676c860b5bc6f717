/**
 * What others may hear of calls, on tracing channels of `node:diagnostics_channel`: docs/telemetry.md.
 * Where nobody listens, a call costs one look at its channels, and where the runtime has no tracing
 * channels, nobody listens. No result and no argument is published, so Node's own `traceSync` and
 * `tracePromise`, which publish results, won't do.
 */
"use strict";

const { invalidArgument } = require("./errors.js");

const PREFIX = "sandbox-agent-persist:";
const NOBODY = { hasSubscribers: false };
/** For runtimes without tracing channels. */
const SILENCE = { start: NOBODY, end: NOBODY, asyncStart: NOBODY, asyncEnd: NOBODY, error: NOBODY };
/** The addon's methods that are told of. */
const METHODS = [
  "getSession",
  "listSessions",
  "updateSession",
  "listEvents",
  "insertEvent",
  "insertEvents",
  "deleteSession",
  "lastEvent",
  "countSessions",
  "countEvents",
  "readSessions",
  "readEvents",
  "sessionsWithoutRecord",
  "stats",
  "backup",
  "shrink",
  "pruneCandidates",
  "liveBytes",
  "prune",
  "compact",
  "ready",
  "replay",
];

const tracingChannel = channelMaker();

function channelMaker() {
  try {
    return require("node:diagnostics_channel").tracingChannel;
  } catch {
    return undefined;
  }
}

/** One of our tracing channels. */
class Channel {
  #tracing;

  constructor(name) {
    this.#tracing = tracingChannel ? tracingChannel(PREFIX + name) : SILENCE;
  }

  /** Whether anybody listens. Tracing channels have this themselves, but not in every Node 20. */
  get isHeard() {
    const { start, end, asyncStart, asyncEnd, error } = this.#tracing;
    return (
      start.hasSubscribers ||
      end.hasSubscribers ||
      asyncStart.hasSubscribers ||
      asyncEnd.hasSubscribers ||
      error.hasSubscribers
    );
  }

  /**
   * What to call in the place of a handle: the handle itself, unless somebody listens.
   *
   * @param operation What its calls are named, if not as the addon's methods.
   */
  of(handle, operation) {
    return this.isHeard ? new TracedHandle(this, twinOf(handle), { operation }) : handle;
  }

  /**
   * As `of`, but that calls wait, once their arguments are read.
   *
   * @param wait Makes the promise of a call, of what submits it.
   */
  after(handle, wait) {
    return new TracedHandle(this, twinOf(handle), { wait });
  }

  /** The result of what ends before it returns. */
  traceSync(context, run) {
    const { start, end, error } = this.#tracing;
    return start.runStores(context, () => {
      try {
        return run();
      } catch (reason) {
        publishError(error, context, reason);
        throw reason;
      } finally {
        end.publish(context);
      }
    });
  }

  /** A promise like the one that `begin` makes. `complete` adds what is known in the end. */
  trace(context, begin, complete) {
    if (!this.isHeard) return begin();
    const resolved = (value) => {
      complete(context);
      this.ended(context);
      return value;
    };
    const rejected = (reason) => {
      this.ended(context, reason);
      throw reason;
    };
    return this.traceSync(context, () => begin().then(resolved, rejected));
  }

  /** What began elsewhere, and will end by `ended`. */
  begun(context) {
    this.traceSync(context, () => {});
  }

  /** The end of what has `begun`. */
  ended(context, reason) {
    const { asyncStart, asyncEnd, error } = this.#tracing;
    if (reason) publishError(error, context, reason);
    asyncStart.publish(context);
    asyncEnd.publish(context);
  }
}

/** What a getter of an argument threw is not ours, and may hold anything. */
function publishError(channel, context, reason) {
  add(context, {
    error: isOurs(reason) ? reason : invalidArgument("an argument could not be read"),
  });
  channel.publish(context);
}

/** Whatever a subscriber has made of the context: that is to change nothing for the call. */
function add(context, fields) {
  for (const [name, value] of Object.entries(fields)) {
    const property = { value, enumerable: true, configurable: true, writable: true };
    Reflect.defineProperty(context, name, property);
  }
}

function isOurs(reason) {
  try {
    return /^ERR_PERSIST_/.test(reason.code);
  } catch {
    return false;
  }
}

/** A handle whose calls are published. */
class TracedHandle {
  #channel;
  #twin;
  #operation;
  #wait;

  constructor(channel, twin, { operation, wait = (submit) => submit() }) {
    this.#channel = channel;
    this.#twin = twin;
    this.#operation = operation;
    this.#wait = wait;
  }

  static {
    for (const method of METHODS) {
      this.prototype[method] = function (...args) {
        return this.#trace(this.#operation ?? method, this.#twin[method](...args));
      };
    }
  }

  /** A call whose arguments are wrong is no call, but the promise that they are refused with. */
  #trace(operation, call) {
    const context = { operation, system: this.#twin.system };
    if (typeof call.sessionId === "string") context.sessionId = call.sessionId;
    const begin = () => ("submit" in call ? this.#wait(() => call.submit()) : call);
    return this.#channel.trace(context, begin, () => {
      const { rows, bytes } = call;
      if (typeof rows === "number") add(context, { rows, bytes });
    });
  }
}

const twins = new WeakMap();

/** The addon's driver for the same database whose methods give a call to submit. */
function twinOf(handle) {
  if (!twins.has(handle)) twins.set(handle, handle.traced());
  return twins.get(handle);
}

const [reads, writes, replays, connects] = ["read", "write", "replay", "connect"].map(
  (name) => new Channel(name),
);

/** Opens what is open when the function returns. */
function openTraced(system, open) {
  if (!connects.isHeard) return open();
  return connects.traceSync({ operation: "connect", system }, open);
}

/** What the addon calls for each of a driver's attempts to connect. */
function attemptListeners(system) {
  if (!tracingChannel) return [];
  const contexts = new Map();
  const begun = (attempt, serverAddress, serverPort) => {
    if (!connects.isHeard) return;
    const context = { operation: "connect", system };
    if (serverAddress !== null) Object.assign(context, { serverAddress, serverPort });
    contexts.set(attempt, context);
    connects.begun(context);
  };
  const ended = (attempt, error) => {
    const context = contexts.get(attempt);
    contexts.delete(attempt);
    if (context) connects.ended(context, error);
  };
  return [begun, ended];
}

module.exports = { reads, writes, replays, openTraced, attemptListeners };
