/** A plugin of TypeDoc: what a class inherits is told of where it is declared, and not again. */
import { Converter, ReflectionKind } from "typedoc";

export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => {
    const methods = project.getReflectionsByKind(ReflectionKind.Method);
    for (const method of methods) if (method.inheritedFrom) project.removeReflection(method);
  });
}
