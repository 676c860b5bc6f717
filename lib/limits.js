/** How much a store may hold, as options say it. */
"use strict";

const { durationMs, idleForMs } = require("./durations.js");
const { invalidArgument } = require("./errors.js");
const { requireOptions } = require("./options.js");

const DURATIONS = ["maxAge", "destroyedFor"];
/** Those that may be beside `retention`, as the SDK's driver in memory names them. */
const AT_TOP_LEVEL = ["maxEventsPerSession", "maxSessions"];
/** The names of limits. */
const LIMITS = (exports.LIMITS = [...AT_TOP_LEVEL, ...DURATIONS, "maxBytes"]);

/** Those of the options that are limits, times in milliseconds. Throws for a wrong one. */
exports.readLimits = (options, name = "options") => {
  const limits = {};
  for (const limit of LIMITS) {
    const value = Object.hasOwn(options, limit) ? options[limit] : undefined;
    if (value === undefined) continue;
    const fullName = `${name}.${limit}`;
    limits[limit] = DURATIONS.includes(limit)
      ? durationMs(fullName, value)
      : countFrom1(fullName, value);
  }
  return limits;
};

/** The limits among a driver's options; `undefined` where there are none. */
exports.retentionOf = (options) => {
  if (typeof options !== "object" || options === null) return undefined;
  const { retention } = options;
  const limits = retention === undefined || retention === null ? {} : readRetention(retention);
  for (const limit of AT_TOP_LEVEL) {
    if (!Object.hasOwn(options, limit) || options[limit] === undefined) continue;
    if (limit in limits) {
      throw invalidArgument(
        `options.${limit} and options.retention.${limit} are the same: give one`,
      );
    }
    limits[limit] = countFrom1(`options.${limit}`, options[limit]);
  }
  return Object.keys(limits).length === 0 ? undefined : limits;
};

function readRetention(retention) {
  requireOptions(retention, [...LIMITS, "compactAfter"], "options.retention");
  const limits = exports.readLimits(retention, "options.retention");
  const { compactAfter } = retention;
  if (compactAfter !== undefined) {
    limits.compactAfter = idleForMs("options.retention.compactAfter", compactAfter);
  }
  return limits;
}

function countFrom1(name, value) {
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw invalidArgument(`${name} must be a whole number from 1`);
}
