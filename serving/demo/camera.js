// The camera: one picture after the other, for as long as it is on.

import { takePicture } from "./picture.js";

export class Camera {
  #stream = null;
  #video = document.createElement("video");

  get on() {
    return this.#stream !== null;
  }

  /**
   * Starts the camera and gives each picture to `use`, the next one when that is done with the last.
   *
   * Returns when the camera is stopped. Throws an Error with words for a person.
   */
  async run(use) {
    this.#stream = await openStream();
    this.#video.muted = this.#video.playsInline = true;
    this.#video.srcObject = this.#stream;
    try {
      await this.#video.play();
      while (this.on) {
        await nextFrame(this.#video);
        const picture = await takePicture(this.#video);
        if (this.on) await use(picture);
      }
    } finally {
      this.stop();
    }
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.#video.srcObject = null;
  }
}

async function openStream() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers lend the camera only to pages that come by https or from localhost.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
  } catch (error) {
    const reasons = {
      NotAllowedError: "The browser was not allowed to use the camera.",
      NotFoundError: "There is no camera.",
      NotReadableError: "The camera is in use by something else.",
    };
    throw new Error(reasons[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
}

/** Waits for a frame; an animation frame would not do, because a hidden page has none. */
function nextFrame(video) {
  return new Promise((resolve) => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(resolve);
    setTimeout(resolve, 100);
  });
}
