// The bottleneck against the bound over time, drawn by uPlot (see uplot.LICENSE); it is given numbers alone.

import { byId, count, el, moment, percent, rps, setText, table } from "./dom.js";

const MOST_POINTS = 3000;
const SHORTEST_SECONDS = 60;
const ROWS = 40;

export class Chart {
  #points = [];
  #plot = null;
  #box = byId("chart");
  #hint = byId("reading").textContent;

  constructor() {
    new ResizeObserver(() => this.#resize()).observe(this.#box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#rebuild());
    byId("history-table").addEventListener("toggle", () => this.#fillTable());
  }

  get last() {
    return this.#points.length ? this.#points[this.#points.length - 1].at : null;
  }

  clear() {
    this.#points = [];
  }

  add(points) {
    const last = this.last ?? -Infinity;
    this.#points.push(...points.filter((point) => point.at > last));
    this.#points = this.#points.slice(-MOST_POINTS);
    if (!this.#plot) this.#rebuild();
    else this.#plot.setData(this.#columns());
    this.#describe();
    this.#fillTable();
  }

  #columns() {
    const column = (field) => this.#points.map((point) => point[field]);
    return [column("at"), column("bottleneck_rps"), column("bound_rps")];
  }

  #resize() {
    const { width, height } = this.#size();
    if (!this.#plot) this.#rebuild();
    else if (width > 0 && (width !== this.#plot.width || height !== this.#plot.height)) this.#plot.setSize({ width, height });
  }

  #size() {
    return { width: Math.floor(this.#box.clientWidth), height: Math.floor(this.#box.clientHeight) };
  }

  #rebuild() {
    if (!this.#points.length || !this.#box.clientWidth) return;
    this.#plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const font = `12px ${style.fontFamily}`;
    const axis = { stroke: colour("muted"), font, grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
    const longest = (min, max) => (max - min < SHORTEST_SECONDS ? [max - SHORTEST_SECONDS, max] : [min, max]);
    this.#plot = new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        cursor: { y: false, points: { size: 7 } },
        scales: {
          x: { time: true, range: (_, min, max) => longest(min, max) },
          y: { range: (_, min, max) => [0, max > 0 ? 1.12 * max : 1] },
        },
        axes: [
          { ...axis, values: "{HH}:{mm}:{ss}", space: 76 },
          { ...axis, size: 44, values: (_, values) => values.map(rps) },
        ],
        series: [
          {},
          { stroke: colour("served"), width: 2, fill: colour("served-faint"), points: { show: false } },
          { stroke: colour("text"), width: 1.5, dash: [6, 4], points: { show: false } },
        ],
        hooks: {
          drawClear: [(plot) => this.#drawHoles(plot, colour("hole-faint"), colour("hole"))],
          setCursor: [(plot) => this.#read(plot.cursor.idx)],
        },
      },
      this.#columns(),
      this.#box,
    );
  }

  /** Shade the times with holes, and underline them, so that colour alone does not tell. */
  #drawHoles(plot, faint, strong) {
    const { ctx, bbox } = plot;
    const limit = (x) => Math.min(Math.max(x, bbox.left), bbox.left + bbox.width);
    this.#points.forEach((point, index) => {
      if (!point.uncovered_blocks) return;
      const end = this.#points[index + 1]?.at ?? point.at + 1;
      const left = limit(plot.valToPos(point.at, "x", true));
      const width = Math.max(limit(plot.valToPos(end, "x", true)) - left, 1);
      ctx.fillStyle = faint;
      ctx.fillRect(left, bbox.top, width, bbox.height);
      ctx.fillStyle = strong;
      ctx.fillRect(left, bbox.top, width, 3 * devicePixelRatio);
    });
  }

  #read(index) {
    const point = this.#points[index];
    setText(byId("reading"), point ? `${moment(point.at)}: ${sentence(point)}` : this.#hint);
  }

  #describe() {
    const newest = this.#points[this.#points.length - 1];
    if (!newest) return;
    const bottlenecks = this.#points.map((point) => point.bottleneck_rps);
    const [least, most] = [Math.min(...bottlenecks), Math.max(...bottlenecks)];
    const text = `Bottleneck over time: now ${sentence(newest)}; since ${moment(this.#points[0].at)} between ${rps(least)} and ${rps(most)} RPS.`;
    if (this.#box.getAttribute("aria-label") !== text) this.#box.setAttribute("aria-label", text);
  }

  #fillTable() {
    const details = byId("history-table");
    if (!details.open) return;
    const newest = this.#points.slice(-ROWS).reverse();
    const rows = newest.map((point) => [
      moment(point.at),
      rps(point.bottleneck_rps),
      rps(point.bound_rps),
      `${point.uncovered_blocks}`,
    ]);
    details.lastElementChild.replaceChildren(
      table("Bottleneck over time", ["Read at", "Bottleneck, RPS", "Bound, RPS", "Holes"], rows),
      el("p", { class: "hint" }, this.#points.length > ROWS ? `${this.#points.length - ROWS} older ones are not shown.` : ""),
    );
  }
}

function sentence(point) {
  const share = point.bound_rps > 0 ? `, ${percent(Math.min(point.bottleneck_rps / point.bound_rps, 1))}` : "";
  return `${rps(point.bottleneck_rps)} of ${rps(point.bound_rps)} RPS${share}; ${count(point.uncovered_blocks, "hole")}`;
}
