// A model behind TensorFlow Serving's REST API, and what to tell a person when it cannot be asked.

const TIMEOUT_MS = 35_000; // TensorFlow Serving gives up after 30 s

/** An error whose message is for the person in front of the page. */
export class RequestError extends Error {}

export class Model {
  /**
   * @param {string} url where the server is, such as http://localhost:8501
   * @param {string} name the model's
   * @param {string} version a number, a label, or nothing for the latest
   */
  constructor(url, name, version) {
    this.url = url.replace(/\/+$/, "");
    const kind = /^\d+$/.test(version) ? "versions" : "labels";
    const which = version ? `/${kind}/${encodeURIComponent(version)}` : "";
    this.address = `${this.url}/v1/models/${encodeURIComponent(name)}${which}`;
  }

  /** The version that answers, its signatures' names, and what the model says of itself, if it does. */
  async describe() {
    const answer = await this.#ask(`${this.address}/metadata`);
    const signatures = Object.keys(answer.metadata?.signature_def?.signature_def ?? {});
    const version = answer.model_spec?.version ?? "";
    if (!signatures.includes("metadata")) return { version, signatures, facts: {} };
    const { outputs } = await this.predict("metadata", { query: "" });
    const [text] = Array.isArray(outputs) ? outputs : outputs.json; // one output alone has no name
    return { version, signatures, facts: parse(text) ?? {} };
  }

  /**
   * Outputs by columns for one row of inputs, and how many milliseconds passed until all of the answer
   * was there. It comes by rows, for TensorFlow Serving writes columns one number a line.
   */
  async predict(signature, inputs, signal) {
    const body = JSON.stringify({ signature_name: signature, instances: [inputs] });
    const start = performance.now();
    const answer = await this.#ask(`${this.address}:predict`, { method: "POST", body, signal });
    return { outputs: columns(answer.predictions), milliseconds: performance.now() - start };
  }

  async #ask(address, options = {}) {
    const signals = [AbortSignal.timeout(TIMEOUT_MS), options.signal].filter(Boolean);
    let response, text;
    try {
      // A string is sent as text/plain, which browsers send to other origins without asking first:
      // the server need not know of OPTIONS, and ignores the type.
      response = await fetch(address, { ...options, signal: AbortSignal.any(signals) });
      text = await response.text();
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new RequestError(await this.#whyUnreachable(error));
    }
    const answer = parse(text);
    if (!response.ok) throw new RequestError(whyRefused(response.status, answer?.error ?? text));
    if (!answer) throw new RequestError(`${this.url} answered something that is no JSON. ${HINT}`);
    return answer;
  }

  async #whyUnreachable(error) {
    if (error.name === "TimeoutError") {
      return `${this.url} gave no answer in ${TIMEOUT_MS / 1000} seconds.`;
    }
    if (location.protocol === "https:" && this.url.startsWith("http:")) {
      return `This page came by https, so the browser may not ask ${this.url}. Open the page by http.`;
    }
    try {
      // Such a request is sent whatever the server allows, though nothing of its answer can be read.
      await fetch(this.url, { mode: "no-cors", signal: AbortSignal.timeout(5000) });
    } catch {
      return `No server answers at ${this.url}. Is it running, and is the address right?`;
    }
    return (
      `The server at ${this.url} does not let pages from elsewhere read its answers (CORS). Start it ` +
      "with --rest_api_enable_cors_support=true, or open the page that the local server has at /."
    );
  }
}

const HINT = "Is it the REST port of TensorFlow Serving?";

function whyRefused(status, message) {
  const reason = String(message).trim().slice(0, 300) || "no reason given";
  if (status === 404) return `The server has no such model or version (404): ${reason}`;
  if (status === 413) return `The picture is too large for the server (413): ${reason}`;
  if ([429, 503, 504].includes(status)) return `The server is busy; try again (${status}): ${reason}`;
  if (status >= 500) return `The server failed (${status}): ${reason}`;
  return `The server refused the request (${status}): ${reason}`;
}

function columns(predictions) {
  const row = predictions?.[0];
  if (!row || typeof row !== "object") return [row];
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, [value]]));
}

/** JSON as TensorFlow Serving writes it, where numbers that are none stand as NaN and Infinity. */
function parse(text) {
  for (const candidate of [text, text.replace(/-?\b(?:NaN|Infinity)\b/g, "null")]) {
    try {
      return JSON.parse(candidate);
    } catch {
      // tried again without them, and then given up
    }
  }
  return null;
}
