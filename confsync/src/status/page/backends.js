// Services and their backends, and the filter, which is in the address of the page:
// #state=waiting&q=10.1.
const GONE_FOR = 120000;
// With fewer backends than this every service is open.
const MANY = 24;
// No more rows of a service until all are asked for.
const ROWS = 200;
const STATES = [
  ["in-rotation", "good", "in rotation"], ["waiting", "wait", "waiting"], ["leaving", "wait", "leaving"],
  ["retained", "bad", "retained"], ["unused", "", "not used"], ["left", "", "left"],
];
const order = new Intl.Collator("en", { numeric: true }).compare;
const filter = { state: "", q: "" };
function readFilter() {
  const from = new URLSearchParams(location.hash.slice(1));
  filter.state = STATES.some(([name]) => name === from.get("state")) ? from.get("state") : "";
  filter.q = from.get("q") || "";
  if (byId("seek").value.trim() !== filter.q) byId("seek").value = filter.q;
}
function writeFilter() {
  const to = new URLSearchParams();
  if (filter.state) to.set("state", filter.state);
  if (filter.q) to.set("q", filter.q);
  history.replaceState(null, "", "#" + to);
}
const filtered = () => Boolean(filter.state || filter.q);
function stateOf(b) {
  if (b.left) return "left";
  if (b.held) return "retained";
  if (b.leaving) return "leaving";
  if (b.unused) return "unused";
  return b.live ? "in-rotation" : "waiting";
}
const TITLES = {
  "in-rotation": "new requests are sent to it",
  waiting: "registered, and not proven to be in rotation yet",
  leaving: "deregistered, and still in rotation until the next load is proven",
  retained: "absent from etcd, and still in rotation because it accepts connections",
  unused: "registered below a key that the resource watches, but no template writes its address",
  left: "deregistered, and no longer in rotation",
};
function passes(b) {
  if (filter.state && stateOf(b) !== filter.state) return false;
  const text = (b.addr + " " + b.key + " " + b.service + (b.zone ? " zone " + b.zone : "")).toLowerCase();
  return text.includes(filter.q.toLowerCase());
}

