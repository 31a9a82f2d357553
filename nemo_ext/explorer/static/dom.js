"use strict";
// Elements are made here and nowhere else, from text nodes: nothing that a model wrote is ever parsed as HTML.

const explorer = {};

explorer.make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};

explorer.count = (number) => number.toLocaleString("en-US");
explorer.percent = (share) => `${share === 1 || share === 0 ? 100 * share : (100 * share).toFixed(1)} %`;
explorer.plural = (number, word) => `${explorer.count(number)} ${word}${number === 1 ? "" : "s"}`;

// A verdict is a sign, a colour and a word, so that it can be told without seeing colours.
explorer.VERDICTS = new Map([
  [true, { sign: "✓", word: "right", kind: "right" }],
  [false, { sign: "✗", word: "wrong", kind: "wrong" }],
  [null, { sign: "?", word: "not graded", kind: "unknown" }],
]);
explorer.verdict = (value, name = "") => {
  const { sign, word, kind } = explorer.VERDICTS.get(value ?? null) ?? explorer.VERDICTS.get(null);
  const { make } = explorer;
  return make("span", { class: `verdict ${kind}` }, make("b", { "aria-hidden": "true" }, sign), ` ${name ? `${name}: ` : ""}${word}`);
};
explorer.mark = (value) => {
  const { sign, word, kind } = explorer.VERDICTS.get(value ?? null) ?? explorer.VERDICTS.get(null);
  return explorer.make("b", { class: `mark ${kind}`, role: "img", "aria-label": word, title: word }, sign);
};

explorer.notice = (message) => {
  const box = document.getElementById("notice");
  box.textContent = message;
  box.hidden = !message;
};
