/** The mask of a picture, painted on it: what is covered is learnt where masked loss is on. Knows no other picture. */

import { ask } from "./api.js";
import { button, make } from "./dom.js";

const PAINT = "#e9b555";

/** Strokes that can be taken back. */
const KEPT = 12;

const HELP = "Paint over what is to be learnt; the rest counts for nothing in a training with masked loss (under Train, Settings).";

export class Painter {
  #url = "";
  #name = "";
  #erasing = false;
  #changed = false;
  /** @type {ImageData[]} */
  #before = [];

  /** @param {{open: () => string | null, saved: () => void}} acts `open`: the picture that is open in the gallery */
  constructor(acts) {
    this.acts = acts;
    this.image = make("img", { alt: "", draggable: false });
    this.canvas = make("canvas", { "aria-label": "Paint the mask here", onpointerdown: (event) => this.#stroke(event) });
    this.size = make("input", { type: "range", min: 4, max: 160, value: 48, "aria-label": "Size of the brush" });
    this.eraser = button("Erase", () => this.#erase(!this.#erasing), { "aria-pressed": "false" });
    this.back = button("Take back a stroke", () => this.#takeBack(), { disabled: true });
    this.save = button("Save mask", () => this.#attempt(() => this.#save()), { className: "studio-go", disabled: true });
    this.remove = button("Remove mask", () => this.#attempt(() => this.#remove()), { className: "studio-remove", disabled: true });
    this.told = make("p", { className: "studio-hint", role: "status" });
    this.easel = make("div", { className: "studio-easel", hidden: true }, this.image, this.canvas);
    const tools = make(
      "div", { className: "studio-line" }, button("Take the open picture", () => this.#attempt(() => this.#take())),
      make("label", {}, "Brush ", this.size), this.eraser, this.back, this.save, this.remove,
    );
    this.fold = make(
      "details", { className: "studio-more studio-painter", ontoggle: () => this.fold.open && !this.#name && this.#attempt(() => this.#take()) },
      make("summary", {}, "Mask of the open picture"), make("p", { className: "studio-hint" }, HELP), tools, this.told, this.easel,
    );
    this.node = make("div", { className: "studio studio-beside" }, this.fold);
  }

  /** Another dataset is shown. @param {string} dataset */
  show(dataset) {
    this.dataset = dataset;
    this.node.hidden = !dataset;
    this.#clear("");
    this.fold.open = false;
  }

  async #take() {
    const name = this.acts.open();
    if (!name) throw new Error("Open a picture in the list first.");
    if (this.#changed && name !== this.#name && this.told.dataset.asked !== name) {
      this.told.dataset.asked = name;
      throw new Error(`What you painted on ${this.#name} is not saved. Save it, or press once more to leave it.`);
    }
    const url = `/studio/datasets/${encodeURIComponent(this.dataset)}/pictures/${encodeURIComponent(name)}`;
    await loaded(this.image, `${url}/copy?side=768&moment=${Date.now()}`);
    const answer = await fetch(`${url}/mask`);
    if (!answer.ok) throw new Error((await answer.json()).message);
    this.#clear(name);
    this.#url = url;
    this.easel.hidden = false;
    this.canvas.width = this.image.naturalWidth;
    this.canvas.height = this.image.naturalHeight;
    this.remove.disabled = answer.status === 204;
    if (answer.status !== 204) {
      const mask = await createImageBitmap(await answer.blob());
      this.#pen.drawImage(mask, 0, 0, this.canvas.width, this.canvas.height);
    }
    this.save.textContent = `Save mask of ${name}`;
    this.told.textContent = answer.status === 204 ? `${name} has no mask: all of it is learnt.` : `The mask of ${name}.`;
  }

  async #save() {
    const painted = await new Promise((done) => this.canvas.toBlob(done, "image/png"));
    const answer = await fetch(`${this.#url}/mask`, { method: "PUT", headers: { "Content-Type": "image/png" }, body: painted });
    if (!answer.ok) throw new Error((await answer.json()).message);
    this.#saved(`Saved. Undo, beside the pictures, takes it back.`);
    this.remove.disabled = false;
  }

  async #remove() {
    await ask("DELETE", `${this.#url}/mask`);
    this.#pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.#before = [];
    this.#saved(`Removed: all of ${this.#name} is learnt. Undo, beside the pictures, takes it back.`);
    this.remove.disabled = true;
  }

  #saved(sentence) {
    this.#changed = false;
    this.save.disabled = true;
    this.told.textContent = sentence;
    this.acts.saved();
  }

  #clear(name) {
    [this.#name, this.#changed, this.#before] = [name, false, []];
    this.easel.hidden = !name;
    this.save.disabled = this.remove.disabled = this.back.disabled = true;
    this.told.textContent = this.told.dataset.asked = "";
    this.#erase(false);
  }

  /** Do something; what goes wrong is told. */
  async #attempt(work) {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.told.textContent = error.message;
    }
  }

  get #pen() {
    return this.canvas.getContext("2d", { willReadFrequently: true });
  }

  #erase(erasing) {
    this.#erasing = erasing;
    this.eraser.setAttribute("aria-pressed", String(erasing));
  }

  #takeBack() {
    this.#pen.putImageData(this.#before.pop(), 0, 0);
    this.back.disabled = !this.#before.length;
  }

  #stroke(event) {
    if (event.button !== 0) return;
    const [pen, bounds] = [this.#pen, this.canvas.getBoundingClientRect()];
    const scale = this.canvas.width / bounds.width;
    const at = ({ clientX, clientY }) => [(clientX - bounds.left) * scale, (clientY - bounds.top) * scale];
    this.#before = [...this.#before.slice(1 - KEPT), pen.getImageData(0, 0, this.canvas.width, this.canvas.height)];
    Object.assign(pen, {
      globalCompositeOperation: this.#erasing ? "destination-out" : "source-over", strokeStyle: PAINT, lineCap: "round",
      lineJoin: "round", lineWidth: Number(this.size.value) * scale,
    });
    let last = at(event);
    const move = (now) => {
      pen.beginPath();
      pen.moveTo(...last);
      last = at(now);
      pen.lineTo(...last);
      pen.stroke();
    };
    const end = () => {
      this.canvas.removeEventListener("pointermove", move);
      this.#changed = true;
      this.save.disabled = this.back.disabled = false;
    };
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.addEventListener("pointermove", move);
    for (const over of ["pointerup", "pointercancel"]) this.canvas.addEventListener(over, end, { once: true });
    move(event); // a click is a dot
    event.preventDefault();
  }
}

/** Show a picture. @param {HTMLImageElement} image @param {string} address @returns {Promise<void>} when it is there */
function loaded(image, address) {
  return new Promise((done, failed) => {
    image.onload = () => done();
    image.onerror = () => failed(new Error("The picture could not be shown: it may have been removed."));
    image.src = address;
  });
}
