// Everything of the status but the picture and the chart: verdict, figures, guards, claims, moves, notices.

import { byId, count, duration, el, gain, moment, nameOf, percent, ranges, rps, setText, span, table, timer, whenChanged } from "./dom.js";

const VERDICTS = {
  balanced: ["balanced", "good"],
  moving: ["moving", "busy"],
  holding: ["holding", "waiting"],
  would_move: ["would move", "waiting"],
  insufficient_information: ["insufficient information", "bad"],
  failed: ["failed", "bad"],
  disabled: ["disabled", "idle"],
  paused: ["paused", "idle"],
};

const GUARDS = {
  pinned: "Pinned by the server's operator",
  restart_running: "Another restart is running",
  breaker: "Circuit breaker after failed moves",
  moves_per_day: "Moves a day",
  cooldown: "Cooldown after a move",
  minimum_uptime: "Minimum uptime of a span",
  too_many_moving: "Too many servers on the move",
  confirmation: "Confirmation by several snapshots",
};

const KINDS = {
  always: "",
  while_serving: "not asked about a first placement",
  unless_urgent: "not asked when a hole is to be closed",
};

const STEPS = { done: "done", abandoned: "abandoned", fell_back: "fell back", failed: "failed" };

export function showStatus(status) {
  showHead(status);
  showVerdict(status);
  showFigures(status);
  showNotices(status);
  showGuards([status.guards, status.server?.span ?? null]);
  showClaims([status.claims, status.policy]);
  showMoves(status.moves);
}

let holes = [];

/** Take the numbers of the holes, which only the swarm's blocks tell. */
export function showHoles(swarm) {
  holes = swarm.blocks.filter((block) => block.state === "uncovered" || block.state === "joining").map((block) => block.index);
}

function showHead(status) {
  document.title = `${status.numbers?.uncovered_blocks ? `\u00d7 ${count(status.numbers.uncovered_blocks, "hole")} \u00b7 ` : ""}${status.model} \u00b7 Swarmkeel`;
  factLine({ model: status.model, blocks: status.total_blocks, policy: status.policy, dry: status.dry_run, enabled: status.enabled });
  buildLine({ version: status.version, started: status.started_at });
}

const factLine = whenChanged((facts) => {
  byId("facts").replaceChildren(
    el("strong", {}, facts.model),
    ` \u00b7 ${count(facts.blocks, "block")} \u00b7 policy ${facts.policy}`,
    facts.dry ? el("span", { class: "tag" }, "dry run: moves nothing") : "",
    facts.enabled ? "" : el("span", { class: "tag" }, "balancing is off"),
  );
});

const buildLine = whenChanged(({ version, started }) => {
  byId("build").replaceChildren(`Swarmkeel ${version}, running `, timer(started, "since"));
});

let announced = "";

function showVerdict(status) {
  const verdict = status.verdict;
  if (verdict) {
    const [word, tone] = VERDICTS[verdict.verdict] ?? [verdict.verdict, "idle"];
    setText(byId("verdict-word"), word);
    byId("verdict").dataset.tone = tone;
    const sentence = verdict.sentence.startsWith(`${verdict.verdict}: `) ? verdict.sentence.slice(verdict.verdict.length + 2) : verdict.sentence;
    setText(byId("verdict-sentence"), sentence ? `${sentence[0].toUpperCase()}${sentence.slice(1)}.` : "");
    const { before, after, target, own_span } = verdict;
    const move = target ? `From ${span(own_span)} to ${span(target)}` : "";
    const effect = target && before && after ? `: bottleneck ${rps(before.bottleneck_rps)} \u2192 ${rps(after.bottleneck_rps)} RPS, holes ${before.uncovered_blocks} \u2192 ${after.uncovered_blocks}` : "";
    setText(byId("verdict-target"), move + effect);
    checkedAt(status.readiness.last_check_at);
  }
  // A screen reader is told of what matters, not of every number that moves.
  const said = verdict ? `${VERDICTS[verdict.verdict]?.[0] ?? verdict.verdict}; ${count(status.numbers?.uncovered_blocks ?? 0, "block")} without a server` : "";
  if (said !== announced) setText(byId("said"), said);
  announced = said;
}

