// The lines between landmarks, for models that don't say: by how many landmarks there are. Each row is
// a chain; a test compares them with tfhuber/landmarks/known_sets.py.

const run = (first, last) => Array.from({ length: last - first + 1 }, (_, i) => first + i);
const loop = (first, last) => [...run(first, last), first];

const CHAINS = {
  // COCO
  17: [
    [15, 13, 11, 12, 14, 16],
    [9, 7, 5, 6, 8, 10],
    [5, 3, 1, 0, 2, 4, 6],
    [1, 2],
    [5, 11],
    [6, 12],
  ],
  // MPII
  16: [
    [0, 1, 2, 6, 3, 4, 5],
    [6, 7, 8, 9],
    [10, 11, 12, 7, 13, 14, 15],
  ],
  // 300W-LP
  68: [
    run(0, 16),
    run(17, 21),
    run(22, 26),
    run(27, 30),
    run(31, 35),
    loop(36, 41),
    loop(42, 47),
    loop(48, 59),
    loop(60, 67),
  ],
  // WFLW
  98: [
    run(0, 32),
    loop(33, 41),
    loop(42, 50),
    run(51, 54),
    run(55, 59),
    loop(60, 67),
    loop(68, 75),
    loop(76, 87),
    loop(88, 95),
  ],
};

/** Pairs of landmarks to join in a picture of `count`; none where the number is not a known one. */
export function edgesByCount(count) {
  return (CHAINS[count] ?? []).flatMap((chain) => chain.slice(1).map((end, i) => [chain[i], end]));
}
