"use strict";
// What the pages of both daemons share. Values only ever become text: nothing here makes markup
// from them.
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
const plural = (n, one, many) => n + " " + (n === 1 ? one : many || one + "s");
function span(ms) {
  const sec = Math.max(0, Math.floor(ms / 1000));
  if (sec < 60) return sec + " s";
  if (sec < 3600) return Math.floor(sec / 60) + " min";
  if (sec < 86400) return Math.floor(sec / 3600) + " h " + Math.floor(sec % 3600 / 60) + " min";
  return plural(Math.floor(sec / 86400), "day") + " " + Math.floor(sec % 86400 / 3600) + " h";
}
function dot() { const d = h("span", "dot"); d.setAttribute("aria-hidden", "true"); return d; }
const tag = (severity, words) => h("span", "tag " + severity, dot(), words);