const checkedAt = whenChanged((at) => {
  byId("verdict-at").replaceChildren(...(at === null ? [] : ["checked ", timer(at, "ago")]));
});

function showFigures(status) {
  const { numbers, snapshot, server, readiness } = status;
  const figures = [];
  if (numbers) {
    const share = numbers.bound_rps > 0 ? `${percent(numbers.balance_ratio)} of the best possible ${rps(numbers.bound_rps)}` : "no placement covers all blocks";
    figures.push(["Bottleneck", `${rps(numbers.bottleneck_rps)} RPS`, share, numbers.uncovered_blocks ? "bad" : "", numbers.balance_ratio]);
    const where = holes.length ? `blocks ${ranges(holes)}` : "no server is on them";
    figures.push(["Holes", `${numbers.uncovered_blocks}`, numbers.uncovered_blocks ? where : "every block is served", numbers.uncovered_blocks ? "bad" : "good", null]);
  }
  if (server) {
    const busy = server.restart && !server.restart.endsWith(": online") && !server.restart.includes(": failed") ? `restart ${server.restart}` : null;
    const since = server.span_since === null ? null : ["since", server.span_since];
    figures.push(["This server", server.span ? span(server.span) : "no blocks", busy ?? `${rps(server.throughput_rps)} RPS, ${server.state}`, server.state === "online" ? "" : "bad", null, since]);
  } else if (readiness.last_check_at === null) {
    figures.push(["This server", "not asked yet", "", "", null]);
  } else {
    figures.push(["This server", "no answer", "its control socket does not answer", "bad", null]);
  }
  if (snapshot) {
    const rejected = Object.values(snapshot.rejected).reduce((sum, number) => sum + number, 0);
    figures.push(["DHT read", ["ago", snapshot.read_at], `${snapshot.keys_answered} of ${snapshot.keys_asked} keys, ${count(rejected, "record")} rejected, ${count(readiness.dht_peers, "peer")}`, readiness.snapshot_is_good ? "" : "bad", null]);
  } else {
    figures.push(["DHT read", "not yet", `${count(readiness.dht_peers, "peer")}`, "", null]);
  }
  drawFigures(figures);
}

const drawFigures = whenChanged((figures) => {
  byId("figures").replaceChildren(
    ...figures.map(([name, value, text, tone, ratio, since]) => {
      const meter = ratio === null ? null : el("span", { class: "meter", "aria-hidden": "true" }, el("span"));
      if (meter) meter.firstElementChild.style.width = `${100 * ratio}%`;
      const shown = Array.isArray(value) ? timer(value[1], value[0]) : value;
      const more = since ? [" ", timer(since[1], since[0])] : [];
      return el("div", { "data-tone": tone }, el("dt", {}, name), el("dd", {}, el("strong", {}, shown), meter, el("span", { class: "sub" }, text, ...more)));
    }),
  );
});

function showNotices(status) {
  const { readiness, pause } = status;
  const notices = [];
  if (pause) notices.push(`Paused since ${moment(pause.since)}${pause.until === null ? "" : `, until ${moment(pause.until)}`}: ${pause.reason || "no reason given"}`);
  if (!readiness.snapshot_is_good && readiness.ready) notices.push("The DHT could not be read well enough: what is shown may be old or have gaps.");
  if (!readiness.config_is_current) notices.push("The newest configuration was not taken: the log says why.");
  const limit = 3 * readiness.check_period + 60;
  if (readiness.last_check_at !== null && status.now - readiness.last_check_at > limit) notices.push(`The last check of the balance ended at ${moment(readiness.last_check_at)}: the daemon may be stuck.`);
  drawNotices(notices);
}

const drawNotices = whenChanged((notices) => {
  byId("notices").replaceChildren(...notices.map((text) => el("p", { class: "notice" }, text)));
});

