// The page: a picture goes to the model, and what it found comes back onto the picture.

import { BoxEditor, describe } from "./box.js";
import { Camera } from "./camera.js";
import { base64, openPicture } from "./picture.js";
import { Model } from "./rest.js";
import { Stage } from "./stage.js";
import { fillTable } from "./table.js";

const SETTINGS = ["url", "model", "version", "signature"];
const DEFAULT_MODEL = "wflw";
const PAUSE_MS = 350; // between a key and the request that it leads to
const UNTOLD =
  " The model does not tell its distribution: ellipses are those of Huber's with delta = 1.";

const page = new Proxy({}, { get: (_, id) => document.getElementById(id) });
const stage = new Stage();
const camera = new Camera();
const editor = new BoxEditor(stage.overlay, { changed: boxChanged });

let model = null;
let description = null; // what `Model.describe` said, once it has
let picture = null;
let box = null; // null: the whole picture
let result = null; // what the download holds
let running = null; // AbortController of the request under way
let pause = null;

// --- the model

function readAddress() {
  const query = new URLSearchParams(location.search);
  const own = location.protocol.startsWith("http") ? location.origin : "http://localhost:8501";
  page.url.value = query.get("url") ?? own;
  page.model.value = query.get("model") ?? DEFAULT_MODEL;
  page.version.value = query.get("version") ?? "";
  if (query.get("signature") === "tta") page.signature.value = "tta";
}

function writeAddress() {
  const query = new URLSearchParams();
  for (const name of SETTINGS) if (page[name].value) query.set(name, page[name].value.trim());
  history.replaceState(null, "", `?${query}`);
}

/** Asks the model what it is. Returns whether it answered; tells the person if not. */
async function connect() {
  const asked = new Model(page.url.value.trim(), page.model.value.trim(), page.version.value.trim());
  model = asked;
  description = null;
  say("model-state", "connecting …");
  try {
    const found = await asked.describe();
    if (model !== asked) return false; // another one was chosen meanwhile
    description = found;
  } catch (error) {
    if (model === asked) {
      say("model-state", "not connected");
      fail(error);
      page.settings.open = true;
    }
    return false;
  }
  const { version, signatures, facts } = description;
  for (const option of page.signature.options) option.disabled = !signatures.includes(option.value);
  if (page.signature.selectedOptions[0]?.disabled) page.signature.value = "serving_default";
  const names = facts.landmark_set?.names;
  const kind = names ? `, ${names.length} landmarks` : "";
  say("model-state", `${page.model.value.trim()}, version ${version}${kind}`);
  page.message.hidden = true;
  return true;
}

// --- a picture and what is in it

function show(opened) {
  const [width, height] = stage.size;
  const { bitmap } = opened;
  // A box lasts for as long as the camera is on.
  if (!camera.on || bitmap.width !== width || bitmap.height !== height) box = null;
  picture?.bitmap.close();
  picture = opened;
  stage.showPicture(bitmap);
  showBox();
  page.find.disabled = page.whole.disabled = false;
}

async function load(file) {
  camera.stop();
  try {
    show(await openPicture(file));
  } catch (error) {
    fail(error);
    return;
  }
  await find();
}

/**
 * Sends a picture and shows it with what comes back. A later call overtakes this one.
 *
 * Returns whether nothing went wrong; if something did, the person has been told.
 */
async function find(candidate = picture) {
  clearTimeout(pause);
  running?.abort();
  const mine = (running = new AbortController());
  const start = performance.now();
  const sent = { picture: candidate, box, signature: page.signature.value };
  page.busy.hidden = false;
  try {
    if (!description && !(await connect())) return false;
    const answer = await ask(sent, mine.signal);
    if (mine.signal.aborted) return true;
    if (candidate !== picture) show(candidate);
    const found = landmarksIn(answer.outputs);
    page.message.hidden = true;
    showFound(found);
    const total = performance.now() - start;
    result = report(sent, answer, found, total);
    say("outcome", `${sentence(found, sent)} Request ${ms(answer.milliseconds)}, in all ${ms(total)}.`);
    page.download.disabled = false;
    return true;
  } catch (error) {
    if (mine.signal.aborted) return true;
    fail(error);
    return false;
  } finally {
    if (running === mine) page.busy.hidden = true;
  }
}

async function ask({ picture: { blob }, box: region, signature }, signal) {
  const file = { b64: await base64(blob) };
  const inputs = { image_bytes: file, box: region ?? [0, 0, 0, 0] };
  return await model.predict(signature, inputs, signal);
}

