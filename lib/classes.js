/** What the language has no syntax for, of our classes. */
"use strict";

const { invalidArgument } = require("./errors.js");

/** The class, but that a call without `new` gets an error with a `code`. */
exports.calledWithNew = (Class) => {
  const { name, length, prototype } = Class;
  function constructor(...args) {
    if (new.target === undefined) throw invalidArgument(`${name} must be called with new`);
    return Reflect.construct(Class, args, new.target);
  }
  Object.defineProperties(constructor, {
    name: { value: name },
    length: { value: length },
    prototype: { value: prototype, writable: false },
  });
  Object.defineProperty(prototype, "constructor", { value: constructor });
  return constructor;
};

/** Has `using` close instances, where the runtime has this symbol for it. */
exports.closedBy = (symbol, Class, close = (instance) => instance.close()) => {
  if (symbol === undefined) return;
  const methods = {
    [symbol]() {
      return close(this);
    },
  };
  const method = { value: methods[symbol], writable: true, configurable: true };
  Object.defineProperty(Class.prototype, symbol, method);
};
