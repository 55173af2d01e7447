/** One picture large, with what training sees of it, and its caption. Knows neither the list nor how a text is written. */

import { Crop } from "./crop.js";
import { button, make } from "./dom.js";
import { LIMIT } from "./order.js";
import { Varied } from "./varied.js";

/** @typedef {import("./api.js").Entry} Entry */

/** Milliseconds that a picture must stay open before its larger copy is asked for. */
const PAUSE = 120;

export class Editor {
  /** @type {Entry | null} */
  entry = null;
  /** @type {{name: string, was: string}[]} the captions at which a person typed, and what they said before */
  visits = [];
  /** What the caption is on the disk, as far as is known. */
  #base = "";
  #typing = false;
  #timer = 0;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./drafts.js").Drafts} drafts
   * @param {{move: (step: number) => boolean, back: () => void, remove: (names: string[]) => void,
   *   settled: (name: string) => void, placed: (entry: Entry) => void, resolution: () => number,
   *   attempt: (work: () => Promise<void>) => Promise<void>}} acts
   */
  constructor(api, drafts, acts) {
    Object.assign(this, { api, drafts, acts });
    this.placing = Promise.resolve();
    this.crop = new Crop((name, placed) => this.#place(name, placed));
    this.varied = new Varied(api);
    this.#build();
  }

  /** Open a picture; null: none. @param {Entry | null} entry */
  open(entry) {
    if (this.entry) this.drafts.flush(this.entry.name);
    clearTimeout(this.#timer);
    this.entry = entry;
    this.#typing = false;
    this.node.hidden = !entry;
    if (!entry) return this.crop.tell();
    this.#base = entry.caption;
    this.crop.open(entry.name, entry.width / entry.height);
    this.crop.image.src = this.api.copy(entry, 256);
    this.#timer = setTimeout(() => this.look(), PAUSE);
    this.text.value = this.drafts.of(entry.name)?.text ?? entry.caption;
    this.text.setAttribute("aria-label", `Caption of ${entry.name}`);
    this.name.textContent = entry.name;
    this.#tell();
  }

  /** The picture that is open was changed elsewhere. @param {Entry} entry */
  renew(entry) {
    const old = this.entry;
    this.#typing = false;
    this.entry = entry;
    if (entry.caption !== this.#base && !this.drafts.of(entry.name)) this.text.value = entry.caption;
    this.#base = entry.caption;
    if (entry.state !== old.state) this.look();
    this.#tell();
  }

  /** What was typed for the open picture is on the disk. @param {Entry} entry */
  saved(entry) {
    this.entry = entry;
    this.#base = entry.caption;
    this.#tell();
  }

  /** Something about the draft of the open picture has changed. */
  told() {
    this.#tell();
  }

  /** Begin to type. */
  focus() {
    this.text.focus();
    this.text.setSelectionRange(this.text.value.length, this.text.value.length);
  }

  #build() {
    this.name = make("b");
    this.facts = make("span");
    this.count = make("span", { className: "studio-count" });
    this.sign = make("span", { className: "studio-sign", role: "status" });
    this.text = make("textarea", {
      rows: 3, spellcheck: true, oninput: () => this.#typed(), onkeydown: (event) => this.#key(event),
      onblur: () => this.entry && this.drafts.flush(this.entry.name),
    });
    this.theirs = make("q");
    this.conflict = make(
      "div", { className: "studio-conflict", role: "alert", hidden: true },
      make("p", {}, "This caption was changed elsewhere meanwhile. It now says: ", this.theirs),
      button("Keep mine", () => this.drafts.keepMine(this.entry.name)),
      button("Take theirs", () => this.#takeTheirs()),
    );
    this.hand = button("Cut by hand", () => this.crop.cut());
    const aims = make(
      "div", { className: "studio-line studio-aims" }, this.facts,
      button("Find the subject", () => this.#place(this.entry.name, { focus: "content" })), this.hand,
      button("Reset", () => this.crop.reset(), { title: "What training sees without being told" }),
    );
    const ways = make(
      "div", { className: "studio-line" },
      button("‹ Back", () => this.acts.move(-1), { title: "Alt+Up" }),
      button("Next ›", () => this.acts.move(1), { title: "Enter, or Alt+Down" }),
      button("Remove", () => this.acts.remove([this.entry.name]), { className: "studio-remove", title: "Del in the list" }),
    );
    const head = make("div", { className: "studio-line studio-told" }, this.name, this.count, this.sign);
    this.node = make(
      "section", { className: "studio-editor", "aria-label": "The open picture", hidden: true },
      this.crop.node, aims, head, this.text, this.conflict, ways, this.varied.node,
    );
  }

  #typed() {
    if (!this.#typing) this.visits.push({ name: this.entry.name, was: this.#base });
    this.#typing = true;
    this.drafts.type(this.entry.name, this.#base, this.text.value);
  }

  #key(event) {
    if (event.isComposing) return;
    const step = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    if (event.altKey && step) this.acts.move(step);
    else if (event.key === "Enter") this.acts.move(1);
    else if (event.key === "Escape") this.acts.back();
    else return;
    event.preventDefault();
    if (event.key !== "Escape") this.focus();
  }

  #takeTheirs() {
    this.#base = this.text.value = this.drafts.takeTheirs(this.entry.name);
    this.acts.settled(this.entry.name);
    this.#tell();
  }

  #tell() {
    const { entry } = this;
    if (!entry) return;
    const draft = this.drafts.of(entry.name);
    const over = entry.tokens - LIMIT;
    const told = `${entry.tokens} of ${LIMIT} tokens${over > 0 ? ": the last are not read" : ""}`;
    this.count.textContent = entry.caption ? told : "";
    this.count.classList.toggle("over", over > 0);
    const conflicted = draft !== undefined && draft.conflict !== null;
    this.conflict.hidden = !conflicted;
    this.theirs.textContent = draft?.conflict || "nothing";
    const waiting = draft?.failed ? `Not saved yet. ${draft.failed}` : draft ? "Saving …" : "Saved";
    this.sign.textContent = conflicted ? "Not saved" : waiting;
    this.sign.classList.toggle("over", Boolean(conflicted || draft?.failed));
    this.varied.show(entry.name, this.text.value);
  }

  /** Ask for the larger copy, and for what training sees. */
  async look() {
    const { entry } = this;
    if (!entry) return;
    const [address, image] = [this.api.copy(entry, 768), new Image()];
    image.onload = () => entry.look === this.entry?.look && entry.name === this.entry.name && (this.crop.image.src = address);
    image.src = address;
    await this.acts.attempt(async () => this.#seen(entry, await this.api.seen(entry.name, this.acts.resolution())));
  }

  #seen(entry, seen) {
    if (entry.name !== this.entry?.name) return;
    this.crop.show(entry.name, seen);
    const [wide, high] = seen.bucket;
    const enlarged = seen.upscale > 1.005 ? `, enlarged ${seen.upscale.toFixed(1)} times` : "";
    this.facts.textContent = `${entry.width} × ${entry.height}, trained at ${wide} × ${high}${enlarged}`;
    this.facts.classList.toggle("over", seen.upscale > 1.25);
    this.hand.setAttribute("aria-pressed", String(this.crop.byHand));
  }

  /** One after the other, in the order in which they were wished. */
  #place(name, placed) {
    this.placing = this.placing.then(() => this.acts.attempt(async () => this.acts.placed(await this.api.place(name, placed))));
  }
}
