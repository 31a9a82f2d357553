"use strict";
// What is shown is in the address: #view=problems&q=triangle&open=math500%2F7. Everything follows from it.

explorer.state = (() => {
  const read = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

  const address = (state) => {
    const kept = Object.entries(state).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    return `#${new URLSearchParams(kept)}`;
  };

  /** Change some keys. `step`: the back button undoes it; otherwise it takes the place of what is shown. */
  function change(changes, step = false) {
    const next = address({ view: explorer.view, ...read(), ...changes });
    if (next === location.hash) return;
    if (step) location.hash = next;
    else location.replace(next);
  }

  return { read, change, address };
})();
