// The picture with what was found in it: lines, ellipses and points over the pixels.
//
// The overlay's own coordinates are the picture's pixels, so that numbers are drawn as they come.

import { edgesByCount } from "./landmark_sets.js";
import { colours, deviation, ellipse, isPoint, quantile } from "./uncertainty.js";

const SVG = "http://www.w3.org/2000/svg";
const MOST_PIXELS = 2048; // of the longer side on screen: telephones refuse canvases of any size
const REACH = 14; // screen pixels within which the pointer finds a landmark

export class Stage {
  #stage = document.getElementById("stage");
  #photo = document.getElementById("photo");
  #overlay = document.getElementById("overlay");
  #tip = document.getElementById("tip");
  #size = [1, 1];
  #found = null;

  constructor() {
    new ResizeObserver(() => this.#scale()).observe(this.#stage);
    this.#overlay.addEventListener("pointermove", (event) => this.#hover(event));
    this.#overlay.addEventListener("pointerleave", () => this.point(null));
  }

  get size() {
    return this.#size;
  }

  get overlay() {
    return this.#overlay;
  }

  /** Shows a bitmap, and nothing found in it. */
  showPicture(bitmap) {
    const { width, height } = bitmap;
    const shrink = Math.min(1, MOST_PIXELS / Math.max(width, height));
    this.#photo.width = Math.max(1, Math.round(width * shrink));
    this.#photo.height = Math.max(1, Math.round(height * shrink));
    const context = this.#photo.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, this.#photo.width, this.#photo.height);
    this.#size = [width, height];
    this.#stage.style.setProperty("--ratio", width / height);
    // Pixels' centres are whole numbers, so the picture begins half a pixel before the first one.
    this.#overlay.setAttribute("viewBox", `-0.5 -0.5 ${width} ${height}`);
    this.#stage.classList.remove("empty");
    this.clear();
    this.#scale();
  }

  clear() {
    this.#found = null;
    for (const name of ["edges", "ellipses", "landmarks"]) this.#layer(name).replaceChildren();
    this.point(null);
  }

  /**
   * Draws landmarks.
   *
   * @param found {points, covariances, factors, names, edges}: arrays by landmark; factors and edges
   *   may be missing
   */
  showLandmarks(found, level, table) {
    const { points, covariances } = found;
    const deviations = covariances.map(deviation);
    this.#found = { ...found, deviations, colours: colours(points, deviations) };
    const edges = found.edges ?? edgesByCount(points.length);
    const lines = edges.filter((edge) => edge.every((k) => isPoint(points[k])));
    this.#layer("edges").replaceChildren(
      ...lines.map(([i, j]) => {
        const [[x1, y1], [x2, y2]] = [points[i], points[j]];
        return element("line", { x1, y1, x2, y2 });
      }),
    );
    this.#layer("landmarks").replaceChildren(
      ...points.flatMap((point, k) => {
        if (!isPoint(point)) return [];
        const [cx, cy] = point;
        return element("circle", { cx, cy, fill: this.#found.colours[k], "data-landmark": k });
      }),
    );
    this.showLevel(level, table);
    this.#scale();
    return this.#found;
  }

  /** Draws the ellipses that hold each landmark with probability `level`. */
  showLevel(level, table) {
    if (!this.#found) return;
    const { points, covariances, factors, deviations } = this.#found;
    const radius = quantile(level, factors ? table : null);
    // The large ones first, so that the small ones lie on top.
    const order = [...points.keys()].sort((i, j) => deviations[j] - deviations[i]);
    this.#layer("ellipses").replaceChildren(
      ...order.flatMap((k) => {
        const factor = factors?.[k];
        const shape = isPoint(points[k]) && ellipse({ factor, covariance: covariances[k] }, radius);
        if (!shape) return [];
        const [x, y] = points[k];
        const colour = this.#found.colours[k];
        return element("ellipse", {
          rx: shape.rx,
          ry: shape.ry,
          transform: `translate(${x} ${y}) rotate(${shape.angle})`,
          fill: colour,
          stroke: colour,
          "data-landmark": k,
        });
      }),
    );
  }

  /** Marks a landmark and names it, or none. */
  point(k) {
    const spot = this.#overlay.querySelector(".spot");
    const point = this.#found?.points[k];
    const shown = k !== null && isPoint(point);
    spot.toggleAttribute("hidden", !shown);
    this.#tip.hidden = !shown;
    if (!shown) return;
    const [x, y] = point;
    spot.setAttribute("cx", x);
    spot.setAttribute("cy", y);
    const sigma = this.#found.deviations[k];
    const sure = Number.isFinite(sigma) ? ` ± ${sigma.toFixed(1)} px` : "";
    this.#tip.textContent = `${this.#found.names[k]}${sure}`;
    const [width, height] = this.#size;
    const side = (x + 0.5) / width;
    this.#tip.style.left = `${100 * side}%`;
    this.#tip.style.top = `${(100 * (y + 0.5)) / height}%`;
    this.#tip.style.setProperty("--side", Math.min(Math.max(side, 0), 1)); // stays within the stage
  }

  #hover(event) {
    if (!this.#found || event.buttons) return;
    const { left, top, width } = this.#overlay.getBoundingClientRect();
    const zoom = width / this.#size[0];
    const x = (event.clientX - left) / zoom - 0.5;
    const y = (event.clientY - top) / zoom - 0.5;
    let [nearest, least] = [null, REACH / zoom];
    this.#found.points.forEach((point, k) => {
      const distance = isPoint(point) ? Math.hypot(point[0] - x, point[1] - y) : Infinity;
      if (distance < least) [nearest, least] = [k, distance];
    });
    this.point(nearest);
  }

  /** Tells the style sheet how large a screen pixel is in the picture, and how large a point may be. */
  #scale() {
    const zoom = this.#overlay.getBoundingClientRect().width / this.#size[0];
    if (!zoom) return;
    this.#overlay.style.setProperty("--pixel", `${1 / zoom}px`);
    const points = (this.#found?.points ?? []).filter(isPoint);
    const sides = [0, 1].map((axis) => points.map((point) => point[axis]));
    const extent = Math.hypot(...sides.map((side) => Math.max(...side) - Math.min(...side)));
    // Signs grow with the landmarks' spacing: they must not hide a small face.
    const spacing = points.length > 1 ? (zoom * extent) / Math.sqrt(points.length) : 60;
    this.#overlay.style.setProperty("--dot", Math.min(Math.max(spacing / 18, 1.3), 4));
  }

  #layer(name) {
    return this.#overlay.querySelector(`.${name}`);
  }
}

function element(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
