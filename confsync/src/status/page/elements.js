// Elements, ages, commands.
const SVG = "http://www.w3.org/2000/svg";
function s(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return add(made, children);
}
const took = (ms) => ms < 1000 ? ms + " ms" : (ms / 1000).toFixed(ms < 10000 ? 1 : 0) + " s";
// Ages count on between events; the server's clock is the one that counts.
let skew = 0;
const now = () => Date.now() + skew;
// `until` counts down instead.
function age(at, words, until) {
  const made = document.createElement("time");
  made.dateTime = new Date(at).toISOString();
  made.title = new Date(at).toLocaleString();
  made.dataset.at = at;
  made.dataset.words = words;
  if (until) made.dataset.until = "";
  tick(made);
  return made;
}
function tick(made) {
  const ms = now() - made.dataset.at;
  made.textContent = made.dataset.words.replace("%", span("until" in made.dataset ? -ms : ms));
}
// A command for a terminal on the load balancer's machine.
function command(words, confdir) {
  const text = words + (!confdir || confdir === "/etc/confsync" ? "" : " --confdir " + quoted(confdir));
  const code = h("code", "", text), button = h("button", "", "Copy");
  button.type = "button";
  button.dataset.key = "copy " + text;
  button.addEventListener("click", () => copy(code, button));
  return h("div", "command", code, button);
}
const quoted = (text) => /^[\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'";
// Browsers give the clipboard to pages of localhost and of https alone; a selection works anywhere.
async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}
// Drawn anew only when the data has changed; the focus stays on a button.
const drawn = {};
function draw(id, data, make) {
  const text = JSON.stringify(data);
  if (drawn[id] === text) return;
  drawn[id] = text;
  const key = document.activeElement && document.activeElement.dataset.key;
  byId(id).replaceChildren(...[make()].flat().filter(Boolean));
  const same = key && [...document.querySelectorAll("[data-key]")].find((e) => e.dataset.key === key);
  if (same && document.activeElement !== same) same.focus({ preventScroll: true });
}
