/** The pictures as a list of small copies, sixty at a time, for keyboard and mouse. Knows neither the editor nor requests. */

import { button, make } from "./dom.js";
import { arranged, LIMIT } from "./order.js";

/** @typedef {import("./api.js").Entry} Entry */

/** Pictures shown at a time. */
export const PAGE = 60;

export class Gallery {
  /** @type {Map<string, Entry>} */
  entries = new Map();
  /** @type {string[]} the names that are wanted, in order */
  order = [];
  /** @type {Set<string>} what was selected beside the open picture */
  picked = new Set();
  wanted = { text: "", kind: "all", only: null, order: "name" };
  /** @type {string | null} the open picture */
  open = null;
  #at = 0;
  #anchor = 0;
  #page = 0;

  /**
   * @param {(entry: Entry) => string} copy the address of a small copy
   * @param {{open: (name: string | null) => void, chosen: () => void, edit: () => void, remove: (names: string[]) => void,
   *   changed: () => void, marked: (name: string) => string}} acts
   */
  constructor(copy, acts) {
    this.copy = copy;
    this.acts = acts;
    this.grid = make("div", {
      className: "studio-grid", role: "listbox", "aria-label": "Pictures", "aria-multiselectable": "true",
      onclick: (event) => this.#click(event), ondblclick: () => acts.edit(), onkeydown: (event) => this.#key(event),
    });
    this.range = make("span");
    this.back = button("‹", () => this.#turn(-1), { "aria-label": "Previous page" });
    this.forth = button("›", () => this.#turn(1), { "aria-label": "Next page" });
    this.pager = make("div", { className: "studio-pager" }, this.back, this.range, this.forth);
    this.empty = make("p", { className: "studio-hint" }, "No picture is like that.");
    this.node = make("div", {}, this.grid, this.empty, this.pager);
  }

  /** What an edit of many is for: the selected pictures, or else all that are shown. */
  get scope() {
    return this.picked.size ? this.order.filter((name) => this.picked.has(name)) : this.order;
  }

  /** Take in what has changed; pictures stay in their places even where they are not as wanted any more. */
  update(changed, gone) {
    const arrived = changed.some((entry) => !this.entries.has(entry.name));
    for (const entry of changed) this.entries.set(entry.name, entry);
    for (const name of gone) {
      this.entries.delete(name);
      this.picked.delete(name);
    }
    if (arrived) this.arrange();
    else if (gone.length) this.#reorder(this.order.filter((name) => this.entries.has(name)));
    else for (const entry of changed) this.mark(entry.name);
  }

  /** Show what is wanted now. @param {Partial<Gallery["wanted"]>} [wanted] */
  arrange(wanted = {}) {
    Object.assign(this.wanted, wanted);
    if ("text" in wanted || "kind" in wanted || "only" in wanted) this.picked.clear();
    this.#reorder(arranged(this.entries.values(), this.wanted));
  }

  /** The picture `step` places further on is opened. @returns {boolean} whether there is one */
  move(step) {
    const place = this.#at + step;
    if (place < 0 || place >= this.order.length) return false;
    this.go(place);
    return true;
  }

  /** Open the picture at a place; with `extend`, select all from the last one that was opened without. */
  go(place, extend = false, keep = false) {
    this.#at = Math.max(0, Math.min(place, this.order.length - 1));
    if (extend) this.#pick(this.#anchor, this.#at);
    else if (!keep) this.picked.clear();
    if (!extend) this.#anchor = this.#at;
    this.#opened(this.order[this.#at] ?? null);
  }

  /** Open a picture by name, if it is shown. */
  goTo(name) {
    const place = this.order.indexOf(name);
    if (place >= 0) this.go(place);
  }

  /** Put the focus on the open picture. */
  focus(how = {}) {
    this.#tile(this.open)?.focus(how);
  }

  /** Show a picture's tile as it is now. */
  mark(name) {
    const [old, entry] = [this.#tile(name), this.entries.get(name)];
    if (!old || !entry) return;
    const focused = document.activeElement === old;
    old.replaceWith(this.#drawn(entry, this.order.indexOf(name)));
    if (focused) this.focus({ preventScroll: true }); // nobody asked to see it
  }

  #reorder(order) {
    const there = new Map(order.map((name, place) => [name, place]));
    const next = this.order.slice(this.#at).find((name) => there.has(name));
    this.#at = there.get(next) ?? Math.max(0, Math.min(this.#at, order.length - 1));
    this.order = order;
    this.#anchor = this.#at;
    this.#page = -1;
    this.#opened(order[this.#at] ?? null);
  }

  #opened(name) {
    const other = name !== this.open;
    this.open = name;
    this.#show(Math.floor(this.#at / PAGE));
    if (other) this.acts.open(name);
    this.acts.changed();
  }

  #show(page) {
    const focused = this.grid.contains(document.activeElement);
    if (page !== this.#page) {
      this.#page = page;
      const first = page * PAGE;
      const names = this.order.slice(first, first + PAGE);
      this.grid.replaceChildren(...names.map((name, at) => this.#drawn(this.entries.get(name), first + at)));
      this.range.textContent = `${first + 1}–${first + names.length} of ${this.order.length.toLocaleString("en")}`;
      this.back.disabled = page === 0;
      this.forth.disabled = first + PAGE >= this.order.length;
      this.pager.hidden = this.order.length <= PAGE;
      this.empty.hidden = this.order.length > 0;
    } else for (const tile of this.grid.children) this.#set(tile);
    if (focused) this.focus({ preventScroll: true });
  }

  #drawn(entry, place) {
    const marks = make("span", { className: "studio-marks" });
    const told = this.acts.marked(entry.name) || (entry.tokens > LIMIT ? `${entry.tokens} tokens` : entry.caption ? "" : "no caption");
    if (told) marks.append(make("b", {}, told));
    if (entry.masked) marks.append(make("i", {}, "mask"));
    const image = make("img", {
      alt: "", loading: "lazy", decoding: "async", draggable: false, src: this.copy(entry),
      onerror: () => tile.classList.add("broken"),
    });
    const tile = make(
      "div",
      {
        role: "option", className: "studio-tile", title: entry.name,
        "aria-label": `${entry.name}: ${entry.caption || "no caption"}`,
        "aria-setsize": this.order.length, "aria-posinset": place + 1,
      },
      image, make("span", { className: "studio-name" }, entry.name), marks,
    );
    tile.dataset.name = entry.name;
    return this.#set(tile);
  }

  #set(tile) {
    const { name } = tile.dataset;
    tile.tabIndex = name === this.open ? 0 : -1;
    tile.classList.toggle("open", name === this.open);
    tile.setAttribute("aria-selected", String(this.picked.has(name) || (!this.picked.size && name === this.open)));
    tile.classList.toggle("picked", this.picked.has(name));
    return tile;
  }

  #tile(name) {
    return [...this.grid.children].find((tile) => tile.dataset.name === name);
  }

  #pick(one, other) {
    this.picked = new Set(this.order.slice(Math.min(one, other), Math.max(one, other) + 1));
  }

