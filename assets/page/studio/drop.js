/**
 * Where pictures are dropped, chosen or pasted: files, folders, zips. They are sent one by one, then added by the program, which
 * goes on when the page is closed. Knows how that goes; knows nothing of the pictures in the dataset.
 */

import { ask } from "./api.js";
import { button, choice, count, make } from "./dom.js";

/** Files that are sent side by side. */
const SIDE_BY_SIDE = 3;

/** Sentences that are listed. */
const MOST_TOLD = 300;

const BACKGROUNDS = [["white", "White"], ["grey", "Grey"], ["black", "Black"]];

/** @typedef {{file: File, path: string}} Sent a file and its path in the dropped folder */

export class Drop {
  #sending = false;
  #given = 0;
  #stopped = false;
  /** @type {{sent: Sent[], dataset: string}[]} what was dropped while something else was being sent */
  #waiting = [];
  background = "white";

  /** @param {{dataset: () => string, added: (dataset: string, begun: boolean) => void}} acts `added`: the program adds to it now */
  constructor(acts) {
    this.acts = acts;
    const chosen = (event) => {
      this.take([...event.target.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
      event.target.value = "";
    };
    this.files = make("input", { type: "file", multiple: true, hidden: true, onchange: chosen });
    this.folder = make("input", { type: "file", webkitdirectory: true, hidden: true, onchange: chosen });
    this.fill = make("i");
    this.bar = make("div", { className: "impasto-bar", hidden: true }, this.fill);
    this.told = make("p", { role: "status", className: "studio-how" });
    this.stop = button("Stop", () => this.#stop(), { hidden: true, title: "What is in stays" });
    this.dismiss = button("Close", () => this.#dismiss(), { hidden: true });
    this.refused = make("ul");
    this.changed = make("ul");
    this.refusedFold = fold("", this.refused, true);
    this.changedFold = fold("", this.changed, false);
    const zone = make(
      "div", { className: "studio-zone" },
      make("p", {}, "Drop pictures, a folder or a zip here, or paste a picture"),
      make(
        "div", { className: "studio-line" }, button("Choose files", () => this.files.click()),
        button("Choose a folder", () => this.folder.click()),
      ),
    );
    const how = make(
      "details", { className: "studio-more" }, make("summary", {}, "See-through pictures"),
      make("div", { className: "studio-line" }, make("span", {}, "What is transparent becomes"),
        choice("Colour behind transparent parts", BACKGROUNDS, (colour) => (this.background = colour))),
    );
    this.about = make(
      "div", { className: "studio-arrivals", hidden: true }, this.bar,
      make("div", { className: "studio-line" }, this.told, this.stop, this.dismiss), this.refusedFold, this.changedFold,
    );
    this.node = make("div", { className: "studio studio-beside" }, this.files, this.folder, zone, how, this.about);
    this.zone = zone;
    this.#listen();
  }

  /** Whether files are being sent: they are lost if the page is closed now. */
  get sending() {
    return this.#sending;
  }

  /** How the adding goes, as the program says; null: there is nothing to tell. */
  show(adding) {
    if (this.#sending) return;
    this.about.hidden = !adding;
    if (!adding) return;
    const { done, total, added, refused, changed, busy, stopped } = adding;
    this.#progress(busy, total ? done / total : 0);
    const most = stopped ? "Stopped. " : "";
    this.told.textContent = busy
      ? `Adding ${done.toLocaleString("en")} of ${total.toLocaleString("en")} …`
      : `${most}${count(added, "picture")} added${refused.length ? `, ${refused.length.toLocaleString("en")} not` : ""}.`;
    this.dismiss.hidden = busy;
    list(this.refusedFold, this.refused, refused, `${count(refused.length, "file")} not added`);
    list(this.changedFold, this.changed, changed, `${count(changed.length, "picture")} renamed, turned or converted on the way`);
  }

  /** Send files, after those that are being sent, and have them added. @param {Sent[]} sent */
  async take(sent, dataset = this.acts.dataset()) {
    if (!sent.length) return;
    if (this.#sending) return void this.#waiting.push({ sent, dataset });
    [this.#sending, this.#stopped, this.#given] = [true, false, 0];
    this.about.hidden = false;
    this.refusedFold.hidden = this.changedFold.hidden = this.dismiss.hidden = true;
    let [parcel, into] = ["", dataset];
    try {
      parcel = await ask("POST", "/studio/parcels");
      await this.#send(parcel, sent);
      if (this.#stopped) throw new Error("Stopped: nothing was added.");
      into = await ask("POST", `/studio/parcels/${parcel}/add`, { dataset, background: this.background });
      this.#sending = false;
      this.acts.added(into, !dataset);
    } catch (error) {
      [this.#sending, this.#waiting] = [false, []];
      this.#progress(false, 0);
      this.#tell(error.message);
      this.dismiss.hidden = false;
      if (parcel) ask("DELETE", `/studio/parcels/${parcel}`).catch(() => {});
    }
    const next = this.#waiting.shift();
    if (next) await this.take(next.sent, next.dataset || into);
  }

  async #send(parcel, sent) {
    const bytes = sent.reduce((sum, { file }) => sum + file.size, 0) || 1;
    const rest = sent.values();
    let [there, failed] = [0, null];
    const tell = () => {
      this.#progress(true, this.#given / bytes);
      const more = this.#waiting.length ? "; more files wait" : "";
      this.#tell(`Copying ${there.toLocaleString("en")} of ${count(sent.length, "file")}${more} …`);
    };
    tell();
    const worker = async () => {
      for (const { file, path } of rest) {
        if (this.#stopped || failed) return;
        await put(`/studio/parcels/${parcel}/file?path=${encodeURIComponent(path)}`, file, (more) => {
          this.#given += more;
          tell();
        }).catch((error) => (failed ??= error));
        there += 1;
        tell();
      }
    };
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
    if (failed) throw failed; // only now, when nobody tells of progress any more
  }

  async #stop() {
    this.#stopped = true;
    if (!this.#sending) await ask("POST", `/studio/datasets/${encodeURIComponent(this.acts.dataset())}/stop`).catch(() => {});
  }

  async #dismiss() {
    this.about.hidden = true;
    const dataset = this.acts.dataset();
    if (dataset) await ask("POST", `/studio/datasets/${encodeURIComponent(dataset)}/seen`).catch(() => {});
  }

  #progress(busy, share) {
    this.bar.hidden = this.stop.hidden = !busy;
    this.fill.style.width = `${(share * 100).toFixed(1)}%`;
  }

  #tell(sentence) {
    this.about.hidden = false;
    this.told.textContent = sentence;
  }

  /** Files may be dropped anywhere on the page while this is in sight, and pasted where no text is. */
  #listen() {
    const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    const seen = () => this.node.isConnected && this.node.offsetParent !== null;
    document.addEventListener("dragover", (event) => {
      if (event.defaultPrevented || !holdsFiles(event)) return;
      event.preventDefault(); // else the browser would leave the page for the file
      this.zone.classList.toggle("over", seen());
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget || this.zone.classList.remove("over"));
    document.addEventListener("drop", async (event) => {
      this.zone.classList.remove("over");
      if (event.defaultPrevented || !holdsFiles(event)) return;
      event.preventDefault();
      if (seen()) await this.take(await dropped(event.dataTransfer));
    });
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (!seen() || !files.length || event.target.closest?.("input, textarea, [contenteditable]")) return;
      event.preventDefault();
      this.take(files.map((file) => ({ file, path: file.name === "image.png" ? "pasted.png" : file.name })));
    });
    addEventListener("beforeunload", (event) => this.#sending && event.preventDefault());
  }
}

/** All files of what was dropped, those in folders with their paths. @param {DataTransfer} transfer @returns {Promise<Sent[]>} */
async function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? null); // all of them now: they are gone after an await
  const files = items.map((item) => item.getAsFile());
  const found = await Promise.all(entries.map((entry, at) => (entry ? within(entry) : [{ file: files[at], path: files[at].name }])));
  return found.flat();
}

/** @param {any} entry a file or a folder @returns {Promise<Sent[]>} */
async function within(entry) {
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    return [{ file, path: entry.fullPath.slice(1) }];
  }
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed)); // a hundred at a time
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(within))).flat();
}

