const EVERY = 2000;
// Each machine has its own: its address distinguishes the tabs.
const HERE = location.host;

const isHeld = (s) => typeof s.registration === "object" && "held_at_revision" in s.registration;
function stateOf(s, leaving) {
  if (leaving && s.registration !== "absent") return ["wait", "draining"];
  if (typeof s.registration === "object" && "held_by" in s.registration) return ["bad", "another has the key"];
  if (isHeld(s)) return s.health === "down" ? ["wait", "unhealthy, being removed"] : ["good", "registered"];
  if (s.health === "up") return ["wait", "healthy, registering"];
  return s.health === "down" ? ["bad", "unhealthy"] : ["wait", "starting"];
}
function confirmed(s, leaving) {
  if (leaving && s.registration !== "absent") return "the key is removed, so that no new request comes";
  if (isHeld(s)) return "key written at revision " + s.registration.held_at_revision;
  if (typeof s.registration === "object") return "the key is " + s.registration.held_by;
  if (s.registration === "owed") return "not confirmed";
  return s.change ? "no key, removed at revision " + s.change.split("@").pop() : "no key";
}
const WORDS = { P: "passed", F: "failed", N: "not made" };
function strip(history) {
  const marks = [...history].map((mark) => mark === "?" ? "N" : mark);
  const counts = ["P", "F", "N"].map((m) => [marks.filter((x) => x === m).length, WORDS[m]]).filter(([n]) => n > 0);
  const bar = h("div", "strip", marks.map((mark) => h("i", mark)));
  while (bar.childElementCount < 64) bar.prepend(h("i"));
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", "the last probes: " + (counts.map(([n, word]) => n + " " + word).join(", ") || "none"));
  bar.title = bar.getAttribute("aria-label") + "; the newest is on the right";
  return bar;
}
function row(name, ...value) { return [h("dt", "", name), h("dd", "", ...value)]; }
function service(s, leaving) {
  const [severity, words] = stateOf(s, leaving);
  const section = h("section", "", h("div", "top", h("h2", "", s.key), tag(severity, words)), strip(s.history),
    h("dl", "",
      row("Value", s.value),
      row(s.checks.length === 1 ? "Check" : "Checks", s.checks.join(", ")),
      row("In etcd", confirmed(s, leaving)),
      row("Health", s.health + " for " + span(s.for_seconds * 1000)),
      row("Last probe", s.last_probe === null ? "none yet" : s.last_probe + " (" + s.last_probe_ms + " ms)"),
      row("Probes", plural(s.probes, "probe") + ", " + s.failures + " failed" + (s.not_made ? ", " + s.not_made + " not made" : ""))));
  section.dataset.key = s.key;
  section.dataset.state = words;
  return section;
}
function drained(drain) {
  if (!drain) return null;
  if (drain.result !== null) {
    const good = drain.result === "confirmed" || drain.result === "no_load_balancer";
    return h("div", good ? "note" : "note bad", "The drain has ended: " + drain.result.replaceAll("_", " ") + ".");
  }
  if (drain.waiting_for.length === 0) return h("div", "note", "The keys are being removed.");
  return h("div", "note", "Waiting for:", h("ul", "", drain.waiting_for.map((lb) => h("li", "", lb))));
}
function show(now) {
  const count = now.services.length, held = now.services.filter(isHeld).length;
  const trouble = now.etcd.trouble;
  const severity = now.leaving ? "wait" : now.ready ? (trouble ? "wait" : "good") : trouble ? "bad" : "wait";
  const words = now.leaving ? "Draining" : held === count ? plural(count, "service") + " registered" : held + " of " + plural(count, "service") + " registered";
  byId("hero").className = "hero " + severity;
  if (byId("headline").textContent !== words) byId("headline").textContent = words;
  const since = () => " For " + span(now.etcd.trouble_for_seconds * 1000) + (now.ready ? "; the key lives until its lease ends." : ".");
  byId("detail").textContent = now.leaving ? "It ends when no load balancer sends requests any more, or its time is over." :
    trouble ? trouble[0].toUpperCase() + trouble.slice(1) + "." + since() : now.words;
  document.title = words + " · " + HERE;
  byId("about").textContent = "register " + now.version;
  byId("drain").replaceChildren(...[drained(now.drain)].filter(Boolean));
  const order = { bad: 0, wait: 1, good: 2 };
  const rank = (s) => order[stateOf(s, now.leaving)[0]];
  const all = [...now.services].sort((a, b) => rank(a) - rank(b));
  byId("services").replaceChildren(...all.map((s) => service(s, now.leaving)));
}
function connected(yes) {
  document.body.classList.toggle("cut", !yes);
  byId("link").className = "link " + (yes ? "good" : "bad");
  byId("link-words").textContent = yes ? "connected" : "no answer";
  if (!yes) { byId("headline").textContent = "register does not answer"; document.title = "register does not answer · " + HERE; }
}
async function look() {
  try {
    const answer = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.status);
    const now = await answer.json();
    connected(true);
    show(now);
  } catch (failed) {
    connected(false);
  }
  setTimeout(look, EVERY);
}
byId("name").textContent = HERE;
look();