// A backend that has left is shown for a while.
const known = new Map();
function departed(set, at) {
  const before = known.get(set.name) || { there: new Map(), gone: new Map(), first: true };
  const there = new Map(set.backends.map((b) => [b.key, b]));
  const fresh = new Set();
  for (const [key, b] of before.there) if (!there.has(key)) before.gone.set(key, { ...b, left: true, since: at });
  for (const key of there.keys()) {
    before.gone.delete(key);
    if (!before.first && !before.there.has(key)) fresh.add(key);
  }
  for (const [key, gone] of before.gone) if (at - gone.since > GONE_FOR) before.gone.delete(key);
  known.set(set.name, { there, gone: before.gone, first: false });
  return { gone: [...before.gone.values()], fresh };
}
// What it has had and has, in all pools it is in; null where nothing counts.
function trafficOf(set) {
  const all = new Map();
  for (const t of set.traffic) {
    if (t.leaving) continue;
    const sum = all.get(t.addr) || { in_flight: 0, requests: 0, failures: 0, ejected: false };
    all.set(t.addr, { in_flight: t.in_flight === null || sum.in_flight === null ? null : sum.in_flight + t.in_flight,
      requests: sum.requests + t.requests, failures: sum.failures + t.failures, ejected: sum.ejected || t.ejected });
  }
  return all;
}
function trafficWords(t) {
  return [plural(t.requests, "request"), t.in_flight ? t.in_flight + " in flight" : null, t.failures ? t.failures + " failed" : null];
}
function row(b, fresh, traffic) {
  const state = stateOf(b), [, severity, words] = STATES.find(([name]) => name === state);
  const id = b.key.split("/").pop();
  const t = b.left ? null : traffic.get(b.addr);
  const more = [b.addr.startsWith(id) ? null : id, b.weight === 1 ? null : "weight " + b.weight, b.zone ? "zone " + b.zone : null].concat(t ? trafficWords(t) : []);
  const made = h("li", severity + (b.left ? " left" : "") + (fresh ? " fresh" : ""), h("span", "state", dot(), words), h("b", "", b.addr),
    h("span", "more", t && t.ejected ? tag("bad", "ejected") : null, t && t.ejected ? " " : null, more.filter(Boolean).join(" · ")), h("span", "when", age(b.since, b.left ? "% ago" : "%")));
  made.title = b.key + ": " + TITLES[state];
  if (b.left) made.dataset.left = b.addr;
  else [made.dataset.addr, made.dataset.state] = [b.addr, words];
  return made;
}
// What a person has opened or closed stays so.
const opened = new Map(), all = new Set();
function service(set, name, backends, fresh, many, traffic) {
  const shown = backends.filter(passes), id = set.name + "/" + name;
  if (filtered() && !shown.length) return null;
  const counts = new Map(STATES.map(([state]) => [state, 0]));
  for (const b of backends) counts.set(stateOf(b), counts.get(stateOf(b)) + 1);
  const present = backends.length - counts.get("left");
  const well = present && counts.get("in-rotation") + counts.get("unused") === present;
  const numbers = STATES.filter(([state]) => counts.get(state)).map(([state, severity, words]) => h("span", severity, counts.get(state) + " " + words));
  if (!present) numbers.unshift(h("span", "wait", "no backends"));
  if (filtered()) numbers.push(h("span", "", shown.length + " of " + backends.length + " shown"));
  const made = h("details", "service"), summary = h("summary", "", h("b", "", name), numbers);
  summary.dataset.key = "service " + id;
  made.dataset.service = name;
  made.append(summary);
  made.open = filtered() || (opened.has(id) ? opened.get(id) : (!well || !many) && shown.length > 0);
  // Thousands of rows are made only when they are asked for.
  const fill = () => {
    if (!made.open || made.querySelector("ul")) return;
    const some = all.has(id) ? shown : filtered() || opened.get(id) || !many ? shown.slice(0, ROWS) : shown.filter((b) => stateOf(b) !== "in-rotation").slice(0, MANY);
    made.append(h("ul", "backends", some.map((b) => row(b, fresh.has(b.key), traffic))));
    if (some.length < shown.length) {
      const more = h("button", "rest", "Show all " + shown.length);
      more.type = "button";
      more.dataset.key = "all " + id;
      more.addEventListener("click", () => { all.add(id); redraw(); });
      made.append(more);
    }
  };
  fill();
  summary.addEventListener("click", () => opened.set(id, !made.open));
  made.addEventListener("toggle", fill);
  return made;
}
// Backends that need attention come first; then the order of numbers.
function services(set, many) {
  const { gone, fresh } = departed(set, now());
  const names = new Map();
  for (const r of set.resources) for (const s of r.services) names.set(s.service, []);
  for (const b of set.backends.concat(gone)) {
    if (!names.has(b.service)) names.set(b.service, []);
    names.get(b.service).push(b);
  }
  const traffic = trafficOf(set);
  const rank = (b) => b.left || b.unused ? 2 : b.live && !b.held && !b.leaving ? 1 : 0;
  const sorted = [...names].sort((a, b) => order(a[0], b[0]));
  for (const [, list] of sorted) list.sort((a, b) => rank(a) - rank(b) || order(a.addr, b.addr));
  const made = sorted.map(([name, list]) => service(set, name, list, fresh, many, traffic)).filter(Boolean);
  if (made.length) return made;
  if (names.size) return h("p", "empty", "No backend of this group passes the filter.");
  return h("p", "empty", "No service: the files are made of settings, or no backend has registered yet.");
}
function stateButtons(doc) {
  const counts = new Map(STATES.map(([name]) => [name, 0]));
  for (const set of doc.sets) for (const b of set.backends) counts.set(stateOf(b), counts.get(stateOf(b)) + 1);
  const button = ([name, , words]) => {
    const made = h("button", "", words + " " + counts.get(name));
    made.type = "button";
    made.dataset.key = "state " + name;
    made.setAttribute("aria-pressed", String(filter.state === name));
    made.addEventListener("click", () => { filter.state = filter.state === name ? "" : name; writeFilter(); redraw(); });
    return made;
  };
  return STATES.filter(([name]) => counts.get(name) || filter.state === name).map(button).flatMap((b) => [b, " "]);
}
