"use strict";
// The gallery's one script. Whatever comes from the data becomes text (`el` appends strings as text nodes), and never
// markup. Formatted with Prettier, 120 columns.

const data = JSON.parse(document.getElementById("data").textContent);
const lines = data.lines;
const total = lines.row.length;

const PAGE = 60; // cards in the document at once
const MOST_COMPARED = 4;
const MOST_CHOICES = 200; // values of a facet that can be chosen from a list
const MOST_PICKS = 6; // facets that are there without asking for more
const FEW = 20; // values that are listed as they were written
const MOST_ROWS = 40; // of the grid
const MOST_COLUMNS = 16;
const THUMBS = 4; // posters in a cell of the grid
const IN_STEP_S = 0.12; // by so much may compared clips drift apart

const WORDS = {
  stored: "stored",
  failed: "failed",
  in_doubt: "in doubt",
  unfetched: "paid, not yet on disk",
  running: "running",
  pending: "pending",
};
const SORTS = {
  written: ["as written", (index) => index],
  newest: ["newest first", (index) => -(lines.ended[index] || 0)],
  dearest: ["dearest first", (index) => -lines.micro[index]],
  slowest: ["longest generation first", (index) => -(lines.took_s[index] || 0)],
};
const IN_WORDS = {
  aspect_ratio: (value) => value,
  duration: (value) => `${value} s`,
  cfg_scale: (value) => `cfg ${value}`,
};
const NONE = ""; // the value of a line that has none
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// ---------------------------------------------------------------- small tools

function byId(id) {
  return document.getElementById(id);
}

function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...present(children));
  return node;
}

/** Children without those that there is no reason for. */
function present(children) {
  return children.flat().filter((child) => child !== null && child !== undefined && child !== false);
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Whole micro-dollars as dollars with exact cents. */
function usd(micro) {
  const rest = String(micro % 1e6)
    .padStart(6, "0")
    .replace(/0+$/, "")
    .padEnd(2, "0");
  return `$${Math.floor(micro / 1e6).toLocaleString("en-US")}.${rest}`;
}

function counted(number, noun, plural = `${noun}s`) {
  return `${number.toLocaleString("en-US")} ${number === 1 ? noun : plural}`;
}

function duration(seconds) {
  if (seconds < 120) return `${seconds < 10 && seconds % 1 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function moment(value) {
  const style = {
    day: "numeric",
    month: "short",
    year: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  };
  return new Date(value).toLocaleString("en-GB", style);
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function sum(column, indexes) {
  return indexes.reduce((so_far, index) => so_far + column[index], 0);
}

function tell(sentence) {
  byId("said").textContent = sentence;
}

// ---------------------------------------------------------------- what is known of a line

function coded(column, index) {
  return column.v[column.i[index]];
}

function statusOf(index) {
  return data.statuses[lines.status[index]];
}

function titleOf(index) {
  return coded(lines.id, index) || `row ${lines.row[index]}`;
}

const takenAgain = new Set(lines.row.filter((_, index) => lines.take[index] > 1));

function takeOf(index) {
  return takenAgain.has(lines.row[index]) ? `take ${lines.take[index]}` : "";
}

function field(name) {
  return data.fields.find((each) => each.kind === "parameter" && each.name === name);
}

/** Width by height: as measured, else as asked for. */
function shapeOf(index) {
  if (lines.width[index] && lines.height[index]) return lines.width[index] / lines.height[index];
  if (!lines.video[index]) return 1.6; // a sentence instead of a picture: it wants to be read
  const asked = field("aspect_ratio");
  const [width, height] = ((asked && coded(asked, index)) || "").split(":").map(Number);
  return width > 0 && height > 0 ? width / height : 16 / 9;
}

function costOf(index) {
  if (lines.shares[index]) return "shared";
  if (lines.held[index])
    return `${usd(lines.held[index])} ${statusOf(index) === "in_doubt" ? "in doubt" : "set aside"}`;
  return lines.micro[index] ? usd(lines.micro[index]) : "";
}

/** The cost, with the quote where more was charged. */
function chargeOf(index) {
  const quoted = lines.quoted[index];
  return quoted ? `charged ${usd(lines.micro[index])}, quoted ${usd(quoted)}` : costOf(index);
}

// ---------------------------------------------------------------- facets: what lines are filtered and grouped by

const facets = [...fieldFacets("variable", "tags"), makeFacet("id", "row", lines.id), ...fieldFacets("parameter")];
const byKey = new Map(facets.map((facet) => [facet.key, facet]));
const telling = facets.filter((facet) => facet.counts.size > 1);
const choosable = telling.filter((facet) => facet.counts.size <= MOST_CHOICES).sort((a, b) => a.wordy - b.wordy);
const captions = telling.filter((facet) => (facet.kind === "variable" && !facet.wordy) || facet.label in IN_WORDS);

function fieldFacets(...kinds) {
  const mine = data.fields.filter((each) => kinds.includes(each.kind));
  return mine.map((each) => makeFacet(`v.${each.name}`, each.name, each, each.kind));
}

function makeFacet(key, label, column, kind = "") {
  const facet = { key, label, column, kind, counts: new Map() };
  for (let index = 0; index < total; index++)
    for (const value of valuesOf(facet, index)) facet.counts.set(value, (facet.counts.get(value) || 0) + 1);
  const letters = [...facet.counts.keys()].reduce((so_far, value) => so_far + value.length, 0);
  facet.different = facet.counts.size - facet.counts.has(NONE);
  facet.wordy = letters / facet.different > 80 || ["prompt", "negative_prompt", "start_image"].includes(label);
  facet.order = new Map(inOrder(facet).map((value, place) => [value, place]));
  return facet;
}

function valuesOf(facet, index) {
  const text = coded(facet.column, index);
  if (text === null || text === "") return [NONE];
  return facet.kind === "tags" ? text.split(", ") : [text];
}

/** The values of a facet: numbers by size, few words as written, many by the alphabet; that of no value at the end. */
function inOrder(facet) {
  const values = [...facet.counts.keys()].filter((value) => value !== NONE);
  const areNumbers = values.every((value) => value.trim() !== "" && !Number.isNaN(Number(value)));
  if (areNumbers) values.sort((a, b) => a - b);
  else if (values.length > FEW) values.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  return facet.counts.has(NONE) ? [...values, NONE] : values;
}

/** Values that were found along an axis, in its order. */
function sorted(key, values) {
  const order =
    key === "status" ? new Map(data.statuses.map((status, place) => [WORDS[status], place])) : byKey.get(key).order;
  return [...values].sort((a, b) => order.get(a) - order.get(b));
}

/** What tells this line from others, in a few words. */
function words(index) {
  return wordList(index).join(" · ");
}

function wordList(index) {
  const said = captions.map((facet) => [facet, valuesOf(facet, index)[0]]).filter(([, value]) => value !== NONE);
  return said
    .slice(0, 5)
    .map(([{ kind, label }, value]) => (kind === "parameter" ? IN_WORDS[label](value) : value));
}

/** Words with dots between them, each isolated: one that is written from right to left must not move the others. */
function dotted(list) {
  return list.filter(Boolean).flatMap((word, at) => [at > 0 && " · ", el("bdi", {}, word)]);
}

/** The two facets that make the fullest grid. */
function likelyAxes() {
  const few = choosable.filter((facet) => !facet.wordy && facet.kind !== "tags" && facet.different <= MOST_ROWS);
  let best = [0, few[0] || facets[0], few[1] || facets[0]];
  for (const rows of few)
    for (const columns of few) {
      if (rows === columns || columns.different > MOST_COLUMNS || columns.different > rows.different) continue;
      const worth = fullness(rows, columns);
      if (worth > best[0]) best = [worth, rows, columns];
    }
  return best.slice(1);
}

function fullness(rows, columns) {
  const cells = new Set();
  let both = 0;
  for (let index = 0; index < total; index++) {
    const [row, column] = [valuesOf(rows, index)[0], valuesOf(columns, index)[0]];
    if (row === NONE || column === NONE) continue;
    both += 1;
    cells.add(JSON.stringify([row, column]));
  }
  // A sweep is mostly over variables.
  const likelihood = [rows, columns].reduce((so_far, { kind }) => so_far * (kind === "variable" ? 1 : 0.6), 1);
  return (likelihood * both * cells.size) / (rows.different * columns.different);
}

// ---------------------------------------------------------------- what the reader looks at; kept in the address

const look = {
  view: "wall",
  q: "",
  statuses: [],
  picks: {},
  group: "",
  sort: "written",
  page: 0,
  rows: "",
  columns: "",
};
const chosen = []; // lines to compare
let shown = []; // lines that pass the filters, in order

function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  if (["wall", "grid", "numbers"].includes(said.get("view"))) look.view = said.get("view");
  look.q = said.get("q") || "";
  look.statuses = (said.get("status") || "").split(",").filter((each) => each in WORDS);
  look.sort = said.get("sort") in SORTS ? said.get("sort") : "written";
  for (const name of ["group", "rows", "columns"])
    if (byKey.has(said.get(name)) || said.get(name) === "status") look[name] = said.get(name);
  for (const [name, value] of said)
    if (name.startsWith("is.") && byKey.has(name.slice(3))) look.picks[name.slice(3)] = value;
  const axes = likelyAxes();
  look.rows = look.rows || axes[0].key;
  look.columns = look.columns || axes[1].key;
}

function writeAddress() {
  const said = new URLSearchParams();
  if (look.view !== "wall") said.set("view", look.view);
  if (look.q) said.set("q", look.q);
  if (look.statuses.length) said.set("status", look.statuses.join(","));
  for (const [key, value] of Object.entries(look.picks)) said.set(`is.${key}`, value);
  if (look.group) said.set("group", look.group);
  if (look.sort !== "written") said.set("sort", look.sort);
  if (look.view === "grid") {
    said.set("rows", look.rows);
    said.set("columns", look.columns);
  }
  try {
    history.replaceState(null, "", `#${said}`);
  } catch {
    // Some browsers count how often a page does this; then the address stays as it is.
  }
}

