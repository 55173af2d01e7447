/**
 * The gallery and caption editor of one dataset, put into `#studio`. What the rest of the page may use: `open`, `refresh`,
 * `filter`, `select`, `selected`, `resolution`; and it hears `impasto:changed` on the document when a dataset was changed here.
 */

import { Api } from "./api.js";
import { Bulk } from "./bulk.js";
import { button, choice, count, make } from "./dom.js";
import { Drafts } from "./drafts.js";
import { Editor } from "./editor.js";
import { Gallery } from "./gallery.js";
import { KINDS, ORDERS } from "./order.js";

/** Milliseconds between two looks at whether something was changed elsewhere. */
const WATCH = 1500;

/** Milliseconds after the last change until the rest of the page is told. */
const REST = 800;

/** Milliseconds that a notice stays. */
const STAY = 8000;

let side = 1024;

class Studio {
  version = "";
  #watch = 0;
  #rest = 0;
  #gone = 0;

  /** @param {string} dataset */
  constructor(dataset) {
    this.dataset = dataset;
    this.api = new Api(dataset);
    this.drafts = new Drafts(this.api, (entry) => this.#saved(entry), (name) => this.#told(name));
    const attempt = (work) => this.attempt(work);
    this.gallery = new Gallery((entry) => this.api.copy(entry, 256), {
      open: (name) => this.editor.open(name === null ? null : this.gallery.entries.get(name)),
      chosen: () => this.#reveal(),
      edit: () => this.#edit(),
      remove: (names) => attempt(() => this.#remove(names)),
      changed: () => this.#describe(),
      marked: (name) => (this.drafts.of(name)?.conflict != null ? "conflict" : ""),
    });
    this.editor = new Editor(this.api, this.drafts, {
      move: (step) => this.gallery.move(step),
      back: () => this.gallery.focus(),
      remove: (names) => attempt(() => this.#remove(names)),
      settled: () => this.look(),
      placed: () => this.look(),
      resolution: () => side,
      attempt,
    });
    this.bulk = new Bulk(this.api, {
      scope: () => this.#scope(),
      apply: (edit) => attempt(() => this.#apply(edit)),
      tag: (tag) => attempt(async () => this.filter({ title: `Tag: ${tag}`, names: await this.api.tagged(tag) })),
      attempt,
    });
    this.#build();
  }

  /** Ask for what there is; at first, all of it. */
  async look() {
    const known = Object.fromEntries([...this.gallery.entries.values()].map((entry) => [entry.name, entry.state]));
    const moment = performance.now();
    const told = await this.api.pictures(known);
    const changed = told.changed.filter((entry) => !this.drafts.newerThan(entry.name, moment));
    this.version = changed.length === told.changed.length ? told.version : "";
    this.undo.textContent = told.undo ? `Undo: ${told.undo}` : "Undo";
    this.undo.disabled = !told.undo;
    const open = this.gallery.open;
    if (told.gone.includes(open)) this.editor.text.blur(); // the next words are not meant for its neighbour
    this.gallery.update(changed, told.gone);
    const renewed = changed.find((entry) => entry.name === open);
    if (renewed && this.editor.entry?.name === open) this.editor.renew(renewed);
    this.node.hidden = this.gallery.entries.size === 0;
    if (!changed.length && !told.gone.length) return;
    this.#describe();
    this.bulk.refresh();
  }

  /** Look again and again, as long as the page is seen. */
  watch() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(async () => {
      if (document.visibilityState === "visible") {
        await this.attempt(async () => {
          if ((await this.api.version()) !== this.version) await this.look();
        });
      }
      this.watch();
    }, WATCH);
  }

  /** Do something; what goes wrong is told. */
  async attempt(work) {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.notice(error.message);
    }
  }

  /** Show only these pictures, until they are all wanted again. @param {{title: string, names: string[]} | null} found */
  filter(found) {
    this.only.hidden = !found;
    this.only.textContent = found ? `${found.title} ×` : "";
    this.gallery.arrange({ only: found && new Set(found.names) });
  }

  /** A sentence that goes away by itself. */
  notice(sentence) {
    clearTimeout(this.#gone);
    this.said.textContent = sentence;
    this.#gone = setTimeout(() => (this.said.textContent = ""), STAY);
  }

  /** Nothing is asked any more. */
  async close() {
    clearTimeout(this.#watch);
    this.editor.crop.tell();
    await this.drafts.flushAll();
  }

  #build() {
    const kinds = Object.entries(KINDS).map(([kind, [title]]) => [kind, title]);
    const orders = Object.entries(ORDERS).map(([order, [title]]) => [order, title]);
    const search = make("input", {
      type: "search", placeholder: "Search names and captions", "aria-label": "Search names and captions",
      oninput: () => this.gallery.arrange({ text: search.value }),
    });
    this.only = button("", () => this.filter(null), { className: "studio-only", hidden: true, title: "Show all again" });
    this.undo = button("Undo", () => this.attempt(() => this.#undo()), { disabled: true, title: "Ctrl+Z in the list" });
    this.about = make("span", { className: "studio-hint" });
    this.said = make("span", { className: "studio-said", role: "status" });
    const tools = make(
      "div", { className: "studio-line studio-tools" }, search,
      choice("Which pictures", kinds, (kind) => this.gallery.arrange({ kind })),
      choice("In which order", orders, (order) => this.gallery.arrange({ order })),
    );
    const state = make("div", { className: "studio-line studio-state" }, this.about, this.only, this.said, this.undo);
    const list = make("div", { className: "studio-list" }, tools, state, this.gallery.node, this.bulk.node);
    this.node = make("div", { className: "studio", hidden: true }, list, this.editor.node);
  }

  /** A key that was pressed here, or nowhere in particular: a button that had the focus may be off by now. */
  key(event) {
    const here = event.target === document.body ? this.node.offsetParent : this.node.contains(event.target);
    const typing = event.target.closest("input, textarea, select");
    if (!here || typing || event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
    event.preventDefault();
    this.attempt(() => this.#undo());
  }

  #scope() {
    const { picked, order, entries, scope } = this.gallery;
    const number = count(order.length, "picture");
    const all = order.length === entries.size ? `all ${number}` : `the ${number} shown`;
    return { names: scope, title: picked.size ? `the ${scope.length.toLocaleString("en")} selected` : all };
  }

  #describe() {
    const { entries, order, picked } = this.gallery;
    const shown = order.length === entries.size ? "" : `, ${order.length.toLocaleString("en")} shown`;
    const selected = picked.size ? `, ${picked.size.toLocaleString("en")} selected` : "";
    const bare = [...entries.values()].filter((entry) => !entry.caption).length;
    const without = bare ? `, ${bare.toLocaleString("en")} without a caption` : "";
    this.about.textContent = `${count(entries.size, "picture")}${without}${shown}${selected}`;
    this.bulk.scoped();
  }

  #edit() {
    if (!this.editor.entry) return;
    this.editor.focus();
    this.editor.text.scrollIntoView({ block: "nearest" });
  }

  /** Where the open picture is below the list, a tap there brings it into sight. */
  #reveal() {
    const { node } = this.editor;
    const below = node.getBoundingClientRect().top > this.gallery.node.getBoundingClientRect().bottom - 1;
    if (below) node.scrollIntoView(); // at once: a smooth way there is ended by whatever moves meanwhile
  }

  #saved(entry) {
    this.gallery.update([entry], []);
    if (entry.name === this.editor.entry?.name) this.editor.saved(entry);
    this.#describe();
    this.#changed();
  }

  #told(name) {
    if (name === this.editor.entry?.name) this.editor.told();
    if (this.drafts.of(name)?.failed && !this.gallery.entries.has(name)) {
      return this.notice(`${name} is not there any more, so its caption was not saved: ${this.drafts.forget(name)}`);
    }
    if (this.drafts.of(name)?.conflict != null) {
      this.gallery.mark(name);
      if (name !== this.editor.entry?.name) this.notice(`The caption of ${name} was changed elsewhere: open it to choose.`);
    }
  }

  async #remove(names) {
    await this.drafts.flushAll();
    await this.api.remove(names);
    await this.look();
    this.notice(`${names.length === 1 ? names[0] : count(names.length, "picture")} removed. Ctrl+Z brings back.`);
    this.gallery.focus();
    this.#changed();
  }

