// A variant of the bundle in the browser's engine, refused unless it gives what it gave when it was exported.

import * as ort from "./ort/ort.wasm.min.mjs";
import { decode, prepare } from "./preprocessing.js";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more take headers that a plain file server does not send
const PIXEL_TOLERANCE = 1; // mean difference of a decoded file, of 255, as in byol-edge self-test
const RUNS = 12;

/** Opens a variant and checks it on the golden images. Throws an Error that says what is wrong. */
export async function openEncoder(name, content) {
  const session = await ort.InferenceSession.create(`./${name}`, { executionProviders: ["wasm"] });
  const side = content.preprocessing.image_size;
  const run = async (pixels) => {
    const { embeddings } = await session.run({ images: new ort.Tensor("uint8", pixels, [1, side, side, 3]) });
    return embeddings.data;
  };
  const images = bytes(content.golden.images), length = side * side * 3;
  const { golden, own_cosine: least } = content.variants[name];
  const known = new Float32Array(bytes(golden).buffer);
  let lowest = 1;
  for (let place = 0; place < content.golden.count; place += 1) {
    const found = await run(images.slice(place * length, (place + 1) * length));
    lowest = Math.min(lowest, cosine(found, known.subarray(place * content.size, (place + 1) * content.size)));
  }
  if (!(lowest >= least)) {
    await session.release();
    throw new Error(`${name} gives other vectors here than where it was exported: cosine ${lowest.toFixed(5)}, needs ${least}`);
  }
  return { name, run, lowest };
}

/** Which of the bundle's encoded files this browser decodes to other pixels, and by how much, of 255. */
export async function checkDecoding(content) {
  const other = [];
  for (const [name, recorded] of Object.entries(content.files)) {
    const known = bytes(recorded);
    try {
      const file = await (await fetch(`./${name}`)).blob();
      const found = prepare(await decode(file), content.preprocessing, content.border);
      const difference = known.reduce((total, value, at) => total + Math.abs(value - found[at]), 0) / known.length;
      if (difference > PIXEL_TOLERANCE) other.push({ name, difference });
    } catch {
      other.push({ name, difference: Infinity });
    }
  }
  return other;
}

/** Milliseconds per image, the median of twelve runs of each encoder in turn. */
export async function measure(encoders, side) {
  const pixels = Uint8Array.from({ length: side * side * 3 }, (_, at) => (at * 7919) % 256);
  const taken = new Map(encoders.map((encoder) => [encoder.name, []]));
  for (let turn = 0; turn < RUNS; turn += 1) {
    for (const encoder of encoders) {
      const start = performance.now();
      await encoder.run(pixels);
      taken.get(encoder.name).push(performance.now() - start);
    }
  }
  return new Map([...taken].map(([name, times]) => [name, times.sort((one, other) => one - other)[RUNS / 2]]));
}

export function cosine(one, other) {
  let product = 0, first = 0, second = 0;
  for (let at = 0; at < one.length; at += 1) {
    product += one[at] * other[at];
    first += one[at] * one[at];
    second += other[at] * other[at];
  }
  return product / Math.sqrt(first * second);
}

export function bytes(text) {
  return Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
}