let haystacks = null;

/** All that is said of each line, in small letters: made when somebody searches for the first time. */
function haystack(index) {
  haystacks = haystacks || new Array(total);
  if (haystacks[index] === undefined) {
    const texts = [titleOf(index), takeOf(index), lines.job[index], lines.request[index], WORDS[statusOf(index)]];
    texts.push(coded(lines.class, index), coded(lines.says, index), ...data.fields.map((each) => coded(each, index)));
    haystacks[index] = texts.filter(Boolean).join("\n").toLowerCase();
  }
  return haystacks[index];
}

/** The words that were typed; `name:value` looks in one facet, quotation marks keep words together. */
function terms() {
  const typed = look.q.toLowerCase().match(/[^\s":]+:"[^"]*"|"[^"]+"|\S+/g) || [];
  return typed.map((term) => {
    const [, name, rest] = term.match(/^([^:]+):(.+)$/) || [];
    const facet = name && facets.find((each) => each.label.toLowerCase() === name);
    return { facet, text: (facet ? rest : term).replaceAll('"', "") };
  });
}

function passes(index, typed) {
  if (look.statuses.length && !look.statuses.includes(statusOf(index))) return false;
  for (const [key, value] of Object.entries(look.picks))
    if (!valuesOf(byKey.get(key), index).includes(value)) return false;
  return typed.every(({ facet, text }) =>
    facet ? valuesOf(facet, index).some((value) => value.toLowerCase().includes(text)) : haystack(index).includes(text),
  );
}

function filter() {
  const typed = terms();
  const worth = SORTS[look.sort][1];
  shown = [];
  for (let index = 0; index < total; index++) if (passes(index, typed)) shown.push(index);
  if (look.sort !== "written") shown.sort((a, b) => worth(a) - worth(b) || a - b);
}

/** Take in a change of what is looked at, and draw it. */
function change(changes) {
  Object.assign(look, { page: 0 }, changes);
  writeAddress();
  draw();
}

function clearAll() {
  byId("search").value = "";
  change({ q: "", statuses: [], picks: {} });
}

// ---------------------------------------------------------------- the head: how it stands

function drawHead() {
  const parts = [
    el(
      "div",
      { className: "title" },
      el("h1", {}, el("bdi", {}, data.name)),
      el("p", { className: "quiet" }, whenLine()),
    ),
    data.provider === "sandbox" &&
      el(
        "p",
        { className: "notice sandbox" },
        el("b", {}, "Sandbox run: no money moved."),
        " The videos were drawn on this machine; all dollars here are only counted.",
      ),
    data.live &&
      el(
        "p",
        { className: "notice live" },
        el("b", {}, "The run is still going on."),
        ` This is how it stood on ${moment(data.as_of)}. `,
        el("button", { className: "link", onclick: () => location.reload() }, "Reload"),
        " for what came since.",
      ),
    stopLine(),
    total < data.total &&
      el(
        "p",
        { className: "notice" },
        `This page holds ${total.toLocaleString("en-US")} of ${counted(data.total, "line")}: `,
        "those with a video or a failure first. All are in results.csv; the money and the counts here are of all.",
      ),
    el("div", { className: "sums" }, moneyTile(), jobsTile()),
    attention(),
  ];
  byId("head").append(...present(parts));
}

function whenLine() {
  const parts = [];
  if (data.started_at) parts.push(`Begun ${moment(data.started_at)}`);
  if (data.finished_at && !data.live) parts.push(`ended ${moment(data.finished_at)}`);
  if (data.wall_s !== null) parts.push(`${duration(data.wall_s)} of running`);
  parts.push(counted(data.attempts, "attempt"));
  return parts.join(" · ");
}

function stopLine() {
  if (data.live) return null;
  if (data.message)
    return el(
      "p",
      { className: "notice" },
      el("b", {}, data.stopped_by ? "The run stopped: " : "Mind this of the run: "),
      `${data.message.replace(/[.\s]+$/, "")}.`,
    );
  if (data.started_at && !data.finished_at)
    return el(
      "p",
      { className: "notice" },
      el("b", {}, "The last run was cut off before its end."),
      " Nothing is lost: run it again to settle and collect.",
    );
  return null;
}

function moneyTile() {
  const { posted, above_quotes, no_longer_asked, in_doubt, reserved, cap } = data.money;
  const free = Math.max(0, cap - posted - in_doubt - reserved);
  const parts = [
    ["posted", "posted", posted, "Billed by the provider"],
    ["doubt", "in doubt", in_doubt, "May or may not have been spent"],
    ["held", "reserved", reserved, "Set aside for what is on its way"],
    ["free", "free", free, "Left under the cap"],
  ];
  return el(
    "section",
    { className: "tile", "aria-label": "Money" },
    el("p", { className: "big" }, usd(posted), el("small", {}, cap ? ` of a cap of ${usd(cap)}` : " posted")),
    meter(parts.map(([kind, , amount]) => [kind, amount])),
    el(
      "dl",
      { className: "legend" },
      parts.map(([kind, word, amount, hint]) =>
        el("div", { className: kind, title: hint }, el("dt", {}, word), el("dd", {}, usd(amount))),
      ),
    ),
    above_quotes > 0 && el("p", { className: "note" }, `${usd(above_quotes)} of it was charged above the quotes.`),
    no_longer_asked > 0 &&
      el("p", { className: "note" }, `${usd(no_longer_asked)} of it is for jobs that the manifest no longer asks for.`),
  );
}

function jobsTile() {
  const parts = data.statuses.map((status) => [status, data.counts[status]]);
  return el(
    "section",
    { className: "tile", "aria-label": "Jobs" },
    el(
      "p",
      { className: "big" },
      data.counts.stored.toLocaleString("en-US"),
      el("small", {}, ` of ${counted(data.jobs, "video")} stored`),
    ),
    meter(parts),
    el(
      "div",
      { className: "legend chips", role: "group", "aria-label": "Show only" },
      parts
        .filter(([status, number]) => number || status === "failed")
        .map(([status, number]) => statusChip(status, number)),
    ),
  );
}

function meter(parts) {
  const bar = el("div", { className: "meter", "aria-hidden": "true" });
  for (const [kind, amount] of parts) {
    if (!amount) continue;
    const piece = el("i", { className: kind });
    piece.style.flexGrow = String(amount);
    bar.append(piece);
  }
  return bar;
}

function statusChip(status, number) {
  const chip = el(
    "button",
    { className: `chip ${status}`, onclick: () => toggleStatus(status) },
    `${number.toLocaleString("en-US")} ${WORDS[status]}`,
  );
  chip.dataset.status = status;
  return chip;
}

function toggleStatus(status) {
  const on = look.statuses.includes(status);
  change({ statuses: on ? look.statuses.filter((each) => each !== status) : [...look.statuses, status] });
}

/** What is not well, at once: the gravest three, with what to do. */
function attention() {
  const grave = data.trouble.filter((trouble) => trouble.status !== "stored");
  if (!grave.length) return null;
  const more = grave.length - 3;
  return el(
    "section",
    { className: "attention", "aria-label": "What needs you" },
    grave.slice(0, 3).map(troubleLine),
    more > 0 &&
      el(
        "p",
        {},
        el(
          "button",
          { className: "link", onclick: () => change({ view: "numbers" }) },
          `${counted(more, "more kind", "more kinds")} of trouble: see the numbers`,
        ),
      ),
  );
}

function troubleLine(trouble) {
  const name = trouble.class ? `${WORDS[trouble.status]}: ${trouble.class}` : WORDS[trouble.status];
  return el(
    "div",
    { className: `trouble ${trouble.status}` },
    el(
      "p",
      {},
      el("b", {}, `${trouble.jobs.toLocaleString("en-US")} ${name}`),
      trouble.micro > 0 && ` (${usd(trouble.micro)})`,
      " ",
      el("button", { className: "link", onclick: () => showTrouble(trouble) }, "show"),
    ),
    trouble.says && el("p", { className: "says" }, `“${trouble.says}”${otherwise(trouble.otherwise)}`),
    trouble.advice && el("p", { className: "advice" }, trouble.advice),
  );
}

/** One error is quoted for all of its class; how many have another is said. */
function otherwise(number) {
  if (!number) return "";
  return ` and ${number.toLocaleString("en-US")} that ${number === 1 ? "says" : "say"} otherwise`;
}

function showTrouble(trouble) {
  byId("search").value = trouble.class || "";
  change({ view: "wall", statuses: [trouble.status], q: trouble.class || "", picks: {} });
  byId("view").scrollIntoView({ behavior: calm.matches ? "auto" : "smooth" });
}

// ---------------------------------------------------------------- the bar: views, filters, order

function drawBar() {
  const search = el("input", {
    id: "search",
    type: "search",
    placeholder: "Search  ( / )",
    value: look.q,
    autocomplete: "off",
    "aria-label": "Search in ids, prompts, values, errors; name:value looks in one column",
  });
  search.addEventListener("input", () => change({ q: search.value }));
  byId("bar").append(
    el(
      "div",
      { className: "views", role: "group", "aria-label": "View" },
      viewButton("wall", "Wall"),
      viewButton("grid", "Grid"),
      viewButton("numbers", "Numbers"),
    ),
    search,
    el(
      "button",
      { id: "more", className: "plain", "aria-expanded": "false", "aria-controls": "filters", onclick: toggleFilters },
      "Filters",
    ),
    el(
      "button",
      {
        className: "plain",
        onclick: openHelp,
        "aria-label": "Keys and help",
        title: "Keys and help ( ? )",
        id: "keys",
      },
      "?",
    ),
  );
  byId("filters").append(...filterSelects());
  byId("more").classList.toggle("needed", choosable.length > MOST_PICKS);
}

function viewButton(view, label) {
  const button = el("button", { onclick: () => change({ view }) }, label);
  button.dataset.view = view;
  return button;
}

function toggleFilters() {
  const open = byId("filters").classList.toggle("open");
  byId("more").setAttribute("aria-expanded", String(open));
}

function filterSelects() {
  const groups = [["", "nothing"], ["status", "status"], ...choosable.map((facet) => [facet.key, facet.label])];
  return [
    ...choosable.map(pickSelect),
    select("group", "Group by", groups, (value) => change({ group: value })),
    select(
      "sort",
      "Order",
      Object.entries(SORTS).map(([key, [label]]) => [key, label]),
      (value) => change({ sort: value }),
    ),
    el("button", { id: "clear", className: "plain", onclick: clearAll }, "Clear filters"),
  ];
}

function pickSelect(facet, place) {
  const values = [...facet.order.keys()];
  // An empty option stands for any value, so values are numbered.
  const options = [
    ["", "any"],
    ...values.map((value, number) => [
      String(number),
      `${value === NONE ? "none" : value}  (${facet.counts.get(value)})`,
    ]),
  ];
  const label = select(`is.${facet.key}`, facet.label, options, (number) => {
    const picks = { ...look.picks };
    if (number === "") delete picks[facet.key];
    else picks[facet.key] = values[Number(number)];
    change({ picks });
  });
  label.classList.toggle("rare", place >= MOST_PICKS);
  label.sync = () => {
    const number = facet.key in look.picks ? values.indexOf(look.picks[facet.key]) : -1;
    label.lastChild.value = number < 0 ? "" : String(number);
    label.classList.toggle("on", number >= 0);
  };
  return label;
}

function select(name, label, options, onchange) {
  const list = el(
    "select",
    { onchange: () => onchange(list.value) },
    options.map(([value, text]) => el("option", { value }, text)),
  );
  list.dataset.name = name;
  const whole = el("label", {}, el("span", {}, label), list);
  whole.sync = () => {
    list.value = look[name] ?? "";
  };
  return whole;
}

function syncBar() {
  for (const label of document.querySelectorAll("#filters label")) label.sync();
  for (const button of document.querySelectorAll("[data-view]"))
    button.setAttribute("aria-pressed", String(button.dataset.view === look.view));
  for (const chip of document.querySelectorAll("[data-status]"))
    chip.setAttribute("aria-pressed", String(look.statuses.includes(chip.dataset.status)));
  byId("clear").hidden = !(look.q || look.statuses.length || Object.keys(look.picks).length);
}

// ---------------------------------------------------------------- drawing what is looked at

let shapes = null; // watches posters that must be taken from the video itself

function draw() {
  stop();
  filter();
  syncBar();
  if (shapes) shapes.disconnect();
  shapes = new IntersectionObserver(showFirstFrames, { rootMargin: "300px" });
  const drawings = { wall: drawWall, grid: drawGrid, numbers: drawNumbers };
  byId("view").replaceChildren(...present(drawings[look.view]()));
  if (look.view === "numbers") drawCharts();
  const first = document.querySelector(".card");
  if (first) first.tabIndex = 0; // from there the arrow keys go on
}

const isAllClips = (lines.video || []).every(Boolean); // of no lines there are no columns

/** How many clips these lines are; where some have no video, how many lines, and with how many videos. */
function clips(indexes) {
  const number = indexes.length;
  if (indexes.every((index) => lines.video[index])) return counted(number, "clip");
  return linesWithVideo(number, indexes);
}

function linesWithVideo(number, indexes) {
  const videos = indexes.filter((index) => lines.video[index]).length;
  return `${counted(number, "line")}, ${videos ? videos.toLocaleString("en-US") : "none"} with a video`;
}

function resultLine() {
  const doubt = sum(lines.held, shown);
  const of = isAllClips ? counted(total, "clip") : linesWithVideo(total, shown);
  const all = shown.length === total ? of : `${shown.length.toLocaleString("en-US")} of ${of}`;
  return el(
    "p",
    { className: "result" },
    el("b", {}, all),
    ` · ${usd(sum(lines.micro, shown))} posted${doubt ? ` · ${usd(doubt)} reserved or in doubt` : ""}`,
  );
}

function nothingHere() {
  if (total === 0) return el("p", { className: "empty" }, "The manifest asks for nothing.");
  return el(
    "p",
    { className: "empty" },
    "Nothing fits these filters. ",
    el("button", { className: "link", onclick: clearAll }, "Clear them"),
  );
}

// ---------------------------------------------------------------- the wall

function groupsOf(indexes) {
  if (!look.group) return [[null, indexes]];
  const groups = new Map();
  const valuesIn =
    look.group === "status" ? (index) => [WORDS[statusOf(index)]] : (index) => valuesOf(byKey.get(look.group), index);
  for (const index of indexes)
    for (const value of valuesIn(index)) {
      if (!groups.has(value)) groups.set(value, []);
      groups.get(value).push(index);
    }
  return sorted(look.group, groups.keys()).map((value) => [value, groups.get(value)]);
}

function drawWall() {
  if (!shown.length) return [resultLine(), nothingHere()];
  const groups = groupsOf(shown);
  const length = groups.reduce((so_far, [, indexes]) => so_far + indexes.length, 0);
  const pages = Math.ceil(length / PAGE);
  look.page = Math.min(look.page, pages - 1);
  const sections = [];
  let from = look.page * PAGE;
  let room = PAGE;
  for (const [value, indexes] of groups) {
    if (from >= indexes.length) {
      from -= indexes.length;
      continue;
    }
    const part = indexes.slice(from, from + room);
    sections.push(wallSection(value, indexes, part));
    from = 0;
    room -= part.length;
    if (room <= 0) break;
  }
  return [resultLine(), ...sections, pager(pages)];
}

function wallSection(value, indexes, part) {
  const heading =
    value !== null &&
    el(
      "h2",
      {},
      el("bdi", {}, value === NONE ? "none" : value),
      " ",
      el("small", {}, `${clips(indexes)} · ${usd(sum(lines.micro, indexes))}`),
    );
  return el("section", {}, heading, el("div", { className: "wall" }, part.map(card)));
}

function pager(pages) {
  if (pages <= 1) return null;
  const go = (page) => {
    look.page = page;
    draw();
    byId("view").scrollIntoView();
  };
  return el(
    "div",
    { className: "pager", role: "group", "aria-label": "Pages" },
    el("button", { className: "plain", disabled: look.page === 0, onclick: () => go(look.page - 1) }, "‹ Back"),
    el("span", {}, `Page ${look.page + 1} of ${pages.toLocaleString("en-US")}`),
    el(
      "button",
      { id: "next", className: "plain", disabled: look.page === pages - 1, onclick: () => go(look.page + 1) },
      "Next ›",
    ),
  );
}

function card(index) {
  const status = statusOf(index);
  const said = [titleOf(index), takeOf(index), words(index), WORDS[status], costOf(index)].filter(Boolean).join(", ");
  const node = el(
    "article",
    { className: `card stop ${status}`, tabIndex: -1, "aria-label": said },
    el(
      "div",
      { className: "frame" },
      face(index, () => play(node)),
      lines.video[index] && pickButton(index),
    ),
    caption(index),
  );
  node.dataset.index = String(index);
  node.style.setProperty("--shape", shapeOf(index).toFixed(4));
  node.addEventListener("focus", () => setActive(node));
  node.classList.toggle("chosen", chosen.includes(index));
  return node;
}

/** What a clip looks like before it plays: its poster, or why there is none. */
function face(index, onclick) {
  if (!lines.video[index]) return reasonFace(index);
  return el(
    "button",
    { className: "face", tabIndex: -1, onclick, "aria-label": `Play ${titleOf(index)}` },
    poster(index),
    el("span", { className: "glyph", "aria-hidden": "true" }),
  );
}

function poster(index) {
  if (!lines.poster[index]) {
    const frame = el("video", { muted: true, preload: "none", className: "poster", tabIndex: -1 });
    frame.dataset.source = `${lines.video[index]}#t=0.1`;
    shapes.observe(frame);
    return frame;
  }
  const picture = el("img", { className: "poster", loading: "lazy", decoding: "async", alt: "" });
  picture.addEventListener("error", () =>
    picture.replaceWith(el("span", { className: "missing" }, "The poster is not beside this page.")),
  );
  picture.src = lines.poster[index];
  return picture;
}

function showFirstFrames(entries) {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    shapes.unobserve(target);
    target.preload = "metadata";
    target.src = target.dataset.source;
  }
}

function reasonFace(index) {
  const status = statusOf(index);
  return el(
    "button",
    {
      className: "face reason",
      tabIndex: -1,
      onclick: () => openDetails(index),
      "aria-label": `Why ${titleOf(index)} is ${WORDS[status]}`,
    },
    el(
      "span",
      {},
      el("span", { className: `badge ${status}` }, WORDS[status]),
      " ",
      el("code", {}, coded(lines.class, index) || ""),
    ),
    coded(lines.says, index) && el("span", { className: "why" }, coded(lines.says, index)),
    coded(lines.advice, index) && el("span", { className: "why advice" }, coded(lines.advice, index)),
  );
}

function caption(index) {
  const odd = lines.video[index] && coded(lines.class, index);
  return el(
    "button",
    { className: "caption", tabIndex: -1, onclick: () => openDetails(index), title: "All about it ( i )" },
    el("span", { className: "line" }, el("b", {}, titleOf(index)), el("span", { className: "cost" }, costOf(index))),
    el("span", { className: "words" }, dotted([takeOf(index), ...wordList(index)])),
    odd && el("span", { className: "badge failed" }, odd),
  );
}

function pickButton(index) {
  const button = el("button", {
    className: "pick",
    tabIndex: -1,
    title: "Compare ( c )",
    "aria-label": `Compare ${titleOf(index)}`,
    onclick: () => toggleChosen(index),
  });
  button.setAttribute("aria-pressed", String(chosen.includes(index)));
  return button;
}

/** The card that the keys act upon: it and its buttons alone are on the way of the Tab key. */
function setActive(node) {
  for (const other of document.querySelectorAll('.card[tabindex="0"]')) if (other !== node) setReachable(other, false);
  setReachable(node, true);
}

function setReachable(node, on) {
  node.classList.toggle("active", on);
  node.tabIndex = on ? 0 : -1;
  for (const button of node.querySelectorAll("button")) button.tabIndex = on ? 0 : -1;
}

function activeCard() {
  return document.querySelector(".card.active");
}

// ---------------------------------------------------------------- playing in place

let playing = null; // { node, video, face }

function play(node) {
  const index = Number(node.dataset.index);
  if (!lines.video[index]) return openDetails(index);
  if (playing && playing.node === node) return togglePause(playing.video);
  stop();
  const before = node.querySelector(".face");
  const video = el("video", {
    controls: true,
    loop: true,
    playsInline: true,
    src: lines.video[index],
    poster: lines.poster[index] || "",
    tabIndex: -1,
    "aria-label": titleOf(index),
  });
  video.addEventListener("error", () => fileMissing(video));
  before.replaceWith(video);
  playing = { node, video, face: before };
  node.focus({ preventScroll: true });
  video.play().catch(() => {});
}

function togglePause(video) {
  if (video.paused) video.play().catch(() => {});
  else video.pause();
}

function stop() {
  if (!playing) return;
  const { video, face: before } = playing;
  playing = null;
  if (video.isConnected) video.replaceWith(before);
  release(video);
}

/** Let go of a file and its decoder. */
function release(video) {
  video.pause();
  video.removeAttribute("src");
  video.load();
}

function fileMissing(video) {
  if (!video.getAttribute("src")) return; // it was let go of
  video.replaceWith(
    el("p", { className: "missing" }, "The video cannot be played: is it still beside this page, in ../videos?"),
  );
}

// ---------------------------------------------------------------- one clip in full

let detailed = null;

function openDetails(index) {
  stop();
  detailed = index;
  const dialog = byId("details");
  releaseAll(dialog);
  dialog.replaceChildren(...present([detailsHead(index), detailsPicture(index), detailsFacts(index)]));
  if (!dialog.open) dialog.showModal();
}

function detailsHead(index) {
  return el(
    "header",
    {},
    el("h2", {}, titleOf(index), " ", el("small", {}, takeOf(index))),
    lines.video[index] &&
      el(
        "button",
        { className: "plain", onclick: () => toggleChosen(index) },
        chosen.includes(index) ? "Do not compare" : "Compare",
      ),
    el(
      "button",
      { className: "plain", onclick: () => stepDetails(-1), "aria-label": "The one before", title: "←" },
      "‹",
    ),
    el("button", { className: "plain", onclick: () => stepDetails(1), "aria-label": "The next", title: "→" }, "›"),
    closeButton("details"),
  );
}

function closeButton(id) {
  return el(
    "button",
    { className: "plain", autofocus: true, onclick: () => byId(id).close(), "aria-label": "Close", title: "Esc" },
    "✕",
  );
}

function stepDetails(by) {
  const at = shown.indexOf(detailed) + by;
  if (at >= 0 && at < shown.length) openDetails(shown[at]);
}

function detailsPicture(index) {
  if (!lines.video[index]) return null;
  const video = el("video", {
    controls: true,
    loop: true,
    playsInline: true,
    preload: "metadata",
    src: lines.video[index],
    poster: lines.poster[index] || "",
  });
  video.addEventListener("error", () => fileMissing(video));
  return video;
}

function detailsFacts(index) {
  const facts = [
    ["status", el("span", { className: `badge ${statusOf(index)}` }, WORDS[statusOf(index)])],
    ["cost", lines.shares[index] ? "shares its video with an earlier row, and is billed there" : chargeOf(index)],
    ["error", coded(lines.class, index)],
    ["what was said", coded(lines.says, index)],
    ["what to do", coded(lines.advice, index)],
    ...data.fields.map((each) => [each.name, coded(each, index)]),
    ["submitted", lines.submitted[index] && moment(lines.submitted[index] * 1000)],
    ["ended", lines.ended[index] && moment(lines.ended[index] * 1000)],
    ["waited", lines.queue_s[index] !== null && duration(lines.queue_s[index])],
    ["generated in", lines.took_s[index] !== null && duration(lines.took_s[index])],
    ["file", lines.video[index] && fileFact(index)],
    ["attempts", lines.attempts[index] ? String(lines.attempts[index]) : ""],
    ["request", lines.request[index] && el("code", {}, lines.request[index])],
    ["job", el("code", {}, lines.job[index])],
  ];
  return el(
    "dl",
    { className: "facts" },
    facts.filter(([, value]) => value).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

function fileFact(index) {
  const facts = [size(lines.bytes[index])];
  if (lines.width[index]) facts.unshift(`${lines.width[index]} × ${lines.height[index]}`);
  if (lines.length_s[index] !== null) facts.unshift(duration(lines.length_s[index]));
  return [el("a", { href: lines.video[index] }, lines.video[index].slice(3)), ` · ${facts.join(" · ")}`];
}

function releaseAll(dialog) {
  for (const video of dialog.querySelectorAll("video")) release(video);
}

// ---------------------------------------------------------------- side by side

function toggleChosen(index) {
  const at = chosen.indexOf(index);
  if (at >= 0) chosen.splice(at, 1);
  else if (chosen.length < MOST_COMPARED) chosen.push(index);
  else return tell(`No more than ${MOST_COMPARED} clips are compared at once.`);
  tell(
    at >= 0
      ? `${titleOf(index)} is no longer chosen.`
      : `${titleOf(index)} is chosen: ${chosen.length} of ${MOST_COMPARED}.`,
  );
  syncChosen();
}

function syncChosen() {
  for (const node of document.querySelectorAll(".card")) {
    const on = chosen.includes(Number(node.dataset.index));
    node.classList.toggle("chosen", on);
    const button = node.querySelector(".pick");
    if (button) button.setAttribute("aria-pressed", String(on));
  }
  const tray = byId("tray");
  tray.hidden = !chosen.length;
  tray.replaceChildren(
    ...chosen.map((index) =>
      el(
        "button",
        { className: "chip", title: "Do not compare", onclick: () => toggleChosen(index) },
        titleOf(index),
        " ✕",
      ),
    ),
    el(
      "button",
      { id: "side", className: "main", disabled: chosen.length < 2, onclick: openCompare },
      chosen.length < 2 ? "Choose another to compare" : `Compare ${chosen.length} side by side`,
    ),
    el("button", { className: "link", onclick: clearChosen }, "Clear"),
  );
  if (byId("details").open) byId("details").firstChild.replaceWith(detailsHead(detailed));
}

function clearChosen() {
  chosen.length = 0;
  syncChosen();
}

function openCompare() {
  if (chosen.length < 2) return;
  stop();
  const dialog = byId("compare");
  const videos = chosen.map((index) =>
    el("video", {
      muted: true,
      playsInline: true,
      preload: "auto",
      src: lines.video[index],
      poster: lines.poster[index] || "",
    }),
  );
  const panes = chosen.map((index, at) =>
    el(
      "figure",
      {},
      videos[at],
      el(
        "figcaption",
        {},
        el("b", {}, titleOf(index)),
        " ",
        dotted([takeOf(index), ...wordList(index), costOf(index)]),
      ),
    ),
  );
  dialog.replaceChildren(
    el("header", {}, el("h2", {}, "Side by side"), closeButton("compare")),
    el("div", { className: "panes" }, panes),
    stepControls(videos),
  );
  panes.forEach((pane, at) => pane.style.setProperty("--shape", shapeOf(chosen[at]).toFixed(4)));
  dialog.showModal();
}

/** One set of controls for all: the longest clip leads, the others follow and wait at their end. */
function stepControls(videos) {
  const scrub = el("input", {
    type: "range",
    min: 0,
    max: 1,
    step: 0.01,
    value: 0,
    "aria-label": "Position in seconds",
    className: "scrub",
  });
  const clock = el("output", { className: "clock" }, "0.0 s");
  const button = el(
    "button",
    { id: "step", className: "main", onclick: () => (leader().paused ? playAll() : pauseAll()) },
    "Play",
  );
  const leader = () => videos.reduce((best, each) => ((each.duration || 0) > (best.duration || 0) ? each : best));
  const lengthOf = (video) => (Number.isFinite(video.duration) ? video.duration : 0);

  function seek(at) {
    for (const video of videos) video.currentTime = Math.min(at, Math.max(0, lengthOf(video) - 0.04));
    showTime(at);
  }
  function showTime(at) {
    scrub.value = String(at);
    clock.textContent = `${at.toFixed(1)} s`;
  }
  function playAll() {
    if (leader().ended) seek(0);
    for (const video of videos) video.play().catch(() => {});
    button.textContent = "Pause";
    requestAnimationFrame(follow);
  }
  function pauseAll() {
    for (const video of videos) video.pause();
    seek(leader().currentTime);
    button.textContent = "Play";
  }
  function follow() {
    if (!byId("compare").open || leader().paused) return;
    const at = leader().currentTime;
    for (const video of videos) {
      if (video === leader() || at >= lengthOf(video)) continue;
      if (Math.abs(video.currentTime - at) > IN_STEP_S) video.currentTime = at;
      if (video.paused) video.play().catch(() => {});
    }
    showTime(at);
    requestAnimationFrame(follow);
  }
  for (const video of videos) {
    video.addEventListener("loadedmetadata", () => (scrub.max = String(lengthOf(leader()))));
    video.addEventListener("click", () => button.click());
    video.addEventListener("error", () => fileMissing(video));
    video.addEventListener("ended", () => {
      if (video !== leader()) return;
      seek(0);
      playAll();
    });
  }
  scrub.addEventListener("input", () => seek(Number(scrub.value)));
  return el("div", { className: "controls" }, button, scrub, clock);
}

// ---------------------------------------------------------------- the grid

function drawGrid() {
  const options = [["status", "status"], ...choosable.map((facet) => [facet.key, facet.label])];
  const bar = el(
    "div",
    { className: "row axes" },
    axisSelect("rows", "Down", options),
    axisSelect("columns", "Across", options),
  );
  if (!shown.length) return [resultLine(), bar, nothingHere()];
  const cells = new Map();
  const [down, across] = [axisValues(look.rows), axisValues(look.columns)];
  const downs = new Set();
  const acrosses = new Set();
  for (const index of shown)
    for (const row of down(index))
      for (const column of across(index)) {
        downs.add(row);
        acrosses.add(column);
        const key = JSON.stringify([row, column]);
        if (!cells.has(key)) cells.set(key, []);
        cells.get(key).push(index);
      }
  const rows = sorted(look.rows, downs);
  const columns = sorted(look.columns, acrosses);
  return [
    resultLine(),
    bar,
    tooMany(rows, columns),
    gridTable(rows.slice(0, MOST_ROWS), columns.slice(0, MOST_COLUMNS), cells),
  ];
}

function axisSelect(name, label, options) {
  const whole = select(name, label, options, (value) => change({ [name]: value }));
  whole.sync();
  return whole;
}

function axisValues(key) {
  return key === "status" ? (index) => [WORDS[statusOf(index)]] : (index) => valuesOf(byKey.get(key), index);
}

function tooMany(rows, columns) {
  const left = [];
  if (rows.length > MOST_ROWS) left.push(`${MOST_ROWS} of ${counted(rows.length, "value")} down`);
  if (columns.length > MOST_COLUMNS) left.push(`${MOST_COLUMNS} of ${counted(columns.length, "value")} across`);
  return left.length
    ? el("p", { className: "quiet" }, `Shown are the first ${left.join(" and ")}: filters bring the others.`)
    : null;
}

function axisLabel(key) {
  return key === "status" ? "status" : byKey.get(key).label;
}

function gridTable(rows, columns, cells) {
  const head = el(
    "tr",
    {},
    el("td", { className: "corner" }, `${axisLabel(look.rows)} ↓  ${axisLabel(look.columns)} →`),
    columns.map((value) => axisHead(value, "col")),
  );
  const body = rows.map((row) =>
    el(
      "tr",
      {},
      axisHead(row, "row"),
      columns.map((column) => gridCell(row, column, cells.get(JSON.stringify([row, column])))),
    ),
  );
  const table = el("table", { className: "grid" }, el("thead", {}, head), el("tbody", {}, body));
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Grid" }, table);
}

function axisHead(value, scope) {
  return el("th", { scope, title: value }, el("span", {}, value === NONE ? "none" : value));
}

function gridCell(row, column, indexes) {
  if (!indexes) return el("td", { className: "void" }, el("span", { className: "unseen" }, "nothing asked for"));
  const first = indexes.filter((index) => lines.video[index]).slice(0, THUMBS);
  const spent = sum(lines.micro, indexes);
  const held = sum(lines.held, indexes);
  return el(
    "td",
    {},
    first.length > 0 && el("div", { className: `thumbs n${first.length}` }, first.map(thumb)),
    el(
      "button",
      { className: "link money", onclick: () => showCell(row, column), title: "Show these lines" },
      `${usd(spent)} · ${clips(indexes)}`,
    ),
    held > 0 && el("span", { className: "note" }, `${usd(held)} reserved or in doubt`),
    unwell(indexes),
  );
}

function thumb(index) {
  const button = el(
    "button",
    {
      className: "thumb stop",
      onclick: () => openDetails(index),
      "aria-label": [titleOf(index), takeOf(index), words(index)].filter(Boolean).join(", "),
    },
    poster(index),
  );
  button.style.setProperty("--shape", shapeOf(index).toFixed(4));
  return button;
}

/** What in a cell has no video, by status and class; the first of each explains itself. */
function unwell(indexes) {
  const kinds = new Map();
  for (const index of indexes) {
    if (lines.video[index]) continue;
    const label = [WORDS[statusOf(index)], coded(lines.class, index)].filter(Boolean).join(": ");
    if (!kinds.has(label)) kinds.set(label, []);
    kinds.get(label).push(index);
  }
  return [...kinds].map(([label, mine]) =>
    el(
      "button",
      {
        className: `note ${statusOf(mine[0])} stop`,
        title: coded(lines.says, mine[0]) || "",
        onclick: () => openDetails(mine[0]),
      },
      `${mine.length} ${label}`,
    ),
  );
}

function showCell(row, column) {
  const picks = { ...look.picks };
  let statuses = look.statuses;
  for (const [key, value] of [
    [look.rows, row],
    [look.columns, column],
  ]) {
    if (key === "status") statuses = data.statuses.filter((status) => WORDS[status] === value);
    else picks[key] = value;
  }
  change({ view: "wall", picks, statuses });
}

// ---------------------------------------------------------------- the numbers

function drawNumbers() {
  return [
    el(
      "div",
      { className: "figures" },
      figure("spent", "Posted over the hours of running"),
      figure("stored", "Videos stored"),
      figure("times", "How long generations took"),
    ),
    troubleList(),
    mendedList(),
  ];
}

function figure(id, title) {
  return el(
    "figure",
    { className: "figure" },
    el("figcaption", {}, title),
    el("div", { id: `chart-${id}`, className: "chart" }),
  );
}

function troubleList() {
  if (!data.trouble.length)
    return el(
      "section",
      { className: "numbers" },
      el("h2", {}, "What needs you"),
      el("p", {}, "Nothing: no job has failed, none is in doubt, and what is paid is on disk."),
    );
  return el(
    "section",
    { className: "numbers attention" },
    el("h2", {}, "What needs you"),
    data.trouble.map(troubleLine),
  );
}

function mendedList() {
  if (!data.mended.length) return null;
  return el(
    "section",
    { className: "numbers" },
    el("h2", {}, "Attempts that did not end well"),
    el(
      "p",
      { className: "quiet" },
      "Also those that were made good by another attempt. Each has its line in errors.csv.",
    ),
    el(
      "ul",
      { className: "mended" },
      data.mended.map(([name, number]) => el("li", {}, el("code", {}, name), ` ${counted(number, "attempt")}`)),
    ),
  );
}

function drawCharts() {
  const { at_s: at, micro, stored, breaks_s: breaks } = data.series;
  const cap = data.money.cap && data.money.cap <= 3 * Math.max(...micro) ? data.money.cap : null;
  put(
    "spent",
    lineChart(at, micro, breaks, {
      kind: "posted",
      show: (value) => (value % 1e6 ? usd(value) : usd(value).slice(0, -3)),
      unit: 1e6,
      bound: cap,
      said: `${usd(micro.at(-1))} posted`,
    }),
  );
  put(
    "stored",
    lineChart(at, stored, breaks, {
      kind: "stored",
      show: String,
      unit: 1,
      bound: null,
      said: `${stored.at(-1)} stored`,
    }),
  );
  put("times", data.times ? barChart(data.times) : el("p", { className: "empty" }, "Nothing is known yet."));
}

function put(id, drawing) {
  byId(`chart-${id}`).replaceChildren(drawing);
}

const CHART = { height: 210, left: 62, right: 14, top: 14, bottom: 28 };

function chartWidth() {
  return Math.max(260, byId("chart-spent").clientWidth);
}

/** Round numbers from 0 up to `most`, about four: 1, 2 or 5 times a power of ten apart, and whole in their unit. */
function ticks(most, unit = 1) {
  const rough = Math.max(most / unit / 4, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough) * unit;
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, number) => number * step);
}

function timeTicks(most, room) {
  const steps = [1, 2, 5, 10, 20, 60, 120, 300, 600, 1200, 3600, 7200, 14400, 43200, 86400, 604800];
  const step = steps.find((each) => most / each <= room) || most;
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, number) => number * step);
}

