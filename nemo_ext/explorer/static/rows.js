"use strict";
// The stages of a run as a funnel; of one, the rows that it kept and dropped.

explorer.rows = (() => {
  const { make, state, count, percent } = explorer;
  const HEIGHT = 46;
  const KEPT = "kept";
  const PROSE = new Set(["problem", "question", "generation", "solution", "generated_solution", "text"]);
  let catalog, parts, list, stage = null, all = [], listed = [], token = 0;

  const load = (given) => { catalog = given; };
  const name = (group) => group.reason || KEPT;
  const words = (reason) => reason.replaceAll("_", " ");

  function build(main) {
    list = new explorer.List({ label: "Rows", height: HEIGHT, draw: row, open: (item) => open(item) });
    let timer;
    const search = make("input", { type: "search", name: "q", placeholder: "text in any key  /", autocomplete: "off", spellcheck: "false",
      oninput: (event) => { clearTimeout(timer); timer = setTimeout(() => state.change({ q: event.target.value, row: "" }), 120); } });
    parts = {
      search, title: make("div", { class: "stage-head" }), reasons: make("div", { class: "reasons" }), total: make("output", { class: "total", "aria-live": "polite" }),
      detail: make("article", { class: "detail", tabindex: "-1", "aria-label": "Row" }), funnel: make("nav", { class: "funnel", "aria-label": "Stages" }),
    };
    parts.split = make("div", { class: "split" }, make("section", { class: "pane" }, list.element), parts.detail);
    parts.root = make("div", { class: "view stages" }, parts.funnel, make("section", { class: "stage" }, parts.title, parts.reasons,
      make("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() }, make("div", { class: "line" }, make("label", { class: "field search" }, make("span", {}, "Search"), search), parts.total)), parts.split));
    main.replaceChildren(parts.root);
  }

  // the funnel

  const rowsOf = (each) => each.groups.reduce((sum, group) => sum + group.rows, 0);

  function funnel(shown) {
    const most = Math.max(1, ...catalog.stages.map((each) => Math.max(each.rows_in ?? 0, rowsOf(each))));
    const step = (each) => {
      const into = each.rows_in ?? rowsOf(each), kept = each.groups[0].rows;
      const lost = Math.max(0, into - kept);
      return make("a", { href: state.address({ view: "rows", stage: each.stage }), class: "step", "aria-current": each.stage === shown.stage ? "true" : null },
        make("span", { class: "label" }, each.stage),
        make("span", { class: "n" }, into === kept ? count(kept) : `${count(into)} → ${count(kept)}`),
        make("span", { class: "flow", title: `${count(kept)} kept, ${count(lost)} dropped` },
          make("i", { class: "kept", style: { "--share": kept / most } }), make("i", { class: "lost", style: { "--share": lost / most } })));
    };
    parts.funnel.replaceChildren(make("h2", {}, "Stages"), ...catalog.stages.map(step));
  }

  // one stage

  async function enter(each) {
    const mine = ++token;
    stage = each;
    all = [];
    list.at = -1;
    list.element.scrollTop = 0;
    for (const [place, group] of each.groups.entries()) {
      if (!group.parts) continue;
      for await (const rows of explorer.store.entries(`rows/${catalog.stages.indexOf(each)}/${place}`, 0, group.parts - 1)) {
        if (mine !== token) return;
        for (const content of rows) all.push({ group, content, number: all.length, title: titleOf(content), searched: null });
      }
      if (explorer.view === "rows") draw(state.read());
    }
  }

  /** What a row is called in the list. */
  function titleOf(content) {
    for (const key of ["problem", "question", "text", "generation"]) if (typeof content[key] === "string") return content[key];
    return Object.values(content).find((value) => typeof value === "string" && value.length > 30) ?? JSON.stringify(content);
  }

  function row({ group, content, title }) {
    const about = content.id ?? content.problem_source ?? "";
    return [make("span", { class: `tag ${group.reason ? "dropped" : "kept"}` }, words(name(group))),
      make("span", { class: "text" }, explorer.text.inline(title)), make("small", { class: "soft" }, String(about))];
  }

  function reasons(shown) {
    const total = rowsOf(stage);
    const toggle = (group) => state.change({ reason: shown.reason === name(group) ? "" : name(group), row: "" });
    const segments = stage.groups.filter((group) => group.rows).map((group) => make("button", {
      type: "button", class: `segment ${group.reason ? "dropped" : "kept"}`, style: { "flex-grow": group.rows }, "aria-pressed": String(shown.reason === name(group)), tabindex: "-1",
      title: `${words(name(group))}: ${count(group.rows)} rows`, "aria-hidden": "true", onclick: () => toggle(group) }));
    const legend = stage.groups.map((group) => make("button", { type: "button", class: `chip ${group.reason ? "dropped" : "kept"}`, "data-reason": name(group), "aria-pressed": String(shown.reason === name(group)), onclick: () => toggle(group) },
      words(name(group)), make("b", {}, count(group.rows)), make("small", {}, total ? percent(group.rows / total) : "")));
    for (const [place, segment] of segments.entries()) segment.style.setProperty("--place", place);
    for (const [place, chip] of legend.filter((_, index) => stage.groups[index].rows).entries()) chip.style.setProperty("--place", place);
    parts.reasons.replaceChildren(make("div", { class: "segments" }, segments), make("div", { class: "line chips", role: "group", "aria-label": "Only rows that are" }, legend));
  }

  function show(shown) {
    if (!parts?.root.isConnected) build(document.getElementById("main"));
    const each = catalog.stages.find(({ stage: label }) => label === shown.stage) ?? catalog.stages[0];
    funnel({ ...shown, stage: each.stage });
    if (each !== stage) enter(each).catch((error) => explorer.notice(error.message));
    draw(shown);
  }

  function draw(shown) {
    const took = stage.seconds ? ` · ${stage.seconds < 90 ? `${stage.seconds.toFixed(1)} s` : `${Math.round(stage.seconds / 60)} min`}` : "";
    parts.title.replaceChildren(make("h2", {}, stage.stage), make("span", { class: "soft" }, `${stage.uses}${took}`));
    reasons(shown);
    if (parts.search.value !== (shown.q ?? "") && parts.search !== document.activeElement) parts.search.value = shown.q ?? "";
    const asked = (shown.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    listed = all.filter((item) => (!shown.reason || name(item.group) === shown.reason) && asked.every((word) => searched(item).includes(word)));
    const groups = stage.groups.filter((group) => !shown.reason || name(group) === shown.reason);
    const there = groups.reduce((sum, group) => sum + group.rows, 0);
    const sampled = groups.some((group) => group.shown < group.rows);
    parts.total.textContent = `${count(listed.length)} of ${count(there)} shown${sampled ? ", a random sample" : ""}`;
    const opened = shown.row !== undefined && shown.row !== "" ? all[Number(shown.row)] : undefined;
    parts.split.classList.toggle("opened", Boolean(opened));
    parts.detail.hidden = !opened;
    const at = opened ? listed.indexOf(opened) : Math.min(list.at, listed.length - 1);
    list.show(listed, at);
    if (opened && at >= 0) list.select(at);
    if (!listed.length) list.rows.replaceChildren(make("p", { class: "empty" }, there ? (asked.length ? "No row has that text." : "Loading…") : "No row is like that."));
    if (opened) detail(opened);
  }

  const searched = (item) => (item.searched ??= Object.values(item.content).map((value) => (typeof value === "string" ? value : JSON.stringify(value))).join("\n").toLowerCase());

  function detail({ group, content }) {
    const { reason, ...rest } = content;
    const short = Object.entries(rest).filter(([key, value]) => value === null || (typeof value !== "object" && String(value).length <= 80 && !PROSE.has(key)));
    const long = Object.entries(rest).filter(([key]) => !short.some(([other]) => other === key));
    const verdict = (value) => (typeof value === "boolean" ? make("span", { class: "flag" }, String(value)) : String(value));
    parts.detail.replaceChildren(
      make("div", { class: "detail-head" }, make("span", { class: `tag ${group.reason ? "dropped" : "kept"}` }, group.reason ? `dropped: ${words(reason ?? group.reason)}` : KEPT),
        make("span", { class: "steps" }, make("button", { type: "button", class: "quiet source", "aria-pressed": "false", onclick: (event) => source(event.currentTarget, content) }, "JSON"),
          make("button", { type: "button", class: "quiet", title: "Close (Esc)", "aria-label": "Close", onclick: () => close() }, "✕"))),
      make("div", { class: "card-body" }, long.map(([key, value]) => make("section", { class: "key" }, make("h3", {}, key),
        typeof value === "string" ? make("div", { class: "prose" }, explorer.text.rich(value)) : make("pre", { class: "code", tabindex: "0" }, JSON.stringify(value, null, 2)))),
      make("dl", { class: "keys" }, short.map(([key, value]) => [make("dt", {}, key), make("dd", {}, key.includes("answer") && value !== null ? explorer.text.answer(value) : verdict(value))]))));
    parts.detail.scrollTop = 0;
  }

  function source(button, content) {
    const on = button.getAttribute("aria-pressed") !== "true";
    if (!on) { draw(state.read()); return; }
    button.setAttribute("aria-pressed", "true");
    parts.detail.querySelector(".card-body").replaceChildren(make("pre", { class: "code" }, JSON.stringify(content, null, 2)));
  }

  function open(item) {
    state.change({ row: item.number }, !state.read().row);
    if (matchMedia("(max-width: 900px)").matches) parts.detail.focus();
  }

  function move(by) {
    if (!listed.length) return;
    const to = list.at < 0 ? 0 : Math.max(0, Math.min(listed.length - 1, list.at + by));
    if (state.read().row) list.choose(to); else list.select(to);
  }

  const choose = () => { if (list.at >= 0) list.choose(list.at); };
  const close = () => { if (state.read().row) { state.change({ row: "" }); list.element.focus(); return true; } return false; };
  const print = () => list.render(true);

  return { load, show, move, choose, close, print, name: "rows" };
})();
