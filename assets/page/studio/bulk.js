/** One edit of many captions, previewed before it is made; and how often each tag is there. */

import { button, choice, count, make } from "./dom.js";

/** Milliseconds after the last key until the preview is asked for. */
const PAUSE = 200;

/** Tags that are listed. */
const MOST_TAGS = 120;

/** What can be done: [its title, what it asks for]. */
const KINDS = {
  replace: ["Find and replace", "Find"],
  before: ["Put before", "Text"],
  after: ["Put after", "Text"],
  remove: ["Leave out a tag", "Tag"],
  sort: ["Sort the tags", ""],
};

export class Bulk {
  #timer = 0;
  #kind = "replace";

  /**
   * @param {import("./api.js").Api} api
   * @param {{scope: () => {names: string[], title: string}, apply: (edit: object) => Promise<void>, tag: (tag: string) => void,
   *   attempt: (work: () => Promise<void>) => Promise<void>}} acts
   */
  constructor(api, acts) {
    Object.assign(this, { api, acts });
    const typed = { oninput: () => this.scoped() };
    this.text = make("input", { type: "text", ...typed });
    this.by = make("input", { type: "text", placeholder: "Replace with", "aria-label": "Replace with", ...typed });
    this.capitals = make("input", { type: "checkbox", ...typed });
    this.words = make("input", { type: "checkbox", ...typed });
    this.only = make(
      "span", { className: "studio-line" }, this.by,
      make("label", {}, this.capitals, "Same capitals"), make("label", {}, this.words, "Whole words"),
    );
    this.told = make("p", { className: "studio-hint", role: "status" });
    this.list = make("ol");
    this.go = button("Change", () => this.#apply(), { className: "studio-go", disabled: true });
    const kinds = Object.entries(KINDS).map(([kind, [title]]) => [kind, title]);
    this.edits = make(
      "details", { className: "studio-fold", ontoggle: () => this.scoped() }, make("summary", {}, "Edit many captions"),
      make(
        "div", { className: "studio-line" }, choice("What to do", kinds, (kind) => this.#choose(kind)), this.text, this.only, this.go,
      ),
      this.told, this.list,
    );
    this.cloud = make("div", { className: "studio-tags" });
    this.tags = make(
      "details", { className: "studio-fold", ontoggle: () => this.refresh() }, make("summary", {}, "Tags"), this.cloud,
    );
    this.node = make("div", { className: "studio-bulk" }, this.edits, this.tags);
    this.#choose("replace");
  }

  /** The pictures that it is for, or the edit, are others now. */
  scoped() {
    clearTimeout(this.#timer);
    if (this.edits.open) this.#timer = setTimeout(() => this.acts.attempt(() => this.#preview()), PAUSE);
  }

  /** Captions have changed. */
  refresh() {
    this.scoped();
    if (this.tags.open) this.acts.attempt(() => this.#count());
  }

  #choose(kind) {
    this.#kind = kind;
    const [, asked] = KINDS[kind];
    this.text.placeholder = asked;
    this.text.setAttribute("aria-label", asked);
    this.text.hidden = !asked;
    this.only.hidden = kind !== "replace";
    this.scoped();
  }

  #edit() {
    return {
      kind: this.#kind, text: this.text.value, by: this.by.value, case: this.capitals.checked, words: this.words.checked,
      names: this.acts.scope().names,
    };
  }

  async #preview() {
    const { title } = this.acts.scope();
    const told = await this.api.bulk(this.#edit());
    this.told.textContent = `Of ${title}, ${told.count ? count(told.count, "caption") : "no caption"} would change.`;
    this.go.textContent = told.count ? `Change ${count(told.count, "caption")}` : "Change";
    this.go.disabled = !told.count;
    this.list.replaceChildren(...told.changes.map(drawn));
  }

  async #apply() {
    this.go.disabled = true;
    await this.acts.apply({ ...this.#edit(), apply: true });
    this.refresh();
  }

  async #count() {
    const tags = await this.api.tags();
    const shown = tags.slice(0, MOST_TAGS).map(([tag, times]) =>
      make(
        "button", { type: "button", onclick: () => this.acts.tag(tag), title: `Show the ${count(times, "picture")} with “${tag}”` },
        make("span", {}, tag), make("i", {}, String(times)),
      ),
    );
    this.cloud.replaceChildren(...shown);
    if (!tags.length) this.cloud.append("No caption has a tag.");
    if (tags.length > MOST_TAGS) this.cloud.append(`… and ${tags.length - MOST_TAGS} rarer ones`);
  }
}

/** One caption before and after; the words that go and come are marked. */
function drawn({ name, before, after }) {
  const words = difference(before.split(/(?<=[\s,])/), after.split(/(?<=[\s,])/));
  const marked = words.map(([kind, text]) => (kind ? make(kind, {}, text) : text));
  return make("li", {}, make("b", {}, name), " ", ...marked);
}

/**
 * Two lists of words as one: what both have in order (""), what only the first has ("del"), what only the other has ("ins").
 * @param {string[]} one @param {string[]} other @returns {[string, string][]}
 */
function difference(one, other) {
  /** The most words that are left in both, from these places on. */
  const common = Array.from({ length: one.length + 1 }, () => new Uint16Array(other.length + 1));
  for (let at = one.length - 1; at >= 0; at -= 1) {
    for (let place = other.length - 1; place >= 0; place -= 1) {
      const best = Math.max(common[at + 1][place], common[at][place + 1]);
      common[at][place] = one[at] === other[place] ? common[at + 1][place + 1] + 1 : best;
    }
  }
  const found = [];
  let [at, place] = [0, 0];
  while (at < one.length || place < other.length) {
    const [mine, theirs] = [one[at], other[place]];
    const kept = mine === theirs;
    const goes = theirs === undefined || (mine !== undefined && common[at + 1][place] >= common[at][place + 1]);
    found.push(kept ? ["", mine] : goes ? ["del", mine] : ["ins", theirs]);
    if (kept || goes) at += 1;
    if (kept || !goes) place += 1;
  }
  return found;
}
