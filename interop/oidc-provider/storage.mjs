// What the server knows, in memory and, where there is a file, in that as well.
//
// oidc-provider's own store forgets what is beyond a thousand entries, and a
// load comes there: each access token, grant and assertion is one.
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { deserialize, serialize } from 'node:v8';

import MemoryAdapter from 'oidc-provider/lib/adapters/memory_adapter.js';

class Store {
  #file;

  #entries = new Map();

  constructor(file) {
    this.#file = file;
    if (file && existsSync(file)) this.#entries = deserialize(readFileSync(file));
  }

  get(key) {
    const entry = this.#entries.get(key);
    if (entry && entry.until <= Date.now()) {
      this.#entries.delete(key);
      return undefined;
    }
    return entry?.value;
  }

  set(key, value, { maxAge = Infinity } = {}) {
    this.#entries.set(key, { value, until: Date.now() + maxAge });
    this.#save();
  }

  delete(key) {
    this.#entries.delete(key);
    this.#save();
  }

  // At once and as a whole: the tests kill the server.
  #save() {
    if (!this.#file) return;
    writeFileSync(`${this.#file}.new`, serialize(this.#entries), { mode: 0o600 });
    renameSync(`${this.#file}.new`, this.#file);
  }
}

// seconds that a token is kept beyond its end, as oidc-provider itself does
const tolerance = 15;

// adapter makes what oidc-provider wants as its option of that name.
export const adapter = (file) => {
  const store = new Store(file);
  return (model) => new MemoryAdapter(model, store, tolerance);
};
