/** A getter of an argument makes a call of its own, and then fails the outer one. */
import { SQLiteSessionPersistDriver } from "../../../index.js";
import { event } from "../fixtures.ts";

const driver = new SQLiteSessionPersistDriver({ filename: process.argv[2] });
const report = (text: string) => process.send!(text);
const request = {
  get sessionId(): string {
    driver.insertEvent("s", event("s", 1)).then(() => report("inner is stored"));
    throw new Error("on purpose");
  },
};
driver.listEvents(request).catch(() => report("outer is refused"));
process.channel!.unref();
