/**
 * What belongs to a dataset as a whole, around the gallery: the drop zone in `#drop`, the trigger word in `#trigger`, the findings
 * in `#findings`, the mask painter in `#mask`. Asks the program how things are: often while something is under way, else seldom.
 */

import { ask } from "./api.js";
import { button, make } from "./dom.js";
import { Drop } from "./drop.js";
import { Findings } from "./findings.js";
import { Painter } from "./painter.js";
import * as gallery from "./studio.js";
import { Trigger } from "./trigger.js";

/** Milliseconds between two questions while something is under way, and while nothing is. */
const [BUSY, IDLE] = [400, 4000];

/** @type {Record<string, any>} the settings of the next training that differ from their defaults */
let settings = {};

class Work {
  dataset = "";
  #timer = 0;
  #asked = 0;

  constructor() {
    this.drop = new Drop({ dataset: () => this.dataset, added: (dataset, begun) => this.#added(dataset, begun) });
    this.findings = new Findings({
      show: ({ sentence, names }) => this.#show(sentence, names),
      mend: (finding) => this.#mend(finding),
    });
    this.painter = new Painter({ open: gallery.opened, saved: gallery.refresh });
    this.said = make("p", { className: "studio-how", role: "status" });
    this.findings.node.append(this.said);
  }

  /** Show a dataset; "": there is none yet. @param {string} dataset */
  async open(dataset) {
    place("drop", this.drop.node);
    place("findings", this.findings.node);
    place("mask", this.painter.node);
    if (dataset !== this.dataset || !this.trigger) {
      await this.trigger?.drafts.flushAll();
      this.dataset = dataset;
      this.said.textContent = "";
      this.drop.show(null);
      this.findings.clear();
      this.painter.show(dataset);
      this.trigger = dataset ? new Trigger(dataset, () => this.look()) : null;
      const zip = make("a", { className: "studio-zip", href: `${this.#url}/zip`, download: "" }, "Download this dataset as a zip");
      place("trigger", ...(this.trigger ? [this.trigger.node, zip] : []));
    }
    remember(dataset);
    await this.look();
  }

  /** The gallery has changed the dataset. */
  changed() {
    this.said.textContent = "";
    this.look();
  }

  /** Ask how things are. */
  async look() {
    clearTimeout(this.#timer);
    const { dataset } = this;
    if (!dataset) return;
    const asked = ++this.#asked;
    const work = await ask("POST", `${this.#url}/work`, { settings }).catch((error) => ({ message: error.message }));
    if (asked !== this.#asked || dataset !== this.dataset) return;
    if (work.message) this.findings.fail(work.message);
    else this.#told(work);
    const under = !work.message && (work.adding?.busy || work.report.busy);
    this.#timer = setTimeout(() => this.look(), under ? BUSY : IDLE);
  }

  get #url() {
    return `/studio/datasets/${encodeURIComponent(this.dataset)}`;
  }

  #told({ trigger, pictures, adding, report }) {
    this.trigger.show(trigger);
    this.drop.show(adding);
    this.findings.show(report, pictures);
    if (adding?.busy) gallery.refresh();
  }

  async #added(dataset, begun) {
    if (begun) {
      window.impasto.made = dataset;
      document.getElementById("dataset-made")?.click(); // Gradio's part of the page opens it
    }
    await this.look();
  }

  #show(sentence, names) {
    gallery.filter({ title: sentence, names });
    document.getElementById("studio").scrollIntoView({ block: "start", behavior: "smooth" });
  }

  /** Take the mending back: it is the last change, or else its button would have gone. */
  async #undo() {
    this.said.textContent = "";
    await ask("POST", `${this.#url}/undo`).catch((error) => (this.said.textContent = error.message));
    await gallery.refresh();
    await this.look();
  }

  async #mend({ kind, names }) {
    try {
      const done = await ask("POST", `${this.#url}/mend`, { kind, names, settings });
      this.said.replaceChildren(`${done} `, button("Undo", () => this.#undo()));
    } catch (error) {
      this.said.textContent = error.message;
    }
    gallery.filter(null);
    await gallery.refresh();
    await this.look();
  }
}

/** Put nodes, and nothing else, into an element of the page. */
function place(id, ...nodes) {
  const host = document.getElementById(id)?.querySelector("[data-host]");
  if (host && (host.firstChild !== nodes[0] || !nodes.length)) host.replaceChildren(...nodes);
}

/** The dataset that is to be shown when the page is loaded again; see `LAST` in app/tabs/dataset.py. */
function remember(dataset) {
  try {
    localStorage.setItem("impasto-dataset", dataset);
  } catch {
    // where the browser keeps nothing, the first dataset is shown
  }
}

const work = new Work();

/** Show a dataset, its pictures and all. @param {string | null} dataset */
export async function open(dataset) {
  await Promise.all([gallery.open(dataset), work.open(dataset ?? "")]);
}

/** The settings that a training would have now, as JSON. @param {string} given */
export function plan(given) {
  const planned = JSON.parse(given || "{}");
  if (planned.resolution !== settings.resolution) gallery.resolution(planned.resolution);
  settings = planned;
  work.look();
}

document.addEventListener("impasto:changed", () => work.changed());
addEventListener("pagehide", () => work.trigger?.drafts.leave());
