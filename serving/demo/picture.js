// Pictures: what is shown is what is sent, pixel by pixel.
//
// Browsers turn a photograph as its EXIF orientation says, and TensorFlow does not. So a file goes to
// the server as it is only if it is a JPEG or PNG without such an orientation; anything else is drawn
// as the browser shows it and sent as a new JPEG. Positions are those of the picture on the page.

const QUALITY = 0.95;
const HEAD_BYTES = 256 * 1024; // an orientation stands before the pixels

/**
 * A picture that was chosen: { bitmap, blob, name, reencoded }, `blob` being what is to be sent.
 *
 * Throws an Error with words for a person if the browser cannot show the file.
 */
export async function openPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name || "This"} is not a picture that the browser can show.`);
  }
  const head = new DataView(await file.slice(0, HEAD_BYTES).arrayBuffer());
  const asItIs = isJpeg(head) ? orientation(exifOfJpeg(head)) === 1
    : isPng(head) && orientation(exifOfPng(head)) === 1;
  const blob = asItIs ? file : await encode(bitmap);
  return { bitmap, blob, name: file.name || "picture", reencoded: !asItIs };
}

/** The video's present frame as a picture. */
export async function takePicture(video) {
  const bitmap = await createImageBitmap(video);
  return { bitmap, blob: await encode(bitmap), name: "camera", reencoded: true };
}

/** The bytes of a blob in base64. */
export function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file can no longer be read."));
    reader.readAsDataURL(blob);
  });
}

function encode(bitmap) {
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // what lies behind transparent pixels
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  return new Promise((resolve, reject) => {
    const done = (blob) => (blob ? resolve(blob) : reject(new Error("The picture is too large.")));
    canvas.toBlob(done, "image/jpeg", QUALITY);
  });
}

function isJpeg(view) {
  return view.byteLength > 3 && view.getUint16(0) === 0xffd8;
}

function isPng(view) {
  return view.byteLength > 8 && view.getUint32(0) === 0x89504e47;
}

/** The TIFF block of a JPEG's EXIF segment, or null. */
function exifOfJpeg(view) {
  let at = 2;
  while (at + 10 < view.byteLength) {
    const marker = view.getUint16(at);
    if (marker < 0xffc0 || marker === 0xffda) return null; // no marker, or the pixels begin
    const length = view.getUint16(at + 2);
    if (marker === 0xffe1 && view.getUint32(at + 4) === 0x45786966) return part(view, at + 10);
    at += 2 + length;
  }
  return null;
}

/** The TIFF block of a PNG's eXIf chunk, or null. */
function exifOfPng(view) {
  let at = 8;
  while (at + 8 < view.byteLength) {
    if (view.getUint32(at + 4) === 0x65584966) return part(view, at + 8);
    at += 12 + view.getUint32(at);
  }
  return null;
}

function part(view, start) {
  return new DataView(view.buffer, view.byteOffset + start);
}

/** The EXIF orientation in a TIFF block, 1 to 8; 1, which is upright, where there is none. */
function orientation(tiff) {
  if (!tiff) return 1;
  try {
    const little = tiff.getUint16(0) === 0x4949;
    const directory = tiff.getUint32(4, little);
    for (let i = 0; i < tiff.getUint16(directory, little); i++) {
      const entry = directory + 2 + 12 * i;
      if (tiff.getUint16(entry, little) === 0x0112) return tiff.getUint16(entry + 8, little);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the block is cut off
  }
  return 1;
}
