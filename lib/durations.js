/** Durations as applications write them: milliseconds, or text such as "30d". */
"use strict";

const { invalidArgument } = require("./errors.js");

/** No insert is tried again for as long: what was merged can't come back. */
const MIN_IDLE_FOR_MS = 600_000;
const UNITS_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const DURATION = /^([1-9]\d*)(ms|s|m|h|d)$/;

/** Milliseconds. Throws for what is no duration. */
exports.durationMs = (name, duration) => {
  const [, count, unit] = typeof duration === "string" ? (DURATION.exec(duration) ?? []) : [];
  const ms = unit === undefined ? duration : Number(count) * UNITS_MS[unit];
  if (!(Number.isSafeInteger(ms) && ms >= 1)) {
    throw invalidArgument(
      `${name} must be a whole number of milliseconds from 1, or text such as "90s", "12h" or "30d"`,
    );
  }
  return ms;
};

/** How long a session must be at rest to be compacted. Throws for what isn't long enough. */
exports.idleForMs = (name, value) => {
  const ms = exports.durationMs(name, value);
  if (ms < MIN_IDLE_FOR_MS) throw invalidArgument(`${name} must be "10m" or longer`);
  return ms;
};
