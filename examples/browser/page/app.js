// The page: an image is dropped or chosen, and the nearest of the index are shown.

import { checkDecoding, cosine, measure, openEncoder } from "./encoder.js";
import { decode, prepare } from "./preprocessing.js";

const NEIGHBORS = 10;
const find = (id) => document.getElementById(id);
const say = (text) => { find("status").textContent = text; };

async function start() {
  const content = await (await fetch("./index.json")).json();
  const names = Object.keys(content.variants);
  const encoders = new Map();
  const failed = [];
  for (const name of names) {
    say(`loading ${name} …`);
    try {
      const encoder = await openEncoder(name, content);
      const response = await fetch(`./${name}.vectors`);
      encoders.set(name, { ...encoder, vectors: new Float32Array(await response.arrayBuffer()) });
    } catch (error) {
      failed.push(String(error.message ?? error));
    }
  }
  show(find("warnings"), failed);
  if (encoders.size === 0) {
    say("No variant works in this browser, so nothing is searched.");
    return;
  }
  const other = await checkDecoding(content);
  show(find("warnings"), [...failed, ...other.map(({ name, difference }) =>
    Number.isFinite(difference)
      ? `This browser decodes files like ${name} to other pixels, by ${difference.toFixed(1)} of 255 on average: their vectors differ.`
      : `This browser cannot read files like ${name}.`)]);
  const times = await measure([...encoders.values()], content.preprocessing.image_size);
  offer(encoders, times);
  listen(content, encoders);
  const lowest = Math.min(...[...encoders.values()].map((each) => each.lowest));
  say(`Ready: ${content.images.length} images. Golden images checked, lowest cosine to the export ${lowest.toFixed(6)}.`);
}

/** The variants to choose from, each with its time here; the fastest is chosen. */
function offer(encoders, times) {
  const fastest = [...times].sort((one, other) => one[1] - other[1])[0][0];
  for (const name of encoders.keys()) {
    const option = new Option(`${name}, ${times.get(name).toFixed(1)} ms per image here`, name, false, name === fastest);
    find("variant").append(option);
  }
  find("choice").hidden = false;
}

function listen(content, encoders) {
  const search = async (file) => {
    if (!file) return;
    say(`reading ${file.name} …`);
    try {
      const encoder = encoders.get(find("variant").value);
      const pixels = prepare(await decode(file), content.preprocessing, content.border);
      const vector = await encoder.run(pixels);
      draw(file, rank(vector, encoder.vectors, content.size), content);
      say(`The nearest to ${file.name}, by ${encoder.name}.`);
    } catch (error) {
      const reason = error.name === "InvalidStateError" ? "this browser cannot read it as an image" : error.message;
      say(`${file.name}: ${reason}. Nothing was searched.`);
    }
  };
  const area = find("area"), input = find("file");
  input.disabled = false;
  input.addEventListener("change", () => search(input.files[0]));
  find("variant").addEventListener("change", () => search(input.files[0]));
  area.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("over"); });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    if (event.dataTransfer.files.length) input.files = event.dataTransfer.files;
    search(event.dataTransfer.files[0]);
  });
}

/** The nearest of an index by cosine: [place, cosine], nearest first. */
function rank(vector, vectors, size) {
  const cosines = Array.from({ length: vectors.length / size }, (_, place) =>
    [place, cosine(vector, vectors.subarray(place * size, (place + 1) * size))]);
  return cosines.sort((one, other) => other[1] - one[1] || one[0] - other[0]).slice(0, NEIGHBORS);
}

function draw(file, nearest, content) {
  const query = find("query");
  URL.revokeObjectURL(query.src);
  query.src = URL.createObjectURL(file);
  query.alt = file.name;
  find("results").hidden = false;
  find("nearest").replaceChildren(...nearest.map(([place, value]) => {
    const { name, picture } = content.images[place];
    const item = document.createElement("li"), caption = document.createElement("p");
    if (picture) item.append(Object.assign(new Image(), { src: picture, alt: "" }));
    caption.textContent = `${value.toFixed(3)} ${name}`;
    item.dataset.name = name;
    item.dataset.cosine = value;
    item.append(caption);
    return item;
  }));
}

function show(list, lines) {
  list.replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
}

start().catch((error) => say(`The page cannot start: ${error.message}. Serve it with python -m http.server, and reload.`));
