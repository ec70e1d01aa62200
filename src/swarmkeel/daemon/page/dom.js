// Making elements and writing numbers. Text only ever becomes text: nothing here or elsewhere reads HTML.

/** Make an element: properties are set as attributes, children are elements or text; what is null is left out. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Set text only where it differs, so that a screen reader is told of changes alone. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const significant = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const calendar = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

/** A throughput, to three digits; what hostile records sum up to may be huge. */
export const rps = (value) => (Math.abs(value) >= 1e6 ? value.toExponential(1) : significant.format(value));
export const gain = (value) => (value > 0 ? "+" : "") + rps(value).replace("-", "\u2212");
export const percent = (ratio) => `${Math.round(100 * ratio)}\u202f%`;
export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;
export const span = (value) => (value === null ? "no blocks" : `${value.start}:${value.end}`);

/** A peer id as people tell them apart: by its end. */
export const tail = (peerId) => (peerId.length > 8 ? `\u2026${peerId.slice(-7)}` : peerId);
export const nameOf = (server) => server.public_name || tail(server.peer_id);

/** Block numbers as spans, the end excluded as everywhere. */
export function ranges(blocks, limit = 4) {
  const spans = [];
  for (const block of blocks) {
    const last = spans[spans.length - 1];
    if (last && last[1] === block) last[1] = block + 1;
    else spans.push([block, block + 1]);
  }
  const text = spans.slice(0, limit).map(([start, end]) => (end === start + 1 ? `${start}` : `${start}:${end}`)).join(", ");
  return spans.length > limit ? `${text}, \u2026` : text;
}

export function duration(seconds) {
  const whole = Math.max(Math.round(seconds), 0);
  if (whole < 100) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60 ? `${whole % 60} s` : ""}`.trim();
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** A moment, with its day if that is not today. */
export function moment(at) {
  const date = new Date(1000 * at);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? clock.format(date) : `${calendar.format(date)} ${clock.format(date)}`;
}

let ahead = 0;

/** Take the daemon's clock for now: the reader's may be wrong. */
export function setClock(now) {
  ahead = now - Date.now() / 1000;
}

export const now = () => Date.now() / 1000 + ahead;

const relative = {
  ago: (at) => (now() - at < 1 ? "just now" : `${duration(now() - at)} ago`),
  since: (at) => `for ${duration(now() - at)}`,
  in: (at) => (at <= now() ? "now" : `in ${duration(at - now())}`),
};

/** An element that says how far a moment is away, kept right by `tick`. */
export function timer(at, how) {
  const iso = Number.isFinite(at) && Math.abs(at) < 8e12 ? new Date(1000 * at).toISOString() : null;
  const element = el("time", { datetime: iso, title: iso && moment(at), "data-at": at, "data-how": how });
  element.textContent = relative[how](at);
  return element;
}

/** Let every `timer` tell the present distance. */
export function tick() {
  for (const element of document.querySelectorAll("time[data-how]")) {
    setText(element, relative[element.dataset.how](Number(element.dataset.at)));
  }
}

/** A table that a phone shows as one card a row: each cell carries its column's name. */
export function table(caption, columns, rows) {
  const head = el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column)));
  const body = rows.map((cells) =>
    el("tr", {}, cells.map((cell, index) => el(index ? "td" : "th", { "data-label": columns[index], scope: index ? null : "row" }, cell))),
  );
  return el("table", {}, el("caption", { class: "unseen" }, caption), el("thead", {}, head), el("tbody", {}, body));
}

/** Give a function that acts only when what it is given has changed. */
export function whenChanged(act) {
  let known;
  return (value) => {
    const text = JSON.stringify(value);
    if (text === known) return;
    known = text;
    act(value);
  };
}
