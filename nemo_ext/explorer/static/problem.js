"use strict";
// One problem: its statement, what each model's votes say, and the samples of one model or all.

explorer.problem = (() => {
  const { make, state, text, percent } = explorer;
  const FIELD_LABELS = { solution: "Reference solution", reference_solution: "Reference solution" };
  let shownKey = null;

  async function show(pane, catalog, problem, shown, place) {
    const who = chosen(catalog, problem, shown);
    const key = JSON.stringify([problem.key, who, place.at, place.of]);
    if (key === shownKey) { explorer.samples.filter(shown.only ?? ""); return; }
    const another = shownKey === null || JSON.parse(shownKey)[0] !== problem.key;
    shownKey = key;
    const votes = make("div", { class: "votes" });
    const fields = make("div", { class: "fields" });
    const samples = make("section", { class: "samples", "aria-label": "Samples" }, make("p", { class: "waiting" }, "Loading…"));
    pane.replaceChildren(head(problem, place), statement(problem), fields, cards(catalog, problem, who), votes, samples);
    if (another) pane.scrollTop = 0;
    const models = who === -1 ? problem.models.map((_, number) => number).filter((number) => problem.models[number]) : [who];
    try {
      const read = await Promise.all(models.map((number) => load(number, problem)));
      if (key !== shownKey) return;
      const shared = Object.assign({}, ...read.map((each) => each.shared));
      if (shared.problem) pane.querySelector(".statement").replaceChildren(...text.rich(shared.problem));
      fields.replaceChildren(...more(shared));
      votes.replaceChildren(...models.map((number, index) => ballot(catalog, number, read[index].samples, models.length > 1)));
      explorer.samples.show(samples, models.map((number, index) => ({ model: catalog.models[number], samples: read[index].samples })), shown.only ?? "");
    } catch (error) {
      if (key === shownKey) samples.replaceChildren(make("p", { class: "empty" }, error.message));
    }
  }

  /** The model whose samples are shown; -1: all, as is best where each has one. */
  function chosen(catalog, problem, shown) {
    if (shown.who === "*") return -1;
    const named = catalog.models.findIndex((each) => each.label === (shown.who || shown.model));
    if (named >= 0 && problem.models[named]) return named;
    const present = problem.models.filter(Boolean);
    return present.length > 1 && present.every((each) => each.n === 1) ? -1 : problem.models.findIndex(Boolean);
  }

  async function load(model, problem) {
    const { first, last } = problem.models[model];
    const found = { shared: {}, samples: [] };
    for await (const entries of explorer.store.entries(`problems/${model}`, first, last)) {
      for (const [number, entry] of entries) {
        if (number !== problem.number) continue;
        if (Array.isArray(entry)) found.samples.push(explorer.samples.read(entry));
        else Object.assign(found.shared, entry);
      }
    }
    return found;
  }

  function head(problem, { at, of, move }) {
    const step = (by, sign, label) => make("button", { type: "button", class: "quiet", title: label, "aria-label": label, onclick: () => move(by) }, sign);
    const about = [problem.level && `level ${problem.level}`.replace(/^level (?=[A-Za-z])/, ""), problem.subject, problem.source].filter(Boolean);
    return make("div", { class: "detail-head" },
      make("h2", {}, make("span", { class: "soft" }, `${problem.benchmark} `), problem.id),
      make("span", { class: "soft" }, about.join(" · ")),
      make("span", { class: "steps" }, make("span", { class: "soft" }, at < 0 ? "not in the list" : `${explorer.count(at + 1)} of ${explorer.count(of)}`),
        step(-1, "↑", "Previous (k)"), step(1, "↓", "Next (j)"),
        make("button", { type: "button", class: "quiet", title: "Close (Esc)", "aria-label": "Close", onclick: () => explorer.problems.close() }, "✕")));
  }

  function statement(problem) {
    return make("section", { class: "question" }, make("div", { class: "statement prose" }, text.rich(problem.text)),
      make("p", { class: "expects" }, make("span", { class: "soft" }, "Expected "), make("span", { class: "big" }, text.answer(problem.expected))));
  }

  function more(shared) {
    const entries = Object.entries(shared).filter(([key, value]) => key !== "problem" && value !== null);
    const short = entries.filter(([key, value]) => typeof value !== "object" && String(value).length <= 60 && !(key in FIELD_LABELS));
    const facts = make("p", { class: "facts" }, short.map(([key, value]) => make("span", {}, `${key.replaceAll("_", " ")} `, make("b", {}, String(value)))));
    return [short.length > 0 && facts, ...entries.filter((entry) => !short.includes(entry)).map(([key, value]) => make("details", {}, make("summary", {}, FIELD_LABELS[key] ?? key.replaceAll("_", " ")),
        typeof value === "string" ? make("div", { class: "prose" }, text.rich(value)) : make("pre", { class: "code" }, JSON.stringify(value, null, 2))))].filter(Boolean);
  }

  function cards(catalog, problem, who) {
    const present = problem.models.map((each, number) => [each, number]).filter(([each]) => each);
    const card = ([each, number]) => make("button", { type: "button", class: "card", "aria-pressed": String(who === number), onclick: () => state.change({ who: catalog.models[number].label, only: "" }) },
      make("span", { class: "label" }, catalog.models[number].label),
      make("span", { class: "answer" }, explorer.mark(each.answer === null ? false : each.right), text.answer(each.answer)),
      each.n > 1 && make("span", { class: "bar", style: { "--share": each.accuracy } }),
      make("small", {}, each.n > 1 ? `${each.correct} of ${each.n} right · ${each.votes} votes` : `${each.tokens ?? "?"} tokens`));
    const all = present.length > 1 && make("button", { type: "button", class: "card all", "aria-pressed": String(who === -1), onclick: () => state.change({ who: "*", only: "" }) }, make("span", { class: "label" }, "All"), make("small", {}, `${present.length} models`));
    return make("div", { class: "cards", role: "group", "aria-label": "Models" }, all, present.map(card));
  }

  /** What was answered how often, as bars; a click shows those samples alone. */
  function ballot(catalog, number, samples, titled) {
    if (samples.length < 2) return "";
    const groups = new Map();
    for (const each of samples) groups.set(each.group, [...(groups.get(each.group) ?? []), each]);
    const ranked = [...groups].sort(([a, left], [b, right]) => (a === null) - (b === null) || right.length - left.length);
    const bars = ranked.slice(0, 12).map(([group, of]) => {
      const share = of.length / samples.length;
      const verdict = group === null ? null : of[0].ok;
      const title = group === null ? "no answer" : spelling(of);
      const label = `${of.length} of ${samples.length}: ${title}`;
      return make("button", { type: "button", class: `vote ${explorer.VERDICTS.get(verdict ?? null).kind}`, "data-group": `${number}:${group}`, "aria-label": label, title: label, onclick: () => explorer.samples.toggle(`group:${number}:${group}`) },
        explorer.mark(verdict), make("span", { class: "answer" }, text.answer(group === null ? null : title)),
        make("span", { class: "bar", style: { "--share": share } }), make("span", { class: "n" }, of.length), make("span", { class: "n soft" }, percent(share)));
    });
    const rest = ranked.length > bars.length && make("p", { class: "soft" }, `and ${explorer.plural(ranked.length - bars.length, "other answer")} with fewer votes`);
    return make("div", { class: "ballot" }, titled && make("h3", {}, catalog.models[number].label), bars, rest);
  }

  function spelling(samples) {
    const often = new Map();
    for (const each of samples) often.set(each.answer, (often.get(each.answer) ?? 0) + 1);
    return [...often].sort(([a, left], [b, right]) => right - left || String(a).length - String(b).length)[0][0];
  }

  function nextModel(catalog) {
    const labels = ["*", ...catalog.models.map((each) => each.label)];
    const pressed = labels.indexOf(state.read().who || "*");
    state.change({ who: labels[(pressed + 1) % labels.length], only: "" });
  }

  return { show, close: () => { shownKey = null; }, nextModel };
})();
