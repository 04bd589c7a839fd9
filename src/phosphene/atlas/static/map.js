// The map of a layer: all units on one canvas, from one sheet of small tiles; what is near is drawn from its own tile.
"use strict";

const SHARP = 1.4; // how much larger than in the sheet a tile is drawn before its own file is asked for
const MOST = 240; // files that are asked for at once

function startMap(place) {
  const canvas = $("canvas", place), card = $("[data-map-card]"), tools = $("[data-map-tools]"), count = $("[data-map-count]");
  const pen = canvas.getContext("2d"), sheet = new Image(), own = new Map();
  const { columns, rows, cell: [wide, high] } = atlasPlaces;
  const units = layerUnits().flatMap((unit) => {
    const at = atlasPlaces.units[unit.place];
    if (!at) return [];
    const [x, y, column, row, photograph] = at;
    return [{ ...unit, photograph, column, row, grid: [column * wide, row * high], clusters: [x * columns * wide * 1.2, y * rows * high * 1.2], fits: true }];
  });
  const score = column("score");
  let view = { scale: 1, x: 0, y: 0 }, selected = null, chosen = null, layout = "grid", share = 0, asked = false, moved = false;

  const at = (unit) => {
    const [x, y] = [0, 1].map((i) => unit.grid[i] + (unit.clusters[i] - unit.grid[i]) * share);
    return [x * view.scale + view.x, y * view.scale + view.y];
  };
  const size = () => [wide * view.scale, high * view.scale];
  const extent = () => [0, 1].map((i) => Math.max(...units.map((unit) => unit[layout][i])) + [wide, high][i]);

  function fit() {
    const [across, down] = extent(), width = canvas.clientWidth, height = canvas.clientHeight;
    const scale = Math.min(width / across, height / down) * 0.97;
    view = { scale, x: (width - across * scale) / 2, y: (height - down * scale) / 2 };
    redraw();
  }

  function redraw() {
    if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; draw(); }); }
  }

  function tileOf(unit) {
    if (!own.has(unit.channel)) {
      const image = new Image();
      image.onload = redraw;
      image.src = `${unit.channel}.webp`;
      own.set(unit.channel, image);
    }
    const image = own.get(unit.channel);
    return image.complete && image.naturalWidth ? image : null;
  }

  function draw() {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight, [w, h] = size();
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.imageSmoothingQuality = "high";
    const seen = units.filter((unit) => { const [x, y] = at(unit); return x > -w && y > -h && x < width && y < height; });
    const sharp = w * ratio > wide * SHARP && seen.length <= MOST;
    const gap = Math.min(w * 0.03, 3);
    for (const unit of seen) drawTile(unit, sharp && tileOf(unit), w, h, gap);
    if (selected) outline(selected, w, h);
  }

  function drawTile(unit, tile, w, h, gap) {
    const [x, y] = at(unit);
    pen.globalAlpha = unit.fits ? 1 : 0.1;
    pen.save();
    if (unit.photograph) {
      pen.beginPath();
      pen.ellipse(x + w / 2, y + h / 2, w / 2 - gap, h / 2 - gap, 0, 0, 7);
      pen.clip();
    }
    const [left, top, width, height] = [x + gap, y + gap, w - 2 * gap, h - 2 * gap];
    if (tile) {
      const scale = Math.min(width / tile.naturalWidth, height / tile.naturalHeight);
      const own = [tile.naturalWidth * scale, tile.naturalHeight * scale];
      pen.drawImage(tile, left + (width - own[0]) / 2, top + (height - own[1]) / 2, ...own);
    } else if (sheet.complete && sheet.naturalWidth) {
      pen.drawImage(sheet, unit.column * wide, unit.row * high, wide, high, left, top, width, height);
    }
    pen.restore();
    pen.globalAlpha = 1;
  }

  function outline(unit, w, h) {
    const [x, y] = at(unit), paper = getComputedStyle(document.body).backgroundColor, accent = getComputedStyle(place).color;
    for (const [colour, line] of [[paper, 6], [accent, 3]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.strokeRect(x, y, w, h);
    }
  }

  function zoom(by, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const scale = Math.min(Math.max(view.scale * by, 0.02), 640 / wide), real = scale / view.scale;
    view = { scale, x: x - (x - view.x) * real, y: y - (y - view.y) * real };
    redraw();
  }

  const hit = (x, y) => {
    const [w, h] = size();
    return units.findLast((unit) => { const [left, top] = at(unit); return x >= left && y >= top && x < left + w && y < top + h; });
  };
  const page = (unit) => `${unit.channel}.html`;

  function select(unit, keep) {
    if (unit === selected && !keep) return;
    selected = unit ?? null;
    const told = unit && [unit.name && `${atlasUnits.layer}:${unit.channel}`, unit.object,
      score >= 0 && unit.values[score] !== null && `score ${unit.values[score].toFixed(2).replace("-", "−")}`].filter(Boolean).join(" · ");
    card.replaceChildren(...(unit ? [make("a", { href: page(unit) }, make("img", { src: `${unit.channel}.webp`, alt: "", width: 80, height: 80 }),
      make("span", {}, make("b", { textContent: unit.name || `${atlasUnits.layer}:${unit.channel}` }), make("span", { textContent: told })))] : []));
    if (keep) { chosen = selected; remember(); } // what a pointer only passes over is not in the address
    redraw();
  }

  function remember() {
    writeHash([["unit", chosen ? String(chosen.channel) : ""], ["q", tools.elements.q.value], ["layout", layout === "grid" ? "" : layout]]);
  }

  // What is not in view is brought there, by as little as is needed.
  function show(unit) {
    const [x, y] = at(unit), [w, h] = size(), edge = 12;
    const into = (from, long, room) => (from < edge ? edge - from : from + long > room - edge ? room - edge - from - long : 0);
    view = { ...view, x: view.x + into(x, w, canvas.clientWidth), y: view.y + into(y, h, canvas.clientHeight) };
  }

  function step(across, down) {
    const from = selected ?? units.find((unit) => unit.fits) ?? units[0];
    if (!selected) { show(from); return select(from, true); }
    const [x, y] = at(from);
    const next = units.filter((unit) => unit !== from && unit.fits).map((unit) => {
      const [dx, dy] = [at(unit)[0] - x, at(unit)[1] - y], ahead = dx * across + dy * down, aside = Math.abs(dx * down) + Math.abs(dy * across);
      return [ahead > 0.01 && aside <= 1.5 * ahead ? Math.hypot(ahead, 2 * aside) : Infinity, unit];
    }).reduce((best, each) => (each[0] < best[0] ? each : best), [Infinity, null]);
    if (next[1]) { show(next[1]); select(next[1], true); }
  }

  const keys = {
    ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: fit,
    Enter: () => { if (selected) location.href = page(selected); },
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    event.stopPropagation(); // or the page would turn to another unit
    keys[event.key]();
  });

  const fingers = new Map();
  const middle = () => { const all = [...fingers.values()]; return [0, 1].map((i) => all.reduce((sum, each) => sum + each[i], 0) / all.length); };
  const apart = () => { const [a, b] = [...fingers.values()]; return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0; };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    if (!fingers.size) moved = false;
    fingers.set(event.pointerId, [event.offsetX, event.offsetY, event.offsetX, event.offsetY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    const x = event.offsetX, y = event.offsetY, finger = fingers.get(event.pointerId);
    if (!finger) {
      const unit = hit(x, y);
      canvas.classList.toggle("pointing", Boolean(unit));
      return unit && select(unit);
    }
    const [[oldX, oldY], old] = [middle(), apart()];
    moved ||= Math.hypot(x - finger[2], y - finger[3]) > 6 || fingers.size > 1;
    finger[0] = x;
    finger[1] = y;
    if (!moved) return;
    canvas.classList.add("dragging");
    const [newX, newY] = middle();
    view = { ...view, x: view.x + newX - oldX, y: view.y + newY - oldY };
    if (old && apart()) zoom(apart() / old, newX, newY);
    redraw();
  });
  const up = (event) => {
    if (!fingers.delete(event.pointerId)) return;
    canvas.classList.remove("dragging");
    if (moved || event.type !== "pointerup") return;
    const unit = hit(event.offsetX, event.offsetY), known = unit && unit === selected;
    select(unit, true);
    if (unit && (event.pointerType === "mouse" || known)) location.href = page(unit); // a finger first sees what it is
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), event.offsetX, event.offsetY);
  }, { passive: false });

  function choose() {
    const fit = fits({ q: tools.elements.q.value });
    for (const unit of units) unit.fits = fit(unit);
    const shown = units.filter((unit) => unit.fits).length;
    count.textContent = shown === units.length ? `${shown.toLocaleString("en")} units` : `${shown.toLocaleString("en")} of ${units.length.toLocaleString("en")} units`;
    redraw();
  }

  function arrange(wanted, slowly) {
    layout = wanted === "clusters" ? "clusters" : "grid";
    const from = share, to = layout === "grid" ? 0 : 1, begun = performance.now();
    const still = !slowly || matchMedia("(prefers-reduced-motion: reduce)").matches;
    const move = (now) => {
      const passed = still ? 1 : Math.min(Math.max((now - begun) / 500, 0), 1);
      share = from + (to - from) * passed * passed * (3 - 2 * passed);
      if (passed < 1) requestAnimationFrame(move);
      draw();
    };
    move(begun);
    fit();
  }

  function read() {
    const wanted = readHash();
    tools.elements.q.value = wanted.get("q") ?? "";
    tools.elements.layout.value = wanted.get("layout") === "clusters" ? "clusters" : "";
    arrange(tools.elements.layout.value, false);
    choose();
    const unit = units.find((each) => String(each.channel) === wanted.get("unit"));
    if (unit) {
      const [x, y] = at(unit), [w, h] = size();
      zoom(Math.max(1, Math.min(96 / w, 4)), x + w / 2, y + h / 2);
      show(unit);
    }
    select(unit, true);
  }

  tools.hidden = place.hidden = false;
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.elements.q.addEventListener("input", () => { choose(); remember(); });
  tools.elements.layout.addEventListener("change", () => { arrange(tools.elements.layout.value, true); remember(); });
  for (const button of $$("[data-zoom]", tools)) button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
  $("[data-whole]", tools).addEventListener("click", fit);
  addEventListener("hashchange", read);
  new ResizeObserver(redraw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  sheet.onload = () => { place.dataset.ready = ""; redraw(); };
  sheet.src = place.dataset.sheet;
  read();
}

document.addEventListener("DOMContentLoaded", () => $$("[data-map]").forEach(startMap));
