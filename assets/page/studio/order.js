/** Which pictures are shown, and in which order. Pure: knows no page. */

/** CLIP reads so many tokens of a caption. */
export const LIMIT = 77;

/** @typedef {import("./api.js").Entry} Entry */

/** @type {Record<string, [string, (one: Entry, other: Entry) => number]>} */
export const ORDERS = {
  name: ["By name", () => 0],
  newest: ["Newest first", (one, other) => other.added - one.added],
  smallest: ["Smallest first", (one, other) => one.width * one.height - other.width * other.height],
  longest: ["Most tokens first", (one, other) => other.tokens - one.tokens],
};

/** @type {Record<string, [string, (entry: Entry) => boolean]>} */
export const KINDS = {
  all: ["All pictures", () => true],
  bare: ["Without a caption", (entry) => !entry.caption],
  long: [`Over ${LIMIT} tokens`, (entry) => entry.tokens > LIMIT],
  masked: ["With a mask", (entry) => entry.masked],
};

/**
 * The names of the pictures that are wanted, in order. `text`: words that name or caption must hold; `only`: no others.
 * @param {Iterable<Entry>} entries
 * @param {{text: string, kind: string, only: Set<string> | null, order: string}} wanted
 * @returns {string[]}
 */
export function arranged(entries, { text, kind, only, order }) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...entries].filter(
    (entry) =>
      KINDS[kind][1](entry) &&
      (!only || only.has(entry.name)) &&
      (!words.length || holds(`${entry.name}\n${entry.caption}`.toLowerCase(), words)),
  );
  return found.sort((one, other) => ORDERS[order][1](one, other) || byName(one, other)).map((entry) => entry.name);
}

const holds = (text, words) => words.every((word) => text.includes(word));

function byName(one, other) {
  const [first, second] = [one.name.toLowerCase(), other.name.toLowerCase()];
  return first < second ? -1 : first > second ? 1 : 0;
}