  #toggle(place) {
    if (!this.picked.size && this.open && this.#at !== place) this.picked.add(this.open);
    const name = this.order[place];
    if (!this.picked.delete(name)) this.picked.add(name);
    this.go(place, false, true);
  }

  #turn(pages) {
    const last = this.order.length - 1;
    this.go(Math.max(0, Math.min(this.#at + pages * PAGE, last)));
  }

  #click(event) {
    const place = this.order.indexOf(event.target.closest("[role=option]")?.dataset.name ?? "");
    if (place < 0) return;
    if (event.ctrlKey || event.metaKey) this.#toggle(place);
    else this.go(place, event.shiftKey);
    this.focus();
    if (!this.picked.size) this.acts.chosen();
  }

  #key(event) {
    const columns = getComputedStyle(this.grid).gridTemplateColumns.split(" ").length;
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -PAGE, PageDown: PAGE,
      Home: -this.order.length, End: this.order.length,
    };
    const command = event.ctrlKey || event.metaKey;
    if (event.altKey || (command && event.key !== "a" && event.key !== " ")) return;
    if (event.key in steps) {
      const place = this.#at + steps[event.key];
      const beyond = place < 0 || place >= this.order.length;
      if (!beyond || !event.key.startsWith("Arrow")) {
        this.go(place, event.shiftKey);
        this.focus();
      }
    } else if (event.key === "Enter") this.acts.edit();
    else if (event.key === " ") this.#toggle(this.#at);
    else if (event.key === "a" && command) this.#all(this.order);
    else if (event.key === "Escape") this.#all([]);
    else if (event.key === "Delete") this.acts.remove(this.picked.size ? this.scope : [this.order[this.#at]]);
    else return;
    event.preventDefault();
  }

  #all(names) {
    this.picked = new Set(names);
    this.#show(this.#page);
    this.acts.changed();
  }
}
