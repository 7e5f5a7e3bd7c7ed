// The table of landmarks: the picture's content in numbers.

import { isMatrix, isPoint } from "./uncertainty.js";

/**
 * Fills a table's body with one row for each landmark.
 *
 * @param body the <tbody>
 * @param found as `Stage.showLandmarks` returns it
 * @param point called with a landmark's index when the pointer is over its row, and null when it leaves
 */
export function fillTable(body, found, point) {
  const rows = found.points.map((position, k) => {
    const row = document.createElement("tr");
    const colour = document.createElement("td");
    const swatch = document.createElement("i");
    swatch.style.background = found.colours[k];
    colour.append(swatch);
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = found.names[k];
    row.append(colour, name, ...numbers(position, found.covariances[k]).map(cell));
    row.addEventListener("pointerenter", () => point(k));
    row.addEventListener("pointerleave", () => point(null));
    return row;
  });
  body.replaceChildren(...rows);
}

function numbers(position, covariance) {
  const place = isPoint(position) ? position.map((value) => value.toFixed(1)) : ["", ""];
  if (!isMatrix(covariance)) return [...place, "", "", ""];
  const [[xx, xy], [, yy]] = covariance;
  const [sx, sy] = [xx, yy].map((variance) => Math.sqrt(Math.max(variance, 0)));
  const correlation = sx * sy > 0 ? (xy / (sx * sy)).toFixed(2) : "";
  return [...place, sx.toFixed(2), sy.toFixed(2), correlation];
}

function cell(text) {
  const node = document.createElement("td");
  node.textContent = text;
  return node;
}