/** Send a file. @param {string} url @param {File} file @param {(bytes: number) => void} more so many more are sent */
function put(url, file, more) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    let before = 0;
    request.upload.onprogress = ({ loaded }) => {
      more(Math.min(loaded, file.size) - before);
      before = Math.min(loaded, file.size);
    };
    request.onload = () => (request.status < 300 ? done() : failed(new Error(reason(request))));
    request.onerror = () => failed(new Error(`${file.name} could not be read or sent. Is it still there, and the program running?`));
    request.open("PUT", url);
    request.send(file);
  });
}

function reason(request) {
  try {
    return JSON.parse(request.responseText).message;
  } catch {
    return `The program could not take that (${request.status}).`;
  }
}

/** A fold with a list in it. */
function fold(title, content, open) {
  return make("details", { className: "studio-more", open, hidden: true }, make("summary", {}, title), content);
}

/** Fill such a list, if that has changed. */
function list(node, content, sentences, title) {
  node.hidden = !sentences.length;
  if (node.firstChild.textContent === title) return;
  node.firstChild.textContent = title;
  const more = sentences.length > MOST_TOLD ? [`… and ${(sentences.length - MOST_TOLD).toLocaleString("en")} more`] : [];
  content.replaceChildren(...[...sentences.slice(0, MOST_TOLD), ...more].map((sentence) => make("li", {}, sentence)));
}
