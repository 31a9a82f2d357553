"use strict";
// Reads the catalog, shows the view that the address names, and listens to the keyboard.

(async () => {
  const { make, state, count } = explorer;
  const views = [explorer.problems, explorer.rows];
  let catalog;

  const present = () => views.filter(({ name }) => (name === "rows" ? catalog.stages.length : catalog.problems));
  const current = () => present().find(({ name }) => name === state.read().view) ?? present()[0];

  /** Contracts that differ in more than the model make scores that must not be compared. */
  explorer.contracts = ({ models }) => {
    const known = models.filter((each) => each.contract);
    const keys = Object.keys(known[0]?.contract ?? {}).filter((key) => key !== "model_hash" && key !== "seeds");
    const unlike = keys.filter((key) => new Set(known.map((each) => JSON.stringify(each.contract[key]))).size > 1);
    return unlike.length > 0 && make("p", { class: "caution", role: "note" }, make("b", {}, "Not comparable: "),
      `these evaluations differ in ${unlike.map((key) => key.replaceAll("_", " ")).join(", ")}.`);
  };

  function tabs() {
    const sizes = { problems: catalog.problems, rows: catalog.stages.length };
    const labels = { problems: "Problems", rows: "Stages and rows" };
    document.getElementById("tabs").replaceChildren(...present().map(({ name }) => make("a", {
      href: state.address({ view: name }), "aria-current": current().name === name ? "page" : null }, labels[name], make("b", {}, count(sizes[name])))));
  }

  function show() {
    const view = current();
    if (!view) return;
    explorer.view = view.name; // what an address without a view means
    tabs();
    view.show(state.read());
  }

  function typing(target) {
    return target.matches?.("input, textarea, select, [contenteditable]");
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("keys").open) return;
    const view = current();
    const search = document.querySelector("input[type=search]");
    if (event.key === "Escape") {
      if (event.target === search) { search.blur(); if (search.value) { search.value = ""; state.change({ q: "" }); } event.preventDefault(); } else if (view?.close()) event.preventDefault();
      return;
    }
    if (typing(event.target)) {
      if (event.target === search && (event.key === "Enter" || event.key === "ArrowDown")) { search.blur(); view.move(1); event.preventDefault(); }
      return;
    }
    const inDetail = event.target.closest?.(".detail"); // where arrows scroll
    const actions = {
      j: () => view.move(1), k: () => view.move(-1), "/": () => { search?.focus(); search?.select(); }, "?": () => document.getElementById("keys").showModal(),
      m: () => view === explorer.problems && state.read().open && explorer.problem.nextModel(catalog),
    };
    if (!inDetail) Object.assign(actions, { ArrowDown: actions.j, ArrowUp: actions.k });
    if (event.key === "Enter" && !event.target.closest("button, a, summary")) actions.Enter = () => view.choose();
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  }

  function listen() {
    addEventListener("hashchange", show);
    addEventListener("keydown", key);
    addEventListener("beforeprint", () => { current().print(); explorer.samples.print(); });
    addEventListener("afterprint", show);
    document.getElementById("help").addEventListener("click", () => document.getElementById("keys").showModal());
    document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); document.querySelector(".list")?.focus(); });
  }

  try {
    [catalog] = await explorer.store.part("catalog");
    catalog.models.forEach((each, number) => { each.number = number; });
    if (!present().length) throw new Error("There is nothing to show: no evaluation and no rows.");
    explorer.rows.load(catalog);
    listen();
    const loading = catalog.problems ? explorer.problems.load(catalog) : null;
    show();
    await loading;
    show();
    performance.mark("explorer-listed");
    await explorer.text.loadKatex();
    performance.mark("explorer-typeset");
  } catch (error) {
    explorer.notice(error.message);
    throw error;
  }
})();
