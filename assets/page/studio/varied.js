/** What training makes of a caption where it shuffles tags, leaves some out, or chooses among `{one|another}`: some samples. */

import { make } from "./dom.js";

/** Milliseconds after the last key until samples are asked for. */
const PAUSE = 300;

export class Varied {
  #timer = 0;
  #text = "";
  #name = "";

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    const again = { onchange: () => this.#ask() };
    this.shuffle = make("input", { type: "checkbox", ...again });
    this.wild = make("input", { type: "checkbox", ...again });
    this.keep = make("input", { type: "number", min: 0, max: 100, value: 0, ...again });
    this.drop = make("input", { type: "number", min: 0, max: 100, step: 5, value: 0, ...again });
    this.list = make("ul");
    const label = (title, input) => make("label", {}, input, title);
    this.node = make(
      "details", { className: "studio-fold", ontoggle: () => this.#ask() }, make("summary", {}, "How training may vary it"),
      make(
        "div", { className: "studio-line" }, label("Shuffle tags", this.shuffle), label("first ones stay", this.keep),
        label("% of tags left out", this.drop), label("Choose among {one|another}", this.wild),
      ),
      this.list,
      make("p", { className: "studio-hint" }, "Only a preview: set it for a training under Train, Settings."),
    );
  }

  /** Another picture, or another text. */
  show(name, text) {
    if (name === this.#name && text === this.#text) return;
    [this.#name, this.#text] = [name, text];
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), PAUSE);
  }

  async #ask() {
    if (!this.node.open) return;
    const text = this.#text;
    const wish = {
      name: this.#name, text, shuffle_tags: this.shuffle.checked, wildcards: this.wild.checked,
      keep_tags: Number(this.keep.value), tag_dropout: Number(this.drop.value) / 100,
    };
    const [texts, problem] = await this.api.variants(wish).then((told) => [told, ""], (error) => [[], error.message]);
    if (text === this.#text) this.list.replaceChildren(...[...texts, problem].filter(Boolean).map((line) => make("li", {}, line)));
  }
}