function tickTime(seconds) {
  if (seconds < 120) return seconds ? `${seconds} s` : "0";
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 259200 ? `${+(seconds / 3600).toFixed(1)} h` : `${+(seconds / 86400).toFixed(1)} d`;
}

function chartFrame(width, said) {
  return svg("svg", {
    viewBox: `0 0 ${width} ${CHART.height}`,
    width,
    height: CHART.height,
    role: "img",
    "aria-label": said,
  });
}

function chartText(x, y, text, anchor) {
  return svg("text", { x, y, "text-anchor": anchor }, text);
}

function lineChart(at, values, breaks, { kind, show, unit, bound, said }) {
  const width = chartWidth();
  const end = at.at(-1) || 1;
  const top = Math.max(...values, bound || 0, unit) * 1.06;
  const x = (time) => CHART.left + (time / end) * (width - CHART.left - CHART.right);
  const y = (value) => CHART.height - CHART.bottom - (value / top) * (CHART.height - CHART.top - CHART.bottom);
  const drawing = chartFrame(width, `${said} after ${duration(end)} of running`);
  for (const tick of ticks(top, unit)) {
    drawing.append(svg("line", { class: "rule", x1: CHART.left, x2: width - CHART.right, y1: y(tick), y2: y(tick) }));
    drawing.append(chartText(CHART.left - 8, y(tick) + 4, show(tick), "end"));
  }
  for (const tick of timeTicks(end, width / 90))
    drawing.append(chartText(x(tick), CHART.height - 8, tickTime(tick), "middle"));
  for (const time of breaks)
    drawing.append(svg("line", { class: "break", x1: x(time), x2: x(time), y1: CHART.top, y2: y(0) }));
  const path = values
    .map((value, number) =>
      number ? `H${x(at[number]).toFixed(1)}V${y(value).toFixed(1)}` : `M${x(at[0])} ${y(value)}`,
    )
    .join("");
  drawing.append(
    svg("path", { class: `area ${kind}`, d: `${path}V${y(0)}H${CHART.left}Z` }),
    svg("path", { class: `curve ${kind}`, d: path }),
  );
  if (bound)
    drawing.append(
      svg("line", { class: "bound", x1: CHART.left, x2: width - CHART.right, y1: y(bound), y2: y(bound) }),
      chartText(CHART.left + 6, y(bound) - 5, "the cap", "start"),
    );
  return drawing;
}

