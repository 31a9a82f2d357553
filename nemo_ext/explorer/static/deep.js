"use strict";
// Words looked for in the samples of all problems: every part is read, one after another, and what is found shown meanwhile.

explorer.deep = (() => {
  let search = null; // {key, words, found, done, of}

  const holds = (sample, words) => {
    const text = (sample.generation ?? "").toLowerCase();
    return words.every((word) => text.includes(word));
  };

  /** The search for these words, begun if it is not the one under way: {found: numbers of problems, done, of: parts}. */
  function find(words, problems, models, changed) {
    const key = words.join(" ");
    if (search?.key !== key) {
      const counts = models.map((_, model) => problems.reduce((most, each) => Math.max(most, (each.models[model]?.last ?? -1) + 1), 0));
      search = { key, words, found: new Set(), done: 0, of: counts.reduce((sum, each) => sum + each, 0) };
      read(search, counts, changed).catch((error) => explorer.notice(error.message));
    }
    return search;
  }

  async function read(mine, counts, changed) {
    for (const [model, count] of counts.entries()) {
      for (let part = 0; part < count; part++) {
        for await (const entries of explorer.store.entries(`problems/${model}`, part, part)) {
          if (mine !== search) return; // other words by now
          for (const [number, entry] of entries) {
            if (Array.isArray(entry) && holds(explorer.samples.read(entry), mine.words)) mine.found.add(number);
          }
        }
        mine.done++;
        changed();
      }
    }
  }

  const stop = () => { search = null; };
  /** Whether it is one of the samples that were looked for. */
  const has = (sample) => search !== null && holds(sample, search.words);

  return { find, stop, has };
})();
