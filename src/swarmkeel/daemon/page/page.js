// The status page: puts the parts together. Everything shown comes from api/v1/.

import { Chart } from "./chart.js";
import { byId, moment, setClock, setText, tick } from "./dom.js";
import { ask, follow } from "./live.js";
import { SwarmMap } from "./map.js";
import { showHoles, showStatus } from "./panels.js";

const chart = new Chart();
const map = new SwarmMap();
let status = null;
let readAt = null;
let isAsking = false;

follow((newest) => {
  if (status && newest.started_at !== status.started_at) {
    chart.clear(); // another process: its memory begins anew
    readAt = null;
  }
  status = newest;
  setClock(status.now);
  showStatus(status);
  map.showClaims(status.claims);
  refresh();
}, showConnection);

setInterval(tick, 1000);

/** Ask for what the events do not carry, once for each snapshot; changes meanwhile are asked for after that. */
async function refresh() {
  if (isAsking || !status.snapshot || status.snapshot.read_at === readAt) return;
  isAsking = true;
  const wanted = status.snapshot.read_at;
  try {
    const since = chart.last === null ? "" : `?since=${chart.last}`;
    const [swarm, timeline] = await Promise.all([ask("api/v1/swarm"), ask(`api/v1/timeline${since}`)]);
    chart.add(timeline.points);
    showHoles(swarm);
    showStatus(status);
    map.show(swarm);
    readAt = wanted;
  } catch (error) {
    console.warn(error.message); // the next event asks again
    return;
  } finally {
    isAsking = false;
  }
  if (status.snapshot.read_at !== readAt) refresh();
}

function showConnection(state, heardAt) {
  const element = byId("live");
  const isLive = state === "live";
  element.className = state;
  document.body.classList.toggle("stale", !isLive);
  if (isLive) setText(element, "live");
  else if (heardAt === null) setText(element, "no connection to the sidecar; trying again");
  else setText(element, `connection lost: shown as of ${moment(heardAt / 1000)}; trying again`);
}
