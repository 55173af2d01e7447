/** What there is to say of a dataset: a summary, and findings that show their pictures and can be mended. Makes no request. */

import { button, count, make } from "./dom.js";

/** Kinds of findings whose files the gallery may not have: they are named. */
const UNSEEN = ["damaged", "lone"];

const MOST_NAMED = 12;

/** So many are shown at first: the list has no window of its own, in which the rest would go unseen. */
const FIRST = 6;

/**
 * @typedef {{kind: string, sentence: string, names: string[], mend: string, advice: string}} Finding
 * @typedef {{busy: boolean, done: number, total: number, summary: string, findings: Finding[]}} Report
 */

export class Findings {
  #drawn = "";
  #all = false;

  /** @param {{show: (finding: Finding) => void, mend: (finding: Finding) => Promise<void>}} acts */
  constructor(acts) {
    this.acts = acts;
    this.summary = make("p", { className: "studio-hint" });
    this.sign = make("span", { className: "studio-hint", role: "status" });
    this.title = make("h3", {}, "Findings");
    this.list = make("ul");
    this.rest = button("", () => this.#fold(true), { className: "studio-rest" });
    this.node = make(
      "section", { className: "studio studio-beside studio-findings", "aria-label": "Findings", hidden: true }, this.summary,
      make("div", { className: "studio-line" }, this.title, this.sign), this.list,
      this.rest,
    );
  }

  /** Another dataset: nothing is known of it yet. */
  clear() {
    this.node.hidden = true;
    this.#fold(false);
  }

  /** What is known now. @param {Report} report @param {number} pictures of the dataset */
  show(report, pictures) {
    this.node.hidden = !pictures && !report.findings.length;
    this.summary.textContent = report.summary;
    const { findings, busy, done, total } = report;
    this.sign.textContent = busy ? (total ? `Looking at ${done.toLocaleString("en")} of ${count(total, "picture")} …` : "Looking …") : "";
    this.title.textContent = findings.length ? `Findings (${findings.length})` : busy ? "Findings" : "Nothing was found that needs mending.";
    const drawn = JSON.stringify(findings);
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    this.list.replaceChildren(...findings.map((finding) => this.#row(finding)));
    this.#fold(this.#all);
  }

  /** Show the first rows only, or all of them; a single one more needs no button. */
  #fold(all) {
    this.#all = all;
    const rows = [...this.list.children];
    this.rest.hidden = all || rows.length <= FIRST + 1;
    this.rest.textContent = `Show all ${rows.length} findings`;
    for (const row of rows.slice(FIRST)) row.hidden = !this.rest.hidden;
  }

  /** Nothing can be known. @param {string} reason */
  fail(reason) {
    this.node.hidden = false;
    this.sign.textContent = reason;
  }

  #row(finding) {
    const acts = make("span", { className: "studio-acts" });
    const hidden = UNSEEN.includes(finding.kind);
    if (finding.names.length && !hidden) acts.append(button("Show", () => this.acts.show(finding), { title: "Show only these pictures" }));
    if (finding.mend) {
      const mend = button(finding.mend, async () => {
        mend.disabled = true;
        await this.acts.mend(finding);
        mend.disabled = false;
      });
      acts.append(mend);
    }
    const told = make("p", {}, finding.sentence);
    const names = hidden ? [finding.names.slice(0, MOST_NAMED).join(", ") + (finding.names.length > MOST_NAMED ? " …" : "")] : [];
    for (const line of [finding.advice, ...names].filter(Boolean)) told.append(make("small", {}, line));
    const row = make("li", {}, told, acts);
    row.dataset.kind = finding.kind;
    return row;
  }
}
