/** Shrinks a file, and tells when that begins. */
import { SQLiteSessionPersistDriver } from "../../../index.js";

const driver = new SQLiteSessionPersistDriver({ filename: process.argv[2]! });
process.send!("begins");
await driver.shrink();
driver.close();
process.disconnect();
