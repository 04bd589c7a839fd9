// Guess the unit: a two-alternative forced choice. The answers stay in this browser until they are saved as a file.
"use strict";

// The 95 % interval of a share, by Wilson.
function wilson(right, asked) {
  const z = 1.959963984540054, share = right / asked, scale = 1 + z * z / asked;
  const middle = (share + z * z / (2 * asked)) / scale;
  const half = (z / scale) * Math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

const inPercent = (share) => `${Math.round(100 * share)} %`;

function startGuess(form) {
  const store = `phosphene-guess ${new URL(".", location.href).pathname}`;
  const places = $$("option", form.elements.layer).map((option) => option.value).filter(Boolean);
  const question = $("[data-question]"), choices = $("[data-choices]"), says = $("[data-answer]"), next = $("[data-next]");
  let answers = recalled(), asked = null;

  function recalled() {
    try {
      const kept = JSON.parse(localStorage.getItem(store) ?? "[]");
      return Array.isArray(kept) ? kept : [];
    } catch { return []; }
  }

  function keep() {
    try { localStorage.setItem(store, JSON.stringify(answers)); }
    catch { $("[data-kept]").textContent = "This browser keeps nothing, so save the answers before you leave the page. Nothing is sent."; }
  }

  const some = (list) => list[Math.floor(Math.random() * list.length)];

  async function layerOf(place) {
    if (!globalThis.atlasChoices?.[place]) await load(`${place}/choices.js`);
    return globalThis.atlasChoices[place];
  }

  const unitName = (layer, [channel, name]) => name || `${layer.layer}:${channel}`;
  const picture = (place, [channel], alt) => make("img", { src: `${place}/${channel}-0.webp`, alt, width: 288, height: 288 });

  function drawn(tag, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function photographs(place, [channel, , , [width, height], list]) {
    const crops = list.map(([, , box]) => drawn("svg", { viewBox: box.join(" "), "aria-hidden": "true" },
      drawn("image", { href: `${place}/${channel}-exemplars-0.webp`, width, height })));
    const made = make("span", { className: "four" }, ...crops);
    return made;
  }

  async function ask() {
    const place = form.elements.layer.value || some(places), layer = await layerOf(place), kind = form.elements.kind.value;
    const unit = some(layer.units), foil = some(layer.units.filter((each) => each !== unit));
    const sides = Math.random() < 0.5 ? [unit, foil] : [foil, unit];
    asked = { place, layer, kind, unit, foil, sides, begun: performance.now() };
    const among = kind === "photographs";
    $("[data-asked]").textContent = among ? "Which photographs excite the unit that wants to see this?" : "Which picture is of the unit that these photographs excite?";
    $("[data-prompt]").replaceChildren(among ? picture(place, unit, "The preferred input of a unit") : photographs(place, unit));
    choices.replaceChildren(...sides.map((each, side) => {
      const shown = among ? photographs(place, each) : picture(place, each, "");
      const button = make("button", { type: "button", onclick: () => answer(side) }, shown, make("kbd", { textContent: String(side + 1) }), side ? "Right" : "Left");
      return button;
    }));
    says.textContent = "";
    next.hidden = true;
    question.hidden = false;
  }

  function answer(side) {
    const { place, layer, kind, unit, foil, sides, begun } = asked;
    if (!next.hidden) return;
    const right = sides[side] === unit, truth = sides.indexOf(unit);
    answers.push({ time: new Date().toISOString(), subject: layer.subject, subject_sha256: layer.sha256, layer: layer.layer, kind,
                   unit: unit[0], foil: foil[0], side: truth ? "right" : "left", answer: side ? "right" : "left", correct: right,
                   seconds: Math.round((performance.now() - begun) / 100) / 10 });
    keep();
    [...choices.children].forEach((button, i) => {
      const each = sides[i], classes = [...new Set(each[4].map(([, name]) => name).filter(Boolean))].join(", ");
      button.disabled = true;
      button.classList.add(i === truth ? "right" : "wrong");
      button.append(make("small", { textContent: [unitName(layer, each), classes && `photographs of ${classes}`].filter(Boolean).join(": ") }));
    });
    const link = (each) => make("a", { href: `${place}/${each[0]}.html`, textContent: unitName(layer, each) });
    says.replaceChildren(make("b", { textContent: right ? "Right. " : "Wrong. " }), "The unit is ", link(unit), `, the other is `, link(foil), ".");
    next.hidden = false;
    next.focus({ preventScroll: false });
    total();
  }

  function total() {
    const score = $("[data-score]"), table = $("[data-table]"), groups = Map.groupBy
      ? Map.groupBy(answers, (each) => `${each.subject}, ${each.layer}`)
      : answers.reduce((all, each) => { const key = `${each.subject}, ${each.layer}`; return all.set(key, [...(all.get(key) ?? []), each]); }, new Map());
    score.hidden = !answers.length;
    if (!answers.length) return;
    const told = (list) => {
      const right = list.filter((each) => each.correct).length, [low, high] = wilson(right, list.length);
      return [list.length, right, inPercent(right / list.length), `${inPercent(low)} … ${inPercent(high)}`];
    };
    const [n, right, share, interval] = told(answers);
    $("[data-total]").textContent = `${right} of ${n} right: ${share}; 95 %: ${interval}. Chance is 50 %.`;
    table.hidden = groups.size < 2;
    $("tbody", table).replaceChildren(...[...groups].map(([name, list]) => make("tr", {}, ...[name, ...told(list)].map((text) => make("td", { textContent: text })))));
  }

  const COLUMNS = ["time", "subject", "subject_sha256", "layer", "kind", "unit", "foil", "side", "answer", "correct", "seconds"];
  const safe = (value) => (/^[=+\-@\t]/.test(value) ? `'${value}` : value); // or a spreadsheet may take a name for a formula
  const cell = (value) => (/[",\n\r]/.test(value) ? `"${safe(value).replaceAll('"', '""')}"` : safe(value));

  function take(kind) {
    const right = answers.filter((each) => each.correct).length, [low, high] = wilson(right, answers.length);
    const text = kind === "json"
      ? JSON.stringify({ format: 1, kind: "guesses", share: { value: right / answers.length, low, high, n: answers.length }, answers }, null, 1)
      : [COLUMNS, ...answers.map((each) => COLUMNS.map((key) => cell(String(each[key] ?? ""))))].map((row) => row.join(",")).join("\r\n");
    const href = URL.createObjectURL(new Blob([text], { type: kind === "json" ? "application/json" : "text/csv" }));
    make("a", { href, download: `guesses.${kind}` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  }

  form.hidden = false;
  form.elements.layer.value = readHash().get("layer") ?? "";
  if (form.elements.layer.selectedIndex < 0) form.elements.layer.value = "";
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => { writeHash([["layer", form.elements.layer.value]]); ask(); });
  next.addEventListener("click", () => ask().then(() => $("[data-asked]").focus({ preventScroll: true })));
  for (const button of $$("[data-take]")) button.addEventListener("click", () => take(button.dataset.take));
  $("[data-forget]").addEventListener("click", () => {
    if (confirm("Forget all answers?")) { answers = []; keep(); total(); }
  });
  document.addEventListener("keydown", (event) => {
    const side = { 1: 0, 2: 1 }[event.key];
    if (side === undefined || event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (next.hidden && asked) answer(side);
  });
  total();
  ask();
}

document.addEventListener("DOMContentLoaded", () => $$("[data-guess]").forEach(startGuess));
