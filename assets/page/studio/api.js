/** What the page asks of the program about one dataset. Knows nothing of what is shown. */

/**
 * One picture in the list, see `Entry` in app/listing.py.
 * @typedef {{name: string, width: number, height: number, caption: string, tokens: number, masked: boolean, added: number,
 *   look: string, state: string}} Entry
 */

/** The caption was changed elsewhere: `current` is what it is now. */
export class Conflict extends Error {
  constructor(message, current) {
    super(message);
    this.current = current;
  }
}

/** Milliseconds that a caption may take to be written; after that it is sent once more. */
const PATIENCE = 30000;

export class Api {
  /** @param {string} dataset */
  constructor(dataset) {
    this.base = `/studio/datasets/${encodeURIComponent(dataset)}`;
  }

  version = () => this.#ask("GET", "/version");

  /** The pictures that have changed. @param {Record<string, string>} states of those that are known */
  pictures = (states) => this.#ask("POST", "/pictures", { states });

  /** The address of a small copy; it changes with the picture, so that the browser may keep it. */
  copy = (entry, side) => `${this.base}${picture(entry.name)}/copy?side=${side}&look=${entry.look}`;

  /** @returns {Promise<Entry>} @param {string[]} was every text that may be replaced */
  write = (name, was, text, keepalive = false) =>
    this.#ask("PUT", `${picture(name)}/caption`, { was, text }, { keepalive, signal: AbortSignal.timeout(PATIENCE) });

  seen = (name, resolution) => this.#ask("GET", `${picture(name)}/crop?resolution=${resolution}`);

  place = (name, placed) => this.#ask("PUT", `${picture(name)}/crop`, placed);

  remove = (names) => this.#ask("POST", "/remove", { names });

  /** @param {{name: string, was: string} | null} visit to be undone as one, if it is the last change */
  undo = (visit) => this.#ask("POST", "/undo", visit);

  bulk = (edit) => this.#ask("POST", "/bulk", edit);

  tags = () => this.#ask("GET", "/tags");

  /** The pictures whose captions hold a tag. */
  tagged = (tag) => this.#ask("GET", `/tagged?tag=${encodeURIComponent(tag)}`);

  variants = (varied) => this.#ask("POST", "/variants", varied);

  #ask = (method, path, body, how) => ask(method, this.base + path, body, how);
}

/** The answer to one question. @param {string} method @param {string} url @param {any} [body] @param {RequestInit} [how] */
export async function ask(method, url, body, how = {}) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await fetch(url, { method, headers, body: JSON.stringify(body), ...how }).catch(() => {
    throw new Error("The program does not answer. Is it still running?");
  });
  const told = await answer.json().catch(() => ({}));
  if (answer.status === 409) throw new Conflict(told.message, told.current);
  if (!answer.ok) throw new Error(told.message ?? `The program could not do that (${answer.status}).`);
  return told;
}

const picture = (name) => `/pictures/${encodeURIComponent(name)}`;
