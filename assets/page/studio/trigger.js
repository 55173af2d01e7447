/** The trigger word of a dataset in one field: saved as it is typed; where it was changed elsewhere meanwhile, that is told. */

import { ask } from "./api.js";
import { button, make } from "./dom.js";
import { Drafts } from "./drafts.js";

/** There is one text of that kind. */
const WORD = "trigger";

const HELP = "Calls the style in a prompt. It is put before every caption in the training.";

export class Trigger {
  #base = "";

  /** @param {string} dataset @param {() => void} changed */
  constructor(dataset, changed) {
    const url = `/studio/datasets/${encodeURIComponent(dataset)}/trigger`;
    const write = (_, was, text, keepalive) => ask("PUT", url, { was, text }, { keepalive });
    const saved = ({ caption }) => {
      this.#base = caption;
      changed();
    };
    this.drafts = new Drafts({ write }, saved, () => this.#tell());
    this.text = make("input", {
      type: "text", id: "trigger-word", maxLength: 200, placeholder: "a word of your own, such as vellorn", autocomplete: "off",
      oninput: () => this.drafts.type(WORD, this.#base, this.text.value), onblur: () => this.drafts.flush(WORD),
      onkeydown: (event) => event.key === "Enter" && this.drafts.flush(WORD),
    });
    this.sign = make("span", { className: "studio-hint", role: "status" });
    this.theirs = make("q");
    this.conflict = make(
      "div", { className: "studio-clash", role: "alert", hidden: true },
      make("p", {}, "The trigger word was changed elsewhere meanwhile. It is now: ", this.theirs),
      button("Keep mine", () => this.drafts.keepMine(WORD)),
      button("Take theirs", () => this.#takeTheirs()),
    );
    const label = make("label", { htmlFor: "trigger-word" }, "Trigger word");
    this.node = make(
      "div", { className: "studio studio-beside studio-trigger" }, make("div", { className: "studio-line" }, label, this.sign), this.text,
      make("p", { className: "studio-hint" }, HELP), this.conflict,
    );
  }

  /** What the word is on the disk. @param {string} word */
  show(word) {
    if (this.drafts.of(WORD) || word === this.#base) return;
    this.#base = this.text.value = word;
  }

  #takeTheirs() {
    this.#base = this.text.value = this.drafts.takeTheirs(WORD);
    this.#tell();
  }

  #tell() {
    const draft = this.drafts.of(WORD);
    this.conflict.hidden = !draft || draft.conflict === null;
    this.theirs.textContent = draft?.conflict || "empty";
    this.sign.textContent = draft?.failed ? `Not saved yet. ${draft.failed}` : draft ? "Saving …" : "Saved";
  }
}
