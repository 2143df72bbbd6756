// The connection: events, or, where there is no place for one more reader, a question now and then.
function unknown() {
  const name = byId("name").textContent;
  icon("");
  document.title = "Not connected" + (name ? " to " + name : "");
  if (heard) byId("detail").replaceChildren("This was known ", age(last, "% ago"), ". It may have changed.");
}
const ASK = 10000;
let source, heard = 0, last = 0, again;
// Nothing is known any more, and nothing here may look as if it were.
function link(severity, words) {
  byId("link").className = "link " + severity;
  say("link-words", words);
  document.body.className = severity === "bad" && heard ? "cut" : "";
  if (severity === "bad") unknown();
}
function take(text) {
  heard = Date.now();
  show(JSON.parse(text));
  last = now();
}
function connect() {
  clearTimeout(again);
  if (source) source.close();
  source = new EventSource("events");
  source.onmessage = (event) => { link("good", "connected"); take(event.data); };
  source.onerror = () => {
    if (source.readyState !== EventSource.CLOSED) return link("bad", "connection lost, reconnecting");
    clearTimeout(again);
    again = setTimeout(ask, heard ? 1000 : 0);
  };
}
// The events were refused: the browser does not show why, so the server is asked.
async function ask() {
  again = setTimeout(connect, ASK);
  try {
    const answer = await fetch("status", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    take(await answer.text());
    link("wait", "too many browsers have this page open; this one polls every " + span(ASK));
  } catch {
    link("bad", heard ? "connection lost, reconnecting" : "no connection, reconnecting");
  }
}
setInterval(() => {
  document.querySelectorAll("time").forEach(tick);
  document.querySelectorAll("li.left").forEach((row) => { if (now() - row.querySelector("time").dataset.at > GONE_FOR) row.remove(); });
  if (heard && Date.now() - heard > 25000) { heard = Date.now(); link("bad", "no events received, reconnecting"); connect(); }
}, 1000);
byId("seek").addEventListener("input", () => { filter.q = byId("seek").value.trim(); writeFilter(); redraw(); });
addEventListener("hashchange", () => { readFilter(); redraw(); });
readFilter();
connect();
