"use strict";
// The page of `dhm align --gallery`. Only the tiles near the window are in the document, however many faces there are.
document.addEventListener("DOMContentLoaded", () => {
  const find = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const GAP = 12, SPARE_ROWS = 2;
  const MINUS = "\u2212", DOT = " \u00b7 ";

  // --- The faces ------------------------------------------------------------------------------------------------------
  const scheme = JSON.parse(find("scheme").textContent);
  const block = find("faces"), rows = [];
  let rest = ""; // piece by piece: the whole may be too long for one string
  for (const piece of block.childNodes) {
    const lines = (rest + piece.data).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) rows.push(JSON.parse(line));
  }
  block.remove();
  const seen = rows.filter((row) => row.face !== null);
  const faces = seen.filter((row) => row.box); // of a video only some are shown
  const isVideo = rows.some((row) => row.frame !== undefined);
  const collator = new Intl.Collator(undefined, { numeric: true });
  // In a video "track 1" is one word, which does not find track 10.
  const plain = (text) => text.normalize("NFC").toLowerCase().replace(/\b(track|frame)\s+(?=\d)/g, isVideo ? "$1" : "$&");
  const clock = (time) => `${Math.floor(time / 60)}:${(Math.floor(time * 10) / 10 % 60).toFixed(1).padStart(4, "0")}`;
  faces.forEach((face, order) => {
    face.order = order;
    face.file = face.path.split(/[\\/]/).pop();
    face.name = isVideo ? `track ${face.track} \u00b7 ${clock(face.time).slice(0, -2)}` : face.file;
    face.whose = isVideo ? `Track ${face.track} in frame ${face.frame} of ${face.file}` : `Face ${face.face} of ${face.file}`;
    face.words = plain(isVideo ? `${face.path} frame ${face.frame} ${face.name} ` : face.path);
  });

  const number = (value, digits, unit = "") =>
    value === null ? "unknown" : (value < 0 ? MINUS : "") + Math.abs(value).toFixed(digits) + unit;
  const percent = (value) => (value === null ? "unknown" : number(100 * value, 0, " %"));
  const many = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

  const photos = new Set(rows.map((row) => (isVideo ? row.frame : row.path))).size;
  const parts = [many(seen.length, "face"), many(photos, isVideo ? "frame" : "photo")];
  if (isVideo) parts.push(many(new Set(faces.map((face) => face.track)).size, "track"), "shown once a second");
  const doubtful = seen.filter((face) => face.status === "doubtful").length;
  if (doubtful) parts.push(`${doubtful.toLocaleString("en")} doubtful`);
  const bad = isVideo ? "damaged" : "unreadable";
  for (const [status, words] of [["no_face", "without a face"], ["unreadable", bad], ["bad_box", "bad boxes"]]) {
    const count = rows.filter((row) => row.status === status).length;
    if (count) parts.push(`${count.toLocaleString("en")} ${words}`);
  }
  find("summary").textContent = parts.join(DOT);

  // --- Choosing and sorting -------------------------------------------------------------------------------------------
  const rising = (key) => (a, b) =>
    a[key] === b[key] ? a.order - b.order : a[key] === null ? 1 : b[key] === null ? -1 : a[key] - b[key];
  if (isVideo) {
    find("search").placeholder = "such as track 0";
    find("search").previousSibling.data = "Find ";
    const [file, track] = [find("sort").querySelector("[value=file]"), document.createElement("option")];
    file.textContent = "time";
    track.value = track.textContent = "track";
    file.after(track);
  }
  const ORDERS = {
    doubt: rising("confidence"),
    track: rising("track"),
    yaw: rising("yaw"),
    size: rising("size"),
    file: (a, b) => collator.compare(a.path, b.path) || a.order - b.order,
  };
  const sorted = {};
  let shown = [];

  // A range of a number: two sliders on one track, each with the steps from the least to the largest value.
  class Range {
    constructor(key, bounds, text) {
      this.key = key;
      this.text = text;
      [this.least, this.most, this.logarithmic] = bounds;
      this.steps = this.logarithmic ? 100 : Math.max(1, Math.round((this.most - this.least) / (bounds[3] || 1)));
      this.low = find(`${key}-low`);
      this.high = find(`${key}-high`);
      for (const [slider, value] of [[this.low, 0], [this.high, this.steps]]) {
        slider.min = 0;
        slider.max = this.steps;
        slider.setAttribute("value", value);
        slider.value = value;
        slider.addEventListener("input", () => this.moved(slider));
      }
      this.tell();
    }
    value(step) {
      const share = step / this.steps;
      return this.logarithmic ? this.least * (this.most / this.least) ** share : this.least + (this.most - this.least) * share;
    }
    moved(slider) {
      if (Number(this.low.value) > Number(this.high.value)) {
        if (slider === this.low) this.low.value = this.high.value;
        else this.high.value = this.low.value;
      }
      // At the right end both thumbs lie on one place: the one that can move back must be above.
      this.low.style.zIndex = Number(this.low.value) > this.steps / 2 ? 1 : 0;
      this.tell();
      later(choose);
    }
    tell() {
      const [low, high] = [this.low, this.high].map((slider) => this.text(this.value(Number(slider.value))));
      find(this.key).querySelector("output").textContent = `${low} to ${high}`;
      this.low.setAttribute("aria-valuetext", low);
      this.high.setAttribute("aria-valuetext", high);
    }
    test() {
      const [low, high] = [Number(this.low.value), Number(this.high.value)];
      if (low === 0 && high === this.steps) return () => true;
      const least = low === 0 ? -Infinity : this.value(low) - 1e-9, most = high === this.steps ? Infinity : this.value(high) + 1e-9;
      return (face) => face[this.key] !== null && face[this.key] >= least && face[this.key] <= most;
    }
  }
  const spread = (key) => faces.reduce(
    ([low, high], face) => (face[key] === null ? [low, high] : [Math.min(low, face[key]), Math.max(high, face[key])]),
    [Infinity, -Infinity],
  );
  const [turnedLeast, turnedMost] = spread("yaw"), [smallest, largest] = spread("size");
  const ranges = [
    new Range("yaw", faces.length ? [5 * Math.floor(turnedLeast / 5), 5 * Math.ceil(turnedMost / 5), false, 1] : [-90, 90, false, 1],
      (value) => number(value, 0, "\u00b0")),
    new Range("confidence", [0, 1, false, 0.01], percent),
    new Range("size", faces.length ? [Math.max(1, smallest), Math.max(2, largest), true] : [1, 2, true], (value) => number(value, 0, " px")),
  ];
  if (!faces.some((face) => face.confidence !== null)) {
    find("confidence").hidden = true;
    find("sort").querySelector("[value=doubt]").remove();
  }

  function choose() {
    const key = find("sort").value;
    sorted[key] = sorted[key] || [...faces].sort(ORDERS[key]);
    const words = plain(find("search").value).split(/\s+/).filter(Boolean).map((word) => (/^(track|frame)\d+$/.test(word) && isVideo ? `${word} ` : word));
    const tests = ranges.map((range) => range.test());
    shown = sorted[key].filter((face) => words.every((word) => face.words.includes(word)) && tests.every((test) => test(face)));
    if (find("reverse").checked) shown.reverse();
    const of = many(faces.length, isVideo ? "tile" : "face");
    find("count").textContent =
      shown.length === faces.length ? `all ${of}` : `${shown.length.toLocaleString("en")} of ${of}`;
    find("nothing").hidden = shown.length > 0;
    for (const face of faces) face.index = -1;
    shown.forEach((face, index) => (face.index = index));
    for (const face of [...tiles.keys()]) if (face.index < 0) drop(face);
    layOut();
  }

  // --- Tiles ----------------------------------------------------------------------------------------------------------
  const grid = find("grid");
  const tiles = new Map(), pool = []; // tiles in the document by their face, and others to use again
  let columns = 1, width = 0, pitch = 1;

  // "M x y h 0" is a dot where lines have round ends; rings are hollow.
  function drawing(face) {
    if (face.drawing) return face.drawing;
    if (!face.points) return (face.drawing = scheme.flatMap(() => ["", "", ""]));
    const at = (k) => `${face.points[2 * k]} ${face.points[2 * k + 1]}`;
    const hidden = new Set(face.hidden);
    face.drawing = scheme.flatMap((group) => {
      const lines = group.curves.map(([first, last, closed]) => {
        const along = Array.from({ length: last - first + 1 }, (_, k) => at(first + k));
        return `M${along.join("L")}${closed ? "Z" : ""}`;
      });
      const dots = [], rings = [];
      for (let k = group.first; k < group.stop; k++) {
        if (hidden.has(k)) rings.push(`M${at(k)}m-7 0a7 7 0 1 0 14 0a7 7 0 1 0 -14 0`);
        else dots.push(`M${at(k)}h0`);
      }
      return [lines.join(""), dots.join(""), rings.join("")];
    });
    return face.drawing;
  }

  function makePicture(holder) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 1000 1000");
    svg.setAttribute("aria-hidden", "true");
    for (const group of scheme) {
      for (const kind of ["line", "point", "ring"]) {
        const path = document.createElementNS(SVG, "path");
        path.setAttribute("class", kind);
        path.setAttribute("stroke", group.colour);
        svg.append(path);
      }
    }
    holder.append(new Image(), svg);
  }

  function fillPicture(holder, face) {
    const image = new Image();
    image.decoding = "async";
    image.alt = face.whose;
    if (face.webp) image.src = `data:image/webp;base64,${face.webp}`;
    holder.firstElementChild.replaceWith(image);
    const paths = holder.querySelectorAll("path");
    drawing(face).forEach((d, k) => paths[k].setAttribute("d", d));
  }

  function makeTile() {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const picture = document.createElement("span");
    picture.className = "picture";
    makePicture(picture);
    const words = document.createElement("span");
    words.className = "words";
    const name = document.createElement("span");
    name.append(document.createElement("bdi"));
    name.setAttribute("aria-hidden", "true"); // the picture's text has it
    const numbers = document.createElement("span");
    numbers.className = "numbers";
    numbers.append(document.createElement("span"), document.createElement("span"));
    words.append(name, numbers);
    button.append(picture, words);
    button.addEventListener("click", () => enlarge(Number(item.dataset.index)));
    item.append(button);
    return item;
  }

  function place(face) {
    const index = face.index, item = tiles.get(face) || pool.pop() || makeTile();
    if (!tiles.has(face)) {
      tiles.set(face, item);
      const button = item.firstElementChild;
      button.className = face.status === "doubtful" ? "tile doubtful" : "tile";
      button.title = isVideo ? face.whose : face.path;
      fillPicture(button.firstElementChild, face);
      button.querySelector("bdi").textContent = face.name;
      const [sure, yaw] = button.querySelector(".numbers").children;
      sure.textContent = face.confidence === null ? "" : percent(face.confidence);
      yaw.textContent = `yaw ${number(face.yaw, 0, "\u00b0")}`;
    }
    item.dataset.index = index;
    item.setAttribute("aria-posinset", index + 1);
    item.setAttribute("aria-setsize", shown.length);
    item.style.width = `${width}px`;
    item.style.height = `${pitch - GAP}px`;
    item.style.transform = `translate(${(index % columns) * (width + GAP)}px, ${Math.floor(index / columns) * pitch}px)`;
  }

  function drop(face) {
    const item = tiles.get(face);
    item.remove();
    tiles.delete(face);
    pool.push(item);
  }

  function layOut() {
    const room = grid.clientWidth, [least, words] = window.innerWidth < 640 ? [104, 62] : [156, 48];
    columns = Math.max(1, Math.floor((room + GAP) / (least + GAP)));
    width = (room - GAP * (columns - 1)) / columns;
    pitch = width + words + GAP;
    document.documentElement.style.scrollPaddingTop = `${find("controls").offsetHeight + GAP}px`;
    grid.style.height = `${Math.ceil(shown.length / columns) * pitch}px`;
    render();
  }

  function render() {
    const above = -grid.getBoundingClientRect().top;
    const first = columns * Math.max(0, Math.floor(above / pitch) - SPARE_ROWS);
    const stop = Math.min(shown.length, columns * (Math.ceil((above + window.innerHeight) / pitch) + SPARE_ROWS));
    for (const [face, item] of [...tiles]) {
      const isNear = face.index >= first && face.index < stop;
      if (!isNear && !item.contains(document.activeElement)) drop(face);
    }
    shown.slice(first, stop).forEach(place);
    // In the document the tiles stand in their order, which the Tab key follows.
    [...tiles.keys()].sort((a, b) => a.index - b.index).forEach((face, k) => {
      const item = tiles.get(face);
      if (grid.children[k] !== item) grid.insertBefore(item, grid.children[k] || null);
    });
  }

  let waiting = null;
  function later(work) {
    if (waiting) waiting.add(work);
    else {
      waiting = new Set([work]);
      requestAnimationFrame(() => {
        const works = waiting;
        waiting = null;
        works.forEach((todo) => todo());
      });
    }
  }

  function focusOn(index) {
    const top = Math.floor(index / columns) * pitch + grid.getBoundingClientRect().top;
    const covered = find("controls").offsetHeight + GAP;
    if (top < covered) window.scrollBy(0, top - covered);
    else if (top + pitch > window.innerHeight) window.scrollBy(0, top + pitch - window.innerHeight);
    render();
    tiles.get(shown[index]).firstElementChild.focus({ preventScroll: true });
  }

  grid.addEventListener("keydown", (event) => {
    const item = event.target.closest("li");
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity }[event.key];
    if (!item || by === undefined) return;
    event.preventDefault();
    focusOn(Math.min(shown.length - 1, Math.max(0, Number(item.dataset.index) + by)));
  });

  // --- One face, enlarged ---------------------------------------------------------------------------------------------
  const dialog = find("large"), picture = find("large-picture");
  let current = 0;
  makePicture(picture);

  function enlarge(index) {
    current = index;
    const face = shown[index];
    fillPicture(picture, face);
    dialog.querySelector("bdi").textContent = face.path;
    const [left, top, wide, high] = face.box.map((value) => number(value, 0));
    const facts = [
      ...(isVideo
        ? [["track", String(face.track)], ["time", clock(face.time)], ["frame", face.frame.toLocaleString("en")]]
        : [["face", String(face.face)]]),
      ["status", face.status],
      ["confidence", percent(face.confidence)],
      ["detector's score", number(face.score, 2)],
      ["yaw", number(face.yaw, 1, "\u00b0")],
      ["pitch", number(face.pitch, 1, "\u00b0")],
      ["roll", number(face.roll, 1, "\u00b0")],
      ["size", number(face.size, 0, " px")],
      ["mean sigma", number(face.sigma, 1, " px")],
      ["hidden landmarks", face.hidden === null ? "unknown" : `${face.hidden.length} of 68`],
      ["box", `${wide} \u00d7 ${high} px at ${left}, ${top}`],
    ].filter(([, value]) => value !== "unknown");
    dialog.querySelector("dl").replaceChildren(...facts.flatMap(([term, value]) => {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = term;
      dd.textContent = value;
      if (value === "doubtful") dd.className = "doubtful";
      return [dt, dd];
    }));
    find("previous").disabled = index === 0;
    find("next").disabled = index === shown.length - 1;
    if (!dialog.open) dialog.showModal();
    showSolid();
  }
  const step = (by) => {
    if (shown[current + by]) enlarge(current + by);
  };
  find("previous").addEventListener("click", () => step(-1));
  find("next").addEventListener("click", () => step(1));
  find("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("close", () => focusOn(current));

  // --- The dense face of the enlarged one -------------------------------------------------------------------------------
  let turning = null; // the promise of a `TurningFace`, one for all faces

  async function readModel() {
    const { data, vertices, modes, step } = JSON.parse(find("model").textContent);
    const packed = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const raw = await new Response(stream).arrayBuffer(), end = 6 * vertices * modes;
    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.addEventListener("webglcontextlost", () => {
      canvas.remove();
      turning = null;
      find("solid").click();
    });
    const found = new TurningFace(canvas, new Int16Array(raw, 0, end / 2), new Uint16Array(raw, end), step);
    picture.append(canvas);
    return found;
  }

  async function showSolid() {
    const face = shown[current], image = picture.firstElementChild, hint = find("solid-hint"), button = find("solid");
    find("solid-bar").hidden = !face.mesh;
    const isSolid = Boolean(face.mesh) && button.getAttribute("aria-pressed") === "true";
    hint.hidden = find("colours").parentElement.hidden = !isSolid;
    picture.classList.toggle("solid", isSolid);
    if (!isSolid) return;
    hint.textContent = "Drag it, or use the arrow keys on it. What the photo does not show well is grey.";
    try {
      const [solid] = await Promise.all([(turning ||= readModel()), image.decode()]);
      if (shown[current] !== face) return;
      solid.canvas.setAttribute("aria-label", `${face.whose}, its dense face; arrow keys turn it`);
      solid.colours = find("colours").checked;
      solid.show(face.mesh, image);
    } catch (error) {
      picture.classList.remove("solid");
      find("colours").parentElement.hidden = true;
      hint.textContent = `The 3D face cannot be drawn: ${error.message}.`;
    }
  }
  find("solid").addEventListener("click", () => {
    const button = find("solid");
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
    showSolid();
  });
  find("colours").addEventListener("change", async (event) => {
    const solid = await turning;
    solid.colours = event.target.checked;
    solid.later();
  });

  // --- Controls -------------------------------------------------------------------------------------------------------
  const form = find("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => {
    ranges.forEach((range) => range.tell());
    document.body.classList.remove("bare");
    choose();
  }));
  const chosen = () => {
    const top = grid.getBoundingClientRect().top - form.offsetHeight;
    if (top < 0) window.scrollBy(0, top);
    later(choose);
  };
  find("search").addEventListener("input", chosen);
  find("sort").addEventListener("change", chosen);
  find("reverse").addEventListener("change", chosen);
  find("landmarks").addEventListener("change", (event) => document.body.classList.toggle("bare", !event.target.checked));
  find("more").open = window.innerWidth >= 640;
  window.addEventListener("scroll", () => later(render), { passive: true });
  new ResizeObserver(() => later(layOut)).observe(grid);
  choose();
});
