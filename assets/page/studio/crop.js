/**
 * What training sees, drawn on a picture: the rest is dim. Dragging moves it; by hand it can be cut to any part. All lengths are
 * shares of the picture. Knows no request: what a person wants is told with the picture's name.
 */

import { make } from "./dom.js";

/** How far an arrow key moves what is seen, and with Shift. */
const [STEP, LEAP] = [0.01, 0.05];

/** Smallest side of a part that is cut by hand. */
const LEAST = 0.05;

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Milliseconds after the last key until it is told. */
const PAUSE = 200;

const HELP = "What training sees. Arrow keys move it, plus and minus cut a part by hand, Backspace resets it.";

export class Crop {
  /** @type {string | null} */
  #name = null;
  /** @type {{box: number[], crop: number[] | null} | null} */
  #seen = null;
  #byHand = false;
  #timer = 0;
  /** @type {(() => void) | null} what keys have changed and nobody was told yet */
  #untold = null;

  /** @param {(name: string, placed: {crop?: number[] | null, focus?: number[] | null}) => void} place */
  constructor(place) {
    this.place = place;
    this.image = make("img", { alt: "", draggable: false });
    this.part = make("div", { className: "studio-part" }, ...["nw", "ne", "sw", "se"].map((at) => make("i", { className: at })));
    this.box = make("div", { className: "studio-seen" });
    this.node = make(
      "div",
      {
        className: "studio-crop", tabIndex: 0, role: "group", "aria-label": HELP, title: "Drag to move what training sees",
        onpointerdown: (event) => this.#drag(event), onkeydown: (event) => this.#key(event), ondblclick: () => this.reset(),
      },
      this.image, this.box, this.part,
    );
  }

  /** Another picture, of which nothing is known yet. */
  open(name, ratio) {
    this.tell();
    [this.#name, this.#seen, this.#byHand] = [name, null, false];
    this.node.style.aspectRatio = String(ratio);
    this.node.style.setProperty("--ratio", String(ratio));
    this.#draw();
  }

  /** What training sees of picture `name`, as the program says. */
  show(name, seen) {
    if (name !== this.#name || this.#untold || this.moving) return;
    this.#seen = { box: [...seen.box], crop: seen.crop && [...seen.crop] };
    this.#byHand ||= Boolean(seen.crop);
    this.#draw();
  }

  /** Whether a part is being cut by hand. */
  get byHand() {
    return this.#byHand;
  }

  /** Begin to cut a part: handles at the corners of what is seen. */
  cut() {
    if (!this.#seen) return;
    this.#byHand = true;
    this.#seen.crop ??= [...this.#seen.box];
    this.#draw();
    this.node.focus();
  }

  /** As it comes. */
  reset() {
    this.#byHand = false;
    this.#untold = null;
    clearTimeout(this.#timer);
    if (this.#name) this.place(this.#name, { crop: null, focus: null });
  }

  /** Tell at once what keys have changed. */
  tell() {
    clearTimeout(this.#timer);
    this.#untold?.();
    this.#untold = null;
  }

  #draw() {
    this.node.classList.toggle("known", this.#seen !== null);
    lay(this.box, this.#seen?.box);
    lay(this.part, (this.#byHand && this.#seen?.crop) || undefined);
  }

  /** The person has moved or cut what is seen. */
  #changed() {
    const { box, crop } = this.#seen;
    const placed = this.#byHand ? { crop } : { focus: [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2] };
    this.place(this.#name, placed);
  }

  /** Move what is seen by shares of the picture, no further than to its edges. */
  #move(start, across, down) {
    this.#lay(within(start, across, down));
  }

  #lay(part) {
    this.#seen.box = part;
    if (this.#byHand) this.#seen.crop = part;
    this.#draw();
  }

  /** What moves: the part that was cut, or else the bucket's crop. */
  get #moving() {
    return [...((this.#byHand && this.#seen.crop) || this.#seen.box)];
  }

  #drag(event) {
    if (!this.#seen || event.button !== 0) return;
    const corner = this.#byHand ? event.target.closest(".studio-part i")?.className : undefined;
    const bounds = this.node.getBoundingClientRect();
    const start = this.#moving;
    const [x, y] = [event.clientX, event.clientY];
    let moved = false;
    const move = (now) => {
      const by = [(now.clientX - x) / bounds.width, (now.clientY - y) / bounds.height];
      moved ||= Math.hypot(now.clientX - x, now.clientY - y) > 3;
      if (!moved) return;
      if (corner) this.#lay(stretched(start, corner, by));
      else this.#move(start, ...by);
    };
    const end = () => {
      this.moving = false;
      for (const [kind, listener] of Object.entries(listeners)) this.node.removeEventListener(kind, listener);
      if (moved) this.#changed();
    };
    const listeners = { pointermove: move, pointerup: end, pointercancel: end };
    for (const [kind, listener] of Object.entries(listeners)) this.node.addEventListener(kind, listener);
    this.moving = true;
    this.node.setPointerCapture(event.pointerId);
  }

  #key(event) {
    const arrow = ARROWS[event.key];
    const growth = { "+": 1, "=": 1, "-": -1 }[event.key];
    if (!this.#seen || event.ctrlKey || event.metaKey || event.altKey) return;
    if (arrow) {
      const far = event.shiftKey ? LEAP : STEP;
      this.#move(this.#moving, arrow[0] * far, arrow[1] * far);
    } else if (growth) {
      this.cut();
      const [left, top, right, bottom] = this.#seen.crop;
      const by = [growth * STEP * 2 * (right - left), growth * STEP * 2 * (bottom - top)];
      this.#lay([Math.max(0, left - by[0]), Math.max(0, top - by[1]), Math.min(1, right + by[0]), Math.min(1, bottom + by[1])]);
    } else if (event.key === "Backspace" || event.key === "Delete") {
      event.preventDefault();
      event.stopPropagation();
      return this.reset();
    } else return;
    event.preventDefault();
    this.#untold = () => this.#changed();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.tell(), PAUSE);
  }
}

/** Lay an element over a part of the picture. @param {number[] | undefined} part */
function lay(node, part) {
  node.hidden = !part;
  if (!part) return;
  const [left, top, right, bottom] = part.map((share) => `${(share * 100).toFixed(3)}%`);
  node.style.inset = `${top} calc(100% - ${right}) calc(100% - ${bottom}) ${left}`;
}

/** A part moved by shares, kept within the picture. @param {number[]} part @returns {number[]} */
function within([left, top, right, bottom], across, down) {
  const x = Math.max(-left, Math.min(across, 1 - right));
  const y = Math.max(-top, Math.min(down, 1 - bottom));
  return [left + x, top + y, right + x, bottom + y];
}

/** A part whose corner was dragged, at least `LEAST` wide and high. @param {string} corner @returns {number[]} */
function stretched([left, top, right, bottom], corner, [across, down]) {
  const west = corner.includes("w") ? Math.max(0, Math.min(left + across, right - LEAST)) : left;
  const east = corner.includes("e") ? Math.min(1, Math.max(right + across, left + LEAST)) : right;
  const north = corner.includes("n") ? Math.max(0, Math.min(top + down, bottom - LEAST)) : top;
  const south = corner.includes("s") ? Math.min(1, Math.max(bottom + down, top + LEAST)) : bottom;
  return [west, north, east, south];
}
