// From a landmark's distribution to the ellipse that holds it, and to a colour. Everything is in pixels
// of the picture. The density of a landmark y is |A| / c exp(-rho(|A (y - mu)|)), A its precision factor.

// From certain to uncertain, as in tfhuber/drawing/style.py: standard deviations relative to the landmarks'
// extent, on a logarithmic scale.
export const COLOURS = ["#16c7b4", "#86d65c", "#f8d43c", "#ff9232", "#f2304e"];
const UNKNOWN = "#bfbfbf";
const CERTAIN = 0.004;
const UNCERTAIN = 0.064;

// Huber's energy with delta 1 in the plane: the integral of r exp(-rho(r)), and E[r^2] / 2.
const AT_KNEE = Math.exp(-0.5);
const MASS = 1 + AT_KNEE;
export const HUBER_KAPPA = (2 + 13 * AT_KNEE) / (2 * MASS);

/** The R with P(|A (y - mu)| < R) = probability under Huber's density with delta 1 in the plane. */
export function huberQuantile(probability) {
  if (probability * MASS <= 1 - AT_KNEE) return Math.sqrt(-2 * Math.log1p(-probability * MASS));
  // Beyond the knee lies exp(1/2) (1 + r) exp(-r) of the mass: a falling function, bisected.
  const tail = (1 - probability) * MASS * AT_KNEE;
  let [low, high] = [1, 60];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if ((1 + middle) * Math.exp(-middle) > tail) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * The quantile R of |A (y - mu)|, from a model's table where it has one.
 *
 * Between the table's levels R is interpolated along -log(1 - level), in which its tail is nearly a line.
 */
export function quantile(probability, table) {
  if (!table) return huberQuantile(probability);
  const { levels, radii } = table;
  const position = (level) => -Math.log1p(-level);
  let i = levels.findIndex((level) => level >= probability);
  if (i < 0) i = levels.length - 1; // beyond the last level: the last piece goes on
  const [from, start] = i ? [levels[i - 1], radii[i - 1]] : [0, 0];
  const share = (position(probability) - position(from)) / (position(levels[i]) - position(from));
  return start + share * (radii[i] - start);
}

/**
 * Semi-axes and angle (degrees, from x towards y) of the ellipse |A (y - mu)| = R, or null where the
 * numbers are none. Without a factor, Huber's kappa with delta 1 stands between covariance and A.
 */
export function ellipse({ factor, covariance }, radius) {
  if (isMatrix(factor)) {
    const { values, angle } = eigen(factor);
    if (!(Math.min(...values) > 0)) return null;
    return { rx: radius / values[0], ry: radius / values[1], angle };
  }
  if (!isMatrix(covariance)) return null;
  const { values, angle } = eigen(covariance);
  const [rx, ry] = values.map((v) => radius * Math.sqrt(Math.max(v, 0) / HUBER_KAPPA));
  return { rx, ry, angle };
}

/** A colour for each landmark, from its standard deviation; grey where that is not known. */
export function colours(points, deviations) {
  const known = points.filter(isPoint);
  const extent = Math.hypot(...[0, 1].map((axis) => range(known.map((point) => point[axis])))) || 1;
  return deviations.map((deviation) => {
    if (!Number.isFinite(deviation)) return UNKNOWN;
    const relative = Math.max(deviation / extent, CERTAIN) / CERTAIN;
    return colourAt(Math.min(1, Math.log(relative) / Math.log(UNCERTAIN / CERTAIN)));
  });
}

/** sqrt(trace(covariance) / 2): the standard deviation of a coordinate, over all directions. */
export function deviation(covariance) {
  if (!isMatrix(covariance)) return NaN;
  return Math.sqrt(Math.max(covariance[0][0] + covariance[1][1], 0) / 2);
}

export function isPoint(point) {
  return Array.isArray(point) && point.length === 2 && point.every(Number.isFinite);
}

export function isMatrix(matrix) {
  return Array.isArray(matrix) && matrix.length === 2 && matrix.every(isPoint);
}

/** Eigenvalues of a symmetric matrix, the larger first, and the angle of the first one's axis. */
function eigen([[a, b], [, c]]) {
  const middle = (a + c) / 2;
  const spread = Math.hypot((a - c) / 2, b);
  const angle = (Math.atan2(2 * b, a - c) / 2) * (180 / Math.PI);
  return { values: [middle + spread, middle - spread], angle };
}

function range(values) {
  return values.length ? Math.max(...values) - Math.min(...values) : 0;
}

function colourAt(position) {
  const place = position * (COLOURS.length - 1);
  const i = Math.min(Math.floor(place), COLOURS.length - 2);
  const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const [from, to] = [parts(COLOURS[i]), parts(COLOURS[i + 1])];
  const mixed = from.map((value, part) => Math.round(value + (place - i) * (to[part] - value)));
  return `rgb(${mixed.join(", ")})`;
}
