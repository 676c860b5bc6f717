/** Errors that need no addon. */
"use strict";

/** What is thrown for a wrong argument, or a wrong `this`. */
exports.invalidArgument = (message) =>
  Object.assign(new TypeError(message), { code: "ERR_PERSIST_INVALID_ARG" });
