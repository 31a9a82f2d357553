"use strict";
// The samples of a problem: verdicts, numbers and the generation, which is drawn when it comes into sight.

explorer.samples = (() => {
  const { make, state, text } = explorer;
  const FIELDS = ["sample", "ok", "answer", "verdicts", "finish", "prompt_tokens", "tokens", "seed", "reward", "generation", "group", "extra"];
  const ONLY = {
    right: ["right", (each) => each.ok === true], wrong: ["wrong", (each) => each.ok === false],
    none: ["no answer", (each) => each.group === null], cut: ["truncated", (each) => each.finish === "length"],
    disagree: ["graders disagree", (each) => disagrees(each)],
    found: ["with the words", (each) => explorer.deep.has(each)],
  };
  let shown = [], pane = null, buttons = null;

  const read = (entry) => Object.fromEntries(FIELDS.map((name, place) => [name, entry[place]]));

  function disagrees(sample) {
    const given = Object.values(sample.verdicts ?? {});
    return given.includes(true) && given.includes(false);
  }

  const sight = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) fill(entry.target);
  }, { rootMargin: "600px" });

  function fill(body) {
    sight.unobserve(body);
    if (body.dataset.filled) return;
    body.dataset.filled = "yes";
    body.replaceChildren(...text.rich(body.sample.generation ?? ""));
    body.style.minHeight = "";
  }

  function card({ model, number }, sample, titled) {
    const lines = Math.ceil((sample.generation ?? "").length / 110) + 1;
    const body = make("div", { class: "generation prose", style: { "min-height": `${Math.min(600, 22 * lines)}px` } });
    body.sample = sample;
    sight.observe(body);
    const verdicts = Object.entries(sample.verdicts ?? {});
    const numbers = [
      sample.finish === "length" ? make("span", { class: "warn" }, "✂ truncated") : sample.finish && `finish: ${sample.finish}`,
      sample.tokens !== null && `${explorer.plural(sample.tokens, "token")}`, sample.seed !== null && `seed ${sample.seed}`,
      sample.reward !== null && `reward ${Number(sample.reward).toPrecision(3)}`,
    ];
    const extra = Object.keys(sample.extra ?? {}).length > 0 && make("details", {}, make("summary", {}, "More of this row"), make("pre", { class: "code" }, JSON.stringify(sample.extra, null, 2)));
    const element = make("article", { class: `sample ${explorer.VERDICTS.get(sample.ok ?? null).kind}`, "aria-label": `Sample ${sample.sample}` },
      make("header", {}, make("span", { class: "number" }, titled ? model.label : "", titled && !(sample.sample > 0) ? "" : ` #${sample.sample}`), explorer.verdict(sample.ok),
        make("span", { class: "answer" }, text.answer(sample.answer)),
        verdicts.length > 0 && make("span", { class: "graders" }, verdicts.map(([name, value]) => explorer.verdict(value, name)), disagrees(sample) && make("span", { class: "warn" }, "≠ disagree")),
        make("span", { class: "numbers" }, numbers.filter(Boolean).map((each) => make("span", {}, each)),
          make("button", { type: "button", class: "quiet source", title: "Show the text as it was generated", "aria-pressed": "false", onclick: (event) => source(event.currentTarget, body) }, "source"))),
      body, extra);
    return { element, sample, model: number };
  }

  function source(button, body) {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    body.replaceChildren(...(on ? [make("pre", { class: "code" }, body.sample.generation ?? "")] : text.rich(body.sample.generation ?? "")));
  }

  /** of: [{model, samples}] */
  function show(into, of, only) {
    sight.disconnect();
    pane = into;
    const numbered = of.map((each) => ({ ...each, number: each.model.number }));
    shown = numbered.flatMap((each) => each.samples.map((sample) => card(each, sample, of.length > 1)));
    buttons = make("div", { class: "only", role: "group", "aria-label": "Only samples that are" }, Object.entries(ONLY).map(([name, [words, test]]) => {
      const matching = shown.filter(({ sample }) => test(sample)).length;
      return matching > 0 && matching < shown.length && make("button", { type: "button", class: "chip", "data-only": name, "aria-pressed": "false", onclick: () => toggle(name) }, words, make("b", {}, matching));
    }), make("output", { class: "soft" }));
    const short = shown.every(({ sample }) => (sample.generation ?? "").length < 1500);
    const grid = make("div", { class: `grid ${of.length > 1 && short ? "many" : ""}` }, shown.map(({ element }) => element));
    pane.replaceChildren(buttons, grid);
    filter(only);
  }

  const toggle = (name) => state.change({ only: state.read().only === name ? "" : name });

  function filter(only) {
    const [, model, group] = only.startsWith("group:") ? only.split(":") : [];
    const test = model !== undefined ? (each) => String(each.model) === model && String(each.sample.group) === group : only in ONLY ? (each) => ONLY[only][1](each.sample) : () => true;
    let visible = 0;
    for (const each of shown) { each.element.hidden = !test(each); visible += !each.element.hidden; }
    for (const button of pane?.querySelectorAll(".chip") ?? []) button.setAttribute("aria-pressed", String(button.dataset.only === only));
    for (const bar of document.querySelectorAll(".vote")) bar.setAttribute("aria-pressed", String(only === `group:${bar.dataset.group}`));
    if (buttons) buttons.lastChild.textContent = visible === shown.length ? explorer.plural(visible, "sample") : `${visible} of ${explorer.plural(shown.length, "sample")}`;
  }

  const print = () => { for (const { element } of shown) for (const body of element.querySelectorAll(".generation")) fill(body); };

  return { read, show, filter, toggle, print };
})();
