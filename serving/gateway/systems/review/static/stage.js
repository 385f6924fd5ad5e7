// The image: zoom and pan by mouse, pen, fingers and keys; or the model's view of it with what it looked at.

import { make } from "./parts.js";

const MOST = 16;

export class Stage {
  constructor(label) {
    this.scale = 1;
    this.x = this.y = 0;
    this.photo = make("img", { alt: label, draggable: "false" });
    this.view = make("img", { alt: "", draggable: "false", hidden: true });
    this.shown = make("img", { alt: "", draggable: "false", hidden: true });
    this.element = make("div", { class: "stage", role: "group", "aria-label": `${label}. Zoom with plus and minus, move with the arrows.`, tabindex: "0" }, this.photo, this.view, this.shown);
    this.pointers = new Map();
    this.photo.addEventListener("load", () => this.whole());
    for (const image of [this.view, this.shown]) image.addEventListener("load", () => this.draw());
    this.element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.element.addEventListener("pointerdown", (event) => this.down(event));
    this.element.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      this.element.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    this.element.addEventListener("dblclick", () => (this.scale > 1 ? this.whole() : this.zoom(3)));
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(this.element);
  }

  photograph(address) {
    this.photo.src = address;
  }

  // What the model was given, and on top of it what it looked at: the two have one geometry, the photograph its own.
  explanation(view, overlay) {
    this.view.src = view;
    this.shown.src = overlay;
  }

  get on() {
    return !this.shown.hidden;
  }

  show(on) {
    this.shown.hidden = this.view.hidden = !on;
    this.photo.hidden = on;
    this.whole();
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
    const place = (image) => {
      const w = image.naturalWidth;
      const h = image.naturalHeight;
      if (!w || !h || !width) return;
      const fit = Math.min(width / w, height / h) * this.scale;
      const slackX = Math.max(0, (w * fit - width) / 2);
      const slackY = Math.max(0, (h * fit - height) / 2);
      this.x = Math.min(slackX, Math.max(-slackX, this.x));
      this.y = Math.min(slackY, Math.max(-slackY, this.y));
      image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${fit}) translate(-50%, -50%)`;
    };
    for (const image of [this.photo, this.view, this.shown]) if (!image.hidden) place(image);
  }

  wheel(event) {
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
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const far = (a, b) => Math.hypot(a.x - b.x, a.y - b.y) || 1;
      this.zoom(far(now, other) / far(before, other), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
    } else {
      this.pan(now.x - before.x, now.y - before.y);
    }
    this.pointers.set(event.pointerId, now);
  }

  key(key) {
    const step = 60;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[key]) this.pan(...moves[key]);
    else if (key === "+" || key === "=") this.zoom(1.5);
    else if (key === "-" || key === "−") this.zoom(1 / 1.5);
    else if (key === "0") this.whole();
    else return false;
    return true;
  }

  close() {
    this.watch.disconnect();
  }
}
