// The whole page: the state of each reload group, drains, load balancers.
function stages(set) {
  const cell = (severity, name, words, more) => h("li", severity, h("span", "", dot(), name), h("b", "", words), h("small", "", more || "\u00a0"));
  const is = (digest) => digest === null ? (set.wanted ? "not known" : "nothing yet") : digest === set.wanted ? "in sync" : "the one before";
  const severity = (digest) => digest === null ? (set.wanted && !set.in_sync && set.trouble ? "bad" : "wait") : digest === set.wanted && !set.trouble ? "good" : "wait";
  const old = set.old_generations;
  return h("ol", "stages",
    cell(set.stale ? "wait" : "good", "etcd", set.revision ? "revision " + set.revision : "nothing read yet", set.stale ? "not watched" : "watched"),
    cell(set.installed === set.wanted && set.wanted ? "good" : "wait", "installed", set.installed ? is(set.installed) : "nothing yet", set.installed),
    cell(severity(set.live), "active", is(set.live), set.live),
    cell(old ? "wait" : "good", "old generations", old ? plural(old, "generation") : "none left", old ? "finishing requests" : null));
}
function picture(shown) {
  const most = Math.max(50, ...shown.map((l) => l.took_ms));
  const bad = shown.filter((l) => l.failed).length;
  const words = "The last " + plural(shown.length, "change") + ": " + (shown.length - bad) + " proven, " + bad +
    " failed; the slowest took " + took(Math.max(...shown.map((l) => l.took_ms))) + "; " + plural(shown.filter((l) => l.reload).length, "reload");
  const bars = shown.map((l, i) => {
    const high = Math.max(3, 54 * Math.sqrt(l.took_ms / most));
    const x = 720 - (shown.length - i) * 18 + 5;
    return s("rect", { x, y: 56 - high, width: 12, height: high, class: l.failed ? "no" : l.reload ? "ok reload" : "ok" },
      s("title", {}, took(l.took_ms) + (l.reload ? ", reload, " : ", ") + l.cause + (l.failed ? ", " + l.failed : "")));
  });
  return s("svg", { viewBox: "0 0 720 56", preserveAspectRatio: "none", role: "img", "aria-label": words }, bars);
}
function problem(set, doc) {
  const at = set.trouble_at;
  const note = h("div", "note");
  if (at) {
    const line = at.line ? [h("code", "", at.file), " line " + at.line + ", from "] : [];
    const from = [h("code", "", at.template), at.template_line ? " line " + at.template_line : ""];
    add(note, [h("p", "", h("b", "", at.resource), " is not applied: ", line, from)]);
  }
  add(note, [h("p", "reason", set.trouble)]);
  // A confsync that has just read the files again has applied nothing yet; its last proven change counts.
  const proven = set.loads.findLast((l) => !l.failed), revision = set.applied || (proven && proven.revision);
  const served = set.live ? "Served instead: the previous configuration" + (revision ? ", of revision " + revision : "") + ". It is tried again at the next change." :
    "Nothing of this group is proven to be served.";
  add(note, [h("p", "", served)]);
  const names = at ? [at.resource] : set.resources.length === 1 ? [set.resources[0].name] : [];
  return add(note, names.map((name) => command("confsync render " + quoted(name), doc.confdir)));
}
function retained(set) {
  const named = set.resources.map((r) => [r.name, r.services.filter((s) => s.retained)]).filter(([, list]) => list.length);
  const note = ([name, list]) => h("div", "note",
    h("p", "", list.map((s) => plural(s.retained, "backend") + " of " + s.service).join(", ") + (list.length === 1 && list[0].retained === 1 ? " is" : " are") +
      " retained: absent from etcd, and still accepting connections. Look at etcd and at the sidekicks. If the loss is meant:"),
    command("confsync accept " + quoted(name)));
  return named.map(note);
}
function change(l) {
  const kind = l.failed ? tag("bad", "failed") : l.reload ? tag("", "reload") : null;
  return h("li", "", h("span", "at", age(l.at, "% ago")),
    h("span", "what", l.cause, h("span", "soft", " · revision " + l.revision), l.failed ? h("small", "", l.failed) : null),
    h("span", "when", kind, kind ? " " : null, took(l.took_ms)));
}
// The driver that changes backends. The reason is shown only where a template could use another one.
function driver(set) {
  if (set.driver !== "reload") return h("p", "soft driver", "Backends change without a reload (" + set.driver + "): " + set.member_changes_total + " so far." + (set.driver_reason ? " But " + set.driver_reason + "." : ""));
  return set.driver_reason ? h("p", "soft driver", "Every change of backends needs a reload: " + set.driver_reason + ".") : null;
}
function one(set, doc, many) {
  const severity = severityOf(set);
  const card = h("section", "", h("div", "top", h("h2", "", set.name), tag(severity[0], severity[1])), stages(set));
  card.setAttribute("aria-label", set.name);
  if (set.trouble) add(card, [problem(set, doc)]);
  if (set.stale) add(card, [h("p", "note wait", "etcd is not watched: " + set.stale + ". What is active stays active.")]);
  add(card, retained(set));
  if (set.refused.length) {
    const rejection = (r) => h("li", "", h("span", "", tag("bad", "rejected")), h("span", "what", h("b", "", r.key), h("small", "", (set.resources.length > 1 ? r.resources.join(", ") + ": " : "") + r.why)), h("span", ""));
    add(card, [h("h3", "", plural(set.refused.length, "value") + " rejected"), h("ul", "rows", set.refused.map(rejection))]);
  }
  add(card, [h("h3", "", "Services"), services(set, many)]);
  const shown = set.loads.slice(-40), slowest = Math.max(...shown.map((l) => l.took_ms));
  add(card, [h("h3", "", "Changes", shown.length ? h("span", "", " · newest on the right, the slowest took " + took(slowest)) : null)]);
  if (shown.length) add(card, [picture(shown), h("ol", "rows times", shown.slice(-5).reverse().map(change))]);
  else add(card, [h("p", "empty", "None yet.")]);
  add(card, [driver(set)]);
  return add(card, [h("p", "soft files", "Writes ", set.files.map((f, i) => [i ? ", " : "", h("code", "", f)]), ".")]);
}
function severityOf(set) {
  if (set.trouble) return ["bad", set.live ? "a change is not applied" : "not known to be active"];
  if (!set.live && !set.wanted) return ["wait", "waiting"];
  if (set.stale) return ["wait", "etcd not watched"];
  if (set.backends.some((b) => b.held)) return ["bad", "retaining"];
  if (!set.in_sync) return ["wait", "applying"];
  return set.refused.length ? ["wait", "in sync, values rejected"] : ["good", "in sync"];
}
const DAY = 24 * 3600 * 1000;
function headline(doc) {
  const sets = doc.sets, backends = sets.flatMap((set) => set.backends);
  const wanted = backends.filter((b) => !b.leaving).length, rotating = backends.filter((b) => b.live).length;
  const any = (test) => sets.some(test), inRotation = plural(rotating, "backend") + " in rotation";
  if (doc.stopping) return ["wait", "Stopping", "This load balancer is being taken down."];
  if (doc.stuck.length) return ["bad", "Stuck", doc.stuck.join(", ") + " does not answer. Restart this process."];
  if (!sets.length) return ["wait", "Waiting for etcd", doc.words[0].toUpperCase() + doc.words.slice(1) + "."];
  if (any((set) => set.trouble && !set.live)) return ["bad", "Nothing is known to be active", "The proxy does not run, or did not load its files. It is retried until it does."];
  if (any((set) => set.trouble)) return ["bad", "The newest change is not applied", "The previous configuration is served, with " + inRotation + "."];
  if (any((set) => !set.live && !set.wanted)) return ["wait", "Waiting for the first keys", doc.words];
  if (any((set) => set.stale)) return ["wait", "Serving what was known last", "etcd cannot be watched just now. " + inRotation + ", as last seen."];
  const held = backends.filter((b) => b.held).length;
  if (held) return ["bad", plural(held, "backend") + " retained", (held === 1 ? "Its key is" : "Their keys are") + " absent from etcd, and it is not certain that " + (held === 1 ? "it is" : "they are") + " gone."];
  if (any((set) => !set.in_sync)) return ["wait", "Applying a change", inRotation + ", " + wanted + " wanted."];
  // As long as its alert lasts: a service that is gone for good is no news after a day.
  const emptied = sets.flatMap((set) => set.resources).flatMap((r) => r.services)
    .filter((s) => !s.in_rotation && s.emptied && doc.now - s.emptied < DAY).map((s) => s.service);
  const none = emptied.length ? " No backend of " + emptied.join(", ") + " is in rotation." : "";
  const join = doc.joined ? "" : " This load balancer is not registered in etcd, so backends that deregister do not wait for it.";
  const rejected = sets.reduce((n, set) => n + set.refused.length, 0);
  const but = rejected ? " " + plural(rejected, "value") + " in etcd " + (rejected === 1 ? "is" : "are") + " rejected." : "";
  const unused = backends.filter((b) => b.unused).length;
  const left = unused ? " " + plural(unused, "backend") + (unused === 1 ? " is" : " are") + " not used: no template writes " + (unused === 1 ? "its" : "their") + " address." : "";
  const byKeys = sets.flatMap((set) => set.resources).filter((r) => r.counted_by_keys).map((r) => r.file);
  const byKey = byKeys.length ? " Counted by their keys: " + byKeys.join(", ") + " has none of the backends' addresses, so it is unknown which of them it uses." : "";
  const about = any((set) => set.resources.some((r) => r.services.length));
  if (!wanted && about) return ["wait", "No backends", "None is registered, so clients get an error and may retry later." + but + join];
  return [join || but || none ? "wait" : "good", about ? inRotation : "In sync", "Everything in etcd is applied." + none + left + byKey + but + join];
}
// What is read from etcd ages while etcd is away; what this process knows does not.
const asSeen = (doc) => doc.sets.some((set) => set.stale) ? " · as last seen in etcd" : "";
function drains(doc) {
  const waits = doc.sets.flatMap((set) => set.traffic.filter((t) => t.leaving));
  if (!(doc.draining || []).length && !waits.length) return null;
  const wait = (t) => h("li", "", h("span", "", tag("wait", "waiting")), h("span", "what", h("b", "", t.addr), " of " + t.pool),
    h("span", "when", t.in_flight === null ? "requests are not counted" : plural(t.in_flight, "request") + " here"));
  const old = (doc.load_balancers || []).filter((b) => b.mood !== "good").map((b) => b.lb + " (" + b.resource + "): " + b.words);
  const drain = (d) => {
    const [id, name] = d.key.split("/").reverse();
    const until = d.until ? [" · ", age(d.until, "at most % more", true)] : null;
    return h("li", "", h("span", "", tag("wait", "draining")), h("span", "what", h("b", "", id), " of " + name, h("small", "", d.key)),
      h("span", "when", d.since ? age(d.since, "for %") : null, until));
  };
  const made = h("section", "", h("div", "top", h("h2", "", "Drains"), h("span", "soft", (old.length ? old.join(", ") : doc.load_balancers ? "no load balancer has old requests left" : "") + asSeen(doc))),
    h("ul", "rows", (doc.draining || []).map(drain)), waits.length ? h("ul", "rows", waits.map(wait)) : null);
  made.setAttribute("aria-label", "Drains");
  return made;
}
function others(doc) {
  const name = (b) => {
    if (!b.page || b.lb === doc.name) return h("b", "", b.lb);
    const link = h("a", "", h("b", "", b.lb));
    link.href = b.page;
    return link;
  };
  const row = (b) => h("li", "", h("span", "", tag(b.mood, { good: "applied", wait: "waiting", bad: "trouble" }[b.mood])),
    h("span", "what", name(b), b.lb === doc.name ? " (this one)" : "", h("small", "", b.resource + " on " + b.host + (b.driver && b.driver !== "reload" ? " · " + b.driver : "") + " · " + b.words)),
    h("span", "when", b.applied === null ? "nothing yet" : "revision " + b.applied));
  const list = doc.load_balancers;
  return h("section", "", h("div", "top", h("h2", "", "Load balancers"), h("span", "soft", "and the last revision that each applied" + (list ? asSeen(doc) : ""))),
    !list ? h("p", "empty", "Not known: etcd does not answer, or this page is not connected.") :
    list.length ? h("ul", "rows", list.map(row)) : h("p", "empty", "None is registered in etcd."));
}
// Distinguished by form as well as by colour.
function icon(severity) {
  const [colour, form] = { good: ["#1a7440", "M4.5 8.3l2.4 2.4 4.6-5"], wait: ["#a86a00", "M8 4.5v4l2.5 1.5"], bad: ["#c62b22", "M8 4v5M8 11.2v.6"] }[severity] || ["#6a7178", "M4.5 8h7"];
  const text = "<svg xmlns='" + SVG + "' viewBox='0 0 16 16'><circle cx='8' cy='8' r='8' fill='" + colour + "'/><path d='" + form +
    "' fill='none' stroke='white' stroke-width='2' stroke-linecap='round' stroke-linejoin='round'/></svg>";
  document.querySelector("link[rel=icon]").href = "data:image/svg+xml," + encodeURIComponent(text);
}
const say = (id, text) => { if (byId(id).textContent !== text) byId(id).textContent = text; };
let shown = null;
function show(doc) {
  shown = doc;
  skew = doc.now - Date.now();
  // What etcd has is applied: a backend that is not in rotation then is not waiting for anything.
  for (const set of doc.sets) for (const b of set.backends) b.unused = set.in_sync && !b.live && !b.held && !b.leaving;
  const [severity, words, detail] = headline(doc);
  say("name", doc.name);
  byId("hero").className = "hero " + severity;
  say("headline", words);
  say("detail", detail);
  icon(severity);
  document.title = words + " · " + doc.name;
  byId("about").replaceChildren("confsync " + doc.version + ", ", age(doc.started, "up for %"));
  redraw();
}
function redraw() {
  const doc = shown;
  if (!doc) return;
  const total = doc.sets.reduce((n, set) => n + set.backends.length, 0), many = total > MANY;
  byId("filter").hidden = !total && !filtered();
  draw("states", [filter.state, doc.sets.map((set) => set.backends)], () => stateButtons(doc));
  draw("drains", [asSeen(doc), doc.draining, doc.load_balancers, doc.sets.map((set) => set.traffic)], () => drains(doc));
  draw("sets", [filter, [...all], doc.sets], () => doc.sets.map((set) => one(set, doc, many)));
  draw("others", [asSeen(doc), doc.load_balancers, doc.sets.length], () => doc.sets.length ? others(doc) : null);
}
