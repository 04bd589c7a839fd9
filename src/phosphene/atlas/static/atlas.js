// The atlas without a server: everything below also works from a file. Text from records only ever becomes textContent.
"use strict";

const root = document.documentElement;
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

// ── Light and dark ──────────────────────────────────────────────────────────────────────────────
// Set before anything is drawn. Where nothing was chosen, the system decides.

function remembered() {
  try { return localStorage.getItem("phosphene-theme"); } catch { return null; }
}

function setTheme(theme) {
  root.dataset.theme = theme;
  try { localStorage.setItem("phosphene-theme", theme); } catch { /* a browser that remembers nothing */ }
}

if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();

function toggleTheme() {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
}

// ── The state of a page lies in its address, so that a link to it can be shared ─────────────────

function readHash() {
  return new URLSearchParams(location.hash.slice(1));
}

function hashOf(entries) {
  const kept = new URLSearchParams(entries.filter(([, value]) => value !== ""));
  return kept.size ? `#${kept}` : "";
}

function writeHash(entries) {
  history.replaceState(null, "", hashOf(entries) || location.pathname + location.search);
}

// A page from a file may not read JSON, so what it needs is a script that assigns it.
function load(src) {
  return new Promise((resolve, reject) => {
    document.head.append(make("script", { src, onload: resolve, onerror: reject }));
  });
}

// ── Search ──────────────────────────────────────────────────────────────────────────────────────

let index; // a promise of the entries, asked for when somebody first searches

function loadIndex() {
  index ??= load(`${root.dataset.root}assets/index.js`).then(() => atlasIndex.entries.map(entry));
  return index;
}

function entry([subject, key, name, object, also, page, tile, photograph]) {
  const title = name || key;
  const first = `${title}\n${key}`.toLowerCase();
  return { subject: atlasIndex.subjects[subject], sha256: atlasIndex.hashes[subject], key, name, title, object, also, page, tile, photograph, first,
           all: `${first}\n${object}\n${also}\n${atlasIndex.subjects[subject]}`.toLowerCase() };
}

function rank(entry, text) {
  if (entry.first.split("\n").includes(text)) return 0;
  if (entry.first.startsWith(text)) return 1;
  return entry.first.includes(text) ? 2 : 3;
}

function search(entries, query) {
  const text = query.trim().toLowerCase();
  const words = text.split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  return entries
    .filter((entry) => words.every((word) => entry.all.includes(word)))
    .map((entry) => [rank(entry, text), entry])
    .sort(([a], [b]) => a - b)
    .map(([, entry]) => entry);
}

function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function tileImage(entry) {
  if (!entry.tile) return make("span", { className: "blank" });
  const src = `${root.dataset.root}${entry.tile}.webp`;
  return make("img", { src, alt: "", width: 96, height: 96, loading: "lazy", className: entry.photograph ? "photograph" : "" });
}

function about(entry) {
  const photographs = entry.also && `photographs of ${entry.also}`;
  return [entry.name && entry.key, entry.subject, photographs].filter(Boolean).join(" · ");
}

function address(entry) {
  return root.dataset.root + entry.page;
}

