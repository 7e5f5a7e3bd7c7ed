// The box around the face or person: drawn, moved and resized with mouse, finger and keys.
//
// A box is [x0, y0, x1, y1] in pixels of the picture, whose first pixel's centre is (0, 0), or null for
// the whole picture.

const LEAST = 4; // pixels between opposite sides
const CORNERS = ["x0y0", "x1y0", "x0y1", "x1y1"];

/**
 * Lets the box within an SVG element be edited.
 *
 * @param {SVGSVGElement} svg with a `.box` rectangle and a `.grip` circle for each corner
 * @param {{changed: (box: number[] | null, finished: boolean) => void}} listener told of each change
 */
export class BoxEditor {
  #svg;
  #rectangle;
  #changed;
  #box = null;
  #size = [1, 1];

  constructor(svg, { changed }) {
    this.#svg = svg;
    this.#rectangle = svg.querySelector(".box");
    this.#changed = changed;
    svg.addEventListener("pointerdown", (event) => this.#grab(event));
    // A finger on the box must not scroll the page; the style `touch-action` does not hold in an SVG.
    const hold = (event) => event.target.matches(".box, .grip") && event.preventDefault();
    svg.addEventListener("touchstart", hold, { passive: false });
    this.#rectangle.addEventListener("keydown", (event) => this.#press(event));
  }

  /** Shows a box in a picture of that size, without telling the listener. */
  show(box, [width, height]) {
    this.#box = box;
    this.#size = [width, height];
    const [x0, y0, x1, y1] = this.#corners();
    const attributes = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
    for (const [name, value] of Object.entries(attributes)) {
      this.#rectangle.setAttribute(name, value);
    }
    this.#rectangle.classList.toggle("whole", !box);
    this.#rectangle.setAttribute("aria-label", `Box: ${describe(box)}. ${KEYS}`);
    const places = { x0, y0, x1, y1 };
    for (const corner of CORNERS) {
      const grip = this.#svg.querySelector(`[data-corner=${corner}]`);
      grip.setAttribute("cx", places[corner.slice(0, 2)]);
      grip.setAttribute("cy", places[corner.slice(2)]);
    }
  }

  #corners() {
    const [width, height] = this.#size;
    return this.#box ?? [-0.5, -0.5, width - 0.5, height - 0.5];
  }

  #change(box, finished) {
    this.show(box, this.#size);
    this.#changed(box, finished);
  }

  #grab(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    const corner = event.target.dataset.corner;
    const inside = event.target === this.#rectangle;
    // A finger on the open picture scrolls the page.
    if (!corner && !inside && event.pointerType === "touch") return;
    const start = this.#place(event);
    const before = this.#corners();
    const drag = corner ? this.#resizing(corner, before, start)
      : inside ? (place) => moved(before, place[0] - start[0], place[1] - start[1], this.#size)
        : (place) => spanned(start, this.#within(place));
    let last = null;
    const pointermove = (move) => {
      last = drag(this.#place(move));
      if (last) this.#change(last, false);
    };
    const pointercancel = () => {
      for (const name of Object.keys(handlers)) this.#svg.removeEventListener(name, handlers[name]);
      if (last) this.#change(last, true);
    };
    const pointerup = (end) => {
      if (last) pointermove(end); // unless it was but a click
      pointercancel();
    };
    const handlers = { pointermove, pointerup, pointercancel };
    for (const name of Object.keys(handlers)) this.#svg.addEventListener(name, handlers[name]);
    this.#svg.setPointerCapture(event.pointerId);
    this.#rectangle.focus({ preventScroll: true });
    event.preventDefault();
  }

  #resizing(corner, [x0, y0, x1, y1], start) {
    const x = corner.startsWith("x0") ? x0 : x1;
    const y = corner.endsWith("y0") ? y0 : y1;
    const opposite = [x0 + x1 - x, y0 + y1 - y];
    return (place) =>
      spanned(opposite, this.#within([x + place[0] - start[0], y + place[1] - start[1]]));
  }

  #press(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    if (!step || !(this.#box || event.shiftKey)) return; // the whole picture cannot be moved
    event.preventDefault();
    const stride = event.altKey ? 1 : Math.max(1, Math.round(Math.max(...this.#size) / 100));
    const [dx, dy] = step.map((part) => part * stride);
    const [x0, y0, x1, y1] = this.#corners();
    const box = event.shiftKey
      ? spanned([x0, y0], this.#within([Math.max(x1 + dx, x0), Math.max(y1 + dy, y0)]))
      : moved([x0, y0, x1, y1], dx, dy, this.#size);
    if (box) this.#change(box, true);
  }

  /** Where an event is, in pixels of the picture. */
  #place(event) {
    const inverse = this.#svg.getScreenCTM().inverse();
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(inverse);
    return [x, y];
  }

  #within(place) {
    return place.map((value, axis) => Math.min(Math.max(value, -0.5), this.#size[axis] - 0.5));
  }
}

const KEYS = "Arrow keys move it, with Shift they resize it, with Alt by single pixels.";

export function describe(box) {
  return box ? box.map((value) => Math.round(value)).join(", ") : "the whole picture";
}

/** The box moved, but not out of the picture. */
function moved([x0, y0, x1, y1], dx, dy, [width, height]) {
  const right = Math.min(Math.max(dx, -0.5 - x0), width - 0.5 - x1);
  const down = Math.min(Math.max(dy, -0.5 - y0), height - 0.5 - y1);
  return [x0 + right, y0 + down, x1 + right, y1 + down];
}

/** The box between two corners, or null if there is too little of it. */
function spanned([ax, ay], [bx, by]) {
  const box = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  return box[2] - box[0] >= LEAST && box[3] - box[1] >= LEAST ? box : null;
}
