/** What the documents promise of themselves. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { root } from "../scripts/setup.mjs";

const README_WORDS = 900;
const pages = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].concat(
  readdirSync(join(root, "docs")).map((name) => join("docs", name)),
);
const textOf = (page: string) => readFileSync(join(root, page), "utf8");
const withoutCode = (text: string) => text.replace(/^```.*?^```$/gms, "");

/** The anchors that GitHub gives a page: of its headings, numbered where they are alike, and its own. */
function anchorsOf(page: string): Set<string> {
  const text = withoutCode(textOf(page));
  const anchors = new Set([...text.matchAll(/<a id="([^"]+)">/g)].map(([, id]) => id!));
  const times = new Map<string, number>();
  for (const [, heading] of text.matchAll(/^#+ (.*)$/gm)) {
    const plain = heading!.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "");
    const anchor = plain.trim().replace(/\s/g, "-");
    const before = times.get(anchor) ?? 0;
    times.set(anchor, before + 1);
    anchors.add(before === 0 ? anchor : `${anchor}-${before}`);
  }
  return anchors;
}

test("every link within the documents leads somewhere", () => {
  const broken: string[] = [];
  for (const page of pages) {
    const links = withoutCode(textOf(page)).matchAll(/\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)/g);
    for (const [, path, anchor] of links) {
      const target = path ? relative(root, join(root, dirname(page), path)) : page;
      const isThere = target === "LICENSE" || pages.includes(target);
      const leads = isThere && (!anchor || anchorsOf(target).has(anchor));
      if (!leads) broken.push(`${page}: ${path}#${anchor ?? ""}`);
    }
  }
  assert.deepEqual(broken, []);
});

test("every page of the documentation can be reached from the README", () => {
  const reached = new Set(["README.md"]);
  for (const page of reached) {
    for (const [, path] of textOf(page).matchAll(/\]\((?!https?:)([^)\s#]+\.md)/g)) {
      reached.add(relative(root, join(root, dirname(page), path!)));
    }
  }
  assert.deepEqual(
    pages.filter((page) => !reached.has(page)),
    [],
  );
});

test("the README is read in a minute", () => {
  assert.ok(textOf("README.md").trim().split(/\s+/).length < README_WORDS);
});