function startSearch(form) {
  const input = $("input", form), list = $("#found");
  let active = -1, shown = [];

  const close = () => {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const activate = (number) => {
    active = number;
    [...list.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === number)));
    if (number < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", list.children[number].id);
    list.children[number].scrollIntoView({ block: "nearest" });
  };
  const everything = () => { location.href = `${root.dataset.root}search.html#${new URLSearchParams({ q: input.value })}`; };
  const option = (entry, i) => {
    const text = make("span", {}, make("b", { textContent: entry.title }),
      make("small", { textContent: [about(entry), entry.object].filter(Boolean).join(" · ") }));
    const made = make("li", { id: `found-${i}`, onclick: () => { location.href = address(entry); } }, tileImage(entry), text);
    made.setAttribute("role", "option");
    made.setAttribute("aria-selected", "false");
    return made;
  };
  const show = async () => {
    const entries = await loadIndex();
    const found = search(entries, input.value);
    if (document.body.classList.contains("searching")) return showFound(found, input.value);
    if (!input.value.trim() || document.activeElement !== input) return close();
    shown = found.slice(0, 8);
    list.replaceChildren(...shown.map(option));
    const rest = found.length ? `All ${found.length.toLocaleString("en")} results` : "Nothing is called that";
    const more = make("li", { id: "found-all", className: "more", textContent: rest, onclick: everything });
    more.setAttribute("role", "option");
    list.append(more);
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    activate(-1);
  };
  input.addEventListener("input", show);
  input.addEventListener("focus", show);
  input.addEventListener("blur", close);
  list.addEventListener("mousedown", (event) => event.preventDefault()); // or the click would come after the blur
  input.addEventListener("keydown", (event) => {
    const options = list.children.length;
    if (event.key === "Escape") { input.value = ""; close(); input.blur(); }
    if (list.hidden || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
    event.preventDefault();
    activate((active + (event.key === "ArrowDown" ? 1 : active < 0 ? 0 : -1) + options) % options);
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (shown[active]) location.href = address(shown[active]);
    else everything();
  });
  if (document.body.classList.contains("searching")) {
    const read = () => { input.value = readHash().get("q") ?? ""; show(); };
    addEventListener("hashchange", read);
    read();
  }
}

function showFound(found, query) {
  const most = 600;
  const tile = (entry) => make("li", {}, make("a", { href: address(entry) }, tileImage(entry),
    make("b", { textContent: entry.title, title: entry.title }), make("span", {}, make("i", { textContent: entry.object })),
    make("em", { textContent: about(entry) })));
  $("[data-found]").replaceChildren(...found.slice(0, most).map(tile));
  const count = `${found.length.toLocaleString("en")} found` + (found.length > most ? `, the first ${most} shown` : "");
  $("[data-found-count]").textContent = query.trim() ? count : "Type a class, an object, or layer:channel above.";
  writeHash([["q", query]]);
}

// ── A random unit, and the unit that a permanent link names ─────────────────────────────────────
// A link is unit.html#NETWORK@SHA256/LAYER:CHANNEL. The weights decide; their name serves where they are not here.

async function goRandom() {
  const shown = (await loadIndex()).filter((entry) => entry.tile && !entry.page.includes("#"));
  if (shown.length) location.href = address(shown[Math.floor(Math.random() * shown.length)]);
}

async function followLink(says) {
  let text = location.hash.slice(1);
  try { text = decodeURIComponent(text); } catch { /* a link that somebody wrote by hand */ }
  const [, network, sha256, unit] = text.match(/^(.*)@([^/@]*)\/(.+)$/s) ?? [];
  if (!unit) return;
  const named = (await loadIndex()).filter((entry) => entry.key === unit);
  const same = sha256 && named.find((entry) => entry.sha256 && entry.sha256 === sha256);
  const found = same || named.find((entry) => entry.subject === network);
  if (found) location.replace(address(found));
  else says.textContent = `This atlas has no unit ${unit} of ${network}. The search above looks through what it has.`;
}

// ── The units of a layer, those that a reader wants in the order that he wants ──────────────────
// What is wanted is what the filter's fields, or the address, say; units.js has assigned atlasUnits.

function layerUnits() {
  return atlasUnits.units.map(([channel, name, object, values], place) => ({
    channel, name, object, values, place, text: `${atlasUnits.layer}:${channel} ${name} ${object}`.toLowerCase() }));
}

const column = (key) => atlasUnits.columns.findIndex(([name]) => name === key);
const isShare = (at) => Boolean(atlasUnits.columns[at]?.[1]);

function fits({ q = "", object = "", by = "", min = "" }) {
  const words = q.toLowerCase().split(/\s+/).filter(Boolean), at = column(by);
  const least = min === "" || at < 0 ? null : Number(min) / (isShare(at) ? 100 : 1);
  return (unit) => words.every((word) => unit.text.includes(word))
    && (!object || (object === "*" ? unit.object : `=${unit.object}` === object))
    && (least === null || (unit.values[at] !== null && unit.values[at] >= least));
}

function compare({ sort = "", reverse = "" }) {
  const at = column(sort), sign = reverse ? -1 : 1, unknown = (unit) => unit.values[at] === null;
  const by = (a, b) => (at >= 0 ? b.values[at] - a.values[at] : sort === "name" ? a.name.localeCompare(b.name) : 0);
  return (a, b) => unknown(a) - unknown(b) || sign * (by(a, b) || a.channel - b.channel);
}

function startFilter(form) {
  const list = $("[data-tiles]"), none = $("[data-none]"), count = $("[data-count]");
  const units = layerUnits(), tiles = $$("li", list), links = tiles.map((tile) => $("a", tile));
  const pages = links.map((link) => link.getAttribute("href")), notes = tiles.map((tile) => $("em", tile));
  const number = (value, share) => (share ? `${+(100 * value).toFixed(1)} %` : value.toFixed(2)).replace("-", "−");
  const fields = () => Object.fromEntries(new FormData(form));
  const state = ({ by, min, ...rest }) => Object.entries(min ? { ...rest, by, min } : rest);

  const apply = () => {
    const wanted = fields(), fit = fits(wanted), at = Math.max(column(wanted.sort), 0), hash = hashOf(state(wanted));
    const sorted = units.toSorted(compare(wanted));
    let shown = 0;
    for (const unit of sorted) {
      const value = unit.values[at] ?? null;
      tiles[unit.place].hidden = !fit(unit);
      shown += !tiles[unit.place].hidden;
      notes[unit.place].textContent = value === null ? "" : number(value, isShare(at));
      links[unit.place].setAttribute("href", pages[unit.place] + hash); // its page leads on in the same order
    }
    list.append(...sorted.map((unit) => tiles[unit.place]));
    none.hidden = shown > 0;
    const all = units.length.toLocaleString("en");
    count.textContent = shown === units.length ? `${all} units` : `${shown.toLocaleString("en")} of ${all} units`;
  };
  const changed = () => {
    apply();
    writeHash(state(fields()));
  };
  const read = () => {
    const wanted = readHash();
    for (const field of $$("[name]", form)) {
      if (field.type === "checkbox") field.checked = wanted.has(field.name);
      else if (field.tagName === "SELECT") field.value = wanted.get(field.name) ?? field.options[0].value;
      else field.value = wanted.get(field.name) ?? "";
      if (field.tagName === "SELECT" && field.selectedIndex < 0) field.selectedIndex = 0; // a link from elsewhere
    }
    apply();
  };
  form.addEventListener("input", changed);
  form.addEventListener("change", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(changed));
  $("[data-clear]").addEventListener("click", () => form.reset());
  addEventListener("hashchange", read);
  if (location.hash) read();
}

// From a unit to the next in the order that the reader came with; without one, the page's own links stay.
async function startTurn(nav) {
  if (!location.hash) return;
  await load("units.js");
  const wanted = Object.fromEntries(readHash()), found = layerUnits().filter(fits(wanted)).sort(compare(wanted));
  const at = found.findIndex((unit) => unit.channel === Number(nav.dataset.turn));
  if (at < 0) return;
  const link = (unit, rel, text, says) => unit && make("a", { rel, textContent: text(unit.channel),
    href: `${unit.channel}.html${location.hash}`, ariaLabel: `${says}: ${unit.name || `${atlasUnits.layer}:${unit.channel}`}` });
  const links = [link(found[at - 1], "prev", (channel) => `← ${channel}`, "Previous"),
                 link(found[at + 1], "next", (channel) => `${channel} →`, "Next")];
  nav.replaceChildren(...links.filter(Boolean));
  $("main a[rel=up]").hash = location.hash;
}

// ── Keyboard ────────────────────────────────────────────────────────────────────────────────────

const tiles = () => $$(".tiles li:not([hidden]) > a");

function stepTile(by) {
  const all = tiles(), at = all.indexOf(document.activeElement);
  all[at < 0 ? 0 : Math.min(Math.max(at + by, 0), all.length - 1)]?.focus();
}

function columns() {
  const [first, ...rest] = tiles().map((tile) => tile.parentElement.offsetTop);
  const next = rest.findIndex((top) => top > first);
  return next < 0 ? rest.length + 1 : next + 1;
}

const follow = (rel) => $(`main a[rel=${rel}]`)?.click();

const keys = {
  "/": () => { $("#search").focus(); $("#search").select(); },
  "?": () => $("#help").showModal(),
  r: goRandom,
  m: () => follow("map"),
  j: () => stepTile(1),
  k: () => stepTile(-1),
  u: () => ($("main a[rel=up]") ?? $(".brand")).click(),
  ArrowLeft: () => (onTile() ? stepTile(-1) : follow("prev")),
  ArrowRight: () => (onTile() ? stepTile(1) : follow("next")),
  ArrowDown: () => onTile() && stepTile(columns()),
  ArrowUp: () => onTile() && stepTile(-columns()),
};

const onTile = () => document.activeElement.matches(".tiles li > a");

function pressed(event) {
  const typing = event.target.matches("input, select, textarea") || $("dialog[open]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
  if (["ArrowDown", "ArrowUp"].includes(event.key) && !onTile()) return; // scrolls, as everywhere
  event.preventDefault();
  keys[event.key]();
}

// ── Sizes: of tiles, which the reader chooses, and of a picture in the whole window ─────────────

function startSize(label) {
  const range = $("input", label), list = $("[data-tiles]");
  const set = (size) => list.style.setProperty("--tile", `${size}rem`);
  let kept = null;
  try { kept = localStorage.getItem("phosphene-tile"); } catch { /* a browser that remembers nothing */ }
  label.hidden = false;
  range.value = kept ?? parseFloat(getComputedStyle(list).gridTemplateColumns) / 16;
  if (kept) set(range.value);
  range.addEventListener("input", (event) => {
    event.stopPropagation(); // it filters nothing
    set(range.value);
    try { localStorage.setItem("phosphene-tile", range.value); } catch { /* as above */ }
  });
}

let large; // the dialog, made when it is first needed

function enlarge(links, at) {
  if (!large) {
    const image = make("img"), says = make("span"), button = (text, step) => make("button", { type: "button", textContent: text, onclick: step });
    large = make("dialog", { className: "large", ariaLabel: "The picture, as large as the window" });
    large.append(image, make("div", {}, button("←", () => large.show_at(-1)), says, button("→", () => large.show_at(1)), button("Close", () => large.close())));
    large.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) large.show_at(step);
    });
    large.show_at = (step) => {
      const { links, at } = large.state, now = (at + step + links.length) % links.length, shown = $("img", links[now]);
      large.state = { links, at: now };
      image.src = links[now].href;
      image.alt = shown.alt;
      says.textContent = shown.alt;
      for (const each of $$("div button:not(:last-child)", large)) each.hidden = links.length < 2;
    };
    document.body.append(large);
  }
  large.state = { links, at };
  large.show_at(0);
  large.showModal();
}

