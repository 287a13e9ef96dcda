"use strict";
// The maps: the image under the pointer, or the one that arrow keys have gone to. Everything else works without scripts.
const data = JSON.parse(document.getElementById("data").textContent);
const shown = document.querySelector(".shown");

function show(points, place) {
  const map = data.maps[points.dataset.map], circles = points.querySelectorAll("circle");
  points.querySelector("circle.on")?.classList.remove("on");
  points.dataset.place = place;
  circles[place].classList.add("on");
  const image = map.images[place], preview = shown.querySelector(".preview"), sheets = data.sheets;
  preview.hidden = !sheets;
  if (sheets) {
    // The sheets hold the images of the first map, which are those of all maps, in their order.
    const tile = place % (sheets.across * sheets.across), scale = 160 / sheets.side;
    const column = tile % sheets.across, row = Math.floor(tile / sheets.across);
    const sheet = Math.floor(place / (sheets.across * sheets.across));
    const wide = Math.min(sheets.across, map.images.length - sheet * sheets.across * sheets.across);
    preview.style.backgroundImage = `url(${sheets.uris[sheet]})`;
    preview.style.backgroundSize = `${wide * sheets.side * scale}px auto`;
    preview.style.backgroundPosition = `${-160 * column}px ${-160 * row}px`;
  }
  const group = data.classes ? data.classes[image] : null;
  shown.querySelector("p").textContent = data.images[image] + (group === null ? "" : ` (${group})`);
  shown.hidden = false;
  const box = circles[place].getBoundingClientRect(), frame = shown.parentElement.getBoundingClientRect();
  const left = box.left - frame.left, top = box.top - frame.top;
  shown.style.left = `${Math.max(0, left + 200 > frame.width ? left - 192 : left + 14)}px`;
  shown.style.top = `${top + 14}px`;
}

function hide(points) {
  points.querySelector("circle.on")?.classList.remove("on");
  shown.hidden = true;
}

function nearest(places, x, y, allowed) {
  let best = -1, least = Infinity;
  places.forEach(([px, py], place) => {
    const dx = px - x, dy = py - y, distance = dx * dx + dy * dy;
    if (distance < least && allowed(dx, dy)) [best, least] = [place, distance];
  });
  return best;
}

const DIRECTIONS = {
  ArrowRight: (dx, dy) => dx > 0 && Math.abs(dy) <= dx, ArrowLeft: (dx, dy) => dx < 0 && Math.abs(dy) <= -dx,
  ArrowUp: (dx, dy) => dy > 0 && Math.abs(dx) <= dy, ArrowDown: (dx, dy) => dy < 0 && Math.abs(dx) <= -dy,
};

document.querySelectorAll(".points").forEach((points) => {
  const places = data.maps[points.dataset.map].places;
  const point = (event) => {
    const box = points.querySelector("svg").getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width * 1020 - 10) / 1000;
    const y = 1 - ((event.clientY - box.top) / box.height * 1020 - 10) / 1000;
    const place = nearest(places, x, y, (dx, dy) => dx * dx + dy * dy < 0.0016);
    place < 0 ? hide(points) : show(points, place);
  };
  points.addEventListener("pointermove", point);
  points.addEventListener("pointerdown", point);
  points.addEventListener("pointerleave", () => hide(points));
  points.addEventListener("blur", () => hide(points));
  points.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide(points);
    if (!(event.key in DIRECTIONS)) return;
    event.preventDefault();
    const now = places[points.dataset.place ?? 0];
    const place = nearest(places, ...now, DIRECTIONS[event.key]);
    show(points, place < 0 ? Number(points.dataset.place ?? 0) : place);
  });
});
