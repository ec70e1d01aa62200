// The connection: follows the daemon's events, comes back by itself, and says when what is shown is old.

const SILENT_MS = 40_000; // the daemon sends something every 15 s
const LONGEST_WAIT_MS = 10_000;

/**
 * Follow the daemon's status for ever.
 *
 * @param onStatus is told every new status.
 * @param onConnection is told "live", or "lost", and when something was last heard (milliseconds since the epoch; null
 *   if never).
 */
export function follow(onStatus, onConnection) {
  let source;
  let heardAt = null;
  let wait = 500;
  let retry;

  function heard() {
    heardAt = Date.now();
    wait = 500;
    onConnection("live", heardAt);
  }

  function connect() {
    clearTimeout(retry);
    source?.close();
    source = new EventSource("api/v1/events");
    source.addEventListener("status", (event) => {
      heard();
      onStatus(JSON.parse(event.data));
    });
    source.addEventListener("alive", heard);
    source.addEventListener("error", lost);
  }

  function lost() {
    source.close();
    onConnection("lost", heardAt);
    clearTimeout(retry);
    retry = setTimeout(connect, wait);
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }

  setInterval(() => {
    if (source.readyState === EventSource.OPEN && heardAt !== null && Date.now() - heardAt > SILENT_MS) lost();
  }, 5000);
  // A phone that wakes up need not wait for its timers.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && source.readyState === EventSource.CLOSED) connect();
  });
  window.addEventListener("pagehide", () => source.close());
  window.addEventListener("pageshow", (event) => event.persisted && connect());
  connect();
}

/** Ask for JSON; rejects where there is none. */
export async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}
