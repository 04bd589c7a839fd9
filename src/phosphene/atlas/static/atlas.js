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

function writeHash(entries) {
  const kept = new URLSearchParams(entries.filter(([, value]) => value !== ""));
  history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname + location.search);
}

// ── Search ──────────────────────────────────────────────────────────────────────────────────────

let index; // a promise of the entries, asked for when somebody first searches

function loadIndex() {
  index ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `${root.dataset.root}assets/index.js`;
    script.onload = () => resolve(atlasIndex.entries.map(entry));
    script.onerror = reject;
    document.head.append(script);
  });
  return index;
}

function entry([subject, key, name, object, also, page, tile, photograph]) {
  const title = name || key;
  const first = `${title}\n${key}`.toLowerCase();
  return { subject: atlasIndex.subjects[subject], key, name, title, object, also, page, tile, photograph, first,
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
    make("span", {}, make("b", { textContent: entry.title }), " ", make("i", { textContent: entry.object })),
    make("em", { textContent: about(entry) })));
  $("[data-found]").replaceChildren(...found.slice(0, most).map(tile));
  const count = `${found.length.toLocaleString("en")} found` + (found.length > most ? `, the first ${most} shown` : "");
  $("[data-found-count]").textContent = query.trim() ? count : "Type a class, an object, or layer:channel above.";
  writeHash([["q", query]]);
}

// ── Filtering and sorting the units of a layer ──────────────────────────────────────────────────

function startFilter(form) {
  const list = $("[data-tiles]"), none = $("[data-none]"), count = $("[data-count]");
  const keys = $$("[name=by] option", form).map((option) => option.value);
  const shares = $$("[name=by] option", form).map((option) => "share" in option.dataset);
  const units = $$("li", list).map((li) => ({
    li,
    channel: Number(li.dataset.c),
    object: li.dataset.o ?? "",
    values: li.dataset.v.split(",").map((value) => (value === "" ? null : Number(value))),
    text: `${location.pathname.split("/").pop().replace(".html", "")}:${li.textContent}`.toLowerCase(),
    name: li.textContent.trim().replace(/^\d+\s*/, "").toLowerCase(),
    note: $("em", li),
  }));
  const number = (value, share) => (share ? `${+(100 * value).toFixed(1)} %` : value.toFixed(2)).replace("-", "−");
  const fields = () => Object.fromEntries(new FormData(form));

  const compare = (sort) => {
    const at = keys.indexOf(sort);
    if (sort === "name") return (a, b) => a.name.localeCompare(b.name) || a.channel - b.channel;
    if (at < 0) return (a, b) => a.channel - b.channel;
    return (a, b) => (b.values[at] ?? -Infinity) - (a.values[at] ?? -Infinity) || a.channel - b.channel;
  };
  const fits = ({ q = "", object = "", by, min = "" }) => {
    const words = q.toLowerCase().split(/\s+/).filter(Boolean), at = keys.indexOf(by);
    const least = min === "" ? null : Number(min) / (shares[at] ? 100 : 1);
    return (unit) => words.every((word) => unit.text.includes(word))
      && (!object || (object === "*" ? unit.object : `=${unit.object}` === object))
      && (least === null || (unit.values[at] !== null && unit.values[at] >= least));
  };
  const known = (unit, sort) => keys.indexOf(sort) < 0 || unit.values[keys.indexOf(sort)] !== null;
  const apply = () => {
    const wanted = fields(), fit = fits(wanted), at = Math.max(keys.indexOf(wanted.sort), 0);
    const sorted = units.toSorted(compare(wanted.sort));
    if (wanted.reverse) sorted.reverse().sort((a, b) => known(b, wanted.sort) - known(a, wanted.sort)); // no value: last
    let shown = 0;
    for (const unit of sorted) {
      unit.li.hidden = !fit(unit);
      shown += !unit.li.hidden;
      unit.note.textContent = unit.values[at] === null ? "" : number(unit.values[at], shares[at]);
    }
    list.append(...sorted.map((unit) => unit.li));
    none.hidden = shown > 0;
    const all = units.length.toLocaleString("en");
    count.textContent = shown === units.length ? `${all} units` : `${shown.toLocaleString("en")} of ${all} units`;
  };
  const changed = () => {
    const { by, min, ...rest } = fields();
    apply();
    writeHash(Object.entries(min ? { ...rest, by, min } : rest));
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
  const typing = event.target.matches("input, select, textarea") || $("#help").open;
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
  if (["ArrowDown", "ArrowUp"].includes(event.key) && !onTile()) return; // scrolls, as everywhere
  event.preventDefault();
  keys[event.key]();
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
  $$("[data-film]").forEach(startFilm);
  $$("[data-copy]").forEach(startCopy);
  document.addEventListener("keydown", pressed);
});
