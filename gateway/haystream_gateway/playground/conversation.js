// The turns of a conversation and what was chosen for it, kept for as long as the tab is open. Never the key.

import { Turn } from "./turn.js";

const KEY = "haystream.conversation";

export class Conversation {
  constructor({ pipeline = "", settings = {}, turns = [] } = {}) {
    this.pipeline = pipeline; // empty: the service's default one
    this.settings = settings; // the text of each form, by its name
    this.turns = turns.map((turn) => Turn.from(turn));
  }

  static restored() {
    try {
      return new Conversation(JSON.parse(sessionStorage.getItem(KEY)) ?? {});
    } catch {
      return new Conversation(); // storage that is forbidden, or of another version
    }
  }

  /** Store all; where there is too much, without the oldest turns. */
  save() {
    for (let oldest = 0; oldest <= this.turns.length; oldest++) {
      try {
        sessionStorage.setItem(KEY, JSON.stringify({ ...this, turns: this.turns.slice(oldest) }));
        return;
      } catch {
        // over the browser's quota: try with one turn less
      }
    }
  }

  get newest() {
    return this.turns.at(-1);
  }

  /** Return what a request asks: the question alone, or the whole chat so far. A turn without an answer was none. */
  asking(question) {
    const messages = this.turns
      .filter(({ answer }) => answer)
      .flatMap((turn) => [
        { role: "user", content: turn.question },
        { role: "assistant", content: turn.answer },
      ]);
    if (!messages.length) return { query: question };
    return { messages: [...messages, { role: "user", content: question }] };
  }
}