  async #undo() {
    await this.drafts.flushAll();
    const visit = this.editor.visits.at(-1);
    const undone = await this.api.undo(visit ?? null);
    if (visit && undone?.what === `caption of ${visit.name}`) this.editor.visits.pop();
    await this.look();
    const left = undone?.left.length ? `. Changed by others since, and left so: ${undone.left.join(", ")}` : "";
    this.notice(undone ? `Undone: ${undone.what}${left}` : "There is nothing to undo.");
    if (undone?.names.length === 1) this.gallery.goTo(undone.names[0]);
    this.#changed();
  }

  async #apply(edit) {
    await this.drafts.flushAll();
    const told = await this.api.bulk(edit);
    await this.look();
    const kept = told.conflicts.length ? ` ${count(told.conflicts.length, "caption")} had been changed elsewhere and stayed.` : "";
    this.notice(`${count(told.count - told.conflicts.length, "caption")} changed.${kept}`);
    this.#changed();
  }

  #changed() {
    clearTimeout(this.#rest);
    const detail = { dataset: this.dataset };
    this.#rest = setTimeout(() => document.dispatchEvent(new CustomEvent("impasto:changed", { detail })), REST);
  }
}

/** @type {Studio | null} */
let studio = null;

/** What is being opened: one after the other. */
let opening = Promise.resolve();

/** Show a dataset, or look at the shown one again; without a name, show nothing. @param {string | null} dataset */
export function open(dataset) {
  opening = opening.then(() => show(dataset || null));
  return opening;
}

/** @param {string | null} dataset */
async function show(dataset) {
  const host = document.getElementById("studio");
  if (!host) return;
  if (studio && studio.dataset === dataset && host.contains(studio.node)) return void (await refresh());
  await studio?.close();
  studio = dataset ? new Studio(dataset) : null;
  host.replaceChildren(...(studio ? [studio.node] : []));
  await refresh();
  host.dataset.shown = dataset ?? "";
  studio?.watch();
}

/** Look at once what has changed. */
export async function refresh() {
  await studio?.attempt(() => studio.look());
}

/** Show only some pictures, as a finding names them; null: all. @param {{title: string, names: string[]} | null} found */
export function filter(found) {
  studio?.filter(found);
}

/** What edits of many are for now. @returns {string[]} */
export function selected() {
  return studio ? [...studio.gallery.picked] : [];
}

/** The picture that is open. @returns {string | null} */
export function opened() {
  return studio?.gallery.open ?? null;
}

/** Open a picture. @param {string} name */
export function select(name) {
  studio?.gallery.goTo(name);
}

/** Pictures are to be trained at this resolution: what training sees is drawn for it. @param {number} pixels */
export function resolution(pixels) {
  side = pixels;
  studio?.editor.look();
}

document.addEventListener("keydown", (event) => studio?.key(event));
window.addEventListener("pagehide", () => {
  studio?.editor.crop.tell();
  studio?.drafts.leave();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") studio?.drafts.flushAll();
  else refresh();
});
window.addEventListener("beforeunload", (event) => {
  if (studio?.drafts.unsafe) event.preventDefault();
});