/** What the first and only row of an answer says. Throws an Error with words if that is nothing. */
function landmarksIn(outputs) {
  const { landmarks, covariance, precision_factor: factors, valid } = outputs ?? {};
  if (!Array.isArray(landmarks?.[0]) || !Array.isArray(covariance?.[0])) {
    throw new Error("The model's answer has no landmarks and covariances: is it one of tfhuber's?");
  }
  if (valid?.[0] === false) {
    throw new Error(
      "The model could not use the picture or the box: a picture must be a whole JPEG or PNG of at " +
        "most 100 megapixels, and the box must be on it.",
    );
  }
  const { names, edges } = description.facts.landmark_set ?? {};
  return {
    points: landmarks[0],
    covariances: covariance[0],
    factors: factors?.[0],
    names: landmarks[0].map((_, k) => names?.[k] ?? `landmark ${k}`),
    edges,
  };
}

function showFound(found) {
  const drawn = stage.showLandmarks(found, level(), description.facts.ellipses);
  fillTable(page.rows, drawn, (k) => stage.point(k));
  const told = found.factors && description.facts.ellipses;
  say("table-hint", `Positions and standard deviations σ in pixels.${told ? "" : UNTOLD}`);
  page.results.hidden = false;
}

function report(sent, answer, found, total) {
  const [width, height] = stage.size;
  return {
    server: model.url,
    model: page.model.value.trim(),
    version: description.version,
    signature: sent.signature,
    picture: { name: sent.picture.name, width, height, reencoded: sent.picture.reencoded },
    box: sent.box ?? [0, 0, 0, 0],
    milliseconds: { request: answer.milliseconds, total },
    names: found.names,
    outputs: answer.outputs,
  };
}

function sentence(found, sent) {
  const upright = sent.picture.reencoded && !camera.on ? " The picture was sent as a new JPEG." : "";
  return `${found.points.length} landmarks in ${describe(sent.box)}.${upright}`;
}

// --- what can be set

function level() {
  return Number(page.level.value) / 100;
}

function boxChanged(changed, finished) {
  box = changed;
  fillBoxFields();
  if (finished) findSoon();
}

function showBox() {
  editor.show(box, stage.size);
  fillBoxFields();
}

function boxFields() {
  return ["x0", "y0", "x1", "y1"].map((name) => page[name]);
}

function fillBoxFields() {
  boxFields().forEach((field, i) => {
    field.value = box ? Math.round(10 * box[i]) / 10 : "";
  });
}

function readBoxFields() {
  const typed = boxFields().map((field) => field.valueAsNumber);
  const [x0, y0, x1, y1] = typed;
  if (!picture || !(x0 < x1 && y0 < y1)) return; // still being typed
  box = typed;
  editor.show(box, stage.size);
  findSoon();
}

function findSoon() {
  clearTimeout(pause);
  if (!camera.on) pause = setTimeout(() => find(), PAUSE_MS);
}

async function toggleCamera() {
  if (camera.on) {
    camera.stop();
    return;
  }
  page.camera.textContent = "Stop the camera";
  page.outcome.ariaLive = "off"; // nobody wants to hear of each picture
  page["camera-controls"].hidden = false;
  try {
    await camera.run(async (frame) => {
      // Shown together with what is found in it, or at once if nothing is to be.
      if (page.live.checked) page.live.checked = await find(frame);
      if (!page.live.checked) show(frame);
    });
  } catch (error) {
    fail(error);
  }
  page.camera.textContent = "Camera";
  page.outcome.ariaLive = "polite";
  page["camera-controls"].hidden = true;
}

function download() {
  const text = JSON.stringify(result, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "landmarks.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// --- words

function fail(error) {
  page.message.textContent = error.message;
  page.message.hidden = false;
  say("outcome", "");
  stage.clear();
  page.results.hidden = true;
  page.download.disabled = true;
}

function say(id, text) {
  page[id].textContent = text;
}

function ms(milliseconds) {
  return `${Math.round(milliseconds)} ms`;
}

// --- what a person does

page.file.addEventListener("change", () => {
  if (page.file.files.length) load(page.file.files[0]);
  page.file.value = ""; // the same file can be chosen again
});
for (const name of ["dragenter", "dragover"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    page.stage.classList.add("dropping");
  });
}
for (const name of ["dragleave", "drop"]) {
  addEventListener(name, () => page.stage.classList.remove("dropping"));
}
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) load(event.dataTransfer.files[0]);
});
page.camera.addEventListener("click", toggleCamera);
page.shoot.addEventListener("click", () => {
  camera.stop();
  if (picture) find();
});
page.level.addEventListener("input", () => {
  page["level-text"].textContent = `${Number(page.level.value).toLocaleString("en")} %`;
  stage.showLevel(level(), description?.facts.ellipses);
});
page.signature.addEventListener("change", () => {
  writeAddress();
  if (picture && !camera.on) find();
});
for (const field of boxFields()) field.addEventListener("input", readBoxFields);
page.whole.addEventListener("click", () => {
  box = null;
  showBox();
  findSoon();
});
page.find.addEventListener("click", () => find());
page.download.addEventListener("click", download);
page["settings-form"].addEventListener("submit", async (event) => {
  event.preventDefault();
  writeAddress();
  if ((await connect()) && picture && !camera.on) await find();
});

readAddress();
await connect();