function barChart({ from_s: from, step_s: step, counts, median_s: median, least_s: least, most_s: longest }) {
  const width = chartWidth();
  const top = Math.max(...counts) * 1.06;
  const end = from + step * counts.length;
  const x = (time) => CHART.left + ((time - from) / (end - from)) * (width - CHART.left - CHART.right);
  const y = (value) => CHART.height - CHART.bottom - (value / top) * (CHART.height - CHART.top - CHART.bottom);
  const drawing = chartFrame(width, `Generations took ${least} to ${longest} s, half of them no more than ${median} s`);
  for (const tick of ticks(top)) {
    drawing.append(svg("line", { class: "rule", x1: CHART.left, x2: width - CHART.right, y1: y(tick), y2: y(tick) }));
    drawing.append(chartText(CHART.left - 8, y(tick) + 4, String(tick), "end"));
  }
  counts.forEach((number, at) => {
    if (!number) return;
    const bar = svg("rect", {
      class: "bar",
      x: x(from + at * step) + 0.75,
      width: Math.max(1, x(from + (at + 1) * step) - x(from + at * step) - 1.5),
      y: y(number),
      height: y(0) - y(number),
      rx: 1.5,
    });
    bar.append(
      svg("title", {}, `${from + at * step} to ${from + (at + 1) * step} s: ${counted(number, "generation")}`),
    );
    drawing.append(bar);
  });
  const every = Math.max(1, Math.ceil(counts.length / (width / 90)));
  for (let at = 0; at <= counts.length; at += every)
    drawing.append(chartText(x(from + at * step), CHART.height - 8, `${from + at * step} s`, "middle"));
  drawing.append(
    svg("line", { class: "bound median", x1: x(median), x2: x(median), y1: CHART.top, y2: y(0) }),
    chartText(x(median) + 5, CHART.top + 8, `median ${Math.round(median)} s`, "start"),
  );
  return drawing;
}

