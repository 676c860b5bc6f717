/** What the package exports. Types and documentation: index.d.ts. */
"use strict";

const { VERSION, __napiBindingTarget } = require("./lib/load.js");
const { shared } = require("./lib/copies.js");

const {
  SQLiteSessionPersistDriver,
  PostgresSessionPersistDriver,
  ReplayView,
  buildReplayText,
  postgresSchemaSql,
  gracefulShutdown,
} = shared(() => ({
  ...require("./lib/drivers.js"),
  ...require("./lib/texts.js"),
  ...require("./lib/shutdown.js"),
}));

// Names alone, each by itself: Node and bundlers read out of this text what can be imported.
module.exports = {
  SQLiteSessionPersistDriver,
  PostgresSessionPersistDriver,
  ReplayView,
  buildReplayText,
  postgresSchemaSql,
  gracefulShutdown,
  VERSION,
  __napiBindingTarget,
};