function startLarge() {
  const links = $$("a[data-large]");
  links.forEach((link, at) => link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    enlarge(links, at);
  }));
}

// ── Moving pictures, and commands to copy ───────────────────────────────────────────────────────

function startFilm(figure) {
  const image = $("img", figure), button = $("[data-play]", figure), still = matchMedia("(prefers-reduced-motion: reduce)");
  let playing = !still.matches;
  const set = (now) => {
    playing = now;
    $("source", figure)?.remove(); // whoever presses the button wants to see it move
    image.src = playing ? figure.dataset.film : figure.dataset.still;
    button.textContent = playing ? "Pause" : "Play";
  };
  button.textContent = playing ? "Pause" : "Play";
  button.hidden = false;
  button.addEventListener("click", () => set(!playing));
  still.addEventListener("change", () => set(!still.matches));
}

function startCopy(button) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($("code", button.parentElement).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

document.addEventListener("DOMContentLoaded", () => {
  $("[data-theme-button]").addEventListener("click", toggleTheme);
  $("[data-help-button]").addEventListener("click", () => $("#help").showModal());
  $$("[data-search]").forEach(startSearch);
  $$("[data-filter]").forEach(startFilter);
  $$("[data-turn]").forEach(startTurn);
  $$("[data-film]").forEach(startFilm);
  $$("[data-copy]").forEach(startCopy);
  $$("[data-size]").forEach(startSize);
  $("[data-random-button]").addEventListener("click", goRandom);
  $$("[data-linked]").forEach((says) => { followLink(says); addEventListener("hashchange", () => followLink(says)); });
  startLarge();
  document.addEventListener("keydown", pressed);
});
