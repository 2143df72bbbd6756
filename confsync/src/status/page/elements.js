"use strict";
// Elements, spans of time, commands. Values only ever become text: nothing here makes markup
// from them.
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
function add(parent, children) {
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return parent;
}
function h(tag, classes, ...children) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  return add(made, children);
}
function s(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return add(made, children);
}
const plural = (n, one, many) => n + " " + (n === 1 ? one : many || one + "s");
function span(ms) {
  const sec = Math.max(0, Math.floor(ms / 1000));
  if (sec < 60) return sec + " s";
  if (sec < 3600) return Math.floor(sec / 60) + " min";
  if (sec < 86400) return Math.floor(sec / 3600) + " h " + Math.floor(sec % 3600 / 60) + " min";
  return plural(Math.floor(sec / 86400), "day") + " " + Math.floor(sec % 86400 / 3600) + " h";
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
function dot() { const d = h("span", "dot"); d.setAttribute("aria-hidden", "true"); return d; }
const tag = (mood, words) => h("span", "tag " + mood, dot(), words);
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
// Drawn anew only when the data has changed; whoever is at a button stays there.
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
