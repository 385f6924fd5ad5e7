// The image: zoom and pan by mouse, pen, fingers and keys; the model's view of it with what it looked at; or an
// earlier photograph in its place.

import { picture } from "./api.js";
import { make } from "./parts.js";

const MOST = 16;
const STEP = 60;
const far = (a, b) => Math.hypot(a.x - b.x, a.y - b.y) || 1;

export class Stage {
  // `told(error)` is called where a picture can't be had.
  constructor(label, told) {
    this.scale = 1;
    this.x = this.y = 0;
    this.told = told;
    this.onmain = () => null;
    this.addresses = [];
    this.pointers = new Map();
    const layer = (alt) => make("img", { alt, draggable: "false", hidden: true });
    [this.photo, this.view, this.shown, this.other] = [layer(label), layer(""), layer(""), layer("Earlier photograph")];
    this.word = make("p", { class: "word", role: "status" }, "Loading the photograph …");
    this.element = make("div",
      { class: "stage", role: "group", "aria-label": `${label}. Plus and minus zoom, the arrows move it.`, tabindex: "0" },
      this.photo, this.view, this.shown, this.other, this.word);
    this.zoomed = make("output", { class: "number soft", "aria-label": "Zoom" }, "100 %");
    for (const image of this.layers) image.addEventListener("load", () => this.draw());
    const on = (name, work, options) => this.element.addEventListener(name, work, options);
    on("wheel", (event) => this.wheel(event), { passive: false });
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.pointers.delete(event.pointerId));
    on("dblclick", (event) => (this.scale > 1 ? this.whole() : this.zoom(3, this.at(event))));
    // One finger scrolls the page past a whole image; two fingers, and one on a zoomed image, are ours.
    on("touchmove", (event) => (event.touches.length > 1 || this.scale > 1) && event.cancelable && event.preventDefault(), { passive: false });
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(this.element);
  }

  get layers() {
    return [this.photo, this.view, this.shown, this.other];
  }

  async load(image, path) {
    const { address, version } = await picture(path);
    this.addresses.push(address);
    image.src = address;
    await image.decode();
    return version;
  }

  async photograph(path) {
    try {
      await this.load(this.photo, path);
      // What was asked for meanwhile, and came first, stays.
      if (this.layers.some((image) => !image.hidden)) return;
      this.tell("");
      this.only(this.photo);
    } catch (error) {
      this.tell(error.message && error.status !== undefined ? error.message : "The photograph can't be shown.");
      this.told(error);
    }
  }

  // What the model was given, and on top of it what it looked at: the two have one geometry, the photograph its
  // own. Said where another version drew it than the one that answered. Whether it is on now.
  async explain(view, overlay, answered) {
    if (this.on) {
      this.only(this.photo);
      return false;
    }
    if (!this.asked) {
      this.tell("Asking the model …");
      try {
        this.asked = Promise.all([this.load(this.view, view), this.load(this.shown, overlay)]);
        await this.asked;
      } catch (error) {
        this.asked = null;
        throw error;
      } finally {
        this.tell("");
      }
    }
    const [, drew] = await this.asked;
    this.onmain();
    this.only(this.view, this.shown);
    if (drew !== null && drew !== answered) this.tell(`Drawn by version ${drew}, which serves now; version ${answered} gave the answer.`, true);
    return true;
  }

  // An earlier photograph in the place of this one; null goes back.
  async compare(path, caption) {
    if (path === null) return this.only(this.photo);
    this.tell("Loading the earlier photograph …");
    try {
      await this.load(this.other, path);
      this.only(this.other);
      this.tell(caption, true);
    } catch (error) {
      this.tell("");
      this.told(error);
    }
  }

  get on() {
    return !this.shown.hidden;
  }

  only(...images) {
    for (const image of this.layers) image.hidden = !images.includes(image);
    if (!images.includes(this.other)) this.tell("");
    this.whole();
  }

  tell(text, caption = false) {
    this.word.textContent = text;
    this.word.classList.toggle("caption", caption);
  }

  opacity(value) {
    this.shown.style.opacity = String(value);
  }

  whole() {
    this.scale = 1;
    this.x = this.y = 0;
    this.draw();
  }

  zoom(by, at) {
    const before = this.scale;
    this.scale = Math.min(MOST, Math.max(1, this.scale * by));
    const ratio = this.scale / before;
    const { x, y } = at ?? { x: 0, y: 0 };
    this.x = x - (x - this.x) * ratio;
    this.y = y - (y - this.y) * ratio;
    this.draw();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.element;
    for (const image of this.layers) {
      const [w, h] = [image.naturalWidth, image.naturalHeight];
      if (image.hidden || !w || !h || !width) continue;
      const fit = Math.min(width / w, height / h) * this.scale;
      // No further than its edge.
      const [slackX, slackY] = [Math.max(0, (w * fit - width) / 2), Math.max(0, (h * fit - height) / 2)];
      this.x = Math.min(slackX, Math.max(-slackX, this.x));
      this.y = Math.min(slackY, Math.max(-slackY, this.y));
      image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${fit}) translate(-50%, -50%)`;
    }
    this.element.classList.toggle("zoomed", this.scale > 1);
    this.zoomed.textContent = `${Math.round(100 * this.scale)} %`;
  }

  wheel(event) {
    // At its smallest the wheel is the page's, so that nobody is caught in the image.
    if (event.deltaY > 0 && this.scale === 1) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 400), this.at(event));
  }

  at(event) {
    const box = this.element.getBoundingClientRect();
    return { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
  }

  down(event) {
    this.element.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.at(event));
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = this.at(event);
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (this.pointers.size === 2) {
      this.zoom(far(now, other) / far(before, other), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
      this.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
    } else if (this.pointers.size === 1) {
      this.pan(now.x - before.x, now.y - before.y);
    }
    this.pointers.set(event.pointerId, now);
  }

  key(key) {
    const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    if (moves[key]) {
      // A whole image has nowhere to go: the arrows are the page's then.
      if (this.scale === 1) return false;
      this.pan(...moves[key]);
    } else if (key === "+" || key === "=") this.zoom(1.5);
    else if (key === "-" || key === "−") this.zoom(1 / 1.5);
    else if (key === "0") this.whole();
    else return false;
    return true;
  }

  close() {
    this.watch.disconnect();
    for (const address of this.addresses) URL.revokeObjectURL(address);
  }
}
