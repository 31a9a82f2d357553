"use strict";
// Parts: scripts that call explorer.receive(name, base64 of gzip of JSON), since a page opened from disk may not fetch.

explorer.store = (() => {
  const KEPT = 48; // decoded parts, of at most 0.7 MB each
  const arrived = new Map();
  const loading = new Map();

  explorer.receive = (name, packed) => arrived.set(name, packed);

  function script(source) {
    return new Promise((resolve, reject) => {
      const element = explorer.make("script", { src: source });
      element.onload = () => { element.remove(); resolve(); };
      element.onerror = () => { element.remove(); reject(new Error(`${source} could not be read. Was the whole folder copied?`)); };
      document.head.append(element);
    });
  }

  function bytes(packed) {
    const binary = atob(packed);
    const decoded = new Uint8Array(binary.length);
    for (let index = 0; index < binary.length; index++) decoded[index] = binary.charCodeAt(index);
    return decoded;
  }

  async function fetchPart(name) {
    if (typeof DecompressionStream === "undefined") throw new Error("This browser is too old to unpack the data: any of 2023 or newer can.");
    await script(`parts/${name}.js`);
    const packed = arrived.get(name);
    arrived.delete(name);
    if (packed === undefined) throw new Error(`parts/${name}.js holds no data. Make the page again with redo=true.`);
    const stream = new Blob([bytes(packed)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  function part(name) {
    let promise = loading.get(name);
    loading.delete(name); // the one used last is forgotten last
    if (!promise) {
      promise = fetchPart(name);
      promise.catch(() => loading.delete(name));
    }
    loading.set(name, promise);
    if (loading.size > KEPT) loading.delete(loading.keys().next().value);
    return promise;
  }

  const name = (series, number) => `${series}/${String(number).padStart(5, "0")}`;

  /** The entries of parts `first` to `last` of a series, one part after another. */
  async function* entries(series, first, last) {
    const numbers = Array.from({ length: last - first + 1 }, (_, index) => first + index);
    const parts = numbers.map((number) => part(name(series, number)));
    parts.forEach((each) => each.catch(() => {}));
    for (const each of parts) yield await each;
  }

  return { part, entries, script };
})();
