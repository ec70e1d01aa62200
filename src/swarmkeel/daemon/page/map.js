// Blocks by servers: who covers what. Both lists are listboxes with one tab stop each.

import { byId, count, el, gain, nameOf, now, rps, setText, span, table, tail, timer } from "./dom.js";

const ROWS_AT_FIRST = 30;
const ROWS_MORE = 100;
const NARROWEST_COLUMN = 3; // pixels
const SCALE_OVER_MEDIAN = 3; // higher bars are cut: one giant must not flatten all others
const TABLE_ROWS = 500;
const BLOCK_SEVERITY = ["served", "unread", "joining", "uncovered"];
const BLOCK_MARKS = { served: "", unread: "?", joining: "j", uncovered: "\u00d7" };

export class SwarmMap {
  #swarm = null;
  #columns = [];
  #chosen = null; // {block: index} or {peer: id}
  #rows = ROWS_AT_FIRST;
  #claims = new Map();
  #blocks = byId("blocks");
  #servers = byId("servers");

  constructor() {
    new ResizeObserver(() => this.#draw()).observe(this.#blocks);
    makeListbox(this.#blocks, "ArrowLeft", "ArrowRight", (element) => this.#choose({ block: Number(element.dataset.first) }));
    makeListbox(this.#servers, "ArrowUp", "ArrowDown", (element) => this.#choose({ peer: element.dataset.peer }));
    for (const list of [this.#blocks, this.#servers]) {
      list.addEventListener("keydown", (event) => event.key === "Escape" && this.#choose(null));
    }
    byId("clear").addEventListener("click", () => {
      this.#choose(null);
      (this.#servers.querySelector('[tabindex="0"]') ?? this.#blocks.firstElementChild)?.focus();
    });
    byId("more").addEventListener("click", () => {
      this.#rows += ROWS_MORE;
      this.#draw();
    });
    byId("tables").addEventListener("toggle", () => this.#fillTables());
  }

  show(swarm) {
    this.#swarm = swarm;
    this.#draw();
  }

  showClaims(claims) {
    const all = claims ? [...claims.others, ...(claims.own ? [claims.own] : [])] : [];
    this.#claims = new Map(all.map((claim) => [claim.peer_id, claim]));
    this.#draw();
  }

  #choose(chosen) {
    const same = chosen && this.#chosen && chosen.block === this.#chosen.block && chosen.peer === this.#chosen.peer;
    if (same) return;
    this.#chosen = chosen;
    this.#draw();
  }

  #draw() {
    if (!this.#swarm) return;
    this.#drawBlocks();
    this.#drawServers();
    this.#drawDetails();
    this.#fillTables();
  }

  /** Put neighbouring blocks together where there is no room for each; a column shows the worst of its blocks. */
  #group() {
    const { blocks } = this.#swarm;
    const fitting = Math.max(Math.floor(this.#blocks.clientWidth / NARROWEST_COLUMN), 1);
    const size = Math.max(Math.ceil(blocks.length / fitting), 1);
    const columns = [];
    for (let first = 0; first < blocks.length; first += size) columns.push(summarize(blocks.slice(first, first + size)));
    return columns;
  }

  #drawBlocks() {
    const columns = (this.#columns = this.#group());
    const top = scaleTop(columns, this.#swarm.numbers.bound_rps);
    while (this.#blocks.children.length > columns.length) this.#blocks.lastElementChild.remove();
    while (this.#blocks.children.length < columns.length) {
      this.#blocks.append(el("div", { role: "option", tabindex: -1 }, el("span", { class: "bar" }), el("span", { class: "mark" })));
    }
    const chosen = this.#chosen?.block;
    columns.forEach((column, index) => {
      const element = this.#blocks.children[index];
      const isChosen = chosen >= column.first && chosen <= column.last;
      element.className = `block ${column.state}${column.weakest ? " weakest" : ""}${isChosen ? " chosen" : ""}`;
      element.dataset.first = column.first;
      setAttribute(element, "aria-label", blockSentence(column));
      setAttribute(element, "aria-selected", isChosen ? "true" : "false");
      element.firstElementChild.style.height = `${100 * Math.min(column.throughput / top, 1)}%`;
      setText(element.lastElementChild, column.weakest ? "\u25b2" : BLOCK_MARKS[column.state]);
    });
    keepTabStop(this.#blocks);
    this.#blocks.classList.toggle("dense", this.#blocks.clientWidth / columns.length < 9);
    byId("bound").style.bottom = `${100 * Math.min(this.#swarm.numbers.bound_rps / top, 1)}%`;
    byId("bound").hidden = this.#swarm.numbers.bound_rps <= 0;
    setText(byId("scale-top"), rps(top));
    this.#drawAxis();
  }

  #drawAxis() {
    const { blocks } = this.#swarm;
    const roomy = Math.max(Math.floor(byId("axis").clientWidth / 34), 2);
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].find((size) => blocks.length / size <= roomy) ?? 10000;
    const ticks = blocks.filter((block) => block.index % step === 0);
    byId("axis").replaceChildren(
      ...ticks.map((block) => {
        const element = el("span", {}, `${block.index}`);
        element.style.left = `${(100 * (block.index - this.#swarm.first_block + 0.5)) / blocks.length}%`;
        return element;
      }),
    );
  }

  #drawServers() {
    const { servers, blocks, first_block } = this.#swarm;
    const block = this.#chosen?.block;
    const column = block === undefined ? null : this.#columns.find((one) => block >= one.first && block <= one.last);
    const there = column
      ? servers.filter((server) => server.span && server.span.start <= column.last && server.span.end > column.first)
      : servers;
    const shown = pickRows(
      there,
      this.#rows,
      (server) => server.own || server.peer_id === this.#chosen?.peer || this.#claims.has(server.peer_id),
    );
    const known = new Map([...this.#servers.children].map((element) => [element.dataset.peer, element]));
    const focused = document.activeElement;
    const wanted = shown.map((server) => {
      const element = known.get(server.peer_id) ?? makeRow(server.peer_id);
      this.#drawRow(element, server, first_block, blocks.length);
      return element;
    });
    if (wanted.length !== this.#servers.children.length || wanted.some((element, index) => element !== this.#servers.children[index])) {
      this.#servers.replaceChildren(...wanted);
      if (wanted.includes(focused)) focused.focus({ preventScroll: true });
    }
    keepTabStop(this.#servers);
    const online = there.filter((server) => server.state === "online").length;
    const where = column ? ` on ${columnName(column)}` : "";
    setText(byId("servers-title"), `${count(there.length, "server")}${where}, ${online} online`);
    byId("clear").hidden = this.#chosen === null;
    const hidden = there.length - shown.length;
    byId("rest").parentElement.hidden = hidden <= 0;
    setText(byId("rest"), `${count(hidden, "more server is", "more servers are")} not shown; choose a block to see who serves it, or`);
    this.#drawBands();
  }

  #drawRow(element, server, first, total) {
    const claim = this.#claims.get(server.peer_id);
    const isChosen = this.#chosen?.peer === server.peer_id;
    element.className = `server ${server.state}${server.own ? " own" : ""}${isChosen ? " chosen" : ""}`;
    setAttribute(element, "aria-label", serverSentence(server, claim));
    setAttribute(element, "aria-selected", isChosen ? "true" : "false");
    const [label, track] = element.children;
    setText(label.children[0], server.own ? "\u25b6" : "");
    setText(label.children[1], nameOf(server));
    setText(label.children[2], server.span ? span(server.span) : "\u2013");
    setText(label.children[3], server.state === "online" ? rps(server.throughput_rps) : server.state);
    placeBar(track.children[0], server.span, first, total);
    placeBar(track.children[1], claim?.target ?? null, first, total);
  }

  #drawBands() {
    const { blocks, first_block } = this.#swarm;
    const bands = [];
    const add = (start, end, name) => {
      const element = el("div", { class: name });
      placeBar(element, { start, end }, first_block, blocks.length);
      bands.push(element);
    };
    for (const run of runs(blocks, (block) => block.state === "uncovered")) add(run.start, run.end, "hole");
    const chosen = this.#chosen?.block;
    const column = this.#columns.find((one) => chosen >= one.first && chosen <= one.last);
    if (column) add(column.first, column.last + 1, "chosen");
    byId("bands").replaceChildren(...bands);
  }

  #drawDetails() {
    const { servers, blocks } = this.#swarm;
    const box = byId("details");
    let rows = null;
    if (this.#chosen?.peer !== undefined) {
      const server = servers.find((one) => one.peer_id === this.#chosen.peer);
      rows = server ? serverDetails(server, this.#claims.get(server.peer_id)) : [["Gone", "the DHT shows this server no more"]];
    } else if (this.#chosen) {
      const column = this.#columns.find((one) => this.#chosen.block >= one.first && this.#chosen.block <= one.last);
      rows = column && blockDetails(column, blocks, this.#swarm.numbers);
    }
    const text = rows ? JSON.stringify(rows.map(([name, value]) => [name, value.dataset?.at ?? value])) : "";
    if (box.dataset.shown === text) return;
    box.dataset.shown = text;
    box.replaceChildren(rows ? el("dl", {}, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))) : "");
  }

  #fillTables() {
    const details = byId("tables");
    if (!details.open || !this.#swarm) return;
    const { blocks, servers } = this.#swarm;
    const blockRows = blocks.slice(0, TABLE_ROWS).map((block) => [
      `${block.index}`,
      block.weakest ? "served, the weakest" : stateWords[block.state],
      rps(block.throughput_rps),
      `${block.online}`,
      `${block.joining}`,
    ]);
    const serverRows = servers.slice(0, TABLE_ROWS).map((server) => [
      server.own ? `${nameOf(server)} (this server)` : nameOf(server),
      server.peer_id,
      span(server.span),
      server.state,
      rps(server.throughput_rps),
      server.sidecar ? "yes" : "no",
    ]);
    const rest = (all) => el("p", { class: "hint" }, all.length > TABLE_ROWS ? `${all.length - TABLE_ROWS} more are not shown; all are in api/v1/swarm.` : "");
    details.lastElementChild.replaceChildren(
      el("h3", {}, "Blocks"),
      table("Blocks", ["Block", "State", "RPS", "Online", "Joining"], blockRows),
      rest(blocks),
      el("h3", {}, "Servers"),
      table("Servers", ["Name", "Peer id", "Blocks", "State", "RPS", "Sidecar"], serverRows),
      rest(servers),
    );
  }
}

const stateWords = {
  served: "served",
  joining: "only joining servers",
  unread: "could not be read",
  uncovered: "nobody serves it",
};

function summarize(blocks) {
  const worst = Math.max(...blocks.map((block) => BLOCK_SEVERITY.indexOf(block.state)));
  return {
    first: blocks[0].index,
    last: blocks[blocks.length - 1].index,
    state: BLOCK_SEVERITY[worst],
    throughput: Math.min(...blocks.map((block) => block.throughput_rps)),
    online: Math.min(...blocks.map((block) => block.online)),
    joining: Math.max(...blocks.map((block) => block.joining)),
    weakest: worst === 0 && blocks.some((block) => block.weakest),
  };
}

function scaleTop(columns, bound) {
  const served = columns.map((column) => column.throughput).filter((value) => value > 0).sort((a, b) => a - b);
  if (!served.length) return Math.max(bound, 1);
  const median = served[Math.floor(served.length / 2)];
  return Math.max(Math.min(served[served.length - 1], SCALE_OVER_MEDIAN * median), Math.min(1.1 * bound, SCALE_OVER_MEDIAN * median));
}

const columnName = (column) => (column.first === column.last ? `block ${column.first}` : `blocks ${column.first}:${column.last + 1}`);

function blockSentence(column) {
  const name = columnName(column);
  const start = `${name[0].toUpperCase()}${name.slice(1)}: `;
  if (column.state !== "served") return start + (column.first === column.last ? stateWords[column.state] : `at worst: ${stateWords[column.state]}`);
  return `${start}${rps(column.throughput)} RPS by ${count(column.online, "server")}${column.weakest ? ", the weakest" : ""}`;
}

function serverSentence(server, claim) {
  const parts = [nameOf(server), server.own ? "this server" : null, server.span ? `blocks ${span(server.span)}` : "no blocks", server.state, `${rps(server.throughput_rps)} RPS`];
  if (claim) parts.push(`claims ${span(claim.target)}`);
  return parts.filter(Boolean).join(", ");
}

function serverDetails(server, claim) {
  const rows = [
    ["Server", `${server.public_name ?? "without a name"}${server.own ? " (this server)" : ""}`],
    ["Peer id", server.peer_id],
    ["Blocks", span(server.span)],
    ["State", server.state],
    ["Announces", `${rps(server.throughput_rps)} RPS`],
  ];
  if (server.version) rows.push(["Version", server.version]);
  rows.push(["Sidecar", server.sidecar ? movable(server.sidecar) : server.own ? "this one" : "tells nothing"]);
  if (server.sidecar?.arrives_at) rows.push(["Arrives", timer(server.sidecar.arrives_at, "in")]);
  if (claim) rows.push(["Claims", `${span(claim.target)}, ${gain(claim.gain_rps)} RPS`]);
  return rows;
}

function movable(sidecar) {
  if (sidecar.movable_at === null) return "may not be moved";
  return sidecar.movable_at <= now() ? "may be moved" : `may be moved later`;
}

function blockDetails(column, blocks, numbers) {
  const name = columnName(column);
  return [
    [column.first === column.last ? "Block" : "Blocks", name.slice(name.indexOf(" ") + 1)],
    ["State", column.weakest ? "served, the weakest" : stateWords[column.state]],
    ["Throughput", `${rps(column.throughput)} RPS${numbers.bound_rps > 0 ? `; the bound is ${rps(numbers.bound_rps)}` : ""}`],
    ["Online servers", `${column.online}`],
    ["Joining servers", `${column.joining}`],
  ];
}

/** Which servers to show where not all fit: those that matter by themselves, those that load, an even choice of the rest. */
function pickRows(servers, limit, matters) {
  if (servers.length <= limit) return servers;
  const picked = new Set(servers.filter(matters).slice(0, limit));
  const add = (state, most) => {
    const wanted = servers.filter((server) => server.state === state && !picked.has(server));
    const step = Math.max(wanted.length / Math.max(most, 1), 1);
    for (let index = 0; index < wanted.length && picked.size < limit; index += step) picked.add(wanted[Math.floor(index)]);
  };
  add("joining", Math.floor(limit / 3));
  add("online", limit - picked.size);
  add("offline", limit - picked.size);
  return servers.filter((server) => picked.has(server));
}

function* runs(blocks, wanted) {
  let start = null;
  for (const block of blocks) {
    if (wanted(block)) start ??= block.index;
    else if (start !== null) {
      yield { start, end: block.index };
      start = null;
    }
  }
  if (start !== null) yield { start, end: blocks[blocks.length - 1].index + 1 };
}

function makeRow(peer) {
  const label = el("span", { class: "label" }, ["who", "name", "span", "rps"].map((name) => el("span", { class: name })));
  const track = el("span", { class: "track" }, el("span", { class: "bar" }), el("span", { class: "target" }));
  return el("div", { role: "option", tabindex: -1, "data-peer": peer }, label, track);
}

function placeBar(element, span, first, total) {
  element.hidden = span === null;
  if (span === null) return;
  element.style.left = `${(100 * (span.start - first)) / total}%`;
  element.style.width = `${(100 * (span.end - span.start)) / total}%`;
}

function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Exactly one option can be reached by Tab: the one that had the focus, else the chosen, else the first. */
function keepTabStop(list) {
  const options = [...list.children];
  if (!options.length) return;
  const stop =
    options.find((option) => option === document.activeElement) ??
    options.find((option) => option.getAttribute("aria-selected") === "true") ??
    options.find((option) => option.tabIndex === 0) ??
    options[0];
  for (const option of options) setAttribute(option, "tabindex", option === stop ? "0" : "-1");
}

function makeListbox(list, back, forth, choose) {
  const go = (option) => {
    if (!option) return;
    for (const other of list.children) setAttribute(other, "tabindex", other === option ? "0" : "-1");
    option.focus();
    choose(option);
  };
  list.addEventListener("click", (event) => go(event.target.closest('[role="option"]')));
  list.addEventListener("keydown", (event) => {
    const option = event.target.closest('[role="option"]');
    if (!option || event.ctrlKey || event.altKey || event.metaKey) return;
    const options = [...list.children];
    const index = options.indexOf(option);
    const wanted = {
      [back]: options[Math.max(index - 1, 0)],
      [forth]: options[Math.min(index + 1, options.length - 1)],
      Home: options[0],
      End: options[options.length - 1],
      PageUp: options[Math.max(index - 10, 0)],
      PageDown: options[Math.min(index + 10, options.length - 1)],
      Enter: option,
      " ": option,
    }[event.key];
    if (!wanted) return;
    event.preventDefault();
    go(wanted);
  });
}
