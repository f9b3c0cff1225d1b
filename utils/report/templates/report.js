"use strict";
// A sortable table, and for each category a threshold that decides what is flagged.

const percentSteps = 255;  // of a stored anomaly map
const firstShown = 6;      // cards of each group before "show more"
const colors = JSON.parse(document.getElementById("colors").textContent);  // 256 RGB values in a row

// ---- Results table

function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const value = row => {
    const text = row.cells[column].dataset.value;
    return text === undefined || text === "" ? null : column === 0 ? text : Number(text);
  };
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null);  // absent figures last, either way
    return (x < y ? -1 : x > y ? 1 : 0) * (descending ? -1 : 1);
  };
  body.append(...[...body.rows].sort(order));
  table.querySelectorAll("th").forEach((head, index) => {
    head.setAttribute("aria-sort", index !== column ? "none" : descending ? "descending" : "ascending");
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const state = head.getAttribute("aria-sort");
      sortTable(table, column, state === "none" ? column > 0 : state === "ascending");
    });
  });
}

// ---- Categories

// What a verdict is for a good image, and for an anomalous one.
const outcomes = {good: ["passed", "missed"], look: ["look-good", "look-anomalous"], anomalous: ["alarm", "found"]};
const words = {
  missed: "✗ missed", found: "✓ found", alarm: "⚠ false alarm", passed: "✓ passed",
  "look-anomalous": "? look at it", "look-good": "? look at it",
};

class Category {
  constructor(section) {
    this.section = section;
    this.data = JSON.parse(section.querySelector("script").textContent);
    this.slider = section.querySelector("input[type=range]");
    this.line = section.querySelector("svg .threshold");
    this.own = this.data.own;  // what the run's thresholds say; null where the slider decides
    this.cards = [];
    this.drawn = new Set();  // cards whose pictures are on their canvases
    this.observer = new IntersectionObserver(entries => {
      for (const entry of entries) entry.isIntersecting && this.show(entry.target.card);
    }, {rootMargin: "600px"});
    this.fill("anomalous", this.data.images.filter(i => i.label).sort((a, b) => a.score - b.score));
    this.fill("good", this.data.images.filter(i => !i.label).sort((a, b) => b.score - a.score));
    const judgeBy = own => {
      this.own = own;
      this.update();
    };
    this.slider.addEventListener("input", () => judgeBy(null));
    section.querySelector("button.reset")?.addEventListener("click", () => {
      this.slider.value = this.data.own.threshold;
      judgeBy(this.data.own);
      this.slider.focus();
    });
    this.update();
  }

  fill(group, images) {
    const place = this.section.querySelector(`.cards[data-group=${group}]`);
    const cards = images.map(image => this.makeCard(image));
    const more = this.section.querySelector(`button.more[data-group=${group}]`);
    const showUpTo = count => {
      for (const card of cards.slice(place.children.length, count)) {
        place.append(card.element);
        this.observer.observe(card.element);
      }
      more.hidden = place.children.length === cards.length;
      more.textContent = `Show all ${cards.length}`;
    };
    more.addEventListener("click", () => showUpTo(cards.length));
    showUpTo(firstShown);
    this.cards.push(...cards);
  }

  makeCard(image) {
    const element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    const card = {image, element};
    element.card = card;
    element.querySelector(".name").textContent = image.name;
    element.querySelector(".score").textContent = `score ${image.score.toFixed(3)}`;
    const photo = element.querySelector("img");
    photo.src = image.image;
    photo.alt = `Test image ${image.name}`;
    const truth = image.mask ? "ground truth" : image.label ? "truth: no mask" : "truth: no defect";
    element.querySelector(".truth figcaption").textContent = truth;
    const names = {truth, heat: "Anomaly map", overlay: "Anomaly map over the image"};
    for (const [panel, name] of Object.entries(names)) {
      element.querySelector(`.${panel} canvas`).setAttribute("aria-label", `${name}, ${image.name}`);
    }
    return card;
  }