const showGuards = whenChanged(([guards, ownSpan]) => {
  const holding = guards.filter((guard) => guard.holds);
  const urgent = holding.filter((guard) => guard.kind !== "unless_urgent");
  let summary = "Known after the first check.";
  if (guards.length) {
    summary = holding.length ? `${count(holding.length, "guard holds", "guards hold")} a move back now` : "None holds a move back now.";
    if (holding.length) summary += urgent.length ? "." : "; a move that closes a hole is let pass.";
    if (!ownSpan) summary += " A first placement is asked only of those that always are.";
  }
  setText(byId("guards-summary"), summary);
  byId("guard-list").replaceChildren(
    ...guards.map((guard) => {
      const name = GUARDS[guard.name] ?? guard.name;
      const release = guard.releases_at === null ? null : el("span", { class: "release" }, `lets go at ${moment(guard.releases_at)}, `, timer(guard.releases_at, "in"));
      return el(
        "li",
        { class: guard.holds ? "holds" : "free" },
        el("span", { class: "state" }, guard.holds ? "holds" : "free"),
        el("span", { class: "what" }, el("strong", {}, name), guard.sentence ? el("span", {}, guard.sentence) : null, release, guard.holds && KINDS[guard.kind] ? el("small", {}, KINDS[guard.kind]) : null),
      );
    }),
  );
});

const short = (text) => el("span", { class: "short" }, text);

const showClaims = whenChanged(([claims, policy]) => {
  const box = byId("claim-list");
  if (!claims) {
    setText(byId("claims-summary"), policy === "petals" ? "The policy petals makes none." : "Not read yet.");
    box.replaceChildren();
    return;
  }
  const all = [...(claims.own ? [[claims.own, true]] : []), ...claims.others.map((claim) => [claim, false])];
  const doubts = [];
  if (!claims.readable) doubts.push("what sidecars tell could not be read");
  if (claims.implausible) doubts.push(`${count(claims.implausible, "claim")} cannot be true`);
  if (claims.rejected) doubts.push(`${count(claims.rejected, "record")} rejected`);
  const heard = `${count(claims.sidecars, "other sidecar tells", "other sidecars tell")} of ${claims.sidecars === 1 ? "its server" : "their servers"}`;
  setText(byId("claims-summary"), `${heard}${doubts.length ? `; ${doubts.join(", ")}` : ""}. ${all.length ? "The older claim goes first." : "Nobody claims a move now."}`);
  const rows = all.map(([claim, own]) => [
    el("span", {}, nameOf(claim), own ? el("span", { class: "tag" }, "this server") : null),
    short(`${span(claim.origin)} \u2192 ${span(claim.target)}`),
    `${gain(claim.gain_rps)} RPS`,
    timer(claim.made_at, "ago"),
    timer(claim.expires_at, "in"),
  ]);
  box.replaceChildren(...(rows.length ? [table("Claims", ["Server", "Move", "Gain of its plan", "Made", "Expires"], rows)] : []));
});

const showMoves = whenChanged((moves) => {
  const box = byId("move-list");
  if (!moves.length) {
    box.replaceChildren(el("p", { class: "hint" }, "None yet."));
    return;
  }
  const rows = moves.map((move) => [
    short(moment(move.started_at)),
    short(`${span(move.origin)} \u2192 ${span(move.target)}`),
    el("span", { class: `step ${move.is_final ? move.step : "busy"}` }, STEPS[move.step] ?? move.step.replaceAll("_", " "), move.error ? el("small", {}, move.error) : null),
    gain(move.predicted_gain_rps),
    move.realised_gain_rps === null ? "\u2013" : gain(move.realised_gain_rps),
    short(move.outage_seconds === null ? "\u2013" : duration(move.outage_seconds)),
  ]);
  box.replaceChildren(table("Last moves", ["Begun", "Move", "State", "Predicted, RPS", "Realised, RPS", "Out of service"], rows));
});
