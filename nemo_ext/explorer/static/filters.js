"use strict";
// Which problems are listed, and in what order.

explorer.filters = (() => {
  const FACETS = ["benchmark", "level", "subject", "source"];
  const MAX_CHOICES = 300; // more values than that are no categories
  const some = (test) => (stats) => stats.some(test);
  /** name -> [words, title, test of the statistics of the chosen models, of all models] */
  const FLAGS = {
    disagree: ["graders disagree", "Two graders gave one sample different verdicts", some((each) => each.disagree > 0)],
    lost: ["majority wrong, some right", "A right answer was found, and outvoted", some((each) => each.right === false && each.correct > 0)],
    differ: ["models differ", "The vote of one model is right, of another wrong", (_, all) => new Set(all.map((each) => each.right === true)).size > 1],
    cut: ["truncated", "A sample was cut off at the token limit", some((each) => each.cut > 0)],
    none: ["no answer", "A sample gave no answer", some((each) => each.none > 0)],
    unsolved: ["never right", "No sample is right", (stats) => stats.length > 0 && stats.every((each) => each.correct === 0)],
    solved: ["always right", "Every sample is right", (stats) => stats.length > 0 && stats.every((each) => each.correct === each.n)],
  };
  const SORTS = { order: "as evaluated", accuracy: "accuracy", votes: "vote share", id: "id", tokens: "tokens" };
  const collator = new Intl.Collator("en", { numeric: true });
  const mean = (values) => (values.length ? values.reduce((sum, each) => sum + each, 0) / values.length : -1);
  const VALUES = {
    accuracy: (stats) => mean(stats.map((each) => each.accuracy)),
    votes: (stats) => mean(stats.map((each) => each.share)),
    tokens: (stats) => mean(stats.map((each) => each.tokens ?? 0)),
  };

  const chosen = (problem, model) => (model === -1 ? problem.models : [problem.models[model]]).filter(Boolean);
  const flagsOf = (state) => (state.flags ?? "").split(",").filter((name) => name in FLAGS);

  const wordsOf = (state) => (state.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);

  /** {listed, counts: flag -> how many there would be}. `found`: numbers of problems whose samples have the words. */
  function apply(problems, state, model, found) {
    const words = wordsOf(state);
    const facets = FACETS.filter((facet) => state[facet]);
    const flags = flagsOf(state);
    const counts = Object.fromEntries(Object.keys(FLAGS).map((name) => [name, 0]));
    const listed = [];
    for (const problem of problems) {
      if (!facets.every((facet) => problem[facet] === state[facet])) continue;
      if (!words.every((word) => problem.searched.includes(word)) && !found?.has(problem.number)) continue;
      const stats = chosen(problem, model);
      if (!stats.length) continue;
      const raised = new Set(Object.keys(FLAGS).filter((name) => FLAGS[name][2](stats, problem.models.filter(Boolean))));
      if (!flags.every((name) => raised.has(name))) continue;
      for (const name of raised) counts[name]++;
      listed.push(problem);
    }
    return { listed: sorted(listed, state, model), counts };
  }

  function sorted(problems, state, model) {
    const sort = state.sort in SORTS ? state.sort : "order";
    const sign = state.dir === "down" ? -1 : 1;
    if (sort === "order") return sign > 0 ? problems : problems.toReversed();
    if (sort === "id") return problems.toSorted((a, b) => sign * (collator.compare(a.benchmark, b.benchmark) || collator.compare(a.id, b.id)));
    const values = new Map(problems.map((each) => [each, VALUES[sort](chosen(each, model))]));
    return problems.toSorted((a, b) => sign * (values.get(a) - values.get(b)) || a.number - b.number);
  }

  /** facet -> its values, where there is a choice. */
  function choices(problems) {
    const found = {};
    for (const facet of FACETS) {
      const values = [...new Set(problems.map((each) => each[facet]))].filter(Boolean).sort(collator.compare);
      if (values.length > 1 && values.length <= MAX_CHOICES) found[facet] = values;
    }
    return found;
  }

  return { FLAGS, SORTS, apply, choices, flagsOf, wordsOf };
})();