  update() {
    const threshold = this.own ? this.own.threshold : Number(this.slider.value);
    const counts = {missed: 0, found: 0, alarm: 0, passed: 0, "look-anomalous": 0, "look-good": 0};
    this.data.scores.forEach((_, place) => counts[this.outcome(place)]++);
    for (const [name, count] of Object.entries(counts)) {
      const shown = this.section.querySelector(`.counts .${name} b`);
      if (shown) shown.textContent = count;
    }
    this.section.dataset.judged = this.own ? "own" : "by hand";
    this.section.querySelector("output").textContent = threshold.toFixed(3);
    const [low, high] = [Number(this.slider.min), Number(this.slider.max)];
    const {x0, x1} = this.line.dataset;
    const x = Number(x0) + (threshold - low) / (high - low) * (x1 - x0);
    this.line.setAttribute("x1", x);
    this.line.setAttribute("x2", x);
    for (const card of this.cards) this.judge(card);
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.drawn.forEach(card => this.drawOverlay(card)));
  }

  // By the slider, anomalous is what scores at least its threshold, an image as well as a pixel.
  verdict(place) {
    if (this.own) return this.own.verdicts[place];
    return this.data.scores[place] >= Number(this.slider.value) ? "anomalous" : "good";
  }

  outcome(place) {
    return outcomes[this.verdict(place)][this.data.labels[place]];
  }

  judge(card) {
    const result = this.outcome(card.image.place);
    const called = this.own && !result.startsWith("look") ? `called ${this.verdict(card.image.place)}: ` : "";
    card.element.dataset.verdict = result;
    card.element.querySelector(".verdict").textContent = called + words[result];
  }

  async show(card) {
    this.observer.unobserve(card.element);
    const [photo, map, mask] = await Promise.all([card.image.image, card.image.map, card.image.mask].map(readPixels));
    Object.assign(card, {photo, map, mask});
    this.drawTruth(card);
    this.drawHeat(card);
    this.drawn.add(card);
    this.drawOverlay(card);
  }

  drawTruth(card) {
    paint(card, "truth", (out, i, {photo, mask}) => {
      const marked = mask && mask.data[4 * i] > 0;
      const shade = mask && !marked ? 0.45 : 1;
      for (let c = 0; c < 3; c++) out[4 * i + c] = photo.data[4 * i + c] * shade;
      if (mask && onEdge(j => mask.data[4 * j] > 0, i, mask)) setPixel(out, i, 0, 255, 255);
    });
  }

  drawHeat(card) {
    paint(card, "heat", (out, i, {map}) => {
      const color = 3 * this.heat(map.data[4 * i]);
      setPixel(out, i, colors[color], colors[color + 1], colors[color + 2]);
    });
  }

  drawOverlay(card) {
    const {low, high} = this.data;
    const threshold = this.own ? this.own.regions[this.verdict(card.image.place)] ?? Infinity : Number(this.slider.value);
    // a step holds values up to the next one: so an image that is flagged has a pixel that is
    const flagged = step => low + (step + 1) / percentSteps * (high - low) > threshold;
    paint(card, "overlay", (out, i, {photo, map, mask}) => {
      const step = map.data[4 * i];
      const color = 3 * this.heat(step);
      const grey = 0.3 * photo.data[4 * i] + 0.59 * photo.data[4 * i + 1] + 0.11 * photo.data[4 * i + 2];
      for (let c = 0; c < 3; c++) out[4 * i + c] = 0.5 * grey + 0.5 * colors[color + c];
      if (mask && onEdge(j => mask.data[4 * j] > 0, i, mask)) setPixel(out, i, 0, 255, 255);
      if (onEdge(j => flagged(map.data[4 * j]), i, map)) setPixel(out, i, 255, 255, 255);
    });
  }

  // A step of the stored map as a step of the colours, whose ends suit the category.
  heat(step) {
    const {low, high, cold, hot} = this.data;
    const value = low + step / percentSteps * (high - low);
    return hot > cold ? Math.round(255 * Math.min(1, Math.max(0, (value - cold) / (hot - cold)))) : 0;
  }
}

// The pixels of a data URI, or null.
async function readPixels(source) {
  if (!source) return null;
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function paint(card, panel, setColors) {
  const canvas = card.element.querySelector(`.${panel} canvas`);
  [canvas.width, canvas.height] = [card.map.width, card.map.height];
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    setColors(picture.data, i, card);
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

function setPixel(out, i, red, green, blue) {
  out[4 * i] = red;
  out[4 * i + 1] = green;
  out[4 * i + 2] = blue;
}

// Whether pixel i is inside and one of its four neighbours is not; the border of the picture is no edge.
function onEdge(inside, i, {width, height}) {
  if (!inside(i)) return false;
  const [x, y] = [i % width, Math.floor(i / width)];
  return (x > 0 && !inside(i - 1)) || (x < width - 1 && !inside(i + 1))
    || (y > 0 && !inside(i - width)) || (y < height - 1 && !inside(i + width));
}

// A category's pictures are read when it is first opened.
for (const section of document.querySelectorAll("details.category")) {
  const start = () => section.open && !section.started && (section.started = new Category(section));
  section.addEventListener("toggle", start);
  start();
}

// On paper all sections are open, with the pictures of the cards that are there.
window.addEventListener("beforeprint", () => {
  for (const section of document.querySelectorAll("details.category")) {
    section.open = true;
    section.started = section.started || new Category(section);
    section.started.cards.filter(card => card.element.isConnected && !card.map).forEach(card => section.started.show(card));
  }
});

// A link to a category opens it.
function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.matches("details")) target.open = true;
}
window.addEventListener("hashchange", openTarget);
openTarget();
