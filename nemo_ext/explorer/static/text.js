"use strict";
// Text of problems and generations: paragraphs, code blocks and math. Broken math is shown as it was written.

explorer.text = (() => {
  const { make } = explorer;
  const MAX_TEX = 4000;
  const UNTRUSTED = /\\(?:href|url|includegraphics|html[A-Z]\w+)(?![A-Za-z])/; // KaTeX would show a part of what was written
  const ENVIRONMENTS = "equation|align|alignat|gather|multline|eqnarray|split|cases|array|[pbvBV]?matrix";
  const START = new RegExp(
    String.raw`\x60{3}|<llm-code(?:-output)?>|\[asy\]|\\\[|\\\(|\\begin\{(?:${ENVIRONMENTS})\*?\}|\\f?boxed\s*\{|\\\$|\$\$?|\x60|\*\*`, "g");
  const CODE = /```([\w+-]{0,40})[^\n]{0,200}\n([\s\S]*?)(?:\n?```|$)/y;
  const TAGGED = /(<llm-code(-output)?>|\[asy\])\n?([\s\S]*?)(?:<\/llm-code(?:-output)?>|\[\/asy\]|$)/y;
  // As pandoc reads it: dollars in prose, as in "$5 and $6", are not math.
  const INLINE = /\$(?![\s$])((?:\\[\s\S]|[^$\\\n]|\n(?!\s*\n))+?)\$(?!\d)/y;
  const SPAN = /`([^`\n]{1,400})`/y;
  const BOLD = /\*\*(?=\S)([^*\n]{1,300}?\S)\*\*/y;

  const match = (pattern, text, at) => { pattern.lastIndex = at; return pattern.exec(text); };

  /** End of the group whose "{" is at `open`, or -1. */
  function closing(text, open) {
    let depth = 0;
    for (let index = open; index < Math.min(text.length, open + MAX_TEX); index++) {
      if (text[index] === "\\") index++;
      else if (text[index] === "{") depth++;
      else if (text[index] === "}" && --depth === 0) return index;
    }
    return -1;
  }

  /** What begins at `at` with `token`: {kind, body, end, ...}, or null when it is plain text after all. */
  function special(text, at, token, missing) {
    const until = (end) => {
      if (missing.has(end)) return -1;
      const found = text.indexOf(end, at + token.length);
      if (found < 0) missing.add(end); // nor will there be one further on
      return found;
    };
    const math = (end, display) => {
      const found = until(end);
      return found < 0 ? null : { kind: "math", display, body: text.slice(at + token.length, found), end: found + end.length };
    };
    if (token === "```") {
      const found = match(CODE, text, at);
      return found && { kind: "code", language: found[1], body: found[2], end: CODE.lastIndex };
    }
    if (token.startsWith("<llm") || token === "[asy]") {
      const found = match(TAGGED, text, at);
      return found && { kind: "code", language: found[1] === "[asy]" ? "asy" : found[2] ? "output" : "python", body: found[3], end: TAGGED.lastIndex };
    }
    if (token === "\\[") return math("\\]", true);
    if (token === "\\(") return math("\\)", false);
    if (token === "$$") return math("$$", true);
    if (token.startsWith("\\begin")) {
      const end = `\\end${token.slice(6)}`;
      const found = until(end);
      return found < 0 ? null : { kind: "math", display: true, body: text.slice(at, found + end.length), end: found + end.length };
    }
    if (token.endsWith("{")) {
      const end = closing(text, at + token.length - 1);
      return end < 0 ? null : { kind: "math", display: false, body: text.slice(at, end + 1), end: end + 1 };
    }
    if (token === "\\$") return { kind: "plain", body: "$", end: at + 2 };
    const [pattern, kind] = token === "$" ? [INLINE, "math"] : token === "`" ? [SPAN, "span"] : [BOLD, "bold"];
    const found = match(pattern, text, at);
    if (!found || (kind === "math" && /\s$/.test(found[1]))) return null;
    return { kind, display: false, body: found[1], end: pattern.lastIndex };
  }

  /** The text cut into {kind: plain | math | code | span | bold, body}. Linear in its length. */
  function segments(text) {
    const found = [];
    const missing = new Set();
    let from = 0;
    START.lastIndex = 0;
    for (let start = START.exec(text); start; start = START.exec(text)) {
      const at = start.index;
      const piece = special(text, at, start[0], missing);
      if (!piece) { START.lastIndex = at + (start[0] === "$$" ? 2 : 1); continue; }
      if (at > from) found.push({ kind: "plain", body: text.slice(from, at) });
      found.push({ ...piece, source: text.slice(at, piece.end) });
      from = START.lastIndex = piece.end;
    }
    if (from < text.length) found.push({ kind: "plain", body: text.slice(from) });
    return found;
  }

  let katex = null;
  const waiting = new Set();

  function typeset(element) {
    if (element.dataset.set) return;
    element.dataset.set = "yes";
    const { tex, display } = element.dataset;
    if (tex.length > MAX_TEX) return;
    const scratch = make("span");
    try {
      if (UNTRUSTED.test(tex)) throw new Error("links, images and HTML are not set");
      katex.render(tex, scratch, { displayMode: display === "yes", throwOnError: true, strict: "ignore", trust: false, maxSize: 20, maxExpand: 500 });
      element.replaceChildren(...scratch.childNodes);
    } catch (error) {
      element.classList.add("broken");
      element.title = String(error.message ?? error);
    }
  }

  function math(tex, display, source) {
    const element = make("span", { class: display ? "math display" : "math", "data-tex": tex, "data-display": display ? "yes" : "no" }, source);
    if (katex) typeset(element);
    else waiting.add(element);
    return element;
  }

  /** KaTeX is loaded when the list is on the screen: what is shown until then is the source. */
  async function loadKatex() {
    document.head.append(make("link", { rel: "stylesheet", href: "parts/page/katex.css" }));
    await explorer.store.script("parts/page/katex.min.js");
    katex = window.katex;
    for (const element of waiting) if (element.isConnected) typeset(element);
    waiting.clear();
  }

  function node(piece) {
    if (piece.kind === "math") return math(piece.body, piece.display, piece.source);
    if (piece.kind === "code") return make("pre", { class: `code ${piece.language === "output" ? "output" : ""}`, "data-language": piece.language, tabindex: "0" }, piece.body);
    if (piece.kind === "span") return make("code", {}, piece.body);
    if (piece.kind === "bold") return make("strong", {}, rich(piece.body));
    return document.createTextNode(piece.body);
  }

  /** Nodes for a text. */
  function rich(text) {
    const pieces = segments(String(text));
    const afterBlock = (at) => at > 0 && (pieces[at - 1].kind === "code" || pieces[at - 1].display);
    return pieces.map((piece, at) => node(piece.kind === "plain" && afterBlock(at) ? { ...piece, body: piece.body.replace(/^\n/, "") } : piece));
  }
  /** The same on one line, for lists: math inline, no blocks. */
  const inline = (text) => segments(String(text).slice(0, 600)).map((piece) =>
    piece.kind === "math" ? (piece.display ? [" ", math(piece.body, false, piece.source), " "] : math(piece.body, false, piece.source)) : document.createTextNode(piece.kind === "code" ? " " : piece.body));
  /** An answer: LaTeX as a rule, without delimiters. */
  function answer(text) {
    if (text === null || text === undefined) return make("span", { class: "none" }, "no answer");
    const plain = String(text);
    if (/^[\d\s.,\-+/%]*$/.test(plain) || !/[\\^_{}=<>]|^\(?-?[a-z]\)?$/.test(plain)) return make("span", {}, plain.replaceAll("\\$", "$"));
    return /(^|[^\\])\$/.test(plain) ? make("span", {}, rich(plain)) : math(plain, false, plain);
  }

  return { segments, rich, inline, answer, loadKatex };
})();
