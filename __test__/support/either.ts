/** For programs that run with either driver. */
import {
  PostgresSessionPersistDriver,
  SQLiteSessionPersistDriver,
  type PostgresSessionPersistDriverOptions,
  type SQLiteSessionPersistDriverOptions,
} from "../../index.js";

type Options = SQLiteSessionPersistDriverOptions | PostgresSessionPersistDriverOptions;

/** The driver that these options are of. */
export const openEither = (options: Options) =>
  "filename" in options
    ? new SQLiteSessionPersistDriver(options)
    : new PostgresSessionPersistDriver(options);