// ---------------------------------------------------------------- keys

const KEYS = [
  ["← ↑ → ↓", "go from one to the next"],
  ["Enter or Space", "play it where it is, or pause"],
  ["i", "all about it"],
  ["c", "choose it to compare, or not"],
  ["Shift + C", "compare what is chosen, side by side"],
  ["/", "search"],
  ["1  2  3", "wall, grid, numbers"],
  ["Esc", "stop, close, go back"],
  ["?", "this help"],
];

function openHelp() {
  byId("help").replaceChildren(
    el("header", {}, el("h2", { id: "help-title" }, "Keys and help"), closeButton("help")),
    el(
      "dl",
      { className: "keys" },
      KEYS.map(([keys, does]) => el("div", {}, el("dt", {}, el("kbd", {}, keys)), el("dd", {}, does))),
    ),
    el(
      "p",
      { className: "quiet" },
      "A search finds lines that have every word, in ids, prompts, values and errors. ",
      el("code", {}, "name:value"),
      " looks in one column, ",
      el("code", {}, '"two words"'),
      " keeps words together. Filters stay in the page’s address: a bookmark brings them back.",
    ),
  );
  byId("help").showModal();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const open = document.querySelector("dialog[open]");
  const isTyping = event.target.matches("input, select, textarea");
  const act = open ? dialogKeys(open, event, isTyping) : isTyping ? typingKeys(event) : pageKeys(event);
  if (!act) return;
  event.preventDefault();
  act();
}

