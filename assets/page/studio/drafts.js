/**
 * What has been typed until it is on the disk. Each text goes with the name of its picture, one request of a picture after the
 * other, and says what it is to replace: it reaches no neighbour and overwrites nothing that somebody else wrote.
 */

import { Conflict } from "./api.js";

/** Milliseconds without a key until a text is written. */
const PAUSE = 100;

/** Milliseconds until a text that could not be written is tried again. */
const PATIENCE = 2000;

/**
 * `was`: all that the file may say now; `sent`: the text that is known to be written; `conflict`: what was written elsewhere.
 * @typedef {{text: string, sent: string | null, was: string[], conflict: string | null, failed: string,
 *   running: Promise<void> | null, timer: number}} Draft
 */

export class Drafts {
  /** @type {Map<string, Draft>} */
  #drafts = new Map();
  /** @type {Map<string, number>} when a caption was last written: an answer that was asked for before is not believed */
  #written = new Map();

  /**
   * @param {import("./api.js").Api} api
   * @param {(entry: import("./api.js").Entry) => void} saved a text is on the disk
   * @param {(name: string) => void} told something about a draft has changed
   */
  constructor(api, saved, told) {
    this.api = api;
    this.saved = saved;
    this.told = told;
  }

  /** @param {string} name @returns {Draft | undefined} what is not on the disk yet */
  of(name) {
    return this.#drafts.get(name);
  }

  /** Whether an answer that was asked for at `moment` may be older than what was typed. */
  newerThan(name, moment) {
    return this.#drafts.has(name) || (this.#written.get(name) ?? -1) >= moment;
  }

  /** Whether something would be lost if the page were closed now. */
  get unsafe() {
    return [...this.#drafts.values()].some((draft) => draft.conflict !== null || draft.failed);
  }

  /** A person types. @param {string} name @param {string} before what the caption was @param {string} text */
  type(name, before, text) {
    const fresh = { text, sent: before, was: [before], conflict: null, failed: "", running: null, timer: 0 };
    const draft = this.#drafts.get(name) ?? fresh;
    draft.text = text;
    this.#drafts.set(name, draft);
    if (!draft.failed) {
      clearTimeout(draft.timer);
      draft.timer = setTimeout(() => this.flush(name), PAUSE);
    }
    this.told(name);
  }

  /** Write at once what was typed. @param {string} name @returns {Promise<void>} when it is written, or cannot be */
  async flush(name) {
    const draft = this.#drafts.get(name);
    if (!draft || draft.failed) return;
    clearTimeout(draft.timer);
    draft.running ??= this.#run(name, draft).finally(() => (draft.running = null));
    await draft.running;
  }

  /** Write all of it. */
  flushAll = () => Promise.all([...this.#drafts.keys()].map((name) => this.flush(name)));

  /** The page goes away: the browser is to send what is left, whether or not an earlier text arrived. */
  leave() {
    for (const [name, draft] of this.#drafts) {
      if (draft.conflict === null && draft.text !== draft.sent) {
        this.api.write(name, draft.was, draft.text, true).catch(() => {});
      }
    }
  }

  /** The conflict is settled: what was typed here replaces what was written elsewhere. */
  keepMine(name) {
    const draft = this.#drafts.get(name);
    if (!draft || draft.conflict === null) return;
    Object.assign(draft, { was: [draft.conflict], sent: null, conflict: null });
    this.told(name);
    this.flush(name);
  }

  /** The conflict is settled: what was written elsewhere stays. @param {string} name @returns {string} that text */
  takeTheirs(name) {
    const theirs = this.#drafts.get(name)?.conflict ?? "";
    this.#drafts.delete(name);
    return theirs;
  }

  /** The picture is gone: nothing is tried any more. @param {string} name @returns {string} what was typed for it */
  forget(name) {
    const draft = this.#drafts.get(name);
    clearTimeout(draft?.timer);
    this.#drafts.delete(name);
    return draft?.text ?? "";
  }

  /** @param {string} name @param {Draft} draft */
  async #run(name, draft) {
    while (draft.conflict === null && !draft.failed && draft.text !== draft.sent) await this.#write(name, draft);
    if (draft.text === draft.sent) this.#drafts.delete(name);
    this.told(name);
  }

  /** @param {string} name @param {Draft} draft */
  async #write(name, draft) {
    const { text, was } = draft;
    draft.was = [...was, text];
    try {
      const entry = await this.api.write(name, was, text);
      Object.assign(draft, { was: [entry.caption], sent: text });
      this.#written.set(name, performance.now());
      this.saved(entry);
    } catch (error) {
      if (error instanceof Conflict) draft.conflict = error.current;
      else {
        draft.failed = error.message;
        draft.timer = setTimeout(() => {
          draft.failed = "";
          this.flush(name);
        }, PATIENCE);
      }
    }
  }
}
