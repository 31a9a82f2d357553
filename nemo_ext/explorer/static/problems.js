"use strict";
// The list of problems with its filters; the open problem beside it.

explorer.problems = (() => {
  const { make, count, filters, state } = explorer;
  const HEIGHT = 46;
  const FIELDS = ["benchmark", "id", "text", "expected", "level", "subject", "source", "occurrence"];
  const STATISTICS = ["n", "correct", "answer", "votes", "right", "none", "cut", "disagree", "tokens", "first", "last"];
  const ANY = "";
  let catalog, all = [], listed = [], byKey = new Map(), list, parts, loaded = 0;

  function read(row, number) {
    const problem = Object.fromEntries(FIELDS.map((name, place) => [name, row[place]]));
    problem.number = number;
    problem.key = `${problem.benchmark}/${problem.id}${problem.occurrence ? `~${problem.occurrence}` : ""}`;
    problem.models = row.slice(FIELDS.length).map((values) => values && statistics(values));
    const answers = problem.models.map((each) => each?.answer ?? "");
    problem.searched = [problem.key, problem.text, problem.expected, problem.subject, ...answers].join("\n").toLowerCase();
    return problem;
  }

  function statistics(values) {
    const read = Object.fromEntries(STATISTICS.map((name, place) => [name, values[place]]));
    return { ...read, accuracy: read.n ? read.correct / read.n : 0, share: read.n ? read.votes / read.n : 0 };
  }

  async function load(given) {
    catalog = given;
    for await (const rows of explorer.store.entries("problems/index", 0, catalog.index - 1)) {
      for (const row of rows) {
        const problem = read(row, all.length);
        all.push(problem);
        byKey.set(problem.key, problem);
      }
      loaded++;
      if (parts && explorer.view === "problems") { fillChoices(); show(state.read()); }
    }
  }

  const modelOf = (shown) => catalog.models.findIndex((each) => each.label === shown.model);

  // controls

  function select(name, label, values, words = {}) {
    const options = values.map((value) => make("option", { value }, words[value] ?? value));
    return make("label", { class: "field" }, make("span", {}, label),
      make("select", { name, onchange: (event) => state.change({ [name]: event.target.value }) }, options));
  }

  function search() {
    let timer;
    const later = (event) => { clearTimeout(timer); timer = setTimeout(() => state.change({ q: event.target.value }), 120); };
    return make("label", { class: "field search" }, make("span", {}, "Search"),
      make("input", { type: "search", name: "q", placeholder: "problem, id, answer…  /", autocomplete: "off", spellcheck: "false", oninput: later }));
  }

  function inSamples() {
    const title = "The search looks at problems, ids and answers. This looks through the text of every sample, too, which reads all parts of the page";
    return make("button", { type: "button", class: "chip", "data-deep": "", title, "aria-pressed": "false", onclick: () => state.change({ deep: state.read().deep ? "" : "1" }) }, "in the samples, too");
  }

  function chips() {
    const toggle = (name) => {
      const on = new Set(filters.flagsOf(state.read()));
      if (!on.delete(name)) on.add(name);
      state.change({ flags: [...on].join(",") });
    };
    return Object.entries(filters.FLAGS)
      .filter(([name]) => name !== "differ" || catalog.models.length > 1)
      .map(([name, [words, title]]) => make("button", { type: "button", class: "chip", "data-flag": name, title, "aria-pressed": "false", onclick: () => toggle(name) }, words, make("b", {})));
  }

  function fillChoices() {
    const found = filters.choices(all);
    const made = Object.entries(found).map(([facet, values]) => select(facet, facet[0].toUpperCase() + facet.slice(1), [ANY, ...values], { [ANY]: "all" }));
    const models = catalog.models.map((each) => each.label);
    if (models.length > 1) made.push(select("model", "Model", [ANY, ...models], { [ANY]: "any" }));
    made.push(select("sort", "Sort", Object.keys(filters.SORTS), filters.SORTS));
    const down = make("button", { type: "button", class: "direction", title: "Turn the order around", "aria-label": "Turn the order around", onclick: () => state.change({ dir: state.read().dir === "down" ? "" : "down" }) }, "↑");
    parts.choices.replaceChildren(...made, down);
  }

  function build(main) {
    list = new explorer.List({ label: "Problems", height: HEIGHT, draw: row, open: (problem) => open(problem) });
    parts = {
      choices: make("div", { class: "choices" }), total: make("output", { class: "total", "aria-live": "polite" }),
      heads: make("div", { class: "heads" }), detail: make("article", { class: "detail", tabindex: "-1", "aria-label": "Problem" }),
    };
    const bar = make("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
      make("div", { class: "line" }, search(), parts.deep = inSamples(), parts.choices, parts.total), make("div", { class: "line chips", role: "group", "aria-label": "Only problems with" }, chips()));
    parts.split = make("div", { class: "split" }, make("section", { class: "pane" }, parts.heads, list.element), parts.detail);
    parts.root = make("div", { class: "view problems" }, explorer.contracts(catalog), bar, parts.split);
    main.replaceChildren(parts.root);
    fillChoices();
  }

  // the list

  function heads(shown) {
    const sorting = (words, title, changes) => {
      const on = Object.entries(changes).every(([key, value]) => (shown[key] ?? "") === value);
      const arrow = on ? (shown.dir === "down" ? " ↓" : " ↑") : "";
      const turned = on && shown.dir !== "down" ? "down" : "";
      return make("button", { type: "button", title, "aria-pressed": String(on), onclick: () => state.change({ ...changes, dir: turned }) }, words, arrow);
    };
    const models = stripped(shown) ? [make("span", {}, "Models")] : columns(shown).map((each) => {
      const { label } = catalog.models[each];
      return sorting(label, `Sort by the accuracy of ${label}`, { sort: "accuracy", model: catalog.models.length > 1 ? label : "" });
    });
    parts.heads.replaceChildren(sorting("Problem", "Sort by id", { sort: "id" }), make("span", { class: "text" }), make("span", { class: "expected" }, "Expected"), ...models);
  }

  /** With a problem open there is room for one model. */
  function columns(shown) {
    const model = modelOf(shown);
    if (model >= 0) return [model];
    const every = catalog.models.map((_, place) => place);
    if (!shown.open) return every;
    const who = catalog.models.findIndex((each) => each.label === shown.who);
    return [Math.max(0, who)];
  }

  function row(problem) {
    const about = [problem.level && `L${problem.level}`.replace(/^L(?=\D)/, ""), problem.benchmark, problem.subject].filter(Boolean);
    return [
      make("span", { class: "name" }, make("b", {}, problem.id), make("small", {}, about.join(" · "))),
      make("span", { class: "text" }, explorer.text.inline(problem.text)),
      make("span", { class: "expected" }, explorer.text.answer(problem.expected)),
      stripped(state.read()) ? strip(problem) : columns(state.read()).map((place) => cell(problem.models[place])),
    ];
  }

  /** Beside an open problem, many models that gave one answer each are a strip of signs. */
  const stripped = (shown) => shown.open && catalog.models.length > 1 && modelOf(shown) < 0 && (!shown.who || shown.who === "*") && all.every((each) => each.models.every((model) => !model || model.n === 1));

  function strip(problem) {
    const there = problem.models.map((each, place) => [each, catalog.models[place].label]).filter(([each]) => each);
    const signs = there.map(([each, label]) => {
      const { sign, word, kind } = explorer.VERDICTS.get(each.correct > 0);
      return make("i", { class: kind, title: `${label}: ${word}` }, sign);
    });
    const right = there.filter(([each]) => each.correct > 0).length;
    return make("span", { class: "cell" }, make("b", {}, `${right} of ${there.length} right`), make("span", { class: "strip", "aria-hidden": "true" }, signs));
  }

  function cell(each) {
    if (!each) return make("span", { class: "cell absent" }, "–");
    const signs = [each.cut && ["✂", explorer.plural(each.cut, "sample") + " truncated"], each.disagree && ["≠", `graders disagree on ${explorer.plural(each.disagree, "sample")}`]];
    const flags = signs.filter(Boolean).map(([sign, title]) => make("i", { role: "img", "aria-label": title, title }, sign));
    const answer = make("span", { class: "answer" }, explorer.mark(each.answer === null ? false : each.right), explorer.text.answer(each.answer));
    if (each.n === 1) return make("span", { class: "cell" }, answer, make("small", {}, flags));
    const bar = make("span", { class: "bar", style: { "--share": each.accuracy } });
    return make("span", { class: "cell", title: `${each.correct} of ${each.n} right; ${each.votes} votes for ${each.answer ?? "nothing"}` },
      make("span", { class: "score" }, bar, make("b", {}, explorer.percent(each.accuracy).replace(".0 %", " %")), flags), answer);
  }

  function show(shown) {
    if (!parts?.root.isConnected) build(document.getElementById("main"));
    const words = filters.wordsOf(shown);
    const deep = shown.deep && words.length && loaded >= catalog.index ? explorer.deep.find(words, all, catalog.models, () => show(state.read())) : null;
    if (!deep) explorer.deep.stop();
    const { listed: found, counts } = filters.apply(all, shown, modelOf(shown), deep?.found);
    listed = found;
    parts.deep.hidden = !words.length;
    parts.deep.setAttribute("aria-pressed", String(Boolean(shown.deep)));
    for (const control of parts.root.querySelectorAll("select, input")) {
      const value = shown[control.name] ?? (control.name === "sort" ? "order" : "");
      if (control.value !== value && control !== document.activeElement) control.value = value;
      if (control.tagName === "SELECT") control.value = value;
    }
    for (const chip of parts.root.querySelectorAll("[data-flag]")) {
      const name = chip.dataset.flag;
      chip.setAttribute("aria-pressed", String(filters.flagsOf(shown).includes(name)));
      chip.lastChild.textContent = count(counts[name]);
      chip.disabled = counts[name] === 0 && !filters.flagsOf(shown).includes(name);
    }
    parts.root.querySelector(".direction").textContent = shown.dir === "down" ? "↓" : "↑";
    const all_of = count(catalog.problems);
    const reading = deep && deep.done < deep.of ? ` · reading samples, part ${count(deep.done)} of ${count(deep.of)}` : "";
    parts.total.textContent = (listed.length === catalog.problems ? explorer.plural(listed.length, "problem") : `${count(listed.length)} of ${all_of} problems`) + reading;
    showOpen(shown);
  }

  function showOpen(shown) {
    const problem = shown.open ? byKey.get(shown.open) : undefined;
    parts.split.classList.toggle("opened", Boolean(shown.open));
    parts.split.style.setProperty("--models", columns(shown).length);
    heads(shown);
    const at = problem ? listed.indexOf(problem) : Math.min(list.at, listed.length - 1);
    list.show(listed, at);
    if (problem && at >= 0) list.select(at);
    if (!listed.length) list.rows.replaceChildren(make("p", { class: "empty" }, loaded < catalog.index ? "Loading…" : "No problem is like that."));
    if (!shown.open) { parts.detail.hidden = true; explorer.problem.close(); return; }
    parts.detail.hidden = false;
    if (problem) explorer.problem.show(parts.detail, catalog, problem, shown, { at, of: listed.length, move });
    else parts.detail.replaceChildren(make("p", { class: "empty" }, loaded < catalog.index ? "Loading…" : `There is no problem ${shown.open}.`));
  }

  function open(problem) {
    const opened = Boolean(state.read().open);
    state.change({ open: problem.key, only: "" }, !opened);
    if (matchMedia("(max-width: 900px)").matches) parts.detail.focus();
  }

  function move(by) {
    if (!listed.length) return;
    if (state.read().open) list.choose(list.at < 0 ? 0 : Math.max(0, Math.min(listed.length - 1, list.at + by)));
    else list.select(list.at < 0 ? (by > 0 ? 0 : listed.length - 1) : list.at + by);
  }

  const choose = () => { if (list.at >= 0) list.choose(list.at); };
  const close = () => { if (state.read().open) { state.change({ open: "", only: "", who: "" }); list.element.focus(); return true; } return false; };
  const print = () => list.render(true);

  return { load, show, move, choose, close, print, name: "problems" };
})();
