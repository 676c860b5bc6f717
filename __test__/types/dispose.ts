/** `using`, where the compiler knows it. */
import { SQLiteSessionPersistDriver } from "../../index.js";

export function scoped(): void {
  using driver = new SQLiteSessionPersistDriver();
  void driver.getSession("s");
}