function dialogKeys(open, event, isTyping) {
  if (open.id === "details" && !event.target.matches("video")) {
    if (event.key === "ArrowLeft") return () => stepDetails(-1);
    if (event.key === "ArrowRight") return () => stepDetails(1);
    if (event.key === "c") return () => lines.video[detailed] && toggleChosen(detailed);
  }
  const isOnButton = event.target.matches("button");
  if (open.id === "compare" && event.key === " " && !isOnButton && !isTyping) return () => byId("step").click();
  return null;
}

function typingKeys(event) {
  return event.key === "Escape" ? () => event.target.blur() : null;
}

function pageKeys(event) {
  const node = activeCard();
  const index = node && Number(node.dataset.index);
  const isOnCard = event.target === document.body || event.target === node || event.target.matches(".card video, main");
  const acts = {
    "/": () => byId("search").focus(),
    "?": openHelp,
    1: () => change({ view: "wall" }),
    2: () => change({ view: "grid" }),
    3: () => change({ view: "numbers" }),
    Escape: () => stop(),
    C: openCompare,
    ...(node && { c: () => lines.video[index] && toggleChosen(index), i: () => openDetails(index) }),
    ...(node && isOnCard && { Enter: () => play(node), " ": () => play(node) }),
  };
  if (event.key.startsWith("Arrow"))
    return look.view === "numbers" || event.target.matches(".scroll") ? null : () => move(event.key);
  return acts[event.key] || null;
}

