/** Options that no call of the addon's checks. */
"use strict";

const { invalidArgument } = require("./errors.js");

/** The most that a timer counts to. */
const MAX_MS = 2_147_483_647;

/** Throws for what isn't an object with no other names than these. */
exports.requireOptions = (options, names, called = "options") => {
  if (typeof options !== "object" || options === null) {
    throw invalidArgument(`${called} must be an object`);
  }
  const unknown = Object.keys(options).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw invalidArgument(
      `${called}.${unknown} is not an option; the options are ${names.join(", ")}`,
    );
  }
};

/** Throws for what is no time that a timer counts to. */
exports.requireMs = (times) => {
  for (const [name, value] of Object.entries(times)) {
    if (!(Number.isInteger(value) && value >= 0 && value <= MAX_MS)) {
      throw invalidArgument(`options.${name} must be a whole number from 0 to ${MAX_MS}`);
    }
  }
};

/** Throws for what is neither missing nor a function. */
exports.requireFunction = (name, value) => {
  if (value !== undefined && typeof value !== "function") {
    throw invalidArgument(`${name} must be a function`);
  }
};

/** Throws for what is neither missing nor an AbortSignal. */
exports.requireSignal = (name, signal) => {
  if (signal !== undefined && typeof signal?.addEventListener !== "function") {
    throw invalidArgument(`${name} must be an AbortSignal`);
  }
};
