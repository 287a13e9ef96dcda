// From a file to the pixels that the network takes, as byol_edge/runtime/preprocessing.py does it: EXIF orientation,
// RGB, alpha over white, made square, bicubic with antialiasing. The resize is Pillow's, to the last bit.

const PRECISION = 2 ** 22; // of Pillow's fixed-point weights, for 8 bits per channel

/** An image file's pixels, upright, over white: {width, height, data: RGBA}. Throws where the browser cannot read it. */
export async function decode(file) {
  const options = { colorSpaceConversion: "none", imageOrientation: "from-image" };
  const bitmap = await createImageBitmap(file, options);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** Pixels as the network's input, RGB, Uint8Array [side × side × 3]. `border`: the color that "pad" adds. */
export function prepare(image, { image_size: side, fit }, border) {
  const { width, height } = image;
  const pixels = dropAlpha(image);
  if (width === side && height === side) return pixels;
  if (fit === "squash") return resize(pixels, width, height, [0, 0, width, height], side, side);
  if (fit === "pad") return pad(pixels, width, height, side, border);
  const short = Math.min(width, height), left = (width - short) / 2, top = (height - short) / 2;
  return resize(pixels, width, height, [left, top, left + short, top + short], side, side);
}

function dropAlpha({ width, height, data }) {
  const pixels = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    pixels[to] = data[from];
    pixels[to + 1] = data[from + 1];
    pixels[to + 2] = data[from + 2];
  }
  return pixels;
}

function pad(pixels, width, height, side, border) {
  const scale = side / Math.max(width, height);
  const wide = Math.max(1, roundHalfEven(width * scale)), high = Math.max(1, roundHalfEven(height * scale));
  const small = resize(pixels, width, height, [0, 0, width, height], wide, high);
  const square = new Uint8Array(side * side * 3);
  for (let at = 0; at < square.length; at += 1) square[at] = border[at % 3];
  const left = Math.floor((side - wide) / 2), top = Math.floor((side - high) / 2);
  for (let row = 0; row < high; row += 1) {
    square.set(small.subarray(row * wide * 3, (row + 1) * wide * 3), ((top + row) * side + left) * 3);
  }
  return square;
}

/** As Python rounds. */
function roundHalfEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** The box (left, top, right, bottom) of RGB pixels at another size: one way, then the other, rounded in between. */
function resize(pixels, width, height, box, wide, high) {
  const [left, top, right, bottom] = box.map(Math.fround); // Pillow holds them in 32 bits
  const across = findWeights(width, left, right, wide), down = findWeights(height, top, bottom, high);
  // Which way comes first is Pillow's choice, from version 13 on.
  if (height > high && height - high > 2 * (width - wide)) {
    return resizeAcross(resizeDown(pixels, width, down), width, high, across);
  }
  return resizeDown(resizeAcross(pixels, width, height, across), wide, down);
}

function resizeAcross(pixels, width, height, across) {
  const found = new Uint8Array(across.length * height * 3);
  for (let row = 0; row < height; row += 1) {
    across.forEach(({ first, weights }, column) => {
      sum(pixels, (row * width + first) * 3, 3, weights, found, (row * across.length + column) * 3);
    });
  }
  return found;
}

function resizeDown(pixels, width, down) {
  const found = new Uint8Array(width * down.length * 3);
  down.forEach(({ first, weights }, row) => {
    for (let column = 0; column < width; column += 1) {
      sum(pixels, (first * width + column) * 3, width * 3, weights, found, (row * width + column) * 3);
    }
  });
  return found;
}

function sum(from, start, step, weights, to, place) {
  for (let channel = 0; channel < 3; channel += 1) {
    let total = PRECISION / 2;
    for (let each = 0, at = start + channel; each < weights.length; each += 1, at += step) total += from[at] * weights[each];
    to[place + channel] = Math.min(255, Math.max(0, Math.floor(total / PRECISION)));
  }
}

/** Of each pixel of the output, the first pixel of the input that it is made of, and the weights of that and the next. */
function findWeights(size, low, high, count) {
  const scale = (high - low) / count, stretch = Math.max(scale, 1), support = 2 * stretch;
  return Array.from({ length: count }, (_, place) => {
    const center = low + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(size, Math.trunc(center + support + 0.5));
    const exact = Array.from({ length: end - first }, (_, at) => bicubic((at + first - center + 0.5) / stretch));
    const total = exact.reduce((one, other) => one + other, 0);
    const weights = exact.map((weight) => fix(total === 0 ? weight : weight / total));
    return { first, weights };
  });
}

function fix(weight) {
  return Math.trunc(weight * PRECISION + (weight < 0 ? -0.5 : 0.5));
}

/** Keys' cubic with a = -0.5, Pillow's. */
function bicubic(x) {
  const distance = Math.abs(x);
  if (distance < 1) return (1.5 * distance - 2.5) * distance * distance + 1;
  if (distance < 2) return (((distance - 5) * distance + 8) * distance - 4) * -0.5;
  return 0;
}