function move(key) {
  const stops = [...document.querySelectorAll(".stop")];
  const from = stops.find((node) => node === document.activeElement || node.classList.contains("active"));
  const to = from ? neighbour(stops, from, key) : stops[0];
  if (to) to.focus();
  else if (from && (key === "ArrowRight" || key === "ArrowDown")) turnPage(1);
  else if (from && look.page > 0) turnPage(-1);
}

function turnPage(by) {
  const next = byId("next");
  if (by > 0 && (!next || next.disabled)) return;
  look.page += by;
  draw();
  const stops = document.querySelectorAll(".stop");
  stops[by > 0 ? 0 : stops.length - 1].focus();
}

function neighbour(stops, from, key) {
  const at = stops.indexOf(from);
  if (key === "ArrowLeft") return stops[at - 1];
  if (key === "ArrowRight") return stops[at + 1];
  const here = from.getBoundingClientRect();
  const places = stops.map((node) => [node, node.getBoundingClientRect()]);
  const beyond = places.filter(([, there]) =>
    key === "ArrowDown" ? there.top > here.top + 20 : there.top < here.top - 20,
  );
  if (!beyond.length) return undefined;
  const nearest = Math.min(...beyond.map(([, there]) => Math.abs(there.top - here.top)));
  const middle = here.left + here.width / 2;
  const inRow = beyond.filter(([, there]) => Math.abs(there.top - here.top) < nearest + 20);
  const far = ([, there]) => Math.abs(there.left + there.width / 2 - middle);
  return inRow.reduce((best, each) => (far(each) < far(best) ? each : best))[0];
}

// ---------------------------------------------------------------- beginning

let redraw = 0;

function onResize() {
  if (look.view !== "numbers") return;
  cancelAnimationFrame(redraw);
  redraw = requestAnimationFrame(drawCharts);
}

for (const id of ["details", "compare", "help"]) {
  const dialog = byId(id);
  dialog.addEventListener("close", () => releaseAll(dialog));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}
document.addEventListener("keydown", onKey);
addEventListener("resize", onResize);
readAddress();
drawHead();
drawBar();
draw();
