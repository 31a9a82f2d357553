"use strict";
// A list of any length: only the rows on the screen exist.

explorer.List = class {
  /** draw(item) -> children of its row; open(item, position): it was chosen; key(item): what `current` is compared with. */
  constructor({ label, height, draw, open }) {
    const { make } = explorer;
    Object.assign(this, { height, draw, open, items: [], at: -1 });
    this.rows = make("div", { class: "rows", role: "presentation" });
    this.element = make("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": label }, this.rows);
    this.element.addEventListener("scroll", () => this.later());
    // By place, and not by the click: a row that is drawn anew between the press and the release gets none.
    const place = (event) => Math.floor((event.clientY - this.rows.getBoundingClientRect().top) / this.height);
    this.element.addEventListener("pointerdown", (event) => { this.pressed = event.button === 0 ? place(event) : -1; });
    this.element.addEventListener("pointerup", (event) => {
      const at = place(event);
      if (at === this.pressed && at >= 0 && at < this.items.length) this.choose(at);
      this.pressed = -1;
    });
    this.element.addEventListener("click", (event) => { // of a screen reader, which presses nothing
      const row = event.detail === 0 && event.target.closest(".row");
      if (row) this.choose(Number(row.id.replace("option-", "")));
    });
    new ResizeObserver(() => this.later()).observe(this.element);
  }

  later() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = null; this.render(); });
  }

  show(items, at) {
    this.items = items;
    this.at = at;
    this.render();
  }

  /** Move the mark to a row and bring it into sight. */
  select(at) {
    if (!this.items.length) return;
    this.at = Math.max(0, Math.min(this.items.length - 1, at));
    const { scrollTop, clientHeight } = this.element;
    const top = this.at * this.height;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.element.scrollTop = top + this.height - clientHeight;
    this.render();
  }

  choose(at) {
    this.select(at);
    this.open(this.items[this.at], this.at);
  }

  render(all = false) {
    const { make } = explorer;
    const beyond = 6;
    const first = all ? 0 : Math.max(0, Math.floor(this.element.scrollTop / this.height) - beyond);
    const visible = all ? 500 : Math.ceil(this.element.clientHeight / this.height) + 2 * beyond;
    const drawn = this.items.slice(first, first + visible).map((item, index) => {
      const at = first + index;
      const attributes = { id: `option-${at}`, class: "row", role: "option", "aria-selected": at === this.at ? "true" : "false" };
      const place = { "aria-setsize": this.items.length, "aria-posinset": at + 1, style: { top: `${at * this.height}px`, height: `${this.height}px` } };
      return make("div", { ...attributes, ...place }, this.draw(item));
    });
    this.rows.style.height = `${this.items.length * this.height}px`;
    this.rows.replaceChildren(...drawn);
    if (this.at >= 0 && this.at < this.items.length) this.element.setAttribute("aria-activedescendant", `option-${this.at}`);
    else this.element.removeAttribute("aria-activedescendant");
  }
};
